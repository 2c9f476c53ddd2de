"""Mini-batches of two views of the same profiles, alone or together with pairs for reconstruction."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from geneae.data.augment import SHARES, View, Viewer
from geneae.data.preprocess import Expression
from geneae.losses.sparse_rows import SparseRows, sparse_rows
from geneae.models.estimator import AtDepth, Estimator
from geneae.models.network import Network
from geneae.training.batches import Batch, Pairs, PairSource

VIEW_STREAM, VALIDATION_VIEW_STREAM = 2, 3  # give views other random numbers than count splits of the same seed
LEAST = 16  # profiles in a last mini-batch: in smaller ones, BatchNorm drives single profiles apart
DEPTH_STEP = 0.1  # of the logarithm of a share, to which the depth of a view is rounded: at most a factor of 1.05


@dataclass(frozen=True)
class TwoViews:
    """Two views of the same profiles."""

    first: Tensor | SparseRows
    """First view of each profile, or its scores."""
    second: Tensor | SparseRows
    """Second view of each profile, in the same order."""

    @property
    def inputs(self) -> Tensor | SparseRows:
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


class Partners:
    """Random neighbours of profiles, whose views stand in for second views of their own.

    Contrasting neighbours needs no random change of a profile that leaves its kind alone (Dwibedi et al. 2021, arXiv
    2104.14548, with neighbours in a fixed latent).

    Parameters
    ----------
    neighbours
        (n_profiles, n_neighbours) positions of the neighbours of each profile.
    """

    def __init__(self, neighbours: Tensor) -> None:
        self._neighbours = neighbours.numpy()

    def draw(self, profiles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n,) one neighbour of each of these profiles."""
        of = self._neighbours[profiles]
        found: np.ndarray = of[np.arange(len(of)), rng.integers(of.shape[1], size=len(of))]
        return found


def draw_views(
    viewer: Viewer,
    expression: Expression,
    rng: np.random.Generator,
    transpose: bool,
    partner: Expression | None = None,
) -> TwoViews:
    """Two views of every profile, the second one of its partner if there are partners.

    `transpose` also stores them by gene, for the gradient of a gene-sized matrix.
    """
    first, second = viewer.draw(expression, rng)
    if partner is not None:
        _, second = viewer.draw(partner, rng)
    return TwoViews(sparse_rows(first.matrix, transpose), sparse_rows(second.matrix, transpose))


class ScoreReader:
    """Posterior scores of views, each profile read at the depth to which it was thinned.

    Parameters
    ----------
    estimator
        Estimator that gives posterior scores at every depth.
    unit
        (n_scores,) unit of the scores of the network.
    """

    def __init__(self, estimator: Estimator, unit: Tensor) -> None:
        self._estimator, self._unit = estimator, unit.cpu()
        self._at = lru_cache(maxsize=64)(self._estimator.at)

    def __call__(self, view: View) -> Tensor:
        """(n_profiles, n_scores) scores, in units of the latent."""
        deltas = np.log(SHARES[0] / np.maximum(view.shares, np.finfo(np.float64).tiny))
        scores = torch.empty(len(deltas), len(self._unit))
        steps = np.round(deltas / DEPTH_STEP)
        for step in np.unique(steps):
            rows = np.flatnonzero(steps == step)
            at: AtDepth = self._at(float(np.median(deltas[rows])))
            scores[torch.from_numpy(rows)] = at.scores(view.matrix[rows], view.totals[rows]) / self._unit
        return scores

    def two(self, views: tuple[View, View]) -> TwoViews:
        """Scores of two views of the same profiles."""
        return TwoViews(self(views[0]), self(views[1]))


class ScoredPairs:
    """Scores of two views of every profile for one epoch."""

    def __init__(self, views: TwoViews, n_profiles: int, batch_size: int) -> None:
        self.n_profiles = n_profiles
        self._views = views
        self._n_rest = n_profiles % batch_size

    def order(self, generator: torch.Generator) -> Tensor:
        """Profiles in random order, without a last mini-batch that is too small for a loss of agreement."""
        return full_batches(torch.randperm(self.n_profiles, generator=generator), self._n_rest)

    def take(self, index: Tensor, progress: float = 1.0) -> TwoViews:
        """Two views of some profiles, whatever the progress."""
        first, second = self._views.first, self._views.second
        assert isinstance(first, Tensor)
        assert isinstance(second, Tensor)
        return TwoViews(first[index], second[index])


