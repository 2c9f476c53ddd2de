"""Neighbours in common: how much of the neighbourhood of a profile two latents of it agree on."""

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_DISTANCES = 2**22  # distances in memory at a time
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
    shares = []
    for pair in ((first, second), (F.normalize(first, dim=1), F.normalize(second, dim=1))):
        one, other = (nearest_others(latent, number) for latent in pair)
        shares.append((one[:, :, None] == other[:, None]).sum((1, 2)).double() / number)
    return torch.stack(shares).mean(0)


def nearest_others(latent: Tensor, number: int) -> Tensor:
    """(n, number) positions of the nearest other profiles of each by Euclidean distance, in float64; at most n - 1 of
    them."""
    positions, number = latent.double(), min(number, len(latent) - 1)
    squared = positions.square().sum(1)
    parts = []
    for rows in torch.arange(len(latent)).split(max(1, CHUNK_DISTANCES // max(1, len(latent)))):
        distances = torch.addmm(squared[None], positions[rows], positions.T, alpha=-2)  # without what a row shares
        distances[torch.arange(len(rows)), rows] = torch.inf
        parts.append(distances.topk(number, dim=1, largest=False).indices)
    return torch.cat(parts)
