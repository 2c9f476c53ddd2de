"""Views: randomly altered copies of profiles, to which an encoder should give similar latents."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from geneae.data.count_split import join_parts, without_zeros
from geneae.data.preprocess import Expression, Preprocess
from geneae.settings.errors import InputError, unknown


def thin(expression: Expression, least: float, rng: np.random.Generator) -> Expression:
    """Keep each molecule with a probability drawn for every profile from `least` to 1.

    This simulates shallower sequencing of the same profile. The totals shrink by the same factor, so that the expected
    normalised values stay nearly the same.
    """
    kept = rng.uniform(least, 1.0, expression.n_profiles)
    counts = expression.rows
    by_value = np.repeat(kept, np.diff(counts.indptr))
    values = (rng.random(counts.nnz) < by_value).astype(counts.dtype)  # correct for counts of 1, the large majority
    several = np.flatnonzero(counts.data > 1)
    values[several] = rng.binomial(counts.data[several].astype(np.int64), by_value[several])
    return Expression(_with_data(counts, values), expression.totals * kept)


def thin_to(expression: Expression, share: float, rng: np.random.Generator) -> Expression:
    """Keep each molecule with the same probability `share`; totals are the molecules that were kept.

    Molecules of genes that are not in the matrix are thinned, too.
    """
    counts = expression.rows
    values = (rng.random(counts.nnz) < share).astype(counts.dtype)  # correct for counts of 1, the large majority
    several = np.flatnonzero(counts.data > 1)
    values[several] = rng.binomial(counts.data[several].astype(np.int64), share)
    kept = _with_data(counts, values)
    inside, before = (np.asarray(matrix.sum(1), dtype=np.float64).ravel() for matrix in (kept, counts))
    outside = np.maximum(np.rint(expression.totals - before), 0).astype(np.int64)
    return Expression(kept, inside + rng.binomial(outside, share))


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
    """Function of normalised profiles, amount, random generator and standard deviations of the genes; None for `thin`,
    which acts on counts."""
    most: float = 1.0
    """Largest amount allowed."""


THIN = "thin"
AUTO = "auto"

# keys are plain strings, because geneae.settings.families reads them from this text
VIEWS = {
    "thin": ViewKind(0.3),
    "mask": ViewKind(0.3, mask),
    "noise": ViewKind(0.2, add_noise, math.inf),
    "crossover": ViewKind(0.25, cross_over),
    "swap": ViewKind(0.1, swap),
}


def parse_views(text: str, state: str) -> list[tuple[str, float]]:
    """Names and amounts in a text such as `thin+mask:0.5`, in order; `auto` is `thin` for counts, otherwise `mask`.

    Parameters
    ----------
    text
        Names in `VIEWS` joined by `+`, each optionally with its amount.
    state
        State of the profiles (`Profiles.state`); only counts can be thinned.
    """
    if text == AUTO:
        text = THIN if state == "counts" else "mask"
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
    if any(name == THIN for name, _ in chain) and state != "counts":
        raise InputError(
            f"view {THIN} takes molecules away and needs counts; these are {state.replace('_', '-')} values. Use "
            "--views mask, or choose the counts with --layer."
        )
    return chain


class Viewer:
    """Draws views of profiles: first thinning of counts, then normalisation, then the other views in their order."""

    def __init__(self, chain: list[tuple[str, float]], preprocess: Preprocess, deviation: np.ndarray) -> None:
        """Names and amounts of the views; the normalisation; (n_genes,) standard deviations of normalised values."""
        self._chain = chain
        self._preprocess = preprocess
        self._deviation = deviation

    def draw(self, expression: Expression, rng: np.random.Generator) -> sparse.csr_matrix:
        """(n_profiles, n_genes) normalised view of each profile; the input is not changed."""
        for name, amount in self._chain:
            if name == THIN:
                expression = thin(expression, amount, rng)
        view = self._preprocess.apply(expression)
        for name, amount in self._chain:
            change = VIEWS[name].change
            if change is not None:
                view = change(view, amount, rng, self._deviation)
        return view
