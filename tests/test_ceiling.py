import numpy as np
import pytest
from reference import csr

from geneae.ceiling import MIN_MOLECULES, cosine_of_halves, half_ceiling, has_molecules
from geneae.preprocess import Expression


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """One profile after the other."""
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


@pytest.mark.parametrize("depth", [300, 2000])
def test_the_ceiling_is_the_cosine_of_a_half_with_its_expectation(depth: int) -> None:
    rng = np.random.default_rng(depth)
    rates = rng.gamma(0.4, 1.0, size=(3, 300))[rng.integers(0, 3, 150)] * rng.gamma(4, 0.25, size=(150, 300))
    rates *= depth / rates.sum(1, keepdims=True)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        first, second = rng.poisson(rates / 2), rng.poisson(rates / 2)
        scale = 2e4 / (first + second).sum(1, keepdims=True)
        return np.log1p(scale * first), np.log1p(scale * second)

    expectation = sum((sum(draw()) for _ in range(60)), np.zeros_like(rates)) / 120  # type: ignore[arg-type]
    draws = [draw() for _ in range(4)]
    truth = np.mean([cosines(half, expectation) for pair in draws for half in pair])
    ceiling = half_ceiling(np.concatenate([cosine_of_halves(csr(a), csr(b)) for a, b in draws]))
    assert ceiling == pytest.approx(truth, abs=0.005)
    assert 0.5 < truth < 0.95  # far from where any formula would be right


def test_profiles_need_twenty_molecules_in_both_halves() -> None:
    first, second = np.zeros((4, 10)), np.zeros((4, 10))
    first[:, 0], second[:, 1] = [19, 20, 21, 40], [40, 20, 19, 0]
    found = has_molecules(*(Expression(csr(half), half.sum(1)) for half in (first, second)))
    assert found.tolist() == [False, True, False, False]
    assert MIN_MOLECULES == 20
