"""Exact sparse linear maps, and the three inner products that every loss and metric is made of.

With a linear last layer, predicted = W h + b, no dense profiles x genes array is needed:

    <x, predicted>   = (x W) . h + <x, b>
    |predicted|^2    = h' (W'W) h + 2 h' (W'b) + |b|^2

and centring, by gene or by profile, adds terms of rank one.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

from geneae.settings import CENTERS

COLUMN_BYTES = 256  # of a large matrix at a time: 20,000 genes x 64 float32 stay in the cache
SMALL_BYTES = 2**21  # of a matrix that stays in the cache whole
PANEL = 4096  # genes of a batch at a time, so that their rows of a matrix stay in the cache
FREQUENT = 1 / 3  # of the profiles; a gene seen in more of them is quicker as a dense column, and hardly larger


@dataclass(frozen=True)
class RowSums:
    """What does not change in training about target profiles; (n_profiles,) unless it says otherwise."""

    center: Tensor
    """<x, center>"""
    squared: Tensor
    """|x|^2"""
    total: Tensor
    """Sum of x over genes."""
    mapped: Tensor | None = None
    """(n_profiles, n_components) M x, where the loss has a fixed metric."""

    def take(self, rows: Tensor) -> "RowSums":
        """Of some of the profiles."""
        return RowSums(*(tensor[rows] for tensor in known_tensors(self)))

    def to(self, device: torch.device | str) -> "RowSums":
        """The same elsewhere."""
        return RowSums(*(tensor.to(device) for tensor in known_tensors(self)))


@dataclass(frozen=True)
class FrequentGenes:
    """Genes that most profiles have, kept out of the sparse rows: their products are those of dense matrices."""

    genes: Tensor
    """(n_frequent,) int64 columns."""
    values: Tensor
    """(n_profiles, n_frequent)"""

    def take(self, rows: Tensor) -> "FrequentGenes":
        """Of some of the profiles."""
        return FrequentGenes(self.genes, self.values[rows])

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "FrequentGenes":
        """The same elsewhere, in another precision."""
        return FrequentGenes(self.genes.to(device), self.values.to(device, dtype or self.values.dtype))


@dataclass(frozen=True)
class Panel:
    """Values of neighbouring genes of a batch (CSR)."""

    indptr: Tensor
    """(n_rows + 1,) int64 or int32: where each row starts."""
    indices: Tensor
    """(n_values,) columns, counted from the first of the panel, the same type."""
    values: Tensor
    """(n_values,) float."""
    n_columns: int
    """Of the panel."""
    transpose: "Panel | None" = None
    """The same values gene by gene; needed for the gradient of a gene-sized matrix."""

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Panel":
        """The same elsewhere, in another precision."""
        transpose = None if self.transpose is None else self.transpose.to(device, dtype)
        values = self.values.to(device, dtype or self.values.dtype)
        return Panel(self.indptr.to(device), self.indices.to(device), values, self.n_columns, transpose)


@dataclass(frozen=True)
class SparseRows:
    """A sparse batch of profiles."""

    panels: tuple[Panel, ...]
    """Side by side; all genes together."""
    n_profiles: int
    """Rows."""
    n_genes: int
    """Columns."""
    frequent: FrequentGenes | None = None
    """Genes that the panels leave out."""
    sums: RowSums | None = None
    """Where they are known already."""

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "SparseRows":
        """The same rows elsewhere, in another precision."""
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
        Also lay the values out gene by gene, which the gradient of `sparse_product` needs.
    """
    return SparseRows((_panel(matrix, transpose),), *matrix.shape)


def _panel(matrix: sparse.csr_matrix | sparse.csc_matrix, transpose: bool = False) -> Panel:
    by_gene = _panel(matrix.tocsc().T) if transpose else None
    indptr, indices, values = map(_tensor, (matrix.indptr, matrix.indices, matrix.data))
    return Panel(indptr, indices, values, int(matrix.shape[1]), by_gene)


class RowStore:
    """Profiles that batches are taken of: frequent genes as a dense matrix, the others as panels."""

    def __init__(self, matrix: sparse.csr_matrix) -> None:
        n_profiles, self._n_genes = matrix.shape
        is_frequent = np.bincount(matrix.indices, minlength=self._n_genes) > FREQUENT * n_profiles
        genes = np.flatnonzero(is_frequent)
        chosen = matrix[:, genes].tocoo()
        values = torch.zeros(
            chosen.shape, dtype=_tensor(matrix.data).dtype
        )  # a third of them at least will not be zero
        values[_tensor(chosen.row).long(), _tensor(chosen.col).long()] = _tensor(chosen.data)
        self._frequent = FrequentGenes(torch.from_numpy(genes), values)
        is_kept = ~is_frequent[matrix.indices]
        ends = np.concatenate([[0], np.cumsum(is_kept)])[matrix.indptr].astype(matrix.indptr.dtype)
        rare = sparse.csr_matrix((matrix.data[is_kept], matrix.indices[is_kept], ends), shape=matrix.shape)
        self._panels = [rare[:, start : start + PANEL] for start in range(0, self._n_genes, PANEL)]

        self._pool = ThreadPoolExecutor(torch.get_num_threads())

    def take(self, rows: Tensor) -> SparseRows:
        """Some of the profiles, with their transpose; SciPy lets other threads run."""
        panels = self._pool.map(lambda panel: _panel(panel[rows.numpy()], transpose=True), self._panels)
        return SparseRows(tuple(panels), len(rows), self._n_genes, self._frequent.take(rows))


