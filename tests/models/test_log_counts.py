"""Expected logarithms of Poisson counts."""

import numpy as np
import pytest
import torch
from scipy import stats

from geneae.models.log_counts import LogCounts


@pytest.mark.parametrize("scale", [0.2, 5.0, 200.0])
@pytest.mark.parametrize("expected", [1e-6, 0.003, 0.7, 12.3, 99.0, 101.0, 3000.0])
def test_it_is_the_mean_over_poisson_counts(scale: float, expected: float) -> None:
    counts = np.arange(6000)
    by_sum = stats.poisson.pmf(counts, expected) @ np.log1p(scale * counts)
    assert float(LogCounts(scale)(torch.tensor(expected))) == pytest.approx(by_sum, rel=3e-4)


def test_nothing_expected_is_zero() -> None:
    assert float(LogCounts(5.0)(torch.tensor(0.0))) == pytest.approx(0.0, abs=1e-6)
