"""Validation of a reconstruction: the losses that choose the epoch, and columns of the history."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from geneae.losses.metrics import METRICS, measure
from geneae.models.network import Network
from geneae.training.batches import Pairs
from geneae.training.devices import Processes
from geneae.training.monitor import EpochStatistics
from geneae.training.objectives import Reconstruction

CHUNK = 4096  # pairs evaluated at a time

Validate = Callable[[Network, Processes], tuple[Tensor, dict[str, float]]]
"""Function that returns (n_profiles,) validation losses and further columns of the history; every process calls it."""


@torch.no_grad()
def validate(
    network: Network,
    processes: Processes,
    pairs: list[Pairs],
    objective: Reconstruction,
    batch_size: int = CHUNK,
) -> tuple[Tensor, dict[str, float]]:
    """(n_profiles,) losses, means over the pairs of a profile; and columns of the history, over all pairs.

    Each process computes its part of the pairs and receives the results of all. A loss that compares the profiles of a
    mini-batch gets mini-batches of about the same size as in training, each of different profiles; every process then
    computes all of them.
    """
    network.eval()
    losses: list[Tensor] = []
    statistics = EpochStatistics(objective)
    values: dict[str, list[Tensor]] = {name: [] for name in ("cosine", "mse", "norm_ratio")}
    n_pairs, where = 0, []
    is_shared = objective.loss.needs == "products"
    for some in pairs:
        own = torch.arange(len(some))
        own = processes.part(own) if is_shared else own
        where.append(n_pairs + own)
        n_pairs += len(some)
        for index in own.split(CHUNK) if is_shared else _batches(some, batch_size):
            found = objective.reconstruct(network, some.take(index).to(network.mean.device), ("none",))
            losses.append(objective.by_profile(found.for_loss))
            statistics.add(found.for_loss, found.latent)
            for name, of_metric in values.items():
                of_metric.append(measure(METRICS[name], found.plain["none"]))

    def join(found: list[Tensor]) -> Tensor:
        own = torch.cat(found)
        return processes.join(own, torch.cat(where), n_pairs) if is_shared else own

    joined = {name: join(found) for name, found in values.items()}
    by_pair = join(losses).double().cpu()  # like those of views, and of a checkpoint
    return by_pair.reshape(-1, pairs[0].n_profiles).mean(0), {
        "validation_cosine": float(joined["cosine"].nanmean()),
        "validation_mse": float(joined["mse"].nanmean()),
        "norm_ratio": float(joined["norm_ratio"].nanmedian()),
        **statistics.means(join),
    }


def _batches(pairs: Pairs, batch_size: int) -> Iterator[Tensor]:
    """All pairs in order, in mini-batches of nearly equal size, at most `batch_size`, each of different profiles."""
    for profiles in torch.arange(len(pairs)).split(pairs.n_profiles):
        yield from profiles.tensor_split(-(-len(profiles) // batch_size))