def _tensor(array: np.ndarray) -> Tensor:
    if not array.flags.writeable:  # torch warns of memory that it could be asked to write to
        array = array.copy()
    return torch.from_numpy(array)


def _product(rows: SparseRows, weight: Tensor) -> Tensor:
    """(n_profiles, n) x weight"""
    parts = weight.split([panel.n_columns for panel in rows.panels])
    product = _bags(rows.panels[0], parts[0])
    for panel, part in zip(rows.panels[1:], parts[1:], strict=True):
        product += _bags(panel, part)
    if rows.frequent is not None:
        product.addmm_(rows.frequent.values.to(weight.dtype), weight[rows.frequent.genes])
    return product


def transposed_product(rows: SparseRows, by_row: Tensor) -> Tensor:
    """(n_genes, n) `x' @ by_row` from (n_profiles, n), without a gradient; the rows have to know their transpose."""
    transposes = [panel.transpose for panel in rows.panels if panel.transpose is not None]
    if len(transposes) < len(rows.panels):
        raise ValueError("the gradient of a sparse product needs sparse_rows(matrix, transpose=True)")
    parts = [_bags(transpose, by_row) for transpose in transposes]
    product = parts[0] if len(parts) == 1 else torch.cat(parts)
    if rows.frequent is not None:
        product[rows.frequent.genes] = rows.frequent.values.T.to(by_row.dtype) @ by_row
    return product


def _bags(panel: Panel, weight: Tensor) -> Tensor:
    """Per row, the sum of value * weight[column]: several times faster than the sparse matrix product of torch."""
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
        return _product(rows, weight.detach())  # else embedding_bag prepares for a gradient of its own

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
    (n_profiles, n) or (n_profiles,). Time and memory grow with the stored values, not with the genes.
    """
    if weight.dim() == 1:
        return sparse_product(rows, weight[:, None])[:, 0]
    product: Tensor = _SparseProduct.apply(weight.contiguous(), rows)  # type: ignore[no-untyped-call]
    return product


@dataclass(frozen=True)
class Others:
    """What a loss that compares the profiles of a batch has to know beside predictions and targets."""

    gram: Tensor | None = None
    """(n_profiles, n_profiles) <x_i, x_j> of the targets, without centring."""
    labels: Tensor | None = None
    """(n_profiles,) int64, the same for the same label; below 0 for none."""
    progress: float = 1.0
    """Share of the training that is over, 0 to 1."""

    def to(self, device: torch.device | str) -> "Others":
        """The same elsewhere."""
        gram, labels = (None if tensor is None else tensor.to(device) for tensor in (self.gram, self.labels))
        return Others(gram, labels, self.progress)


@dataclass(frozen=True)
class Comparison:
    """Every prediction of a batch against every target."""

    cross: Tensor
    """(n_profiles, n_profiles) <predicted_i, target_j>"""
    targets: Tensor | None
    """(n_profiles, n_profiles) <target_i, target_j>, where it is known."""
    latent: Tensor
    """(n_profiles, n_latent)"""
    others: Others
    """Labels and progress."""


@dataclass(frozen=True)
class InnerProducts:
    """What a loss or metric sees of profiles and their reconstructions; all tensors are (n_profiles,)."""

    cross: Tensor
    """<target, predicted>"""
    target: Tensor
    """|target|^2, at least 0"""
    predicted: Tensor
    """|predicted|^2, at least 0"""
    n_genes: int
    """Length of the vectors."""
    batch: Comparison | None = None
    """The same of all pairs, where a loss asks for them."""


@dataclass(frozen=True)
class LinearOutput:
    """What is needed of predicted = weight h + offset, independently of the batch.

    What only a centring needs is made when it is first asked for.
    """

    weight: Tensor
    """(n_genes, n)"""
    offset: Tensor
    """(n_genes,)"""
    center: Tensor
    """(n_genes,) gene mean."""
    gram: Tensor | None
    """(n, n) weight' weight; None where it is the identity."""
    weight_offset: Tensor
    """(n,) weight' offset"""
    offset_squared: Tensor
    """|offset|^2"""

    @property
    def n_genes(self) -> int:
        """Rows of weight."""
        return int(self.weight.shape[0])

    @cached_property
    def weight_center(self) -> Tensor:
        """(n,) weight' center"""
        return self.weight.T @ self.center

    @cached_property
    def weight_sum(self) -> Tensor:
        """(n,) sum of weight over genes"""
        return self.weight.sum(0)

    @cached_property
    def offset_center(self) -> Tensor:
        """<offset, center>"""
        return self.offset @ self.center

    @cached_property
    def center_squared(self) -> Tensor:
        """|center|^2"""
        return self.center @ self.center

    @cached_property
    def offset_sum(self) -> Tensor:
        """Sum of offset over genes."""
        return self.offset.sum()


