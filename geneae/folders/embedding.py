"""Latents in files that other tools read: AnnData, CSV, Parquet, NumPy."""

import errno
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem, write_elem

from geneae.data.containers import check_all, check_own
from geneae.data.formats import is_anndata
from geneae.data.gene_names import match_genes
from geneae.data.preprocess import Expression
from geneae.data.profiles import Profiles
from geneae.folders import copies
from geneae.folders.copies import as_anndata, genes_of, write_rows
from geneae.folders.tables import write_parquet, write_table
from geneae.models.depths import MIN_MOLECULES
from geneae.models.model import Model, latent_names
from geneae.models.query_depth import QueryDepth, by_ratio, ratios_of
from geneae.settings.errors import InputError, listed, unknown
from geneae.settings.text import counted, escaped

TABLES = {".csv": write_table, ".parquet": write_parquet}
FORMATS = (".h5ad", *TABLES, ".npy")
LATENTS = "X_geneae"
"""Key of the latents in `obsm` if no other is given."""
RECONSTRUCTED, FROM_LATENT = "geneae_reconstructed", "geneae_latent_only"
CHUNK = 1024  # profiles reconstructed at a time
SLACK = 2**18  # bytes of an .h5ad beside its values: names of entries, attributes, ends of chunks


def check_key(key: Any, what: str = "key_added") -> None:
    """Refuse a key under which AnnData cannot keep an entry, because it would be read as a path or be lost.

    Parameters
    ----------
    key
        Key of an entry of obs, obsm or layers.
    what
        Name of the argument, for the message.
    """
    is_text = isinstance(key, str)
    if not is_text or key.strip() in ("", ".", "..") or "/" in key or escaped(key) != key:
        found = f"'{key}'" if is_text else type(key).__name__
        raise InputError(
            f"{what} must be a name without '/' and control characters, and not empty, '.' or '..'; found {found}. "
            f"Give a name such as {LATENTS}."
        )


def check_format(path: Path, reconstruct: bool, key_added: str | None, formats: Sequence[str] = FORMATS) -> None:
    """Refuse an output with an unknown ending, or one that cannot hold what is asked for: a reconstruction, a key."""
    if path.suffix not in formats:
        raise InputError(f"the output must end in {', '.join(formats)}; found '{path.name}'.")
    if key_added is not None:
        check_key(key_added, "--key-added")
    if key_added is not None and path.suffix != ".h5ad":
        raise InputError(
            f"--key-added names an entry of obsm and needs an output ending in .h5ad; found '{path.name}'. Leave it "
            "out, or choose another output."
        )
    if reconstruct and path.suffix != ".h5ad":
        raise InputError(
            f"a reconstruction is written as a layer and needs an output ending in .h5ad; found '{path.name}'."
        )


@dataclass(frozen=True, eq=False)
class Embedded:
    """Profiles with their latents."""

    model: Model
    """Fitted model."""
    profiles: Profiles
    """The profiles, with their names."""
    expression: Expression
    """The same in the genes of the model."""
    latent: np.ndarray
    """(n_profiles, n_latent)"""
    deviation: np.ndarray | None
    """(n_profiles, n_latent) posterior standard deviations of the latents; None for a model without an estimator."""
    depths: list[QueryDepth]
    """Depth of the profiles; empty for a model that knows one depth only."""
    is_blank: np.ndarray
    """(n_profiles,) whether nothing can be said about a profile, see `Model.is_blank`: its latents are NaN."""

    def sentences(self) -> list[str]:
        """How deep the profiles are, what the model cannot tell of that, and how many have no latents."""
        said = [depth.sentence() for depth in self.depths]
        if self.model.estimator is None and self.model.preprocess.state == "counts":
            said.append(
                "This model knows one depth only: shallower or deeper profiles are read as if they were as deep as "
                "training profiles."
            )
        if self.is_blank.any():
            few = "no value" if self.model.estimator is None else f"fewer than {MIN_MOLECULES} molecules"
            has, have = (f"{verb} {few} in the genes of the model: " for verb in ("profile has", "profiles have"))
            n_blank = int(self.is_blank.sum())
            said.append(counted(n_blank, f"{has}its latents are NaN.", f"{have}their latents are NaN."))
        return said

    def in_obsm(self, key_added: str) -> dict[str, np.ndarray]:
        """Entries of `obsm`: the latents and, if they are known, their deviations under `key_added` + `_sd`."""
        entries = {key_added: self.latent}
        return entries if self.deviation is None else entries | {f"{key_added}_sd": self.deviation}

    def describe(self, key_added: str) -> dict[str, Any]:
        """Contents of `uns["geneae"]`: those of `describe`, the matrix that was read, and, where the data lack genes of
        the training file, the share of its molecules that was in the others."""
        described = describe(self.model, key_added, self.depths) | {"matrix": self.profiles.location}
        coverage = self.expression.coverage
        return described if coverage is None else described | {"share_of_molecules": coverage.share_found}

    @cached_property
    def ratios(self) -> np.ndarray:
        """(n_profiles,) depth ratio of each profile."""
        return ratios_of(self.depths, len(self.latent))


