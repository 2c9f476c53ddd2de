"""Neighbours: the scores of similar training profiles, towards which posterior scores are drawn."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geneae.models.depths import DELTAS
from geneae.models.posterior import Scored

LEAST, MOST, SHARE = 15, 30, 50  # neighbours: one in 50 training profiles, within these limits
MOST_REFERENCE = 8192  # training profiles kept as reference; more make a model large and slow, not better
MOST_PULL = 0.9  # largest share of the way to the mean of the neighbours
CHUNK_DISTANCES = 2**22  # distances in memory at a time


@dataclass(frozen=True)
class Neighbours:
    """Training profiles as a reference, and how far scores are drawn to the nearest of them."""

    reference: Tensor
    """(n_reference, rank) float32 raw scores of training profiles: means over both halves."""
    factors: Tensor
    """(rank,) float32 factors of complete profiles, which turn raw scores into positions."""
    pull: Tensor
    """(n_depths,) float32 share of the way from a profile to the mean of its neighbours, in the order of `DELTAS`."""
    number: int
    """Neighbours of each profile."""

    def drawn(self, scores: Tensor, weights: Tensor) -> Tensor:
        """(n_profiles, rank) scores, moved towards the mean raw score of the nearest training profiles.

        Parameters
        ----------
        scores
            (n_profiles, rank) posterior scores.
        weights
            `depth_weights` of their depth.
        """
        pull = float(weights @ self.pull)
        return scores + pull * (self.means(scores) - scores) if pull else scores

    def means(self, scores: Tensor) -> Tensor:
        """(n_profiles, rank) mean raw score of the nearest training profiles."""
        return mean_of_nearest(scores, self.reference, self.factors, self.number)


def mean_of_nearest(scores: Tensor, reference: Tensor, factors: Tensor, number: int) -> Tensor:
    """(n_profiles, rank) mean of the `number` rows of `reference` whose products with `factors` are nearest.

    Distances are exact in float64, so that the result does not depend on the profiles that are computed together.
    """
    positions = (reference * factors).double()
    squared = positions.square().sum(1)
    parts = []
    for some in scores.split(max(1, CHUNK_DISTANCES // max(1, len(reference)))):
        distances = torch.addmm(squared[None], some.double(), positions.T, alpha=-2)
        nearest = distances.topk(min(number, len(reference)), dim=1, largest=False, sorted=False).indices
        parts.append(reference[nearest.sort(1).values].mean(1).to(scores.dtype))
    return torch.cat(parts) if parts else scores


def number_of_neighbours(n_profiles: int) -> int:
    """Neighbours for a number of training profiles."""
    return int(np.clip(n_profiles // SHARE, LEAST, MOST))


def fit_neighbours(
    raw: Tensor, factors: Tensor, scored: list[Scored], raw_by_fold: list[Tensor], fold: np.ndarray, seed: int
) -> tuple[Neighbours, list[Scored]]:
    """The reference, and the share of the way to the neighbours that predicts other halves best, at each depth.

    Parameters
    ----------
    raw
        (n_profiles, rank) raw scores of training profiles, means over both halves.
    factors
        (rank,) factors of complete profiles.
    scored
        Scores of the items, which may be of some of the profiles.
    raw_by_fold
        For each fold, raw scores of the profiles outside it, in the basis without it.
    fold
        (n_scored,) fold of the profiles of the items.
    seed
        Seed of the choice of the reference.

    Returns
    -------
    The neighbours, and the items with their scores moved, by neighbours from other folds only.
    """
    number = number_of_neighbours(len(raw))
    generator = np.random.default_rng(seed)

    def chosen(rows: Tensor) -> Tensor:
        if len(rows) <= MOST_REFERENCE:
            return rows
        return rows[torch.from_numpy(np.sort(generator.choice(len(rows), MOST_REFERENCE, replace=False)))]

    references = [chosen(rows) for rows in raw_by_fold]
    means = []
    for some in scored:
        mean = torch.empty_like(some.expected)
        for index, reference in enumerate(references):
            own = torch.from_numpy(np.flatnonzero(fold == index))
            mean[own] = mean_of_nearest(some.expected[own], reference, factors, number)
        means.append(mean)
    pull = []
    for share in range(len(DELTAS) - 1):
        common = square = 0.0
        for some, mean in zip(scored, means, strict=True):
            if some.item.share == share:
                step = (mean - some.expected).double()
                weight = some.weight[:, None]
                common += float((weight * step * (some.targets - some.expected)).sum())
                square += float((weight * step.square()).sum())
        pull.append(float(np.clip(common / square, 0, MOST_PULL)) if square else 0.0)
    # a complete profile knows itself twice as well, and is drawn half as far in terms of its own weight
    complete = pull[0] / (pull[0] + 2 * (1 - pull[0])) if pull[0] else 0.0
    found = Neighbours(chosen(raw), factors, torch.tensor([complete, *pull], dtype=torch.float32), number)
    moved = [
        Scored(
            some.item, some.depth_scores, some.expected + pull[some.item.share] * (mean - some.expected), some.targets
        )
        for some, mean in zip(scored, means, strict=True)
    ]
    return found, moved
