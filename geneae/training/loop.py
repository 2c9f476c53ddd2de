"""Training loop: optimiser steps over mini-batches, and the best epoch by validation."""

import contextlib
import copy
import ctypes
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from geneae.models.cut import cut_initialize
from geneae.models.network import Network
from geneae.settings.errors import InputError, Interrupted
from geneae.settings.settings import Settings
from geneae.training.checkpoints import Checkpoint, TrainingState, stops_wait
from geneae.training.choice import Choice
from geneae.training.devices import Processes, open_processes, threads
from geneae.training.mixing import mixed_evenly
from geneae.training.monitor import STOPPING, CollapseMonitor, relative_update, snapshot
from geneae.training.objectives import Objective, Reconstruction
from geneae.training.schedule import schedule
from geneae.training.validation import Validate

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # constants of glibc's malloc.h
KEPT_BYTES = 2**28  # value of both thresholds, well above the size of a gradient
SHOWN = 3  # profiles named in a message
STOP = 2**10  # distinguishes requests to stop from requests to write, in their sum over processes
RANK_STRIDE = 2**40  # between the dropout seeds of processes, larger than any seed that a user would choose
CLEAR = 2.0  # standard errors above which a mean gain counts
SGD_MOMENTUM = 0.9  # momentum of `sgd-momentum`, as in the papers on self-supervised learning that use it
SETTLED = 1e-4  # relative fall of the loss that chooses the epoch below which a training has settled
LINEAR_RATE = 0.1  # learning rate of the linear paths, which start at PCA, relative to that of the MLPs


class Batches(Protocol):
    """Mini-batches of an epoch, as the loop uses them."""

    n_profiles: int

    def order(self, generator: torch.Generator) -> Tensor:
        """Indices of training pairs or views, each profile once, in random order."""

    def take(self, index: Tensor, progress: float = 1.0) -> Any:
        """Mini-batch with `inputs` and `to(device)`; `progress` is the completed share of the training."""


class BatchSource(Protocol):
    """Source of the mini-batches of every epoch."""

    def epoch(self, epoch: int) -> Batches:
        """Mini-batches of an epoch, counted from 1."""


@dataclass(frozen=True)
class Training:
    """Result of a training; the network itself holds the weights of the best epoch."""

    history: pd.DataFrame
    """One row per epoch; epoch 0 is the start."""
    best_epoch: int
    """Epoch whose weights are kept; 0 if no epoch was better on validation than the start."""
    collapse: str | None = None
    """Collapse at the end, by its name in `geneae.training.monitor.COLLAPSES`; None without one."""


@dataclass(frozen=True)
class TrainingPlan:
    """Data and objective of a training."""

    source: BatchSource
    """Source of training pairs or views."""
    validate: Validate
    """Function that computes the validation losses, used only to choose the epoch, and columns of the history."""
    objective: Objective
    """Objective to minimise."""
    names: pd.Index | None = None
    """Names of the training profiles, for messages."""
    choice: Choice | None = None
    """What chooses the epoch in place of the validation loss; None where that does, or where the last one is taken."""
    groups: Tensor | None = None
    """(n_profiles,) groups of the training profiles, from 0, that are mixed evenly in every mini-batch; or None."""


