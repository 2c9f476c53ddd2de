"""Expected log-normalised counts: the mean of log1p(scale x) over Poisson counts x, from a table."""

import numpy as np
import torch
from torch import Tensor

LOG_RANGE = (-7.0, 5.0)  # log10 of the expected counts in the table; smaller ones are never seen
STEPS = 1200  # in that range: linear interpolation between them is exact to 1e-5
MOST_EXACT = 100.0  # expected counts up to which the sum over counts is taken; above, an expansion is exact to 1e-4
LARGEST = 250  # largest count of that sum, 15 standard deviations above 100

_EXPECTED = np.logspace(*LOG_RANGE, STEPS + 1)


class LogCounts:
    """Expected log1p(scale x) of Poisson counts x, for one scale.

    Parameters
    ----------
    scale
        Factor of a count before the logarithm: 10,000 / molecules.
    """

    def __init__(self, scale: float) -> None:
        exact = _EXPECTED[_EXPECTED <= MOST_EXACT]
        large = _EXPECTED[len(exact) :]
        values = np.concatenate(
            [
                _PROBABILITIES @ np.log1p(scale * np.arange(LARGEST + 1)),
                np.log1p(scale * large) - large * (scale / (1 + scale * large)) ** 2 / 2,
            ]
        )
        self._values = torch.tensor(values, dtype=torch.float32)

    def __call__(self, expected: Tensor) -> Tensor:
        """The means for expected counts of any shape."""
        low, high = LOG_RANGE
        place = (expected.log10() - low).mul_(STEPS / (high - low)).clamp_(0, STEPS - 1e-3)
        index = place.long()
        return torch.lerp(self._values[index], self._values[index + 1], place - index)


def _poisson(expected: np.ndarray) -> np.ndarray:
    """(n, LARGEST + 1) probabilities of the counts."""
    counts = np.arange(LARGEST + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(counts[1:]))])
    found: np.ndarray = np.exp(counts * np.log(expected)[:, None] - expected[:, None] - factorials)
    return found


_PROBABILITIES = _poisson(_EXPECTED[_EXPECTED <= MOST_EXACT])
