"""The unit of a profile: how normalised values and their logarithms come from whole numbers of molecules.

Normalisation multiplies the counts k of a profile by one factor u, its unit; a logarithm then gives
log_b(k u + p) - log_b(1) of these, with base b and pseudo-count p. Where every value of every profile is a whole
multiple of one unit, the counts are known without a doubt, whatever u, b and p were.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import sparse

WHOLE = 0.05  # largest distance of a multiple from a whole number; by chance it would be up to 0.5
LEAST = 20  # values beyond the smallest of their profile; fewer can be whole multiples by chance
DIVISORS = (1, 2, 3, 4)  # the smallest value of a profile may be 2, 3 or 4 molecules
RARE = 0.1  # share of the values of a profile that need the smaller unit, below which they are odd
EQUAL = 1e-3  # share by which equal sums may differ: rounding of float32, and of stored values
COMMON = 1e-4  # share by which units may differ that are one
BASES = {"e": math.e, "2": 2.0, "10": 10.0}
ALIKE = 0.02  # share by which bases, pseudo-counts, sums and units of two files may differ that are the same
TRIED = 50  # profiles from whose two smallest values another base is found
FLOOR_SHARE = 0.05  # share of all values that are the smallest one, where that is the logarithm of a pseudo-count


@dataclass(frozen=True)
class Unit:
    """How the values of a matrix come from whole numbers, as far as the values prove it."""

    base: float | None
    """Base of the logarithm; None: no logarithm was taken."""
    pseudo_count: float | None
    """Number added before the logarithm; None: no logarithm was taken."""
    target_sum: float | None
    """Sum of every profile before the logarithm; None where the sums differ, as after genes were removed."""
    factor: float | None
    """The unit, if it is the same for all profiles; None where each has its own."""
    is_proven: bool
    """Whether every value is a whole multiple of the unit of its profile, so that counts can be recovered."""

    @property
    def base_in_words(self) -> str:
        """`e`, `2`, or the number."""
        return next((name for name, base in BASES.items() if base == self.base), f"{self.base:.4g}")


def is_same_unit(one: Unit, other: Unit) -> bool:
    """Whether both were normalised and logged alike: base, pseudo-count, sum or unit, as far as both tell them."""

    def agree(*pair: float | None, share: float) -> bool:
        first, second = pair
        return first is None or second is None or math.isclose(first, second, rel_tol=share)

    has_own = (one.factor is None, other.factor is None)  # whether each profile has a unit of its own
    is_scale_alike = (
        agree(one.target_sum, other.target_sum, share=ALIKE)
        if one.target_sum is not None and other.target_sum is not None
        else has_own[0] == has_own[1] and agree(one.factor, other.factor, share=ALIKE)
    )
    return (
        is_scale_alike
        and (one.base is None) == (other.base is None)
        and agree(one.base, other.base, share=ALIKE)
        and agree(one.pseudo_count, other.pseudo_count, share=ALIKE)
    )


def linear(matrix: sparse.csr_matrix, base: float | None, pseudo_count: float | None) -> sparse.csr_matrix:
    """Values before the logarithm, without the pseudo-count, in float64; zeros stay zeros for the pseudo-count 1.

    With another pseudo-count the logarithm has no zeros, and the values that stand for zero become it.
    """
    data = matrix.data.astype(np.float64)
    if base is not None and pseudo_count is not None:
        with np.errstate(over="ignore"):
            data = np.expm1(data * math.log(base)) + 1 - pseudo_count
        data = np.where(np.abs(data) < EQUAL * EQUAL * max(1.0, pseudo_count), 0.0, data)
    found = sparse.csr_matrix((data, matrix.indices.copy(), matrix.indptr.copy()), shape=matrix.shape)
    found.eliminate_zeros()
    return found


def whole_multiples(matrix: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every value of a matrix in units of its profile.

    The smallest value of a profile is taken for one unit, or for two to four where that alone fits.

    Parameters
    ----------
    matrix
        (n_profiles, n_genes) canonical, without negative values.

    Returns
    -------
    (n_values,) whole numbers; (n_profiles,) units, NaN for empty profiles; (n_values,) whether a value is further from
    its whole number than rounding allows.
    """
    lengths = np.diff(matrix.indptr)
    row = np.repeat(np.arange(matrix.shape[0]), lengths)
    smallest = np.full(matrix.shape[0], np.nan)
    filled = lengths > 0
    if not filled.any():
        return np.empty(0), smallest, np.empty(0, bool)
    smallest[filled] = np.minimum.reduceat(matrix.data, matrix.indptr[:-1][filled])
    whole, units, is_odd = np.empty(matrix.nnz), smallest.copy(), np.ones(matrix.nnz, bool)
    left = filled.copy()
    for divisor in DIVISORS:
        values = np.flatnonzero(left[row])
        if not len(values):
            break
        found, unit = _in_units(matrix.data[values], row[values], smallest / divisor)
        with np.errstate(invalid="ignore", over="ignore"):
            odd = ~(np.abs(matrix.data[values] / unit[row[values]] - found) <= WHOLE)
        failed = np.zeros(matrix.shape[0], bool)
        failed[row[values][odd]] = True
        if divisor == 1:
            whole[values], is_odd[values], units[left] = found, odd, unit[left]
        else:
            others = np.bincount(row[values], found % divisor != 0, matrix.shape[0])  # what a larger unit does not fit
            failed |= left & (others < np.maximum(np.minimum(lengths // 3, 2), np.maximum(1, RARE * lengths)))
            fits = ~failed[row[values]]
            whole[values[fits]], is_odd[values[fits]] = found[fits], False
            units[left & ~failed] = unit[left & ~failed]
        left &= failed
        if left.sum() > filled.sum() / 2:  # no such matrix: units above one molecule are rare
            break
    return whole, units, is_odd


def _in_units(values: np.ndarray, row: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest whole multiples, and the unit that fits all values of a row best, by least squares."""
    for _ in range(2):  # the first unit has the rounding error of one value, the second averages over all
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            whole = np.rint(values / unit[row])
            cross = np.bincount(row, values * whole, len(unit))
            squares = np.bincount(row, whole**2, len(unit))
            unit = np.where(squares > 0, cross / squares, unit)
    return whole, unit


def find_unit(sample: sparse.csr_matrix) -> Unit | None:
    """How the profiles of a sample come from whole numbers, or from equal sums; None where neither fits."""
    if not sample.nnz:
        return None
    floor = _floor(sample)
    tried: list[tuple[float | None, float | None]] = [(None, None)] if floor is None else []
    tried += [(base, 1.0 if floor is None else base**floor) for base in BASES.values()]
    for base, pseudo_count in tried:
        if (found := _proven(sample, base, pseudo_count)) is not None:
            return found
    if floor is None:
        other = _other_base(sample)
        if other is not None and (found := _proven(sample, other, 1.0)) is not None:
            return found
    for base, pseudo_count in tried:
        if (found := _equal(sample, base, pseudo_count)) is not None:
            return found
    return None


def counts_of(matrix: sparse.csr_matrix, unit: Unit) -> tuple[sparse.csr_matrix | None, np.ndarray, int]:
    """Counts behind all values of a matrix, float32, or None; the unit of each profile, NaN for empty ones; and the
    number of values that are no whole multiples.

    Parameters
    ----------
    matrix
        (n_profiles, n_genes) canonical values.
    unit
        What a sample of them was found to come from, by `find_unit`.
    """
    before = linear(matrix, unit.base, unit.pseudo_count)
    if unit.factor is not None:
        multiples = before.data / unit.factor
        whole = np.rint(multiples)
        is_odd = ~(np.abs(multiples - whole) <= WHOLE)
        units = np.where(np.diff(before.indptr) > 0, unit.factor, np.nan)
    else:
        whole, units, is_odd = whole_multiples(before)
    n_odd = int(is_odd.sum() + (before.data < 0).sum())
    if n_odd:
        return None, units, n_odd
    counts = sparse.csr_matrix((whole.astype(np.float32), before.indices, before.indptr), shape=before.shape)
    counts.eliminate_zeros()
    return counts, units, 0


def _proven(sample: sparse.csr_matrix, base: float | None, pseudo_count: float | None) -> Unit | None:
    before = linear(sample, base, pseudo_count)
    if (before.data < 0).any() or not np.isfinite(before.data).all():
        return None
    whole, units, is_odd = whole_multiples(before)
    if is_odd.any() or (whole > 1).sum() < LEAST:
        return None
    known = units[~np.isnan(units)]
    factor = float(np.median(known))
    is_common = len(known) > 1 and bool((np.abs(known / factor - 1) < COMMON).all())
    if base is None and not is_common and abs(factor - 1) < COMMON:
        return None  # counts, of which a few were changed: half a molecule is no unit
    return Unit(base, pseudo_count, _sum(before), factor if is_common else None, True)


def _equal(sample: sparse.csr_matrix, base: float | None, pseudo_count: float | None) -> Unit | None:
    """Unit of which only the sum is known."""
    target = _sum(linear(sample, base, pseudo_count))
    return None if target is None else Unit(base, pseudo_count, target, None, False)


def _sum(matrix: sparse.csr_matrix) -> float | None:
    """Sum of every profile that has values, if it is the same for all; None for fewer than three profiles."""
    with np.errstate(over="ignore"):  # values that are no logarithms
        sums = np.asarray(matrix.sum(1), dtype=np.float64).ravel()[np.diff(matrix.indptr) > 1]
    if len(sums) < 3 or not np.isfinite(sums).all():
        return None
    middle = float(np.median(sums))
    return middle if middle > 0 and (np.abs(sums / middle - 1) < EQUAL).all() else None


def _floor(sample: sparse.csr_matrix) -> float | None:
    """The smallest value, if many values are it and none is zero: the logarithm of a pseudo-count other than 1."""
    if sample.nnz < sample.shape[0] * sample.shape[1]:
        return None
    lowest = float(sample.data.min())
    return lowest if np.mean(sample.data == lowest) > FLOOR_SHARE else None


def _other_base(sample: sparse.csr_matrix) -> float | None:
    """Base under which the two smallest values of a typical profile are one and two units; None if there is none."""
    found = []
    for start, stop in zip(sample.indptr[:-1], sample.indptr[1:], strict=True):
        values = np.unique(sample.data[start:stop])
        values = values[np.diff(values, prepend=-np.inf) > COMMON * np.abs(values)]
        if len(values) > 2 and 0 < values[0] < values[1] < 2 * values[0]:
            one, two = float(values[0]), float(values[1])
            found.append(_ratio_two(one, two))
        if len(found) == TRIED:
            break
    known = [rate for rate in found if rate is not None]
    return float(np.exp(np.median(known))) if known else None


def _ratio_two(one: float, two: float) -> float | None:
    """The rate r with expm1(r two) = 2 expm1(r one), which is the logarithm of the base; None outside 1.01 to 1e9."""

    def excess(rate: float) -> float:
        return math.expm1(rate * two) / math.expm1(rate * one) - 2

    from scipy.optimize import brentq  # slow to load

    low, high = 0.01, min(20.0, 500 / two)
    if low >= high or excess(low) * excess(high) > 0:
        return None
    return float(brentq(excess, low, high, xtol=1e-14, rtol=1e-14))
