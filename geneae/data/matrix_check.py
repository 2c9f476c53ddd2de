"""One look at every value of profiles: what all have in common, and their fingerprint."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from geneae.data.backed import canonical
from geneae.settings.errors import InputError

CHUNK = 2**22  # values looked at in one go: 16 MB as float32
LARGEST_WHOLE = 2**24  # above it float32 has no odd numbers


@dataclass(frozen=True)
class Scan:
    """What one look at every value has found."""

    state: str
    """`counts`, `log_normalised` or `scaled`."""
    lengths: np.ndarray
    """(n_profiles,) int32: how many values are not zero."""
    totals: np.ndarray
    """(n_profiles,) sums over all genes, in float64: the molecules, where these are counts."""
    highest: float
    """Largest value."""
    fingerprint: str | None = None
    """`Profiles.fingerprint`, where it was taken on the way."""


class Values:
    """What all values have in common, gathered block by block."""

    def __init__(self) -> None:
        self.n_profiles = 0
        self.lowest = self.highest = 0.0
        self.are_whole = True
        self._lengths: list[np.ndarray] = []
        self._totals: list[np.ndarray] = []

    def add(self, block: sparse.csr_matrix) -> None:
        """The next rows, canonical."""
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
        """All of it, with the fingerprint where it was taken."""
        lengths, totals = np.concatenate(self._lengths), np.concatenate(self._totals)
        return Scan(self.state, lengths, totals, self.highest, None if digest is None else digest.finish())

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


def _row_sums(block: sparse.csr_matrix) -> np.ndarray:
    """(n_rows,) in float64."""
    filled = np.diff(block.indptr) > 0
    sums = np.zeros(block.shape[0])
    if filled.any():
        sums[filled] = np.add.reduceat(block.data, block.indptr[:-1][filled], dtype=np.float64)
    return sums


class Fingerprint:
    """SHA-256 of profiles that come block by block, on its own thread; how they are divided makes no difference."""

    def __init__(self, names: pd.Index, genes: pd.Index) -> None:
        self._head = hashlib.sha256(f"{len(names)} {len(genes)}".encode())
        for some in (names, genes):
            self._head.update(b"\1" + "\0".join(some).encode())
        self._parts = [hashlib.sha256() for _ in range(3)]
        self._pool = ThreadPoolExecutor(1)
        self._coming = self._pool.submit(int)  # nothing to wait for yet

    def add(self, block: sparse.csr_matrix) -> None:
        """The next rows; they are looked at when those before are done, while the caller goes on."""
        self._coming.result()
        self._coming = self._pool.submit(self._update, block)

    def _update(self, block: sparse.csr_matrix) -> int:
        """Number of the values that were added."""
        block = canonical(block)
        arrays = (np.diff(block.indptr).astype("<i4"), block.indices, block.data)
        for digest, array, dtype in zip(self._parts, arrays, ("<i4", "<i4", "<f4"), strict=True):
            for start in range(0, len(array), CHUNK):
                digest.update(np.ascontiguousarray(array[start : start + CHUNK], dtype=dtype).data)
        return int(block.nnz)

    def finish(self) -> str:
        """In hexadecimal."""
        self._coming.result()
        self._pool.shutdown()
        for digest in self._parts:
            self._head.update(digest.digest())
        return self._head.hexdigest()
