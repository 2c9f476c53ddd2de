"""A population of profiles: its Bayes prediction against sums over a few states, and its fit to counts."""

import numpy as np
import pytest
import torch
from scipy import stats

from geneae.models.population import DRAWS, Population, dense_block
from geneae.models.population_fit import fit_mixture, fit_population

N_GENES, N_STATES, TOTAL = 30, 4, 60.0


def states(has_noise: bool) -> Population:
    """Four states with hardly any variation within."""
    rng = np.random.default_rng(0)
    return Population(
        torch.zeros(N_GENES),
        torch.tensor(rng.normal(size=(N_GENES, N_STATES)), dtype=torch.float32),
        torch.full((N_GENES,), 2.0 if has_noise else torch.inf),
        torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64),
        torch.eye(N_STATES, dtype=torch.float64),
        1e-8 * torch.eye(N_STATES, dtype=torch.float64).expand(N_STATES, -1, -1),
    )


def by_enumeration(known: Population, counts: np.ndarray) -> np.ndarray:
    """(n, n_genes) expected log1p(10,000 x / 60) of the other half, by sums over states and counts."""
    shares = torch.softmax(known.loadings.T.double(), 1).numpy()  # u is a unit vector in each state
    shape, possible = known.shape.numpy().astype(float), np.arange(400)
    logs = np.log1p(1e4 / TOTAL * possible)
    found = []
    for x in counts:
        expected = TOTAL * shares
        if known.has_noise:
            likelihood = np.asarray(stats.nbinom.logpmf(x, shape, shape / (shape + expected))).sum(1)
            after = shape + x
            of_other = stats.nbinom.pmf(possible[:, None, None], after, (shape + expected) / (shape + 2 * expected))
        else:
            likelihood = np.asarray(stats.poisson.logpmf(x, expected)).sum(1)
            of_other = stats.poisson.pmf(possible[:, None, None], expected)
        posterior = known.weights.numpy() * np.exp(likelihood - likelihood.max())
        found.append(posterior / posterior.sum() @ np.einsum("c,csg->sg", logs, of_other))
    return np.array(found)


@pytest.mark.parametrize("has_noise", [False, True])
def test_the_bayes_prediction_is_the_sum_over_states(has_noise: bool) -> None:
    known, rng = states(has_noise), np.random.default_rng(1)
    counts = known.draw(np.full(8, TOTAL), rng)
    wanted = by_enumeration(known, dense_block(counts).numpy().astype(float))
    repeats = [known.predict(counts, np.full(8, TOTAL), rng).mean.numpy() for _ in range(40)]
    tolerance = 0.04 if has_noise else 0.02  # of means over 2,560 draws; values are up to 6
    np.testing.assert_allclose(np.mean(repeats, 0), wanted, atol=tolerance * 6 if has_noise else 0.06)
    cosine = (np.mean(repeats, 0) * wanted).sum(1) / np.linalg.norm(np.mean(repeats, 0), axis=1)
    assert (cosine / np.linalg.norm(wanted, axis=1)).min() > 0.9995


def test_the_posterior_of_a_wide_part_is_that_of_a_grid() -> None:
    """One component, one part: the posterior mean of the shares by a sum over a grid of u."""
    rng = np.random.default_rng(2)
    loadings = torch.tensor(rng.normal(size=(N_GENES, 1)), dtype=torch.float32)
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    known = Population(torch.zeros(N_GENES), loadings, torch.full((N_GENES,), torch.inf), one[0, 0], 0 * one[0], one)
    counts = known.draw(np.full(5, 15.0), rng)
    u = torch.linspace(-6, 6, 4001)[:, None]
    log_shares = known.log_shares(u).double()
    weight = torch.softmax(dense_block(counts).double() @ log_shares.T - u[:, 0].double().square() / 2, 1)
    means = []
    for _ in range(20):
        drawn, of = known._posterior(dense_block(counts), torch.full((5, 1), 15.0), rng)
        means.append((of * drawn[:, :, 0]).sum(1))
    np.testing.assert_allclose(torch.stack(means).mean(0), weight @ u[:, 0].double(), atol=0.06)


def test_draws_cover_the_posterior() -> None:
    known = states(has_noise=False)
    counts = known.draw(np.full(8, TOTAL), np.random.default_rng(1))
    sizes = known.predict(counts, np.full(8, TOTAL), np.random.default_rng(2)).sizes
    assert (sizes > DRAWS / 2).all()
    assert (sizes <= DRAWS + 1e-6).all()


def test_counts_have_the_shares_and_the_noise_of_the_population() -> None:
    known = states(has_noise=True)
    counts = dense_block(known.draw(np.full(20_000, 600.0), np.random.default_rng(0))).numpy()
    shares = torch.softmax(known.loadings.T.double(), 1).numpy()
    weights = known.weights.numpy()[:, None]
    mean = 600 * (weights * shares).sum(0)
    np.testing.assert_allclose(counts.mean(0), mean, rtol=0.05)
    second = 600**2 * (weights * shares**2).sum(0) * (1 + 1 / 2)  # E share^2, times E gamma^2
    np.testing.assert_allclose(counts.var(0), mean + second - mean**2, rtol=0.15)


def test_the_same_generator_gives_the_same_prediction() -> None:
    known = states(has_noise=True)
    counts = known.draw(np.full(4, TOTAL), np.random.default_rng(1))
    one, other = (known.predict(counts, np.full(4, TOTAL), np.random.default_rng(3)).mean for _ in range(2))
    assert torch.equal(one, other)


def test_the_fit_finds_noise_and_components() -> None:
    """Two components of 40 genes each, and noise of variance one half, in 300 profiles."""
    rng = np.random.default_rng(0)
    n_genes = 80
    loadings = torch.zeros(n_genes, 2)
    loadings[:40, 0] = torch.tensor(rng.normal(size=40))
    loadings[40:, 1] = torch.tensor(rng.normal(size=40))
    part = torch.ones(1, dtype=torch.float64), torch.zeros(1, 2).double(), torch.eye(2).double()[None]
    known = Population(torch.zeros(n_genes), loadings, torch.full((n_genes,), 2.0), *part)
    counts = known.draw(np.full(300, 1500.0), rng)
    fitted = fit_population(counts, seed=0, rank=6)
    found = fitted.expected(0)
    assert float(fitted.shape.median()) == pytest.approx(2.0, rel=0.3)
    strength = fitted.loadings.square().mean(0).sqrt().sort(descending=True).values
    assert float(strength[2]) < 0.35 * float(strength[1])
    basis = torch.linalg.qr(found.loadings[:, fitted.loadings.square().sum(0).topk(2).indices])[0]
    for component in loadings.T:
        assert float((basis.T @ component).norm() / component.norm()) > 0.95
    again = fit_population(counts, seed=0, rank=6)
    assert torch.equal(again.loadings, fitted.loadings)
    squares = np.mean([float(fitted.drawn(seed).loadings.square().sum()) for seed in range(20)])
    expected = fitted.loadings.square() + fitted.loading_deviations.square()
    assert squares == pytest.approx(float(expected.sum()), rel=0.01)
    assert squares > float(fitted.loadings.square().sum())


def test_a_mixture_has_as_many_parts_as_the_criterion_wants() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(400, 3))
    assert len(fit_mixture(one, 0)[0]) == 1
    weights, means, covariances = fit_mixture(one + 30 * np.eye(3)[rng.integers(2, size=400)], 0)
    assert (len(weights), means.shape, covariances.shape) == (2, (2, 3), (2, 3, 3))
    assert sorted(weights.tolist()) == pytest.approx([0.5, 0.5], abs=0.06)
