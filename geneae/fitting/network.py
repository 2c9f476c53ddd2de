"""The network of a fit: initial weights, objective and training."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from geneae.evaluation.judge import Watch
from geneae.fitting.bases import Bases
from geneae.fitting.prepare import FitData
from geneae.losses.in_batch import at_perfection
from geneae.losses.names import find_loss
from geneae.losses.reconstruction import LossSettings
from geneae.models.baselines import Baselines
from geneae.models.network import Network, network_in_basis, random_network, whitened_network
from geneae.models.pca import Basis
from geneae.settings.loss_terms import learns_from_labels
from geneae.settings.settings import Settings
from geneae.training.batches import PairNeeds, Pairs, loss_constants
from geneae.training.checkpoints import Checkpoint
from geneae.training.devices import Processes, forked_random
from geneae.training.loop import Training, TrainingPlan, train
from geneae.training.objectives import Joint, Reconstruction
from geneae.training.selfsupervised import OBJECTIVES, SelfSupervised, Sizes
from geneae.training.sources import TrainingData, choice_of, sources_of
from geneae.training.validation import Validate

WEIGHTS = ("alpha", "beta", "gamma", "margin", "negatives", "temperature")  # settings that a loss reads


@dataclass(frozen=True, eq=False)
class Trained:
    """Results of the training of a network."""

    network: Network
    """Network on the CPU, with the weights of the best epoch."""
    training: Training
    """History, best epoch and, if it has collapsed, how."""
    reconstruction: Reconstruction
    """Reconstruction loss."""
    loss_at_perfection: float | None
    """Loss at a perfect reconstruction, see `_at_perfection`; None also without a decoder."""


def train_network(
    data: FitData,
    bases: Bases,
    watch: Watch | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    saved: Checkpoint | None = None,
) -> Trained:
    """Build the network of a fit and train it; the caller's random state is not changed.

    Parameters
    ----------
    data
        Training profiles, validation profiles, which choose the epoch, and the settings.
    bases
        Bases of the training profiles, in which the network may start.
    watch
        Function that returns further columns of the history; called after each epoch with the network and the shift of
        the gene means.
    on_epoch
        Function that is called with each row of the history.
    saved
        Checkpoint to resume from, if it exists, and to write from time to time.
    """
    settings, profiles = data.settings, _training_data(data, bases)
    with forked_random():
        torch.manual_seed(settings.seed)
        network = _start(data, bases)
        reconstruction = _reconstruction(data, bases, network)
        shift = mean_shift(bases.baselines, network)
        objective: Reconstruction | SelfSupervised | Joint = reconstruction
        if data.objective is not None:
            sizes = Sizes(settings.size, settings.hidden, data.train.n_profiles)
            views = OBJECTIVES[data.objective](sizes, shift)
            objective = Joint(views, reconstruction, settings.agreement) if data.has_decoder else views
        if not data.has_decoder:
            network.drop_decoder()
        source, validate = sources_of(network, profiles, objective, settings, saved)
        validate = validate if watch is None else _with_watch(validate, watch, shift)
        choice = choice_of(network, profiles, objective, settings)
        plan = TrainingPlan(source, validate, objective, profiles.names, choice, balanced_groups(data))
        training = train(network, plan, settings, on_epoch, saved)
        network.to("cpu")
        objective.to(torch.device("cpu"))
        best_loss = _at_perfection(network, bases.blocks, reconstruction, settings) if data.has_decoder else None
    return Trained(network, training, reconstruction, best_loss)


def mean_shift(baselines: Baselines, network: Network) -> Tensor | None:
    """(n_genes,) mean of the training profiles minus the mean in the network, which differ if it was trained on halves;
    None if both are equal."""
    shift = baselines.whole.mean - network.mean
    return shift if bool(shift.any()) else None


def training_labels(data: FitData, split: str) -> Tensor | None:
    """(n_profiles,) int64 labels of a split, one code per value of the `obs` column, -1 for missing values; None if the
    loss does not learn from labels."""
    label = data.settings.label
    if label is None or not learns_from_labels(data.settings.loss):
        return None
    codes = torch.from_numpy(pd.factorize(data.profiles.obs[label])[0].astype(np.int64))
    return codes[torch.from_numpy(data.rows(split))]


def balanced_groups(data: FitData) -> Tensor | None:
    """(n_profiles,) int64 groups of the training profiles, one per value of the `obs` column that is mixed evenly, from
    0; missing values are one. None without a column."""
    key = data.settings.balance
    if key is None:
        return None
    codes = pd.factorize(data.profiles.obs[key].iloc[data.rows("train")], use_na_sentinel=False)[0]
    return torch.from_numpy(codes.astype(np.int64))


def _training_data(data: FitData, bases: Bases) -> TrainingData:
    return TrainingData(
        parts=(data.train, data.validation),
        names=data.profiles.names[data.rows("train")],
        preprocess=data.preprocess,
        is_split=data.is_split,
        blocks=bases.blocks,
        partners=(data.partners("train"), data.partners("validation")),
        labels=(training_labels(data, "train"), training_labels(data, "validation")),
        views=data.views,
        estimator=None if bases.estimator is None else bases.estimator.estimator,
    )


def _basis(baselines: Baselines, is_split: bool) -> tuple[Basis, Tensor]:
    """The basis in which the network starts, and the shrinkage factors of its components."""
    if is_split and baselines.half is not None and baselines.factors is not None:
        return baselines.half, baselines.factors
    return baselines.whole, torch.ones(baselines.whole.rank)


def _start(data: FitData, bases: Bases) -> Network:
    settings = data.settings
    if bases.estimator is not None:
        # a cut would be lost if what it cuts could not be trained
        is_frozen = settings.cut == 1 and settings.target_norm is None
        sizes = settings.size, settings.hidden, settings.dropout
        core = "skip" if data.has_decoder else "gated"  # without a reconstruction nothing else would hold the start
        return whitened_network(bases.estimator.estimator, *sizes, is_frozen, core)
    basis, factors = _basis(bases.baselines, data.is_split)
    if settings.init == "random":
        sizes = settings.size, settings.hidden, settings.dropout
        return random_network(basis.mean, *sizes, settings.latent_norm)
    is_free = settings.basis == "free"
    return network_in_basis(basis, factors, settings.size, settings.hidden, settings.dropout, is_free)


def _reconstruction(data: FitData, bases: Bases, network: Network) -> Reconstruction:
    """The reconstruction loss of the settings, with the constants of the training profiles."""
    settings = data.settings
    weights = LossSettings(**{name: getattr(settings, name) for name in WEIGHTS})
    constants = loss_constants(bases.blocks, network.mean, data.center, weights, data.metric)
    return Reconstruction(find_loss(settings.loss), data.center, constants, settings.grad_scale, data.metric)


def _with_watch(validate: Validate, watch: Watch, shift: Tensor | None) -> Validate:
    """Validation that adds the columns of `watch` to its own."""

    def validate_more(network: Network, processes: Processes) -> tuple[Tensor, dict[str, float]]:
        losses, means = validate(network, processes)
        return losses, means | watch(network, shift)

    return validate_more


def _at_perfection(
    network: Network, blocks: list[sparse.csr_matrix], objective: Reconstruction, settings: Settings
) -> float | None:
    """Mean of an in-batch loss over one mini-batch if every prediction equals its target; None for losses that are zero
    there by definition, or that also depend on latents."""
    if objective.loss.needs != "pairs" or learns_from_labels(settings.loss):
        return None
    pairs = Pairs(network, blocks, PairNeeds(gram=True, metric=objective.metric))
    index = torch.randperm(pairs.n_profiles, generator=torch.Generator().manual_seed(settings.seed))
    with torch.no_grad():
        products = objective.see(network, pairs.take(index[: settings.batch_size]))
    return at_perfection(objective.loss, products, objective.settings)
