"""Training and validation data of an objective: pairs of profiles, their views, or both."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from geneae.data.augment import SHARES, View, Viewer
from geneae.data.count_split import Splitter
from geneae.data.preprocess import Expression, Preprocess, column_variance
from geneae.losses.shared_neighbours import MOST_PROFILES, nearest_others
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.estimator import Estimator
from geneae.models.network import Network
from geneae.settings.errors import InputError
from geneae.settings.settings import Settings
from geneae.training.batches import (
    VALIDATION_STREAM,
    CountSplits,
    PairNeeds,
    Pairs,
    PairSource,
    ThinnedInputs,
    draw_blocks,
    mismatch,
)
from geneae.training.checkpoints import Checkpoint
from geneae.training.choice import Choice, by_neighbours
from geneae.training.devices import Processes
from geneae.training.loop import BatchSource
from geneae.training.objectives import Joint, Reconstruction
from geneae.training.selfsupervised import SelfSupervised
from geneae.training.streaming import StreamedSource
from geneae.training.validation import Validate, validate
from geneae.training.view_batches import (
    JointSource,
    Partners,
    ScoredSource,
    ScoreReader,
    ViewSource,
    validation_views,
)

POSITIVES = 10  # nearest training profiles from which a positive is drawn
MANY = 4096  # with this many training profiles or more, eight count splits are no better than four
VALIDATION_PROFILES, VALIDATION_VALUES = 4096, 2**23  # largest sample of streamed profiles that chooses the epoch
VALIDATION_SPLITS = 2  # count splits of the validation profiles that choose the epoch


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Profiles that a network is trained on, and profiles that choose the epoch."""

    parts: tuple[Expression, Expression]
    """Training profiles, and profiles that choose the epoch."""
    names: pd.Index
    """Names of the training profiles."""
    preprocess: Preprocess
    """Preprocessing of both parts."""
    is_split: bool
    """Whether one half of the molecules predicts the other."""
    blocks: list[sparse.csr_matrix]
    """Preprocessed training profiles, or the halves of their first count split; a sample of streamed profiles."""
    partners: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
    """Profile whose target each profile gets, for each part, see `geneae.training.batches.mismatch`."""
    labels: tuple[Tensor | None, Tensor | None] = (None, None)
    """Label codes for the loss, for each part, see `geneae.training.batches.PairNeeds`."""
    views: list[tuple[str, float]] = field(default_factory=list)
    """Random changes that make views, and their amounts, see `geneae.data.augment.parse_views`."""
    estimator: Estimator | None = None
    """Estimator whose posterior scores the network reads, if it does."""


