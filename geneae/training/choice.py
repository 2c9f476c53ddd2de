"""Choice of the epoch where the loss of an objective cannot make it: by what latents are good for."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from geneae.losses.shared_neighbours import shared_neighbours
from geneae.models.network import Network
from geneae.training.view_batches import TwoViews

NEIGHBOURS = 15  # as many as scanpy's graph has by default


@dataclass(frozen=True)
class Choice:
    """What the loop compares with the start after every epoch, instead of the validation loss."""

    column: str
    """Column of the history with its mean."""
    losses: Callable[[Network], Tensor]
    """Function that returns (n_profiles,) numbers of validation profiles, lower is better."""


def by_neighbours(halves: list[TwoViews]) -> Choice:
    """Choice by the share of neighbours that the latents of both halves of a profile do not have in common.

    It needs no label and no head, so that it says of the start what it says of an epoch: a loss of agreement falls
    because its heads learn, whatever becomes of the latents. Halves have no molecule in common, so that neighbours
    found in both are not found by noise.

    Parameters
    ----------
    halves
        Both halves of validation profiles, from one count split or more.
    """

    @torch.no_grad()
    def unshared(network: Network) -> Tensor:
        network.eval()
        shares = []
        for views in halves:
            both = views.to(network.mean.device)
            first, second = (network.encode(network.read(view)).cpu() for view in (both.first, both.second))
            shares.append(shared_neighbours(first, second, NEIGHBOURS))
        return 1 - torch.stack(shares).mean(0)

    return Choice("unshared_neighbours", unshared)