class ScoredSource:
    """Scores of views for an encoder in a fixed basis: few numbers per profile, drawn and read for all of them at once.

    The epochs use a few draws in turn, like the count splits of a reconstruction.
    """

    def __init__(
        self,
        reader: ScoreReader,
        expression: Expression,
        viewer: Viewer,
        batch_size: int,
        n_draws: int,
        seed: int,
        partners: Partners | None = None,
    ) -> None:
        self._n_draws = n_draws
        n_profiles = expression.n_profiles

        def draw(number: int) -> ScoredPairs:
            rng = np.random.default_rng((seed, VIEW_STREAM, number))
            first, second = (reader(view) for view in viewer.draw(expression, rng))
            if partners is not None:
                second = second[torch.from_numpy(partners.draw(np.arange(n_profiles), rng))]
            return ScoredPairs(TwoViews(first, second), n_profiles, batch_size)

        self._draw = lru_cache(maxsize=n_draws)(draw)

    def epoch(self, epoch: int) -> ScoredPairs:
        """Views of an epoch, counted from 1; drawn when first needed."""
        return self._draw((epoch - 1) % self._n_draws)


class ViewPairs:
    """Two new views of every profile for one epoch.

    The seed and the first profile of a mini-batch, which no other mini-batch of the epoch contains, determine its
    views: an epoch that resumes in the middle has the same ones.
    """

    def __init__(
        self,
        network: Network,
        expression: Expression,
        viewer: Viewer,
        batch_size: int,
        partners: Partners | None,
        seed: tuple[int, ...],
    ) -> None:
        self.n_profiles = expression.n_profiles
        self._partners = partners
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
        rng, profiles, partner = np.random.default_rng((*self._seed, int(index[0]))), index.numpy(), None
        if self._partners is not None:
            partner = self._expression.take(self._partners.draw(profiles, rng))
        return draw_views(self._viewer, self._expression.take(profiles), rng, self._transpose, partner)


def full_batches(order: Tensor, n_rest: int) -> Tensor:
    """The order without its last `n_rest` profiles, if their mini-batch is too small and not the only one."""
    is_left_out = 0 < n_rest < LEAST and len(order) > n_rest
    return order[: len(order) - n_rest] if is_left_out else order


class ViewSource:
    """Views of every epoch, drawn anew each time."""

    def __init__(
        self,
        network: Network,
        expression: Expression,
        viewer: Viewer,
        batch_size: int,
        seed: int,
        partners: Partners | None = None,
    ) -> None:
        self._of = (network, expression, viewer, batch_size, partners)
        self._seed = seed

    def epoch(self, epoch: int) -> ViewPairs:
        """Views of an epoch, counted from 1."""
        return ViewPairs(*self._of, (self._seed, VIEW_STREAM, epoch))


class JointPairs:
    """Views and reconstruction pairs of the same profiles."""

    def __init__(self, views: ViewPairs | ScoredPairs, pairs: Pairs) -> None:
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

    def __init__(self, views: ViewSource | ScoredSource, pairs: PairSource) -> None:
        self._views = views
        self._pairs = pairs

    def epoch(self, epoch: int) -> JointPairs:
        """Views and reconstruction pairs of an epoch, counted from 1."""
        return JointPairs(self._views.epoch(epoch), self._pairs.epoch(epoch))


def validation_views(
    viewer: Viewer, expression: Expression, batch_size: int, seed: int, reader: ScoreReader | None = None
) -> list[TwoViews]:
    """Two views of the validation profiles in mini-batches, or their scores; the same for every epoch."""
    rng = np.random.default_rng((seed, VALIDATION_VIEW_STREAM))
    n_batches = -(-expression.n_profiles // batch_size)
    parts = [expression.take(rows) for rows in np.array_split(np.arange(expression.n_profiles), n_batches)]
    if reader is not None:
        return [reader.two(viewer.draw(part, rng)) for part in parts]
    return [draw_views(viewer, part, rng, transpose=False) for part in parts]
