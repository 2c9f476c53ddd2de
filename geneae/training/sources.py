"""What an objective trains on, and what judges each epoch: pairs of profiles, their views, or both."""

from dataclasses import dataclass
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
from geneae.training.batches import VALIDATION_STREAM, Pairs, PairSource, draw_blocks, mismatch
from geneae.training.checkpoints import Checkpoint
from geneae.training.loop import JudgeEpoch, Source
from geneae.training.objectives import Reconstruction
from geneae.training.selfsupervised import Joint, SelfSupervised
from geneae.training.streaming import StreamedSource
from geneae.training.validation import judge
from geneae.training.view_batches import JointSource, ViewSource, validation_views

MANY = 4096  # training profiles; from here on eight count splits are no better than four
VALIDATION_PROFILES, VALIDATION_VALUES = 4096, 2**23  # of streamed ones, that choose the epoch
VALIDATION_SPLITS = 2  # count splits of the validation profiles that choose the epoch


@dataclass(frozen=True, eq=False)
class Known:
    """What a training knows of the profiles."""

    parts: tuple[Expression, Expression]
    """Those of training, and those that choose the epoch."""
    names: pd.Index
    """Of the training profiles."""
    preprocess: Preprocess
    """What is done to each of them."""
    is_split: bool
    """Whether one half of the molecules predicts the other."""
    blocks: list[sparse.csr_matrix]
    """Training profiles, or the halves of their first count split, preprocessed; of streamed ones a sample."""
    partners: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
    """By part, the profile whose target each is given, see `geneae.training.batches.mismatch`."""
    labels: tuple[Tensor | None, Tensor | None] = (None, None)
    """By part, what a loss learns labels from, see `geneae.training.batches.Pairs`."""


def sources_of(
    network: Network,
    known: Known,
    objective: Reconstruction | SelfSupervised | Joint,
    settings: Settings,
    chain: list[tuple[str, float]],
    saved: Checkpoint | None,
) -> tuple[Source, list[Pairs], JudgeEpoch]:
    """Where an objective gets its batches from, the pairs that choose the epoch if any, and what judges an epoch.

    Parameters
    ----------
    network
        For which basis they are made.
    known
        The profiles.
    objective
        What is minimised.
    settings
        Batches, splits and seed.
    chain
        How views differ from their profile, see `geneae.data.augment.parse_views`.
    saved
        Its folder has room for what does not fit into memory.
    """
    if isinstance(objective, SelfSupervised):
        views, judge_views = _view_source(network, known, objective, settings, chain)
        return views, [], judge_views
    reconstruction = objective.reconstruction if isinstance(objective, Joint) else objective
    pairs, validation = _pair_source(network, known, reconstruction, settings, saved)
    judge_pairs = partial(judge, pairs=validation, objective=reconstruction, batch_size=settings.batch_size)
    if isinstance(objective, Reconstruction):
        return pairs, validation, judge_pairs
    views, judge_views = _view_source(network, known, objective.views, settings, chain)
    assert isinstance(pairs, PairSource)
    return JointSource(views, pairs), validation, _both(judge_pairs, judge_views, objective.weight)


def number_of_splits(settings: Settings, n_profiles: int) -> int:
    """Count splits that training takes in turn: more profiles make up for fewer splits."""
    return settings.n_splits or (8 if n_profiles < MANY else 4)


def _pair_source(
    network: Network, known: Known, objective: Reconstruction, settings: Settings, saved: Checkpoint | None
) -> tuple[PairSource | StreamedSource, list[Pairs]]:
    """Inputs and targets of training, and those of validation."""
    (own, others), preprocess, is_split = known.parts, known.preprocess, known.is_split
    choices = network, own, preprocess, is_split, number_of_splits(settings, own.n_profiles), settings.seed
    has_margin = objective.loss.has_pair_margin and settings.margin is None
    if own.is_streamed and has_margin:
        raise InputError(
            f"loss {settings.loss} compares targets and needs the profiles in memory. Use --stream no, or a --margin."
        )
    source = (
        StreamedSource(*choices, settings.batch_size, None if saved is None else nearest_folder(saved.path))
        if own.is_streamed
        else PairSource(*choices, known.blocks, known.partners[0], has_margin, known.labels[0])
    )
    choosing = others.sample(VALIDATION_VALUES, VALIDATION_PROFILES, settings.seed)
    splitter = Splitter(choosing.rows) if is_split else None
    seeds = [(settings.seed, VALIDATION_STREAM, number) for number in range(VALIDATION_SPLITS if is_split else 1)]
    drawn = [mismatch(draw_blocks(choosing, preprocess, splitter, seed), known.partners[1]) for seed in seeds]
    compares = objective.loss.compares  # for the norm of the gradient
    return source, [Pairs(network, blocks, compares, known.labels[1]) for blocks in drawn]


def nearest_folder(path: Path) -> Path:
    """The nearest folder above a path that is there."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def _view_source(
    network: Network, known: Known, objective: SelfSupervised, settings: Settings, chain: list[tuple[str, float]]
) -> tuple[ViewSource, JudgeEpoch]:
    """Views of training, and a look at those of validation."""
    own, others = known.parts
    viewer = Viewer(chain, known.preprocess, np.sqrt(column_variance(known.preprocess.apply(own))))
    source = ViewSource(network, own, viewer, settings.batch_size, settings.seed)
    batches = validation_views(viewer, others, settings.batch_size, settings.seed)
    return source, partial(objective.judge, batches=batches)


def _both(of_pairs: JudgeEpoch, of_views: JudgeEpoch, weight: float) -> JudgeEpoch:
    """A joint loss, and the numbers of both."""

    def judge_epoch(network: Network) -> tuple[Tensor, dict[str, float]]:
        (by_pair, pair_means), (by_view, view_means) = of_pairs(network), of_views(network)
        return by_pair.cpu() + weight * by_view, pair_means | view_means

    return judge_epoch
