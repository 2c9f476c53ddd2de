"""Neighbours in common: how much of the neighbourhood of a profile two latents of it agree on."""

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_PROFILES = 4096  # profiles among which neighbours are sought; more change no choice and take quadratic time


def shared_neighbours(first: Tensor, second: Tensor, number: int) -> Tensor:
    """(n,) share of the nearest other profiles in `first` that are also nearest in `second`; 0 to 1, higher is better.

    Mean over neighbours by Euclidean distance and by cosine, because latents are read in both ways. 1 where no profile
    has another one; with fewer than `number` others, a half of them are sought.

    Parameters
    ----------
    first, second
        (n, n_latent) latents of the same profiles, of other molecules of theirs, say.
    number
        Neighbours of each profile.
    """
    n_others = len(first) - 1
    number = min(number, (n_others + 1) // 2)  # all others would always be shared
    if number < 1:
        return torch.ones(len(first), dtype=torch.float64)
    pairs = [(first, second), (F.normalize(first, dim=1), F.normalize(second, dim=1))]
    shares = [(_are_nearest(one, number) & _are_nearest(other, number)).sum(1) / number for one, other in pairs]
    return torch.stack(shares).double().mean(0)


def _are_nearest(latent: Tensor, number: int) -> Tensor:
    """(n, n) whether column j is one of the nearest others of row i, by exact distances in float64."""
    positions = latent.double()
    distances = torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    nearest = distances.topk(number, dim=1, largest=False).indices
    return torch.zeros_like(distances, dtype=torch.bool).scatter_(1, nearest, True)
