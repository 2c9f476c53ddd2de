"""What a matrix holds: counts, normalised values, logarithms or scaled values, by evidence from its values."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import sparse

from geneae.data.places import Kind, differing
from geneae.data.rounded import DOUBT, FEWEST_VALUES, doubt, have_gaps, rounded_sum
from geneae.data.units import Unit, find_unit
from geneae.settings.errors import InputError
from geneae.settings.text import counted

LARGEST_LOG = 30.0  # log2 of a billion: the logarithm of an expression value is never larger
MOSTLY = 0.5  # share of whole values above which a matrix was one of counts once
NEARLY = 1e-4  # distance from a whole number, and
ROUNDING = 1e-6  # share of a value, within which it is one: counts that went through float32
MOST_ROUNDING = 0.05  # as far as it is ever rounded without being asked
FEW = 0.05  # share of values without which a matrix is one of counts
NEGATIVES = 5  # negative values shown in a message


@dataclass(frozen=True)
class State:
    """A kind of values, and what is done with it."""

    noun: str
    """What the values are, in a message."""
    use: str
    """What the values are and what is done with them, in the first line of a command."""


STATES: dict[str, State] = {
    "counts": State("counts", "counts: will be normalised to 10,000 per profile and log1p'd"),
    "normalised": State(
        "normalised values without a logarithm",
        "normalised, not logged: values used as they are, no held-out half without counts",
    ),
    "log": State("log values", "log values: used as they are, no held-out half without counts"),
    "scaled": State("scaled values", "scaled, with negative values: used as they are, no held-out half without counts"),
}
"""Kinds of values, by the word of `--state`."""


FORMER = {"log_normalised": "log"}
"""Names that older folders of models have for states."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What one pass over all values of a matrix has found."""

    n_values: int = 0
    """Number of values that are not zero."""
    n_whole: int = 0
    """Number of them that are whole, up to rounding."""
    n_exact: int = 0
    """Number of them that are whole exactly, in float32."""
    n_negative: int = 0
    """Number of them below zero."""
    lowest: float = 0.0
    """Smallest value, at most 0."""
    highest: float = 0.0
    """Largest value, at least 0."""
    deviation: float = 0.0
    """Largest distance of a nearly whole value from its whole number."""
    divisor: int = 1
    """Greatest common divisor of the values, if all are whole; else 1."""
    negatives: tuple[float, ...] = ()
    """The first different values below zero."""
    totals: np.ndarray = field(default_factory=lambda: np.empty(0))
    """(n_profiles,) sums."""
    lengths: np.ndarray = field(default_factory=lambda: np.empty(0, int))
    """(n_profiles,) numbers of values that are not zero."""
    sample: sparse.csr_matrix | None = None
    """The first profiles."""
    places: tuple[sparse.csr_matrix, ...] = ()
    """Some profiles of every place of the matrix; empty where only the first were looked at."""

    @property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers, up to rounding."""
        return self.n_whole == self.n_values and (self.n_values == 0 or max(self.highest, -self.lowest) > MOSTLY)


@dataclass(frozen=True)
class Finding:
    """What a matrix holds."""

    state: str
    """Name in `STATES`."""
    said: str = ""
    """The evidence, in words; empty for exact counts."""
    unit: Unit | None = None
    """How the values come from counts, where the values tell it."""
    doubt: str = ""
    """What speaks against it, as a sentence; empty without a doubt."""

    @property
    def has_counts(self) -> bool:
        """Whether counts can be recovered from values that are none, without a doubt."""
        return self.state != "counts" and self.unit is not None and self.unit.is_proven


def find_state(evidence: Evidence, where: str) -> Finding:
    """What a matrix holds, by its values; whole numbers of which some are negative are refused.

    Where profiles of different kinds follow each other, that is a doubt, and counts are not offered.
    """
    found = _by_all(evidence, where)
    kinds = differing(evidence.places, evidence.totals, evidence.lengths) if evidence.places else None
    if kinds is None:
        return found
    first, other = map(_in_words, kinds)
    said = (
        f"Profiles of different kinds are in one matrix: the first are {first}, later ones {other}. Numbers about "
        "them together say nothing. Read them apart, or normalise them alike."
    )
    return replace(found, unit=None, doubt=said)


def _in_words(kind: Kind) -> str:
    if kind.unit is not None:
        return _of_unit(kind.unit)
    return "whole numbers" if kind.rounded_to is None else f"rounded values that sum to about {kind.rounded_to:,.0f}"


def _by_all(evidence: Evidence, where: str) -> Finding:
    """What a matrix holds, by all of its values and by the first profiles."""
    is_mostly_whole = evidence.n_values > 0 and evidence.n_whole >= MOSTLY * evidence.n_values
    is_large = max(evidence.highest, -evidence.lowest) > MOSTLY
    if evidence.is_whole and not evidence.n_negative:
        return _of_whole(evidence)
    unit = None if evidence.sample is None else find_unit(evidence.sample)
    if evidence.n_negative:
        if unit is not None and unit.is_proven:
            return Finding("log", _of_unit(unit), unit)
        if is_mostly_whole and is_large:
            raise negative_counts(evidence, where)
        are = "is" if evidence.n_negative == 1 else "are"
        return Finding("scaled", f"{evidence.n_negative:,} of {counted(evidence.n_values, 'value')} {are} negative")
    if (
        unit is not None
        and unit.base is not None
        and evidence.highest * math.log(unit.base) > LARGEST_LOG * math.log(2)
    ):
        return Finding(
            "log",
            f"{_of_unit(unit)} in the first profiles",
            doubt=f"The first profiles are logarithms, but other values go up to {evidence.highest:,.0f}: profiles of "
            "different kinds are in one matrix, and numbers about them say nothing. Read them apart, or normalise them "
            "alike.",
        )
    if unit is not None and not _is_of_others(unit, evidence):
        return Finding("normalised" if unit.base is None else "log", _of_unit(unit), unit)
    if is_mostly_whole and is_large:
        others = evidence.n_values - evidence.n_whole
        said = f"{others:,} of {evidence.n_values:,} values {'is' if others == 1 else 'are'} not whole, all others are"
        return Finding("normalised", said + "; --state counts rounds them" * (others <= FEW * evidence.n_values))
    if evidence.highest > LARGEST_LOG:
        return Finding("normalised", f"values up to {evidence.highest:,.0f}: no logarithm was taken")
    return Finding("log", f"values from 0 to {evidence.highest:.3g}, taken for logarithms")


def _is_of_others(unit: Unit, evidence: Evidence) -> bool:
    """Whether the first profiles, which show the unit, are counts, as other profiles are not."""
    if unit.base is not None or unit.factor is None or evidence.sample is None:
        return False
    data = evidence.sample.data
    return bool((np.abs(data - np.rint(data)) <= NEARLY).all()) and abs(unit.factor - 1) < NEARLY


def given_state(evidence: Evidence, state: str, where: str) -> Finding:
    """What a matrix holds by the word of the user, where the values allow it; by its values for `auto`."""
    if state == "auto":
        return find_state(evidence, where)
    if state in ("log", "scaled"):
        found = Finding(state) if evidence.n_negative or state == "scaled" else find_state(evidence, where)
        return found if found.state == state else Finding(state, "as given by --state")
    if evidence.n_negative and not (state == "counts" and _is_logged(evidence)):
        raise negative_counts(evidence, where, state)
    found = find_state(evidence, where)
    if state == "normalised" or found.state == "counts":
        return found if found.state == state else Finding(state, "as given by --state")
    if evidence.is_whole:
        by = found.unit.factor if found.unit is not None and found.unit.is_proven else None
        if by:
            return Finding("counts", f"all divided by {by:g}", found.unit)
        return Finding(
            "counts", "as given by --state", doubt=f"--state counts was given, but values are {found.said}. {DOUBT}"
        )
    if found.has_counts:
        return Finding("counts", f"recovered from {_of_unit(found.unit)}", found.unit)
    if found.state == "log" or found.unit is not None:
        raise InputError(
            f"{where}: --state counts needs whole numbers, or values from which they can be recovered; found "
            f"{STATES[found.state].noun} ({found.said}). Name the matrix of counts with --layer or --raw, or leave out "
            "--state."
        )
    others = evidence.n_values - evidence.n_exact
    return Finding("counts", f"{others:,} of {evidence.n_values:,} values rounded, as --state counts asks for")


def _is_logged(evidence: Evidence) -> bool:
    """Whether negative values come of the logarithm of a pseudo-count below 1."""
    unit = None if evidence.sample is None else find_unit(evidence.sample)
    return unit is not None and unit.is_proven


def negative_counts(evidence: Evidence, where: str, state: str = "counts") -> InputError:
    """Error for whole numbers, or values that should be counts, of which some are negative."""
    shown = ", ".join(f"{value:g}" for value in evidence.negatives)
    more = ", ..." if evidence.n_negative > len(evidence.negatives) else ""
    are = (
        "all are"
        if evidence.n_negative == evidence.n_values
        else f"{evidence.n_negative:,} {'is' if evidence.n_negative == 1 else 'are'}"
    )
    what = "whole numbers" if evidence.is_whole else "values, most of them whole numbers,"
    noun = "counts" if state == "counts" else STATES[state].noun
    return InputError(
        f"{where}: {noun} cannot be negative; of {evidence.n_values:,} {what} {are} below zero ({shown}{more}). An "
        "integer type too small for the counts, a subtraction, or rounded z-scores are common causes. Read the counts "
        "again, or say that values are meant to be so with --state scaled."
    )


def _of_whole(evidence: Evidence) -> Finding:
    """Counts, or whole numbers that are none: rounded normalised values, and multiples of one number."""
    is_filled = evidence.lengths > 0
    profiles = evidence.totals[is_filled], evidence.lengths[is_filled], evidence.sample
    if evidence.n_values >= FEWEST_VALUES and evidence.highest == 1:
        return Finding("counts", "all values are 1: which genes were seen, not how many molecules")
    if evidence.divisor > 1 and evidence.n_values >= FEWEST_VALUES and evidence.highest > 2 * evidence.divisor:
        unit = Unit(None, None, None, float(evidence.divisor), True)
        return Finding("normalised", f"all are multiples of {evidence.divisor:,}: no numbers of molecules", unit)
    if (target := rounded_sum(*profiles)) is not None:
        said = f"rounded, and every profile sums to about {target:,.0f}: no numbers of molecules"
        return Finding("normalised", said, Unit(None, None, target, None, False))
    if have_gaps(evidence.sample):
        said = "rounded multiples of another number in every profile: no numbers of molecules"
        return Finding("normalised", said)
    nearly = f"rounded to whole numbers, from which they differ by at most {evidence.deviation:.1g}"
    return Finding("counts", "" if evidence.n_exact == evidence.n_values else nearly, doubt=doubt(*profiles))


def _of_unit(unit: Unit | None) -> str:
    """How values come from counts, in words."""
    assert unit is not None
    whole = "whole numbers" if unit.is_proven else "values"
    if unit.factor is not None and abs(unit.factor - 1) > 1e-4:
        whole += f" times {unit.factor:.6g}"
    elif unit.factor is None and unit.is_proven:
        whole += " times a factor of each profile"
    if unit.target_sum is not None and unit.factor is None:
        whole += f", which sum to {unit.target_sum:,.6g}"
    if unit.base is None:
        return whole
    added = "1" if unit.pseudo_count == 1 else f"{unit.pseudo_count:.4g}"
    return f"log(x + {added}) to base {unit.base_in_words} of {whole}"


def recoverable(finding: Finding) -> str:
    """Sentence that offers counts which can be recovered; empty where they cannot."""
    return "counts can be recovered from them exactly: --state counts" if finding.has_counts else ""
