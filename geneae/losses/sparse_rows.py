"""Sparse mini-batches of profiles, and their exact products with gene-sized matrices."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

COLUMN_BYTES = 256  # bytes per row of a large matrix at a time: 20,000 genes x 64 float32 stay in the cache
SMALL_BYTES = 2**21  # size up to which a matrix stays in the cache undivided
PANEL = 4096  # genes of a mini-batch at a time, so that their rows of a matrix stay in the cache
FREQUENT = 1 / 3  # share of the profiles; a gene present in more of them is faster as a dense column, hardly larger


class ByProfile:
    """Base of data classes of tensors with one row per profile; only the last tensor may be missing."""

    def tensors(self) -> list[Tensor]:
        """Tensors that are present, in the order of the fields."""
        found: list[Tensor | None] = [getattr(self, field.name) for field in fields(self)]  # type: ignore[arg-type]
        return [tensor for tensor in found if tensor is not None]

    def take(self, rows: Tensor) -> Self:
        """The same for some of the profiles."""
        make: Any = type(self)
        taken: Self = make(*(tensor[rows] for tensor in self.tensors()))
        return taken

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        make: Any = type(self)
        moved: Self = make(*(tensor.to(device) for tensor in self.tensors()))
        return moved


@dataclass(frozen=True)
class RowSums(ByProfile):
    """Sums of target profiles that stay the same during training; (n_profiles,) unless noted otherwise."""

    center: Tensor
    """<x, center>"""
    squared: Tensor
    """|x|^2"""
    total: Tensor
    """Sum of x over genes."""
    mapped: Tensor | None = None
    """(n_profiles, n_components) M x, where the loss has a fixed metric."""


@dataclass(frozen=True)
class FrequentGenes:
    """Genes present in many profiles, kept out of the sparse rows and multiplied as a dense matrix."""

    genes: Tensor
    """(n_frequent,) int64 column of each gene."""
    values: Tensor
    """(n_profiles, n_frequent) values."""

    def take(self, rows: Tensor) -> "FrequentGenes":
        """The same for some of the profiles."""
        return FrequentGenes(self.genes, self.values[rows])

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "FrequentGenes":
        """The same on another device and in another precision."""
        return FrequentGenes(self.genes.to(device), self.values.to(device, dtype or self.values.dtype))


@dataclass(frozen=True)
class Panel:
    """Values of neighbouring genes of a mini-batch (CSR)."""

    indptr: Tensor
    """(n_rows + 1,) int64 or int32 start of each row."""
    indices: Tensor
    """(n_values,) column of each value, counted from the first of the panel; same type as `indptr`."""
    values: Tensor
    """(n_values,) float."""
    n_columns: int
    """Number of columns of the panel."""
    transpose: "Panel | None" = None
    """The same values gene by gene; needed for the gradient of a gene-sized matrix."""

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Panel":
        """The same on another device and in another precision."""
        transpose = None if self.transpose is None else self.transpose.to(device, dtype)
        values = self.values.to(device, dtype or self.values.dtype)
        return Panel(self.indptr.to(device), self.indices.to(device), values, self.n_columns, transpose)


@dataclass(frozen=True)
class SparseRows:
    """A sparse mini-batch of profiles."""

    panels: tuple[Panel, ...]
    """Panels from the first to the last gene; none where all genes are among the `frequent` ones."""
    n_profiles: int
    """Number of rows."""
    n_genes: int
    """Number of columns."""
    frequent: FrequentGenes | None = None
    """Genes whose values the panels leave out."""
    sums: RowSums | None = None
    """Sums of the rows, where they are known already."""

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "SparseRows":
        """The same rows on another device and in another precision."""
        return replace(
            self,
            panels=tuple(panel.to(device, dtype) for panel in self.panels),
            frequent=None if self.frequent is None else self.frequent.to(device, dtype),
            sums=None if self.sums is None else self.sums.to(device),
        )


def sparse_rows(matrix: sparse.csr_matrix, transpose: bool = False) -> SparseRows:
    """Rows of a SciPy matrix as tensors that share its memory.

    Parameters
    ----------
    matrix
        CSR.
    transpose
        Whether to lay out the values gene by gene as well, which the gradient of `sparse_product` needs.
    """
    return SparseRows((_panel(matrix, transpose),), *matrix.shape)


def matrix_of(rows: SparseRows) -> sparse.csr_matrix:
    """The profiles as a SciPy matrix that shares their memory; only of rows from `sparse_rows`."""
    (panel,) = rows.panels
    values, indices, indptr = (tensor.numpy() for tensor in (panel.values, panel.indices, panel.indptr))
    return sparse.csr_matrix((values, indices, indptr), shape=(rows.n_profiles, rows.n_genes))


def _panel(matrix: sparse.csr_matrix | sparse.csc_matrix, transpose: bool = False) -> Panel:
    by_gene = _panel(matrix.tocsc().T) if transpose else None
    indptr, indices, values = map(to_tensor, (matrix.indptr, matrix.indices, matrix.data))
    return Panel(indptr, indices, values, int(matrix.shape[1]), by_gene)


class RowStore:
    """Profiles from which mini-batches are taken: frequent genes as a dense matrix, the others as panels."""

    def __init__(self, matrix: sparse.csr_matrix) -> None:
        n_profiles, self._n_genes = matrix.shape
        is_frequent = np.bincount(matrix.indices, minlength=self._n_genes) > FREQUENT * n_profiles
        genes = np.flatnonzero(is_frequent)
        chosen = matrix[:, genes].tocoo()
        # dense, because at least a third of the values are not zero
        values = torch.zeros(chosen.shape, dtype=to_tensor(matrix.data).dtype)
        values[to_tensor(chosen.row).long(), to_tensor(chosen.col).long()] = to_tensor(chosen.data)
        self._frequent = FrequentGenes(torch.from_numpy(genes), values)
        is_kept = ~is_frequent[matrix.indices]
        ends = np.concatenate([[0], np.cumsum(is_kept)])[matrix.indptr].astype(matrix.indptr.dtype)
        rare = sparse.csr_matrix((matrix.data[is_kept], matrix.indices[is_kept], ends), shape=matrix.shape)
        self._panels = [rare[:, start : start + PANEL] for start in range(0, self._n_genes, PANEL)]

        self._pool = ThreadPoolExecutor(torch.get_num_threads())

    def take(self, rows: Tensor) -> SparseRows:
        """Some of the profiles, with their transpose; panels in parallel, because SciPy lets other threads run."""
        panels = self._pool.map(lambda panel: _panel(panel[rows.numpy()], transpose=True), self._panels)
        frequent = self._frequent.take(rows)  # while the panels are being taken
        return SparseRows(tuple(panels), len(rows), self._n_genes, frequent)


def to_tensor(array: np.ndarray) -> Tensor:
    """Tensor that shares the memory of the array, or a copy if that is read-only."""
    if not array.flags.writeable:  # torch warns about read-only memory, because it does not prevent writing
        array = array.copy()
    return torch.from_numpy(array)


def plain_product(rows: SparseRows, weight: Tensor) -> Tensor:
    """(n_profiles, n) `x @ weight`, without a gradient."""
    if not rows.panels and rows.frequent is not None:
        return _dense_product(rows.frequent.values, weight)
    parts = weight.split([panel.n_columns for panel in rows.panels])
    product = _bags(rows.panels[0], parts[0])
    for panel, part in zip(rows.panels[1:], parts[1:], strict=True):
        product += _bags(panel, part)
    if rows.frequent is not None:
        product.addmm_(rows.frequent.values.to(weight.dtype), weight[rows.frequent.genes])
    return product


def transposed_product(rows: SparseRows, by_row: Tensor) -> Tensor:
    """(n_genes, n) `x' @ by_row` from (n_profiles, n), without a gradient; the rows must carry their transpose."""
    if not rows.panels and rows.frequent is not None:
        return _dense_product(rows.frequent.values.T, by_row)
    transposes = [panel.transpose for panel in rows.panels if panel.transpose is not None]
    if len(transposes) < len(rows.panels):
        raise ValueError("the gradient of a sparse product needs sparse_rows(matrix, transpose=True)")
    parts = [_bags(transpose, by_row) for transpose in transposes]
    product = parts[0] if len(parts) == 1 else torch.cat(parts)
    if rows.frequent is not None:
        product[rows.frequent.genes] = rows.frequent.values.T.to(by_row.dtype) @ by_row
    return product


def _dense_product(values: Tensor, weight: Tensor) -> Tensor:
    """`values @ weight` in the precision of the weight; autocast, which would round both, leaves `addmm_` alone."""
    return weight.new_empty(len(values), weight.shape[1]).addmm_(values.to(weight.dtype), weight, beta=0)


def _bags(panel: Panel, weight: Tensor) -> Tensor:
    """Sum of value * weight[column] in each row: several times faster than torch's sparse matrix product."""
    if not len(panel.values):  # embedding_bag refuses an empty list
        return weight.new_zeros(len(panel.indptr) - 1, weight.shape[1])
    values = panel.values.to(weight.dtype)
    size = weight.element_size()
    n_columns = weight.shape[1] if weight.numel() * size <= SMALL_BYTES else COLUMN_BYTES // size
    parts = [
        F.embedding_bag(
            panel.indices,
            columns.contiguous(),
            panel.indptr,
            mode="sum",
            per_sample_weights=values,
            include_last_offset=True,
        )
        for columns in weight.split(n_columns, 1)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


class _SparseProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: SparseRows) -> Tensor:
        ctx.rows = rows
        return plain_product(rows, weight.detach())  # otherwise embedding_bag prepares its own gradient

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return transposed_product(ctx.rows, gradients[0].contiguous()), None


