"""Random views of profiles: the two halves of count splitting."""

import numpy as np
from scipy import sparse

from geneae.preprocess import Expression

BITS = 63  # counts up to it are split by one 64-bit word each; few are above


def split_counts(counts: sparse.csr_matrix, rng: np.random.Generator) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Put every molecule into one of two halves at random: Binomial(count, 1/2), exactly, and the rest.

    The number of ones in `count` random bits is such a draw; counting them is many times faster than drawing one
    binomial number a value. Under Poisson sampling the halves are independent given the profile (Batson, Royer and
    Webber 2019, molecular cross-validation). The matrix given is not changed.
    """
    values = counts.data.astype(np.int64)
    words = rng.integers(0, 2**64, size=len(values), dtype=np.uint64)
    masks = (np.uint64(1) << np.minimum(values, BITS).astype(np.uint64)) - np.uint64(1)
    first = np.bitwise_count(words & masks).astype(np.int64)
    large = values > BITS
    if large.any():
        first[large] = rng.binomial(values[large], 0.5)
    return _without_zeros(counts, first), _without_zeros(counts, values - first)


def _without_zeros(like: sparse.csr_matrix, values: np.ndarray) -> sparse.csr_matrix:
    kept = values > 0
    ends = np.concatenate([[0], np.cumsum(kept)])[like.indptr].astype(like.indptr.dtype)
    data = values[kept].astype(np.float32)
    return sparse.csr_matrix((data, like.indices[kept], ends), shape=like.shape)


def halves(expression: Expression, rng: np.random.Generator) -> tuple[Expression, Expression]:
    """Two random halves of the molecules; each is compared with half the molecules of the whole profile."""
    first, second = split_counts(expression.matrix, rng)
    totals = expression.totals / 2
    return Expression(first, totals), Expression(second, totals)
