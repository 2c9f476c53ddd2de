"""Count splitting: every molecule of a profile falls into one of two random halves."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy import sparse

from geneae.data.preprocess import Expression

BITS = 8  # counts up to it, nearly all, are split by one random byte each


WORD_BITS = 63  # those up to it by one 64-bit word; the few above by a binomial draw


CHUNK = 2**18  # values at a time, about, so that they stay in the cache


MASKS = (2 ** np.arange(BITS + 1) - 1).astype(np.uint8)


Part = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Values, genes, and values by profile, of some profiles of a half."""


class Splitter:
    """Splits the molecules of the same profiles at random, again and again; what no draw changes is made once.

    Every molecule falls into one of two halves: Binomial(count, 1/2), exactly, and the rest. The number of ones in
    `count` random bits is such a draw; counting them is many times faster than drawing one binomial number a value.
    Under Poisson sampling the halves are independent given the profile (Batson, Royer and Webber 2019, molecular
    cross-validation).
    """

    def __init__(self, counts: sparse.csr_matrix) -> None:
        self._counts = counts
        self._masks = MASKS.take(np.minimum(counts.data, BITS).astype(np.uint8))
        self._words = np.flatnonzero((counts.data > BITS) & (counts.data <= WORD_BITS))
        self._others = np.flatnonzero(counts.data > WORD_BITS)
        starts = np.searchsorted(counts.indptr, np.arange(0, counts.nnz + CHUNK, CHUNK))
        self._rows = np.unique([0, *starts.clip(max=counts.shape[0]), counts.shape[0]])

    def draw(self, rng: np.random.Generator) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """Two halves; the generator alone decides, not the number of threads. The counts are not changed."""
        bits = np.frombuffer(rng.bytes(len(self._masks)), np.uint8)
        counted = self._counts.data[self._words].astype(np.uint64)
        words = rng.integers(0, 2**64, size=len(counted), dtype=np.uint64)
        in_words = np.bitwise_count(words & ((np.uint64(1) << counted) - np.uint64(1)))
        in_others = rng.binomial(self._counts.data[self._others].astype(np.int64), 0.5)

        def halve(start: int, stop: int) -> tuple[Part, Part]:
            begin, end = self._counts.indptr[start], self._counts.indptr[stop]
            whole, genes = self._counts.data[begin:end], self._counts.indices[begin:end]
            ends = self._counts.indptr[start : stop + 1] - begin
            first = np.bitwise_count(self._masks[begin:end] & bits[begin:end]).astype(whole.dtype)
            for positions, drawn in ((self._words, in_words), (self._others, in_others)):
                inside = slice(*np.searchsorted(positions, (begin, end)))
                first[positions[inside] - begin] = drawn[inside]
            return without_zeros(first, genes, ends), without_zeros(whole - first, genes, ends)

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # NumPy lets other threads run
            parts = list(pool.map(halve, self._rows[:-1], self._rows[1:]))
        one, other = (join_parts([part[side] for part in parts], self._counts) for side in (0, 1))
        return one, other


def without_zeros(values: np.ndarray, genes: np.ndarray, ends: np.ndarray) -> Part:
    kept = np.flatnonzero(values != 0)
    return values.take(kept), genes.take(kept), np.diff(np.searchsorted(kept, ends))


def join_parts(parts: list[Part], like: sparse.csr_matrix) -> sparse.csr_matrix:
    values, genes, lengths = (np.concatenate([part[field] for part in parts]) for field in range(3))
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(like.indptr.dtype)
    return sparse.csr_matrix((values, genes, ends), shape=like.shape)


def halves(expression: Expression, rng: np.random.Generator) -> tuple[Expression, Expression]:
    """Two random halves of the molecules; each is compared with half the molecules of the whole profile."""
    return draw_halves(Splitter(expression.rows), expression.totals, rng)


def draw_halves(splitter: Splitter, totals: np.ndarray, rng: np.random.Generator) -> tuple[Expression, Expression]:
    """The same from a splitter that is at hand already."""
    first, second = splitter.draw(rng)
    return Expression(first, totals / 2), Expression(second, totals / 2)
