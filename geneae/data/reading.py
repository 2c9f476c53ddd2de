"""Reading of profiles from files of every format, from AnnData in memory, from arrays and from tables."""

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from anndata.abc import CSCDataset, CSRDataset
from scipy import sparse

from geneae.data import memory
from geneae.data.anndata_groups import found_in_anndata
from geneae.data.backed import (
    BackedMatrix,
    FirstLook,
    ahead,
    canonical,
    row_digests,
    stored_rows,
    widened,
)
from geneae.data.containers import check_stored
from geneae.data.formats import check_no_url, failed_reading, format_of
from geneae.data.gene_names import made_unique, named_by
from geneae.data.joined import join, names_of, with_facts
from geneae.data.matrices import as_array, in_memory, is_array, is_stored, with_places
from geneae.data.matrix_check import Fingerprint, Values, as_counts
from geneae.data.matrix_choice import Found, MatrixChoice
from geneae.data.notes import Facts, kept_features, types_of_none
from geneae.data.profiles import CHUNK_ROWS, Origin, Profiles, check_unique, megabytes, stamp_of
from geneae.data.row_sources import JoinedSource, SparseRowSource, is_row_source
from geneae.data.states import given_state
from geneae.settings.errors import InputChanged, InputError, listed, reason_of, unknown
from geneae.settings.settings import RUN_OPTIONS, SETTINGS, STREAMS
from geneae.settings.text import counted

CHUNK = 2**22  # values checked at a time: 16 MB as float32, and about 100 MB of temporaries for a dense block
FIT_SIZE = 8  # memory of a fit relative to its matrix: copies, halves, their transposes


def read_profiles(
    data: Any,
    layer: str | None = None,
    use_raw: bool = False,
    stream: str = "no",
    state: str = SETTINGS["state"].default,
    features: str = SETTINGS["features"].default,
    gene_names: str | None = None,
    modality: str | None = None,
) -> Profiles:
    """Profiles from files, AnnData, an array or a table, after a check of every value.

    Only the requested matrix and the annotation are read from a file. A float32 CSR matrix in memory is shared, not
    copied. Gene names that repeat are made unique as scanpy does. Input that cannot be used raises `InputError`; what
    was understood and could be meant otherwise is said in `Profiles.said`.

    Parameters
    ----------
    data
        Path of a file or folder of any of `geneae.data.formats.FORMATS`; a list of such paths, which are read as one
        in the genes that all of them have, see `geneae.data.joined.join`; AnnData (in memory or backed) or MuData;
        numpy or scipy array; or DataFrame with genes as columns. Profiles and genes without names are named "0", "1",
        ...
    layer
        Name of a layer to read instead of `X`; `"X"` is X itself, unless a layer has this name.
    use_raw
        Read `raw` instead of `X`.
    stream
        `yes` leaves the matrix in its file and reads rows when they are needed; `no` reads it into memory; `auto`
        streams if a fit in memory would need more than half of the free memory, and the file can be read by rows.
    state
        What the values are, a name in `geneae.data.states.STATES`; `auto` tells by all of them. `counts` also recovers
        counts from normalised values and logarithms, where every value is a whole multiple of one unit of its profile.
    features
        `genes` leaves out features that are not of type "Gene Expression", if `var["feature_types"]` names some that
        are; `all` keeps them.
    gene_names
        Column of `var` that names the genes; None: its index.
    modality
        Modality of MuData; None: the only one, or `rna`.
    """
    RUN_OPTIONS["use_raw"].check(use_raw)
    if stream not in STREAMS:
        raise unknown("stream", stream, STREAMS)
    choice = MatrixChoice(layer, use_raw, state, features, gene_names, modality)
    if paths := _paths_of(data):
        return _read_paths(paths, choice, stream)
    if type(data).__name__ == "MuData":  # which needs a package that nothing else here does
        name, said = choice.modality_of("MuData in memory", data.mod)
        found = found_in_anndata(data.mod[name], replace(choice, modality=None), "MuData in memory")
        return _build(replace(found, said=said), choice, "MuData in memory", stream)
    if isinstance(data, anndata.AnnData):
        return _build(found_in_anndata(data, choice, "AnnData in memory"), choice, "AnnData in memory", stream)
    if stream == "yes":
        raise InputError(f"only files can be streamed; found {type(data).__name__}. Give a path, or leave out stream.")
    if layer is not None or use_raw:
        raise InputError(f"only AnnData has layers and raw; found {type(data).__name__}. Leave out layer and raw.")
    if gene_names is not None or modality is not None:
        raise InputError(
            f"only AnnData has var, and only MuData has modalities; found {type(data).__name__}. Leave out "
            "gene_names and modality."
        )
    if isinstance(data, pd.DataFrame):
        obs, var = pd.DataFrame(index=data.index), pd.DataFrame(index=data.columns)
        return _build(Found(as_array(data), obs, var, "X"), choice, "table in memory")
    if not is_array(data):
        raise InputError(
            "profiles can be read from a path, AnnData, a numpy or scipy array, or a DataFrame; found "
            f"{type(data).__name__}. Convert it to one of these."
        )
    if data.ndim != 2:
        raise InputError(f"an array of profiles x genes must have two dimensions; its shape is {data.shape}.")
    obs, var = (pd.DataFrame(index=pd.RangeIndex(length)) for length in data.shape)
    return _build(Found(data, obs, var, "X"), choice, "array in memory")