def linear_output(weight: Tensor, offset: Tensor, center: Tensor, orthonormal: bool = False) -> LinearOutput:
    """Prepare a last layer for `inner_products`; once per step where it is learned, else once.

    Parameters
    ----------
    weight, offset, center
        (n_genes, n), (n_genes,), (n_genes,).
    orthonormal
        Whether the columns of `weight` are orthonormal.
    """
    gram = None if orthonormal else weight.T @ weight
    return LinearOutput(weight, offset, center, gram, weight.T @ offset, offset @ offset)


@dataclass(frozen=True)
class Projection:
    """What is needed of target profiles: their products with the last layer, and their own sums."""

    weight: Tensor
    """(n_profiles, n) x weight"""
    offset: Tensor
    """(n_profiles,) <x, offset>"""
    center: Tensor
    """(n_profiles,) <x, center>"""
    squared: Tensor
    """(n_profiles,) |x|^2"""
    total: Tensor
    """(n_profiles,) sum of x over genes"""
    mapped: Tensor | None = None
    """(n_profiles, n_components) M x, where the loss has a fixed metric."""

    def take(self, rows: Tensor) -> "Projection":
        """Some of the profiles."""
        return Projection(*(tensor[rows] for tensor in known_tensors(self)))

    def to(self, device: torch.device | str) -> "Projection":
        """The same elsewhere."""
        return Projection(*(tensor.to(device) for tensor in known_tensors(self)))


def known_tensors(record: "RowSums | Projection") -> list[Tensor]:
    """Its tensors, in their order; only the last may be missing."""
    tensors: list[Tensor | None] = [getattr(record, field) for field in record.__dataclass_fields__]
    return [tensor for tensor in tensors if tensor is not None]


def project(rows: SparseRows, weight: Tensor, offset: Tensor, center: Tensor) -> Projection:
    """Products of target profiles with a last layer; differentiable in `weight` and `offset`.

    Where `offset` and `center` are the same tensor, as in a fixed basis, all products are taken in one pass.
    """
    if rows.sums is None and center is offset:
        squared = _row_squares(rows, center)
        products = sparse_product(rows, torch.column_stack([weight, center, torch.ones_like(center)]))
        by_weight, by_center, total = products[:, :-2], products[:, -2], products[:, -1]
        return Projection(by_weight.contiguous(), by_center, by_center, squared, total)
    sums = rows.sums or row_sums(rows, center)
    return Projection(sparse_product(rows, weight), sparse_product(rows, offset), sums.center, sums.squared, sums.total)


def row_sums(rows: SparseRows, center: Tensor) -> RowSums:
    """Of profiles, without a gradient."""
    rows = rows.to(center.device, center.dtype)
    by_center, total = _product(rows, torch.column_stack([center, torch.ones_like(center)])).unbind(1)
    return RowSums(by_center, _row_squares(rows, center), total)


def _row_squares(rows: SparseRows, like: Tensor) -> Tensor:
    """(n_profiles,) |x|^2, where and as `like` is."""
    rows = rows.to(like.device, like.dtype)
    squares = replace(rows, panels=tuple(replace(panel, values=panel.values**2) for panel in rows.panels))
    if rows.frequent is not None:
        squares = replace(squares, frequent=replace(rows.frequent, values=rows.frequent.values**2))
    return _product(squares, torch.ones_like(like)[:, None])[:, 0]


