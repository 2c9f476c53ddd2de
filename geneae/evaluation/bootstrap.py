"""Bootstrap intervals over profiles and seeds."""

import numpy as np
from scipy import stats

DRAWS = 2000  # of profiles and seeds


def bootstrap_interval(differences: np.ndarray, seed: int) -> tuple[float, float, float, float]:
    """Mean, 95 % bootstrap interval over profiles and seeds, and a two-sided p value from its spread.

    Few seeds drawn again vary too little, by the root of (n - 1) / n, and their spread is known badly: draws are
    widened by that root, and Student's t takes the place of the normal distribution.
    """
    rng = np.random.default_rng(seed)
    n_seeds, n_profiles = differences.shape
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=DRAWS) / n_seeds
    seeds = 1 / n_seeds + (seeds - 1 / n_seeds) * np.sqrt(n_seeds / max(1, n_seeds - 1))
    means = np.empty(DRAWS)
    for start in range(0, DRAWS, 100):  # a hundred draws at a time keep the memory small
        drawn = rng.integers(n_profiles, size=(100, n_profiles))
        means[start : start + 100] = np.take_along_axis(seeds[start : start + 100] @ differences, drawn, axis=1).mean(1)
    mean, spread = float(differences.mean()), float(means.std())
    if spread == 0:
        return mean, mean, mean, float(mean == 0)
    freedom = _freedom(differences)
    stretch = stats.t.ppf(0.975, freedom) / stats.norm.ppf(0.975)
    low, high = mean + stretch * (np.quantile(means, [0.025, 0.975]) - mean)
    return mean, float(low), float(high), float(2 * stats.t.sf(abs(mean) / spread, freedom))


def _freedom(differences: np.ndarray) -> float:
    """Degrees of freedom of a variance that is the sum of one between seeds and one between profiles (Satterthwaite
    1946): from the number of seeds less one, where seeds differ most, to the number of profiles less one."""
    variances, freedoms = [], []
    for means in (differences.mean(1), differences.mean(0)):
        if len(means) > 1:
            variances.append(means.var(ddof=1) / len(means))
            freedoms.append(len(means) - 1)
    squares = sum(variance**2 / freedom for variance, freedom in zip(variances, freedoms, strict=True))
    return float(sum(variances) ** 2 / squares) if squares > 0 else 1.0