def embed(
    model: Model,
    profiles: Profiles,
    expression: Expression,
    ratio: float | None = None,
    groups: pd.Series | None = None,
) -> Embedded:
    """Latents of profiles at their depth, see `geneae.models.query_depth.query_depths`; NaN for those of which nothing
    can be said, see `Model.is_blank`, and finite for all others."""
    depths = model.depths_of(expression, ratio, groups)
    ratios = ratios_of(depths, expression.n_profiles) if depths else None
    latent, is_blank = model.latent_and_blank(expression, ratios)
    deviation = model.latent_deviation(expression, ratios)
    bad = np.flatnonzero(~np.isfinite(latent).all(1) & ~is_blank)
    if len(bad):
        raise InputError(
            f"latents must be finite numbers; those of {len(bad):,} of {counted(len(latent), 'profile')} are not, "
            f"first of '{profiles.names[bad[0]]}'. Look for extreme values in these profiles, or get the model again."
        )
    latent[is_blank] = np.nan
    if deviation is not None:
        deviation[is_blank] = np.nan
    return Embedded(model, profiles, expression, latent, deviation, depths, is_blank)


def depth_groups(profiles: Profiles, depth_by: str | None, depth_ratio: float | None) -> pd.Series | None:
    """Column of `obs` by which depths are estimated, or None. Refuse an unknown column, or a ratio beside it."""
    if depth_by is None:
        return None
    if depth_ratio is not None:
        raise InputError(
            f"--depth-by estimates a depth for each value of a column, but --depth-ratio {depth_ratio:g} gives one for "
            "all. Give only one of them."
        )
    if depth_by not in profiles.obs.columns:
        raise unknown("obs column", depth_by, profiles.obs.columns)
    return profiles.obs[depth_by]


@dataclass(frozen=True, eq=False)
class Annotation:
    """What is added to an .h5ad beside latents."""

    obs: pd.DataFrame
    """Columns of `obs`, a row for each profile."""
    uns: dict[str, Any]
    """Entries of `uns["geneae"]`."""

    def add_to(self, obs: pd.DataFrame) -> None:
        """Add the columns to a table of the same profiles, in place of any of the same names."""
        for name in self.obs.columns:
            obs[name] = self.obs[name].to_numpy() if self.obs[name].dtype != "category" else self.obs[name].array


NOTHING = Annotation(pd.DataFrame(), {})


