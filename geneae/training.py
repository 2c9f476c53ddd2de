"""The training loop: an optimiser over pairs, and the best epoch by validation."""

import contextlib
import copy
import ctypes
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pandas as pd
import torch
from torch import Tensor

from geneae.errors import InputError
from geneae.metrics import METRICS, measure
from geneae.network import Network, cut_initialize
from geneae.objectives import Objective, Reconstruction
from geneae.pairs import Pairs
from geneae.settings import Settings

CHUNK = 4096  # pairs evaluated at a time
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BYTES = 2**28
LINEAR_RATE = 0.1  # learning rate of the linear paths over that of the MLPs; they start at the right place


JudgeEpoch = Callable[[Network], tuple[Tensor, dict[str, float]]]
"""Gives the losses by validation profile, and what else a row of the history holds."""


class Batches(Protocol):
    """The steps of an epoch, as the loop sees them."""

    def order(self, generator: torch.Generator) -> Tensor:
        """Numbers of what is trained on, each profile once, in random order."""

    def take(self, index: Tensor) -> Any:
        """Some of it: tensors or what has a `to`, in tuples."""


class Source(Protocol):
    """Where the batches of an epoch come from."""

    def epoch(self, epoch: int) -> Batches:
        """Of an epoch, counted from 1."""


@dataclass(frozen=True)
class Training:
    """What training leaves behind; the network it was given holds the weights of the best epoch."""

    history: pd.DataFrame
    """One row per epoch; epoch 0 is the start."""
    best_epoch: int
    """0 where no epoch was better on validation than the start."""
    stopped_early: bool
    """Whether patience ended the training."""


def train(
    network: Network,
    source: Source,
    validation: list[Pairs],
    objective: Objective,
    settings: Settings,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    judge_epoch: JudgeEpoch | None = None,
) -> Training:
    """Train a network in place and leave it with the weights of the epoch of least validation loss.

    Where the validation loss of an objective does not choose (see `Objective.chooses_epoch`), the last epoch is taken.

    Among the candidates is the exact start (PCA, or shrunken PCA, in a PCA basis). An epoch takes its place only if
    its validation loss is lower by more than two standard errors of the paired difference over profiles: with few
    profiles, the best of many epochs is often no better on others, and the simpler model is kept (after the rule of
    Breiman et al. 1984, which asks for one).

    Parameters
    ----------
    network
        Freshly initialised; on the device that it is to be trained on.
    source
        Training pairs, or views.
    validation
        Pairs that choose the epoch and nothing else.
    objective
        What is minimised.
    settings
        Epochs, steps, rates; the cut is made after the start was recorded.
    on_epoch
        Called with each row of the history.
    judge_epoch
        Losses by profile and what else a row of the history holds; by default `judge` on the validation pairs.
    """
    device, autocast = open_device(settings)
    _keep_memory()
    network.to(device)
    n_threads = torch.get_num_threads() if network.is_free else 1
    begin = time.perf_counter()

    def judge_pairs(network: Network) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(objective, Reconstruction)
        return judge(network, validation, objective)

    def record(epoch: int, train_loss: float, train_seconds: float) -> Tensor:
        with _threads(n_threads):
            losses, means = (judge_epoch or judge_pairs)(network)
        row = {"epoch": epoch, "train_loss": train_loss, "validation_loss": float(losses.mean()), **means}
        row |= {"train_seconds": train_seconds, "seconds": time.perf_counter() - begin}
        if on_epoch is not None:
            on_epoch(row)
        rows.append(row)
        return losses

    initial = copy.deepcopy(network.state_dict())
    if objective.chooses_epoch:
        network.core.silence_mlps()
    rows: list[dict[str, float]] = []
    at_start = record(0, math.nan, 0.0)
    best, best_state = rows[0], copy.deepcopy(network.state_dict())
    network.load_state_dict(initial)
    cut_initialize(network, settings.cut, settings.cut_where)
    order = torch.Generator().manual_seed(settings.seed)
    objective.begin(network, _n_steps(source, settings), settings.cut if settings.cut_where == "all" else 1.0)
    optimizer = _optimizer(network, objective, settings)
    for epoch in range(1, settings.epochs + 1):
        start = time.perf_counter()
        batches = source.epoch(epoch)
        with _threads(n_threads):
            train_loss = _train_epoch(network, batches, objective, settings, optimizer, order, epoch, autocast)
        losses = record(epoch, train_loss, time.perf_counter() - start)
        is_better = rows[-1]["validation_loss"] < best["validation_loss"] and _is_gain(at_start - losses)
        if is_better or not objective.chooses_epoch:
            best, best_state = rows[-1], copy.deepcopy(network.state_dict())
        if epoch - best["epoch"] >= settings.patience:
            break
    network.load_state_dict(best_state)
    network.eval()
    stopped_early = len(rows) - 1 < settings.epochs
    return Training(pd.DataFrame(rows).astype({"epoch": int}), int(best["epoch"]), stopped_early)


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """So many threads inside. The small steps of a fixed basis are quickest on one: several would wait for each other,
    on a busy machine ten times as long as they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _keep_memory() -> None:
    """Let glibc keep freed memory: gradients of 10 MB, given back to the system and asked for again at every step, cost
    a third of its time in page faults. Elsewhere nothing is done."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)


