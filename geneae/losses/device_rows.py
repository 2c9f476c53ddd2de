"""Profiles from which mini-batches are taken: on a GPU, which makes them dense, or on the CPU, sparse."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from geneae.losses.sparse_rows import FrequentGenes, RowStore, SparseRows, to_tensor

SHARE_OF_PROFILES = 1 / 4  # of the free memory of a device that profiles may take
SHARE_OF_BATCH = 1 / 16  # of the free memory that a dense mini-batch may take; a step holds several


class DeviceStore:
    """Profiles on a device, sparse, from which dense mini-batches are taken without the processor.

    A GPU multiplies a dense mini-batch faster than it adds up rows of a matrix by the stored values, and needs no
    transpose of it; only the mini-batch is dense, never the profiles.

    Parameters
    ----------
    matrix
        Profiles, (n_profiles, n_genes).
    device
        Where they are kept.
    free_bytes
        Free memory of the device.
    """

    def __init__(self, matrix: sparse.csr_matrix, device: torch.device, free_bytes: int) -> None:
        self._device, self.n_genes = device, int(matrix.shape[1])
        self.most_rows = int(free_bytes * SHARE_OF_BATCH) // (4 * max(1, self.n_genes))
        self._lengths = torch.from_numpy(np.diff(matrix.indptr).astype(np.int64))  # here, where nothing waits for it
        self._starts = to_tensor(matrix.indptr[:-1]).to(device, torch.int64)
        self._indices, self._values = (to_tensor(array).to(device) for array in (matrix.indices, matrix.data))
        self._genes = torch.arange(self.n_genes, device=device)

    def entries(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Stored values of some of the profiles: their rows in the mini-batch, genes and values, each (n_values,)."""
        lengths = self._lengths[rows]
        n_values, there = int(lengths.sum()), lengths.to(self._device)
        profile = torch.arange(len(rows), device=self._device).repeat_interleave(there, output_size=n_values)
        shift = self._starts[rows.to(self._device)] - (there.cumsum(0) - there)
        where = torch.arange(n_values, device=self._device) + shift[profile]
        return profile, self._indices[where], self._values[where]

    def take(self, rows: Tensor) -> SparseRows:
        """Some of the profiles, at most `most_rows`; every gene is one of the dense ones."""
        profile, gene, values = self.entries(rows)
        dense = torch.zeros(len(rows), self.n_genes, dtype=values.dtype, device=self._device)
        dense.view(-1)[profile * self.n_genes + gene] = values
        return SparseRows((), len(rows), self.n_genes, FrequentGenes(self._genes, dense))


def device_store(matrix: sparse.csr_matrix, device: torch.device) -> DeviceStore | None:
    """Profiles kept on a GPU, if they fit; None elsewhere."""
    if device.type != "cuda":
        return None
    free_bytes, _ = torch.cuda.mem_get_info(device)
    n_bytes = matrix.data.nbytes + matrix.indices.nbytes
    return DeviceStore(matrix, device, free_bytes) if n_bytes <= free_bytes * SHARE_OF_PROFILES else None


class ProfileStore:
    """Profiles on the device of a network, if it has room for them and their mini-batches; else on the CPU.

    Parameters
    ----------
    matrix
        Profiles, (n_profiles, n_genes).
    where
        Function that returns the device of the network; asked when the first mini-batch is taken.
    """

    def __init__(self, matrix: sparse.csr_matrix, where: Callable[[], torch.device]) -> None:
        self._matrix, self._where = matrix, where

    def take(self, rows: Tensor) -> SparseRows:
        """Some of the profiles."""
        there = self._on_device
        return self._on_cpu.take(rows) if there is None or len(rows) > there.most_rows else there.take(rows)

    @cached_property
    def _on_cpu(self) -> RowStore:
        store = RowStore(self._matrix)
        if self._on_device is None:
            del self._matrix  # the store has a copy
        return store

    @cached_property
    def _on_device(self) -> DeviceStore | None:
        return device_store(self._matrix, self._where())
