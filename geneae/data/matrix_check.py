"""A single pass over every value: kind of values, totals, and the fingerprint of the data."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import sparse

from geneae.data.backed import canonical, row_digests
from geneae.data.places import N_PLACES, stride_of
from geneae.data.states import MOST_ROUNDING, NEARLY, NEGATIVES, ROUNDING, Evidence, Finding
from geneae.data.units import counts_of
from geneae.settings.errors import InputError

CHUNK = 2**22  # values checked at a time: 16 MB as float32
SAMPLE, SAMPLE_ROWS = 2**18, 512  # values, and rows of a block, that show how values came about
LARGEST_WHOLE = 2**24  # above this, float32 cannot represent odd numbers


@dataclass(frozen=True)
class Scan:
    """Result of a single pass over every value."""

    state: str
    """Name in `geneae.data.states.STATES`."""
    lengths: np.ndarray
    """(n_profiles,) int32 numbers of non-zero values."""
    totals: np.ndarray
    """(n_profiles,) float64 sums over all genes: numbers of molecules, if the values are counts."""
    highest: float
    """Largest value."""
    fingerprint: str | None = None
    """`Profiles.fingerprint`, if it was computed in the same pass."""
    finding: Finding | None = None
    """The evidence for the state; None for profiles that were not read."""


class Values:
    """Range, totals and kind of all values, gathered block by block.

    Parameters
    ----------
    n_expected
        Number of all profiles, of which some are looked at from place to place; 0: of the first ones alone.
    """

    def __init__(self, n_expected: int = 0) -> None:
        self.n_profiles = 0
        self._n_expected, self._stride = n_expected, 0
        self._spread: list[tuple[np.ndarray, sparse.csr_matrix]] = []
        self.lowest = self.highest = 0.0
        self._n_values = self._n_whole = self._n_exact = self._n_negative = self._n_sampled = 0
        self._deviation, self._divisor = 0.0, 0
        self._negatives: list[float] = []
        self._lengths: list[np.ndarray] = []
        self._totals: list[np.ndarray] = []
        self._sample: list[sparse.csr_matrix] = []
        self._by_gene: np.ndarray | None = None

    def add(self, block: sparse.csr_matrix) -> None:
        """Include the next rows, in canonical form."""
        if self._n_expected and block.shape[0]:
            self._stride = self._stride or stride_of(self._n_expected, block.nnz / block.shape[0])
            looked_at = np.arange(-self.n_profiles % self._stride, block.shape[0], self._stride)
            self._spread.append((self.n_profiles + looked_at, block[looked_at].astype(np.float64)))
        self.n_profiles += block.shape[0]
        self._lengths.append(np.diff(block.indptr).astype(np.int32))
        self._totals.append(_row_sums(block))
        by_gene = block.T @ np.ones(block.shape[0])  # the sums of np.bincount, which takes three times as long
        self._by_gene = by_gene if self._by_gene is None else self._by_gene + by_gene
        for start in range(0, len(block.data), CHUNK):
            self._add_values(block.data[start : start + CHUNK])
        if self._n_sampled < SAMPLE:
            rows = block[:SAMPLE_ROWS].astype(np.float64)
            self._sample.append(rows)
            self._n_sampled += rows.nnz

    def _add_values(self, values: np.ndarray) -> None:
        """Include some non-zero values."""
        self.lowest = float(values.min(initial=self.lowest))
        self.highest = float(values.max(initial=self.highest))
        self._n_values += len(values)
        if self.lowest < 0:
            below = values[values < 0]
            self._n_negative += len(below)
            if len(self._negatives) < NEGATIVES:
                found = dict.fromkeys([*self._negatives, *map(float, below[: 100 * NEGATIVES])])
                self._negatives = list(found)[:NEGATIVES]
        if values.dtype.kind == "f":
            with np.errstate(over="ignore"):  # reported by check_float32
                single = values.astype(np.float32, copy=False)
            whole = np.rint(single)
            n_exact = int(np.count_nonzero(single == whole))
            self._n_exact += n_exact
            self._n_whole += n_exact
            if n_exact < len(values) and np.isfinite(single).all():
                distance = np.abs(single - whole)
                near = distance <= np.minimum(NEARLY + ROUNDING * np.abs(single), MOST_ROUNDING)
                self._n_whole += int(np.count_nonzero(near)) - n_exact
                self._deviation = float(distance[near].max(initial=self._deviation))
        else:
            whole = values
            self._n_exact += len(values)
            self._n_whole += len(values)
        if self._divisor != 1 and self._n_whole == self._n_values and max(self.highest, -self.lowest) < 2**53:
            self._divisor = int(np.gcd.reduce(whole.astype(np.int64), initial=self._divisor))

    def evidence(self) -> Evidence:
        """Everything that was found about all rows so far."""
        is_whole = self._n_whole == self._n_values
        return Evidence(
            n_values=self._n_values,
            n_whole=self._n_whole,
            n_exact=self._n_exact,
            n_negative=self._n_negative,
            lowest=self.lowest,
            highest=self.highest,
            deviation=self._deviation,
            divisor=max(1, self._divisor) if is_whole else 1,
            negatives=tuple(self._negatives),
            totals=np.concatenate(self._totals) if self._totals else np.empty(0),
            lengths=np.concatenate(self._lengths) if self._lengths else np.empty(0, int),
            sample=None if not self._sample else sparse.vstack(self._sample, format="csr"),
            places=self._places(),
        )

    def _places(self) -> tuple[sparse.csr_matrix, ...]:
        """Some profiles of every place of the matrix."""
        if not self._spread:
            return ()
        rows = np.concatenate([rows for rows, _ in self._spread])
        looked_at = sparse.vstack([found for _, found in self._spread], format="csr")
        ends = np.cumsum([len(part) for part in np.array_split(np.arange(self.n_profiles), N_PLACES)])
        place = np.searchsorted(ends, rows, "right")
        return tuple(looked_at[np.flatnonzero(place == number)] for number in range(N_PLACES))

    @property
    def totals_by_gene(self) -> np.ndarray:
        """(n_genes,) sums over all rows so far."""
        return np.empty(0) if self._by_gene is None else self._by_gene

    def scan(self, digest: "Fingerprint | None", finding: Finding) -> Scan:
        """Result for all rows so far, with the fingerprint if a digest is given."""
        lengths, totals = np.concatenate(self._lengths), np.concatenate(self._totals)
        fingerprint = None if digest is None else digest.finish()
        return Scan(finding.state, lengths, totals, self.highest, fingerprint, finding)

    def check_counts(self, where: str) -> None:
        """Raise `InputError` for counts above 2^24."""
        if self.highest > LARGEST_WHOLE:
            raise InputError(
                f"{where}: counts must be at most {LARGEST_WHOLE:,} to be exact in float32; found {self.highest:,.0f}. "
                "Check that these are molecules; if they are intensities, apply log1p first."
            )

    def check_float32(self, where: str) -> None:
        """Raise `InputError` for values beyond the range of float32."""
        largest = max(self.highest, -self.lowest)
        if largest > float(np.finfo(np.float32).max):
            raise InputError(
                f"{where}: values must fit into float32, below 3.4e38; found {largest:g}. Scale them down."
            )


def as_counts(csr: sparse.csr_matrix, scan: Scan, where: str) -> tuple[sparse.csr_matrix, Scan]:
    """Counts behind values, recovered by their unit or rounded, and the result of a pass over them."""
    finding = scan.finding
    assert finding is not None
    if finding.unit is None:
        counts = canonical(sparse.csr_matrix((np.rint(csr.data), csr.indices, csr.indptr), shape=csr.shape))
    else:
        found, _, n_odd = counts_of(csr, finding.unit)
        if found is None:
            raise InputError(
                f"{where}: --state counts needs values from which counts can be recovered; {n_odd:,} of {csr.nnz:,} "
                "values are not a whole number of molecules. Name the matrix of counts with --layer or --raw, or leave "
                "out --state."
            )
        counts = canonical(found)
    totals = np.asarray(counts.sum(1, dtype=np.float64)).ravel()
    highest = float(counts.data.max(initial=0.0))
    lengths = np.diff(counts.indptr).astype(np.int32)
    return counts, replace(scan, lengths=lengths, totals=totals, highest=highest, fingerprint=None)


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
