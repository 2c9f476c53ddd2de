"""Depth of the profiles that a model is applied to: one ratio for all of them, or one for each group."""

import numbers
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from geneae.models.depths import DELTAS, MAX_DEPTH_SCORE, MIN_MOLECULES
from geneae.settings.errors import InputError

SAME_DEPTH = 1.25  # ratios up to this, and down to its inverse, count as 1: samples of the same profiles differ as much
MOST_PROFILES = 2000  # evenly spaced ones, from which the depth of a group is estimated
LEAST_DEPTHS = 20  # profiles; among fewer no two depths are told apart
MORE_SPREAD = 1.5  # of log depths, relative to those of training profiles
LEAST_FACTOR = 2.5  # between two depths that are worth a word
APART = 3.0  # deviations within two parts by which these differ
SMALLEST_PART = 0.05  # share of the profiles
LEAST_RATIO = 1e-4  # that can be given; rounding decides the latents of far smaller ones
DEEPEST, SHALLOWEST = 1.0, float(np.exp(DELTAS[-1] - DELTAS[0]))
"""Range of ratios that training has seen; outside, numbers that depend on depth are those of its nearest end."""


@dataclass(frozen=True, eq=False)
class QueryDepth:
    """Depth of a group of profiles."""

    ratio: float
    """Molecules of a training profile divided by those of one of these, typically: 10 where they have a tenth."""
    rows: np.ndarray
    """Positions of the profiles."""
    is_given: bool
    """Whether the user gave the ratio; otherwise it was estimated."""
    group: str = ""
    """Value of the column that names the group; empty if all profiles are one."""
    molecules: float = float("nan")
    """Geometric mean of the molecules of those of these profiles that have 8 or more; NaN if none has."""
    of_training: float = float("nan")
    """The same of training profiles like them; NaN if the ratio was given."""
    own: dict[float, np.ndarray] = field(default_factory=dict)
    """Positions of profiles that have so few molecules beside the others that they are read at a ratio of their own."""
    apart: tuple[float, float] | None = None
    """Share of the shallower profiles and factor between both kinds, where the profiles are of two depths or more."""

    @property
    def _is_seen(self) -> bool:
        return DEEPEST <= self.ratio <= SHALLOWEST

    def sentence(self) -> str:
        """How deep the profiles are taken to be, and from what that is known."""
        who = f"Profiles of {self.group}" if self.group else "These profiles"
        if self.is_given:
            share = "as many molecules as" if self.ratio == 1 else f"1/{self.ratio:g} of the molecules of"
            share = f"{1 / self.ratio:g} times the molecules of" if self.ratio < 1 else share
            said = f"{who} are read as having {share} the training profiles, as given."
        elif np.isnan(self.molecules):
            said = f"{who} have fewer than {MIN_MOLECULES} molecules each, which tell no depth."
        elif self.ratio == 1:
            said = (
                f"{who} are as deep as training profiles like them: {self.molecules:,.0f} and {self.of_training:,.0f} "
                "molecules (geometric means)."
            )
        else:
            said = (
                f"{who} have {self.molecules:,.0f} molecules (geometric mean), training profiles like them had "
                f"{self.of_training:,.0f}: {'they are read at' if self._is_seen else 'this is'} a depth ratio of "
                f"{_short(self.ratio)}. If you know better, give --depth-ratio."
            )
        if self.ratio > SHALLOWEST:
            said += (
                f" Training has seen ratios up to {SHALLOWEST:g}: its numbers for {SHALLOWEST:g} are used, with "
                f"1/{_short(self.ratio)} of the molecules taken as usual."
            )
        if self.ratio < DEEPEST:
            said += " Deeper profiles are read as they would be with the molecules of training profiles."
        if self.own:
            n_own = sum(map(len, self.own.values()))
            said += f" {n_own:,} with far fewer molecules than the others are read at their own depth."
        if self.apart is not None:
            part, factor = self.apart
            said += (
                f" Their depths differ more than those of training profiles: {100 * part:.0f} % have about "
                f"1/{factor:.2g} of the molecules of the others. If a column of obs tells them apart, such as the run, "
                "name it with --depth-by."
            )
        return said

    def recorded(self) -> dict[str, float | str | bool]:
        """Entries of a JSON file."""
        return {
            "group": self.group,
            "ratio": self.ratio,
            "is_given": self.is_given,
            "n_profiles": len(self.rows),
            "n_at_own_depth": sum(map(len, self.own.values())),
            "molecules": self.molecules,
            "molecules_of_training": self.of_training,
        }


def _short(ratio: float) -> str:
    """A ratio with three digits, or as a whole number."""
    return f"{ratio:.3g}" if ratio < 100 else f"{ratio:,.0f}"


def check_ratio(ratio: float | None) -> None:
    """Refuse a depth ratio that is not a number above 0, or too small for any profiles."""
    is_number = isinstance(ratio, numbers.Real)
    if ratio is not None and not (is_number and np.isfinite(ratio) and ratio > 0):
        given = f"{ratio:g}" if is_number else repr(ratio)
        raise InputError(
            f"--depth-ratio must be a number above 0; found {given}. 10 means a tenth of the molecules of the "
            "training profiles."
        )
    if ratio is not None and ratio < LEAST_RATIO:
        raise InputError(
            f"--depth-ratio must be at least {LEAST_RATIO:g}, profiles with {1 / LEAST_RATIO:,.0f} times the molecules "
            f"of the training profiles; found {ratio:g}. 10 means a tenth of their molecules, 0.1 ten times as many."
        )