class _LastLayer(torch.autograd.Function):
    """x weight, <x, offset>, weight' weight, weight' offset and |offset|^2, with their gradients in one go.

    Autograd would make five arrays of the size of `weight` and add them up; here one takes all parts in place.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, offset: Tensor, rows: SparseRows) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight, offset)
        ctx.rows = rows
        weight, offset = weight.detach(), offset.detach()
        by_offset = _product(rows, offset[:, None])[:, 0]
        return _product(rows, weight), by_offset, weight.T @ weight, weight.T @ offset, offset @ offset

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, offset = ctx.saved_tensors
        product, by_offset, gram, weight_offset, squared = gradients
        by_weight = transposed_product(ctx.rows, product.contiguous())
        by_weight.addmm_(weight, gram + gram.T).addr_(offset, weight_offset)
        of_offset = transposed_product(ctx.rows, by_offset[:, None].contiguous())[:, 0]
        of_offset.addmv_(weight, weight_offset).add_(2 * squared * offset)
        return by_weight, of_offset, None


def last_layer(rows: SparseRows, weight: Tensor, offset: Tensor, center: Tensor) -> tuple[Projection, LinearOutput]:
    """`project` and `linear_output` of a learned last layer, with a gradient that costs one array of its size."""
    parts = _LastLayer.apply(weight, offset, rows)  # type: ignore[no-untyped-call]
    product, by_offset, gram, weight_offset, squared = parts
    sums = rows.sums or row_sums(rows, center)
    output = LinearOutput(weight, offset, center, gram, weight_offset, squared)
    return Projection(product, by_offset, sums.center, sums.squared, sums.total), output


def inner_products(target: Projection, output: LinearOutput, hidden: Tensor, center: str = "none") -> InnerProducts:
    """The three inner products of each target profile and its reconstruction weight h + offset.

    Parameters
    ----------
    target
        Products of the target profiles with the last layer.
    output
        The last layer.
    hidden
        h, (n_profiles, n).
    center
        `none`; `gene`: the gene mean `center` is subtracted from both; `profile`: from each its own mean over genes,
        which makes the cosine Pearson's correlation.
    """
    cross = (target.weight * hidden).sum(1) + target.offset
    squared = target.squared
    gram_hidden = hidden if output.gram is None else hidden @ output.gram
    predicted = (gram_hidden * hidden).sum(1) + 2 * hidden @ output.weight_offset + output.offset_squared
    if center == "gene":
        by_center = hidden @ output.weight_center + output.offset_center
        cross = cross - target.center - by_center + output.center_squared
        squared = squared - 2 * target.center + output.center_squared
        predicted = predicted - 2 * by_center + output.center_squared
    elif center == "profile":
        total = hidden @ output.weight_sum + output.offset_sum
        cross = cross - target.total * total / output.n_genes
        squared = squared - target.total**2 / output.n_genes
        predicted = predicted - total**2 / output.n_genes
    elif center != "none":
        raise ValueError(f"center must be one of {', '.join(CENTERS)}; found {center!r}")
    return InnerProducts(cross, squared.clamp(min=0), predicted.clamp(min=0), output.n_genes)


def compare(
    target: Projection, output: LinearOutput, hidden: Tensor, center: str, latent: Tensor, others: Others
) -> Comparison:
    """The inner products of every reconstruction of a batch with every target: (x_j weight) . h_i + <x_j, offset>.

    Exact, and no larger than profiles x profiles; parameters as in `inner_products`.
    """
    cross = hidden @ target.weight.T + target.offset
    gram = others.gram
    if center == "gene":
        by_center = hidden @ output.weight_center + output.offset_center
        cross = cross - target.center - by_center[:, None] + output.center_squared
        if gram is not None:
            gram = gram - target.center - target.center[:, None] + output.center_squared
    elif center == "profile":
        total = hidden @ output.weight_sum + output.offset_sum
        cross = cross - torch.outer(total, target.total) / output.n_genes
        if gram is not None:
            gram = gram - torch.outer(target.total, target.total) / output.n_genes
    return Comparison(cross, gram, latent, others)


def gram_of(matrix: sparse.csr_matrix) -> Tensor:
    """(n_profiles, n_profiles) <x_i, x_j> of sparse profiles; what is stored is multiplied and nothing else."""
    product = (matrix @ matrix.T).tocoo()
    gram = torch.zeros(product.shape, dtype=_tensor(product.data).dtype)
    gram[_tensor(product.row).long(), _tensor(product.col).long()] = _tensor(product.data)
    return gram


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return gradients[0] * factor, None


def scale_gradient(products: InnerProducts, power: float) -> InnerProducts:
    """The same products, whose gradient in each prediction is multiplied by the norm of that prediction to a power.

    A prediction is seen through its inner products alone, so that the factor can be put on their gradients. As the
    gradient of a cosine is the sine of the angle over the norm, 1 removes the norm from it; the angle of a step of
    gradient descent still is divided by the norm, and 2 removes it from there, too (Draganov et al. 2025, arXiv
    2502.09252, use 1).
    """
    if not power:
        return products
    factor = products.predicted.detach().sqrt() ** power

    def scaled(values: Tensor, factor: Tensor = factor) -> Tensor:
        result: Tensor = _ScaledGradient.apply(values, factor)  # type: ignore[no-untyped-call]
        return result

    batch = products.batch
    if batch is not None:
        batch = replace(batch, cross=scaled(batch.cross, factor[:, None]))
    return replace(products, cross=scaled(products.cross), predicted=scaled(products.predicted), batch=batch)
