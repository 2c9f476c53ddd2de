"""Views: randomly altered copies of profiles, to which an encoder should give similar latents."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from geneae.data.count_split import halves, join_parts, with_own_totals, without_zeros
from geneae.data.preprocess import Expression, Preprocess
from geneae.data.states import STATES
from geneae.settings.errors import InputError, unknown

SHARES = (0.5, 0.3, 0.15, 0.07, 0.04)
"""Shares of all molecules to which inputs are thinned; the first one is a plain half."""
WEIGHTS = (3.0, 1.0, 1.0, 1.0, 1.0)
"""Weight of each share in every fit over depths: most profiles that a model meets are as deep as its own."""


def thin(expression: Expression, least: float, rng: np.random.Generator) -> tuple[Expression, np.ndarray]:
    """Keep each molecule with a probability drawn for every profile from `least` to 1; and these probabilities.

    This simulates shallower sequencing of the same profile. The totals shrink by the same factor, so that the expected
    normalised values stay nearly the same.
    """
    kept = rng.uniform(least, 1.0, expression.n_profiles)
    counts = expression.rows
    by_value = np.repeat(kept, np.diff(counts.indptr))
    values = (rng.random(counts.nnz) < by_value).astype(counts.dtype)  # correct for counts of 1, the large majority
    several = np.flatnonzero(counts.data > 1)
    values[several] = rng.binomial(counts.data[several].astype(np.int64), by_value[several])
    return Expression(_with_data(counts, values), expression.totals * kept), kept


def thin_half(half: Expression, least: float, rng: np.random.Generator) -> tuple[Expression, np.ndarray]:
    """Thin halves of profiles to random ones of `SHARES`, by their `WEIGHTS`; and the shares relative to the halves.

    Shares below `least` are not drawn; a plain half always is.
    """
    chosen = [number for number, share in enumerate(SHARES) if share >= least or not number]
    weights = np.array(WEIGHTS)[chosen]
    kept = rng.choice(np.array(SHARES)[chosen], half.n_profiles, p=weights / weights.sum()) / SHARES[0]
    return thin_to(half, kept, rng), kept


def thin_to(expression: Expression, share: float | np.ndarray, rng: np.random.Generator) -> Expression:
    """Keep each molecule with the probability `share`, the same for all profiles or one for each; totals are the
    molecules that were kept.

    Molecules of genes that are not in the matrix are thinned, too.
    """
    counts = expression.rows
    by_profile = np.broadcast_to(share, expression.n_profiles)
    by_value = np.repeat(by_profile, np.diff(counts.indptr))
    values = (rng.random(counts.nnz) < by_value).astype(counts.dtype)  # correct for counts of 1, the large majority
    several = np.flatnonzero(counts.data > 1)
    values[several] = rng.binomial(counts.data[several].astype(np.int64), by_value[several])
    kept = _with_data(counts, values)
    inside, before = (np.asarray(matrix.sum(1), dtype=np.float64).ravel() for matrix in (kept, counts))
    outside = np.maximum(np.rint(expression.totals - before), 0).astype(np.int64)
    return replace(expression, matrix=kept, totals=inside + rng.binomial(outside, share))


def mask(matrix: sparse.csr_matrix, share: float, rng: np.random.Generator, deviation: np.ndarray) -> sparse.csr_matrix:
    """Set each gene of each profile to zero with probability `share`."""
    return _with_data(matrix, np.where(rng.random(matrix.nnz) < share, 0, matrix.data))


def add_noise(
    matrix: sparse.csr_matrix, size: float, rng: np.random.Generator, deviation: np.ndarray
) -> sparse.csr_matrix:
    """Add Gaussian noise of `size` standard deviations of the gene to non-zero values; no value changes its sign.

    A value whose sign would change becomes zero. Zeros stay zero, so that masked values stay masked and sparse
    profiles stay sparse.
    """
    noisy = matrix.data + size * deviation[matrix.indices] * rng.standard_normal(matrix.nnz)
    return _with_data(matrix, np.where(noisy * matrix.data > 0, noisy, 0))


def cross_over(
    matrix: sparse.csr_matrix, share: float, rng: np.random.Generator, deviation: np.ndarray
) -> sparse.csr_matrix:
    """Take each gene of each profile with probability `share` from a partner, one other profile for all of its genes.

    The profiles form one random cycle, so that with two or more profiles none is its own partner.
    """
    cycle = rng.permutation(matrix.shape[0])
    partner = np.empty_like(cycle)
    partner[cycle] = np.roll(cycle, 1)
    own, other = matrix.tocoo(), matrix[partner].tocoo()
    rows, genes = (np.concatenate([getattr(own, name), getattr(other, name)]) for name in ("row", "col"))
    is_taken = _coins(rows, genes, matrix.shape[1], share, rng)
    kept = np.concatenate([~is_taken[: own.nnz], is_taken[own.nnz :]])
    values = np.concatenate([own.data, other.data])
    return _sorted_csr(values[kept], rows[kept], genes[kept], matrix)


def swap(matrix: sparse.csr_matrix, share: float, rng: np.random.Generator, deviation: np.ndarray) -> sparse.csr_matrix:
    """Exchange values between pairs of genes; each pair of each profile is exchanged with probability `share`.

    Every call draws new pairs, and each gene is in at most one pair, so that a profile keeps its values and only their
    genes change. If the number of genes is odd, one gene has no partner and keeps its value.
    """
    order = rng.permutation(matrix.shape[1])
    partner = np.arange(matrix.shape[1])
    first, second = order[: len(order) // 2], order[len(order) // 2 : 2 * (len(order) // 2)]
    partner[first], partner[second] = second, first
    found = matrix.tocoo()
    pairs = np.minimum(found.col, partner[found.col])
    is_swapped = _coins(found.row, pairs, matrix.shape[1], share, rng)
    genes = np.where(is_swapped, partner[found.col], found.col)
    return _sorted_csr(found.data, found.row, genes, matrix)


def _coins(rows: np.ndarray, columns: np.ndarray, n_columns: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Random booleans, True with probability `share`; entries at the same row and column get the same value."""
    places, of = np.unique(rows.astype(np.int64) * n_columns + columns, return_inverse=True)
    coins: np.ndarray = (rng.random(len(places)) < share)[of]
    return coins