def write_embedding(
    path: Path,
    data: str | tuple[str, ...],
    embedded: Embedded,
    key_added: str,
    reconstruct: bool,
    annotation: Annotation = NOTHING,
) -> list[str]:
    """Write latents in the format that the ending of `path` names; returns what an .h5ad has in place of entries of the
    data, such as `obsm['X_geneae']`.

    Parameters
    ----------
    path
        `.h5ad`, `.csv`, `.parquet` or `.npy`.
    data
        The file that the profiles come from, or several; an `.h5ad` output is a copy of one that is AnnData, and of
        everything else holds the matrix that was read, `obs` and `var`.
    embedded
        The profiles with their latents.
    key_added
        Key of the latents in `obsm`.
    reconstruct
        Add the dense reconstructions as layers, with NaN for genes that the model does not know.
    annotation
        Added to an `.h5ad` output.
    """
    latent, profiles = embedded.latent, embedded.profiles
    if path.suffix == ".npy":
        _save_array(path, latent)
        return []
    table = pd.DataFrame(latent, columns=latent_names(latent.shape[1]))
    table.insert(0, "profile", profiles.names)
    if path.suffix in TABLES:
        TABLES[path.suffix](table, path)
        return []
    paths = (data,) if isinstance(data, str) else data
    copied = Path(paths[0]) if len(paths) == 1 and is_anndata(Path(paths[0])) else None
    if profiles.is_streamed and (copied is None or copied.is_file()):
        return _add_to_copy(path, copied, embedded, key_added, reconstruct, annotation)
    adata = as_anndata(profiles) if copied is None else copies.read_whole(str(copied))
    layers = layers_of(embedded.model) if reconstruct else ()
    new = (embedded.in_obsm(key_added), layers, annotation.obs.columns)
    replaced = _taken(new, (adata.obsm.keys(), adata.layers.keys(), adata.obs.columns))
    adata.obsm.update(embedded.in_obsm(key_added))
    adata.uns["geneae"] = embedded.describe(key_added) | annotation.uns
    annotation.add_to(adata.obs)
    if reconstruct:
        for name, layer in reconstructions(embedded, genes_of(profiles, adata.var)).items():
            adata.layers[name] = layer
    check_space(path, SLACK + int(1.05 * adata.__sizeof__()))
    try:
        adata.write_h5ad(path)
    except (TypeError, ValueError) as error:  # a .zarr holds names that HDF5 does not
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(
            f"{profiles.source} cannot be written as .h5ad: {reason}. Choose an output ending in .csv, .parquet or "
            ".npy."
        ) from error
    return replaced


def _taken(new: tuple[Iterable[str], ...], there: tuple[Iterable[str], ...]) -> list[str]:
    """Entries of obsm, layers and obs that are there already, such as `obsm['X_geneae']`."""
    parts = zip(("obsm", "layers", "obs"), new, there, strict=True)
    return [f"{part}['{name}']" for part, names, known in parts for name in names if name in set(known)]


def replaced_sentence(replaced: list[str], data: str) -> str:
    """Which entries of the data the output has new values for; empty if there are none."""
    return f"In the output {listed(replaced)} of {data} {'is' if len(replaced) == 1 else 'are'} replaced." * bool(
        replaced
    )


def _save_array(path: Path, array: np.ndarray) -> None:
    """Write an .npy file as `np.save` does, which on a full disk loses the end of an array without an error."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(np.ascontiguousarray(array).data)


def check_space(path: Path, n_bytes: int) -> None:
    """Raise the `OSError` of a file of this size where a disk, a quota or a limit would cut it off.

    HDF5 may crash the process when it cannot write, so that no error could be reported.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, n_bytes)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
    finally:
        path.unlink(missing_ok=True)


def _add_to_copy(
    path: Path, data: Path | None, embedded: Embedded, key_added: str, reconstruct: bool, annotation: Annotation
) -> list[str]:
    """Write an .h5ad that does not fit into memory: copy the file on disk, then add the latents to the copy.

    Where there is no file that could be copied, profiles are written as they are read.
    """
    n_profiles = len(embedded.latent)
    n_values = sum(values.size for values in embedded.in_obsm(key_added).values())
    if reconstruct:
        n_values += len(layers_of(embedded.model)) * n_profiles * embedded.profiles.n_genes
    n_bytes = int(1e6 * embedded.profiles.megabytes) if data is None else data.stat().st_size
    check_space(path, SLACK + n_bytes + 4 * n_values)
    if data is None:
        write_rows(path, embedded.profiles)
    else:
        shutil.copyfile(data, path)
        with h5py.File(path, "r") as file:
            check_all(file, str(data), allows_loops=True)  # it is copied as it is
            check_own(file, ("obsm", "uns", "layers"), str(data))
    with h5py.File(path, "r+") as file:
        entries: dict[str, Any] = {f"obsm/{key}": values for key, values in embedded.in_obsm(key_added).items()}
        entries["uns/geneae"] = embedded.describe(key_added) | annotation.uns
        layers = layers_of(embedded.model) if reconstruct else ()
        there = [list(file[name]) if name in file else [] for name in ("obsm", "layers", "obs")]
        replaced = _taken((embedded.in_obsm(key_added), layers, annotation.obs.columns), tuple(there))
        if len(annotation.obs.columns):
            obs = read_elem(file["obs"])
            annotation.add_to(obs)
            entries["obs"] = obs
        for name in entries:
            if file.get(name, getlink=True) is not None:
                del file[name]  # a link of this name goes, and not what it leads to
        for name, values in entries.items():
            above, _, key = name.rpartition("/")  # anndata 0.13 takes no paths
            if above and above not in file:
                write_elem(file, above, {})
            write_elem(file[above] if above else file, key, values)
        if not reconstruct:
            return replaced
        genes = genes_of(embedded.profiles, read_elem(file["var"]))
        shape, chunk = (n_profiles, len(genes)), (min(CHUNK, n_profiles), len(genes))
        for name in layers_of(embedded.model):
            if file.get(f"layers/{name}", getlink=True) is not None:
                del file[f"layers/{name}"]
            layer = file.create_dataset(f"layers/{name}", shape, np.float32, chunks=chunk)
            layer.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        for start in range(0, n_profiles, CHUNK):
            rows = np.arange(start, min(start + CHUNK, n_profiles))
            for name, values in _reconstructed(embedded, rows, genes).items():
                file[f"layers/{name}"][rows[0] : rows[-1] + 1] = values
    return replaced


