"""Mini-batches of two views of the same profiles, alone or together with pairs for reconstruction."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geneae.data.augment import Viewer
from geneae.data.preprocess import Expression
from geneae.losses.sparse_rows import SparseRows, sparse_rows
from geneae.models.network import Network
from geneae.training.batches import Batch, Pairs, PairSource

VIEW_STREAM, VALIDATION_VIEW_STREAM = 2, 3  # give views other random numbers than count splits of the same seed
LEAST = 16  # profiles in a last mini-batch: in smaller ones, BatchNorm drives single profiles apart


@dataclass(frozen=True)
class TwoViews:
    """Two views of the same profiles."""

    first: SparseRows
    """First view of each profile."""
    second: SparseRows
    """Second view of each profile, in the same order."""

    @property
    def inputs(self) -> SparseRows:
        """First views, as input of an encoder."""
        return self.first

    def to(self, device: torch.device | str) -> "TwoViews":
        """The same views on another device."""
        return TwoViews(self.first.to(device), self.second.to(device))


@dataclass(frozen=True)
class JointBatch:
    """Two views of some profiles, and the same profiles for reconstruction."""

    views: TwoViews
    """Views that are to agree."""
    pairs: Batch
    """Profiles to be reconstructed."""

    @property
    def inputs(self) -> Tensor | SparseRows:
        """Inputs of the reconstruction."""
        return self.pairs.inputs

    def to(self, device: torch.device | str) -> "JointBatch":
        """The same mini-batch on another device."""
        return JointBatch(self.views.to(device), self.pairs.to(device))


def draw_views(viewer: Viewer, expression: Expression, rng: np.random.Generator, transpose: bool) -> TwoViews:
    """Two views of every profile; `transpose` also stores them by gene, for the gradient of a gene-sized matrix."""
    first, second = (sparse_rows(viewer.draw(expression, rng), transpose) for _ in range(2))
    return TwoViews(first, second)


class ViewPairs:
    """Two new views of every profile for one epoch.

    The seed and the first profile of a mini-batch, which no other mini-batch of the epoch contains, determine its
    views: an epoch that resumes in the middle has the same ones.
    """

    def __init__(
        self, network: Network, expression: Expression, viewer: Viewer, batch_size: int, seed: tuple[int, ...]
    ) -> None:
        self.n_profiles = expression.n_profiles
        self._expression = expression
        self._viewer = viewer
        self._transpose = network.is_free
        self._seed = seed
        self._n_rest = expression.n_profiles % batch_size

    def order(self, generator: torch.Generator) -> Tensor:
        """Profiles in random order, without a last mini-batch that is too small for a loss of agreement."""
        profiles = torch.randperm(self._expression.n_profiles, generator=generator)
        return full_batches(profiles, self._n_rest)

    def take(self, index: Tensor, progress: float = 1.0) -> TwoViews:
        """Two views of some profiles: the same for the same profiles in the same order, whatever the progress."""
        rng = np.random.default_rng((*self._seed, int(index[0])))
        return draw_views(self._viewer, self._expression.take(index.numpy()), rng, self._transpose)


def full_batches(order: Tensor, n_rest: int) -> Tensor:
    """The order without its last `n_rest` profiles, if their mini-batch is too small and not the only one."""
    is_left_out = 0 < n_rest < LEAST and len(order) > n_rest
    return order[: len(order) - n_rest] if is_left_out else order


class ViewSource:
    """Views of every epoch, drawn anew each time."""

    def __init__(self, network: Network, expression: Expression, viewer: Viewer, batch_size: int, seed: int) -> None:
        self._of = (network, expression, viewer, batch_size)
        self._seed = seed

    def epoch(self, epoch: int) -> ViewPairs:
        """Views of an epoch, counted from 1."""
        return ViewPairs(*self._of, (self._seed, VIEW_STREAM, epoch))


class JointPairs:
    """Views and reconstruction pairs of the same profiles."""

    def __init__(self, views: ViewPairs, pairs: Pairs) -> None:
        self.n_profiles = pairs.n_profiles
        self._views = views
        self._pairs = pairs

    def order(self, generator: torch.Generator) -> Tensor:
        """Indices of reconstruction pairs in random order, as many as the views of an epoch."""
        kept = len(self._views.order(torch.Generator()))
        return self._pairs.order(generator)[:kept]

    def take(self, index: Tensor, progress: float = 1.0) -> JointBatch:
        """Views, and inputs and targets, of the profiles of some pairs."""
        return JointBatch(self._views.take(index % self._pairs.n_profiles), self._pairs.take(index, progress))


class JointSource:
    """Views and reconstruction pairs of every epoch."""

    def __init__(self, views: ViewSource, pairs: PairSource) -> None:
        self._views = views
        self._pairs = pairs

    def epoch(self, epoch: int) -> JointPairs:
        """Views and reconstruction pairs of an epoch, counted from 1."""
        return JointPairs(self._views.epoch(epoch), self._pairs.epoch(epoch))


def validation_views(viewer: Viewer, expression: Expression, batch_size: int, seed: int) -> list[TwoViews]:
    """Two views of the validation profiles in mini-batches, the same for every epoch."""
    rng = np.random.default_rng((seed, VALIDATION_VIEW_STREAM))
    n_batches = -(-expression.n_profiles // batch_size)
    return [
        draw_views(viewer, expression.take(rows), rng, transpose=False)
        for rows in np.array_split(np.arange(expression.n_profiles), n_batches)
    ]
