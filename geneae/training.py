"""The training loop: an optimiser over pairs, and the best epoch by validation."""

import contextlib
import copy
import ctypes
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor

from geneae.checkpoints import Checkpoint, Progress, stops_wait
from geneae.devices import Ranks, open_ranks
from geneae.dynamics import STOPPING, Dynamics, Watch, relative_update, snapshot
from geneae.errors import InputError, Interrupted
from geneae.metrics import METRICS, measure
from geneae.network import Network, cut_initialize
from geneae.objectives import Objective, Reconstruction
from geneae.pairs import Pairs
from geneae.settings import Settings

CHUNK = 4096  # pairs evaluated at a time
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BYTES = 2**28
SHOWN = 3  # profiles named in a message
STOP = 2**10  # tells the wish to stop from wishes to write, in their sum over processes
RANK_STRIDE = 2**40  # between the seeds of processes, which draw their own dropout: no user has so large a seed
SGD_MOMENTUM = 0.9  # of `sgd-momentum`, as in the papers on self-supervised learning that use it
LINEAR_RATE = 0.1  # learning rate of the linear paths over that of the MLPs; they start at the right place


JudgeEpoch = Callable[[Network], tuple[Tensor, dict[str, float]]]
"""Gives the losses by validation profile, and what else a row of the history holds."""


class Batches(Protocol):
    """The steps of an epoch, as the loop sees them."""

    n_profiles: int

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
    """Whether patience, or a collapse, ended the training."""
    collapse: str | None = None
    """Name in `geneae.dynamics.COLLAPSES` of what was there at the end, if anything."""


