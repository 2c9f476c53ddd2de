"""Rows of expression that stay in their file and are read a chunk at a time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from scipy import sparse

GAP = 8  # to read the rows between two that are wanted is quicker than to begin anew, if they are no more
SPAN = 1024  # rows of the file that are in memory at a time while a chunk is gathered

Item = TypeVar("Item")


def canonical(csr: sparse.csr_matrix) -> sparse.csr_matrix:
    """Sorted, duplicates summed, no stored zeros, small indices; the arrays given are never changed."""
    if not csr.has_canonical_format or not len(csr.data) == csr.nnz == np.count_nonzero(csr.data):
        csr = csr.copy()
        csr.sum_duplicates()
        csr.eliminate_zeros()
    index = sparse.get_index_dtype(maxval=max(csr.nnz, csr.shape[1]))
    parts = (csr.data, csr.indices.astype(index, copy=False), csr.indptr.astype(index, copy=False))
    return sparse.csr_matrix(parts, shape=csr.shape)


def select_columns(matrix: sparse.csr_matrix, columns: np.ndarray) -> sparse.csr_matrix:
    """Column j of the result is column `columns[j]` of `matrix`; -1 makes it zero."""
    found = np.flatnonzero(columns >= 0)
    chosen = matrix[:, columns[found]]
    to = found.astype(chosen.indices.dtype)[chosen.indices]
    chosen = sparse.csr_matrix((chosen.data, to, chosen.indptr), shape=(matrix.shape[0], len(columns)))
    chosen.sort_indices()
    return chosen


class StoredMatrix:
    """Profiles x genes in a file, of which rows and columns may be a choice; `read` brings some of the rows.

    Parameters
    ----------
    source
        Whatever gives rows by `source[start:stop]`: a sparse data set of anndata (CSR), or a dense array in a file.
    rows
        (n_rows,) rows of `source`, in any order.
    lengths
        (rows of `source`,) how many values of each are not zero.
    columns
        (n_columns,) columns of `source`, -1 for one of zeros; None takes all.
    """

    def __init__(self, source: Any, rows: np.ndarray, lengths: np.ndarray, columns: np.ndarray | None = None) -> None:
        self._source, self._rows, self._lengths, self._columns = source, rows, lengths, columns
        n_columns = source.shape[1] if columns is None else len(columns)
        self.shape = (len(rows), int(n_columns))

    @property
    def lengths(self) -> np.ndarray:
        """(n_rows,) how many values of each row are not zero, over all columns of the file."""
        return np.asarray(self._lengths[self._rows])

    @property
    def nnz(self) -> int:
        """Values that are not zero, over all columns of the file."""
        return int(self.lengths.sum(dtype=np.int64))

    def __getitem__(self, rows: Any) -> "StoredMatrix":
        """Some of the rows, by positions, mask or slice; nothing is read."""
        return StoredMatrix(self._source, self._rows[rows], self._lengths, self._columns)

    def select(self, columns: np.ndarray) -> "StoredMatrix":
        """Columns as by `select_columns`; nothing is read."""
        if self._columns is not None:
            columns = np.where(columns >= 0, self._columns[columns], -1)
        return StoredMatrix(self._source, self._rows, self._lengths, columns)

    def read(self) -> sparse.csr_matrix:
        """All rows, in memory: canonical float32 CSR."""
        order = np.argsort(self._rows, kind="stable")
        rows = self._rows[order]
        parts = [self._between(some) for some in _runs(rows)]
        matrix = parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")
        if (order[:-1] > order[1:]).any():
            matrix = matrix[np.argsort(order, kind="stable")]
        return matrix

    def _between(self, rows: np.ndarray) -> sparse.csr_matrix:
        """Neighbouring rows, in increasing order, by one look into the file."""
        start, stop = int(rows[0]), int(rows[-1]) + 1
        block = read_rows(self._source, start, stop)
        if len(rows) < stop - start:
            block = block[rows - start]
        return block if self._columns is None else select_columns(block, self._columns)


def read_rows(source: Any, start: int, stop: int) -> sparse.csr_matrix:
    """Rows `start` to `stop` of a matrix in a file: canonical float32 CSR."""
    block = source[start:stop]
    if isinstance(block, np.ndarray):
        block = block.astype(np.float32)  # SciPy has no float16
    return canonical(sparse.csr_matrix(block, dtype=np.float32))


def _runs(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Increasing rows in groups that are read together: near each other, and not too many."""
    ends = np.flatnonzero((np.diff(rows) > GAP) | (np.diff(rows // SPAN) > 0)) + 1
    yield from np.split(rows, ends)


def chunks(matrix: sparse.csr_matrix | StoredMatrix, size: int) -> Iterator[tuple[slice, sparse.csr_matrix]]:
    """Positions and rows, at most `size` at a time; of a stored matrix the next are read while these are worked on."""
    n_rows = int(matrix.shape[0])
    slices = (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))
    if isinstance(matrix, StoredMatrix):
        yield from ahead((rows, matrix[rows].read()) for rows in slices)
    else:
        yield from ((rows, matrix[rows]) for rows in slices)


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, of which the next is made on another thread while one is worked on."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
