"""Reading of profiles from AnnData in memory or in a file, from arrays and from tables."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.abc import CSCDataset, CSRDataset
from anndata.io import read_elem
from scipy import sparse

from geneae.data.backed import BackedMatrix, FirstLook, ahead, canonical, row_digests, stored_rows
from geneae.data.containers import check_all, check_folder, check_parts, check_stored
from geneae.data.matrices import as_array, is_stored, is_there, look_at, matrices_of, opened, with_places
from geneae.data.matrix_check import Fingerprint, Values, as_counts
from geneae.data.notes import Facts, in_words, kept_features
from geneae.data.profiles import CHUNK_ROWS, Origin, Profiles, ReadAs, check_unique, free_megabytes, megabytes, stamp_of
from geneae.data.states import given_state
from geneae.settings.errors import InputChanged, InputError, did_you_mean, listed, reason_of, unknown
from geneae.settings.settings import RUN_OPTIONS, SETTINGS, STREAMS

CHUNK = 2**22  # values checked at a time: 16 MB as float32, and about 100 MB of temporaries for a dense block
FIT_SIZE = 8  # memory of a fit relative to its matrix: copies, halves, their transposes


X = "X"
"""How X itself is named where a layer could be."""


class NoSuchMatrix(InputError):
    """A matrix that some data do not have."""


def read_profiles(
    data: Any,
    layer: str | None = None,
    use_raw: bool = False,
    stream: str = "no",
    state: str = SETTINGS["state"].default,
    features: str = SETTINGS["features"].default,
) -> Profiles:
    """Profiles from a file, AnnData, array or table, after a check of every value.

    Only the requested matrix and the annotation are read from a file. A float32 CSR matrix in memory is shared, not
    copied. Input that cannot be used raises `InputError`.

    Parameters
    ----------
    data
        Path of an `.h5ad` file or `.zarr` folder, AnnData (in memory or backed), numpy or scipy array, or DataFrame
        with genes as columns. Profiles and genes without names are named "0", "1", ...
    layer
        Name of a layer to read instead of `X`; `"X"` is X itself, unless a layer has this name.
    use_raw
        Read `raw` instead of `X`.
    stream
        `yes` leaves the matrix in its file and reads rows when they are needed; `no` reads it into memory; `auto`
        streams if a fit in memory would need more than half of the free memory.
    state
        What the values are, a name in `geneae.data.states.STATES`; `auto` tells by all of them. `counts` also recovers
        counts from normalised values and logarithms, where every value is a whole multiple of one unit of its profile.
    features
        `genes` leaves out features that are not of type "Gene Expression", if `var["feature_types"]` names some that
        are; `all` keeps them.
    """
    read_as = ReadAs(SETTINGS["state"].check(state), SETTINGS["features"].check(features))
    RUN_OPTIONS["use_raw"].check(use_raw)
    if stream not in STREAMS:
        raise unknown("stream", stream, STREAMS)
    if layer is not None and use_raw:
        raise InputError(f"either a layer or raw can be read; both layer '{layer}' and raw were requested. Drop one.")
    if isinstance(data, str | os.PathLike):
        return _read_path(Path(data), layer, use_raw, stream, read_as)
    if isinstance(data, anndata.AnnData):
        return _read_anndata(data, layer, use_raw, "AnnData in memory", stream, read_as)
    if stream == "yes":
        raise InputError(f"only files can be streamed; found {type(data).__name__}. Give a path, or leave out stream.")
    if layer is not None or use_raw:
        raise InputError(f"only AnnData has layers and raw; found {type(data).__name__}. Leave out layer and raw.")
    if isinstance(data, pd.DataFrame):
        frame = pd.DataFrame(index=data.index)
        return _build(as_array(data), frame, _var(data.columns), "table in memory", "X", "no", read_as)
    if not _is_array(data):
        raise InputError(
            "profiles can be read from a path, AnnData, a numpy or scipy array, or a DataFrame; found "
            f"{type(data).__name__}. Convert it to one of these."
        )
    if data.ndim != 2:
        raise InputError(f"an array of profiles x genes must have two dimensions; its shape is {data.shape}.")
    frame = pd.DataFrame(index=pd.RangeIndex(data.shape[0]))
    return _build(data, frame, _var(pd.RangeIndex(data.shape[1])), "array in memory", "X", "no", read_as)


def _is_array(data: Any) -> bool:
    return sparse.issparse(data) or (isinstance(data, np.ndarray) and not isinstance(data, np.ma.MaskedArray))


def _var(genes: pd.Index) -> pd.DataFrame:
    """Annotation of genes that have nothing but a name."""
    return pd.DataFrame(index=genes)


def _read_path(path: Path, layer: str | None, use_raw: bool, stream: str, read_as: ReadAs) -> Profiles:
    """Profiles from a file that stays the same meanwhile; errors of storage libraries become one clear error."""
    _check_path(path)
    stamp = stamp_of(path)
    profiles = _read_open(path, layer, use_raw, stream, read_as)
    if stamp_of(path) != stamp:
        raise InputChanged(f"{path} changed while it was read. Run again with a file that stays as it is.")
    return replace(profiles, origin=Origin(path, layer, use_raw, stamp, read_as))


def check_unchanged(profiles: Profiles, also_in_memory: bool = False) -> None:
    """Refuse profiles whose file is not what it was when they were read.

    If its size and time are those of before, it is taken to be the same; otherwise it is read again, and its
    fingerprint decides. Profiles in memory are what they are, so that their file is looked at only if asked to.
    """
    origin = profiles.origin
    if origin is None or not (profiles.is_streamed or also_in_memory) or stamp_of(origin.path) == origin.stamp:
        return
    try:
        stream = "yes" if profiles.is_streamed else "auto"
        again = _read_open(origin.path, origin.layer, origin.use_raw, stream, origin.read_as, is_anew=True)
        is_same = again.fingerprint == profiles.fingerprint
    except InputError:
        is_same = False
    if not is_same:
        raise InputChanged(
            f"{origin.path} changed while it was in use: its content is not what it was when it was first read. Run "
            "again with a file that stays as it is."
        )


def _read_open(
    path: Path, layer: str | None, use_raw: bool, stream: str, read_as: ReadAs, is_anew: bool = False
) -> Profiles:
    """Profiles from an existing file.

    Anew means past what HDF5 keeps in memory of a file that is open in this process, and shares between all who open
    the file by its path. Streamed profiles then have their fingerprint, and their file is closed.
    """
    is_fresh = is_anew and path.is_file()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old formats, repeated names: our own errors report what matters
            with contextlib.ExitStack() as stack:
                group = stack.enter_context(_open(path, stack.enter_context(path.open("rb")) if is_fresh else path))
                if "obs" in group and "encoding-type" not in group["obs"].attrs:  # written before anndata 0.7
                    check_all(group, str(path))
                    return _read_anndata(anndata.read_h5ad(path), layer, use_raw, str(path), stream, read_as)
                profiles = _read_group(group, layer, use_raw, str(path), stream, read_as)
                if profiles.is_streamed and not is_fresh:
                    stack.pop_all()  # the file stays open as long as its matrix is in use
                return profiles
    except (InputError, MemoryError):
        raise
    except Exception as error:  # HDF5, zarr, codecs and anndata raise errors without a common class
        reason = reason_of(error)
        raise InputError(
            f"{path} should be a complete AnnData file, but reading it failed: {reason}. "
            "An interrupted copy or download is a common cause; copy, download or write it again."
        ) from error


def _check_path(path: Path) -> None:
    if not path.exists():
        there = sorted(os.listdir(path.parent)) if path.parent.is_dir() else []
        nothing = "." if path.parent.is_dir() else f"; nor does its folder {path.parent}."
        hint = did_you_mean(path.name, there) or nothing
        raise InputError(f"{path} does not exist{hint} Give the path of an .h5ad file or .zarr folder.")
    if path.is_dir():
        if not any((path / name).exists() for name in (".zgroup", "zarr.json")):
            raise InputError(
                f"{path} is a folder, but not a .zarr written by anndata. Give an .h5ad file; convert a 10x folder "
                "with scanpy.read_10x_mtx(folder).write_h5ad('data.h5ad')."
            )
    elif not h5py.is_hdf5(path):
        raise InputError(
            f"{path} should be an .h5ad (HDF5) file, but its content is not HDF5. Convert a table of profiles x genes "
            "with anndata.io.read_csv('table.csv').write_h5ad('data.h5ad'); download or copy a damaged .h5ad again."
        )


def _open(path: Path, file: Any) -> contextlib.AbstractContextManager[Any]:
    """Root of a container at `path`; HDF5 is read from `file`, the path or an open file."""
    if path.is_dir():
        check_folder(path)
        import zarr  # slow to import, and most files are .h5ad

        return contextlib.nullcontext(zarr.open_group(path, mode="r"))
    opened: contextlib.AbstractContextManager[Any] = h5py.File(file, "r")
    return opened


def _read_group(group: Any, layer: str | None, use_raw: bool, source: str, stream: str, read_as: ReadAs) -> Profiles:
    """Profiles from the root of an HDF5 file or zarr folder."""
    if "obs" not in group or "var" not in group:
        raise InputError(
            f"{source} holds {listed(group)}, but AnnData has obs and var. Convert a 10x .h5 file with "
            "scanpy.read_10x_h5(file).write_h5ad('data.h5ad'), a loom file with "
            "anndata.io.read_loom(file).write_h5ad('data.h5ad')."
        )
    if "mod" in group:
        raise InputError(
            f"{source} is MuData with the modalities {listed(group['mod'])}; one AnnData was expected. Write the "
            "modality with gene expression to its own file, for example mdata['rna'].write_h5ad('data.h5ad')."
        )
    layers = list(group["layers"]) if "layers" in group else []
    layer = _named(layer, layers)
    has_raw = is_there(group, "raw") and "X" in group["raw"]
    location = _choose(source, layer, use_raw, layers, is_there(group, "X"), has_raw)
    place = ("layers", layer) if layer is not None else ("raw", "X") if use_raw else ("X",)
    check_parts(group, (place, ("obs",), ("raw", "var") if use_raw else ("var",)), source)
    node = group["/".join(place)]
    var = read_elem(group["raw/var" if use_raw else "var"])
    profiles = _build(opened(node), read_elem(group["obs"]), var, source, location, stream, read_as)
    return profiles if profiles.state == "counts" else with_places(profiles, matrices_of(group))


def read_states(path: Path) -> dict[str, str]:
    """What every matrix of a file holds, by place and in words, as far as its first profiles tell.

    Empty for a file in a format from before anndata 0.7.
    """
    found = {}
    with warnings.catch_warnings(), _open(path, path) as group:
        warnings.simplefilter("ignore")
        if "obs" not in group or "encoding-type" not in group["obs"].attrs:
            return {}
        for place, matrix in matrices_of(group).items():
            finding = look_at(matrix)
            found[place] = "no profiles that can be used" if finding is None else in_words(finding)
    return found


def _read_anndata(
    adata: anndata.AnnData, layer: str | None, use_raw: bool, source: str, stream: str, read_as: ReadAs
) -> Profiles:
    layers, has_raw = list(adata.layers), adata.raw is not None
    layer = _named(layer, layers)
    x = adata.X if layer is None and not use_raw else None  # a copy if this is a view: made once, and only if needed
    location = _choose(source, layer, use_raw, layers, x is not None, has_raw)
    matrix = adata.layers[layer] if layer is not None else adata.raw.X if use_raw else x
    if not (_is_array(matrix) or is_stored(matrix)):
        kind = f"{type(matrix).__module__}.{type(matrix).__name__}"
        raise InputError(f"{source}, {location} must be in memory or in a file; found {kind}. Use adata.to_memory().")
    var = (adata.raw if use_raw else adata).var
    profiles = _build(matrix, adata.obs, var, source, location, stream, read_as)
    if profiles.state == "counts":
        return profiles
    others = {f"layers['{name}']": adata.layers[name] for name in layers}
    others |= {"raw": adata.raw.X} if has_raw and not use_raw else {}
    has_other_x = location != "X" and not adata.isbacked and adata.X is not None  # a backed one may lack it
    return with_places(profiles, others | ({"X": adata.X} if has_other_x else {}))


def _named(layer: str | None, layers: list[str]) -> str | None:
    """The layer to read; None where X is named."""
    return None if layer == X and X not in layers else layer


def _choose(source: str, layer: str | None, use_raw: bool, layers: list[str], has_x: bool, has_raw: bool) -> str:
    """Name of the requested matrix; an error if it does not exist, never another matrix."""
    if use_raw and not has_raw:
        raise NoSuchMatrix(f"{source} has no raw. Leave raw out; its layers: {listed(layers)}.")
    if layer is not None and layer not in layers:
        raise NoSuchMatrix(str(unknown("layer", layer, layers)))
    if layer is None and not use_raw and not has_x:
        there = f"layers: {listed(layers)}; raw: {'yes' if has_raw else 'no'}"
        raise NoSuchMatrix(f"{source} has no X. Choose another matrix ({there}).")
    return f"layers['{layer}']" if layer is not None else "raw" if use_raw else X


def _build(
    matrix: Any, obs: pd.DataFrame, var: pd.DataFrame, source: str, location: str, stream: str, read_as: ReadAs
) -> Profiles:
    """Profiles from a matrix of any kind, after checks of its shape, names, type and values."""
    where = f"{source}, {location}"
    names, genes = _as_names(obs.index), _as_names(var.index)
    if tuple(matrix.shape) != (len(names), len(genes)):
        found = f"a matrix of {' x '.join(map(str, matrix.shape))}"
        raise InputError(
            f"{where}: found {found} for {len(names)} profiles x {len(genes)} genes. Write the file again."
        )
    if 0 in matrix.shape:
        found = f"{len(names)} profiles x {len(genes)} genes"
        raise InputError(
            f"{where}: at least one profile and one gene are needed; found {found}. Check earlier filters."
        )
    check_unique(names, f"{where}: profile", "adata.obs_names_make_unique()")
    check_unique(genes, f"{where}: gene", "adata.var_names_make_unique()")
    if matrix.dtype.kind not in "biuf":
        raise InputError(f"{where}: values must be real numbers; found type {matrix.dtype}. Convert them to float32.")
    check_stored(matrix, where)
    kept, left_out = kept_features(
        var["feature_types"] if read_as.features == "genes" and "feature_types" in var else None
    )
    every, genes = genes, genes if kept is None else genes[kept]
    is_streamed = _is_to_stream(matrix, stream, where)
    if isinstance(matrix, CSRDataset | CSCDataset) and not is_streamed:
        matrix = matrix.to_memory()
    parts: list[sparse.csr_matrix] = []
    looks: list[np.ndarray] = []
    values = Values()
    digest = Fingerprint(names, genes) if is_streamed else None
    for block in ahead(_row_blocks(matrix)):
        _check_finite(block, values, where, names, every)
        chosen = block if kept is None else canonical(block[:, kept])
        values.add(chosen)
        with np.errstate(over="ignore"):  # reported by check_float32
            if is_streamed and kept is not None:
                looks.append(row_digests(canonical(block.astype(np.float32))))
            chosen = chosen.astype(np.float32, copy=False)
        if digest is None:
            parts.append(chosen)
        else:
            digest.add(chosen)
    values.check_float32(where)
    evidence = values.evidence()
    finding = given_state(evidence, read_as.state, where)
    if finding.state == "counts":
        values.check_counts(where)
    scan = values.scan(digest, finding)
    obs = obs.set_axis(names, axis=0)
    facts = Facts(finding, names, genes, values.totals_by_gene, left_out)
    is_changed = finding.state == "counts" and (evidence.n_exact < evidence.n_values or finding.unit is not None)
    if is_streamed:
        if is_changed:
            raise InputError(
                f"{where}: these values have to be turned into counts ({finding.said}), which takes them in memory. "
                "Use --stream no, or write a file that holds the counts."
            )
        look = None if digest is None else FirstLook(where, np.concatenate(looks) if looks else digest.row_digests)
        backed = BackedMatrix(matrix, np.arange(len(names)), scan.lengths, kept, look)
        return Profiles(backed, names, genes, obs, scan, source, location, facts=facts)
    csr = canonical(parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr"))
    if is_changed:
        csr, scan = as_counts(csr, scan, where)
    return Profiles(csr, names, genes, obs, scan, source, location, facts=facts)


def _is_to_stream(matrix: Any, stream: str, where: str) -> bool:
    """Whether the matrix should stay in its file."""
    is_by_rows = is_stored(matrix) and not isinstance(matrix, CSCDataset)
    if stream == "yes" and not is_by_rows:
        if isinstance(matrix, CSCDataset):
            size = megabytes(int(matrix.group["data"].shape[0]), matrix.shape[1])
            raise InputError(
                f"{where} is stored gene by gene (CSC), which does not allow reading single profiles. Convert it once, "
                f"which takes about {2 * size:,.0f} MB of memory: adata = anndata.read_h5ad(FILE); "
                "adata.X = adata.X.tocsr(); adata.write_h5ad(NEW)."
            )
        raise InputError(f"{where} is in memory, and only files can be streamed. Give a path, or leave out stream.")
    if stream != "auto" or not is_by_rows:
        return stream == "yes"
    is_sparse = isinstance(matrix, CSRDataset)
    n_values = int(matrix.group["data"].shape[0]) if is_sparse else matrix.shape[0] * matrix.shape[1] // 4
    return megabytes(n_values, matrix.shape[0]) * FIT_SIZE > free_megabytes() / 2


def _check_finite(block: sparse.csr_matrix, values: Values, where: str, names: pd.Index, genes: pd.Index) -> None:
    """Raise `InputError` that names the first NaN or infinite value of the next rows."""
    bad = np.flatnonzero(~np.isfinite(block.data))
    if len(bad):
        name = names[values.n_profiles + np.searchsorted(block.indptr, bad[0], side="right") - 1]
        raise InputError(
            f"{where}: every value must be a finite number; {len(bad)} are NaN or infinite, first in profile "
            f"'{name}', gene '{genes[block.indices[bad[0]]]}'. Remove these profiles or genes, or fill in the values."
        )


def _as_names(index: pd.Index) -> pd.Index:
    return pd.Index([str(name) for name in index], dtype=object, name=index.name)


def _row_blocks(matrix: Any) -> Iterator[sparse.csr_matrix]:
    """Blocks of canonical rows: all at once for a sparse matrix in memory, some at a time for any other."""
    is_sparse = sparse.issparse(matrix)  # a separate name, because mypy would narrow the type to one without methods
    if is_sparse:
        if matrix.format in ("csr", "csc"):
            matrix.check_format(full_check=True)  # indices out of range would crash the compiled code
        yield canonical(sparse.csr_matrix(matrix.tocsr()))
        return
    n_rows = CHUNK_ROWS if isinstance(matrix, CSRDataset) else max(1, CHUNK // matrix.shape[1])
    for start in range(0, matrix.shape[0], n_rows):
        yield stored_rows(matrix, start, min(start + n_rows, matrix.shape[0]))
