"""Bootstrap intervals over profiles and seeds."""

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit  # quantiles and tails of scipy.stats, which is slow to load

DRAWS = 2000  # bootstrap samples of profiles and seeds


def bootstrap_interval(differences: np.ndarray, seed: int) -> tuple[float, float, float, float]:
    """Mean of (n_seeds, n_profiles) differences, its 95 % bootstrap interval, and a two-sided p value from its spread.

    Resampling n seeds underestimates their spread, by the factor sqrt((n - 1) / n), and few seeds give a poor estimate
    of it: deviations between seeds are divided by this factor, and Student's t replaces the normal distribution.
    """
    rng = np.random.default_rng(seed)
    n_seeds, n_profiles = differences.shape
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=DRAWS) / n_seeds
    seeds = 1 / n_seeds + (seeds - 1 / n_seeds) * np.sqrt(n_seeds / max(1, n_seeds - 1))
    means = np.empty(DRAWS)
    for start in range(0, DRAWS, 100):  # a hundred at a time to save memory
        drawn = rng.integers(n_profiles, size=(100, n_profiles))
        means[start : start + 100] = np.take_along_axis(seeds[start : start + 100] @ differences, drawn, axis=1).mean(1)
    mean, spread = float(differences.mean()), float(means.std())
    if spread == 0:
        return mean, mean, mean, float(mean == 0)
    freedom = _freedom(differences)
    stretch = float(stdtrit(freedom, 0.975) / ndtri(0.975))
    low, high = mean + stretch * (np.quantile(means, [0.025, 0.975]) - mean)
    return mean, float(low), float(high), float(2 * stdtr(freedom, -abs(mean) / spread))


def _freedom(differences: np.ndarray) -> float:
    """Degrees of freedom of the sum of a variance between seeds and a variance between profiles (Satterthwaite 1946):
    from the number of seeds minus one, where seeds differ most, to the number of profiles minus one."""
    variances, freedoms = [], []
    for means in (differences.mean(1), differences.mean(0)):
        if len(means) > 1:
            variances.append(means.var(ddof=1) / len(means))
            freedoms.append(len(means) - 1)
    squares = sum(variance**2 / freedom for variance, freedom in zip(variances, freedoms, strict=True))
    return float(sum(variances) ** 2 / squares) if squares > 0 else 1.0
