"""The same profiles with nothing left to learn in them: what a fit gives on them, it gives without any signal."""

import numpy as np
from scipy import sparse

from geneae.data.preprocess import Expression

GENE_PERMUTED, PAIR_PERMUTED = "gene_permuted", "pair_permuted"
NULLS = {
    GENE_PERMUTED: "genes permuted in each profile",
    PAIR_PERMUTED: "targets permuted between profiles",
}
"""Titles by name. Gene-permuted: every profile keeps its values, each at another gene of the model, drawn anew for each
profile, so that no two profiles share anything but their depth. Pair-permuted: a profile is to be predicted from
another one, so that targets are distributed as they were and inputs say nothing of them."""
NULL_STREAM = 11  # keeps these permutations apart from other random numbers of the same seed


def permute_genes(expression: Expression, seed: int) -> Expression:
    """The values of every profile at random genes, each profile by a permutation of its own; totals stay."""
    rng = np.random.default_rng((seed, NULL_STREAM))
    matrix = expression.rows
    parts = [rng.choice(matrix.shape[1], size, replace=False) for size in np.diff(matrix.indptr)]
    indices = np.concatenate([*parts, np.empty(0)]).astype(matrix.indices.dtype)
    permuted = sparse.csr_matrix((matrix.data.copy(), indices, matrix.indptr), shape=matrix.shape)
    permuted.sort_indices()
    return Expression(permuted, expression.totals)


def partners(split: np.ndarray, seed: int) -> np.ndarray:
    """(n_profiles,) position of the profile whose target each is given, from the same split.

    The profiles of a split form one random cycle, so that none keeps its own target; one alone has to.
    """
    rng = np.random.default_rng((seed, NULL_STREAM))
    found = np.arange(len(split))
    for name in np.unique(split):
        cycle = rng.permutation(np.flatnonzero(split == name))
        found[cycle] = np.roll(cycle, -1)
    return found


def among(partner: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    """Partners of some profiles as positions among these; None without partners.

    Parameters
    ----------
    partner
        (n_profiles,) what `partners` gives.
    rows
        Positions in increasing order; partners of these are among them.
    """
    return None if partner is None else np.searchsorted(rows, partner[rows])
