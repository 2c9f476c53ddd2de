"""Depths: profiles thinned to several shares of their molecules, and numbers that depend on depth."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from geneae.data.augment import SHARES, WEIGHTS
from geneae.models.whitening import Whitened, floored

DELTAS = tuple(math.log(SHARES[0] / share) for share in (1.0, *SHARES))
"""Depths at which numbers are known: log(molecules of a half / molecules of the input); first, complete profiles."""
COMPLETE = DELTAS[0]
"""Depth of complete training profiles."""
MIN_MOLECULES = 8  # items with fewer molecules take no part; they would only say how often nothing is seen
MAX_DEPTH_SCORE = 3.0  # limit of a standardised log total
SPREAD_FLOOR = 0.05  # added to the deviation of log totals, which may all be equal


def depth_weights(delta: float) -> Tensor:
    """(n_depths,) float32 weights with which values at `DELTAS` are interpolated; constant outside their range."""
    at = float(np.clip(delta, DELTAS[0], DELTAS[-1]))
    return torch.tensor(
        [np.interp(at, DELTAS, one) for one in np.eye(len(DELTAS))],
        dtype=torch.float32,
    )


def enough(totals: np.ndarray) -> np.ndarray:
    """(n_profiles,) whether halves have 8 molecules or more; all, if none has.

    Empty droplets among training profiles would else decide what a usual number of molecules is.
    """
    known: np.ndarray = totals >= MIN_MOLECULES
    return known if known.any() else np.ones_like(known)


@dataclass(frozen=True)
class DepthScale:
    """Mean and deviation of the log totals of halves: the unit in which a profile is deep or shallow for its set."""

    mean: float
    """Mean log molecules of a half of a training profile."""
    deviation: float
    """Deviation of these."""

    def scores(self, totals: np.ndarray, delta: float) -> np.ndarray:
        """(n_profiles,) float32 standardised log totals, as they would be at the depth of a half; within -3 and 3.

        Parameters
        ----------
        totals
            (n_profiles,) molecules.
        delta
            Depth of the set of profiles.
        """
        logs = np.log(np.maximum(totals, 1.0)) + delta
        scores: np.ndarray = ((logs - self.mean) / self.deviation).clip(-MAX_DEPTH_SCORE, MAX_DEPTH_SCORE)
        return scores.astype(np.float32)


def depth_scale(totals: np.ndarray) -> DepthScale:
    """Scale of the (n_profiles,) totals of halves; those with too few molecules take no part, see `enough`."""
    logs = np.log(np.maximum(totals[enough(totals)], 1.0))
    return DepthScale(float(logs.mean()), float(logs.std()) + SPREAD_FLOOR)


@dataclass(frozen=True, eq=False)
class Item:
    """Thinned halves of training profiles as inputs, and the untouched other halves as targets."""

    inputs: sparse.csr_matrix
    """(n_profiles, n_genes) normalised inputs."""
    targets: sparse.csr_matrix
    """(n_profiles, n_genes) normalised other halves."""
    totals: np.ndarray
    """(n_profiles,) molecules of the inputs."""
    share: int
    """Position of their share in `SHARES`."""

    @property
    def delta(self) -> float:
        """Depth of the inputs."""
        return DELTAS[self.share + 1]

    @cached_property
    def weight(self) -> np.ndarray:
        """(n_profiles,) float32 weights in fits over depths; 0 for inputs with too few molecules."""
        weight = WEIGHTS[self.share] / (2 * sum(WEIGHTS))
        return np.where(self.totals < MIN_MOLECULES, 0.0, weight).astype(np.float32)


@dataclass(frozen=True)
class DepthCurves:
    """Means and noise of the genes of inputs at every depth, in the order of `DELTAS`."""

    means: Tensor
    """(n_depths, n_genes) float32 mean."""
    noises: Tensor
    """(n_depths, n_genes) float32 deviation of the noise, above 0."""
    slopes: Tensor
    """(n_depths, n_genes) float32 change of the input per change of a half: 1 at the depth of a half."""

    def at(self, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n_genes,) mean, noise deviation and slope at a depth given by `depth_weights`.

        Variances are interpolated, not deviations, like everything else that is a mean over profiles.
        """
        return weights @ self.means, (weights @ self.noises.square()).sqrt(), weights @ self.slopes


LEVEL = 0.02  # added to both means of a slope, which would be meaningless for genes that are hardly seen
SLOPE_RANGE = (0.02, 4.0)


def fit_curves(whitened: Whitened, items: list[Item], complete_mean: np.ndarray) -> DepthCurves:
    """Means and noise of genes at each depth, from the inputs of all items; noise from both halves of a profile.

    Parameters
    ----------
    whitened
        Mean and noise of a half, which are taken over for the first share and for complete profiles.
    items
        Items of the first and of the second halves of each count split, in turn, for each share.
    complete_mean
        (n_genes,) mean of complete training profiles.
    """
    own = whitened.whitening
    means, noises = [complete_mean, own.mean.numpy()], [own.deviation.numpy()] * 2
    for share in range(1, len(SHARES)):
        pair = [item for item in items if item.share == share]
        known = [item.weight > 0 for item in pair]
        n_known = max(1, sum(int(some.sum()) for some in known))
        by_gene = [
            np.asarray(item.inputs[some].sum(0, dtype=np.float64)).ravel()
            for item, some in zip(pair, known, strict=True)
        ]
        means.append(np.maximum(sum(by_gene) / n_known, 1e-4))
        noise, n_both = np.zeros(len(complete_mean)), 0
        for first, second in zip(pair[::2], pair[1::2], strict=True):  # both halves of a count split
            both = (first.weight > 0) & (second.weight > 0)
            difference = (first.inputs[both] - second.inputs[both]).power(2)
            noise += np.asarray(difference.sum(0, dtype=np.float64)).ravel() / 2
            n_both += int(both.sum())
        noise /= max(1, n_both)
        noises.append(np.sqrt(floored(noise)))
    of_half = own.mean.numpy()
    slopes = [np.clip((mean + LEVEL) / (of_half + LEVEL), *SLOPE_RANGE) for mean in means]
    return DepthCurves(*(torch.tensor(np.stack(rows), dtype=torch.float32) for rows in (means, noises, slopes)))
