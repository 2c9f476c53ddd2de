"""Counts come back from what was made of them, and from nothing else."""

import math

import numpy as np
import pytest
from scipy import sparse

from geneae.data.units import Unit, counts_of, find_unit

RNG = np.random.default_rng(0)
COUNTS = sparse.csr_matrix(RNG.poisson(RNG.gamma(0.4, 3.0, (1, 80)) * RNG.gamma(4.0, 0.25, (40, 1))).astype(float))
TOTALS = np.asarray(COUNTS.sum(1)).ravel()


def scaled_to(total: float | np.ndarray) -> sparse.csr_matrix:
    return sparse.csr_matrix(sparse.diags(total / TOTALS) @ COUNTS)


def logged(matrix: sparse.csr_matrix, base: float, pseudo_count: float = 1.0) -> sparse.csr_matrix:
    if pseudo_count == 1:
        return matrix.log1p() / math.log(base)
    return sparse.csr_matrix(np.log(matrix.toarray() + pseudo_count) / math.log(base))


MADE = {
    "normalised": (scaled_to(1e4), None, None, 1e4),
    "CPM": (scaled_to(1e6), None, None, 1e6),
    "shares": (scaled_to(1.0), None, None, 1.0),
    "log1p": (logged(scaled_to(1e4), math.e), math.e, 1.0, 1e4),
    "log1p to the median": (logged(scaled_to(np.median(TOTALS)), math.e), math.e, 1.0, float(np.median(TOTALS))),
    "log1p of CPM": (logged(scaled_to(1e6), math.e), math.e, 1.0, 1e6),
    "log1p of counts": (logged(COUNTS, math.e), math.e, 1.0, None),
    "log2": (logged(scaled_to(1e4), 2.0), 2.0, 1.0, 1e4),
    "log10": (logged(scaled_to(1e4), 10.0), 10.0, 1.0, 1e4),
    "another base": (logged(scaled_to(1e4), 3.7), 3.7, 1.0, 1e4),
    "pseudo-count 0.5": (logged(scaled_to(1e6), 2.0, 0.5), 2.0, 0.5, 1e6),
    "pseudo-count 5": (logged(scaled_to(1e6), 2.0, 5.0), 2.0, 5.0, 1e6),
    "a share of genes": (logged(scaled_to(1e4), math.e)[:, :30], math.e, 1.0, None),
}


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_counts_come_back_with_target_base_and_pseudo_count(kind: str, dtype: type) -> None:
    matrix, base, pseudo_count, target_sum = MADE[kind]
    matrix = sparse.csr_matrix(matrix).astype(dtype)
    matrix.sort_indices()
    matrix.eliminate_zeros()
    found = find_unit(matrix.astype(float))
    assert found is not None
    assert found.is_proven
    if base is None:
        assert (found.base, found.pseudo_count) == (None, None)
    else:
        assert found.base == pytest.approx(base, rel=1e-5)
        assert found.pseudo_count == pytest.approx(pseudo_count, rel=1e-5)
    if target_sum is not None:
        assert found.target_sum == pytest.approx(target_sum, rel=1e-4)
    counts, units, n_odd = counts_of(matrix, found)
    assert n_odd == 0
    assert counts is not None
    np.testing.assert_array_equal(counts.toarray(), COUNTS.toarray()[:, : matrix.shape[1]])
    if kind == "log1p of counts":
        assert (found.factor, found.target_sum) == (pytest.approx(1), None)
        np.testing.assert_allclose(units[~np.isnan(units)], 1, rtol=1e-5)


def test_a_profile_whose_least_value_is_two_molecules_is_recovered() -> None:
    counts = COUNTS.toarray()
    counts[3] = 0
    counts[3, :4] = [2, 3, 7, 2]
    matrix = sparse.csr_matrix(np.diag(1e4 / counts.sum(1)) @ counts)
    found = find_unit(matrix)
    assert found is not None
    np.testing.assert_array_equal(counts_of(matrix, found)[0].toarray(), counts)


@pytest.mark.parametrize(
    "values",
    [
        RNG.gamma(1.0, 2.0, (20, 30)),
        np.log1p(RNG.gamma(1.0, 2.0, (20, 30))),
        RNG.normal(8.0, 1.0, (20, 30)),
        np.abs(RNG.normal(size=(20, 30))) * (RNG.random((20, 30)) < 0.3),
    ],
)
def test_values_that_come_from_no_counts_prove_nothing(values: np.ndarray) -> None:
    assert find_unit(sparse.csr_matrix(values)) is None


def test_a_few_values_prove_nothing() -> None:
    assert find_unit(sparse.csr_matrix(np.array([[0.5, 1.0], [0.0, 0.7]]))) is None
    assert find_unit(sparse.csr_matrix((3, 4))) is None


def test_one_value_that_does_not_fit_is_counted() -> None:
    matrix = scaled_to(1e4)
    found = find_unit(matrix)
    assert found is not None
    matrix.data[17] *= 1.37
    counts, _, n_odd = counts_of(matrix, found)
    assert counts is None
    assert 1 <= n_odd <= 3  # the value itself, and those that the fitted unit then misses


def test_sums_alone_give_the_target_and_no_counts() -> None:
    shares = RNG.dirichlet(np.full(50, 0.5), 12)
    assert find_unit(sparse.csr_matrix(np.log1p(1e4 * shares))) == Unit(
        math.e, 1.0, pytest.approx(1e4, rel=1e-6), None, False
    )