def are_paths(data: Any) -> bool:
    """Whether this is a path, or a list of paths."""
    is_list = isinstance(data, list | tuple) and len(data) > 0
    return isinstance(data, str | os.PathLike) or (is_list and all(isinstance(one, str | os.PathLike) for one in data))


def _paths_of(data: Any) -> tuple[Path, ...]:
    """Paths that were given; empty for data of another kind."""
    if not are_paths(data):
        return ()
    given = (data,) if isinstance(data, str | os.PathLike) else tuple(data)
    for one in given:
        check_no_url(os.fspath(one))
    return tuple(map(Path, given))


def _read_paths(paths: Sequence[Path], choice: MatrixChoice, stream: str) -> Profiles:
    """Profiles from files that stay the same meanwhile."""
    stamps = tuple(map(stamp_of, paths))
    profiles = _read_open(paths, choice, stream)
    origin = Origin(tuple(paths), choice, stamps)
    if not origin.has_same_stamps:
        raise InputChanged(f"{origin} changed while it was read. Run again with a file that stays as it is.")
    return replace(profiles, origin=origin)


def check_unchanged(profiles: Profiles, also_in_memory: bool = False) -> None:
    """Refuse profiles whose files are not what they were when they were read.

    If their sizes and times are those of before, they are taken to be the same; otherwise they are read again, and
    the fingerprint decides. Profiles in memory are what they are, so that their files are looked at only if asked to.
    """
    origin = profiles.origin
    if origin is None or not (profiles.is_streamed or also_in_memory) or origin.has_same_stamps:
        return
    try:
        stream = "yes" if profiles.is_streamed else "auto"
        again = _read_open(origin.paths, origin.choice, stream, is_anew=True)
        is_same = again.fingerprint == profiles.fingerprint
    except InputError:
        is_same = False
    if not is_same:
        raise InputChanged(
            f"{origin} changed while it was in use: its content is not what it was when it was first read. Run "
            "again with a file that stays as it is."
        )


