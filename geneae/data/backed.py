"""Expression matrices that stay in their file and are read in chunks of rows."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from scipy import sparse

from geneae.settings.errors import InputChanged, InputError, reason_of

FACTORS_SEED = 32  # fixed, so that equal rows have equal digests
GAP = 2**17  # reading up to this many unwanted values in between is faster than starting a new read
SPAN = 1024  # most rows of the file in memory at a time while a chunk is gathered

Item = TypeVar("Item")


def canonical(csr: sparse.csr_matrix) -> sparse.csr_matrix:
    """The same matrix with sorted indices, duplicates summed and no stored zeros, with the smallest index type.

    The arrays given are never changed.
    """
    if not csr.has_canonical_format or not len(csr.data) == csr.nnz == np.count_nonzero(csr.data):
        csr = widened(csr)
        csr.sum_duplicates()
        csr.eliminate_zeros()
    index = sparse.get_index_dtype(maxval=max(csr.nnz, csr.shape[1]))
    parts = (csr.data, csr.indices.astype(index, copy=False), csr.indptr.astype(index, copy=False))
    return sparse.csr_matrix(parts, shape=csr.shape)


def widened(matrix: Any) -> Any:
    """A copy of a sparse matrix; integers below 64 bits become int64, in which sums of duplicates cannot overflow."""
    is_small = matrix.dtype.kind in "iu" and matrix.dtype.itemsize < 8
    return matrix.astype(np.int64) if is_small else matrix.copy()


def supported(values: np.ndarray) -> np.ndarray:
    """Values in the byte order of this machine, in float64 where SciPy lacks their type: float16, longdouble."""
    is_odd = values.dtype.kind == "f" and values.dtype.itemsize not in (4, 8)
    return np.asarray(values, dtype=np.float64 if is_odd else values.dtype.newbyteorder("="))


def select_columns(matrix: sparse.csr_matrix, columns: np.ndarray) -> sparse.csr_matrix:
    """Matrix whose column j is column `columns[j]` of `matrix`, or all zeros where that is -1."""
    found = np.flatnonzero(columns >= 0)
    chosen = matrix[:, columns[found]]
    to = found.astype(chosen.indices.dtype)[chosen.indices]
    chosen = sparse.csr_matrix((chosen.data, to, chosen.indptr), shape=(matrix.shape[0], len(columns)))
    chosen.sort_indices()
    return chosen


def row_digests(matrix: sparse.csr_matrix) -> np.ndarray:
    """(n_rows,) uint32 digests of rows of a canonical float32 matrix, which tell changed rows from those of before.

    A digest is the sum of the bits of every value, mixed, times an odd random number of its gene, modulo 2^32. It costs
    a tenth of the reading. A row that was changed at random has the same digest once in at least a million cases.
    """
    bits = matrix.data.view(np.uint32)
    mixed = bits >> np.uint32(15)  # spreads the high bits, which alone differ between small whole numbers
    mixed ^= bits
    found = sparse.csr_matrix((mixed, matrix.indices, matrix.indptr), shape=matrix.shape) @ _factors(matrix.shape[1])
    return np.asarray(found, dtype=np.uint32)


@lru_cache(maxsize=2)
def _factors(n_genes: int) -> np.ndarray:
    return np.random.default_rng(FACTORS_SEED).integers(0, 2**32, n_genes, dtype=np.uint32) | np.uint32(1)


@dataclass(frozen=True, eq=False)
class FirstLook:
    """What a matrix in a file was when it was read first; every later reading has to find the same."""

    where: str
    """File and matrix, for messages."""
    digests: np.ndarray
    """(n_source_rows,) uint32, from `row_digests`."""

    def check(self, rows: np.ndarray, found: sparse.csr_matrix) -> None:
        """Refuse rows, by their (n_rows,) numbers in the file, that are not what they were."""
        is_changed = row_digests(found) != self.digests[rows]
        if is_changed.any():
            changed = int(rows[np.argmax(is_changed)])
            raise self.changed(f"profile number {changed + 1} is not what it was when it was first read")

    def changed(self, how: str) -> InputChanged:
        """Error for a file that is not what it was."""
        return InputChanged(
            f"{self.where} changed while it was in use: {how}. Run again with a file that stays as it is."
        )


class BackedMatrix:
    """Matrix of profiles x genes in a file, or selected rows and columns of it; `read` loads them into memory.

    Parameters
    ----------
    source
        Any object that returns rows by `source[start:stop]`: a sparse anndata dataset (CSR) or a dense array in a file.
    rows
        (n_rows,) rows of `source`, in any order.
    lengths
        (n_source_rows,) number of non-zero values of every row of `source`.
    columns
        (n_columns,) columns of `source`, -1 for a column of zeros; None takes all.
    first_look
        What every row was when it was read first; None: rows are not checked.
    """

    def __init__(
        self,
        source: Any,
        rows: np.ndarray,
        lengths: np.ndarray,
        columns: np.ndarray | None = None,
        first_look: FirstLook | None = None,
    ) -> None:
        self._source, self._rows, self._lengths, self._columns = source, rows, lengths, columns
        self._first_look = first_look
        n_columns = source.shape[1] if columns is None else len(columns)
        self.shape = (len(rows), int(n_columns))

    @property
    def lengths(self) -> np.ndarray:
        """(n_rows,) number of non-zero values of each row, over all columns of the file."""
        return np.asarray(self._lengths[self._rows])

    @property
    def nnz(self) -> int:
        """Number of non-zero values, over all columns of the file."""
        return int(self.lengths.sum(dtype=np.int64))

    @property
    def digests(self) -> np.ndarray | None:
        """(n_rows,) digests of all columns of the file, as `row_digests` gives them; None if they were not taken."""
        return None if self._first_look is None else np.asarray(self._first_look.digests[self._rows])

    def __getitem__(self, rows: Any) -> "BackedMatrix":
        """Selected rows, by positions, mask or slice; nothing is read."""
        return BackedMatrix(self._source, self._rows[rows], self._lengths, self._columns, self._first_look)

    def select(self, columns: np.ndarray) -> "BackedMatrix":
        """Selected columns, chosen as in `select_columns`; nothing is read."""
        if self._columns is not None:
            columns = np.where(columns >= 0, self._columns[columns], -1)
        return BackedMatrix(self._source, self._rows, self._lengths, columns, self._first_look)

    def read(self) -> sparse.csr_matrix:
        """All selected rows, in memory: canonical float32 CSR."""
        order = np.argsort(self._rows, kind="stable")
        rows = self._rows[order]
        parts = [self._selected(some) for some in _spans(list(self._runs(rows)))]
        matrix = parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")
        if (order[:-1] > order[1:]).any():
            matrix = matrix[np.argsort(order, kind="stable")]
        return matrix

    def _runs(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Groups of rows, in order, that are read together: near each other and not too many, unless all are wanted."""
        if _are_consecutive(rows):
            yield rows
            return
        before = np.concatenate([[0], np.cumsum(self._lengths, dtype=np.int64)])
        unwanted = before[rows[1:]] - before[np.minimum(rows[:-1] + 1, rows[1:])]
        ends = np.flatnonzero((unwanted > GAP) | (np.diff(rows // SPAN) > 0)) + 1
        yield from np.split(rows, ends)

    def _selected(self, runs: list[np.ndarray]) -> sparse.csr_matrix:
        """Some groups of nearby rows, in increasing order; columns are chosen for all of them at once, because that
        takes as long as there are columns."""
        parts = [self._between(rows) for rows in runs]
        block = parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")
        return block if self._columns is None else select_columns(block, self._columns)

    def _between(self, rows: np.ndarray) -> sparse.csr_matrix:
        """Nearby rows, in increasing order, from a single read of the file, all columns; refused if they are not what
        they were."""
        start, stop = int(rows[0]), int(rows[-1]) + 1
        block = self._read(start, stop)
        if block.shape[0] == stop - start and not _are_consecutive(rows):
            block = block[rows - start]
        if self._first_look is not None:
            if block.shape[0] != len(rows):
                raise self._first_look.changed(f"profile number {stop} is not there any more")
            self._first_look.check(rows, block)
        return block

    def _read(self, start: int, stop: int) -> sparse.csr_matrix:
        """Rows of the file, all columns."""
        if self._first_look is None:
            return read_rows(self._source, start, stop)
        try:
            return read_rows(self._source, start, stop)
        except (InputError, MemoryError):  # of a part of several files, which says it itself
            raise
        except Exception as error:  # HDF5, zarr and codecs raise errors without a common class
            reason = reason_of(error)
            how = f"profiles {start + 1} to {stop} cannot be read any more ({reason})"
            raise self._first_look.changed(how) from error


def _are_consecutive(rows: np.ndarray) -> bool:
    """Whether these are all rows of a range, each once."""
    return bool(rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all())


def read_rows(source: Any, start: int, stop: int) -> sparse.csr_matrix:
    """Rows `start` to `stop` of a matrix in a file: canonical float32 CSR."""
    block = stored_rows(source, start, stop)
    return block if block.dtype == np.float32 else canonical(block.astype(np.float32))


def stored_rows(source: Any, start: int, stop: int) -> sparse.csr_matrix:
    """The same in the type of the file, or float64 where SciPy lacks that; indices out of range raise ValueError."""
    block: Any = source[start:stop]
    is_sparse = sparse.issparse(block)  # a separate name, because mypy would narrow the type to one without methods
    if is_sparse:
        block.check_format(full_check=True)  # indices out of range would crash the compiled code
    else:
        block = supported(block)
    return canonical(sparse.csr_matrix(block))


def _spans(runs: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Groups of rows that are read together, in lists of at most `SPAN` rows."""
    number = np.cumsum([len(rows) for rows in runs]) // SPAN
    for which in dict.fromkeys(number.tolist()):
        yield [runs[place] for place in np.flatnonzero(number == which)]


def chunks(matrix: sparse.csr_matrix | BackedMatrix, size: int) -> Iterator[tuple[slice, sparse.csr_matrix]]:
    """Positions and rows, at most `size` at a time; the next rows of a backed matrix are read in the background."""
    n_rows = int(matrix.shape[0])
    slices = (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))
    if isinstance(matrix, BackedMatrix):
        yield from ahead((rows, matrix[rows].read()) for rows in slices)
    else:
        yield from ((rows, matrix[rows]) for rows in slices)


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; the next one is prepared on another thread while the caller uses the current one.

    That thread is not waited for: what is left unfinished may be collected anywhere, also where Python starts a thread
    and holds the lock that waiting for one takes.
    """
    pool = ThreadPoolExecutor(1)
    try:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