def describe(model: Model, key_added: str, depths: Sequence[QueryDepth] = ()) -> dict[str, Any]:
    """Contents of `uns["geneae"]`: key of the latents, origin of the model, space of a reconstruction, depth.

    Settings that are None are left out, because an .h5ad cannot store None everywhere.
    """
    config = model.config
    described = {
        "version": config["versions"]["geneae"],
        "key_added": key_added,
        "objective": config["settings"].get("objective", "reconstruction"),
        "loss": config["settings"]["loss"],
        "center": config["center"],
        "settings": {name: value for name, value in config["settings"].items() if value is not None},
        "space": model.preprocess.space,
        "units": f"log1p of molecules per {model.preprocess.target_sum:,.0f}"
        if model.preprocess.state == "counts"
        else "those of the matrix that the model was fitted on",
        "missing": "NaN for genes that the model does not know",
        "fitted_on": config["data"]["fingerprint"],
    }
    if depths:
        described["depth"] = {
            name: np.array([depth.recorded()[name] for depth in depths]) for name in depths[0].recorded()
        }
        molecules = depths[0].of_training  # NaN where the depth was given
        depth = "the depth of the training profiles" + f", {molecules:,.0f} molecules" * (molecules > 0)
        depth = "the depth of the profiles themselves, at most that of training profiles" if model.own_depth else depth
        described["reference_depth"] = f"reconstructions are expected values at {depth}"
    return described


def layers_of(model: Model) -> tuple[str, ...]:
    """Names of the reconstructions of a model: with own counts and, if that differs, from the latent alone."""
    return (RECONSTRUCTED,) if model.estimator is None else (RECONSTRUCTED, FROM_LATENT)


def reconstructions(embedded: Embedded, genes: pd.Index) -> dict[str, np.ndarray]:
    """Dense float32 (n_profiles, n_genes) reconstructions in the order of `genes`, by name; NaN for unknown genes."""
    n_profiles = len(embedded.latent)
    result = {name: np.empty((n_profiles, len(genes)), np.float32) for name in layers_of(embedded.model)}
    for start in range(0, n_profiles, CHUNK):
        rows = np.arange(start, min(start + CHUNK, n_profiles))
        for name, values in _reconstructed(embedded, rows, genes).items():
            result[name][rows] = values
    return result


def _reconstructed(embedded: Embedded, rows: np.ndarray, genes: pd.Index) -> dict[str, np.ndarray]:
    """Reconstructions of some profiles."""
    columns = match_genes(embedded.model.preprocess.genes, genes).columns
    known = columns >= 0
    result = {name: np.full((len(rows), len(genes)), np.nan, np.float32) for name in layers_of(embedded.model)}
    for ratio, some in by_ratio(embedded.ratios[rows]):
        model = embedded.model.at(ratio)
        found = {FROM_LATENT: model.reconstruction(embedded.latent[rows[some]])}
        if model.estimator is None:
            found = {RECONSTRUCTED: found[FROM_LATENT]}
        else:
            found[RECONSTRUCTED] = model.reconstructed(embedded.expression.take(rows[some]).load())
        for name, values in found.items():
            values[embedded.is_blank[rows[some]]] = np.nan
            result[name][np.ix_(some, columns[known])] = values[:, known]
    return result