def query_depths(
    estimate: Callable[[np.ndarray], np.ndarray],
    totals: np.ndarray,
    deviations: tuple[float, float],
    ratio: float | None = None,
    groups: pd.Series | None = None,
) -> list[QueryDepth]:
    """Depth of profiles, one for each group; estimated unless given.

    Profiles with fewer than 8 molecules, of which nothing is said, take no part: empty droplets would make all others
    be read as far shallower than they are.

    Parameters
    ----------
    estimate
        Function that estimates the log depth ratio of each of the profiles at some positions, read as one set.
    totals
        (n_profiles,) molecules of the profiles.
    deviations
        Deviation of the log molecules of training profiles, and of the part that their scores do not explain.
    ratio
        Depth ratio of all profiles, above 0; None: estimated.
    groups
        (n_profiles,) group of each profile; missing values are a group of their own. None: all are one.
    """
    check_ratio(ratio)
    (deviation, unexplained), found = deviations, []
    for group, rows in _rows_by_group(groups, len(totals)):
        known = rows[totals[rows] >= MIN_MOLECULES]
        molecules = float(np.exp(np.log(totals[known]).mean())) if len(known) else float("nan")
        if ratio is not None:
            found.append(QueryDepth(float(ratio), rows, True, group, molecules))
            continue
        some = known[np.unique(np.linspace(0, len(known) - 1, MOST_PROFILES).astype(int))] if len(known) else known
        logs = estimate(some) if len(some) else np.zeros(1)
        mean = float(np.exp(logs.mean()))
        used = 1.0 if 1 / SAME_DEPTH <= mean <= SAME_DEPTH else mean
        own = _far_below(known, totals, molecules, used, deviation)
        apart = two_depths(logs, totals[some], unexplained) if len(some) else None
        found.append(QueryDepth(used, rows, False, group, molecules, molecules * mean, own, apart))
    return found


def _far_below(
    rows: np.ndarray, totals: np.ndarray, molecules: float, ratio: float, deviation: float
) -> dict[float, np.ndarray]:
    """Positions of profiles with far fewer molecules than their set, by their own depth ratio.

    Far is farther than depth scores reach; these profiles would be read as if they were 3 deviations below. Ratios are
    that of the set times powers of 2, so that there are few.
    """
    if not len(rows):
        return {}
    below = np.log(molecules) - np.log(totals[rows])
    is_far = (below > MAX_DEPTH_SCORE * deviation) & (totals[rows] >= MIN_MOLECULES)  # of fewer nothing is said
    steps = np.rint(below / np.log(2)).astype(int)
    return {ratio * 2.0**step: rows[is_far & (steps == step)] for step in np.unique(steps[is_far])}


def two_depths(logs: np.ndarray, totals: np.ndarray, unexplained: float) -> tuple[float, float] | None:
    """Share of the shallower profiles, and the factor between the molecules of both kinds, where profiles are of two
    depths or more.

    The profiles are divided in two so that their log depths vary least within both. They are of two depths if the means
    are farther apart than 3 deviations within (a single normal distribution gives 2.6), if the
    molecules differ by a factor of 2.5 or more, if both parts hold a twentieth or more, and if the depths vary 1.5
    times as much as those of training profiles or more. None otherwise.

    Parameters
    ----------
    logs
        (n_profiles,) log depth ratio of each profile.
    totals
        (n_profiles,) molecules, above 0.
    unexplained
        Deviation of the log molecules of training profiles around those of profiles like them.
    """
    n_profiles = len(logs)
    if n_profiles < LEAST_DEPTHS or logs.std() < MORE_SPREAD * unexplained:
        return None
    order = np.argsort(logs)
    values, molecules = logs[order], np.log(totals[order])
    number = np.arange(1, n_profiles)
    first = np.cumsum(values)[:-1]
    means = first / number, (values.sum() - first) / (n_profiles - number)
    within = (values**2).sum() - number * means[0] ** 2 - (n_profiles - number) * means[1] ** 2
    best = int(np.argmin(within))
    spread = np.sqrt(max(float(within[best]), 0.0) / n_profiles)
    factor = float(np.exp(molecules[: best + 1].mean() - molecules[best + 1 :].mean()))
    share = 1 - (best + 1) / n_profiles
    is_two = means[1][best] - means[0][best] > APART * spread and factor > LEAST_FACTOR
    return (share, factor) if is_two and SMALLEST_PART <= share <= 1 - SMALLEST_PART else None


def _rows_by_group(groups: pd.Series | None, n_profiles: int) -> Iterator[tuple[str, np.ndarray]]:
    if groups is None:
        yield "", np.arange(n_profiles)
        return
    codes, values = pd.factorize(groups.astype(object), sort=False)
    for code in range(-1, len(values)):
        rows = np.flatnonzero(codes == code)
        if len(rows):
            yield (_without_value(values) if code < 0 else str(values[code])), rows


def _without_value(values: Any) -> str:
    """Name of the profiles without a value, which no value has."""
    name, taken = "no value", {str(value) for value in values}
    while name in taken:
        name = f"({name})"
    return name


def ratios_of(depths: list[QueryDepth], n_profiles: int) -> np.ndarray:
    """(n_profiles,) depth ratio of each profile."""
    ratios = np.ones(n_profiles)
    for depth in depths:
        ratios[depth.rows] = depth.ratio
        for ratio, rows in depth.own.items():
            ratios[rows] = ratio
    return ratios


def by_ratio(ratios: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """Each ratio that occurs, and the positions of its profiles."""
    values, of = np.unique(ratios, return_inverse=True)
    for number, value in enumerate(values):
        yield float(value), np.flatnonzero(of == number)
