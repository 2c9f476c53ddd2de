"""Small networks of each kind, and trainings at their start, for the tests that look at them."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from reference import counts_matrix, csr, dense_normalize
from scipy import sparse
from torch import Tensor

from geneae.data.count_split import Splitter
from geneae.data.preprocess import Expression, Preprocess
from geneae.losses.names import find_loss
from geneae.losses.reconstruction import LossSettings
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.network import Network, network_in_basis, random_network
from geneae.models.pca import Basis, fit_basis
from geneae.settings.settings import Settings
from geneae.training import validation
from geneae.training.batches import CountSplits, PairNeeds, Pairs, PairSource, draw_blocks, loss_constants
from geneae.training.devices import Processes
from geneae.training.loop import Training, TrainingPlan, train
from geneae.training.objectives import Reconstruction

FACTORS = torch.tensor([0.9, 0.8, 0.5, 0.3, 0.1, 0.0])
"""Shrinkage of six components."""
KINDS = ["pca", "free-pca", "free-random"]
"""Fixed PCA basis, learned basis from PCA, learned basis from random numbers."""


def profiles() -> np.ndarray:
    """30 x 50 log-normalised profiles."""
    return dense_normalize(counts_matrix())


def basis() -> Basis:
    """PCA of them with six components."""
    return fit_basis([csr(profiles())], 6, seed=0)


def build(kind: str, seed: int = 0, dropout: float = 0.0) -> Network:
    """A fresh network: six scores (or hidden units), three latents."""
    torch.manual_seed(seed)
    if kind == "free-random":
        return random_network(torch.from_numpy(profiles().mean(0)).float(), 3, 6, dropout)
    return network_in_basis(basis(), FACTORS, 3, 7, dropout, is_free=kind == "free-pca")


def with_random_biases(network: Network, size: float = 0.5) -> Network:
    """Float64, every bias random; the gene matrices stay where they are."""
    draws = torch.Generator().manual_seed(5)
    network = network.double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(size * torch.randn(parameter.shape, generator=draws, dtype=torch.float64))
            if name.startswith("core") and name.endswith("weight"):
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=draws, dtype=torch.float64))
    return network.eval()


def latents(network: Network, x: np.ndarray | None = None) -> Tensor:
    """Of dense profiles."""
    rows = sparse_rows(csr(profiles() if x is None else x)).to("cpu", network.mean.dtype)
    return network.encode(network.scores(rows)).detach()


def outputs(network: Network, latent: Tensor) -> Tensor:
    """Dense predictions."""
    return network.decoder().expectation(network.decode(latent)).detach()


QUICK = Settings(n_latent=3, hidden=12, rank=8, epochs=4, n_splits=2, batch_size=50, device="cpu")
"""Settings of a training that takes a fraction of a second."""
PLAIN = replace(QUICK, basis="free", init="random")
"""The same from random weights."""


@dataclass
class Start:
    """All that `train` takes."""

    network: Network
    source: PairSource
    validation: list[Pairs]
    objective: Reconstruction
    settings: Settings

    def plan(self) -> TrainingPlan:
        """Batches, validation and objective."""
        return TrainingPlan(self.source, self.validate, self.objective)

    def validate(self, network: Network, processes: Processes) -> tuple[Tensor, dict[str, float]]:
        """Losses by validation profile, and columns of the history."""
        batch_size = self.settings.batch_size
        found: tuple[Tensor, dict[str, float]] = validation.validate(
            network, processes, self.validation, self.objective, batch_size
        )
        return found

    def train(self, on_epoch: Callable[[dict[str, float]], None] | None = None) -> Training:
        """Train from the seed of the settings."""
        torch.manual_seed(self.settings.seed)  # dropout draws from the generator of torch
        return train(self.network, self.plan(), self.settings, on_epoch)


Data = tuple[Expression, Expression, Preprocess]
"""Training profiles, validation profiles and what was fitted to the first."""


def draw(
    expression: Expression, preprocess: Preprocess, is_split: bool, seed: tuple[int, ...]
) -> list[sparse.csr_matrix]:
    """Two halves of the molecules, or the profiles as they are."""
    return draw_blocks(expression, preprocess, Splitter(expression.matrix) if is_split else None, seed)


def make_start(data: Data, settings: Settings = QUICK, is_split: bool = True) -> Start:
    """A network at its start and all it is trained with."""
    known, other, preprocess = data
    blocks = draw(known, preprocess, is_split, (0, 0, 0))
    basis = fit_basis(blocks, settings.rank, 0)
    torch.manual_seed(0)
    if settings.init == "random":
        network = random_network(basis.mean, settings.n_latent, settings.hidden, settings.dropout)
    else:
        sizes = settings.n_latent, settings.hidden, settings.dropout
        network = network_in_basis(basis, torch.linspace(1, 0.3, basis.rank), *sizes, settings.basis == "free")
    loss = find_loss(settings.loss)
    center = loss.center or settings.center
    objective = Reconstruction(loss, center, loss_constants(blocks, network.mean, center, LossSettings()))
    needs = PairNeeds(gram=loss.needs == "pairs")
    splits = CountSplits(is_split, settings.n_splits, settings.seed)
    source = PairSource(network, known, preprocess, splits, needs=needs)
    others = [Pairs(network, draw(other, preprocess, is_split, (0, 1, n)), needs) for n in range(2)]
    return Start(network, source, others, objective, settings)


def weights(network: Network) -> dict[str, Tensor]:
    """A copy that training does not change."""
    return copy.deepcopy(network.state_dict())


def are_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """The same tensors bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