def _is_gain(gains: Tensor) -> bool:
    """Whether the mean of paired gains is above two standard errors of it."""
    error = float(gains.std()) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    return float(gains.mean()) > 2 * error


def open_device(settings: Settings) -> tuple[torch.device, Callable[[], Any]]:
    """The device asked for and its precision, by Lightning Fabric.

    Returns
    -------
    The device, and a context for forward passes in the precision asked for.
    """
    from lightning_fabric import Fabric  # slow to load

    if settings.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda was asked for, but torch finds no CUDA device. Use --device cpu or auto.")
    if settings.device == "mps" and not torch.backends.mps.is_available():
        raise InputError("device mps was asked for, but torch finds no Apple GPU. Use --device cpu or auto.")
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed" if settings.precision == "bf16" else "32-true"
    fabric = Fabric(accelerator=settings.device, devices=1, precision=precision)
    return fabric.device, fabric.autocast


def _optimizer(network: Network, objective: Objective, settings: Settings) -> torch.optim.Optimizer:
    linear = list(network.linear_parameters())
    slow = {id(parameter) for parameter in linear}
    others = [parameter for parameter in network.parameters() if id(parameter) not in slow]
    others += objective.learned()
    groups = [
        {"params": others, "weight_decay": settings.weight_decay, "rate": settings.learning_rate},
        {"params": linear, "weight_decay": 0.0, "rate": settings.learning_rate * LINEAR_RATE},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.learning_rate, fused=True)


def _n_steps(source: Source, settings: Settings) -> int:
    """Steps of all epochs."""
    order = source.epoch(1).order(torch.Generator())
    return settings.epochs * len(order.split(settings.batch_size))


def rate_factor(step: int, n_steps: int) -> float:
    """Factor of the learning rate: 1 in the first half of the steps, then falling linearly towards 0."""
    return min(1.0, 2 * (1 - step / n_steps))


def _train_epoch(
    network: Network,
    source: Batches,
    objective: Objective,
    settings: Settings,
    optimizer: torch.optim.Optimizer,
    order: torch.Generator,
    epoch: int,
    autocast: Callable[[], Any],
) -> float:
    """One pass over all profiles; the mean loss per step, weighted by profiles."""
    network.train()
    batches = source.order(order).split(settings.batch_size)
    total = 0.0
    for number, index in enumerate(batches):
        factor = rate_factor((epoch - 1) * len(batches) + number, settings.epochs * len(batches))
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * factor
        with autocast():
            seen = objective.see(network, _to_device(source.take(index), network))
        value = objective(seen)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        objective.after_step(network, seen)
        total += float(value.detach()) * len(index)
    if not math.isfinite(total):
        raise InputError(
            f"the loss became {total} in epoch {epoch}. Lower the learning rate ({settings.learning_rate:g}), "
            "or look for extreme values in the data."
        )
    return total / sum(map(len, batches))


def _to_device(batch: Any, network: Network) -> Any:
    if isinstance(batch, tuple):
        return tuple(_to_device(part, network) for part in batch)
    return batch.to(network.mean.device)


@torch.no_grad()
def judge(network: Network, pairs: list[Pairs], objective: Reconstruction) -> tuple[Tensor, dict[str, float]]:
    """Loss by profile, (n_profiles,), mean over its pairs; and over all pairs mean cosine and mse, median norms."""
    network.eval()
    losses: list[Tensor] = []
    norms: list[Tensor] = []
    values: dict[str, list[Tensor]] = {name: [] for name in ("cosine", "mse", "norm_ratio")}
    for some in pairs:
        for index in torch.arange(len(some)).split(CHUNK):
            (products, plain), latent = network(*_to_device(some.take(index), network), objective.center, "none")
            losses.append(objective.by_profile(products))
            norms.append(latent.norm(dim=1))
            for name, found in values.items():
                found.append(measure(METRICS[name], plain))
    joined = {name: torch.cat(found) for name, found in values.items()}
    by_pair = torch.cat(losses).double()
    return by_pair.reshape(-1, pairs[0].n_profiles).mean(0), {
        "validation_cosine": float(joined["cosine"].nanmean()),
        "validation_mse": float(joined["mse"].nanmean()),
        "norm_ratio": float(joined["norm_ratio"].nanmedian()),
        "latent_norm": float(torch.cat(norms).median()),
    }
