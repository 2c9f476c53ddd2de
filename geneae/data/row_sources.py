"""Matrices whose rows are read from files of other layouts, one range of profiles at a time."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from scipy import sparse

from geneae.data.backed import BackedMatrix, supported


class RowSource(Protocol):
    """Matrix of profiles x genes outside of memory: rows are read by `source[start:stop]`."""

    shape: tuple[int, int]
    """(n_profiles, n_genes)."""
    dtype: np.dtype[Any]
    """Type of the values."""
    n_values: int
    """Number of stored values; for a dense matrix a guess of those that are not zero."""

    def __getitem__(self, rows: slice) -> Any:
        """Rows `start` to `stop` in memory: a CSR matrix or a dense array."""


class SparseRowSource:
    """Rows of a sparse matrix that lies in three arrays of a file, row after row.

    Parameters
    ----------
    data, indices
        (n_values,) values and their columns, in a file.
    pointers
        (n_rows + 1,) position of the first value of each row, in memory.
    n_columns
        Number of columns.
    """

    def __init__(self, data: Any, indices: Any, pointers: np.ndarray, n_columns: int) -> None:
        self._data, self._indices, self._pointers = data, indices, pointers
        self.shape, self.dtype = (len(pointers) - 1, n_columns), np.dtype(data.dtype)
        self.n_values = int(data.shape[0])

    def __getitem__(self, rows: slice) -> sparse.csr_matrix:
        """Rows `start` to `stop`, in memory."""
        pointers = self._pointers[rows.start : rows.stop + 1]
        first, last = int(pointers[0]), int(pointers[-1])
        indices = self._indices[first:last]
        if indices.dtype not in (np.int32, np.int64):
            indices = indices.astype(np.int64)
        parts = (supported(self._data[first:last]), indices, pointers - first)
        return sparse.csr_matrix(parts, shape=(len(pointers) - 1, self.shape[1]))


class ColumnSource:
    """Rows that are the columns of a dense array in a file, such as the genes x cells of a loom file.

    Parameters
    ----------
    array
        (n_columns, n_rows) array in a file.
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape, self.dtype = (int(array.shape[1]), int(array.shape[0])), np.dtype(array.dtype)
        self.n_values = self.shape[0] * self.shape[1] // 4

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Rows `start` to `stop`, in memory."""
        block: np.ndarray = self._array[:, rows.start : rows.stop]
        return block.T


class JoinedSource:
    """Rows of several matrices, one matrix after the other.

    Parameters
    ----------
    parts
        Matrices with the same columns, each with the check of its own first look.
    """

    def __init__(self, parts: Sequence[BackedMatrix]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(part.shape[0] for part in parts)])
        self.shape, self.dtype = (int(self._starts[-1]), parts[0].shape[1]), np.dtype(np.float32)
        self.n_values = sum(part.nnz for part in parts)

    def __getitem__(self, rows: slice) -> sparse.csr_matrix:
        """Rows `start` to `stop`, in memory."""
        found = []
        for part, first in zip(self._parts, self._starts, strict=False):
            start, stop = max(rows.start - first, 0), min(rows.stop - first, part.shape[0])
            if start < stop:
                found.append(part[start:stop].read())
        return found[0] if len(found) == 1 else sparse.vstack(found, format="csr")


def is_row_source(matrix: Any) -> bool:
    """Whether a matrix is one of these."""
    return isinstance(matrix, SparseRowSource | ColumnSource | JoinedSource)
