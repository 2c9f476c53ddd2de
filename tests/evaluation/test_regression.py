"""Linear regression is that of scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from geneae.evaluation.regression import Regression

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_it_explains_what_scikit_learn_explains(precision: type) -> None:
    latents = RNG.standard_normal((60, 5)).astype(precision) * [1, 10, 0.1, 0, 1] + 3
    latents = latents.astype(precision)
    numbers = latents[:, 0] - latents[:, 1] + RNG.standard_normal(60)
    slow = LinearRegression().fit(latents[:40], numbers[:40])
    found = Regression(latents[:40], numbers[:40])
    np.testing.assert_allclose(found.slopes, slow.coef_, rtol=1e-5, atol=1e-6)
    assert found.r2(latents[40:], numbers[40:]) == pytest.approx(slow.score(latents[40:], numbers[40:]), abs=1e-6)
    assert 0.5 < found.r2(latents[40:], numbers[40:]) < 1


def test_latents_that_say_nothing_explain_nothing() -> None:
    numbers = RNG.standard_normal(20)
    assert Regression(np.zeros((20, 3)), numbers).r2(np.zeros((20, 3)), numbers) == pytest.approx(0, abs=1e-12)
    assert Regression(np.zeros((20, 3)), numbers).r2(np.zeros((20, 3)), numbers + 1) < 0  # another mean
    assert Regression(numbers[:, None], 2 * numbers + 1).r2(numbers[:, None], 2 * numbers + 1) == pytest.approx(1)
