"""The training loop: an optimiser over pairs, and the best epoch by validation."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor

from geneae.errors import InputError
from geneae.metrics import METRICS, measure
from geneae.network import Network, cut_initialize
from geneae.objectives import Reconstruction
from geneae.pairs import Batch, Pairs, PairSource

CHUNK = 4096  # pairs evaluated at a time
LINEAR_RATE = 0.1  # learning rate of the linear paths over that of the MLPs; they start at the right place


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how fast to train."""

    epochs: int = 60
    """At most."""
    patience: int = 20
    """Epochs without a better validation loss after which training stops."""
    batch_size: int = 512
    """Pairs of input and target a step."""
    learning_rate: float = 2e-3
    """Of AdamW; falls linearly to zero over the second half of the epochs."""
    weight_decay: float = 0.05
    """Decoupled; on the MLPs and on random matrices, not on linear paths that start at PCA."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    precision: str = "32"
    """32 or bf16."""
    seed: int = 0
    """Of batch order and dropout."""

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1; found {getattr(self, name)}.")
        if not self.learning_rate > 0 or not self.weight_decay >= 0:
            raise InputError(
                "the learning rate must be above 0 and the weight decay at least 0; found "
                f"{self.learning_rate:g} and {self.weight_decay:g}."
            )


@dataclass(frozen=True)
class Fit:
    """What training leaves behind; the network it was given holds the weights of the best epoch."""

    history: pd.DataFrame
    """One row per epoch; epoch 0 is the start."""
    best_epoch: int
    """0 where no epoch was better on validation than the start."""
    stopped_early: bool
    """Whether patience ended the training."""


def train(
    network: Network,
    source: PairSource,
    validation: list[Pairs],
    objective: Reconstruction,
    settings: TrainingSettings,
    cut: float = 1.0,
    cut_where: str = "all",
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Fit:
    """Train a network in place and leave it with the weights of the epoch of least validation loss.

    Among the candidates is the exact start (PCA, or shrunken PCA, in a PCA basis), so that validation never ends
    worse than there.

    Parameters
    ----------
    network
        Freshly initialised; on the device that it is to be trained on.
    source
        Training pairs.
    validation
        Pairs that choose the epoch and nothing else.
    objective
        What is minimised.
    settings
        Epochs, steps, rates.
    cut, cut_where
        Cut-initialisation, after the start was recorded.
    on_epoch
        Called with each row of the history.
    """
    device, autocast = open_device(settings)
    network.to(device)
    begin = time.perf_counter()

    def record(epoch: int, train_loss: float, train_seconds: float) -> dict[str, float]:
        row = {"epoch": epoch, "train_loss": train_loss, **judge(network, validation, objective)}
        row |= {"train_seconds": train_seconds, "seconds": time.perf_counter() - begin}
        if on_epoch is not None:
            on_epoch(row)
        return row

    initial = copy.deepcopy(network.state_dict())
    network.core.silence_mlps()
    rows = [record(0, math.nan, 0.0)]
    best, best_state = rows[0], copy.deepcopy(network.state_dict())
    network.load_state_dict(initial)
    cut_initialize(network, cut, cut_where)
    optimizer = _optimizer(network, settings)
    order = torch.Generator().manual_seed(settings.seed)
    for epoch in range(1, settings.epochs + 1):
        start = time.perf_counter()
        pairs = source.epoch(epoch)
        train_loss = _train_epoch(network, pairs, objective, settings, optimizer, order, epoch, autocast)
        rows.append(record(epoch, train_loss, time.perf_counter() - start))
        if rows[-1]["validation_loss"] < best["validation_loss"]:
            best, best_state = rows[-1], copy.deepcopy(network.state_dict())
        if epoch - best["epoch"] >= settings.patience:
            break
    network.load_state_dict(best_state)
    network.eval()
    stopped_early = len(rows) - 1 < settings.epochs
    return Fit(pd.DataFrame(rows).astype({"epoch": int}), int(best["epoch"]), stopped_early)


def open_device(settings: TrainingSettings) -> tuple[torch.device, Callable[[], Any]]:
    """The device asked for and its precision, by Lightning Fabric.

    Returns
    -------
    The device, and a context for forward passes in the precision asked for.
    """
    from lightning_fabric import Fabric  # slow to load

    precision: dict[str, Literal["32-true", "bf16-mixed"]] = {"32": "32-true", "bf16": "bf16-mixed"}
    if settings.precision not in precision:
        raise InputError(f"precision must be one of {', '.join(precision)}; found '{settings.precision}'.")
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda was asked for, but torch finds no CUDA device. Use --device cpu or auto.")
    if settings.device == "mps" and not torch.backends.mps.is_available():
        raise InputError("device mps was asked for, but torch finds no Apple GPU. Use --device cpu or auto.")
    if settings.device not in ("auto", "cpu", "cuda", "mps"):
        raise InputError(f"device must be one of auto, cpu, cuda, mps; found '{settings.device}'.")
    fabric = Fabric(accelerator=settings.device, devices=1, precision=precision[settings.precision])
    return fabric.device, fabric.autocast


def _optimizer(network: Network, settings: TrainingSettings) -> torch.optim.Optimizer:
    linear = list(network.linear_parameters())
    slow = {id(parameter) for parameter in linear}
    others = [parameter for parameter in network.parameters() if id(parameter) not in slow]
    groups = [
        {"params": others, "weight_decay": settings.weight_decay, "rate": settings.learning_rate},
        {"params": linear, "weight_decay": 0.0, "rate": settings.learning_rate * LINEAR_RATE},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.learning_rate, fused=True)


def rate_factor(step: int, n_steps: int) -> float:
    """Factor of the learning rate: 1 in the first half of the steps, then falling linearly towards 0."""
    return min(1.0, 2 * (1 - step / n_steps))


def _train_epoch(
    network: Network,
    pairs: Pairs,
    objective: Reconstruction,
    settings: TrainingSettings,
    optimizer: torch.optim.Optimizer,
    order: torch.Generator,
    epoch: int,
    autocast: Callable[[], Any],
) -> float:
    """One pass over all pairs; the mean loss per step, weighted by pairs."""
    network.train()
    batches = torch.randperm(len(pairs), generator=order).split(settings.batch_size)
    total = 0.0
    for number, index in enumerate(batches):
        factor = rate_factor((epoch - 1) * len(batches) + number, settings.epochs * len(batches))
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * factor
        with autocast():
            (products,), _ = network(*_to_device(pairs.take(index), network), objective.center)
        value = objective(products)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        total += float(value.detach()) * len(index)
    if not math.isfinite(total):
        raise InputError(
            f"the loss became {total} in epoch {epoch}. Lower the learning rate ({settings.learning_rate:g}), "
            "or look for extreme values in the data."
        )
    return total / len(pairs)


def _to_device(batch: Batch, network: Network) -> Batch:
    inputs, target = batch
    return inputs.to(network.mean.device), target.to(network.mean.device)


@torch.no_grad()
def judge(network: Network, pairs: list[Pairs], objective: Reconstruction) -> dict[str, float]:
    """Over all pairs: mean loss, plain cosine and mse, and medians of norm ratio and latent norm."""
    network.eval()
    losses: list[Tensor] = []
    norms: list[Tensor] = []
    values: dict[str, list[Tensor]] = {name: [] for name in ("cosine", "mse", "norm_ratio")}
    for some in pairs:
        for index in torch.arange(len(some)).split(CHUNK):
            (products, plain), latent = network(*_to_device(some.take(index), network), objective.center, "none")
            losses.append(objective(products) * len(index))
            norms.append(latent.norm(dim=1))
            for name, found in values.items():
                found.append(measure(METRICS[name], plain))
    joined = {name: torch.cat(found) for name, found in values.items()}
    return {
        "validation_loss": float(torch.stack(losses).sum()) / sum(len(some) for some in pairs),
        "validation_cosine": float(joined["cosine"].nanmean()),
        "validation_mse": float(joined["mse"].nanmean()),
        "norm_ratio": float(joined["norm_ratio"].nanmedian()),
        "latent_norm": float(torch.cat(norms).median()),
    }
