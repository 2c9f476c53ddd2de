"""Kinds of values by place: profiles that were put together one after another without being normalised alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from geneae.data.rounded import FEWEST, rounded_sum
from geneae.data.units import Unit, find_unit, is_same_unit

N_PLACES = 4  # parts of a matrix, of as many profiles each, that are looked at apart
LOOKED_AT, FEWEST_LOOKED_AT = 512, 64  # profiles of all places together, fewer where they have many values
MOST_VALUES = 2**20  # of these profiles, typically
WHOLE = 1e-4  # distance from a whole number, and share of a value, within which it is one


@dataclass(frozen=True)
class Kind:
    """What the values of one place are, as far as they tell."""

    rounded_to: float | None = None
    """Sum of profiles of rounded values; None for counts, and for values that are not whole."""
    unit: Unit | None = None
    """How values that are not whole come from counts; None for whole numbers."""


def stride_of(n_profiles: int, n_values: float) -> int:
    """Distance between the profiles that are looked at, from all profiles and the values of a typical one."""
    wanted = np.clip(MOST_VALUES / max(1.0, n_values), FEWEST_LOOKED_AT, LOOKED_AT)
    return max(1, int(n_profiles // wanted))


def differing(places: Sequence[sparse.csr_matrix], totals: np.ndarray, lengths: np.ndarray) -> tuple[Kind, Kind] | None:
    """Two kinds of values that exclude each other, the one that comes first and another; None where there are none.

    What the values do not tell contradicts nothing.

    Parameters
    ----------
    places
        Some profiles of every place.
    totals, lengths
        (n_profiles,) sums, and numbers of values that are not zero, of all profiles.
    """
    by_place = zip(np.array_split(totals, N_PLACES), np.array_split(lengths, N_PLACES), places, strict=True)
    kinds = [kind for one in by_place if (kind := _kind(*one)) is not None]
    return next(((kinds[0], other) for other in kinds[1:] if not _are_alike(kinds[0], other)), None)


def _kind(totals: np.ndarray, lengths: np.ndarray, sample: sparse.csr_matrix) -> Kind | None:
    """Kind of the values of one place; None where they do not tell it."""
    if np.count_nonzero(np.diff(sample.indptr)) < FEWEST or (sample.data < 0).any():
        return None
    if (np.abs(sample.data - np.rint(sample.data)) <= WHOLE * np.maximum(1, sample.data)).all():
        filled = lengths > 0
        return Kind(rounded_sum(totals[filled], lengths[filled], sample))
    unit = find_unit(sample)
    return None if unit is None else Kind(unit=unit)


def _are_alike(one: Kind, other: Kind) -> bool:
    if one.unit is None or other.unit is None:
        return one.unit is other.unit and (one.rounded_to is None) == (other.rounded_to is None)
    return is_same_unit(one.unit, other.unit)
