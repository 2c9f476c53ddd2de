"""Checkpoints: all that an interrupted training needs to resume, in one file, written completely or not at all."""

import contextlib
import hashlib
import json
import math
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from geneae.data.permuted import NULLS
from geneae.models.network import Network
from geneae.settings.errors import InputError, listened
from geneae.training.devices import Processes
from geneae.training.objectives import Objective

CHECKPOINT = "checkpoint.safetensors"
FORMAT = 1  # version of the file format
SPARE = 100  # training between two writes takes this many times as long as a write, which thus costs 1 % of the time
MOST_HEADER = 10**8  # bytes, the most that safetensors allows


@dataclass
class TrainingState:
    """State of a training, which together with the data and the settings determines all remaining steps."""

    network: Network
    """Network with the weights of the last step."""
    objective: Objective
    """Objective with its heads, teacher and queue, if it has any."""
    optimizer: torch.optim.Optimizer
    """Optimiser with its moments."""
    order: Tensor
    """State of the random generator before it drew the order of the current epoch."""
    at_start: Tensor
    """(n_profiles,) validation losses before training."""
    rows: list[dict[str, float]]
    """Rows of the history."""
    best: int
    """Epoch whose weights are kept, see `geneae.training.loop.train`."""
    best_state: dict[str, Tensor]
    """Weights of that epoch."""
    epoch: int = 1
    """Current epoch, counted from 1."""
    step: int = 0
    """Completed steps of this epoch."""
    total: float = 0.0
    """Sum of the losses of all profiles in these steps."""
    train_seconds: float = 0.0
    """Duration of these steps in seconds."""
    update: float = math.nan
    """Length of the change of all parameters in the last step of the epoch, relative to their length; NaN before."""


class Checkpoint:
    """File from which a training can resume: JSON in the header, tensors in the body.

    Parameters
    ----------
    path
        Path of the file.
    identity
        Values, by name, that must be equal in order to resume; `settings` is a dict of its own.
    resume
        Whether to resume from the file if it exists.
    begin
        `time.perf_counter()` at the beginning of the fit.
    """

    def __init__(self, path: Path, identity: dict[str, Any], resume: bool, begin: float) -> None:
        self.path = path
        self._identity = json.loads(json.dumps(identity | {"checkpoint format": FORMAT}))
        self._begin, self._cost, self._written = begin, 0.0, time.perf_counter()
        self._tensors: dict[str, Tensor] = {}
        self._state: dict[str, Any] = {}
        if path.exists() and not is_checkpoint(path):
            raise InputError(
                f"{path} should be a checkpoint of geneae, but cannot be read as one: it is damaged, or of another "
                "program. Move it away, or choose another output."
            )
        if resume and path.is_file():
            self._tensors, self._state = _read(path)
            self._check()
        before = self._state.get("before", {"seconds": 0.0, "peak_memory_mb": 0.0, "parts": 0})
        self._before: dict[str, float] = before

    @property
    def is_resumed(self) -> bool:
        """Whether the training resumes from an earlier state."""
        return bool(self._state)

    @property
    def seconds(self) -> float:
        """Seconds of training until the file was written; 0 if the training does not resume."""
        return float(self._state.get("seconds", 0.0))

    def spent(self) -> dict[str, float]:
        """`seconds` and `peak_memory_mb` of the fit so far, over all its parts, and their number.

        The work of a part after its last checkpoint is repeated and counts once.
        """
        return {
            "seconds": self._before["seconds"] + time.perf_counter() - self._begin,
            "peak_memory_mb": max(self._before["peak_memory_mb"], peak_memory()),
            "parts": int(self._before["parts"]) + 1,
        }

    def is_due(self) -> bool:
        """Whether to write again: as often as 1 % of the time allows."""
        return time.perf_counter() - self._written >= SPARE * self._cost

    def write(self, state: TrainingState, seconds: float, processes: Processes) -> None:
        """Replace the file; every process has to call this, and the first one writes.

        Weights that are not finite are not written, because a run that resumed from them would fail again.
        """
        begin = time.perf_counter()
        parameters = *state.network.parameters(), *state.objective.learned()
        if not all(bool(parameter.isfinite().all()) for parameter in parameters):
            return
        random = processes.gather(_random_state(processes.device))
        if processes.rank == 0:
            names = ("rows", "best", "epoch", "step", "total", "train_seconds", "update")
            header = {name: getattr(state, name) for name in names}
            header |= {"identity": self._identity, "seconds": seconds, "before": self.spent()}
            _replace(self.path, _pack(state, random), header)
        self._written = time.perf_counter()
        self._cost = self._written - begin

    def restore(
        self,
        network: Network,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        order: torch.Generator,
        rank: int,
    ) -> TrainingState:
        """Restore network, objective, optimiser and random generators, and return the state of the training."""
        tensors = self._tensors
        network.load_state_dict(_below("network", tensors))
        objective.set_state(_below("objective", tensors))
        best_state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        best_state |= {name: tensor.to(network.mean.device) for name, tensor in _below("best", tensors).items()}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below("optimizer", tensors).items():
            number, field = name.split(".")
            moments.setdefault(int(number), {})[field] = tensor
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        order.set_state(tensors["order"])
        _set_random_state(tensors["random"][rank], network.mean.device)
        state = self._state
        position = {name: state[name] for name in ("epoch", "step", "total", "train_seconds", "update")}
        done = tensors["order"], tensors["at_start"], state["rows"], state["best"], best_state
        return TrainingState(network, objective, optimizer, *done, **position)

    def _check(self) -> None:
        """Refuse to resume a different run, and list the differences."""
        there, now = (_flat(identity) for identity in (self._state["identity"], self._identity))
        different = [
            f"{name} ({_short(there.get(name))} in the checkpoint, {_short(now.get(name))} now)"
            for name in now | there
            if there.get(name) != now.get(name)
        ]
        if different:
            raise InputError(
                f"{self.path} is the checkpoint of a run with different {', '.join(different)}. Resume with the data "
                "and settings of that run, add --overwrite to start again, or choose another output."
            )


