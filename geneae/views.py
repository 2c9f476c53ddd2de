"""Random views of profiles: the two halves of count splitting."""

import numpy as np
from scipy import sparse

from geneae.preprocess import Expression

BITS = 8  # counts up to it, nearly all, are split by one random byte each
WORD_BITS = 63  # those up to it by one 64-bit word; the few above by a binomial draw
CHUNK = 2**17  # values at a time, so that they stay in the cache
MASKS = (2 ** np.arange(BITS + 1) - 1).astype(np.uint8)


def split_counts(counts: sparse.csr_matrix, rng: np.random.Generator) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Put every molecule into one of two halves at random: Binomial(count, 1/2), exactly, and the rest.

    The number of ones in `count` random bits is such a draw; counting them is many times faster than drawing one
    binomial number a value. Under Poisson sampling the halves are independent given the profile (Batson, Royer and
    Webber 2019, molecular cross-validation). The matrix given is not changed.
    """
    values = counts.data
    first = np.empty_like(values)
    for start in range(0, len(values), CHUNK):
        few = np.minimum(values[start : start + CHUNK], BITS).astype(np.uint8)
        first[start : start + CHUNK] = np.bitwise_count(MASKS[few] & np.frombuffer(rng.bytes(len(few)), np.uint8))
    for low, high in ((BITS, WORD_BITS), (WORD_BITS, np.inf)):
        large = np.flatnonzero((values > low) & (values <= high))
        counted = values[large].astype(np.int64)
        if high == WORD_BITS:
            words = rng.integers(0, 2**64, size=len(large), dtype=np.uint64)
            first[large] = np.bitwise_count(words & ((np.uint64(1) << counted.astype(np.uint64)) - np.uint64(1)))
        else:
            first[large] = rng.binomial(counted, 0.5)
    return _without_zeros(counts, first), _without_zeros(counts, values - first)


def _without_zeros(like: sparse.csr_matrix, values: np.ndarray) -> sparse.csr_matrix:
    kept = np.flatnonzero(values)
    ends = np.searchsorted(kept, like.indptr).astype(like.indptr.dtype)
    return sparse.csr_matrix((values[kept], like.indices[kept], ends), shape=like.shape)


def halves(expression: Expression, rng: np.random.Generator) -> tuple[Expression, Expression]:
    """Two random halves of the molecules; each is compared with half the molecules of the whole profile."""
    first, second = split_counts(expression.matrix, rng)
    totals = expression.totals / 2
    return Expression(first, totals), Expression(second, totals)