def train(
    network: Network,
    source: Source,
    validation: list[Pairs],
    objective: Objective,
    settings: Settings,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    checkpoint: Checkpoint | None = None,
    names: pd.Index | None = None,
    judge_epoch: JudgeEpoch | None = None,
) -> Training:
    """Train a network in place and leave it with the weights of the epoch of least validation loss.

    Where the validation loss of an objective does not choose (see `Objective.chooses_epoch`), the last epoch is taken.

    Among the candidates is the exact start (PCA, or shrunken PCA, in a PCA basis). An epoch takes its place only if
    its validation loss is lower by more than two standard errors of the paired difference over profiles: with few
    profiles, the best of many epochs is often no better on others, and the simpler model is kept (after the rule of
    Breiman et al. 1984, which asks for one).

    With several devices every process calls it with the same arguments and ends with the same weights.

    Parameters
    ----------
    network
        Freshly initialised.
    source
        Training pairs, or views.
    validation
        Pairs that choose the epoch and nothing else.
    objective
        What is minimised.
    settings
        Epochs, steps, rates, devices. A random start is cut before it is recorded; one at PCA after that, as PCA stays
        what the fit can fall back on.
    on_epoch
        Called with each row of the history.
    checkpoint
        To go on from, if there is something, and to write now and then. With it, SIGINT and SIGTERM wait for the end
        of a step, have it written and raise `Interrupted`.
    names
        Of the training profiles, for messages.
    judge_epoch
        Losses by profile and what else a row of the history holds; by default `judge` on the validation pairs.
    """
    ranks = open_ranks(settings)
    if network.is_free:
        _keep_memory()
    network.to(ranks.device)
    ranks.equalise(network)
    n_threads = torch.get_num_threads() if network.is_free else 1
    begin = time.perf_counter() - (checkpoint.seconds if checkpoint is not None else 0.0)
    rows: list[dict[str, float]] = []

    def judge_pairs(network: Network) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(objective, Reconstruction)
        return judge(network, validation, objective, ranks, settings.batch_size)

    def record(epoch: int, train_loss: float, update: float, train_seconds: float) -> Tensor:
        with _threads(n_threads):
            losses, means = (judge_epoch or judge_pairs)(network)
        row = {"epoch": epoch, "train_loss": train_loss, "validation_loss": float(losses.mean()), **means}
        row |= {"relative_update": update, "train_seconds": train_seconds, "seconds": time.perf_counter() - begin}
        if on_epoch is not None:
            on_epoch(row)
        rows.append(row)
        return losses

    def save(is_asked: bool = False) -> None:
        """Write the checkpoint if it is asked for, or if it is time to, or if all is to stop after this step."""
        if checkpoint is None:
            return
        is_wanted = is_asked or (ranks.rank == 0 and checkpoint.is_due())
        wishes = ranks.total(STOP * bool(stopped_by()) + is_wanted)  # of all, so that all do the same
        if wishes:
            checkpoint.write(progress, time.perf_counter() - begin, ranks)
        if wishes >= STOP:
            raise Interrupted(stopped_by() or signal.SIGTERM)

    def runaway(loss: float, index: Tensor, n_profiles: int) -> InputError:
        said = _runaway(loss, progress, settings, index % n_profiles, names)
        return InputError(said if checkpoint is None else f"{said} The weights before are in {checkpoint.path}.")

    def begin_steps() -> torch.optim.Optimizer:
        objective.begin(network, _n_steps(source, settings), settings.cut if settings.cut_where == "all" else 1.0)
        return _optimizer(network, objective, settings)

    order = torch.Generator().manual_seed(settings.seed)
    if checkpoint is not None and checkpoint.is_resumed:
        progress = checkpoint.restore(network, objective, begin_steps(), order, ranks.rank)
        rows += progress.rows
        if on_epoch is not None:
            for row in rows:
                on_epoch(row)
    else:
        starts_at_pca = settings.init == "pca"  # which is no cut network, but what a fit can fall back on
        if not starts_at_pca:
            _cut(network, objective, source, settings)
        initial = copy.deepcopy(network.state_dict())
        if objective.chooses_epoch:
            network.core.silence_mlps()
        at_start = record(0, math.nan, 0.0, 0.0)
        best_state = copy.deepcopy(network.state_dict())
        network.load_state_dict(initial)
        if starts_at_pca:
            _cut(network, objective, source, settings)
        progress = Progress(network, objective, begin_steps(), order.get_state(), at_start, rows, 0, best_state)
        if ranks.rank:
            torch.manual_seed(settings.seed + RANK_STRIDE * ranks.rank)
    progress.rows = rows
    watch = Watch(objective, rows[0]) if isinstance(objective, Reconstruction) else None
    collapse = None
    for row in rows[1:]:
        collapse = watch.look(row) if watch is not None else None
    waiting = stops_wait() if checkpoint is not None else contextlib.nullcontext(lambda: 0)
    with waiting as stopped_by:
        save(is_asked=len(rows) == 1)
        while (
            progress.epoch <= settings.epochs
            and progress.epoch - 1 - progress.best < settings.patience
            and collapse not in STOPPING
        ):
            start = time.perf_counter() - progress.train_seconds
            pairs = source.epoch(progress.epoch)
            with _threads(n_threads):
                train_loss = _train_epoch(progress, pairs, objective, settings, order, ranks, start, save, runaway)
            losses = record(progress.epoch, train_loss, progress.update, time.perf_counter() - start)
            collapse = watch.look(rows[-1]) if watch is not None else None
            best = rows[progress.best]["validation_loss"]
            is_better = rows[-1]["validation_loss"] < best and _is_gain(progress.at_start - losses)
            if is_better or not objective.chooses_epoch:
                progress.best, progress.best_state = progress.epoch, copy.deepcopy(network.state_dict())
            progress.epoch += 1
            progress.step, progress.total, progress.train_seconds = 0, 0.0, 0.0
            progress.order = order.get_state()
            save()
    network.load_state_dict(progress.best_state)
    network.eval()
    stopped_early = len(rows) - 1 < settings.epochs
    return Training(pd.DataFrame(rows).astype({"epoch": int}), progress.best, stopped_early, collapse)


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


def _cut(network: Network, objective: Objective, source: Source, settings: Settings) -> None:
    """Make the start smaller as the settings say; a target norm is reached on a random batch."""
    inputs = None
    if settings.target_norm is not None:
        pairs = source.epoch(1)
        order = pairs.order(torch.Generator().manual_seed(settings.seed))
        inputs = _to_device(objective.batch(pairs, order[: settings.batch_size], 0.0), network)[0]
    choices = settings.cut, settings.cut_where, settings.cut_bias, settings.target_norm
    cut_initialize(network, *choices, inputs)


