import numpy as np
import pytest
from reference import counts_matrix, csr
from scipy import sparse, stats

from geneae.data.count_split import BITS, Splitter, halves, with_own_totals
from geneae.data.preprocess import Expression

MANY = 20_000


def split_dense(dense: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    first, second = Splitter(csr(dense)).draw(np.random.default_rng(seed))
    return first.toarray(), second.toarray()


def test_halves_are_whole_molecules_that_add_up() -> None:
    counts = counts_matrix(depth=5000)
    counts[3] = 0
    first, second = Splitter(csr(counts)).draw(np.random.default_rng(0))
    np.testing.assert_array_equal(first.toarray() + second.toarray(), counts)
    for half in (first, second):
        assert half.dtype == np.float32
        assert half.has_sorted_indices
        assert (half.data > 0).all()
        np.testing.assert_array_equal(half.data, np.floor(half.data))


@pytest.mark.parametrize("count", [1, 2, 7, BITS - 1, BITS, BITS + 1, 65, 1000])
def test_a_half_is_binomial(count: int) -> None:
    first, second = split_dense(np.full((1, MANY), float(count)), seed=count)
    for half in (first.ravel(), second.ravel()):
        assert abs(half.mean() - count / 2) < 5 * np.sqrt(count / 4 / MANY)
        kurtosis = 3 - 2 / count  # of a fair binomial; the variance of a sample variance follows
        assert abs(half.var() / (count / 4) - 1) < 5 * np.sqrt(max(kurtosis - 1, 1e-3) / MANY)
        assert half.max() <= count
    found = np.bincount(first.ravel().astype(int), minlength=count + 1)
    expected = stats.binom.pmf(np.arange(count + 1), count, 0.5) * MANY
    rare = expected < 5
    found, expected = ([*v[~rare], v[rare].sum()] for v in (found, expected))
    if expected[-1] < 1:
        found, expected = [found[0] + found[-1], *found[1:-1]], [expected[0] + expected[-1], *expected[1:-1]]
    assert stats.chisquare(found, expected).pvalue > 1e-4


def test_halves_of_poisson_counts_are_independent_poisson() -> None:
    counts = np.random.default_rng(0).poisson(8.0, size=(10, MANY)).astype(float)
    first, second = (half.ravel() for half in split_dense(counts))
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(first.size)
    for half in (first, second):
        assert abs(half.mean() - 4) < 5 * np.sqrt(4 / half.size)
        assert abs(half.var() / 4 - 1) < 5 * np.sqrt((2 + 1 / 4) / half.size)
    given = counts.ravel() == 8  # of a known total they are not: what one has, the other lacks
    assert np.corrcoef(first[given], second[given])[0, 1] == pytest.approx(-1)


def test_values_of_one_profile_are_split_independently() -> None:
    first, _ = split_dense(np.full((MANY, 2), 6.0))
    assert abs(np.corrcoef(first[:, 0], first[:, 1])[0, 1]) < 5 / np.sqrt(MANY)


def test_the_matrix_given_stays_as_it_was() -> None:
    matrix = csr(counts_matrix(depth=5000))
    before = matrix.copy()
    for array in (matrix.data, matrix.indices, matrix.indptr):
        array.flags.writeable = False
    Splitter(matrix).draw(np.random.default_rng(0))
    assert (matrix != before).nnz == 0


def test_the_generator_decides() -> None:
    counts = counts_matrix(depth=5000)
    np.testing.assert_array_equal(split_dense(counts, 1), split_dense(counts, 1))
    assert (split_dense(counts, 1)[0] != split_dense(counts, 2)[0]).any()


def test_nothing_splits_into_nothing() -> None:
    first, second = Splitter(csr(np.zeros((3, 4)))).draw(np.random.default_rng(0))
    assert first.shape == second.shape == (3, 4)
    assert first.nnz == second.nnz == 0


def test_halves_compare_with_half_of_all_molecules() -> None:
    counts = counts_matrix()
    totals = counts.sum(1) + 11  # molecules of genes that were not chosen
    whole = Expression(csr(counts), totals)
    one, two = halves(whole, np.random.default_rng(3))
    np.testing.assert_array_equal((one.matrix + two.matrix).toarray(), counts)
    np.testing.assert_array_equal(one.totals, totals / 2)
    np.testing.assert_array_equal(two.totals, totals / 2)
    np.testing.assert_array_equal(whole.totals, totals)
    assert isinstance(one.matrix, sparse.csr_matrix)


def test_halves_with_own_totals_have_the_molecules_that_each_of_them_has() -> None:
    counts = counts_matrix()
    pair = halves(Expression(csr(counts), counts.sum(1)), np.random.default_rng(3))
    assert (pair[0].totals != pair[0].matrix.toarray().sum(1)).any()
    for own, half in zip(with_own_totals(pair), pair, strict=True):
        np.testing.assert_array_equal(own.matrix.toarray(), half.matrix.toarray())
        np.testing.assert_array_equal(own.totals, half.matrix.toarray().sum(1))


def test_molecules_of_other_genes_are_divided_evenly() -> None:
    counts = counts_matrix()
    outside = np.arange(len(counts)) % 7
    pair = halves(Expression(csr(counts), counts.sum(1) + outside), np.random.default_rng(3))
    found = with_own_totals(pair)
    for own in found:
        np.testing.assert_allclose(own.totals, own.matrix.toarray().sum(1) + outside / 2)
    np.testing.assert_allclose(found[0].totals + found[1].totals, counts.sum(1) + outside)


def test_own_totals_are_never_below_the_molecules_that_are_there() -> None:
    """Halves of different profiles, as in a permuted control, may have more molecules than their totals say."""
    rows = csr(np.array([[3.0, 2.0], [0.0, 0.0]]))
    pair = Expression(rows, np.array([1.0, 0.0])), Expression(rows, np.array([1.0, 0.0]))
    for own in with_own_totals(pair):
        np.testing.assert_array_equal(own.totals, [5.0, 0.0])
    assert pair[0].totals.tolist() == [1.0, 0.0]
