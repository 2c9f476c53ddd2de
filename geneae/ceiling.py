"""The noise ceiling: how well a perfect reconstruction could agree with noisy molecules."""

import numpy as np
from scipy import sparse

from geneae.preprocess import Expression

MIN_MOLECULES = 20  # in either half; below it the direction of a half is nearly all noise


def cosine_of_halves(
    first: sparse.csr_matrix, second: sparse.csr_matrix, mean: np.ndarray | None = None, center: str = "none"
) -> np.ndarray:
    """(n_profiles,) cosine between two halves of each profile; NaN where one is empty.

    Parameters
    ----------
    first, second
        Halves of the same profiles, normalised.
    mean
        Gene mean of halves, for `center="gene"`.
    center
        `none`, `gene` or `profile`.
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
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine: np.ndarray = np.where((one > 0) & (two > 0), cross / np.sqrt(one * two), np.nan)
    return cosine


def _dot(first: sparse.csr_matrix, second: sparse.csr_matrix) -> np.ndarray:
    return np.asarray(first.multiply(second).sum(1), dtype=np.float64).ravel()


def half_ceiling(cosines: np.ndarray) -> float:
    """sqrt(mean cos(z', z'')): the cosine of a half with its own expectation, and so the most that a reconstruction
    from one half can reach against the other. 0 where the halves do not agree at all, NaN where there are none.

    By symmetry of the halves, exact for any transformation of Poisson counts; technical noise beyond Poisson is
    shared by the halves and makes it too high.
    """
    cosines = cosines[~np.isnan(cosines)]
    return float(np.sqrt(max(0.0, cosines.mean()))) if len(cosines) else float("nan")


def has_molecules(first: Expression, second: Expression) -> np.ndarray:
    """Mask of the profiles with enough molecules in both halves to be judged."""
    counts = [np.asarray(half.matrix.sum(1), dtype=np.float64).ravel() for half in (first, second)]
    mask: np.ndarray = np.minimum(*counts) >= MIN_MOLECULES
    return mask