def _is_gain(gains: Tensor) -> bool:
    """Whether the mean of paired gains is above two standard errors of it."""
    error = float(gains.std()) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    return float(gains.mean()) > 2 * error


def _optimizer(network: Network, objective: Objective, settings: Settings) -> torch.optim.Optimizer:
    linear = list(network.linear_parameters())
    slow = {id(parameter) for parameter in linear}
    others = [parameter for parameter in network.parameters() if id(parameter) not in slow]
    others += objective.learned()
    groups = [
        {"params": others, "weight_decay": settings.weight_decay, "rate": settings.learning_rate},
        {"params": linear, "weight_decay": 0.0, "rate": settings.learning_rate * LINEAR_RATE},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
    momentum = SGD_MOMENTUM if settings.optimizer == "sgd-momentum" else 0.0
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=momentum)


def _n_steps(source: Source, settings: Settings) -> int:
    """Steps of all epochs."""
    order = source.epoch(1).order(torch.Generator())
    return settings.epochs * len(order.split(settings.batch_size))


def rate_factor(step: int, n_steps: int) -> float:
    """Factor of the learning rate: 1 in the first half of the steps, then falling linearly towards 0."""
    return min(1.0, 2 * (1 - step / n_steps))


def _train_epoch(
    progress: Progress,
    pairs: Batches,
    objective: Objective,
    settings: Settings,
    order: torch.Generator,
    ranks: Ranks,
    start: float,
    save: Callable[[], None],
    runaway: Callable[[float, Tensor, int], InputError],
) -> float:
    """What is left of one pass over all profiles, begun at `start`; the mean loss per step, weighted by profiles.

    `save` is called after each step; `runaway` makes the error for a loss that is no number.
    """
    network, optimizer, epoch = progress.network, progress.optimizer, progress.epoch
    network.train()
    batches = pairs.order(order).split(settings.batch_size)
    for index in batches[progress.step :]:
        factor = rate_factor((epoch - 1) * len(batches) + progress.step, settings.epochs * len(batches))
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * factor
        own = ranks.part(index)
        with ranks.autocast():
            batch = objective.batch(pairs, own, (epoch - 1) / settings.epochs)
            seen = objective.see(network, _to_device(batch, network))
        value = objective(seen)
        optimizer.zero_grad()
        value.backward()
        weight = float(objective.n_counted(seen)) if ranks.size > 1 and ranks.has_part(index) else 0.0
        loss = ranks.average(network, value, weight)
        if not math.isfinite(loss):
            raise runaway(loss, index, pairs.n_profiles)
        is_last = progress.step == len(batches) - 1
        before = snapshot(network) if is_last else []
        optimizer.step()
        progress.update = relative_update(network, before) if is_last else math.nan
        objective.after_step(network, seen)
        progress.total += loss * len(index)
        progress.step += 1
        progress.train_seconds = time.perf_counter() - start
        save()
    return progress.total / sum(map(len, batches))


def _runaway(loss: float, progress: Progress, settings: Settings, rows: Tensor, names: pd.Index | None) -> str:
    """What is wrong with a loss that is no number any more, with the profiles it was found on."""
    first = [f"'{names[row]}'" if names is not None else f"{row}" for row in rows[:SHOWN].tolist()]
    more = f" and {len(rows) - len(first)} more" if len(rows) > len(first) else ""
    return (
        f"the loss became {loss} in epoch {progress.epoch}, step {progress.step + 1}, on the profiles "
        f"{', '.join(first)}{more}. Lower the learning rate ({settings.learning_rate:g}), or look for extreme values "
        "in these profiles."
    )


def _to_device(batch: Any, network: Network) -> Any:
    if isinstance(batch, tuple):
        return tuple(_to_device(part, network) for part in batch)
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
            inputs, target, *others = _to_device(objective.batch(some, index, 1.0), network)
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
