"""Count splitting: each molecule of a profile is assigned to one of two random halves."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy import sparse

from geneae.data.preprocess import Expression

BITS = 8  # counts up to this, nearly all of them, are split with one random byte each
WORD_BITS = 63  # counts up to this are split with one 64-bit word each, the few larger ones by a binomial draw
CHUNK = 2**18  # values processed at a time, approximately, so that they fit into the cache

MASKS = (2 ** np.arange(BITS + 1) - 1).astype(np.uint8)

Part = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Values, genes, and number of values of each profile, for some profiles of one half."""


class Splitter:
    """Splits the molecules of the same profiles at random, many times; what is equal for all draws is computed once.

    The first half of a count is an exact Binomial(count, 1/2) draw, the second half the remainder. The number of ones
    among `count` random bits is such a draw, and counting bits is many times faster than one binomial draw per value.
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
        """Two random halves that depend on the generator, not on the number of threads; the counts are not changed."""
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

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # NumPy releases the interpreter lock
            parts = list(pool.map(halve, self._rows[:-1], self._rows[1:]))
        one, other = (join_parts([part[side] for part in parts], self._counts) for side in (0, 1))
        return one, other


def without_zeros(values: np.ndarray, genes: np.ndarray, ends: np.ndarray) -> Part:
    """Non-zero values, their genes and their number per profile, from CSR arrays (`ends` is the index pointer)."""
    kept = np.flatnonzero(values != 0)
    return values.take(kept), genes.take(kept), np.diff(np.searchsorted(kept, ends))


def join_parts(parts: list[Part], like: sparse.csr_matrix) -> sparse.csr_matrix:
    """CSR matrix of consecutive parts, with the shape and index type of `like`."""
    values, genes, lengths = (np.concatenate([part[field] for part in parts]) for field in range(3))
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(like.indptr.dtype)
    return sparse.csr_matrix((values, genes, ends), shape=like.shape)


def halves(expression: Expression, rng: np.random.Generator) -> tuple[Expression, Expression]:
    """Two random halves of the molecules; each gets half the totals of the complete profile."""
    return draw_halves(Splitter(expression.rows), expression.totals, rng)


def draw_halves(splitter: Splitter, totals: np.ndarray, rng: np.random.Generator) -> tuple[Expression, Expression]:
    """Two random halves as from `halves`, by a splitter that exists already."""
    first, second = splitter.draw(rng)
    return Expression(first, totals / 2), Expression(second, totals / 2)


def with_own_totals(pair: tuple[Expression, Expression]) -> tuple[Expression, Expression]:
    """Halves with the molecules that each of them has, where others count half those of the profile; molecules of genes
    outside the matrix are divided evenly."""
    inside = [np.asarray(half.rows.sum(1), dtype=np.float64).ravel() for half in pair]
    outside = np.maximum(pair[0].totals + pair[1].totals - inside[0] - inside[1], 0) / 2
    first, second = (Expression(half.rows, own + outside) for half, own in zip(pair, inside, strict=True))
    return first, second
