import re

import numpy as np
import pandas as pd
import pytest
from reference import counts_matrix, csr, dense_normalize, profiles_of

from geneae.data.preprocess import (
    Expression,
    Preprocess,
    column_mean,
    column_variance,
    fit_preprocess,
    normalize,
    normalize_thinned,
    select_columns,
)
from geneae.data.states import STATES
from geneae.settings.errors import InputError

EVERY = np.arange(30)


def test_normalisation_equals_that_of_scanpy() -> None:
    import anndata
    import scanpy as sc

    counts = counts_matrix()
    adata = anndata.AnnData(csr(counts))
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    found = normalize(csr(counts), counts.sum(1))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.toarray(), adata.X.toarray(), rtol=1e-5)
    np.testing.assert_allclose(found.toarray(), dense_normalize(counts), rtol=1e-5)


def test_halves_are_normalised_by_half_of_all_molecules() -> None:
    counts = counts_matrix()
    half = np.floor(counts / 2)
    found = normalize(csr(half), counts.sum(1) / 2)
    np.testing.assert_allclose(found.toarray(), np.log1p(2e4 * half / counts.sum(1)[:, None]), rtol=1e-5)
    even = normalize(csr(2 * half), (2 * half).sum(1))  # a half of equal shares is as high as the whole
    np.testing.assert_allclose(normalize(csr(half), half.sum(1)).toarray(), even.toarray(), rtol=1e-5)


def test_an_empty_profile_stays_empty_and_the_input_as_it_was() -> None:
    counts = counts_matrix()
    counts[4] = 0
    matrix = csr(counts)
    found = normalize(matrix, counts.sum(1).astype(int))
    assert found[4].nnz == 0
    assert np.isfinite(found.data).all()
    np.testing.assert_array_equal(matrix.toarray(), counts)


def test_another_target_sum_is_used() -> None:
    counts = counts_matrix()
    found = normalize(csr(counts), counts.sum(1), target_sum=100)
    np.testing.assert_allclose(np.expm1(found.toarray()).sum(1), 100, rtol=1e-5)


def test_columns_are_reordered_dropped_and_left_empty() -> None:
    dense = counts_matrix(6, 5)
    found = select_columns(csr(dense), np.array([2, 4, -1, 0, -1, -1]))
    expected = np.zeros((6, 6))
    expected[:, [3, 0, 1]] = dense[:, [0, 2, 4]]
    np.testing.assert_array_equal(found.toarray(), expected)
    assert found.has_sorted_indices
    assert (found.data != 0).all()


def test_no_column_may_be_left() -> None:
    found = select_columns(csr(counts_matrix(6, 5)), np.full(2, -1))
    assert found.shape == (6, 2)
    assert found.nnz == 0


def fitted(dense: np.ndarray, **options: object) -> Preprocess:
    return fit_preprocess(profiles_of(dense), np.arange(len(dense)), **options)  # type: ignore[arg-type]


def test_match_aligns_by_name_whatever_the_order_of_the_genes() -> None:
    counts = counts_matrix()
    preprocess = fitted(counts)
    expected, n_expected = preprocess.match(profiles_of(counts))
    order = np.random.default_rng(1).permutation(50)
    shuffled = profiles_of(counts[:, order], genes=[f"g{i}" for i in order])
    found, n_found = preprocess.match(shuffled)
    assert n_found == n_expected == len(preprocess.genes)
    np.testing.assert_array_equal(found.matrix.toarray(), expected.matrix.toarray())
    np.testing.assert_array_equal(found.totals, expected.totals)
    kept = [int(gene[1:]) for gene in preprocess.genes]
    np.testing.assert_allclose(preprocess.apply(found).toarray(), dense_normalize(counts)[:, kept], rtol=1e-6)


