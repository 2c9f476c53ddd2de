"""Validation of a reconstruction: the losses that choose the epoch, and the numbers of the history."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from geneae.losses.metrics import METRICS, measure
from geneae.models.network import Network
from geneae.training.batches import Pairs
from geneae.training.devices import Ranks
from geneae.training.monitor import Dynamics
from geneae.training.objectives import Reconstruction

CHUNK = 4096  # pairs evaluated at a time


def to_device(batch: Any, network: Network) -> Any:
    if isinstance(batch, tuple):
        return tuple(to_device(part, network) for part in batch)
    return batch.to(network.mean.device)


@torch.no_grad()
def judge(
    network: Network,
    pairs: list[Pairs],
    objective: Reconstruction,
    ranks: Ranks | None = None,
    batch_size: int = CHUNK,
) -> tuple[Tensor, dict[str, float]]:
    """Loss by profile, (n_profiles,), mean over its pairs; and over all pairs mean cosine and mse, norms and dynamics.

    With `ranks`, each process computes those of its own part of the pairs and gets those of all. A loss that compares
    the profiles of a batch sees batches of about the size of those in training, each of different profiles; every
    process then computes all.
    """
    network.eval()
    losses: list[Tensor] = []
    dynamics = Dynamics(objective)
    values: dict[str, list[Tensor]] = {name: [] for name in ("cosine", "mse", "norm_ratio")}
    n_pairs, where = 0, []
    ranks = None if objective.loss.compares else ranks
    for some in pairs:
        own = torch.arange(len(some)) if ranks is None else ranks.part(torch.arange(len(some)))
        where.append(n_pairs + own)
        n_pairs += len(some)
        for index in _batches(some, batch_size) if objective.loss.compares else own.split(CHUNK):
            inputs, target, *others = to_device(objective.batch(some, index, 1.0), network)
            centers = objective.center, "none"
            (products, plain), latent = network(inputs, target, *centers, others=others[0] if others else None)
            losses.append(objective.by_profile(products))
            dynamics.add(products, latent)
            for name, found in values.items():
                found.append(measure(METRICS[name], plain))

    def join(found: list[Tensor]) -> Tensor:
        own = torch.cat(found)
        return own if ranks is None else ranks.join(own, torch.cat(where), n_pairs)

    joined = {name: join(found) for name, found in values.items()}
    by_pair = join(losses).double()
    return by_pair.reshape(-1, pairs[0].n_profiles).mean(0), {
        "validation_cosine": float(joined["cosine"].nanmean()),
        "validation_mse": float(joined["mse"].nanmean()),
        "norm_ratio": float(joined["norm_ratio"].nanmedian()),
        **dynamics.means(join),
    }


def _batches(pairs: Pairs, batch_size: int) -> Iterator[Tensor]:
    """All pairs in order, in batches of at most that size, of nearly equal size and of different profiles."""
    for profiles in torch.arange(len(pairs)).split(pairs.n_profiles):
        yield from profiles.tensor_split(-(-len(profiles) // batch_size))