def checkpoint_name(null: str | None = None) -> str:
    """File name of a checkpoint; each permuted control (`--null`) of a fit has its own."""
    return CHECKPOINT if null is None else CHECKPOINT.replace(".", f"-{null}.")


def is_unfinished(folder: Path) -> bool:
    """Whether a folder holds checkpoints of an unfinished run."""
    return any(not is_partial(folder / name) for name in checkpoint_files(folder))


def checkpoint_files(folder: Path) -> set[str]:
    """Names of the checkpoints in a folder, incomplete ones too; files of other programs under these names are none."""
    names = [checkpoint_name(null) for null in (None, *NULLS)]
    found = {name for name in names if is_checkpoint(folder / name)}
    return found | {name for name in map(_partial, names) if (folder / name).is_file()}


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint that geneae wrote, by its header; its name alone does not tell."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, MOST_HEADER)))
        return "checkpoint format" in json.loads(header["__metadata__"]["state"])["identity"]
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return False


def is_partial(file: Path) -> bool:
    """Whether a file is an incomplete checkpoint, of a running process or of one that was killed while writing."""
    return file.name in {_partial(checkpoint_name(null)) for null in (None, *NULLS)}


def _partial(name: str) -> str:
    return f".{name}.partial"


def digest(values: np.ndarray) -> str:
    """SHA-256 of text values in their order, as hexadecimal digits."""
    return hashlib.sha256("\0".join(map(str, values)).encode("utf-8", "surrogatepass")).hexdigest()


@contextlib.contextmanager
def stops_wait() -> Iterator[Callable[[], int]]:
    """Defer the signals `STOPS` inside this context; yields a function that returns the signal received, or 0.

    The same signal a second time has its usual effect. Outside the main thread, signals are not deferred; SIGHUP that
    is ignored, as under `nohup`, stays ignored.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    before = {stop: signal.getsignal(stop) for stop in listened()}

    def note(number: int, _: object) -> None:
        came.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for stop in before:
        signal.signal(stop, note)
    try:
        yield lambda: came[0] if came else 0
    finally:
        for stop, handler in before.items():
            signal.signal(stop, handler)


def peak_memory() -> float:
    """Peak memory of this process so far, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


@contextlib.contextmanager
def utf8_path(path: Path) -> Iterator[str]:
    """A name of an existing file that is UTF-8, which safetensors needs: its own, or that of a descriptor."""
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        with path.open("rb") as file:
            yield f"/dev/fd/{file.fileno()}"
    else:
        yield os.fspath(path)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk, so that they survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _pack(state: TrainingState, random: Tensor) -> dict[str, Tensor]:
    trained = {name for name, _ in state.network.named_parameters()}
    tensors = {f"network.{name}": tensor for name, tensor in state.network.state_dict().items()}
    tensors |= {f"objective.{name}": tensor for name, tensor in state.objective.state().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best_state.items() if name in trained}
    for number, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{field}": tensor for field, tensor in moments.items()}
    tensors |= {"order": state.order, "random": random, "at_start": state.at_start}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _replace(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write a new file next to the old one and rename it once it is on disk, so that one is always complete."""
    is_new = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, text = path.with_name(_partial(path.name)), json.dumps(state)
    try:
        save_file(tensors, partial, {"state": text, "sha256": _checksum(tensors, text)})
        sync(partial)
        os.replace(partial, path)
    except BaseException:  # a full disk leaves a part of it
        partial.unlink(missing_ok=True)
        if is_new:
            with contextlib.suppress(OSError):  # something else was written there
                path.parent.rmdir()
        raise
    sync(path.parent)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with utf8_path(path) as name, safe_open(name, "pt") as file:
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            written: dict[str, str] = file.metadata()
            state: dict[str, Any] = json.loads(written["state"])
        if written.get("sha256", "") not in ("", _checksum(tensors, written["state"])):
            raise ValueError("its checksum is not that of its content")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} should be a checkpoint of geneae, but cannot be read ({type(error).__name__}: {error}). "
            "Add --overwrite to start again."
        ) from error
    return tensors, state


def _checksum(tensors: dict[str, Tensor], state: str) -> str:
    """SHA-256 of a state and of all tensors, as hexadecimal digits."""
    found = hashlib.sha256(state.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _below(part: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = identity["settings"]
    return settings | {name: value for name, value in identity.items() if name != "settings"}


def _short(value: Any) -> str:
    """Text of a value for a message; only the beginning of a fingerprint."""
    text = "none" if value is None else str(value)
    return text if len(text) <= 20 else f"{text[:8]}..."


def _random_state(device: torch.device) -> Tensor:
    """State of torch's default random generator, used by dropout, and on CUDA of the generator of the device."""
    state = torch.get_rng_state()
    return torch.cat([state, torch.cuda.get_rng_state(device)]) if device.type == "cuda" else state


def _set_random_state(state: Tensor, device: torch.device) -> None:
    size = len(torch.get_rng_state())
    torch.set_rng_state(state[:size].clone())  # a copy, because torch would read a view from the start of its storage
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[size:].clone(), device)
