"""What other programs have made of profiles: reconstructions and latents, from files and from memory."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.abc import CSCDataset, CSRDataset
from anndata.io import read_elem, sparse_dataset
from scipy import sparse

from geneae.data.containers import check_folder, check_parts, check_stored
from geneae.data.matrices import in_memory
from geneae.settings.errors import InputError, listed, reason_of, unknown

SPACES = ("counts", "cp10k", "log1p_cp10k")
"""Spaces that a reconstruction may be in: molecules of the given half, molecules per 10,000, and log1p of these."""
ANNOTATED = (".h5ad", ".zarr")
"""Endings of files with layers and obsm."""
FORMATS = (*ANNOTATED, ".csv", ".parquet", ".npy")
SPELLING = "NAME=FILE, NAME=FILE:layer=KEY or NAME=FILE:obsm=KEY"
PLACE = re.compile(r"(?P<path>.+):(?P<kind>layer|obsm)[ =](?P<key>.+)", re.DOTALL)
NAMED = 3  # names shown in a message


@dataclass(frozen=True)
class Made:
    """Where a program has written what it made."""

    name: str
    """Name of the program in tables."""
    path: Path
    """File."""
    kind: str = ""
    """`layer`, `obsm`, or empty for `X` or the only table of a file."""
    key: str = ""
    """Name of the layer or of the entry of obsm."""

    @property
    def where(self) -> str:
        """The file and the matrix in it, for messages."""
        return f"{self.path}, {self.kind} '{self.key}'" if self.kind else str(self.path)


def parse_made(text: str) -> Made:
    """The place that `NAME=FILE`, `NAME=FILE:layer=KEY` or `NAME=FILE:obsm=KEY` says; else `InputError`."""
    name, equals, rest = text.partition("=")
    if not (equals and name.strip() and rest.strip()):
        raise InputError(f"what a program has made is given as {SPELLING}; found '{text}'.")
    if (found := PLACE.fullmatch(rest)) is None:
        return Made(name.strip(), Path(rest))
    return Made(name.strip(), Path(found["path"]), found["kind"], found["key"])


@dataclass(frozen=True, eq=False)
class Table:
    """Numbers of profiles, with the names of rows and columns; they may be NaN."""

    values: Any
    """(n_profiles, n_columns) array or CSR matrix, in memory or in a file."""
    names: pd.Index
    """Names of the profiles, unique."""
    columns: pd.Index
    """Names of the columns: genes, for a reconstruction."""
    where: str
    """Where they were found, for messages."""
    is_latent: bool
    """Whether they are latents; if not, a reconstruction."""
    rows: np.ndarray | None = None
    """Rows of `values` that are taken, in this order; None: all."""
    chosen: np.ndarray | None = None
    """Columns of `values` that are taken, in this order; None: all."""

    def block(self, some: slice) -> np.ndarray:
        """(n, n_columns) float64 numbers of some of the rows, dense."""
        rows = (np.arange(self.values.shape[0]) if self.rows is None else self.rows)[some]
        order = np.argsort(rows, kind="stable")  # HDF5 reads rows in increasing order only
        found = self.values[rows[order]] if len(rows) else self.values[:0]
        dense = _dense(found)[np.argsort(order, kind="stable")]
        return dense if self.chosen is None else dense[:, self.chosen]

    def of(self, names: pd.Index) -> "Table":
        """The profiles of these names, in this order; `InputError` names those that are missing."""
        found = self.names.get_indexer(names)
        missing = names[found < 0]
        if len(missing):
            some = ", ".join(f"'{name}'" for name in missing[:NAMED])
            raise InputError(
                f"{self.where} must have every profile that is judged, {len(names):,} in all, matched by name; "
                f"{len(missing):,} are missing, first {some}. Its first names are "
                f"{', '.join(repr(name) for name in self.names[:NAMED])}. Give all profiles of input.h5ad."
            )
        return replace(self, rows=found if self.rows is None else self.rows[found], names=names)

    def in_genes(self, genes: pd.Index) -> "Table":
        """The columns of these names, in this order; all must be there."""
        chosen = self.columns.get_indexer(genes)
        assert (chosen >= 0).all()
        return replace(self, chosen=chosen, columns=genes)


def _dense(values: Any) -> np.ndarray:
    """A block of any kind as a float64 array."""
    if not isinstance(values, sparse.csr_matrix):
        return np.asarray(values, dtype=np.float64)
    places, found = values.tocoo(), np.zeros(values.shape)
    np.add.at(found, (places.row, places.col), places.data)
    return found


def read_made(made: Made, genes: pd.Index) -> Table:
    """What a program has written; a table is a reconstruction if most of its columns are genes, or it has most genes.

    Parameters
    ----------
    made
        File and matrix: `.h5ad` or `.zarr` of AnnData; `.csv` and `.parquet` with the names of the profiles in the
        first column; `.npy` with names, a line each, in `FILE.profiles.txt` and, for a reconstruction, `FILE.genes.txt`
        beside it.
    genes
        Genes of the profiles.
    """
    path = made.path
    if path.suffix not in READERS:
        of_fit = " Of a fit, give what geneae embed --reconstruct --own-depth makes of input.h5ad." * path.is_dir()
        raise InputError(f"{path} must end in {', '.join(FORMATS)}. Write it in one of these formats.{of_fit}")
    if not (path.is_dir() if path.suffix == ".zarr" else path.is_file()):
        raise InputError(f"{path} does not exist. Give what the program '{made.name}' has written.")
    if made.kind and path.suffix not in ANNOTATED:
        raise InputError(
            f"only an .h5ad file or a .zarr has layers and obsm; found {made.where}. Leave the {made.kind} out."
        )
    try:
        values, names, columns = READERS[path.suffix](made)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # HDF5, pandas, pyarrow and NumPy raise errors without a common class
        raise InputError(f"{made.where} cannot be read: {reason_of(error).rstrip('.')}. Write it again.") from error
    return table_of(values, names, columns, made.where, made.kind == "obsm", genes)


def table_of(
    values: Any, names: pd.Index, columns: pd.Index | None, where: str, is_latent: bool, genes: pd.Index
) -> Table:
    """A checked table; without column names, or with names that are no genes, it holds latents."""
    n_profiles, n_columns = values.shape
    named = pd.RangeIndex(n_columns) if columns is None else columns
    names, named = _as_text(names), _as_text(named)
    if (len(names), len(named)) != (n_profiles, n_columns):
        raise InputError(
            f"{where} has {n_profiles:,} x {n_columns:,} numbers, but {len(names):,} names of profiles and "
            f"{len(named):,} of columns. Write the names again."
        )
    for some, what in ((names, "profiles"), (named, "columns")):
        if not some.is_unique:
            raise InputError(
                f"{where}: names of {what} must be unique; '{some[some.duplicated()][0]}' occurs more than once. "
                "Make them unique."
            )
    n_genes = int(named.isin(genes).sum())
    if not is_latent and columns is not None and 2 * n_genes < min(n_columns, len(genes)):
        is_likely = n_columns > 2000 or n_genes > 0  # no latent is so long
        if is_likely or where.endswith(ANNOTATED) or ", layer '" in where:
            raise InputError(
                f"{where} has {n_columns:,} columns, of which {n_genes:,} are genes of the profiles (columns: "
                f"{listed(named[:NAMED])}; genes: {listed(genes[:NAMED])}). Name the genes as in input.h5ad; latents "
                "are read from obsm, or from columns with other names."
            )
        is_latent = True
    return Table(values, names, named, where, is_latent or columns is None)


def _as_text(index: pd.Index) -> pd.Index:
    return pd.Index([str(name) for name in index], dtype=object)


def _read_h5ad(made: Made) -> tuple[Any, pd.Index, pd.Index | None]:
    """A matrix of an AnnData file, in memory."""
    if not h5py.is_hdf5(made.path):
        raise InputError(f"{made.path} should be an .h5ad (HDF5) file, but its content is not HDF5. Write it again.")
    with h5py.File(made.path, "r") as file:
        return _from_group(file, made)


def _read_zarr(made: Made) -> tuple[Any, pd.Index, pd.Index | None]:
    """The same of a zarr."""
    check_folder(made.path)
    import zarr  # slow to import, and most files are .h5ad

    return _from_group(zarr.open_group(made.path, mode="r"), made)


def _from_group(file: Any, made: Made) -> tuple[Any, pd.Index, pd.Index | None]:
    place = {"": ("X",), "layer": ("layers", made.key), "obsm": ("obsm", made.key)}[made.kind]
    above = file.get(place[0]) if len(place) > 1 else file
    if above is None or place[-1] not in above:
        options = () if above is None or above is file else above
        raise unknown(made.kind or "matrix", place[-1], options)
    check_parts(file, (place, ("obs",), ("var",)), str(made.path))
    node = file["/".join(place)]
    if made.kind == "obsm" and node.attrs.get("encoding-type") == "dataframe":
        table = read_elem(node)
        return table.to_numpy(dtype=np.float64), read_elem(file["obs"]).index, None
    matrix = node if hasattr(node, "shape") else sparse_dataset(node)
    check_stored(matrix, made.where)
    values = sparse.csr_matrix(in_memory(matrix)) if isinstance(matrix, CSRDataset | CSCDataset) else matrix[:]
    columns = None if made.kind == "obsm" else read_elem(file["var"]).index
    return values, read_elem(file["obs"]).index, columns


def _read_csv(made: Made) -> tuple[Any, pd.Index, pd.Index | None]:
    table = pd.read_csv(made.path, converters={0: str}, na_values=["", "NaN", "nan", "NA"], keep_default_na=False)
    return from_table(table.set_index(table.columns[0]), made.where)  # as an index, 001 would become 1


def _read_parquet(made: Made) -> tuple[Any, pd.Index, pd.Index | None]:
    table = pd.read_parquet(made.path)
    first = table.columns[0]
    if not pd.api.types.is_numeric_dtype(table[first]):  # names as a column, as geneae writes them
        table = table.set_index(first)
    return from_table(table, made.where)


def from_table(table: pd.DataFrame, where: str) -> tuple[Any, pd.Index, pd.Index | None]:
    """Numbers, names of profiles and names of columns of a table that is indexed by profile."""
    odd = [name for name, dtype in table.dtypes.items() if not pd.api.types.is_numeric_dtype(dtype)]
    if odd:
        raise InputError(
            f"{where} must hold numbers beside the names of the profiles in its first column; column '{odd[0]}' holds "
            "something else. Remove it."
        )
    return table.to_numpy(dtype=np.float64), table.index, table.columns


def _read_npy(made: Made) -> tuple[Any, pd.Index, pd.Index | None]:
    values = np.load(made.path, mmap_mode="r", allow_pickle=False)
    if values.ndim != 2:
        raise InputError(f"{made.path} must have two dimensions, profiles x genes or latents; found {values.ndim}.")
    of_profiles, of_genes = (made.path.with_name(f"{made.path.name}.{what}.txt") for what in ("profiles", "genes"))
    if not of_profiles.is_file():
        raise InputError(
            f"an .npy file has no names: write those of its profiles, a line each, to {of_profiles} and, for a "
            f"reconstruction, those of its genes to {of_genes.name}."
        )
    names = [
        pd.Index(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else None
        for path in (of_profiles, of_genes)
    ]
    assert names[0] is not None
    return values, names[0], names[1]


READERS: dict[str, Callable[[Made], tuple[Any, pd.Index, pd.Index | None]]] = {
    ".h5ad": _read_h5ad,
    ".zarr": _read_zarr,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".npy": _read_npy,
}
"""Readers by the ending of a file."""


def table_in_memory(data: Any, where: str, genes: pd.Index, key: str = "") -> Table:
    """What a program has made, as AnnData (`X`, or `layer=KEY`, `obsm=KEY`) or as a table indexed by profile."""
    if isinstance(data, pd.DataFrame):
        return table_of(*from_table(data, where), where, False, genes)
    if not isinstance(data, anndata.AnnData):
        raise InputError(
            f"{where} must be AnnData, or a DataFrame with profiles as rows; found {type(data).__name__}. Give one of "
            "these, so that profiles are matched by name."
        )
    kind, _, name = key.partition("=")
    if kind == "obsm":
        if name not in data.obsm:
            raise unknown("obsm", name, data.obsm)
        return table_of(np.asarray(data.obsm[name]), data.obs_names, None, where, True, genes)
    if kind == "layer" and name not in data.layers:
        raise unknown("layer", name, data.layers)
    values = data.layers[name] if kind == "layer" else data.X
    is_sparse = sparse.issparse(values)  # a separate name, because mypy would narrow the type to one without methods
    values = sparse.csr_matrix(values) if is_sparse else np.asarray(values)
    return table_of(values, data.obs_names, data.var_names, where, False, genes)
