"""The network of a fit: its start, its objective, and its training."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from geneae.data.profiles import Profiles
from geneae.fitting.checks import check_loss
from geneae.losses.fixed_metric import FixedMetric
from geneae.losses.in_batch import at_perfection
from geneae.losses.names import find_loss
from geneae.losses.reconstruction import LossSettings
from geneae.models.baselines import Baselines
from geneae.models.network import Network, network_in_basis, random_network
from geneae.models.pca import Basis
from geneae.settings.settings import Settings, loss_terms
from geneae.training.batches import PairNeeds, Pairs, loss_constants
from geneae.training.checkpoints import Checkpoint
from geneae.training.devices import Processes
from geneae.training.loop import Training, TrainingPlan, train
from geneae.training.objectives import Joint, Reconstruction
from geneae.training.selfsupervised import OBJECTIVES, SelfSupervised, Sizes, parse_objective
from geneae.training.sources import TrainingData, sources_of
from geneae.training.validation import Validate

WEIGHTS = ("alpha", "beta", "gamma", "margin", "negatives", "temperature")  # of the user, that a loss sees

Watch = Callable[[Network], dict[str, float]]
"""Gives more columns of the history."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What the training of a network leaves behind."""

    network: Network
    """On the CPU, with the weights of the best epoch."""
    training: Training
    """History, best epoch, collapse."""
    reconstruction: Reconstruction
    """The reconstruction loss with the constants of the training profiles; in an objective without a reconstruction it
    took no part."""
    loss_at_perfection: float | None
    """See `_at_perfection`; None without a reconstruction."""


def train_network(
    data: TrainingData,
    baselines: Baselines,
    settings: Settings,
    metric: FixedMetric | None = None,
    watch: Watch | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    saved: Checkpoint | None = None,
) -> Trained:
    """Build the network of the settings and train it; the caller's random numbers stay as they were.

    Parameters
    ----------
    data
        Profiles that it learns from, and those that choose the epoch.
    baselines
        Bases of the training profiles, which it may start at.
    settings
        Choices of the user.
    metric
        Of the reconstruction loss, in the genes of the fit.
    watch
        Called with the network after each epoch, for more columns of the history.
    on_epoch
        Called with each row of the history.
    saved
        To resume, if there is something, and to write now and then.
    """
    name, is_reconstructed = parse_objective(settings.objective)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = _start(baselines, settings, data.is_split)
        reconstruction = _reconstruction(data.blocks, network, settings, metric)
        objective: Reconstruction | SelfSupervised | Joint = reconstruction
        if name is not None:
            sizes = Sizes(settings.n_latent, settings.hidden, data.parts[0].n_profiles)
            views = OBJECTIVES[name](sizes, mean_shift(baselines, data.is_split))
            objective = Joint(views, reconstruction, settings.agreement) if is_reconstructed else views
        if not is_reconstructed:
            network.drop_decoder()
        source, validate = sources_of(network, data, objective, settings, saved)
        validate = validate if watch is None else _with_watch(validate, watch)
        training = train(network, TrainingPlan(source, validate, objective, data.names), settings, on_epoch, saved)
        network.to("cpu")
        objective.to(torch.device("cpu"))
        best_loss = _at_perfection(network, data.blocks, reconstruction, settings) if is_reconstructed else None
    return Trained(network, training, replace(reconstruction, metric=None), best_loss)


def mean_shift(baselines: Baselines, is_split: bool) -> Tensor | None:
    """(n_genes,) by which the mean of the training profiles lies above that which the network knows, where it was
    trained on halves; None where both are the same."""
    shift = baselines.whole.mean - _basis(baselines, is_split)[0].mean
    return shift if bool(shift.any()) else None


def training_labels(
    profiles: Profiles, settings: Settings, parts: tuple[np.ndarray, np.ndarray]
) -> tuple[Tensor | None, Tensor | None]:
    """By part, (n_profiles,) a number for each value of a column of `obs`, -1 where there is none; None where the loss
    does not learn by it."""
    label = settings.label
    if label is None or not any(name == "triplet" for _, name in loss_terms(settings.loss)):
        return None, None
    codes = torch.from_numpy(pd.factorize(profiles.obs[label])[0].astype(np.int64))
    return codes[torch.from_numpy(parts[0])], codes[torch.from_numpy(parts[1])]


def _basis(baselines: Baselines, is_split: bool) -> tuple[Basis, Tensor]:
    """The basis that the network starts in, and the factors of its components."""
    if is_split and baselines.half is not None and baselines.factors is not None:
        return baselines.half, baselines.factors
    return baselines.whole, torch.ones(baselines.whole.rank)


def _start(baselines: Baselines, settings: Settings, is_split: bool) -> Network:
    basis, factors = _basis(baselines, is_split)
    if settings.init == "random":
        sizes = settings.n_latent, settings.hidden, settings.dropout
        return random_network(basis.mean, *sizes, settings.latent_norm)
    is_free = settings.basis == "free"
    return network_in_basis(basis, factors, settings.n_latent, settings.hidden, settings.dropout, is_free)


def _reconstruction(
    blocks: list[sparse.csr_matrix], network: Network, settings: Settings, metric: FixedMetric | None
) -> Reconstruction:
    """The loss of the settings, with the constants of the training profiles."""
    weights = LossSettings(**{name: getattr(settings, name) for name in WEIGHTS})
    center = check_loss(settings)
    constants = loss_constants(blocks, network.mean, center, weights, metric)
    return Reconstruction(find_loss(settings.loss), center, constants, settings.grad_scale, metric)


def _with_watch(validate: Validate, watch: Watch) -> Validate:
    """With more numbers of the same network."""

    def validate_more(network: Network, processes: Processes) -> tuple[Tensor, dict[str, float]]:
        losses, means = validate(network, processes)
        return losses, means | watch(network)

    return validate_more


def _at_perfection(
    network: Network, blocks: list[sparse.csr_matrix], objective: Reconstruction, settings: Settings
) -> float | None:
    """What a loss of cosines is where every prediction is its target, on a batch; None for one that is zero by
    definition, or that sees latents, too."""
    sees_latents = any(name == "triplet" for _, name in loss_terms(settings.loss))
    if objective.loss.needs != "pairs" or sees_latents:
        return None
    pairs = Pairs(network, blocks, PairNeeds(gram=True, metric=objective.metric))
    index = torch.randperm(pairs.n_profiles, generator=torch.Generator().manual_seed(settings.seed))
    with torch.no_grad():
        products = objective.see(network, pairs.take(index[: settings.batch_size]))
    return at_perfection(objective.loss, products, objective.settings)
