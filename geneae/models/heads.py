"""Heads on an encoder while it learns from views, discarded after training: projectors, predictors, prototypes."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geneae.losses.sparse_rows import SparseRows
from geneae.models.network import Network


def layers(sizes: tuple[int, ...], is_normalized: bool, is_last_normalized: bool = False) -> nn.Sequential:
    """Linear layers of these sizes with ReLU between them.

    Parameters
    ----------
    sizes
        Sizes of input, hidden layers and output.
    is_normalized
        Whether BatchNorm precedes each ReLU; such a layer needs no bias.
    is_last_normalized
        Whether BatchNorm follows the last layer, without scale and shift, because the next step would undo these.
    """
    parts: list[nn.Module] = []
    for n_inputs, n_outputs in pairwise(sizes[:-1]):
        parts.append(nn.Linear(n_inputs, n_outputs, bias=not is_normalized))
        parts += [nn.BatchNorm1d(n_outputs)] * is_normalized
        parts.append(nn.ReLU())
    parts.append(nn.Linear(sizes[-2], sizes[-1], bias=not is_last_normalized))
    parts += [nn.BatchNorm1d(sizes[-1], affine=False)] * is_last_normalized
    return nn.Sequential(*parts)


class Prototypes(nn.Module):
    """Cosines of an embedding with learned directions: the last layer of DINO, whose weight vectors have length one."""

    def __init__(self, embedding: nn.Module, n_embedding: int, n_prototypes: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.directions = nn.Parameter(torch.randn(n_prototypes, n_embedding))

    def forward(self, latent: Tensor) -> Tensor:
        """(n_profiles, n_prototypes) logits, in [-1, 1]."""
        return F.normalize(self.embedding(latent), dim=1) @ F.normalize(self.directions, dim=1).T


class Branch(nn.Module):
    """Encoder and projector as one module, which a teacher can follow."""

    def __init__(self, network: Network, projector: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.projector = projector

    def forward(self, inputs: Tensor | SparseRows, shift: Tensor | None = None) -> Tensor:
        """(n_profiles, n) projections of profiles; see `Network.read`."""
        projection: Tensor = self.projector(self.network.encode(self.network.read(inputs, shift)))
        return projection


def cut_plainly(module: nn.Module, factor: float) -> None:
    """Divide every parameter by `factor`, in place: weights, biases and the parameters of BatchNorm.

    "Cut-initialisation" as described by Draganov, Vadgama and Bekkers 2024 (arXiv 2406.16468). Unlike `cut_initialize`,
    it changes the directions of outputs.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.div_(factor)
