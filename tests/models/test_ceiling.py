import numpy as np
import pandas as pd
import pytest
from reference import csr

from geneae.data.preprocess import Expression
from geneae.evaluation.reconstruction import summarize
from geneae.evaluation.records import HELD_OUT, value
from geneae.losses.metrics import METRICS
from geneae.models.ceiling import (
    MIN_MOLECULES,
    cosine_of_halves,
    counts_ceiling,
    disattenuated_cosine,
    half_ceiling,
    has_molecules,
)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows, one after the other."""
    return np.array([x @ y / np.sqrt((x @ x) * (y @ y)) for x, y in zip(a, b, strict=True)])


def pair(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rates = rng.gamma(0.8, 1.0, size=(15, 40))
    return np.log1p(rng.poisson(rates)), np.log1p(rng.poisson(rates))


def test_cosines_equal_dense_ones_with_and_without_centring() -> None:
    one, two = pair()
    mean = (one.mean(0) + two.mean(0)) / 2
    first, second = csr(one, np.float64), csr(two, np.float64)
    np.testing.assert_allclose(cosine_of_halves(first, second), cosines(one, two), rtol=1e-10)
    by_gene = cosine_of_halves(first, second, mean, center="gene")
    np.testing.assert_allclose(by_gene, cosines(one - mean, two - mean), rtol=1e-9, atol=1e-12)
    by_profile = cosine_of_halves(first, second, center="profile")
    pearson = [np.corrcoef(x, y)[0, 1] for x, y in zip(one, two, strict=True)]
    np.testing.assert_allclose(by_profile, pearson, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("center", ["none", "gene", "profile"])
def test_the_halves_are_interchangeable_and_float32_is_enough(center: str) -> None:
    one, two = pair()
    mean = one.mean(0)
    exact = cosine_of_halves(csr(one, np.float64), csr(two, np.float64), mean, center)
    np.testing.assert_allclose(cosine_of_halves(csr(two), csr(one), mean, center), exact, atol=1e-5)


def test_an_empty_half_has_no_cosine() -> None:
    one, two = pair()
    one[3], two[5] = 0, 0
    found = cosine_of_halves(csr(one), csr(two))
    assert np.flatnonzero(np.isnan(found)).tolist() == [3, 5]
    assert half_ceiling(found) == pytest.approx(np.sqrt(np.nanmean(found)))


def test_equal_halves_have_ceiling_one_and_unrelated_ones_zero() -> None:
    one, _ = pair()
    assert half_ceiling(cosine_of_halves(csr(one), csr(one))) == pytest.approx(1)
    assert half_ceiling(np.array([-0.2, 0.1])) == 0
    assert half_ceiling(np.array([0.25, 0.25, np.nan])) == 0.5
    assert np.isnan(half_ceiling(np.array([np.nan])))
    assert np.isnan(half_ceiling(np.array([])))


DEPTHS = [500, 1000, 2000, 5000]
N_TRAIN, N_JUDGED, N_DRAWS = 450, 150, 100


class World:
    """Profiles of rank six whose noise-free values are known, as two halves normalised like complete profiles.

    `dispersion` multiplies the rate of every molecule count by a gamma number of mean 1 and that inverse variance, as
    technical noise beyond Poisson would: the counts are negative binomial, and both halves share it.
    """

    def __init__(self, depth: float, dispersion: float | None = None) -> None:
        self.rng, self.dispersion = np.random.default_rng(1), dispersion
        programmes = self.rng.gamma(0.3, 1.0, (6, 600)) + 0.02
        mixture = self.rng.dirichlet(np.full(6, 0.3), N_TRAIN + N_JUDGED)
        self.rates = mixture @ (programmes / programmes.sum(1, keepdims=True)) * depth
        self.train, self.judged = self.draw(self.rates[:N_TRAIN]), self.draw(self.rates[N_TRAIN:])
        self.expectation = np.zeros_like(self.judged[0])
        for _ in range(N_DRAWS):
            self.expectation += np.add(*self.draw(self.rates[N_TRAIN:])) / (2 * N_DRAWS)

    def draw(self, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log1p of two halves, each scaled by 20,000 over the molecules of the complete profile."""
        noise = 1.0 if self.dispersion is None else self.rng.gamma(self.dispersion, 1 / self.dispersion, rates.shape)
        first, second = self.rng.poisson(rates * noise / 2), self.rng.poisson(rates * noise / 2)
        scale = 2e4 / (first + second).sum(1, keepdims=True)
        return np.log1p(scale * first), np.log1p(scale * second)

    def of_halves(self) -> np.ndarray:
        """Cosine between the halves of the evaluated profiles."""
        return cosine_of_halves(*(csr(half, np.float64) for half in self.judged))

    def pca(self, rank: int) -> np.ndarray:
        """PCA reconstruction of the first halves of the evaluated profiles, in a basis of all training halves."""
        mean = np.concatenate(self.train).mean(0)
        axes = np.linalg.svd(np.concatenate(self.train) - mean, full_matrices=False)[2][:rank]
        return np.asarray(mean + (self.judged[0] - mean) @ axes.T @ axes)


