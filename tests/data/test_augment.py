import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies
from reference import csr
from scipy import sparse

from geneae.data.augment import SHARES, VIEWS, WEIGHTS, Viewer, parse_views, thin, thin_to
from geneae.data.preprocess import Expression, Preprocess
from geneae.settings.errors import InputError
from geneae.settings.settings import VIEW_NAMES

amounts = strategies.floats(0, 1)
seeds = strategies.integers(0, 2**32 - 1)


@strategies.composite
def some_counts(draw: strategies.DrawFn) -> sparse.csr_matrix:
    """Small sparse counts, empty profiles and genes among them."""
    shape = draw(strategies.integers(1, 8)), draw(strategies.integers(1, 12))
    rng = np.random.default_rng(draw(seeds))
    return csr(rng.poisson(draw(strategies.sampled_from([0.1, 1.0, 40.0])), shape))


def frozen(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """The same, and an error for whoever writes to it."""
    for array in (matrix.data, matrix.indices, matrix.indptr):
        array.flags.writeable = False
    return matrix


def change(name: str, matrix: sparse.csr_matrix, amount: float, seed: int) -> sparse.csr_matrix:
    deviation = np.linspace(0.5, 2, matrix.shape[1])
    function = VIEWS[name].change
    assert function is not None
    return function(matrix, amount, np.random.default_rng(seed), deviation)


CHANGES = [name for name, kind in VIEWS.items() if kind.change is not None]
few = settings(max_examples=25, deadline=None, derandomize=True)


def check_view(view: sparse.csr_matrix, given: sparse.csr_matrix) -> None:
    assert isinstance(view, sparse.csr_matrix)
    assert view.shape == given.shape
    assert view.dtype == given.dtype
    assert view.has_sorted_indices
    assert view.has_canonical_format
    assert (view.data > 0).all()  # neither negative nor a stored zero


@pytest.mark.parametrize("name", CHANGES)
@given(matrix=some_counts(), amount=amounts, seed=seeds)
@few
def test_a_view_is_sparse_never_negative_and_decided_by_its_seed(
    name: str, matrix: sparse.csr_matrix, amount: float, seed: int
) -> None:
    before = matrix.copy()
    view = change(name, frozen(matrix), amount, seed)
    check_view(view, matrix)
    assert (view != change(name, matrix, amount, seed)).nnz == 0
    assert (matrix != before).nnz == 0
    assert (change(name, matrix, 0.0, seed) != matrix).nnz == 0  # nothing asked for, nothing changed


@given(matrix=some_counts(), least=amounts, seed=seeds)
@few
def test_thinning_takes_whole_molecules_away(matrix: sparse.csr_matrix, least: float, seed: int) -> None:
    totals = np.asarray(matrix.sum(1), float).ravel() + 3
    given_ = Expression(frozen(matrix), totals)
    before = matrix.copy()
    thinned, shares = thin(given_, least, np.random.default_rng(seed))
    check_view(thinned.matrix, matrix)
    np.testing.assert_array_equal(thinned.matrix.data, np.floor(thinned.matrix.data))
    assert ((matrix - thinned.matrix).data >= 0).all()
    assert ((thinned.totals >= least * totals) & (thinned.totals <= totals)).all()
    np.testing.assert_array_equal(thinned.totals, shares * totals)
    assert (matrix != before).nnz == 0
    again, _ = thin(given_, least, np.random.default_rng(seed))
    assert (again.matrix != thinned.matrix).nnz == 0
    assert (thin(given_, 1.0, np.random.default_rng(seed))[0].matrix != matrix).nnz == 0


@pytest.mark.parametrize("count", [1, 2, 30])
def test_thinning_keeps_the_share_that_it_says(count: int) -> None:
    counts = np.full((50, 2000), float(count))
    thinned, _ = thin(Expression(csr(counts), counts.sum(1)), 0.3, np.random.default_rng(0))
    kept = np.asarray(thinned.matrix.sum(1)).ravel() / counts.sum(1)
    share = thinned.totals / counts.sum(1)
    np.testing.assert_allclose(kept, share, atol=5 * np.sqrt(0.25 / (2000 * count)))  # five standard errors
    assert abs(share.mean() - 0.65) < 5 * np.sqrt(0.7**2 / 12 / 50)
    assert share.min() < 0.4 < 0.9 < share.max()  # every profile has one of its own


def test_masking_keeps_its_share() -> None:
    matrix = csr(np.ones((20, 2000)))
    assert abs(change("mask", matrix, 0.3, 0).nnz / matrix.nnz - 0.7) < 5 * np.sqrt(0.21 / 40_000)
    assert change("mask", matrix, 1.0, 0).nnz == 0


def test_noise_is_in_units_of_the_deviation_and_leaves_zeros_alone() -> None:
    dense = np.full((5000, 3), 100.0)
    dense[:, 1] = 0
    noisy = change("noise", csr(dense), 0.4, 0).toarray() - dense
    np.testing.assert_allclose(noisy.std(0), [0.4 * 0.5, 0, 0.4 * 2], rtol=0.05)
    assert (noisy[:, 1] == 0).all()
    negative = -csr(dense)  # scaled values may be
    assert (change("noise", negative, 50.0, 0).data < 0).all()


def test_crossover_takes_genes_from_one_other_profile() -> None:
    dense = np.arange(1, 7)[:, None] * np.ones((6, 1000))
    crossed = change("crossover", csr(dense), 0.25, 0).toarray()
    for own, row in enumerate(crossed, start=1):
        found, often = np.unique(row, return_counts=True)
        assert len(found) == 2
        assert own in found
        assert abs(often[found != own][0] / 1000 - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 1000)


def test_swapping_keeps_the_values_of_a_profile() -> None:
    dense = np.arange(1.0, 4002.0).reshape(1, -1).repeat(3, 0)
    swapped = change("swap", csr(dense), 0.5, 0).toarray()
    np.testing.assert_array_equal(np.sort(swapped), dense)
    moved = swapped != dense
    assert abs(moved.mean() - 0.5) < 5 * np.sqrt(0.25 / 6000)
    for row, at in zip(swapped.astype(int) - 1, moved, strict=True):
        np.testing.assert_array_equal(row[row[at]], np.flatnonzero(at))  # pairs, that do not collide
    assert (moved[0] != moved[1]).any()


@given(matrix=some_counts(), chain=strategies.permutations(["thin:0.2", "mask:0.3", "noise:0.5", "crossover", "swap"]))
@few
def test_views_can_be_chained_in_any_order(matrix: sparse.csr_matrix, chain: list[str]) -> None:
    totals, before = np.asarray(matrix.sum(1), float).ravel(), matrix.copy()
    preprocess = Preprocess("counts", pd.Index([f"g{i}" for i in range(matrix.shape[1])]), np.ones(matrix.shape[1]))
    viewer = Viewer(parse_views("+".join(chain), "counts"), preprocess, np.ones(matrix.shape[1]))
    views = viewer.draw(Expression(matrix, totals), np.random.default_rng(0))
    for view in views:
        assert view.matrix.dtype == np.float32
        check_view(view.matrix, matrix)
    assert (matrix != before).nnz == 0
    again = viewer.draw(Expression(matrix, totals), np.random.default_rng(0))
    assert all((one.matrix != other.matrix).nnz == 0 for one, other in zip(views, again, strict=True))


def test_noise_after_masking_brings_nothing_back() -> None:
    matrix = csr(np.full((4, 500), 3.0))
    preprocess = Preprocess("log", pd.Index([f"g{i}" for i in range(500)]), np.ones(500))
    viewer = Viewer([("mask", 0.5), ("noise", 1.0)], preprocess, np.ones(500))
    masked = Viewer([("mask", 0.5)], preprocess, np.ones(500))
    expression = Expression(matrix, np.ones(4))
    after, before = (each.draw(expression, np.random.default_rng(2))[0].matrix.toarray() for each in (viewer, masked))
    assert (after[before == 0] == 0).all()
    assert (after[before > 0] != before[before > 0]).all()


def viewer_of_counts(n_genes: int, chain: list[tuple[str, float]]) -> Viewer:
    preprocess = Preprocess("counts", pd.Index([f"g{i}" for i in range(n_genes)]), np.ones(n_genes))
    return Viewer(chain, preprocess, np.ones(n_genes))


def test_views_at_several_depths_have_no_molecule_in_common_and_say_their_share() -> None:
    counts = csr(np.ones((3000, 200)))
    expression = Expression(counts, np.full(3000, 200.0))
    first, second = viewer_of_counts(200, [("depths", 0.0)]).draw(expression, np.random.default_rng(0))
    assert first.matrix.multiply(second.matrix).nnz == 0  # every molecule is of another gene
    for view in (first, second):
        np.testing.assert_array_equal(np.unique(view.shares), sorted(SHARES))
        np.testing.assert_array_equal(view.totals, np.diff(view.matrix.indptr))
        for share, weight in zip(SHARES, WEIGHTS, strict=True):
            found = view.shares == share
            assert view.totals[found].mean() / 200 == pytest.approx(share, rel=0.05)
            expected = weight / sum(WEIGHTS)
            assert abs(found.mean() - expected) < 5 * np.sqrt(expected * (1 - expected) / 3000)
    assert (first.shares != second.shares).any()


@pytest.mark.parametrize(("least", "drawn"), [(0.5, SHARES[:1]), (0.15, SHARES[:3]), (0.1, SHARES[:3])])
def test_the_amount_of_depths_is_the_smallest_share(least: float, drawn: tuple[float, ...]) -> None:
    expression = Expression(csr(np.ones((400, 20))), np.full(400, 20.0))
    first, _ = viewer_of_counts(20, [("depths", least)]).draw(expression, np.random.default_rng(0))
    np.testing.assert_array_equal(np.unique(first.shares), sorted(drawn))


def test_views_say_what_share_of_the_molecules_they_have_left() -> None:
    expression = Expression(csr(np.full((50, 2000), 3.0)), np.full(50, 6000.0))
    for chain in ([("mask", 0.5)], [("thin", 0.3)], [("depths", 0.04), ("thin", 0.3)]):
        view, _ = viewer_of_counts(2000, chain).draw(expression, np.random.default_rng(0))
        np.testing.assert_allclose(view.totals / 6000, view.shares, atol=5 * np.sqrt(0.25 / 6000))
    whole, _ = viewer_of_counts(2000, [("mask", 0.5)]).draw(expression, np.random.default_rng(0))
    np.testing.assert_array_equal(whole.shares, 1.0)


def test_one_share_for_all_is_the_same_share_for_each() -> None:
    expression = Expression(csr(np.tile([0.0, 1, 4, 30], (60, 1))), np.full(60, 50.0))
    one = thin_to(expression, 0.3, np.random.default_rng(0))
    each = thin_to(expression, np.full(60, 0.3), np.random.default_rng(0))
    assert (one.rows != each.rows).nnz == 0
    np.testing.assert_array_equal(one.totals, each.totals)
    mixed = thin_to(expression, np.repeat([0.0, 1.0], 30), np.random.default_rng(0))
    assert mixed.rows[:30].nnz == 0
    np.testing.assert_array_equal(mixed.rows[30:].toarray(), expression.rows[30:].toarray())


def test_views_are_named_with_or_without_an_amount() -> None:
    assert parse_views("auto", "counts") == [("thin", 0.3)]
    assert parse_views("auto", "scaled") == [("mask", 0.3)]
    assert parse_views("auto", "counts", knows_depth=True) == [("depths", 0.04)]
    assert parse_views("auto", "scaled", knows_depth=True) == [("mask", 0.3)]
    assert parse_views("thin + mask:0.5+noise:3", "counts") == [("thin", 0.3), ("mask", 0.5), ("noise", 3.0)]
    assert tuple(VIEWS) == VIEW_NAMES


@pytest.mark.parametrize(
    ("text", "state", "message"),
    [
        ("msk", "counts", "unknown view 'msk'; did you mean 'mask'"),
        ("mask:2", "counts", r"view mask must be a number from 0 to 1; found '2'. Write for example mask:0.3"),
        ("noise:some", "counts", "view noise must be a number from 0 to inf; found 'some'"),
        ("thin", "log", "view thin takes molecules away and needs counts; these are log values"),
        ("mask+depths", "scaled", "view depths takes molecules away and needs counts; these are scaled values"),
        ("depths:0.6", "counts", r"view depths must be a number from 0 to 0.5; found '0.6'. Write for example depths:"),
    ],
)
def test_views_that_cannot_be_are_refused(text: str, state: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_views(text, state)


def test_thinning_to_a_share_keeps_that_share_of_the_molecules_of_every_gene() -> None:
    counts = csr(np.tile([0, 1, 1, 7, 60], (4000, 1)))
    expression = Expression(counts, np.full(4000, 69.0 + 200))
    kept = thin_to(expression, 0.2, np.random.default_rng(0))
    values = kept.rows.toarray()
    np.testing.assert_allclose(values.mean(0), 0.2 * counts[0].toarray()[0], rtol=0.06)
    np.testing.assert_allclose(values[:, 1:].var(0), 0.2 * 0.8 * np.array([1, 1, 7, 60]), rtol=0.1)
    # 200 molecules are of genes that are not in the matrix
    outside = kept.totals - values.sum(1)
    assert outside.mean() == pytest.approx(40, rel=0.02)
    assert outside.var() == pytest.approx(0.2 * 0.8 * 200, rel=0.1)


@few
@given(some_counts(), strategies.floats(0, 1), seeds)
def test_thinning_to_a_share_makes_no_molecules(counts: sparse.csr_matrix, share: float, seed: int) -> None:
    totals = np.asarray(counts.sum(1), dtype=float).ravel() + 3
    kept = thin_to(Expression(frozen(counts), totals), share, np.random.default_rng(seed))
    dense = kept.rows.toarray()
    assert (dense <= counts.toarray()).all()
    assert (dense == np.rint(dense)).all()
    assert (kept.rows.data > 0).all()
    assert kept.rows.dtype == np.float32
    assert (kept.totals >= dense.sum(1)).all()
    assert (kept.totals <= totals).all()
    assert (kept.totals == np.rint(kept.totals)).all()


@few
@given(some_counts(), seeds)
def test_a_share_of_one_keeps_every_molecule_and_one_of_zero_none(counts: sparse.csr_matrix, seed: int) -> None:
    totals = np.asarray(counts.sum(1), dtype=float).ravel() + 5
    everything, nothing = (thin_to(Expression(counts, totals), share, np.random.default_rng(seed)) for share in (1, 0))
    np.testing.assert_array_equal(everything.rows.toarray(), counts.toarray())
    np.testing.assert_array_equal(everything.totals, totals)
    assert nothing.rows.nnz == 0
    assert not nothing.totals.any()


def test_thinning_to_a_share_follows_the_generator() -> None:
    expression = Expression(csr(np.full((20, 5), 9.0)), np.full(20, 45.0))
    one, same, other = (thin_to(expression, 0.5, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.rows.toarray(), same.rows.toarray())
    assert (one.rows.toarray() != other.rows.toarray()).any()
