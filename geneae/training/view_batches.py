"""Batches of two views of the same profiles, alone or beside pairs for reconstruction."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geneae.data.augment import Viewer
from geneae.data.preprocess import Expression
from geneae.losses.sparse_rows import SparseRows, sparse_rows
from geneae.models.network import Network
from geneae.training.batches import Batch, Pairs, PairSource

VIEW_STREAM, VALIDATION_VIEW_STREAM = 2, 3  # keep views apart from count splits of the same seed
LEAST = 16  # profiles of a last batch: in smaller ones BatchNorm drives single profiles apart


@dataclass(frozen=True)
class TwoViews:
    """Two views of the same profiles."""

    first: SparseRows
    """One of each profile."""
    second: SparseRows
    """The other, in the same order."""

    @property
    def inputs(self) -> SparseRows:
        """What an encoder reads, of one view."""
        return self.first

    def to(self, device: torch.device | str) -> "TwoViews":
        """The same elsewhere."""
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
        """What the network reads of the profiles that it reconstructs."""
        return self.pairs.inputs

    def to(self, device: torch.device | str) -> "JointBatch":
        """The same elsewhere."""
        return JointBatch(self.views.to(device), self.pairs.to(device))


def draw_views(viewer: Viewer, expression: Expression, rng: np.random.Generator, transpose: bool) -> TwoViews:
    """Two views of every profile; with their transpose where a gene-sized matrix is to get a gradient."""
    first, second = (sparse_rows(viewer.draw(expression, rng), transpose) for _ in range(2))
    return TwoViews(first, second)


class ViewPairs:
    """Two fresh views of every profile for one epoch.

    The seed and the first profile of a batch, which no other batch of the epoch holds, decide the views of the batch:
    an epoch that is begun in its middle has the same ones.
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
        """Profiles in random order; a last batch that is too small for agreement is left out."""
        profiles = torch.randperm(self._expression.n_profiles, generator=generator)
        return full_batches(profiles, self._n_rest)

    def take(self, index: Tensor, progress: float = 1.0) -> TwoViews:
        """Two views of some profiles: the same for the same profiles in the same order, however far the training is."""
        rng = np.random.default_rng((*self._seed, int(index[0])))
        return draw_views(self._viewer, self._expression.take(index.numpy()), rng, self._transpose)


def full_batches(order: Tensor, n_rest: int) -> Tensor:
    """An order without its last `n_rest`, where these would be a batch that is too small, and not the only one."""
    is_left_out = 0 < n_rest < LEAST and len(order) > n_rest
    return order[: len(order) - n_rest] if is_left_out else order


class ViewSource:
    """Views of every epoch, drawn afresh."""

    def __init__(self, network: Network, expression: Expression, viewer: Viewer, batch_size: int, seed: int) -> None:
        self._of = (network, expression, viewer, batch_size)
        self._seed = seed

    def epoch(self, epoch: int) -> ViewPairs:
        """Of an epoch, counted from 1."""
        return ViewPairs(*self._of, (self._seed, VIEW_STREAM, epoch))


class JointPairs:
    """Views and reconstruction pairs of the same profiles."""

    def __init__(self, views: ViewPairs, pairs: Pairs) -> None:
        self.n_profiles = pairs.n_profiles
        self._views = views
        self._pairs = pairs

    def order(self, generator: torch.Generator) -> Tensor:
        """Pairs of reconstruction in random order, whose profiles are those that views are made of."""
        kept = len(self._views.order(torch.Generator()))
        return self._pairs.order(generator)[:kept]

    def take(self, index: Tensor, progress: float = 1.0) -> JointBatch:
        """Views, and input and target, of some of them."""
        return JointBatch(self._views.take(index % self._pairs.n_profiles), self._pairs.take(index, progress))


class JointSource:
    """Both of every epoch."""

    def __init__(self, views: ViewSource, pairs: PairSource) -> None:
        self._views = views
        self._pairs = pairs

    def epoch(self, epoch: int) -> JointPairs:
        """Of an epoch, counted from 1."""
        return JointPairs(self._views.epoch(epoch), self._pairs.epoch(epoch))


def validation_views(viewer: Viewer, expression: Expression, batch_size: int, seed: int) -> list[TwoViews]:
    """Two views of validation profiles in batches, the same for every epoch."""
    rng = np.random.default_rng((seed, VALIDATION_VIEW_STREAM))
    n_batches = -(-expression.n_profiles // batch_size)
    return [
        draw_views(viewer, expression.take(rows), rng, transpose=False)
        for rows in np.array_split(np.arange(expression.n_profiles), n_batches)
    ]
