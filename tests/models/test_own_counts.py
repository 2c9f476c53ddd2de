"""Own counts: sums, shares and the residual where a gene is not seen, as regressions on dense float64 arrays."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dense_estimator import N_DEPTHS, DenseEstimator, dense_pooled_ridge, random_estimator
from reference import csr, with_holes

from geneae.data.augment import SHARES
from geneae.models import own_counts
from geneae.models.depths import DELTAS, DepthCurves, Item
from geneae.models.own_counts import (
    GROUPS,
    ZERO_TERMS,
    OwnCounts,
    _ShareSums,
    _shrunken_shares,
    entries_of,
    fit_own_counts,
    predictions_at,
    rows_of,
    values_at,
    with_zeros,
)
from geneae.models.posterior import Scored
from geneae.models.whitening import Whitened, Whitening

N_PROFILES, N_GENES, RANK, N_FOLDS = 36, 8, 2, 3


@pytest.mark.parametrize("chunk", [3, 10**6])
def test_predictions_at_single_places_are_those_of_the_whole_product(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_counts, "CHUNK_ENTRIES", chunk)
    scores, components = torch.randn(6, 3), torch.randn(5, 3)
    rows, genes = torch.tensor([0, 5, 5, 2, 1, 3, 4]), torch.tensor([4, 0, 4, 2, 2, 1, 3])
    found = predictions_at(rows, genes, scores, components)
    torch.testing.assert_close(found, (scores @ components.T)[rows, genes])
    assert predictions_at(rows[:0], genes[:0], scores, components).shape == (0,)


@pytest.mark.parametrize("scratch", [1, 23, 2**19])
def test_rows_and_values_of_stored_places(scratch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_counts, "SCRATCH", scratch)
    dense, pattern = with_holes(0), with_holes(1)
    rows, genes = np.nonzero(pattern)
    assert rows_of(csr(pattern)).tolist() == rows.tolist()
    np.testing.assert_array_equal(values_at(csr(dense), csr(pattern)), dense[rows, genes])
    assert 0 < (dense[rows, genes] == 0).sum() < len(rows)


def test_values_of_an_empty_matrix_are_zero() -> None:
    pattern = with_holes()
    nothing = csr(np.zeros_like(pattern))
    np.testing.assert_array_equal(values_at(nothing, csr(pattern)), np.zeros(np.count_nonzero(pattern)))
    assert len(values_at(csr(pattern), nothing)) == 0


@pytest.mark.parametrize("delta", [-0.5, 0.0, 0.7, 9.0])
def test_coefficients_at_a_depth_give_the_formula(delta: float) -> None:
    estimator, rng = random_estimator(), np.random.default_rng(0)
    p, e = rng.standard_normal((5, 13)), rng.standard_normal(5)
    constant, of_p, of_e, of_ep = (some.double().numpy() for some in estimator.own_counts.at_zero(delta))
    found = constant + of_p * p + of_e * e[:, None] + of_ep * e[:, None] * p
    np.testing.assert_allclose(found, DenseEstimator(estimator, delta).zero_formula(p, e), rtol=1e-5, atol=1e-6)


class Simulated:
    """Sparse inputs and targets around scores, of which a known share of each gene's difference is real."""

    def __init__(self, seed: int = 0, n_profiles: int = N_PROFILES, real: float = 0.5) -> None:
        rng = np.random.default_rng(seed)
        self.n = n_profiles
        self.fold = rng.integers(0, N_FOLDS, n_profiles)
        bases = [np.linalg.qr(rng.standard_normal((N_GENES, RANK)))[0] for _ in range(N_FOLDS)]
        self.mean, self.deviation = 0.5 + rng.random(N_GENES), 0.5 + rng.random(N_GENES)
        own = Whitening(*(torch.tensor(a, dtype=torch.float32) for a in (self.mean, self.deviation, bases[0])))
        self.whitened = Whitened(own, self.fold, [torch.tensor(b, dtype=torch.float32) for b in bases])
        self.means, self.slopes = 0.4 + rng.random((N_DEPTHS, N_GENES)), 0.5 + rng.random((N_DEPTHS, N_GENES))
        tables = self.means, np.ones_like(self.means), self.slopes
        self.curves = DepthCurves(*(torch.tensor(table, dtype=torch.float32) for table in tables))
        self.scored = []
        truth = real**0.5 * rng.standard_normal((n_profiles, N_GENES))
        for share in range(len(SHARES)):
            for _ in range(2):
                scores = rng.standard_normal((n_profiles, RANK))
                p = np.array([bases[f] @ s for f, s in zip(self.fold, scores, strict=True)])
                noise = [(1 - real) ** 0.5 * rng.standard_normal(p.shape) for _ in range(2)]
                z = self.means[share + 1] + self.deviation * (self.slopes[share + 1] * p + truth + noise[0])
                y = self.mean + self.deviation * (p + truth + noise[1])
                z, y = (np.where(rng.random(p.shape) < 0.4, 0, values) for values in (z, y))
                z[:, -1] = 0  # a gene that is seen in no input
                totals = np.where(np.arange(n_profiles) < 4, 1.0, rng.uniform(20, 90, n_profiles))
                item = Item(csr(z), csr(y), totals, share)
                e = torch.tensor(rng.standard_normal(n_profiles), dtype=torch.float32)
                expected, nothing = torch.tensor(scores, dtype=torch.float32), torch.zeros(n_profiles, RANK)
                self.scored.append(Scored(item, e, expected, nothing))
        self.entries = [entries_of(self.whitened, one, self.fold) for one in self.scored]
        self.n_seen = np.full(N_GENES, n_profiles)
        self.n_seen[0] = 7  # seen too rarely for coefficients of its own

    def fit(self, scored: list[Scored] | None = None) -> OwnCounts:
        """Shares and coefficients."""
        scored = self.scored if scored is None else scored
        shares = fit_own_counts(self.whitened, self.curves, scored, self.fold, self.n_seen)
        return with_zeros(shares, self.whitened, self.curves, scored, self.entries, self.n_seen)

    def predictions(self, scored: Scored) -> np.ndarray:
        """Whitened predictions of all genes, each profile in the basis without its fold."""
        bases = [components.double().numpy() for components in self.whitened.without]
        return np.array([bases[f] @ s.double().numpy() for f, s in zip(self.fold, scored.expected, strict=True)])

    def differences(self, scored: Scored, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Input minus slope p, and target minus p, whitened."""
        share = scored.item.share
        z, y = (some.toarray().astype(float) for some in (scored.item.inputs, scored.item.targets))
        unit = self.deviation
        return (z - self.means[share + 1]) / unit - self.slopes[share + 1] * p, (y - self.mean) / unit - p


@pytest.fixture(scope="module")
def world() -> Simulated:
    return Simulated()


@pytest.fixture(scope="module")
def fitted(world: Simulated) -> OwnCounts:
    return world.fit()


def test_entries_are_the_stored_values_and_what_is_known_there(world: Simulated) -> None:
    for scored, entries in zip(world.scored, world.entries, strict=True):
        z, y = scored.item.inputs.toarray(), scored.item.targets.toarray()
        rows, genes = np.nonzero(z)
        assert entries.rows.tolist() == rows.tolist()
        assert entries.genes.tolist() == genes.tolist()
        np.testing.assert_array_equal(entries.values, z[rows, genes])
        np.testing.assert_array_equal(entries.targets, y[rows, genes])
        np.testing.assert_allclose(entries.predictions, world.predictions(scored)[rows, genes], atol=1e-5)


@pytest.mark.parametrize("share", [0, 3])
def test_sums_of_groups_are_those_over_dense_differences(world: Simulated, share: int) -> None:
    some = [one for one in world.scored if one.item.share == share]
    curves = world.curves
    found = _ShareSums(world.whitened, some, curves.means[share + 1], curves.slopes[share + 1], world.fold).by_group()
    assert found.shape == (4, GROUPS * N_FOLDS, N_GENES)

    def products(rows: np.ndarray) -> list[np.ndarray]:
        """Sums over some profiles, with the predictions and with none."""
        sums = np.zeros((4, N_GENES))
        for one in some:
            p = world.predictions(one)
            weight = one.item.weight[rows, None].astype(float)
            for first, predicted in ((0, p), (2, np.zeros_like(p))):
                u, y = (each[rows] for each in world.differences(one, predicted))
                sums[first : first + 2] += [(weight * u * y).sum(0), (weight * u * u).sum(0)]
        return list(sums)

    np.testing.assert_allclose(found.sum(1), products(np.arange(world.n)), rtol=1e-4, atol=1e-4)
    # the groups hold different profiles of one fold
    by_group = []
    for number in range(N_FOLDS):
        own = np.flatnonzero(world.fold == number)
        by_group += [products(own[part::GROUPS]) for part in range(GROUPS)]
    np.testing.assert_allclose(found, np.stack(by_group, 1), rtol=1e-4, atol=1e-4)


def test_the_share_of_complete_profiles_follows_from_that_of_halves(fitted: OwnCounts) -> None:
    for table in (fitted.shares.double().numpy(), fitted.alone.double().numpy()):
        half = table[1]
        expected = [f / (f + (1 - f) / 2) if f > 0 else f for f in half]
        np.testing.assert_allclose(table[0], expected, rtol=1e-5)
        assert (table >= -0.05001).all()
        assert (table <= 0.98001).all()


def test_shares_alone_are_those_of_predictions_that_are_zero(world: Simulated, fitted: OwnCounts) -> None:
    nothing = [replace(one, expected=torch.zeros_like(one.expected)) for one in world.scored]
    torch.testing.assert_close(fitted.alone, world.fit(nothing).shares, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(fitted.alone, fitted.shares, atol=1e-2)


def test_a_share_without_error_is_the_ratio_and_one_without_spread_the_trend() -> None:
    rng = np.random.default_rng(0)
    mean, n_seen = np.linspace(0.1, 2, 12), np.full(12, 100)
    share = rng.uniform(0.1, 0.9, 12)
    square = rng.uniform(1, 2, (10, 12))
    found = _shrunken_shares(share * square, square, mean, n_seen)
    np.testing.assert_allclose(found, share, atol=1e-6)
    # groups that disagree by much more than genes do: all genes of a bin get the same
    noisy = (0.5 + 5 * rng.standard_normal(square.shape)) * square
    found = _shrunken_shares(noisy, square, np.ones(12), n_seen)
    raw = noisy.sum(0) / square.sum(0)
    assert np.ptp(found) < 0.5 * np.ptp(raw)


def test_a_gene_seen_rarely_is_shrunk_more() -> None:
    rng = np.random.default_rng(0)
    square, mean = np.ones((10, 60)), np.linspace(1, 1.1, 60)
    common = 0.5 + 0.2 * rng.standard_normal((1, 60)) + 0.3 * rng.standard_normal((10, 60))
    n_seen = np.full(60, 1000)
    often = _shrunken_shares(common, square, mean, n_seen)
    gene = int(np.abs(common.mean(0)[:20] - 0.5).argmax())
    n_seen[gene] = 1
    rarely = _shrunken_shares(common, square, mean, n_seen)
    assert abs(rarely[gene] - 0.5) < abs(often[gene] - 0.5)


def test_shares_lie_within_limits() -> None:
    square = np.ones((6, 3))
    common = np.array([[-1.0, 0.5, 3.0]] * 6)
    np.testing.assert_allclose(
        _shrunken_shares(common, square, np.ones(3), np.full(3, 9)), [-0.05, 0.5, 0.98], atol=1e-5
    )


@pytest.mark.parametrize("real", [0.2, 0.6])
def test_the_share_is_that_of_the_simulation(real: float) -> None:
    rng = np.random.default_rng(0)
    n = 2000
    p, truth = rng.standard_normal((n, 1)), real**0.5 * rng.standard_normal((n, N_GENES))
    basis = Whitening(torch.full((N_GENES,), 5.0), torch.ones(N_GENES), torch.full((N_GENES, 1), N_GENES**-0.5))
    fold = np.arange(n) % 4
    whitened = Whitened(basis, fold, [basis.components] * 4)
    ones = torch.ones(N_GENES)
    halves = [
        csr(5 + p * N_GENES**-0.5 + truth + (1 - real) ** 0.5 * rng.standard_normal(truth.shape)) for _ in range(2)
    ]
    nothing = torch.zeros(n, 1)
    scored = [
        Scored(Item(halves[h], halves[1 - h], np.full(n, 99.0), 0), nothing[:, 0], torch.tensor(p).float(), nothing)
        for h in (0, 1)
    ]
    sums = _ShareSums(whitened, scored, 5 * ones, ones, fold).by_group()
    found = _shrunken_shares(sums[0], sums[1], np.full(N_GENES, 5.0), np.full(N_GENES, n))
    np.testing.assert_allclose(found, real, atol=0.05)


def dense_zeros(world: Simulated, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normal equations of the residual over the places where a gene is not seen, place by place."""
    total = sum(one.item.weight.sum() for one in world.scored)
    gram, right = np.zeros((N_GENES, 9, 9)), np.zeros((N_GENES, 9))
    for one in world.scored:
        p = world.predictions(one)
        u, y = world.differences(one, p)
        residual = y - shares[one.item.share + 1] * u
        z, delta = one.item.inputs.toarray(), DELTAS[one.item.share + 1]
        for profile in range(world.n):
            weight = 2 * world.n * one.item.weight[profile] / total
            e = float(one.depth_scores[profile])
            for gene in np.flatnonzero(z[profile] == 0):
                here = p[profile, gene]
                row = np.array([here**a * e**b * delta**c for a, b, c in ZERO_TERMS])
                gram[gene] += weight * np.outer(row, row)
                right[gene] += weight * row * residual[profile, gene]
    return gram, right


def test_the_residual_where_a_gene_is_not_seen_is_ridge_regression_over_these_places(
    world: Simulated, fitted: OwnCounts
) -> None:
    found = fitted
    gram, right = dense_zeros(world, found.shares.double().numpy())
    expected = dense_pooled_ridge(gram, right, world.mean.astype(np.float32).astype(float), 0.05 * world.n)
    expected[world.n_seen < 8] = 0
    np.testing.assert_allclose(found.zeros.T, expected, rtol=1e-3, atol=1e-4)
    assert not bool(found.zeros[:, 0].any())
    assert bool(found.zeros[:, -1].any())