def _read_open(paths: Sequence[Path], choice: MatrixChoice, stream: str, is_anew: bool = False) -> Profiles:
    """Profiles from files, several of them as one.

    Anew means past what HDF5 keeps in memory of a file that is open in this process, and shares between all who open
    the file by its path. Streamed profiles then have their fingerprint, and their file is closed.
    """
    with contextlib.ExitStack() as stack:
        names = names_of(paths) if len(paths) > 1 else []
        parts = [_read_file(path, choice, stream, is_anew, stack) for path in paths]
        profiles = parts[0]
        if len(parts) > 1:
            size = sum(part.megabytes for part in parts)
            if stream == "auto" and (size * FIT_SIZE > memory.free_megabytes() / 2) != any(
                part.is_streamed for part in parts
            ):
                parts = [_read_file(path, choice, "auto", is_anew, stack, is_large=True) for path in paths]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of pandas, about types of columns that some files lack
                found = join(parts, names, choice.state)
            is_streamed = "yes" if any(part.is_streamed for part in parts) else "no"
            together = MatrixChoice(state=choice.state, features="all")
            profiles = with_facts(_build(found, together, listed(paths), is_streamed), parts)
        if profiles.is_streamed and not is_anew:
            stack.pop_all()  # files stay open as long as their matrices are in use
        return profiles