def sources_of(
    network: Network,
    data: TrainingData,
    objective: Reconstruction | SelfSupervised | Joint,
    settings: Settings,
    saved: Checkpoint | None,
) -> tuple[BatchSource, Validate]:
    """Source of the mini-batches of an objective, and its validation.

    Parameters
    ----------
    network
        Network whose basis the mini-batches are made for.
    data
        Training profiles, and profiles that choose the epoch.
    objective
        Objective to minimise.
    settings
        Batch size, count splits and seed.
    saved
        Checkpoint whose folder takes the temporary file of a streamed fit; None for the system's folder.
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


def choice_of(
    network: Network, data: TrainingData, objective: Reconstruction | SelfSupervised | Joint, settings: Settings
) -> Choice | None:
    """What chooses the epoch of an encoder that learns from views and starts at posterior scores; else None."""
    if data.estimator is None or isinstance(objective, Reconstruction):
        return None
    choosing = data.parts[1]
    rows = np.random.default_rng((settings.seed, VALIDATION_STREAM)).permutation(choosing.n_profiles)[:MOST_PROFILES]
    reader = ScoreReader(data.estimator, network.deviation)
    viewer = Viewer([("depths", SHARES[0])], data.preprocess, np.ones(network.n_genes))
    seeds = [(settings.seed, VALIDATION_STREAM, number) for number in range(VALIDATION_SPLITS)]
    part = choosing.take(np.sort(rows))
    return by_neighbours([reader.two(viewer.draw(part, np.random.default_rng(seed))) for seed in seeds])


def number_of_splits(settings: Settings, n_profiles: int) -> int:
    """Number of count splits that the epochs use in turn; more profiles make up for fewer splits."""
    return settings.n_splits or (8 if n_profiles < MANY else 4)


def _pair_source(
    network: Network, data: TrainingData, objective: Reconstruction, settings: Settings, saved: Checkpoint | None
) -> tuple[PairSource | StreamedSource, list[Pairs]]:
    """Source of the training pairs, and the validation pairs."""
    (own, others), preprocess, metric = data.parts, data.preprocess, objective.metric
    splits = CountSplits(data.is_split, number_of_splits(settings, own.n_profiles), settings.seed)
    has_margin = objective.loss.has_pair_margin and settings.margin is None
    if own.is_streamed and has_margin:
        raise InputError(
            f"loss {settings.loss} compares targets and needs the profiles in memory. Use --stream no, or set --margin."
        )
    thinned = None if data.estimator is None else ThinnedInputs(data.estimator, preprocess, network.deviation)
    source: PairSource | StreamedSource
    if own.is_streamed:
        scratch = None if saved is None else nearest_folder(saved.path)
        source = StreamedSource(network, own, preprocess, splits, settings.batch_size, scratch, metric, thinned)
    else:
        needs = PairNeeds(has_margin, data.labels[0], metric)
        source = PairSource(network, own, preprocess, splits, data.blocks, data.partners[0], needs, thinned)
    choosing = others.sample(VALIDATION_VALUES, VALIDATION_PROFILES, settings.seed)
    splitter = Splitter(choosing.rows) if splits.is_split else None
    n_drawn = VALIDATION_SPLITS if splits.is_split else 1
    seeds = [(settings.seed, VALIDATION_STREAM, number) for number in range(n_drawn)]
    drawn = [mismatch(draw_blocks(choosing, preprocess, splitter, seed), data.partners[1]) for seed in seeds]
    needs = PairNeeds(objective.loss.needs == "pairs", data.labels[1], metric)  # the gradient norm needs the gram
    return source, [Pairs(network, blocks, needs) for blocks in drawn]


def nearest_folder(path: Path) -> Path:
    """Nearest existing folder above a path."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def _view_source(
    network: Network, data: TrainingData, objective: SelfSupervised, settings: Settings
) -> tuple[ViewSource | ScoredSource, Validate]:
    """Source of the training views, and validation by views."""
    own, others = data.parts
    viewer = Viewer(data.views, data.preprocess, np.sqrt(column_variance(data.preprocess.apply(own))))
    reader = None if data.estimator is None else ScoreReader(data.estimator, network.deviation)
    partners = _partners(network, data, objective, reader) if settings.positives == "neighbours" else None
    source: ViewSource | ScoredSource
    if reader is None:
        source = ViewSource(network, own, viewer, settings.batch_size, settings.seed, partners)
    else:
        n_draws = number_of_splits(settings, own.n_profiles)
        source = ScoredSource(reader, own, viewer, settings.batch_size, n_draws, settings.seed, partners)
    batches = validation_views(viewer, others, settings.batch_size, settings.seed, reader)
    return source, lambda network, _: objective.validate(network, batches)


@torch.no_grad()
def _partners(
    network: Network, data: TrainingData, objective: SelfSupervised, reader: ScoreReader | None
) -> Partners | None:
    """Nearest neighbours of the training profiles in the latents of the network as it is; None for a single profile."""
    own = data.parts[0]
    matrix, was_training = data.preprocess.apply(own), network.training
    if reader is not None:
        scores = reader(View(matrix, own.totals, np.ones(own.n_profiles)))
    else:
        scores = network.scores(sparse_rows(matrix), objective.shift)
    latent = network.eval().encode(scores)
    network.train(was_training)
    return Partners(nearest_others(latent, POSITIVES)) if own.n_profiles > 1 else None


def _both(of_pairs: Validate, of_views: Validate, weight: float) -> Validate:
    """Validation by a joint loss, with the columns of both parts."""

    def validate_both(network: Network, processes: Processes) -> tuple[Tensor, dict[str, float]]:
        (by_pair, pair_means), (by_view, view_means) = of_pairs(network, processes), of_views(network, processes)
        return by_pair + weight * by_view, pair_means | view_means

    return validate_both
