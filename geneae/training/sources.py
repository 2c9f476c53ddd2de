"""What an objective is trained on, and what validates each epoch: pairs of profiles, their views, or both."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from torch import Tensor

from geneae.data.augment import Viewer
from geneae.data.count_split import Splitter
from geneae.data.preprocess import Expression, Preprocess, column_variance
from geneae.models.network import Network
from geneae.settings.errors import InputError
from geneae.settings.settings import Settings
from geneae.training.batches import (
    VALIDATION_STREAM,
    CountSplits,
    PairNeeds,
    Pairs,
    PairSource,
    draw_blocks,
    mismatch,
)
from geneae.training.checkpoints import Checkpoint
from geneae.training.devices import Processes
from geneae.training.loop import Source
from geneae.training.objectives import Joint, Reconstruction
from geneae.training.selfsupervised import SelfSupervised
from geneae.training.streaming import StreamedSource
from geneae.training.validation import Validate, validate
from geneae.training.view_batches import JointSource, ViewSource, validation_views

MANY = 4096  # training profiles; from here on eight count splits are no better than four
VALIDATION_PROFILES, VALIDATION_VALUES = 4096, 2**23  # of streamed ones, that choose the epoch
VALIDATION_SPLITS = 2  # count splits of the validation profiles that choose the epoch


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The profiles that a network is trained on, and those that choose the epoch."""

    parts: tuple[Expression, Expression]
    """Those of training, and those that choose the epoch."""
    names: pd.Index
    """Names of the training profiles."""
    preprocess: Preprocess
    """What is done to each of them."""
    is_split: bool
    """Whether one half of the molecules predicts the other."""
    blocks: list[sparse.csr_matrix]
    """Training profiles, or the halves of their first count split, preprocessed; of streamed ones a sample."""
    partners: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
    """By part, the profile whose target each is given, see `geneae.training.batches.mismatch`."""
    labels: tuple[Tensor | None, Tensor | None] = (None, None)
    """By part, what a loss learns labels from, see `geneae.training.batches.PairNeeds`."""
    views: list[tuple[str, float]] = field(default_factory=list)
    """How views differ from their profile, see `geneae.data.augment.parse_views`."""


def sources_of(
    network: Network,
    data: TrainingData,
    objective: Reconstruction | SelfSupervised | Joint,
    settings: Settings,
    saved: Checkpoint | None,
) -> tuple[Source, Validate]:
    """Where an objective gets its batches from, and its validation.

    Parameters
    ----------
    network
        For which basis they are made.
    data
        The profiles.
    objective
        What is minimised.
    settings
        Batches, splits and seed.
    saved
        Its folder has room for what does not fit into memory.
    """
    if isinstance(objective, SelfSupervised):
        return _view_source(network, data, objective, settings)
    reconstruction = objective.reconstruction if isinstance(objective, Joint) else objective
    pairs, validation = _pair_source(network, data, reconstruction, settings, saved)
    validate_pairs = partial(validate, pairs=validation, objective=reconstruction, batch_size=settings.batch_size)
    if isinstance(objective, Reconstruction):
        return pairs, validate_pairs
    views, validate_views = _view_source(network, data, objective.views, settings)
    assert isinstance(pairs, PairSource)
    return JointSource(views, pairs), _both(validate_pairs, validate_views, objective.weight)


def number_of_splits(settings: Settings, n_profiles: int) -> int:
    """Count splits that training takes in turn: more profiles make up for fewer splits."""
    return settings.n_splits or (8 if n_profiles < MANY else 4)


def _pair_source(
    network: Network, data: TrainingData, objective: Reconstruction, settings: Settings, saved: Checkpoint | None
) -> tuple[PairSource | StreamedSource, list[Pairs]]:
    """Inputs and targets of training, and those of validation."""
    (own, others), preprocess, metric = data.parts, data.preprocess, objective.metric
    splits = CountSplits(data.is_split, number_of_splits(settings, own.n_profiles), settings.seed)
    has_margin = objective.loss.has_pair_margin and settings.margin is None
    if own.is_streamed and has_margin:
        raise InputError(
            f"loss {settings.loss} compares targets and needs the profiles in memory. Use --stream no, or a --margin."
        )
    source: PairSource | StreamedSource
    if own.is_streamed:
        scratch = None if saved is None else nearest_folder(saved.path)
        source = StreamedSource(network, own, preprocess, splits, settings.batch_size, scratch, metric)
    else:
        needs = PairNeeds(has_margin, data.labels[0], metric)
        source = PairSource(network, own, preprocess, splits, data.blocks, data.partners[0], needs)
    choosing = others.sample(VALIDATION_VALUES, VALIDATION_PROFILES, settings.seed)
    splitter = Splitter(choosing.rows) if splits.is_split else None
    n_drawn = VALIDATION_SPLITS if splits.is_split else 1
    seeds = [(settings.seed, VALIDATION_STREAM, number) for number in range(n_drawn)]
    drawn = [mismatch(draw_blocks(choosing, preprocess, splitter, seed), data.partners[1]) for seed in seeds]
    needs = PairNeeds(objective.loss.needs == "pairs", data.labels[1], metric)  # for the norm of the gradient
    return source, [Pairs(network, blocks, needs) for blocks in drawn]


def nearest_folder(path: Path) -> Path:
    """The nearest folder above a path that is there."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def _view_source(
    network: Network, data: TrainingData, objective: SelfSupervised, settings: Settings
) -> tuple[ViewSource, Validate]:
    """Views of training, and a look at those of validation."""
    own, others = data.parts
    viewer = Viewer(data.views, data.preprocess, np.sqrt(column_variance(data.preprocess.apply(own))))
    source = ViewSource(network, own, viewer, settings.batch_size, settings.seed)
    batches = validation_views(viewer, others, settings.batch_size, settings.seed)
    return source, lambda network, _: objective.validate(network, batches)


def _both(of_pairs: Validate, of_views: Validate, weight: float) -> Validate:
    """A joint loss, and the numbers of both."""

    def validate_both(network: Network, processes: Processes) -> tuple[Tensor, dict[str, float]]:
        (by_pair, pair_means), (by_view, view_means) = of_pairs(network, processes), of_views(network, processes)
        return by_pair.cpu() + weight * by_view, pair_means | view_means

    return validate_both
