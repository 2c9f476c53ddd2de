"""The network of a fit, built and trained."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from geneae.data.profiles import Profiles
from geneae.evaluation.judge import Watch
from geneae.fitting.bases import Bases
from geneae.fitting.prepare import FitData
from geneae.losses.in_batch import at_perfection
from geneae.losses.names import find_loss
from geneae.losses.reconstruction import LossSettings
from geneae.models.baselines import Baselines
from geneae.models.network import Network, network_in_basis, random_network
from geneae.settings.settings import Settings, loss_terms
from geneae.training.batches import Pairs, loss_constants
from geneae.training.checkpoints import Checkpoint
from geneae.training.loop import JudgeEpoch, Training, train
from geneae.training.objectives import Reconstruction
from geneae.training.selfsupervised import OBJECTIVES, Joint, SelfSupervised, Sizes
from geneae.training.sources import Known, sources_of

WEIGHTS = ("alpha", "beta", "gamma", "margin", "negatives", "temperature")  # of the user, that a loss sees


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network."""

    network: Network
    """On the CPU, with the weights of the epoch that was taken."""
    training: Training
    """History and epoch."""
    objective: Reconstruction
    """The reconstruction loss with its constants."""
    loss_at_perfection: float | None
    """What a loss of cosines is at a perfect reconstruction, see `_at_perfection`."""


def train_network(
    data: FitData,
    bases: Bases,
    watch: Watch | None,
    on_epoch: Callable[[dict[str, float]], None] | None,
    saved: Checkpoint | None,
) -> Trained:
    """Build the network of a fit in its basis and train it."""
    settings, baselines = data.settings, bases.baselines
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
        torch.manual_seed(settings.seed)
        network = _start(baselines, settings, data.is_split)
        network.metric = data.metric
        reconstruction = _reconstruction(bases.blocks, network, data.center, settings)
        of_whole = baselines.whole.mean - network.mean  # where the network knows halves
        shift = of_whole if bool(of_whole.any()) else None
        objective: Reconstruction | SelfSupervised | Joint = reconstruction
        if data.objective is not None:
            views = OBJECTIVES[data.objective](Sizes(settings.n_latent, settings.hidden, data.train.n_profiles))
            views.shift = shift
            objective = Joint(views, reconstruction, settings.agreement) if data.has_decoder else views
        if not data.has_decoder:
            network.drop_decoder()
        look = None if watch is None else lambda network: watch(network, shift)
        taught = _labels(data.profiles, settings)
        labels_of = _rows(taught, data.rows("train")), _rows(taught, data.rows("validation"))
        known = Known(
            (data.train, data.validation),
            data.profiles.names[data.rows("train")],
            data.preprocess,
            data.is_split,
            bases.blocks,
            (data.partners("train"), data.partners("validation")),
            labels_of,
        )
        training = _train(network, known, objective, settings, data.views, look, on_epoch, saved)
        best_loss = _at_perfection(network, bases.blocks, reconstruction, settings) if data.has_decoder else None
        network.metric = None  # of the loss alone
    return Trained(network, training, reconstruction, best_loss)


def _reconstruction(
    blocks: list[sparse.csr_matrix], network: Network, center: str, settings: Settings
) -> Reconstruction:
    """The loss of the settings, with the constants of the training profiles."""
    weights = LossSettings(**{name: getattr(settings, name) for name in WEIGHTS})
    constants = loss_constants(blocks, network.mean, center, weights, network.metric)
    return Reconstruction(find_loss(settings.loss), center, constants, settings.grad_scale)


def _start(baselines: Baselines, settings: Settings, is_split: bool) -> Network:
    basis, factors = baselines.whole, torch.ones(baselines.whole.rank)
    if is_split and baselines.half is not None and baselines.factors is not None:
        basis, factors = baselines.half, baselines.factors
    if settings.init == "random":
        sizes = settings.n_latent, settings.hidden, settings.dropout
        return random_network(basis.mean, *sizes, settings.latent_norm)
    is_free = settings.basis == "free"
    return network_in_basis(basis, factors, settings.n_latent, settings.hidden, settings.dropout, is_free)


def _train(
    network: Network,
    known: Known,
    objective: Reconstruction | SelfSupervised | Joint,
    settings: Settings,
    chain: list[tuple[str, float]],
    look: Callable[[Network], dict[str, float]] | None,
    on_epoch: Callable[[dict[str, float]], None] | None,
    saved: Checkpoint | None,
) -> Training:
    """Train on the first of two sets of profiles, with the second, and with a `look` at labels, to judge each epoch."""
    source, validation, judge_epoch = sources_of(network, known, objective, settings, chain, saved)
    if look is not None:
        judge_epoch = _beside(judge_epoch, look)
    is_plain = isinstance(objective, Reconstruction) and look is None  # then several processes share the judging
    others = None if is_plain else judge_epoch
    training = train(network, source, validation, objective, settings, on_epoch, saved, known.names, others)
    network.to("cpu")
    return training


def _beside(judge_epoch: JudgeEpoch, look: Callable[[Network], dict[str, float]]) -> JudgeEpoch:
    """With more numbers of the same network."""

    def judge_more(network: Network) -> tuple[Tensor, dict[str, float]]:
        losses, means = judge_epoch(network)
        return losses, means | look(network)

    return judge_more


def _labels(profiles: Profiles, settings: Settings) -> Tensor | None:
    """(n_profiles,) a number by value of a column of `obs`, -1 where there is none; for the loss that learns by it."""
    label = settings.label
    if label is None or not any(name == "triplet" for _, name in loss_terms(settings.loss)):
        return None
    codes = pd.factorize(profiles.obs[label])[0]
    return torch.from_numpy(codes.astype(np.int64))


def _rows(labels: Tensor | None, rows: np.ndarray) -> Tensor | None:
    return None if labels is None else labels[torch.from_numpy(rows)]


def _at_perfection(
    network: Network, blocks: list[sparse.csr_matrix], objective: Reconstruction, settings: Settings
) -> float | None:
    """What a loss of cosines is where every prediction is its target, on a batch; None for one that is zero by
    definition, or that sees latents, too."""
    sees_latents = any(name == "triplet" for _, name in loss_terms(settings.loss))
    if not objective.loss.compares or sees_latents:
        return None
    pairs = Pairs(network, blocks, compares_targets=True)
    index = torch.randperm(pairs.n_profiles, generator=torch.Generator().manual_seed(settings.seed))
    index = index[: settings.batch_size]
    with torch.no_grad():
        (products,), _ = network(*pairs.take(index), objective.center, others=pairs.others(index))
    return at_perfection(objective.loss, products, objective.settings)
