"""Rows of expression, from AnnData in memory, files written by anndata, arrays and tables."""

import contextlib
import hashlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.abc import CSCDataset, CSRDataset
from anndata.io import read_elem
from scipy import sparse

from geneae.errors import InputError, did_you_mean, listed, unknown

CHUNK = 2**22  # values looked at in one go: 16 MB as float32, and some 100 MB of temporaries for a dense block
LARGEST_WHOLE = 2**24  # above it float32 has no odd numbers
LARGEST_LOG = 30.0  # log2 of a billion: no logarithm of an expression value is larger

STATES = {
    "counts": "counts: will be normalised to 10,000 per profile and log1p'd",
    "log_normalised": "log-normalised: values used as they are, no held-out half without counts",
    "scaled": "scaled, with negative values: used as they are, no held-out half without counts",
}


@dataclass(frozen=True, eq=False)
class Profiles:
    """Rows of expression, held sparse."""

    matrix: sparse.csr_matrix
    """(n_profiles, n_genes), float32: sorted, without duplicates or stored zeros. It is not to be changed in place."""
    names: pd.Index
    """Profile names, unique."""
    genes: pd.Index
    """Gene names, unique."""
    obs: pd.DataFrame
    """Annotation of the profiles, by name."""
    state: str
    """`counts`, `log_normalised` or `scaled`, found by looking at every value."""
    source: str
    """Path, `AnnData in memory`, `array in memory` or `table in memory`."""
    location: str
    """`X`, `layers['NAME']` or `raw`."""

    @property
    def n_profiles(self) -> int:
        """Rows."""
        return int(self.matrix.shape[0])

    @property
    def n_genes(self) -> int:
        """Columns."""
        return int(self.matrix.shape[1])

    @property
    def density(self) -> float:
        """Share of values that are not zero, 0 to 1."""
        return float(self.matrix.nnz / max(1, self.n_profiles * self.n_genes))

    @property
    def megabytes(self) -> float:
        """Memory of the matrix, in 10^6 bytes."""
        return float((self.matrix.data.nbytes + self.matrix.indices.nbytes + self.matrix.indptr.nbytes) / 1e6)

    @cached_property
    def totals(self) -> np.ndarray:
        """(n_profiles,) sums over all genes, summed in float64: the molecules, where these are counts."""
        filled = np.diff(self.matrix.indptr) > 0
        totals = np.zeros(self.n_profiles)
        totals[filled] = np.add.reduceat(self.matrix.data, self.matrix.indptr[:-1][filled], dtype=np.float64)
        return totals

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shape, names and matrix: equal for equal profiles, however they were stored."""
        digest = hashlib.sha256(f"{self.n_profiles} {self.n_genes}".encode())
        for names in (self.names, self.genes):
            digest.update(b"\1" + "\0".join(names).encode())
        for array, dtype in ((self.matrix.indptr, "<i8"), (self.matrix.indices, "<i4"), (self.matrix.data, "<f4")):
            for start in range(0, len(array), CHUNK):
                digest.update(np.ascontiguousarray(array[start : start + CHUNK], dtype=dtype).data)
        return digest.hexdigest()

    def describe(self) -> str:
        """What was found and what follows from it, in one line."""
        parts = [
            f"{self.n_profiles:,} profiles x {self.n_genes:,} genes",
            f"{100 * (1 - self.density):.1f} % zero",
            f"{self.megabytes:,.1f} MB",
        ]
        if self.state == "counts":
            parts.append(f"median {np.median(self.totals):,.0f} molecules per profile")
        highest = float(self.matrix.data.max(initial=0.0))
        if self.state == "log_normalised" and highest > LARGEST_LOG:
            parts.append(f"but values up to {highest:,.0f} look as if no logarithm was taken")
        return f"{self.source}, {self.location}: {STATES[self.state]}; {', '.join(parts)}"

    def take(self, rows: Any) -> "Profiles":
        """Some of the profiles, by position or mask, in the order given; the state stays that of the whole."""
        rows = np.asarray(rows)
        if rows.dtype == bool and len(rows) != self.n_profiles:
            raise InputError(f"a mask must have one value for each of {self.n_profiles} profiles; found {len(rows)}.")
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        obs = self.obs.iloc[rows]
        return Profiles(self.matrix[rows], self.names[rows], self.genes, obs, self.state, self.source, self.location)


def read_profiles(data: Any, layer: str | None = None, use_raw: bool = False) -> Profiles:
    """Profiles from wherever they are, after a look at every value.

    Of a file only the matrix asked for and the annotation are read. A matrix in memory that is float32 CSR already is
    shared, not copied.

    Parameters
    ----------
    data
        Path of an `.h5ad` file or `.zarr` folder, AnnData (backed too), numpy or scipy array, or DataFrame with genes
        as columns. What has no names is named "0", "1", ...
    layer
        Name of a layer to read in place of `X`.
    use_raw
        Read `raw` in place of `X`.
    """
    if layer is not None and use_raw:
        raise InputError(f"either a layer or raw can be read; both layer '{layer}' and raw were asked for. Drop one.")
    if isinstance(data, str | os.PathLike):
        return _read_path(Path(data), layer, use_raw)
    if isinstance(data, anndata.AnnData):
        return _read_anndata(data, layer, use_raw, "AnnData in memory")
    if layer is not None or use_raw:
        raise InputError(f"only AnnData has layers and raw; found {type(data).__name__}. Leave out layer and raw.")
    if isinstance(data, pd.DataFrame):
        frame = pd.DataFrame(index=data.index)
        return _build(_as_array(data), frame, data.columns, "table in memory", "X")
    if not _is_array(data):
        raise InputError(
            "profiles can be read from a path, AnnData, a numpy or scipy array, or a DataFrame; found "
            f"{type(data).__name__}. Put it into one of these."
        )
    if data.ndim != 2:
        raise InputError(f"an array of profiles x genes must have two dimensions; its shape is {data.shape}.")
    frame = pd.DataFrame(index=pd.RangeIndex(data.shape[0]))
    return _build(data, frame, pd.RangeIndex(data.shape[1]), "array in memory", "X")


def _is_array(data: Any) -> bool:
    return sparse.issparse(data) or (isinstance(data, np.ndarray) and not isinstance(data, np.ma.MaskedArray))


def _read_path(path: Path, layer: str | None, use_raw: bool) -> Profiles:
    """Profiles from a file; what the storage libraries say of damaged bytes becomes one clear error."""
    _check_path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old formats and repeated names: told by our own errors where they matter
            with _open(path) as group:
                if "obs" in group and "encoding-type" not in group["obs"].attrs:  # written before anndata 0.7
                    return _read_anndata(anndata.read_h5ad(path), layer, use_raw, str(path))
                return _read_group(group, layer, use_raw, str(path))
    except (InputError, MemoryError):
        raise
    except Exception as error:  # HDF5, zarr, each codec and anndata have errors of their own, with no common class
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} should be a whole AnnData file, but reading it failed: {reason}. "
            "Files cut short by an interrupted copy or download look like this; fetch or write it again."
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
                f"{path} is a folder, but not a .zarr written by anndata. Give an .h5ad file; a 10x folder becomes "
                "one by scanpy.read_10x_mtx(folder).write_h5ad('data.h5ad')."
            )
    elif not h5py.is_hdf5(path):
        raise InputError(
            f"{path} should be an .h5ad (HDF5) file, but its content is not HDF5. A table of profiles x genes becomes "
            "one by anndata.io.read_csv('table.csv').write_h5ad('data.h5ad'); a damaged .h5ad must be fetched again."
        )


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    if path.is_dir():
        import zarr  # slow to load, and most files are .h5ad

        yield zarr.open_group(path, mode="r")
    else:
        with h5py.File(path, "r") as file:
            yield file


def _read_group(group: Any, layer: str | None, use_raw: bool, source: str) -> Profiles:
    """Profiles from the root of an HDF5 file or zarr folder."""
    if "obs" not in group or "var" not in group:
        raise InputError(
            f"{source} holds {listed(group)}, but AnnData has obs and var. A 10x .h5 file becomes an .h5ad by "
            "scanpy.read_10x_h5(file).write_h5ad('data.h5ad'), a loom file by anndata.io.read_loom(file)."
        )
    if "mod" in group:
        raise InputError(
            f"{source} is MuData with the modalities {listed(group['mod'])}; one AnnData was expected. Write the one "
            "with gene expression to a file of its own, for example mdata['rna'].write_h5ad('data.h5ad')."
        )
    layers = list(group["layers"]) if "layers" in group else []
    has_raw = _is_there(group, "raw") and "X" in group["raw"]
    location = _choose(source, layer, use_raw, layers, _is_there(group, "X"), has_raw)
    node = group["layers"][layer] if layer is not None else group["raw/X" if use_raw else "X"]
    matrix = node if hasattr(node, "shape") else read_elem(node)  # a dense one is read later, block by block
    genes = read_elem(group["raw/var" if use_raw else "var"]).index
    return _build(matrix, read_elem(group["obs"]), genes, source, location)


def _is_there(group: Any, key: str) -> bool:
    return key in group and group[key].attrs.get("encoding-type") != "null"


def _read_anndata(adata: anndata.AnnData, layer: str | None, use_raw: bool, source: str) -> Profiles:
    layers, has_raw = list(adata.layers), adata.raw is not None
    x = adata.X if layer is None and not use_raw else None  # of a view this is a copy: made once, and only if needed
    location = _choose(source, layer, use_raw, layers, x is not None, has_raw)
    matrix = adata.layers[layer] if layer is not None else adata.raw.X if use_raw else x
    if isinstance(matrix, CSRDataset | CSCDataset):
        matrix = matrix.to_memory()
    if not (_is_array(matrix) or isinstance(matrix, h5py.Dataset)):
        kind = f"{type(matrix).__module__}.{type(matrix).__name__}"
        raise InputError(f"{source}, {location} must be in memory or in a file; found {kind}. Use adata.to_memory().")
    return _build(matrix, adata.obs, (adata.raw if use_raw else adata).var_names, source, location)


def _choose(source: str, layer: str | None, use_raw: bool, layers: list[str], has_x: bool, has_raw: bool) -> str:
    """Name of the matrix asked for; never another one."""
    if use_raw and not has_raw:
        raise InputError(f"{source} has no raw. Leave raw out; its layers: {listed(layers)}.")
    if layer is not None and layer not in layers:
        raise unknown("layer", layer, layers)
    if layer is None and not use_raw and not has_x:
        there = f"layers: {listed(layers)}; raw: {'yes' if has_raw else 'no'}"
        raise InputError(f"{source} has no X. Say which other matrix to read ({there}).")
    return f"layers['{layer}']" if layer is not None else "raw" if use_raw else "X"


def _as_array(table: Any) -> Any:
    """Values of a DataFrame; pandas' own missing value becomes NaN."""
    for name, dtype in table.dtypes.items():
        if not pd.api.types.is_numeric_dtype(dtype):
            raise InputError(f"every column of a table must be a gene with numbers; column '{name}' holds {dtype}.")
    if table.shape[1] and all(isinstance(dtype, pd.SparseDtype) and dtype.fill_value == 0 for dtype in table.dtypes):
        return table.sparse.to_coo()
    same = len(set(table.dtypes)) == 1 and isinstance(table.dtypes.iloc[0], np.dtype)
    return table.to_numpy() if same else table.to_numpy(dtype=np.float64, na_value=np.nan)


