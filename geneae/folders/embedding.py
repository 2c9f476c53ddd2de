"""Latents in files that other tools read: AnnData, CSV, Parquet, NumPy."""

import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem, write_elem

from geneae.data.containers import check_all, check_own
from geneae.data.preprocess import Expression
from geneae.data.profiles import Profiles
from geneae.models.model import Model, latent_names
from geneae.models.query_depth import QueryDepth, by_ratio, ratios_of
from geneae.settings.errors import InputError, unknown

FORMATS = (".h5ad", ".csv", ".parquet", ".npy")
RECONSTRUCTED, FROM_LATENT = "geneae_reconstructed", "geneae_latent_only"
CHUNK = 1024  # profiles reconstructed at a time


def check_format(path: Path, reconstruct: bool) -> None:
    """Refuse an output with an unknown ending, or one that cannot hold a reconstruction if one is asked for."""
    if path.suffix not in FORMATS:
        raise InputError(f"the output must end in {', '.join(FORMATS)}; found '{path.name}'.")
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
    depths: list[QueryDepth]
    """Depth of the profiles; empty for a model that knows one depth only."""

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
    """Latents of profiles at their depth, see `geneae.models.query_depth.query_depths`; all of them finite."""
    depths = model.depths_of(expression.totals, ratio, groups)
    ratios = ratios_of(depths, expression.n_profiles) if depths else None
    latent = model.latent(expression, ratios)
    bad = np.flatnonzero(~np.isfinite(latent).all(1))
    if len(bad):
        raise InputError(
            f"latents must be finite numbers; those of {len(bad):,} of {len(latent):,} profiles are not, first of "
            f"'{profiles.names[bad[0]]}'. Look for extreme values in these profiles, or get the model again."
        )
    return Embedded(model, profiles, expression, latent, depths)


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


def write_embedding(path: Path, data: str, embedded: Embedded, key_added: str, reconstruct: bool) -> None:
    """Write latents in the format that the ending of `path` names.

    Parameters
    ----------
    path
        `.h5ad`, `.csv`, `.parquet` or `.npy`.
    data
        The file that the profiles come from; an `.h5ad` output is a copy of it.
    embedded
        The profiles with their latents.
    key_added
        Key of the latents in `obsm`.
    reconstruct
        Add the dense reconstructions as layers, with NaN for genes that the model does not know.
    """
    latent, profiles = embedded.latent, embedded.profiles
    if path.suffix == ".npy":
        np.save(path, latent, allow_pickle=False)
        return
    table = pd.DataFrame(latent, index=profiles.names, columns=latent_names(latent.shape[1]))
    if path.suffix == ".csv":
        table.to_csv(path, index_label="profile")
    elif path.suffix == ".parquet":
        table.rename_axis("profile").reset_index().to_parquet(path, index=False)
    elif profiles.is_streamed and Path(data).is_file():
        _add_to_copy(path, Path(data), embedded, key_added, reconstruct)
    else:
        adata = _read(data)
        adata.obsm[key_added] = latent
        adata.uns["geneae"] = describe(embedded.model, key_added, embedded.depths)
        if reconstruct:
            for name, layer in reconstructions(embedded, pd.Index(adata.var_names.astype(str))).items():
                adata.layers[name] = layer
        adata.write_h5ad(path)


def _add_to_copy(path: Path, data: Path, embedded: Embedded, key_added: str, reconstruct: bool) -> None:
    """Write an .h5ad that does not fit into memory: copy the file on disk, then add the latents to the copy."""
    shutil.copyfile(data, path)
    n_profiles = len(embedded.latent)
    with h5py.File(path, "r") as file:
        check_all(file, str(data))
        check_own(file, ("obsm", "uns", "layers"), str(data))
    with h5py.File(path, "r+") as file:
        for name in (f"obsm/{key_added}", "uns/geneae"):
            if file.get(name, getlink=True) is not None:
                del file[name]  # a link of this name goes, and not what it leads to
        write_elem(file, f"obsm/{key_added}", embedded.latent)
        write_elem(file, "uns/geneae", describe(embedded.model, key_added, embedded.depths))
        if not reconstruct:
            return
        genes = pd.Index(read_elem(file["var"]).index.astype(str))
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


def _read(data: str) -> anndata.AnnData:
    """Everything in a file, none of it from elsewhere."""
    if not Path(data).is_dir():
        with h5py.File(data, "r") as file:
            check_all(file, data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # everything that matters was reported when the profiles were read
            return anndata.read_zarr(data) if Path(data).is_dir() else anndata.read_h5ad(data)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # HDF5, zarr, codecs and anndata raise errors without a common class
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"an .h5ad output is a copy of {data}, but not all of it can be read: {reason}. Write an output that ends "
            "in .csv, .parquet or .npy, or remove that part of the file."
        ) from error


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
        described["reference_depth"] = (
            f"reconstructions are expected values at {depths[0].of_training:,.0f} molecules, the depth of the training "
            "profiles"
        )
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
    columns = embedded.model.preprocess.genes.get_indexer(genes)
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
            result[name][np.ix_(some, np.flatnonzero(known))] = values[:, columns[known]]
    return result