@pytest.fixture(scope="module", params=DEPTHS)
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


def test_the_ceiling_is_the_cosine_of_a_half_with_its_expectation(world: World) -> None:
    truth = np.mean([cosines(half, world.expectation) for half in world.judged])
    assert half_ceiling(world.of_halves()) == pytest.approx(truth, abs=0.005)
    assert 0.5 < truth < 0.99  # far from where any formula would be right


def test_the_ceiling_of_raw_counts_is_their_cosine_with_their_rates(world: World) -> None:
    counts = np.random.default_rng(2).poisson(world.rates)
    truth = cosines(counts, world.rates).mean()
    assert counts_ceiling(csr(counts)).mean() == pytest.approx(truth, abs=0.005)
    assert truth < 0.999


def test_a_constant_predictor_has_skill_zero_and_an_oracle_one(world: World) -> None:
    train, (_, target) = np.concatenate(world.train).mean(0), world.judged
    predicted = {
        "mean_profile": np.tile(train, (N_JUDGED, 1)),
        "constant": np.tile(np.concatenate(world.draw(world.rates[:N_TRAIN])).mean(0), (N_JUDGED, 1)),
        "model": world.expectation,
    }
    tables = [
        pd.DataFrame(dict.fromkeys([*METRICS, "rescaled_mse"], np.nan), index=range(N_JUDGED)).assign(
            model=model, split="test", **{HELD_OUT: cosines(values, target)}
        )
        for model, values in predicted.items()
    ]
    metrics = summarize(pd.concat(tables), world.of_halves(), np.full(N_JUDGED, "test"), seed=0)
    assert value(metrics, "mean_profile", "test", "skill") == 0
    assert value(metrics, "constant", "test", "skill") == pytest.approx(0, abs=0.01)
    assert value(metrics, "model", "test", "skill") == pytest.approx(1, abs=0.03)
    assert value(metrics, "model", "test", "disattenuated_cosine") == pytest.approx(1, abs=0.01)


def test_the_disattenuated_cosine_is_the_cosine_with_the_truth(world: World) -> None:
    predicted, truth = world.pca(12), world.expectation
    held_out = cosines(predicted, world.judged[1])
    found = disattenuated_cosine(held_out, world.of_halves())
    assert found == pytest.approx(cosines(predicted, truth).mean(), abs=0.01)
    assert held_out.mean() < found - 0.01  # the correction has something to correct


def test_without_agreement_nothing_can_be_disattenuated() -> None:
    assert np.isnan(disattenuated_cosine(np.array([0.5, 0.4]), np.array([-0.1, 0.0])))
    assert np.isnan(disattenuated_cosine(np.array([np.nan]), np.array([0.5])))
    found = disattenuated_cosine(np.array([0.4, np.nan, 0.2]), np.array([0.25, 0.9, 0.25]))
    assert found == pytest.approx(0.6)


def test_technical_noise_beyond_poisson_makes_the_ceiling_too_high() -> None:
    noisy = World(2000, dispersion=2.0)
    truth = np.mean([cosines(half, noisy.expectation) for half in noisy.judged])
    assert half_ceiling(noisy.of_halves()) > truth + 0.05
    assert "makes it too high" in (half_ceiling.__doc__ or "")


def test_profiles_need_twenty_molecules_in_both_halves() -> None:
    first, second = np.zeros((4, 10)), np.zeros((4, 10))
    first[:, 0], second[:, 1] = [19, 20, 21, 40], [40, 20, 19, 0]
    found = has_molecules(*(Expression(csr(half), half.sum(1)) for half in (first, second)))
    assert found.tolist() == [False, True, False, False]
    assert MIN_MOLECULES == 20