def _build(matrix: Any, obs: pd.DataFrame, genes: pd.Index, source: str, location: str) -> Profiles:
    """Profiles from a matrix of any kind, once it and its names are found sound."""
    where = f"{source}, {location}"
    names, genes = _as_names(obs.index), _as_names(genes)
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
    _check_unique(names, f"{where}: profile", "adata.obs_names_make_unique()")
    _check_unique(genes, f"{where}: gene", "adata.var_names_make_unique()")
    if matrix.dtype.kind not in "biuf":
        raise InputError(f"{where}: values must be real numbers; found type {matrix.dtype}. Convert them to float32.")
    csr, values = _to_csr(matrix)
    if values.n_unusable:
        at = np.flatnonzero(~np.isfinite(csr.data))[0]
        name, gene = names[np.searchsorted(csr.indptr, at, side="right") - 1], genes[csr.indices[at]]
        raise InputError(
            f"{where}: every value must be a finite number; {values.n_unusable} are NaN or infinite, first in profile "
            f"'{name}', gene '{gene}'. Remove these profiles or genes, or fill in the values."
        )
    values.check_float32(where)
    return Profiles(csr, names, genes, obs.set_axis(names, axis=0), values.state, source, location)


def _as_names(index: pd.Index) -> pd.Index:
    return pd.Index([str(name) for name in index], dtype=object, name=index.name)


