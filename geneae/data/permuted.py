"""Permuted controls: profiles without anything to learn; scores that a fit reaches on them need no signal."""

import numpy as np
from scipy import sparse

from geneae.data.preprocess import Expression

GENE_PERMUTED, PAIR_PERMUTED = "gene_permuted", "pair_permuted"
NULLS = {
    GENE_PERMUTED: "genes permuted in each profile",
    PAIR_PERMUTED: "targets permuted between profiles",
}
"""Titles by name. Gene-permuted: every profile keeps its values, but at random genes of the model, drawn separately for
each profile, so that profiles share nothing but their depth. Pair-permuted: the target of a profile is another profile,
so that targets keep their distribution and inputs are not informative about them."""
NULL_STREAM = 11  # separates these permutations from other random numbers of the same seed


def permute_genes(expression: Expression, seed: int) -> Expression:
    """Profiles with their values at random genes, by a separate permutation for each profile; totals are kept."""
    rng = np.random.default_rng((seed, NULL_STREAM))
    matrix = expression.rows
    parts = [rng.choice(matrix.shape[1], size, replace=False) for size in np.diff(matrix.indptr)]
    indices = np.concatenate([*parts, np.empty(0)]).astype(matrix.indices.dtype)
    permuted = sparse.csr_matrix((matrix.data.copy(), indices, matrix.indptr), shape=matrix.shape)
    permuted.sort_indices()
    return Expression(permuted, expression.totals)


def partners(split: np.ndarray, seed: int) -> np.ndarray:
    """(n_profiles,) position of the profile, in the same split, whose target each profile is given.

    The profiles of a split form one random cycle, so that none keeps its own target, unless it is the only one.
    """
    rng = np.random.default_rng((seed, NULL_STREAM))
    found = np.arange(len(split))
    for name in np.unique(split):
        cycle = rng.permutation(np.flatnonzero(split == name))
        found[cycle] = np.roll(cycle, -1)
    return found


def among(partner: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    """Partners of selected profiles, as positions among the selected ones; None if `partner` is None.

    Parameters
    ----------
    partner
        (n_profiles,) result of `partners`, or None.
    rows
        Positions of the selected profiles in increasing order; they must include all of their partners.
    """
    return None if partner is None else np.searchsorted(rows, partner[rows])
