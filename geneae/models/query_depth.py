"""Depth of the profiles that a model is applied to: one ratio for all of them, or one for each group."""

import numbers
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from geneae.models.depths import DELTAS
from geneae.settings.errors import InputError

SAME_DEPTH = 1.25  # ratios up to this, and down to its inverse, count as 1: samples of the same profiles differ as much
MOST_PROFILES = 2000  # evenly spaced ones, from which the depth of a group is estimated
DEEPEST, SHALLOWEST = 1.0, float(np.exp(DELTAS[-1] - DELTAS[0]))
"""Range of ratios that training has seen; outside, its nearest end is used."""


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
    """Geometric mean of the molecules of these profiles; NaN if none has any."""
    of_training: float = float("nan")
    """The same of training profiles like them; NaN if the ratio was given."""

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
            said = f"{who} have no molecules and are read like training profiles."
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
            said += f" Training has seen ratios up to {SHALLOWEST:g}, which is used instead."
        if self.ratio < DEEPEST:
            said += " Deeper profiles are read like training profiles."
        return said

    def recorded(self) -> dict[str, float | str | bool]:
        """Entries of a JSON file."""
        return {
            "group": self.group,
            "ratio": self.ratio,
            "is_given": self.is_given,
            "n_profiles": len(self.rows),
            "molecules": self.molecules,
            "molecules_of_training": self.of_training,
        }


def _short(ratio: float) -> str:
    """A ratio with three digits, or as a whole number."""
    return f"{ratio:.3g}" if ratio < 100 else f"{ratio:,.0f}"


def query_depths(
    ratio_of: Callable[[np.ndarray], float],
    totals: np.ndarray,
    ratio: float | None = None,
    groups: pd.Series | None = None,
) -> list[QueryDepth]:
    """Depth of profiles, one for each group; estimated unless given.

    Parameters
    ----------
    ratio_of
        Function that estimates the depth ratio of the profiles at some positions.
    totals
        (n_profiles,) molecules of the profiles.
    ratio
        Depth ratio of all profiles, above 0; None: estimated.
    groups
        (n_profiles,) group of each profile; missing values are a group of their own. None: all are one.
    """
    is_number = isinstance(ratio, numbers.Real)
    if ratio is not None and not (is_number and np.isfinite(ratio) and ratio > 0):
        given = f"{ratio:g}" if is_number else repr(ratio)
        raise InputError(
            f"--depth-ratio must be a number above 0; found {given}. 10 means a tenth of the molecules of the "
            "training profiles."
        )
    found = []
    for group, rows in _rows_by_group(groups, len(totals)):
        known = rows[totals[rows] > 0]
        molecules = float(np.exp(np.log(totals[known]).mean())) if len(known) else float("nan")
        if ratio is not None:
            found.append(QueryDepth(float(ratio), rows, True, group, molecules))
            continue
        some = known[np.unique(np.linspace(0, len(known) - 1, MOST_PROFILES).astype(int))] if len(known) else known
        estimate = ratio_of(some) if len(some) else 1.0
        is_same = 1 / SAME_DEPTH <= estimate <= SAME_DEPTH
        found.append(QueryDepth(1.0 if is_same else estimate, rows, False, group, molecules, molecules * estimate))
    return found


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
    return ratios


def by_ratio(ratios: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """Each ratio that occurs, and the positions of its profiles."""
    values, of = np.unique(ratios, return_inverse=True)
    for number, value in enumerate(values):
        yield float(value), np.flatnonzero(of == number)