def _check_unique(names: pd.Index, what: str, remedy: str) -> None:
    repeated = names[names.duplicated()]
    if len(repeated):
        raise InputError(
            f"{what} names must be unique; {len(repeated)} of {len(names)} repeat an earlier one, first "
            f"{', '.join(repr(name) for name in repeated.unique()[:3])}. Make them unique with {remedy}."
        )


@dataclass
class _Values:
    """What all values have in common, gathered chunk by chunk."""

    lowest: float = 0.0
    highest: float = 0.0
    are_whole: bool = True
    n_unusable: int = 0

    def add(self, values: np.ndarray) -> None:
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            self.n_unusable += len(values) - int(np.count_nonzero(finite))
            values = values if finite.all() else values[finite]
            self.are_whole = self.are_whole and bool((values == np.rint(values)).all())
        self.lowest = float(values.min(initial=self.lowest))
        self.highest = float(values.max(initial=self.highest))

    @property
    def state(self) -> str:
        return "scaled" if self.lowest < 0 else "counts" if self.are_whole else "log_normalised"

    def check_float32(self, where: str) -> None:
        largest = max(self.highest, -self.lowest)
        if self.state == "counts" and largest > LARGEST_WHOLE:
            raise InputError(
                f"{where}: counts must be at most {LARGEST_WHOLE:,} to be exact in float32; found {largest:,.0f}. "
                "Check that these are molecules, not intensities; intensities can be log1p'd first."
            )
        if largest > float(np.finfo(np.float32).max):
            raise InputError(
                f"{where}: values must fit into float32, below 3.4e38; found {largest:g}. Scale them down."
            )