def _read_file(
    path: Path, choice: MatrixChoice, stream: str, is_anew: bool, stack: contextlib.ExitStack, is_large: bool = False
) -> Profiles:
    """Profiles from one file, which the stack closes; errors of storage libraries become one clear error.

    A large file is one that `auto` leaves on disk if it can be read by rows, whatever memory is free.
    """
    form = format_of(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old formats, repeated names: our own errors report what matters
            found = form.read(path, choice, stack, is_anew and path.is_file())
            if is_large and is_stored(found.matrix) and not isinstance(found.matrix, CSCDataset):
                stream = "yes"
            return _build(found, choice, str(path), stream)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # HDF5, zarr, codecs, pandas and anndata raise errors without a common class
        raise failed_reading(path, form, error, reason_of(error)) from error


def _build(found: Found, choice: MatrixChoice, source: str, stream: str = "no") -> Profiles:
    """Profiles from a matrix of any kind, after checks of its shape, names, type and values."""
    matrix, obs, location = found.matrix, found.obs, found.location
    where = f"{source}, {location}"
    var = named_by(found.var, choice.gene_names, where)
    names, genes = _as_names(obs.index), _as_names(var.index)
    _check_shape(matrix, len(names), len(genes), where)
    check_unique(names, f"{where}: profile", "adata.obs_names_make_unique()")
    every, repeated = made_unique(genes)
    said = found.said if repeated is None else (*found.said, f"{where}: {repeated}")
    if matrix.dtype.kind not in "biuf":
        raise InputError(f"{where}: values must be real numbers; found type {matrix.dtype}. Convert them to float32.")
    check_stored(matrix, where)
    types = var["feature_types"] if choice.features == "genes" and "feature_types" in var else None
    kept, left_out = kept_features(types)
    obs, var = obs.set_axis(names, axis=0), var.set_axis(every, axis=0)
    genes, var = (every, var) if kept is None else (every[kept], var.iloc[kept])
    is_streamed = _is_to_stream(matrix, stream, where)
    if isinstance(matrix, CSRDataset | CSCDataset) and not is_streamed:
        matrix = in_memory(matrix)
    elif isinstance(matrix, CSRDataset):  # whose own rows take 4 ms each, as it looks for the version of SciPy
        group = matrix.group
        matrix = SparseRowSource(group["data"], group["indices"], group["indptr"][:], matrix.shape[1])
    parts: list[sparse.csr_matrix] = []
    looks: list[np.ndarray] = []
    values = Values(matrix.shape[0])
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
    finding = given_state(evidence, choice.state, where)
    if finding.state == "counts":
        values.check_counts(where)
    scan = values.scan(digest, finding)
    facts = Facts(finding, names, genes, values.totals_by_gene, left_out, types_of_none(types))
    is_changed = finding.state == "counts" and (evidence.n_exact < evidence.n_values or finding.unit is not None)
    if is_streamed and is_changed:
        raise InputError(
            f"{where}: these values have to be turned into counts ({finding.said}), which takes them in memory. "
            "Use --stream no, or write a file that holds the counts."
        )
    if digest is not None:
        look = FirstLook(where, np.concatenate(looks) if looks else digest.row_digests)
        csr: sparse.csr_matrix | BackedMatrix = BackedMatrix(matrix, np.arange(len(names)), scan.lengths, kept, look)
    else:
        csr = canonical(parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr"))
        if is_changed:
            csr, scan = as_counts(csr, scan, where)
    profiles = Profiles(csr, names, genes, obs, scan, source, location, var=var, said=said, facts=facts)
    return profiles if profiles.state == "counts" else with_places(profiles, found.matrices())


def _check_shape(matrix: Any, n_profiles: int, n_genes: int, where: str) -> None:
    size = f"{counted(n_profiles, 'profile')} x {counted(n_genes, 'gene')}"
    if tuple(matrix.shape) != (n_profiles, n_genes):
        found = f"a matrix of {' x '.join(map(str, matrix.shape))}"
        raise InputError(f"{where}: found {found} for {size}. Write the file again.")
    if 0 in matrix.shape:
        raise InputError(f"{where}: at least one profile and one gene are needed; found {size}. Check earlier filters.")


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
        raise InputError(
            f"{where} is in memory, and only files that hold rows of numbers can be streamed: .h5ad, .zarr, .h5mu, 10x "
            ".h5 and .loom. Give one of these, or leave out stream."
        )
    if stream != "auto" or not is_by_rows:
        return stream == "yes"
    if is_row_source(matrix):
        n_values = matrix.n_values
    else:
        is_sparse = isinstance(matrix, CSRDataset)
        n_values = int(matrix.group["data"].shape[0]) if is_sparse else matrix.shape[0] * matrix.shape[1] // 4
    return megabytes(n_values, matrix.shape[0]) * FIT_SIZE > memory.free_megabytes() / 2


def _check_finite(block: sparse.csr_matrix, values: Values, where: str, names: pd.Index, genes: pd.Index) -> None:
    """Raise `InputError` that names the first NaN or infinite value."""
    if np.isfinite([block.data.min(initial=0), block.data.max(initial=0)]).all():  # both are NaN if any value is
        return
    bad = np.flatnonzero(~np.isfinite(block.data))
    if len(bad):
        name = names[values.n_profiles + np.searchsorted(block.indptr, bad[0], side="right") - 1]
        found = f"{len(bad)}" if values.n_profiles + block.shape[0] == len(names) else f"at least {len(bad)}"
        raise InputError(
            f"{where}: every value must be a finite number; {found} are NaN or infinite, first in profile "
            f"'{name}', gene '{genes[block.indices[bad[0]]]}'. Remove these profiles or genes, or fill in the values."
        )


def _as_names(index: pd.Index) -> pd.Index:
    """The same index as text; a title that is no text, which cannot be written, is left out."""
    title = index.name if isinstance(index.name, str) else None
    return pd.Index([str(name) for name in index], dtype=object, name=title)


def _row_blocks(matrix: Any) -> Iterator[sparse.csr_matrix]:
    """Blocks of canonical rows: all at once for a sparse matrix in memory, some at a time for any other."""
    is_sparse = sparse.issparse(matrix)  # a separate name, because mypy would narrow the type to one without methods
    if is_sparse:
        if matrix.format in ("csr", "csc"):
            matrix.check_format(full_check=True)  # indices out of range would crash the compiled code
        is_by_lines = matrix.format in ("csr", "csc")  # all other formats sum duplicates when they become one of these
        yield canonical(sparse.csr_matrix((matrix if is_by_lines else widened(matrix)).tocsr()))
        return
    is_by_values = isinstance(matrix, SparseRowSource | JoinedSource)
    n_rows = CHUNK_ROWS if is_by_values else max(1, CHUNK // matrix.shape[1])
    for start in range(0, matrix.shape[0], n_rows):
        yield stored_rows(matrix, start, min(start + n_rows, matrix.shape[0]))
