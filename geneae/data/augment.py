"""Randomly altered copies of profiles, which an encoder is to agree on."""

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

    What a shallower sequencing of the same profile would have seen, as counts are molecules. The totals shrink by the
    same share, so that the expectation of what is normalised stays near.
    """
    kept = rng.uniform(least, 1.0, expression.n_profiles)
    counts = expression.rows
    by_value = np.repeat(kept, np.diff(counts.indptr))
    values = (rng.random(counts.nnz) < by_value).astype(counts.dtype)  # right for single molecules, which most are
    several = np.flatnonzero(counts.data > 1)
    values[several] = rng.binomial(counts.data[several].astype(np.int64), by_value[several])
    return Expression(_with_data(counts, values), expression.totals * kept)


def mask(matrix: sparse.csr_matrix, share: float, rng: np.random.Generator, deviation: np.ndarray) -> sparse.csr_matrix:
    """Set each gene of each profile to zero with probability `share`."""
    return _with_data(matrix, np.where(rng.random(matrix.nnz) < share, 0, matrix.data))


def add_noise(
    matrix: sparse.csr_matrix, size: float, rng: np.random.Generator, deviation: np.ndarray
) -> sparse.csr_matrix:
    """Add Gaussian noise of `size` times the gene's deviation to what is not zero; no value changes its sign.

    A value that would is zero. Zeros stay, so that nothing that was masked comes back and sparse profiles stay sparse.
    """
    noisy = matrix.data + size * deviation[matrix.indices] * rng.standard_normal(matrix.nnz)
    return _with_data(matrix, np.where(noisy * matrix.data > 0, noisy, 0))


def cross_over(
    matrix: sparse.csr_matrix, share: float, rng: np.random.Generator, deviation: np.ndarray
) -> sparse.csr_matrix:
    """Take each gene of each profile with probability `share` from another profile, the same for all genes of it.

    The profiles form one random cycle, so that none is its own partner where there are two or more.
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
    """Exchange values between pairs of genes; each gene of each profile takes part with probability `share`, nearly.

    Every call pairs the genes anew and each gene once, so that a profile keeps its values, each at one gene. Of an odd
    number of genes one stays alone.
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
    """True with probability `share`; equal places have equal coins."""
    places, of = np.unique(rows.astype(np.int64) * n_columns + columns, return_inverse=True)
    coins: np.ndarray = (rng.random(len(places)) < share)[of]
    return coins


def _with_data(matrix: sparse.csr_matrix, values: np.ndarray) -> sparse.csr_matrix:
    """Other values, without those that are zero."""
    part = without_zeros(values.astype(matrix.dtype), matrix.indices, matrix.indptr)
    return join_parts([part], matrix)


def _sorted_csr(values: np.ndarray, rows: np.ndarray, genes: np.ndarray, like: sparse.csr_matrix) -> sparse.csr_matrix:
    found = sparse.csr_matrix((values, (rows, genes)), shape=like.shape, dtype=like.dtype)
    found.sort_indices()
    return found


@dataclass(frozen=True)
class ViewKind:
    """A way to alter a profile at random."""

    amount: float
    """How much, where the user does not say."""
    change: Callable[[sparse.csr_matrix, float, np.random.Generator, np.ndarray], sparse.csr_matrix] | None = None
    """Of normalised profiles, by amount, generator and the deviations of the genes; None for `thin`, which is of
    counts."""
    most: float = 1.0
    """Largest amount."""


THIN = "thin"


VIEWS = {
    "thin": ViewKind(0.3),
    "mask": ViewKind(0.3, mask),
    "noise": ViewKind(0.2, add_noise, math.inf),
    "crossover": ViewKind(0.25, cross_over),
    "swap": ViewKind(0.1, swap),
}


AUTO = "auto"


def parse_views(text: str, state: str) -> list[tuple[str, float]]:
    """Names and amounts of `thin+mask:0.5`, in that order; `auto` is `thin` for counts, else `mask`.

    Parameters
    ----------
    text
        Names in `VIEWS`, each with an amount or without, joined by `+`.
    state
        Of the profiles; only counts have molecules that can be thinned.
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
            "--views mask, or name the counts with --layer."
        )
    return chain


class Viewer:
    """Draws views of profiles: thinning of their counts first, then normalisation, then all others in their order."""

    def __init__(self, chain: list[tuple[str, float]], preprocess: Preprocess, deviation: np.ndarray) -> None:
        """Views by name and amount; how profiles are normalised; and (n_genes,) deviations after that."""
        self._chain = chain
        self._preprocess = preprocess
        self._deviation = deviation

    def draw(self, expression: Expression, rng: np.random.Generator) -> sparse.csr_matrix:
        """(n_profiles, n_genes) normalised view of each profile; what was given is not changed."""
        for name, amount in self._chain:
            if name == THIN:
                expression = thin(expression, amount, rng)
        view = self._preprocess.apply(expression)
        for name, amount in self._chain:
            change = VIEWS[name].change
            if change is not None:
                view = change(view, amount, rng, self._deviation)
        return view
