"""A single pass over every value: kind of values, totals, and the fingerprint of the data."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from geneae.data.backed import canonical, row_digests
from geneae.settings.errors import InputError

CHUNK = 2**22  # values checked at a time: 16 MB as float32
LARGEST_WHOLE = 2**24  # above this, float32 cannot represent odd numbers


@dataclass(frozen=True)
class Scan:
    """Result of a single pass over every value."""

    state: str
    """`counts`, `log_normalised` or `scaled`."""
    lengths: np.ndarray
    """(n_profiles,) int32 numbers of non-zero values."""
    totals: np.ndarray
    """(n_profiles,) float64 sums over all genes: numbers of molecules, if the values are counts."""
    highest: float
    """Largest value."""
    fingerprint: str | None = None
    """`Profiles.fingerprint`, if it was computed in the same pass."""


class Values:
    """Range, totals and kind of all values, gathered block by block."""

    def __init__(self) -> None:
        self.n_profiles = 0
        self.lowest = self.highest = 0.0
        self.are_whole = True
        self._lengths: list[np.ndarray] = []
        self._totals: list[np.ndarray] = []

    def add(self, block: sparse.csr_matrix) -> None:
        """Include the next rows, in canonical form."""
        self.n_profiles += block.shape[0]
        self._lengths.append(np.diff(block.indptr).astype(np.int32))
        self._totals.append(_row_sums(block))
        for start in range(0, len(block.data), CHUNK):
            values = block.data[start : start + CHUNK]
            if values.dtype.kind == "f":
                self.are_whole = self.are_whole and bool((values == np.rint(values)).all())
            self.lowest = float(values.min(initial=self.lowest))
            self.highest = float(values.max(initial=self.highest))

    @property
    def state(self) -> str:
        """`counts`, `log_normalised` or `scaled`."""
        return "scaled" if self.lowest < 0 else "counts" if self.are_whole else "log_normalised"

    def scan(self, digest: "Fingerprint | None") -> Scan:
        """Result for all rows so far, with the fingerprint if a digest is given."""
        lengths, totals = np.concatenate(self._lengths), np.concatenate(self._totals)
        return Scan(self.state, lengths, totals, self.highest, None if digest is None else digest.finish())

    def check_float32(self, where: str) -> None:
        """Raise `InputError` for counts above 2^24 or values beyond the range of float32."""
        largest = max(self.highest, -self.lowest)
        if self.state == "counts" and largest > LARGEST_WHOLE:
            raise InputError(
                f"{where}: counts must be at most {LARGEST_WHOLE:,} to be exact in float32; found {largest:,.0f}. "
                "Check that these are molecules; if they are intensities, apply log1p first."
            )
        if largest > float(np.finfo(np.float32).max):
            raise InputError(
                f"{where}: values must fit into float32, below 3.4e38; found {largest:g}. Scale them down."
            )


def _row_sums(block: sparse.csr_matrix) -> np.ndarray:
    """(n_rows,) float64 row sums."""
    filled = np.diff(block.indptr) > 0
    sums = np.zeros(block.shape[0])
    if filled.any():
        sums[filled] = np.add.reduceat(block.data, block.indptr[:-1][filled], dtype=np.float64)
    return sums


class Fingerprint:
    """SHA-256 of profiles, computed block by block on its own thread; the sizes of the blocks make no difference."""

    def __init__(self, names: pd.Index, genes: pd.Index) -> None:
        self._head = hashlib.sha256(f"{len(names)} {len(genes)}".encode())
        for some in (names, genes):
            self._head.update(b"\1" + "\0".join(some).encode("utf-8", "surrogatepass"))
        self._parts = [hashlib.sha256() for _ in range(3)]
        self._pool = ThreadPoolExecutor(1)
        self._coming = self._pool.submit(int)  # nothing to wait for yet
        self._rows: list[np.ndarray] = []

    def add(self, block: sparse.csr_matrix) -> None:
        """Include the next rows: wait for the previous block, then hash these in the background."""
        self._coming.result()
        self._coming = self._pool.submit(self._update, block)

    def _update(self, block: sparse.csr_matrix) -> int:
        """Hash a block and return its number of values."""
        block = canonical(block)
        self._rows.append(row_digests(block))
        arrays = (np.diff(block.indptr).astype("<i4"), block.indices, block.data)
        for digest, array, dtype in zip(self._parts, arrays, ("<i4", "<i4", "<f4"), strict=True):
            for start in range(0, len(array), CHUNK):
                digest.update(np.ascontiguousarray(array[start : start + CHUNK], dtype=dtype).data)
        return int(block.nnz)

    @property
    def row_digests(self) -> np.ndarray:
        """(n_rows,) digests of all rows added; to be read after `finish`."""
        return np.concatenate(self._rows)

    def finish(self) -> str:
        """Hexadecimal digest of all rows added; ends the thread."""
        self._coming.result()
        self._pool.shutdown()
        for digest in self._parts:
            self._head.update(digest.digest())
        return self._head.hexdigest()
