"""Device, precision and processes of a training."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from threading import Thread
from typing import Any, Literal

import torch
from torch import Tensor, nn

from geneae.settings.errors import InputError
from geneae.settings.settings import Settings


class Processes:
    """This process among those that train together, each on its part of every mini-batch.

    Parameters
    ----------
    rank, size
        Number of this process, from 0, and number of processes.
    device
        Device of this process.
    autocast
        Context manager for forward passes in the requested precision.
    all_sum
        Function that sums a tensor over all processes, possibly in place; every process has to call it.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        device: torch.device,
        autocast: Callable[[], Any],
        all_sum: Callable[[Tensor], Tensor],
    ) -> None:
        self.rank, self.size, self.device, self.autocast = rank, size, device, autocast
        self._all_sum = all_sum

    def part(self, index: Tensor) -> Tensor:
        """Profiles of a mini-batch for this process. If there are none, it takes the first one, see `has_part`."""
        return index[self.rank :: self.size] if self.has_part(index) else index[:1]

    def has_part(self, index: Tensor) -> bool:
        """Whether a mini-batch has a profile for this process; if not, its result must get weight 0."""
        return self.rank < len(index)

    def total(self, value: float) -> float:
        """Sum of a number over all processes."""
        if self.size == 1:
            return value
        return float(self._all_sum(torch.tensor(value, dtype=torch.float32, device=self.device)))

    def average(self, network: nn.Module, loss: Tensor, weight: float) -> float:
        """Mean loss over all processes; gradients are replaced by their means in place.

        Unlike in DistributedDataParallel, the mean is weighted by the number of profiles of each process, so that the
        parts of a mini-batch give the gradient of the complete mini-batch.

        Parameters
        ----------
        network
            Network with the gradients of `loss`.
        loss
            Mean over the profiles of this process.
        weight
            Number of these profiles.
        """
        if self.size == 1:
            return float(loss.detach())
        known = [parameter for parameter in network.parameters() if parameter.grad is not None]
        flat = [gradient.flatten() * weight for parameter in known if (gradient := parameter.grad) is not None]
        ends = torch.stack([loss.detach().float() * weight, torch.tensor(weight, device=loss.device)])
        summed = self._all_sum(torch.cat([*flat, ends]))
        mean = summed[:-1] / summed[-1].clamp(min=1)
        for parameter, part in zip(known, mean[:-1].split([len(one) for one in flat]), strict=True):
            parameter.grad = part.view_as(parameter)
        return float(mean[-1])

    def join(self, values: Tensor, where: Tensor, n_values: int) -> Tensor:
        """(n_values,) numbers from all processes, each of which has those at the positions `where`.

        Positions that several processes have get the mean of their numbers.
        """
        if self.size == 1:
            return values
        joined = torch.zeros(2, n_values, dtype=values.dtype, device=values.device)
        joined[:, where.to(values.device)] = torch.stack([values, torch.ones_like(values)])
        summed, counts = self._all_sum(joined)
        mean: Tensor = summed / counts
        return mean

    def gather(self, values: Tensor) -> Tensor:
        """(size, n) uint8 values of all processes, from (n,) integers of 0 to 255 in each."""
        rows = torch.zeros(self.size, len(values), dtype=torch.int32, device=self.device)
        rows[self.rank] = values.to(rows)
        return (rows if self.size == 1 else self._all_sum(rows)).to("cpu", torch.uint8)

    def equalise(self, network: nn.Module) -> None:
        """Copy the tensors of the first process to all, because different hardware rounds differently."""
        if self.size == 1:
            return
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor.copy_(self._all_sum(tensor.clone() if self.rank == 0 else torch.zeros_like(tensor)))


def open_processes(settings: Settings) -> Processes:
    """Set up the requested device, precision and processes with Lightning Fabric.

    Several processes are started here unless `torchrun` or SLURM has started them; each runs the same command.
    """
    from lightning_fabric import Fabric  # slow to load

    if settings.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda was requested, but torch finds no CUDA device. Use --device cpu or auto.")
    if settings.device == "mps" and not torch.backends.mps.is_available():
        raise InputError("device mps was requested, but torch finds no Apple GPU. Use --device cpu or auto.")
    n_processes = settings.devices * settings.nodes
    started = int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else n_processes
    if started != n_processes:
        raise InputError(
            f"torchrun has started {started} processes, but {settings.devices} devices on {settings.nodes} nodes need "
            f"{n_processes}. Set --devices to its --nproc-per-node and --nodes to its --nnodes."
        )
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed" if settings.precision == "bf16" else "32-true"
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it would announce its processes
    try:
        fabric = Fabric(
            accelerator=_accelerator(settings),
            devices=settings.devices,
            num_nodes=settings.nodes,
            strategy="ddp" if n_processes > 1 else "auto",
            precision=precision,
        )
        if n_processes > 1:
            fabric.launch()
    except ValueError as error:  # from Fabric, if the request does not match the machine or the cluster
        raise InputError(
            f"{settings.devices} devices on {settings.nodes} nodes are not available ({error}). Set --devices and "
            "--nodes to what is available."
        ) from error

    def all_sum(tensor: Tensor) -> Tensor:
        torch.distributed.all_reduce(tensor)  # Fabric's own function would add a barrier
        return tensor

    return Processes(fabric.global_rank, fabric.world_size, fabric.device, fabric.autocast, all_sum)


def _accelerator(settings: Settings) -> str:
    """Where `auto` trains: the steps of a fixed basis are too small for a GPU, which takes up to twice as long."""
    is_small = settings.basis != "free" and settings.devices * settings.nodes == 1
    return "cpu" if settings.device == "auto" and is_small else settings.device


@contextlib.contextmanager
def loading_fabric() -> Iterator[None]:
    """Load Lightning Fabric, which takes seconds, in a thread; it is loaded when this context ends."""

    def load() -> None:
        with contextlib.suppress(ImportError):  # `open_processes` raises it again
            import_module("lightning_fabric")

    loading = Thread(target=load)
    loading.start()
    try:
        yield
    finally:
        loading.join()


def is_first() -> bool:
    """Whether this process writes files and messages: the only process, or the first of several."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


@contextlib.contextmanager
def forked_random() -> Iterator[None]:
    """Restore the state of torch's random generators, also of CUDA devices in use, when this context ends."""
    # asking an unused device for its state would start it
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        yield


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Set the number of torch's threads inside this context, and restore the earlier number when it ends."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
