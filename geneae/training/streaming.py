"""Training pairs of profiles that stay in their file: windows of a random order, with the next one read ahead."""

import os
import tempfile
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geneae.data.count_split import Splitter
from geneae.data.preprocess import Expression, Preprocess
from geneae.losses.fixed_metric import FixedMetric
from geneae.losses.inner_products import TargetProducts
from geneae.models.network import Network
from geneae.training.batches import (
    TRAINING_STREAM,
    Batch,
    CountSplits,
    PairNeeds,
    Pairs,
    Projected,
    ThinnedInputs,
    draw_blocks,
    draw_pairs,
    project_blocks,
)

BLOCK = 32  # neighbouring profiles that are read together
WINDOW = 8192  # profiles whose projections are in memory and shuffled together; their blocks come from everywhere
WINDOW_VALUES = 2**22  # stored values in memory at a time in a free basis, which has no projections
CHUNK = 1024  # profiles projected at a time, with all their count splits
SUMS = 3  # numbers of a projection in addition to the scores


class StreamedPairs:
    """Pairs that are made window by window; otherwise like `geneae.training.batches.Pairs`.

    Blocks of neighbouring profiles come in random order, and the profiles of a window, some hundred blocks, are
    shuffled together (as in scDataset, D'Ascenzo and Cultrera di Montesano 2025, arXiv 2506.01883). The order is known
    before anything is read, so that an epoch can resume at any step.

    Parameters
    ----------
    n_profiles
        Number of training profiles.
    is_split
        Whether halves predict halves.
    read
        Function that makes the pairs of some profiles, given in increasing order.
    window
        Profiles in memory at a time, a multiple of the batch size.
    """

    def __init__(self, n_profiles: int, is_split: bool, read: Callable[[np.ndarray], Pairs], window: int) -> None:
        self.n_profiles = n_profiles
        self.n_pairs = n_profiles * (2 if is_split else 1)
        self._read, self._window = read, window
        self._windows: list[np.ndarray] = []
        self._number = np.empty(n_profiles, np.int32)
        self._coming: dict[int, Future[Pairs]] = {}
        self._pool = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))

    def order(self, generator: torch.Generator) -> Tensor:
        """(n_profiles,) indices of the pairs of an epoch: every profile once, window by window, with either half as
        input at random."""
        blocks = torch.randperm(-(-self.n_profiles // BLOCK), generator=generator)
        profiles = (blocks[:, None] * BLOCK + torch.arange(BLOCK)).flatten()
        profiles = profiles[profiles < self.n_profiles]
        windows = profiles.split(self._window)
        self._windows = [np.sort(window.numpy()) for window in windows]
        for number, window in enumerate(self._windows):
            self._number[window] = number
        self._coming = {}
        order = torch.cat([window[torch.randperm(len(window), generator=generator)] for window in windows])
        halves = self.n_pairs // self.n_profiles
        return order + self.n_profiles * torch.randint(0, halves, order.shape, generator=generator)

    def take(self, index: Tensor, progress: float = 1.0) -> Batch:
        """Mini-batch of some pairs of one window; `progress` is the completed share of the training."""
        half, profiles = np.divmod(index.numpy(), self.n_profiles)
        number = int(self._number[profiles[0]])
        here = self._windows[number]
        found = torch.from_numpy(np.searchsorted(here, profiles) + half * len(here))
        return self._pairs(number).take(found, progress)

    def _pairs(self, number: int) -> Pairs:
        """Pairs of a window; the next window is read meanwhile, and others are dropped."""
        near = range(number, min(number + 2, len(self._windows)))
        self._coming = {n: self._coming.get(n) or self._pool.submit(self._read, self._windows[n]) for n in near}
        return self._coming[number].result()


class StreamedSource:
    """Pairs of every epoch from profiles in a file; otherwise like `geneae.training.batches.PairSource`.

    In a fixed basis the file is read once: all count splits of a profile are drawn and projected together, and the
    projections are kept in an unnamed temporary file, which vanishes with the process. In a free basis the profiles are
    read, and their halves drawn, again in every epoch.

    Parameters
    ----------
    network
        Network whose basis the pairs are made for.
    expression, preprocess
        Training profiles, in their file, and their preprocessing.
    splits
        Count splits of their molecules.
    batch_size
        Profiles per step.
    scratch
        Folder for the projections; None for the system's temporary folder.
    metric
        Learned metric of the loss, if any. Labels, and inner products of targets with each other, are not available
        for profiles in a file.
    thinned
        Scores of thinned halves as inputs; None for those of the halves.
    """

    def __init__(
        self,
        network: Network,
        expression: Expression,
        preprocess: Preprocess,
        splits: CountSplits,
        batch_size: int,
        scratch: Path | None = None,
        metric: FixedMetric | None = None,
        thinned: ThinnedInputs | None = None,
    ) -> None:
        self.n_splits, is_split = splits.in_turn, splits.is_split
        self._network, self._expression, self._preprocess = network, expression, preprocess
        self._splits, self._needs = splits, PairNeeds(metric=metric)
        window = WINDOW
        if network.is_free:
            window = WINDOW_VALUES * expression.n_profiles // max(1, expression.n_values)
        self._window = max(1, window // batch_size) * batch_size
        n_mapped = 0 if metric is None else metric.n_components
        self._projections = None
        if not network.is_free:
            self._projections = Projections(network, expression.n_profiles, is_split, scratch, n_mapped)
            for rows, part in expression.chunks(CHUNK):
                splitter = Splitter(part.rows) if is_split else None
                for split in range(self.n_splits):
                    seed = (splits.seed, TRAINING_STREAM, split, rows.start)
                    blocks, inputs = draw_pairs(part, preprocess, splitter, seed, thinned)
                    self._projections.write(split, rows.start, project_blocks(network, blocks, metric, inputs))

    def epoch(self, epoch: int) -> StreamedPairs:
        """Pairs of an epoch, counted from 1."""
        split = (epoch - 1) % self.n_splits
        projections = self._projections

        def read(profiles: np.ndarray) -> Pairs:
            if projections is not None:
                return Pairs(self._network, projections.read(split, profiles))
            part = self._expression.take(profiles).load()
            splitter = Splitter(part.rows) if self._splits.is_split else None
            seed = (self._splits.seed, TRAINING_STREAM, epoch, int(profiles[0]))
            return Pairs(self._network, draw_blocks(part, self._preprocess, splitter, seed), self._needs)

        return StreamedPairs(self._expression.n_profiles, self._splits.is_split, read, self._window)


class Projections:
    """Projections of all profiles for every count split, in an unnamed temporary file."""

    def __init__(
        self, network: Network, n_profiles: int, is_split: bool, folder: Path | None, n_mapped: int = 0
    ) -> None:
        self._network = network
        self._rank, self._halves, self._n_profiles = len(network.deviation), 2 if is_split else 1, n_profiles
        self._n_mapped = n_mapped
        self._n_inputs = self._rank if network.is_whitened else 0  # otherwise they follow from the products
        # per profile, with its halves side by side
        self._bytes = 4 * self._halves * (self._n_inputs + self._rank + SUMS + self._n_mapped)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  stays open while it is in use
        weakref.finalize(self, self._file.close)

    def write(self, split: int, start: int, projected: Projected) -> None:
        """Write the projections of consecutive profiles from `start` on, all first halves before all second halves."""
        projection = projected.targets
        sums = torch.stack([projection.center, projection.squared, projection.total], 1)
        parts = [projected.inputs] if self._n_inputs else []
        parts += [projection.weight, sums] + ([] if projection.mapped is None else [projection.mapped])
        records = torch.cat(parts, 1).cpu().unflatten(0, (self._halves, -1)).transpose(0, 1)
        place = (split * self._n_profiles + start) * self._bytes
        left = np.ascontiguousarray(records.numpy()).data.cast("B")
        while left:  # on a disk that is nearly full, the first part is written without an error
            written = os.pwrite(self._file.fileno(), left, place)
            left, place = left[written:], place + written

    def read(self, split: int, profiles: np.ndarray) -> Projected:
        """Projections of some profiles, in increasing order, all first halves before all second halves."""
        runs = np.split(profiles, np.flatnonzero(np.diff(profiles) > 1) + 1)
        places = [(split * self._n_profiles + int(run[0])) * self._bytes for run in runs]
        sizes = [len(run) * self._bytes for run in runs]
        raw = bytearray().join(os.pread(self._file.fileno(), *at) for at in zip(sizes, places, strict=True))
        records = torch.frombuffer(raw, dtype=torch.float32).reshape(len(profiles), self._halves, -1)
        records = records.transpose(0, 1).flatten(0, 1).to(self._network.mean.device)  # it may have moved
        inputs, weight, sums, mapped = records.split([self._n_inputs, self._rank, SUMS, self._n_mapped], 1)
        center, squared, total = sums.unbind(1)
        of_metric = mapped.contiguous() if self._n_mapped else None
        targets = TargetProducts(weight.contiguous(), center, center, squared, total, of_metric)
        scores = inputs.contiguous() if self._n_inputs else self._network.scores_of(targets)
        return Projected(scores, targets, self._halves)