def sparse_product(rows: SparseRows, weight: Tensor) -> Tensor:
    """`x @ weight`, exact, with its exact gradient in `weight`.

    Parameters
    ----------
    rows
        x, (n_profiles, n_genes).
    weight
        (n_genes, n) or (n_genes,).

    Returns
    -------
    (n_profiles, n) or (n_profiles,). Time and memory grow with the number of stored values, not of genes.
    """
    if weight.dim() == 1:
        return sparse_product(rows, weight[:, None])[:, 0]
    product: Tensor = _SparseProduct.apply(weight.contiguous(), rows)  # type: ignore[no-untyped-call]
    return product


def row_sums(rows: SparseRows, center: Tensor) -> RowSums:
    """`RowSums` of profiles, without a gradient."""
    rows = rows.to(center.device, center.dtype)
    by_center, total = plain_product(rows, torch.column_stack([center, torch.ones_like(center)])).unbind(1)
    return RowSums(by_center, row_squares(rows, center), total)


def row_squares(rows: SparseRows, like: Tensor) -> Tensor:
    """(n_profiles,) |x|^2, on the device and in the precision of `like`."""
    rows = rows.to(like.device, like.dtype)
    squares = replace(rows, panels=tuple(replace(panel, values=panel.values**2) for panel in rows.panels))
    if rows.frequent is not None:
        squares = replace(squares, frequent=replace(rows.frequent, values=rows.frequent.values**2))
    return plain_product(squares, torch.ones_like(like)[:, None])[:, 0]
