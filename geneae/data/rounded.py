"""Whole numbers that are no numbers of molecules: rounded normalised values, by their totals and by gaps among them."""

import numpy as np
from scipy import sparse

FEWEST = 10  # profiles, and
FEWEST_VALUES = 30  # values, in which equal totals, a common divisor or gaps are no chance
ROUNDED = 0.5  # deviation of totals, in square roots of the number of values, below which only rounding differs
SIMILAR = 0.05  # deviation of totals, as a share of them, below which the depth of all profiles is one
SURE = 4.0  # standard errors by which the variance of totals has to differ from that of molecules at one depth
LESS = 0.9  # deviation of log totals, relative to that of log numbers of genes, below which molecules are doubtful
GAP, RARE = 4, 0.05  # least value of a profile, and share of values between it and its double, that show rounding
SEVERAL = 3  # values of a profile, on average, that are the smallest
MOSTLY = 0.5  # share of profiles that have to agree
DOUBT = (
    "If they are rounded normalised values or logarithms, held-out cosines and the noise ceiling say nothing: read the "
    "numbers of molecules, or say what they are with --state normalised or --state log."
)
"""What a doubt about counts means, and what to do."""


def rounded_sum(totals: np.ndarray, lengths: np.ndarray, sample: sparse.csr_matrix | None) -> float | None:
    """Sum of every profile, if the sums of whole numbers differ by less than those of molecules do; else None.

    Totals of n rounded values differ by sqrt(n / 12), those of m counted molecules by at least about sqrt(m), which is
    what profiles of one depth have (Poisson); a power of ten is no chance; and most profiles have genes of which they
    have a single molecule. Totals that are equal exactly are those of counts that were drawn to one depth.

    Parameters
    ----------
    totals
        (n_profiles,) sums of whole numbers, above 0.
    lengths
        (n_profiles,) numbers of values that are not zero.
    sample
        The first profiles, some of which may be empty.
    """
    if len(totals) < FEWEST or are_drawn(totals):
        return None
    middle, n_values = float(np.median(totals)), float(np.median(lengths))
    rounding, spread = ROUNDED * np.sqrt(n_values), float(np.std(totals))
    is_round = middle >= 1e4 and bool((np.abs(totals / 10.0 ** np.rint(np.log10(middle)) - 1) < 1e-3).all())
    is_same = rounding < np.sqrt(middle) / 4 and spread <= rounding
    has_gap = spread < SIMILAR * middle and n_values >= FEWEST_VALUES and lack_ones(sample)
    return middle if is_same or is_round or has_gap or _dispersion(totals) < -SURE else None


def _dispersion(totals: np.ndarray) -> float:
    """Variance of totals over their mean, minus the 1 of molecules at one depth, in standard errors."""
    return float((np.var(totals) / np.mean(totals) - 1) / np.sqrt(2 / len(totals)))


def are_drawn(totals: np.ndarray) -> bool:
    """Whether most totals are the same: counts that were drawn to one depth, which some profiles did not have."""
    return bool(np.mean(totals == np.median(totals)) > MOSTLY)


def have_gaps(sample: sparse.csr_matrix | None) -> bool:
    """Whether most profiles of a sample are counts times a number of their own, rounded.

    Then hardly any value is between the smallest of a profile and its double, though several are the smallest: the
    single molecules. Of a profile of few genes, each with many molecules, one is.
    """
    if sample is None:
        return False
    lengths = np.diff(sample.indptr)
    if np.count_nonzero(lengths) < FEWEST:
        return False
    smallest = _smallest(sample)
    is_wide = smallest >= GAP
    least = np.repeat(np.where(is_wide, smallest, np.inf), lengths[lengths > 0])
    n_wide, n_least = int(np.count_nonzero(is_wide)), int(np.count_nonzero(sample.data == least))
    n_between = np.count_nonzero((sample.data > least + 1) & (sample.data < 2 * least - 2))
    has_many = n_least >= max(FEWEST_VALUES, SEVERAL * n_wide)
    return bool(np.mean(is_wide) > MOSTLY and has_many and n_between < RARE * n_least)


def doubt(totals: np.ndarray, lengths: np.ndarray, sample: sparse.csr_matrix | None) -> str:
    """A sentence where whole numbers look like rounded normalised values, which is not proven; else empty.

    The more molecules of a profile, the more of its genes are seen, but in a smaller proportion: totals of counts vary
    more than numbers of genes do, by a factor of 1.2 or more in all data tried, and totals of rounded normalised values
    less, by 0.7 at most. The parameters are those of `rounded_sum`.
    """
    if sample is None or len(totals) < FEWEST or are_drawn(totals) or np.median(lengths) < FEWEST_VALUES:
        return ""
    of_totals, of_genes = float(np.std(np.log(totals))), float(np.std(np.log(lengths)))
    if of_totals < LESS * of_genes and _dispersion(totals) > SURE:
        return (
            f"Totals of profiles vary less than their numbers of genes ({100 * of_totals:.0f} % and "
            f"{100 * of_genes:.0f} %), as those of normalised values do. {DOUBT}"
        )
    is_sparse = np.median(lengths) < MOSTLY * sample.shape[1]  # deep samples see every gene many times
    return (
        f"Most profiles have no value of 1, as counted molecules do. {DOUBT}" if is_sparse and lack_ones(sample) else ""
    )


def lack_ones(sample: sparse.csr_matrix | None) -> bool:
    """Whether most profiles of a sample have no value of one, or nearly one."""
    smallest = np.empty(0) if sample is None else _smallest(sample)
    return bool(len(smallest) and np.mean(smallest > 1.5) > MOSTLY)


def _smallest(sample: sparse.csr_matrix) -> np.ndarray:
    """(n_filled,) smallest values of the profiles that have any."""
    filled = np.flatnonzero(np.diff(sample.indptr))
    return np.minimum.reduceat(sample.data, sample.indptr[:-1][filled]) if len(filled) else np.empty(0)