def test_missing_genes_are_zero_and_extra_ones_left_out() -> None:
    counts = counts_matrix()
    preprocess = fitted(counts)
    kept = [int(gene[1:]) for gene in preprocess.genes]
    present = kept[: len(kept) * 3 // 4]
    extra = np.full((30, 1), 7.0)
    given = profiles_of(np.hstack([extra, counts[:, present]]), genes=["new", *(f"g{i}" for i in present)])
    found, n_matched = preprocess.match(given)
    assert n_matched == len(present)
    np.testing.assert_array_equal(found.matrix.toarray()[:, : len(present)], counts[:, present])
    assert found.matrix[:, len(present) :].nnz == 0
    assert found.missing is not None
    np.testing.assert_array_equal(np.flatnonzero(found.missing), np.arange(len(present), len(kept)))
    assert preprocess.universe is not None
    share = preprocess.universe.shares[present].sum()
    np.testing.assert_allclose(found.totals, counts[:, present].sum(1) / share)
    some = found.take(np.array([3, 1]))
    assert (some.missing is found.missing, some.coverage) == (True, found.coverage)


def test_too_small_an_overlap_is_refused_unless_allowed() -> None:
    preprocess = fitted(np.ones((5, 10)))
    given = profiles_of(np.ones((2, 6)), genes=["g1", "g2", "g3", "g4", "x", "y"])
    message = (
        "at least 50 % of the model's 10 genes must be in the data; found 4 of them among 6 (model: g0, g1, g2, ...; "
        "data: g1, g2, g3, ...). Rename the genes to the model's names, or lower --min-overlap."
    )
    with pytest.raises(InputError, match=re.escape(message)):
        preprocess.match(given)
    assert preprocess.match(given, min_overlap=0.4)[1] == 4
    foreign = profiles_of(np.ones((2, 1)), genes=["x"])
    with pytest.raises(InputError, match=re.escape("found 0 of them among 1 (model: g0, g1, g2, ...; data: x)")):
        preprocess.match(foreign, min_overlap=0)


@pytest.mark.parametrize(("model", "data"), [("counts", "log"), ("log", "counts")])
def test_other_kinds_of_values_are_refused(model: str, data: str) -> None:
    preprocess = Preprocess(model, pd.Index(["g0"]), np.ones(1))
    message = (
        f"the model was fitted on {STATES[model].noun}, but array in memory, X holds {STATES[data].noun}. Name the "
        "matrix to read with --layer or --raw, say what its values are with --state"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        preprocess.match(profiles_of(np.ones((2, 1)), data))


def test_the_genes_of_largest_variance_after_log1p_are_kept_in_their_order() -> None:
    counts = counts_matrix()
    seen = (counts > 0).sum(0) >= 3
    variance = np.where(seen, dense_normalize(counts).var(0), -1)
    best = np.sort(np.argsort(-variance)[:10])
    assert list(fitted(counts, n_top_genes=10).genes) == [f"g{i}" for i in best]
    values = dense_normalize(counts)
    raw = fit_preprocess(profiles_of(values, "log"), EVERY, n_top_genes=10)
    assert list(raw.genes) == list(fitted(counts, n_top_genes=10).genes)


def test_more_top_genes_than_there_are_keep_all() -> None:
    counts = counts_matrix()
    assert list(fitted(counts, n_top_genes=1000).genes) == list(fitted(counts).genes)


def test_genes_seen_in_fewer_than_three_training_profiles_are_dropped() -> None:
    counts = np.zeros((6, 4))
    counts[:, 0] = 5
    counts[:3, 1] = 1
    counts[:2, 2] = 9
    counts[3:, 3] = 4  # seen in three profiles, of which two train
    assert list(fitted(counts).genes) == ["g0", "g1", "g3"]
    assert list(fit_preprocess(profiles_of(counts), np.arange(5)).genes) == ["g0", "g1"]
    assert list(fit_preprocess(profiles_of(counts), np.array([0, 1])).genes) == ["g0", "g1", "g2"]  # only two train


def test_no_gene_left_and_no_gene_asked_for_are_refused() -> None:
    with pytest.raises(InputError, match=r"no gene is seen in at least 3 of 3 training profiles of array in memory, X"):
        fitted(np.eye(3))
    with pytest.raises(InputError, match="at least one gene must be kept; n_top_genes is 0"):
        fitted(np.ones((3, 3)), n_top_genes=0)


@pytest.mark.parametrize("scale", [False, True])
def test_only_training_profiles_matter(scale: bool) -> None:
    counts = counts_matrix()
    train = np.arange(20)
    other = counts.copy()
    other[20:] = counts_matrix(10, 50, seed=9, depth=500)
    one, two = (fit_preprocess(profiles_of(c), train, n_top_genes=15, scale=scale) for c in (counts, other))
    assert list(one.genes) == list(two.genes)
    np.testing.assert_array_equal(one.scale, two.scale)
    alone = fit_preprocess(profiles_of(counts[:20]), train, n_top_genes=15, scale=scale)
    assert list(one.genes) == list(alone.genes)
    np.testing.assert_array_equal(one.scale, alone.scale)


def test_scaled_genes_have_deviation_one_and_stay_sparse() -> None:
    counts = counts_matrix()
    preprocess = fitted(counts, scale=True)
    expression, _ = preprocess.match(profiles_of(counts))
    found = preprocess.apply(expression)
    assert found.dtype == np.float32
    assert found.nnz == expression.matrix.nnz
    np.testing.assert_allclose(found.toarray().std(0), 1, rtol=1e-4)
    assert preprocess.space == "log1p_cp10k, genes divided by their deviation"


def test_a_gene_without_variance_is_not_scaled() -> None:
    values = np.hstack([np.full((5, 1), 2.0), np.arange(5.0)[:, None] + 1])
    preprocess = fit_preprocess(profiles_of(values, "log"), np.arange(5), scale=True)
    np.testing.assert_allclose(preprocess.scale, [1, np.sqrt(2)])


@pytest.mark.parametrize("state", ["log", "scaled"])
def test_values_that_are_no_counts_are_used_as_they_are(state: str) -> None:
    values = np.random.default_rng(0).normal(size=(5, 4))
    preprocess = fit_preprocess(profiles_of(values, state), np.arange(5))
    assert preprocess.space == state
    expression, _ = preprocess.match(profiles_of(values, state))
    np.testing.assert_array_equal(preprocess.apply(expression).toarray(), values.astype(np.float32))


def test_counts_that_are_not_scaled_name_their_space() -> None:
    assert fitted(counts_matrix()).space == "log1p_cp10k"


def test_taking_rows_takes_totals() -> None:
    counts = counts_matrix()
    some = Expression(csr(counts), counts.sum(1)).take(np.array([4, 1]))
    assert some.n_profiles == 2
    np.testing.assert_array_equal(some.matrix.toarray(), counts[[4, 1]])
    np.testing.assert_array_equal(some.totals, counts[[4, 1]].sum(1))


def test_column_moments_equal_those_of_numpy() -> None:
    values = np.random.default_rng(0).normal(3, 1, size=(50, 7)) * (np.arange(7) > 0)
    matrix = csr(values)
    np.testing.assert_allclose(column_mean(matrix), values.mean(0), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(column_variance(matrix), values.var(0), rtol=1e-5, atol=1e-12)


def test_column_moments_of_a_constant_and_of_nothing_are_zero() -> None:
    assert (column_variance(csr(np.full((7, 2), 0.1))) < 1e-15).all()
    assert (column_variance(csr(np.full((7, 2), 0.1))) >= 0).all()
    assert column_mean(csr(np.zeros((0, 3)))).tolist() == [0, 0, 0]
    assert column_variance(csr(np.zeros((0, 3)))).tolist() == [0, 0, 0]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_thinned_values_are_means_over_thinned_counts(share: float) -> None:
    counts = counts_matrix(4, 8)
    counts[0, :2] = [40, 900]  # the second is more than are summed over
    totals = counts.sum(1) + 10
    found = normalize_thinned(csr(counts), totals, share).toarray()
    rng = np.random.default_rng(0)
    drawn = [np.log1p(1e4 * rng.binomial(counts.astype(int), share) / (share * totals[:, None])) for _ in range(4000)]
    np.testing.assert_allclose(found, np.mean(drawn, 0), atol=0.2)  # 4 standard errors at most
    assert np.abs(found - np.mean(drawn, 0)).mean() < 0.04
    np.testing.assert_allclose(
        normalize_thinned(csr(counts), totals, 1.0).toarray(), normalize(csr(counts), totals).toarray(), rtol=1e-4
    )
    assert (normalize_thinned(csr(counts * 0), totals * 0, share).toarray() == 0).all()
