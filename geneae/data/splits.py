"""Splits: assignment of profiles to training, validation and test."""

import numpy as np
import pandas as pd

from geneae.data.profiles import complete_column
from geneae.settings.errors import InputError

SPLITS = ("train", "validation", "test")
EXCLUDED = "excluded"
TRAIN, VALIDATION, TEST = range(3)
DRAWS = 10  # random orders of the groups; with many more, every seed would give the same split of few donors
STRATIFIED_DRAWS = 100  # requested proportions matter more than variety between seeds


def split_profiles(
    obs: pd.DataFrame,
    validation: float = 0.1,
    test: float = 0.1,
    group: str | None = None,
    stratify: str | None = None,
    seed: int = 0,
    exclude: np.ndarray | None = None,
) -> pd.Series:
    """Split of every profile: train, validation or test.

    Sizes are `fraction * n` rounded to the nearest whole number, halves up, and at least one; training gets the
    remainder. `n` is the number of profiles or, with `group`, the number of its distinct values.

    Parameters
    ----------
    obs
        Annotation, one row per profile.
    validation, test
        Fractions. `test=0` gives no test split; validation is never empty.
    group
        Column of `obs`, such as the donor; profiles with equal values stay in one split. Of 10 random orders of the
        values (100 with `stratify`), the one whose splits come closest to the fractions of profiles is used.
    stratify
        Column of `obs` whose values keep their proportions in each split: without `group`, to within two profiles; a
        value with fewer profiles than there are splits stays in training and is not counted in `n`.
    seed
        The same seed gives the same split, whatever the type of the columns.
    exclude
        Boolean mask of profiles to leave out; they are marked `excluded`.

    Returns
    -------
    Series `split` of `train`, `validation`, `test` or `excluded`, in the order of `obs`.
    """
    if not 0 < validation < 1 or not 0 <= test < 1 or not validation + test < 1:
        raise InputError(
            "the validation fraction must be above 0, the test fraction at least 0, and their sum below 1; found "
            f"validation {validation:g} and test {test:g}. Give for example 0.1 and 0.1."
        )
    excluded = np.zeros(len(obs), bool) if exclude is None else np.asarray(exclude, bool)
    if excluded.shape != (len(obs),):
        raise InputError(f"exclude must hold one value for each of {len(obs)} profiles; its shape is {excluded.shape}.")
    kept = obs[~excluded]
    fractions = np.array([1 - validation - test, validation, test])
    if not len(kept):
        raise InputError(
            f"a split into {_names(fractions)} needs at least {np.count_nonzero(fractions)} profiles with values; "
            "found none. Check that this is the right matrix."
        )
    rng = np.random.default_rng(seed)
    strata = None if stratify is None else _codes(kept, stratify)
    if group is not None:
        parts = _split_groups(_codes(kept, group), strata, fractions, group, rng)
    elif strata is not None:
        parts = _split_strata(strata, fractions, rng)
    else:
        parts = _cut(rng.permutation(len(kept)), _sizes(len(kept), fractions, "profiles"))
    split = np.full(len(obs), EXCLUDED, dtype=object)
    split[~excluded] = np.array(SPLITS, dtype=object)[parts]
    return pd.Series(split, index=obs.index, name="split")


def _names(fractions: np.ndarray) -> str:
    return ", ".join(np.array(SPLITS)[fractions > 0])


def _codes(obs: pd.DataFrame, key: str) -> np.ndarray:
    """Integer codes of a column in order of first appearance, so that type and spelling of its values do not matter."""
    return pd.factorize(complete_column(obs, key))[0]


def _sizes(n: int, fractions: np.ndarray, things: str) -> tuple[int, int]:
    """Numbers of the `n` things that go to validation and to test."""
    # 1e-9: 0.29 * 50 is just below 14.5 in floating point but should be rounded as 14.5
    validation, test = (max(1, int(np.floor(f * n + 0.5 + 1e-9))) if f else 0 for f in fractions[1:])
    needed = int(np.count_nonzero(fractions))
    if n < needed:
        raise InputError(
            f"a split into {_names(fractions)} needs at least {needed} {things}; found {n}. "
            f"Give more{', or --test 0' * (needed > 2 and n == needed - 1)}."
        )
    if validation + test >= n:
        raise InputError(
            f"validation {fractions[VALIDATION]:g} and test {fractions[TEST]:g} of {n} {things} leave none for "
            "training. Give smaller fractions."
        )
    return validation, test


def _cut(order: np.ndarray, sizes: tuple[int, int]) -> np.ndarray:
    """Split of each position; validation and test are taken from the start of `order`."""
    parts = np.full(len(order), TRAIN)
    parts[order[: sizes[0]]] = VALIDATION
    parts[order[sizes[0] : sum(sizes)]] = TEST
    return parts


def _split_groups(
    groups: np.ndarray,
    strata: np.ndarray | None,
    fractions: np.ndarray,
    key: str,
    rng: np.random.Generator,
) -> np.ndarray:
    """Split of each profile: the best of several random assignments of groups, by distance to the wanted sizes.

    The distance is summed over strata.
    """
    n_groups = len(np.unique(groups))
    sizes = _sizes(n_groups, fractions, f"different values of '{key}'")
    draws = DRAWS if strata is None else STRATIFIED_DRAWS
    cells = (np.zeros_like(groups) if strata is None else strata) * len(SPLITS)
    wanted = np.outer(np.bincount(cells // len(SPLITS)), fractions).ravel()

    def distance(parts: np.ndarray) -> float:
        found = np.bincount(cells + parts[groups], minlength=len(wanted))
        return float(np.abs(found - wanted).sum())

    best: np.ndarray = min((_cut(rng.permutation(n_groups), sizes) for _ in range(draws)), key=distance)
    return np.asarray(best[groups])


def _split_strata(strata: np.ndarray, fractions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Split of each profile, separately for every stratum; sizes by largest remainder, so that totals are exact."""
    counts = np.bincount(strata)
    counts[counts < np.count_nonzero(fractions)] = 0
    sizes = _sizes(int(counts.sum()), fractions, "profiles in strata large enough to be divided")
    validation = _shares(counts, sizes[0], rng)
    test = _shares(counts - validation, sizes[1], rng)
    order = rng.permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]  # by stratum, in random order within each
    starts = np.searchsorted(strata[order], np.arange(len(counts)))
    rank = np.arange(len(order)) - starts[strata[order]]
    first, last = validation[strata[order]], (validation + test)[strata[order]]
    parts = np.empty(len(strata), int)
    parts[order] = np.where(rank < first, VALIDATION, np.where(rank < last, TEST, TRAIN))
    return parts


def _shares(counts: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
    """`total` divided into whole numbers in proportion to `counts`; ties between remainders are broken at random."""
    exact = counts * total / counts.sum()
    shares: np.ndarray = np.floor(exact).astype(int)
    order = np.lexsort((rng.random(len(counts)), shares - exact))
    shares[order[: total - shares.sum()]] += 1
    return shares