def _to_csr(matrix: Any) -> tuple[sparse.csr_matrix, _Values]:
    """The matrix as canonical float32 CSR, and what its values were before they became float32."""
    values = _Values()
    parts = []
    for block in _row_blocks(matrix):
        csr = _canonical(block)
        for start in range(0, len(csr.data), CHUNK):
            values.add(csr.data[start : start + CHUNK])
        with np.errstate(over="ignore"):  # told by check_float32
            parts.append(csr.astype(np.float32, copy=False))
    csr = parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")
    return _canonical(csr), values


def _row_blocks(matrix: Any) -> Iterator[sparse.csr_matrix]:
    """A sparse matrix whole, a dense one (in memory or in a file) in blocks of rows."""
    is_sparse = sparse.issparse(matrix)  # a name of its own: mypy would narrow the type to one without methods
    if is_sparse:
        if matrix.format in ("csr", "csc"):
            matrix.check_format(full_check=True)  # indices out of range would crash the compiled code
        yield sparse.csr_matrix(matrix.tocsr())
        return
    n_rows = max(1, CHUNK // matrix.shape[1])
    # scipy has neither float16, longdouble nor foreign byte order
    is_odd = matrix.dtype.kind == "f" and matrix.dtype.itemsize not in (4, 8)
    dtype = np.dtype(np.float64) if is_odd else matrix.dtype.newbyteorder("=")
    for start in range(0, matrix.shape[0], n_rows):
        yield sparse.csr_matrix(np.asarray(matrix[start : start + n_rows], dtype=dtype))


def _canonical(csr: sparse.csr_matrix) -> sparse.csr_matrix:
    """Sorted, duplicates summed, no stored zeros, small indices; the arrays given are never changed."""
    if not csr.has_canonical_format or not len(csr.data) == csr.nnz == np.count_nonzero(csr.data):
        csr = csr.copy()
        csr.sum_duplicates()
        csr.eliminate_zeros()
    index = sparse.get_index_dtype(maxval=max(csr.nnz, csr.shape[1]))
    parts = (csr.data, csr.indices.astype(index, copy=False), csr.indptr.astype(index, copy=False))
    return sparse.csr_matrix(parts, shape=csr.shape)