def train(
    network: Network,
    plan: TrainingPlan,
    settings: Settings,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Training:
    """Train a network in place and leave it with the weights of the epoch of lowest validation loss.

    If neither the validation loss chooses the epoch (see `Objective.chooses_epoch`) nor the `choice` of the plan, the
    last one is taken.

    The exact start (PCA, or shrunken PCA, in a PCA basis) is a candidate, too. An epoch replaces it only if its
    validation loss is lower by more than two standard errors of the paired difference over profiles: with few
    profiles, the best of many epochs is often no better on other profiles, and the simpler model is kept (after the
    rule of Breiman et al. 1984, which requires one standard error).

    With several devices, every process calls this function with the same arguments and ends with the same weights.

    Parameters
    ----------
    network
        Freshly initialised.
    plan
        Profiles and objective.
    settings
        Epochs, batch size, learning rate, devices. A random start is cut before it is recorded as epoch 0; a PCA start
        after that, so that the fit can fall back on PCA itself.
    on_epoch
        Function called with each row of the history.
    checkpoint
        File to resume from, if it holds a state, and to write from time to time. With a checkpoint, SIGINT and SIGTERM
        are deferred to the end of the step; then the checkpoint is written and `Interrupted` raised.
    """
    processes = open_processes(settings)
    if network.is_free:
        _keep_memory()
    network.to(processes.device)
    plan.objective.to(processes.device)
    processes.equalise(network)
    loop = TrainingLoop(network, plan, settings, processes, on_epoch, checkpoint)
    if checkpoint is not None and checkpoint.is_resumed:
        loop.resume(checkpoint)
    else:
        loop.begin()
    with stops_wait() if checkpoint is not None else contextlib.nullcontext(lambda: 0) as loop.stopped_by:
        loop.save(is_asked=len(loop.rows) == 1)
        while loop.has_more():
            loop.run_epoch()
            loop.save()
    network.load_state_dict(loop.state.best_state)
    network.eval()
    history = pd.DataFrame(loop.rows).astype({"epoch": int})
    return Training(history, loop.state.best, loop.collapse)


class TrainingLoop:
    """State and steps of a training. Call either `begin` or `resume` first."""

    state: TrainingState
    schedule: LambdaLR

    def __init__(
        self,
        network: Network,
        plan: TrainingPlan,
        settings: Settings,
        processes: Processes,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.network, self.settings, self.processes, self.checkpoint = network, settings, processes, checkpoint
        self.source, self.objective, self.names, self._groups = plan.source, plan.objective, plan.names, plan.groups
        self.rows: list[dict[str, float]] = []
        self.collapse: str | None = None
        self.stopped_by: Callable[[], int] = lambda: 0
        self._validate, self._on_epoch, self._choice = plan.validate, on_epoch, plan.choice
        self._chooses_epoch = self.objective.chooses_epoch or self._choice is not None
        self._criterion = "validation_loss" if self._choice is None else self._choice.column
        self._order = torch.Generator().manual_seed(settings.seed)
        # the small steps of a fixed basis are fastest on one thread: several threads would wait for each other, on a
        # busy machine ten times as long as they compute
        self._n_threads = torch.get_num_threads() if network.is_free else 1
        self._begin = time.perf_counter() - (checkpoint.seconds if checkpoint is not None else 0.0)
        self._monitor: CollapseMonitor | None = None

    def begin(self) -> None:
        """Cut the network, record its start, and prepare the first step."""
        network, settings = self.network, self.settings
        starts_at_pca = settings.init == "pca"  # a fit can fall back on PCA itself, not on a cut network
        if not starts_at_pca:
            _cut(network, self.source, settings)
        initial = copy.deepcopy(network.state_dict())
        if self._chooses_epoch:
            network.core.silence_mlps()
        at_start = self._record(0, math.nan, 0.0, 0.0)
        best_state = copy.deepcopy(network.state_dict())
        network.load_state_dict(initial)
        if starts_at_pca:
            _cut(network, self.source, settings)
        (optimizer, n_per_epoch), order = self._ready(), self._order.get_state()
        self.state = TrainingState(network, self.objective, optimizer, order, at_start, self.rows, 0, best_state)
        self._start_schedule(n_per_epoch)
        if self.processes.rank:
            torch.manual_seed(settings.seed + RANK_STRIDE * self.processes.rank)
        self._start_monitor()

    def resume(self, checkpoint: Checkpoint) -> None:
        """Resume from a checkpoint, and report the rows of its epochs again."""
        optimizer, n_per_epoch = self._ready()
        rank = self.processes.rank
        self.state = checkpoint.restore(self.network, self.objective, optimizer, self._order, rank)
        self._start_schedule(n_per_epoch)
        self.rows += self.state.rows
        self.state.rows = self.rows
        for row in self.rows:
            self._tell(row)
        self._start_monitor()

    def has_more(self) -> bool:
        """Whether another epoch follows, by the number of epochs, patience and collapse."""
        n_waited = self.state.epoch - 1 - self.state.best
        is_wanted = self.state.epoch <= self.settings.epochs and n_waited < self.settings.patience
        return is_wanted and not self._is_settled() and self.collapse not in STOPPING

    def _is_settled(self) -> bool:
        """Whether the last epochs, as many as the patience, have hardly lowered the loss that chooses the epoch."""
        if not self._chooses_epoch:
            return False
        losses = [row[self._criterion] for row in self.rows]
        earlier, later = losses[: -self.settings.patience], losses[-self.settings.patience :]
        return bool(earlier) and min(earlier) - min(later) < SETTLED * abs(min(earlier))

    def run_epoch(self) -> None:
        """Run the remaining steps of an epoch, then validate it, which may make it the best."""
        state = self.state
        start = time.perf_counter() - state.train_seconds
        pairs = self.source.epoch(state.epoch)
        with threads(self._n_threads):
            train_loss = self._run_steps(pairs, start)
        losses = self._record(state.epoch, train_loss, state.update, time.perf_counter() - start)
        self.collapse = self._check(self.rows[-1])
        best = self.rows[state.best][self._criterion]
        is_better = self.rows[-1][self._criterion] < best and is_clear(*mean_gain(state.at_start - losses))
        if is_better or not self._chooses_epoch:
            state.best, state.best_state = state.epoch, copy.deepcopy(self.network.state_dict())
        state.epoch += 1
        state.step, state.total, state.train_seconds = 0, 0.0, 0.0
        state.order = self._order.get_state()

    def save(self, is_asked: bool = False) -> None:
        """Write the checkpoint if asked to, if a write is due, or if a signal has come, and then stop."""
        if self.checkpoint is None:
            return
        is_wanted = is_asked or (self.processes.rank == 0 and self.checkpoint.is_due())
        # the sum over processes, so that all do the same
        wishes = self.processes.total(STOP * bool(self.stopped_by()) + is_wanted)
        if wishes:
            self.checkpoint.write(self.state, time.perf_counter() - self._begin, self.processes)
        if wishes >= STOP:
            raise Interrupted(self.stopped_by() or signal.SIGTERM)

    def _ready(self) -> tuple[torch.optim.Optimizer, int]:
        """Prepare the objective; returns an optimiser for it and the number of steps per epoch."""
        settings, n_per_epoch = self.settings, _steps_per_epoch(self.source, self.settings)
        cut = settings.cut if settings.cut_where == "all" else 1.0
        self.objective.begin(self.network, settings.epochs * n_per_epoch, cut)
        return _optimizer(self.network, self.objective, settings), n_per_epoch

    def _start_schedule(self, n_per_epoch: int) -> None:
        """Set the learning rates of the next step and all later ones."""
        n_done = (self.state.epoch - 1) * n_per_epoch + self.state.step
        self.schedule = schedule(self.state.optimizer, self.settings.epochs * n_per_epoch, n_done)

    def _start_monitor(self) -> None:
        """Start to look for collapses, beginning with the epochs recorded so far."""
        if isinstance(self.objective, Reconstruction):
            self._monitor = CollapseMonitor(self.objective, self.rows[0])
        for row in self.rows[1:]:
            self.collapse = self._check(row)

    def _check(self, row: dict[str, float]) -> str | None:
        return None if self._monitor is None else self._monitor.check(row)

    def _tell(self, row: dict[str, float]) -> None:
        if self._on_epoch is not None:
            self._on_epoch(row)

    def _record(self, epoch: int, train_loss: float, update: float, train_seconds: float) -> Tensor:
        """Validate and append a row to the history; returns the (n_profiles,) losses that choose the epoch."""
        with threads(self._n_threads):
            losses, means = self._validate(self.network, self.processes)
            row = {"epoch": epoch, "train_loss": train_loss, "validation_loss": float(losses.mean()), **means}
            if self._choice is not None:
                losses = self._choice.losses(self.network)
                row[self._criterion] = float(losses.mean())
        row |= {"relative_update": update, "train_seconds": train_seconds, "seconds": time.perf_counter() - self._begin}
        self._tell(row)
        self.rows.append(row)
        return losses

    def _run_steps(self, pairs: Batches, start: float) -> float:
        """Run the remaining steps of an epoch that began at `start`; returns the mean loss over its profiles."""
        state, settings, processes = self.state, self.settings, self.processes
        network, objective, optimizer = self.network, self.objective, state.optimizer
        network.train()
        order = pairs.order(self._order)
        if self._groups is not None:
            order = mixed_evenly(order, self._groups[order % pairs.n_profiles])
        batches = order.split(settings.batch_size)
        for index in batches[state.step :]:
            with processes.autocast():
                batch = pairs.take(processes.part(index), (state.epoch - 1) / settings.epochs)
                seen = objective.see(network, batch.to(network.mean.device))
            value = objective(seen)
            optimizer.zero_grad()
            value.backward()
            weight = float(objective.n_counted(seen)) if processes.size > 1 and processes.has_part(index) else 0.0
            loss = processes.average(network, value, weight)
            if not math.isfinite(loss):
                raise self._runaway(loss, index % pairs.n_profiles)
            is_last = state.step == len(batches) - 1
            before = snapshot(network) if is_last else []
            optimizer.step()
            self.schedule.step()
            state.update = relative_update(network, before) if is_last else math.nan
            objective.after_step(network, seen)
            state.total += loss * len(index)
            state.step += 1
            state.train_seconds = time.perf_counter() - start
            self.save()
        return state.total / sum(map(len, batches))

    def _runaway(self, loss: float, rows: Tensor) -> InputError:
        """Error for a loss that is not finite, with the first profiles of the mini-batch."""
        first = [f"'{self.names[row]}'" if self.names is not None else f"{row}" for row in rows[:SHOWN].tolist()]
        more = f" and {len(rows) - len(first)} more" if len(rows) > len(first) else ""
        said = (
            f"the loss became {loss} in epoch {self.state.epoch}, step {self.state.step + 1}, on the profiles "
            f"{', '.join(first)}{more}. Lower the learning rate ({self.settings.learning_rate:g}), or look for extreme "
            "values in these profiles."
        )
        return InputError(said if self.checkpoint is None else f"{said} Earlier weights are in {self.checkpoint.path}.")


def _keep_memory() -> None:
    """Let glibc keep freed memory: gradients of 10 MB, returned to the system and requested again at every step, cost a
    third of the time of a step in page faults. No effect without glibc."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)


def _cut(network: Network, source: BatchSource, settings: Settings) -> None:
    """Cut the initial weights according to the settings; a target norm is reached on a random mini-batch."""
    inputs = None
    if settings.target_norm is not None:
        pairs = source.epoch(1)
        order = pairs.order(torch.Generator().manual_seed(settings.seed))
        inputs = pairs.take(order[: settings.batch_size]).to(network.mean.device).inputs
    choices = settings.cut, settings.cut_where, settings.cut_bias, settings.target_norm
    cut_initialize(network, *choices, inputs)


def mean_gain(gains: Tensor) -> tuple[float, float]:
    """Mean of paired gains and its standard error; 0 for a single one."""
    error = float(gains.std()) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    return float(gains.mean()), error


def is_clear(gain: float, error: float) -> bool:
    """Whether a mean gain is above two of its standard errors, the rule by which every choice of a fit is made."""
    return gain > CLEAR * error


def _optimizer(network: Network, objective: Objective, settings: Settings) -> torch.optim.Optimizer:
    linear = list(network.linear_parameters())
    slow = {id(parameter) for parameter in linear}
    others = [one for one in network.parameters() if id(one) not in slow and one.requires_grad]
    others += objective.learned()
    rates = settings.learning_rate, settings.learning_rate * LINEAR_RATE
    groups = [
        {"params": others, "weight_decay": settings.weight_decay, "lr": rates[0], "initial_lr": rates[0]},
        {"params": linear, "weight_decay": 0.0, "lr": rates[1], "initial_lr": rates[1]},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
    momentum = SGD_MOMENTUM if settings.optimizer == "sgd-momentum" else 0.0
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=momentum)


def _steps_per_epoch(source: BatchSource, settings: Settings) -> int:
    order = source.epoch(1).order(torch.Generator())
    return len(order.split(settings.batch_size))
