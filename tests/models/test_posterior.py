"""Posterior scores: factors and the map between depths, as explicit regressions in dense float64 arrays."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dense_estimator import AT, BETWEEN, DenseEstimator, dense_map_features, random_estimator
from reference import csr

from geneae.data.augment import SHARES
from geneae.models import posterior as posterior_file
from geneae.models.depths import DELTAS, DepthCurves, DepthScale, Item, depth_weights
from geneae.models.posterior import (
    LEAST_SEEN,
    PENALTIES,
    Scored,
    fit_posterior,
    map_features,
    raw_from_some,
    raw_weight,
    shown_by,
)
from geneae.models.whitening import Whitened, Whitening

N_PROFILES, N_GENES, RANK, N_FOLDS = 40, 9, 2, 3


def test_raw_scores_are_products_of_centred_profiles_in_units_of_noise() -> None:
    rng = np.random.default_rng(0)
    z, mean, noise = rng.random((5, N_GENES)), rng.random(N_GENES), 1 + rng.random(N_GENES)
    components = rng.standard_normal((N_GENES, RANK))
    weight, offset = raw_weight(*(torch.from_numpy(array) for array in (components, mean, noise)))
    np.testing.assert_allclose(z @ weight.numpy() - offset.numpy(), ((z - mean) / noise) @ components, atol=1e-12)


def test_map_features_are_those_of_single_profiles() -> None:
    rng = np.random.default_rng(0)
    x, e = rng.standard_normal((6, 3)), rng.standard_normal(6)
    found = map_features(torch.from_numpy(x), torch.from_numpy(e), 0.7)
    np.testing.assert_allclose(found, dense_map_features(x, e, 0.7), atol=1e-12)
    assert not bool(map_features(torch.from_numpy(x), torch.from_numpy(e), 0.0).any())


@pytest.mark.parametrize("delta", BETWEEN)
def test_scores_are_those_of_the_formula(delta: float) -> None:
    estimator = random_estimator()
    posterior, dense = estimator.posterior, DenseEstimator(estimator, delta)
    rng = np.random.default_rng(0)
    z, totals = rng.random((8, 13)), rng.uniform(10, 90, 8)
    raw = ((z - dense.input_mean) / dense.input_noise) @ dense.components
    e = torch.from_numpy(dense.depth_scores(totals))
    found = posterior.expected(torch.from_numpy(raw), e, delta, depth_weights(delta))
    np.testing.assert_allclose(found, dense.scores(z, totals), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("depth", [0, 1])
def test_up_to_the_depth_of_a_half_scores_are_factors_times_raw_scores(depth: int) -> None:
    posterior, raw = random_estimator().posterior, torch.randn(6, 3)
    found = posterior.expected(raw, torch.randn(6), DELTAS[depth], depth_weights(DELTAS[depth]))
    torch.testing.assert_close(found, raw * posterior.factors[depth])


def test_a_score_does_not_jump_where_the_map_begins() -> None:
    posterior, raw, e = random_estimator().posterior, torch.randn(6, 3), torch.randn(6)
    at_half, next_to_it = (posterior.expected(raw, e, delta, depth_weights(delta)) for delta in (0.0, 1e-6))
    torch.testing.assert_close(at_half, next_to_it, atol=1e-4, rtol=1e-4)


def test_beyond_the_last_depth_the_map_is_that_of_the_last() -> None:
    posterior, raw, e = random_estimator().posterior, torch.randn(6, 3), torch.randn(6)
    last, beyond = (posterior.expected(raw, e, delta, depth_weights(delta)) for delta in (DELTAS[-1], 9.0))
    assert torch.equal(last, beyond)


class Simulated:
    """Halves with scores of known spread and noise, whose factors depend on the depth of a profile by `bend`."""

    def __init__(self, seed: int = 0, noise: float = 0.7, weak: float = 1.0, bend: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        components = np.linalg.qr(rng.standard_normal((N_GENES, RANK)))[0]
        self.mean, self.deviation = rng.random(N_GENES), 0.5 + rng.random(N_GENES)
        self.whitened = Whitened(
            Whitening(*(torch.tensor(array, dtype=torch.float32) for array in (self.mean, self.deviation, components))),
            rng.integers(0, N_FOLDS, N_PROFILES),
            [torch.tensor(components @ _rotation(0.1 * number), dtype=torch.float32) for number in range(N_FOLDS)],
        )
        means = rng.random((len(AT), N_GENES))
        noises, slopes = 0.5 + rng.random(means.shape), np.ones(means.shape)
        self.curves = DepthCurves(*(torch.tensor(table, dtype=torch.float32) for table in (means, noises, slopes)))
        self.scale = DepthScale(4.0, 0.5)
        truth = rng.standard_normal((N_PROFILES, RANK)) * [2, weak]
        totals = np.exp(rng.normal(4.0, 0.5, N_PROFILES))
        self.items = []
        for share, of_all in enumerate(SHARES):
            for _ in range(2):
                size = noise * (0.5 / of_all) ** 0.5
                seen = truth * (1 + 0.2 * share) * np.exp(bend * (np.log(totals) - 4))[
                    :, None
                ] + size * rng.standard_normal(truth.shape)
                wanted = truth + noise * rng.standard_normal(truth.shape)
                inputs = means[share + 1] + noises[share + 1] * (seen @ components.T)
                targets = self.mean + self.deviation * (wanted @ components.T)
                own = totals * of_all / 0.5
                self.items.append(Item(csr(inputs), csr(targets), np.where(own < 12, 0, own), share))

    def raw(self, item: Item, is_target: bool = False) -> np.ndarray:
        """Raw scores, profile by profile, in the basis without its fold."""
        z = (item.targets if is_target else item.inputs).toarray().astype(float)
        mean = self.mean if is_target else self.curves.means[item.share + 1].double().numpy()
        noise = self.deviation if is_target else self.curves.noises[item.share + 1].double().numpy()
        bases = [components.double().numpy() for components in self.whitened.without]
        rows = [((row - mean) / noise) @ bases[fold] for row, fold in zip(z, self.whitened.fold, strict=True)]
        return np.array(rows)

    def depth_scores(self, item: Item) -> np.ndarray:
        """Standardised log totals at the depth of a half."""
        logs = np.log(np.maximum(item.totals, 1)) + math.log(0.5 / SHARES[item.share])
        return np.clip((logs - 4.0) / 0.5, -3, 3)


def _rotation(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


@pytest.fixture(scope="module")
def world() -> Simulated:
    return Simulated()


def dense_factors(world: Simulated) -> np.ndarray:
    rows = []
    for share in range(len(SHARES)):
        some = [item for item in world.items if item.share == share]
        weight = np.concatenate([item.weight for item in some])[:, None]
        x = np.concatenate([world.raw(item) for item in some])
        y = np.concatenate([world.raw(item, is_target=True) for item in some])
        rows.append(np.maximum((weight * x * y).sum(0) / (weight * x**2).sum(0), 0))
    half = np.minimum(rows[0], 1)
    return np.stack([half / (half + (1 - half) / 2), half, *rows[1:]])


def test_factors_are_slopes_of_targets_on_raw_scores(world: Simulated) -> None:
    posterior, _ = fit_posterior(world.whitened, world.curves, world.scale, world.items)
    np.testing.assert_allclose(posterior.factors, dense_factors(world), rtol=1e-4)
    squares = sum((item.weight[:, None] * world.raw(item) ** 2).sum(0) for item in world.items)
    total = sum(item.weight.sum() for item in world.items)
    np.testing.assert_allclose(posterior.deviation, np.sqrt(squares / total), rtol=1e-4)


@pytest.mark.parametrize(("noise", "bend", "penalty"), [(0.1, 0.0, 1.0), (0.1, 0.7, 0.01)])
def test_the_map_is_ridge_regression_with_the_penalty_of_the_least_error_of_other_folds(
    noise: float, bend: float, penalty: float
) -> None:
    world = Simulated(noise=noise, bend=bend)
    posterior, scored = fit_posterior(world.whitened, world.curves, world.scale, world.items)
    deviation, factors = posterior.deviation.double().numpy(), posterior.factors.double().numpy()
    fold = np.concatenate([world.whitened.fold] * len(world.items))
    x, y, starts, weight = [], [], [], []
    for item in world.items:
        raw = world.raw(item)
        x.append(dense_map_features(raw / deviation, world.depth_scores(item), math.log(0.5 / SHARES[item.share])))
        starts.append(raw * factors[item.share + 1])
        y.append(world.raw(item, is_target=True) - starts[-1])
        weight.append(item.weight.astype(float))
    rows, wanted, w = np.concatenate(x), np.concatenate(y), np.concatenate(weight)
    unit = np.trace(rows.T @ (rows * w[:, None])) / rows.shape[1]

    def solve(some: np.ndarray, penalty: float) -> np.ndarray:
        """Least squares with one more row for each penalised weight."""
        root = np.sqrt(w[some])[:, None]
        left = np.concatenate([root * rows[some], math.sqrt(penalty * unit) * np.eye(rows.shape[1])])
        right = np.concatenate([root * wanted[some], np.zeros((rows.shape[1], RANK))])
        return np.linalg.lstsq(left, right)[0]

    def held_out(penalty: float) -> np.ndarray:
        found = np.empty_like(wanted)
        for number in range(N_FOLDS):
            found[fold == number] = rows[fold == number] @ solve(fold != number, penalty)
        return found

    errors = [(w[:, None] * (wanted - held_out(penalty)) ** 2).sum() for penalty in PENALTIES]
    best = PENALTIES[int(np.argmin(errors))]
    np.testing.assert_allclose(posterior.weight, solve(np.arange(len(rows)), best), rtol=2e-3, atol=2e-4)
    assert best == penalty
    predicted = np.concatenate(starts) + held_out(best)
    np.testing.assert_allclose(torch.cat([one.expected for one in scored]), predicted, rtol=2e-3, atol=1e-3)
    for one, item in zip(scored, world.items, strict=True):
        np.testing.assert_allclose(one.targets, world.raw(item, is_target=True), atol=1e-4)
        np.testing.assert_allclose(one.depth_scores, world.depth_scores(item), rtol=1e-4, atol=1e-4)
        assert torch.equal(one.weight, torch.from_numpy(item.weight))


def test_the_factor_of_a_component_is_its_share_of_signal() -> None:
    rng = np.random.default_rng(0)
    n, noise = 6000, 1.5
    signal = rng.standard_normal((n, 1))
    basis = Whitening(torch.zeros(1), torch.ones(1), torch.ones(1, 1))
    whitened = Whitened(basis, np.arange(n) % 4, [torch.ones(1, 1)] * 4)
    curves = DepthCurves(torch.zeros(6, 1), torch.ones(6, 1), torch.ones(6, 1))
    halves = [csr(signal + noise * rng.standard_normal((n, 1))) for _ in range(2)]
    items = [
        Item(halves[number], halves[1 - number], np.full(n, 100.0), share)
        for share in range(len(SHARES))
        for number in (0, 1)
    ]
    posterior, _ = fit_posterior(whitened, curves, DepthScale(math.log(100), 0.05), items)
    assert float(posterior.factors[1]) == pytest.approx(1 / (1 + noise**2), abs=0.03)
    # a complete profile has half of that noise
    assert float(posterior.factors[0]) == pytest.approx(1 / (1 + noise**2 / 2), abs=0.03)


def test_factors_are_at_least_zero() -> None:
    world = Simulated(noise=0.3, weak=2.0)
    against = [replace(item, targets=csr(2 * world.mean - item.targets.toarray())) for item in world.items]
    posterior, _ = fit_posterior(world.whitened, world.curves, world.scale, against)
    assert torch.equal(posterior.factors, torch.zeros(len(AT), RANK))


def test_profiles_without_molecules_give_a_map_of_zeros() -> None:
    world = Simulated()
    empty = [Item(item.inputs, item.targets, np.zeros(N_PROFILES), item.share) for item in world.items]
    posterior, scored = fit_posterior(world.whitened, world.curves, world.scale, empty)
    assert not bool(posterior.weight.any())
    assert not bool(posterior.factors.any())
    assert all(bool(one.expected.isfinite().all()) for one in scored)


def test_what_is_left_open_is_what_the_truth_says() -> None:
    """With signal variance c and noise n at a depth, posterior means c / (c + n) x leave n / (c + n) open."""
    rng = np.random.default_rng(2)
    signal, n_profiles = torch.tensor([4.0, 1.0]), 20000
    truth = signal.sqrt() * torch.tensor(rng.standard_normal((n_profiles, 2)))
    scored, raw, left = [], [], []
    for share, of_all in enumerate(SHARES):
        noise = 0.5 * 0.5 / of_all
        for _ in range(2):
            seen = truth + noise**0.5 * torch.tensor(rng.standard_normal(truth.shape))
            wanted = truth + 0.5**0.5 * torch.tensor(rng.standard_normal(truth.shape))
            item = SimpleNamespace(share=share, weight=np.ones(n_profiles, np.float32))
            scored.append(Scored(item, torch.zeros(n_profiles), signal / (signal + noise) * seen, wanted))  # type: ignore[arg-type]
            raw.append(seen)
        left.append(noise / (signal + noise))
    found, unexplained = posterior_file._left_open(scored, raw)
    np.testing.assert_allclose(found, signal, rtol=0.03)
    np.testing.assert_allclose(unexplained[1:], torch.stack(left), atol=0.02)
    np.testing.assert_allclose(unexplained[0], 0.25 / (signal + 0.25), atol=0.01)


def test_uncertainty_is_that_of_the_normal_model() -> None:
    posterior = replace(random_estimator().posterior, power=1.0)
    weights, relative = depth_weights(0.0), torch.tensor([0.25, 1.0, 4.0])
    left = posterior.unexplained[1]
    noise = posterior.signal * left / (1 - left)
    expected = (posterior.signal * noise / (posterior.signal * relative[:, None] + noise)).sqrt()
    torch.testing.assert_close(posterior.uncertainty(relative, weights), expected)
    torch.testing.assert_close(posterior.uncertainty(relative[1:2], weights)[0], (posterior.signal * left).sqrt())
    alike = replace(posterior, power=0.0).uncertainty(relative, weights)
    torch.testing.assert_close(alike, alike[1].expand(3, -1))
    nothing_open = replace(posterior, unexplained=torch.zeros_like(posterior.unexplained))
    assert not nothing_open.uncertainty(relative, weights).any()


def test_uncertainty_from_some_genes_is_that_of_made_up_errors() -> None:
    """Signal in a few directions of 60 genes, noise of variance 1 in each gene, a third of the genes not measured."""
    rng = np.random.default_rng(3)
    signal, n_profiles = np.array([9.0, 4.0, 1.0]), 40_000
    components = np.linalg.qr(rng.normal(size=(60, 3)))[0]
    missing = rng.random(60) < 0.4
    truth = rng.standard_normal((n_profiles, 3)) * np.sqrt(signal)
    values = np.where(missing, 0, truth @ components.T + rng.standard_normal((n_profiles, 60)))
    weight, mean = torch.from_numpy(components), torch.zeros(60, dtype=torch.float64)
    found = raw_from_some(torch.from_numpy(values @ components), weight, mean, weight, missing).numpy()
    error = np.square(found * signal / (signal + 1) - truth).mean(0)
    left = torch.from_numpy(1 / (signal + 1)).expand(len(DELTAS), -1)
    posterior = replace(random_estimator().posterior, signal=torch.from_numpy(signal), unexplained=left, power=1.0)
    weights, relative, shown = depth_weights(0.0).double(), torch.ones(1), shown_by(weight, missing)
    np.testing.assert_allclose(posterior.uncertainty(relative, weights, shown)[0] ** 2, error, rtol=0.03)
    assert (error > 1.1 * signal / (signal + 1)).all()  # what all genes leave open
    all_genes = shown_by(weight, np.zeros(60, bool))
    many = torch.tensor([0.2, 1.0, 30.0])
    torch.testing.assert_close(posterior.uncertainty(many, weights, all_genes), posterior.uncertainty(many, weights))


@pytest.mark.parametrize(("power", "among"), [(0.0, (0.0, 0.25)), (1.0, (0.75, 1.0))])
def test_the_power_of_the_molecules_is_found(power: float, among: tuple[float, ...]) -> None:
    """Noise variance of a half that falls with this power of its molecules."""
    rng = np.random.default_rng(1)
    n_profiles, signal, spread = 4000, 2.0, 0.8
    e = torch.tensor(rng.standard_normal(n_profiles).clip(-3, 3))
    truth = signal**0.5 * torch.tensor(rng.standard_normal((n_profiles, 1)))
    size = (-power * e * spread / 2).exp()[:, None]
    first, second = (truth + size * torch.tensor(rng.standard_normal((n_profiles, 1))) for _ in range(2))
    left = torch.tensor([1 / (signal + 1)], dtype=torch.float64)
    best = signal / (signal + size**2) * first  # the posterior mean
    weight = np.ones(n_profiles, np.float32)
    item = SimpleNamespace(share=0, weight=weight)
    scored = Scored(item, e, best, second)  # type: ignore[arg-type]
    assert posterior_file._power([scored], [first], signal * left, left, spread) in among


def test_scores_from_some_genes_are_those_of_ridge_regression_and_of_all_genes_without_noise() -> None:
    rng = np.random.default_rng(0)
    components = np.linalg.qr(rng.normal(size=(60, 3)))[0]
    mean, noise, scores = rng.uniform(0.5, 2, 60), rng.uniform(0.5, 2, 60), rng.normal(size=(5, 3))
    values = mean + noise * (scores @ components.T)
    missing = rng.random(60) < 0.4
    seen = np.where(missing, 0, values)
    weight, offset = raw_weight(*(torch.tensor(x, dtype=torch.float32) for x in (components, mean, noise)))
    raw = torch.tensor(seen, dtype=torch.float32) @ weight - offset
    tensors = (torch.tensor(components, dtype=torch.float32), torch.tensor(mean, dtype=torch.float32))
    found = raw_from_some(raw, *tensors, weight, missing).numpy()
    c, x = components[~missing], ((values - mean) / noise)[:, ~missing]
    ridge = (1 + LEAST_SEEN) * x @ c @ np.linalg.inv(c.T @ c + LEAST_SEEN * np.eye(3))
    np.testing.assert_allclose(found, ridge, rtol=1e-4, atol=1e-4)
    assert np.abs(found - scores).max() < 0.3 * np.abs(raw.numpy() - scores).max()
    nothing = raw_from_some(raw, *tensors, weight, np.zeros(60, bool))
    np.testing.assert_allclose(nothing.numpy(), raw.numpy(), rtol=1e-5)
