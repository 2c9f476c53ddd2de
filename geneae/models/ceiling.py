"""The noise ceiling: how well a perfect reconstruction could agree with noisy molecule counts."""

import numpy as np
from scipy import sparse

from geneae.data.preprocess import Expression
from geneae.losses.fixed_metric import FixedMetric

ERRORS = 3  # standard errors of the mean cosine of halves, beyond which a difference is no chance
DIGIT = 1e-3  # of a cosine: smaller differences are not spoken of
MIN_MOLECULES = 20  # in each half; with fewer, the direction of a half is nearly all noise


def cosine_of_halves(
    first: sparse.csr_matrix,
    second: sparse.csr_matrix,
    mean: np.ndarray | None = None,
    center: str = "none",
    metric: FixedMetric | None = None,
) -> np.ndarray:
    """(n_profiles,) cosine between two halves of each profile; NaN where one is empty.

    Parameters
    ----------
    first, second
        Halves of the same profiles, normalised.
    mean
        Gene mean of halves; needed for `center="gene"`.
    center
        `none`, `gene` or `profile`.
    metric
        Learned metric under which the cosine is taken; None: the plain cosine.
    """
    cross, one, two = (_dot(a, b) for a, b in ((first, second), (first, first), (second, second)))
    if center == "gene":
        assert mean is not None
        by_first, by_second, square = first @ mean, second @ mean, float(mean @ mean)
        cross = cross - by_first - by_second + square
        one, two = one - 2 * by_first + square, two - 2 * by_second + square
    if center == "profile":
        totals = [np.asarray(half.sum(1), dtype=np.float64).ravel() for half in (first, second)]
        cross = cross - totals[0] * totals[1] / first.shape[1]
        one, two = one - totals[0] ** 2 / first.shape[1], two - totals[1] ** 2 / first.shape[1]
    if metric is not None:
        a, b = (metric.map_rows(half, mean, center) for half in (first, second))
        mapped = (a * b).sum(1), (a * a).sum(1), (b * b).sum(1)
        cross, one, two = (m + metric.epsilon * plain for m, plain in zip(mapped, (cross, one, two), strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine: np.ndarray = np.where((one > 0) & (two > 0), cross / np.sqrt(one * two), np.nan)
    return cosine


def _dot(first: sparse.csr_matrix, second: sparse.csr_matrix) -> np.ndarray:
    return np.asarray(first.multiply(second).sum(1), dtype=np.float64).ravel()


def half_ceiling(cosines: np.ndarray) -> float:
    """sqrt(mean cos(z', z'')): the cosine of a half with its own expectation, which is the highest cosine that a
    reconstruction from one half can reach with the other. 0 if the halves do not agree at all, NaN without halves.

    By the symmetry of the halves it is exact for any transformation of Poisson counts; technical noise beyond Poisson
    is shared by the halves and makes it too high.
    """
    cosines = cosines[~np.isnan(cosines)]
    return float(np.sqrt(max(0.0, cosines.mean()))) if len(cosines) else float("nan")


def is_impossible(ceiling: float, cosines: np.ndarray, reached: list[float]) -> bool:
    """Whether something that sees no more than half a profile reaches more than the ceiling, beyond chance.

    Parameters
    ----------
    ceiling
        Result of `half_ceiling`.
    cosines
        (n_profiles,) cosines of halves that it comes from.
    reached
        Held-out cosines; NaN where there is none.
    """
    known = cosines[~np.isnan(cosines)]
    if len(known) < 2 or np.isnan(reached).all():
        return False
    error = float(known.std(ddof=1) / np.sqrt(len(known)))
    highest = float(np.sqrt(max(0.0, known.mean() + ERRORS * error)))
    return float(np.nanmax(reached)) > max(ceiling, highest) + DIGIT


def broken_assumption(ceiling: float, reached_by: str, reached: float, counts: Expression) -> str:
    """Why a ceiling below what is reached is none: which assumption about the counts fails, as a sentence.

    Parameters
    ----------
    ceiling
        Cosine that the halves give.
    reached_by, reached
        What reaches more, in words, and how much.
    counts
        The counts.
    """
    values = counts.rows.data if not counts.is_streamed else np.empty(0)
    if len(values) and (values == 1).all():
        why = "all values are 1, so that they say which genes were seen and not how many molecules"
    else:
        why = "the counts are less noisy than counted molecules, as repeated, averaged or simulated profiles are"
    return (
        f"{reached_by} reaches {reached:.4f} of held-out cosine, more than the {ceiling:.4f} that Poisson noise would "
        f"allow, which fails here: {why}."
    )


def disattenuated_cosine(held_out: np.ndarray, of_halves: np.ndarray) -> float:
    """mean cos(x'(z'), z'') / sqrt(mean cos(z', z'')): cosine of reconstructions with the expectation of the profile
    instead of its noisy half. Higher is better; at most about 1, and NaN if the ceiling is 0 or unknown.

    Spearman's correction for attenuation (1904), as a ratio of means over profiles, because ratios of single profiles
    are too noisy. Accurate within 0.01 for log-normalised Poisson counts with at least 500 molecules; technical noise
    beyond Poisson makes it too low.

    Parameters
    ----------
    held_out
        (n_profiles,) cosines of reconstructions from one half with the other half.
    of_halves
        (n_profiles,) cosines between the halves.
    """
    known = ~(np.isnan(held_out) | np.isnan(of_halves))
    ceiling = half_ceiling(of_halves[known])
    return float(held_out[known].mean() / ceiling) if ceiling > 0 else float("nan")


def has_molecules(first: Expression, second: Expression) -> np.ndarray:
    """(n_profiles,) bool: whether both halves have enough molecules to be evaluated."""
    counts = [np.asarray(half.rows.sum(1), dtype=np.float64).ravel() for half in (first, second)]
    mask: np.ndarray = np.minimum(*counts) >= MIN_MOLECULES
    return mask


def counts_ceiling(counts: sparse.csr_matrix) -> np.ndarray:
    """(n_profiles,) sqrt(sum x(x-1) / sum x^2): cosine of raw counts with their Poisson expectation, within 0.005 for
    at least 500 molecules; NaN for empty profiles.

    E x(x-1) is the square of a Poisson mean, so the numerator estimates the squared length of the mean without bias.
    """
    values = counts.data.astype(np.float64)
    squares = _row_sums(counts, values**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        ceiling: np.ndarray = np.sqrt(_row_sums(counts, values * (values - 1)) / squares)
    return ceiling


def _row_sums(like: sparse.csr_matrix, values: np.ndarray) -> np.ndarray:
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray(sums[like.indptr[1:]] - sums[like.indptr[:-1]])


def full_depth_ceiling(agreements: dict[float, float]) -> tuple[float, float]:
    """Interval for the cosine of log-normalised profiles, with all their molecules, with their expectation.

    The cosine R(q) of two disjoint fractions q of the molecules is known for q = 1/2, 1/4, 1/8. Its logit is
    extrapolated over log q to q = 1, by the line through the first two and by the parabola through all three; the
    ceiling is sqrt(R(1)). The Spearman-Brown formula, right for raw counts, is wrong after the logarithm.

    Parameters
    ----------
    agreements
        R for each q: `{0.5: ..., 0.25: ..., 0.125: ...}`.

    Returns
    -------
    Lower and upper end; both NaN if an agreement is not between 0 and 1.
    """
    fractions = np.array(sorted(agreements, reverse=True))
    agreement = np.array([agreements[q] for q in fractions])
    if not ((agreement > 0) & (agreement < 1)).all():
        return float("nan"), float("nan")
    logit = np.log(agreement / (1 - agreement))
    ends = [np.polyval(np.polyfit(np.log(fractions[:n]), logit[:n], n - 1), 0.0) for n in (2, len(fractions))]
    ceilings = sorted(float(np.sqrt(1 / (1 + np.exp(-end)))) for end in ends)
    return ceilings[0], ceilings[1]
