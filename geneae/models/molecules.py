"""Molecules that profiles of a kind have in training: what tells shallow profiles from those of small cells."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geneae.models.depths import enough

PENALTY = 1.0
"""Ridge penalty in units of the mean variance of a score. Of .3, 1, 3, 10 and 30 it gave the best depths of sets of one
cell type on two data sets of four, and nearly the best on the others; 10 gives half of what can be gained."""
ROUNDS = 10  # most rounds of the fixed point
ENOUGH = 1e-3  # change of a depth at which they end


@dataclass(frozen=True, eq=False)
class TypicalMolecules:
    """Linear map from posterior scores to the log molecules of a half of training profiles with such scores."""

    weight: Tensor
    """(rank,) change per unit of each score; zeros if the molecules do not depend on the scores."""
    mean_score: Tensor
    """(rank,) mean score."""
    mean: float
    """Mean log molecules."""
    limits: tuple[float, float]
    """Smallest and largest log molecules of training profiles; nothing outside is predicted."""

    def logs(self, scores: Tensor) -> np.ndarray:
        """(n_profiles,) log molecules of a half, from (n_profiles, rank) posterior scores."""
        logs = self.mean + (scores.double() - self.mean_score.double()) @ self.weight.double()
        return np.asarray(logs.clamp(*self.limits).numpy())


def fit_molecules(scores: Tensor, totals: np.ndarray) -> TypicalMolecules:
    """Ridge regression of log molecules on posterior scores, over halves that have enough, see `depths.enough`.

    Parameters
    ----------
    scores
        (n_profiles, rank) posterior scores of halves of training profiles.
    totals
        (n_profiles,) molecules of these halves.
    """
    known = torch.from_numpy(enough(totals))
    scores, logs = scores[known], torch.from_numpy(np.log(np.maximum(totals, 1.0)))[known]
    mean_score, mean = scores.double().mean(0), logs.mean()
    around = scores.double() - mean_score
    gram = around.T @ around / len(logs)
    weight, size = torch.zeros_like(mean_score), float(gram.trace()) / len(gram)
    if size > 0:
        identity = torch.eye(len(gram), dtype=gram.dtype)
        weight = torch.linalg.solve(gram + PENALTY * size * identity, around.T @ (logs - mean) / len(logs))
    return TypicalMolecules(weight.float(), mean_score.float(), float(mean), (float(logs.min()), float(logs.max())))


@dataclass(frozen=True, eq=False)
class DepthOfSet:
    """Depth of a set of profiles."""

    delta: float
    """Mean log molecules of a half of training profiles like them, minus their own."""
    own: np.ndarray
    """(n_profiles,) the same of each profile."""


def depth_of_set(typical: TypicalMolecules, totals: np.ndarray, scores_at: Callable[[float], Tensor]) -> DepthOfSet:
    """Depth of a set of profiles: mean log molecules of training profiles like them, minus their own.

    What a profile is like depends on the depth at which it is read, so that the depth is a fixed point; the first
    estimate is that for profiles like the mean of training.

    Parameters
    ----------
    typical
        What training profiles have.
    totals
        (n_profiles,) molecules, above 0.
    scores_at
        Function that gives the posterior scores of the profiles, read at a depth.
    """
    logs = np.log(np.maximum(totals, 1.0))
    own = typical.mean - logs
    for _ in range(ROUNDS):
        delta = float(own.mean())
        own = typical.logs(scores_at(delta)) - logs
        if abs(float(own.mean()) - delta) < ENOUGH:
            break
    return DepthOfSet(float(own.mean()), own)