def _with_data(matrix: sparse.csr_matrix, values: np.ndarray) -> sparse.csr_matrix:
    """Copy of a sparse matrix with new values; entries that became zero are removed."""
    part = without_zeros(values.astype(matrix.dtype), matrix.indices, matrix.indptr)
    return join_parts([part], matrix)


def _sorted_csr(values: np.ndarray, rows: np.ndarray, genes: np.ndarray, like: sparse.csr_matrix) -> sparse.csr_matrix:
    found = sparse.csr_matrix((values, (rows, genes)), shape=like.shape, dtype=like.dtype)
    found.sort_indices()
    return found


@dataclass(frozen=True)
class ViewKind:
    """One kind of random alteration of a profile."""

    amount: float
    """Default amount."""
    change: Callable[[sparse.csr_matrix, float, np.random.Generator, np.ndarray], sparse.csr_matrix] | None = None
    """Function of normalised profiles, amount, random generator and standard deviations of the genes; None for views
    that act on counts."""
    most: float = 1.0
    """Largest amount allowed."""
    thinned: Callable[[Expression, float, np.random.Generator], tuple[Expression, np.ndarray]] | None = None
    """Function of counts, amount and random generator; it also returns the share of its molecules that each profile
    keeps. None for views that act on normalised profiles."""
    of_halves: bool = False
    """Whether it acts on halves, so that no molecule of a profile is in both of its views."""


AUTO = "auto"

# keys are plain strings, because geneae.settings.families reads them from this text
VIEWS = {
    "thin": ViewKind(0.3, thinned=thin),
    "depths": ViewKind(0.04, most=0.5, thinned=thin_half, of_halves=True),
    "mask": ViewKind(0.3, mask),
    "noise": ViewKind(0.2, add_noise, math.inf),
    "crossover": ViewKind(0.25, cross_over),
    "swap": ViewKind(0.1, swap),
}


def parse_views(text: str, state: str, knows_depth: bool = False) -> list[tuple[str, float]]:
    """Names and amounts in a text such as `thin+mask:0.5`, in order; `auto` is `depths` for an encoder that reads every
    view at its depth, `thin` for other counts, and `mask` for other values.

    Parameters
    ----------
    text
        Names in `VIEWS` joined by `+`, each optionally with its amount.
    state
        State of the profiles (`Profiles.state`); only counts can be thinned.
    knows_depth
        Whether the encoder reads posterior scores.
    """
    if text == AUTO:
        of_counts = "depths" if knows_depth else "thin"
        text = of_counts if state == "counts" else "mask"
    chain = []
    for part in text.split("+"):
        name, _, given = part.strip().partition(":")
        if name not in VIEWS:
            raise unknown("view", name, (AUTO, *VIEWS))
        kind = VIEWS[name]
        try:
            amount = float(given) if given else kind.amount
        except ValueError:
            amount = math.nan
        if not 0 <= amount <= kind.most:
            raise InputError(
                f"the amount of view {name} must be a number from 0 to {kind.most:g}; found '{given}'. "
                f"Write for example {name}:{kind.amount:g}."
            )
        chain.append((name, amount))
    thinning = [name for name, _ in chain if VIEWS[name].thinned is not None]
    if thinning and state != "counts":
        raise InputError(
            f"view {thinning[0]} takes molecules away and needs counts; these are {STATES[state].noun}. "
            "Use --views mask, or choose the counts with --layer."
        )
    return chain


@dataclass(frozen=True, eq=False)
class View:
    """A view of some profiles."""

    matrix: sparse.csr_matrix
    """(n_profiles, n_genes) normalised values."""
    totals: np.ndarray
    """(n_profiles,) molecules that were kept."""
    shares: np.ndarray
    """(n_profiles,) share of all molecules of the profile to which it was thinned, 0 to 1."""


class Viewer:
    """Draws views of profiles: first thinning of counts, then normalisation, then the other views in their order."""

    def __init__(self, chain: list[tuple[str, float]], preprocess: Preprocess, deviation: np.ndarray) -> None:
        """Names and amounts of the views; the normalisation; (n_genes,) standard deviations of normalised values."""
        self._chain = chain
        self._preprocess = preprocess
        self._deviation = deviation

    def draw(self, expression: Expression, rng: np.random.Generator) -> tuple[View, View]:
        """Two views of each profile; the input is not changed."""
        if not any(VIEWS[name].of_halves for name, _ in self._chain):
            return self._view(expression, 1.0, rng), self._view(expression, 1.0, rng)
        first, second = with_own_totals(halves(expression, rng))
        return self._view(first, SHARES[0], rng), self._view(second, SHARES[0], rng)

    def _view(self, expression: Expression, share: float, rng: np.random.Generator) -> View:
        """View of expressions that are this share of all molecules already."""
        shares = np.full(expression.n_profiles, share)
        for name, amount in self._chain:
            thinned = VIEWS[name].thinned
            if thinned is not None:
                expression, kept = thinned(expression, amount, rng)
                shares = shares * kept
        matrix = self._preprocess.apply(expression)
        for name, amount in self._chain:
            change = VIEWS[name].change
            if change is not None:
                matrix = change(matrix, amount, rng, self._deviation)
        return View(matrix, expression.totals, shares)
