"""The same profiles with nothing left to learn in them: what a fit gives on them, it gives without any signal."""

from functools import lru_cache
from typing import final

import numpy as np
from scipy import sparse

from geneae.network import Network
from geneae.pairs import CACHE_BYTES, TRAINING_STREAM, Pairs, PairSource, draw_blocks
from geneae.preprocess import Expression, Preprocess
from geneae.views import Splitter

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
    matrix = expression.matrix
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


def mismatch(blocks: list[sparse.csr_matrix], partner: np.ndarray | None) -> list[sparse.csr_matrix]:
    """Two blocks whose rows belong together, of which the second belongs to the partners; all as it is without any.

    Parameters
    ----------
    blocks
        The profiles, or their two halves.
    partner
        (n_profiles,) row by row.
    """
    return blocks if partner is None else [blocks[0], blocks[-1][partner]]


@final
class MismatchedSource(PairSource):
    """Pairs of every epoch, on the count splits of `PairSource`, with targets of the partners."""

    def __init__(
        self,
        network: Network,
        expression: Expression,
        preprocess: Preprocess,
        is_split: bool,
        n_splits: int,
        seed: int,
        partner: np.ndarray,
    ) -> None:
        super().__init__(network, expression, preprocess, is_split, n_splits, seed)
        splitter = Splitter(expression.matrix) if is_split else None

        def draw(split: int) -> Pairs:
            blocks = draw_blocks(expression, preprocess, splitter, (seed, TRAINING_STREAM, split))
            return Pairs(network, mismatch(blocks, partner))

        bytes_each = 8 * expression.n_profiles * len(network.deviation)  # a free basis keeps the profiles: too much
        self._mismatched = lru_cache(maxsize=1 if network.is_free else max(1, CACHE_BYTES // bytes_each))(draw)

    def epoch(self, epoch: int) -> Pairs:
        """Pairs of an epoch, counted from 1."""
        return self._mismatched((epoch - 1) % self.n_splits)
