"""Exact sparse linear maps, and the three inner products that every loss and metric is made of.

With a linear last layer, predicted = W h + b, no dense profiles x genes array is needed:

    <x, predicted>   = (x W) . h + <x, b>
    |predicted|^2    = h' (W'W) h + 2 h' (W'b) + |b|^2

and centring, by gene or by profile, adds terms of rank one.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

from geneae.settings import CENTERS

COLUMN_BYTES = 256  # of a matrix at a time: 20,000 genes x 64 float32 stay in the cache; twice as fast as 128 at once


@dataclass(frozen=True)
class RowSums:
    """What does not change in training about target profiles; all are (n_profiles,)."""

    center: Tensor
    """<x, center>"""
    squared: Tensor
    """|x|^2"""
    total: Tensor
    """Sum of x over genes."""

    def take(self, rows: Tensor) -> "RowSums":
        """Of some of the profiles."""
        return RowSums(self.center[rows], self.squared[rows], self.total[rows])

    def to(self, device: torch.device | str) -> "RowSums":
        """The same elsewhere."""
        return RowSums(self.center.to(device), self.squared.to(device), self.total.to(device))


@dataclass(frozen=True)
class SparseRows:
    """A sparse batch of profiles (CSR), with its transpose where gradients need it."""

    indptr: Tensor
    """(n_profiles + 1,) int64 or int32: where each profile starts."""
    indices: Tensor
    """(n_values,) genes, the same type."""
    values: Tensor
    """(n_values,) float."""
    n_genes: int
    """Columns."""
    transpose: "SparseRows | None" = None
    """The same values gene by gene; needed for the gradient of a gene-sized matrix."""
    sums: "RowSums | None" = None
    """Where they are known already."""

    @property
    def n_profiles(self) -> int:
        """Rows."""
        return len(self.indptr) - 1

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "SparseRows":
        """The same rows elsewhere, in another precision."""
        transpose = None if self.transpose is None else self.transpose.to(device, dtype)
        values = self.values.to(device, dtype or self.values.dtype)
        sums = None if self.sums is None else self.sums.to(device)
        return SparseRows(self.indptr.to(device), self.indices.to(device), values, self.n_genes, transpose, sums)


def sparse_rows(matrix: sparse.csr_matrix, transpose: bool = False) -> SparseRows:
    """Rows of a SciPy matrix as tensors that share its memory.

    Parameters
    ----------
    matrix
        CSR.
    transpose
        Also lay the values out gene by gene, which the gradient of `sparse_product` needs.
    """
    by_gene = None
    if transpose:
        csc = matrix.tocsc()
        by_gene = SparseRows(_tensor(csc.indptr), _tensor(csc.indices), _tensor(csc.data), matrix.shape[0])
    return SparseRows(
        _tensor(matrix.indptr), _tensor(matrix.indices), _tensor(matrix.data), int(matrix.shape[1]), by_gene
    )


def _tensor(array: np.ndarray) -> Tensor:
    if not array.flags.writeable:  # torch warns of memory that it could be asked to write to
        array = array.copy()
    return torch.from_numpy(array)


def _bags(rows: SparseRows, weight: Tensor) -> Tensor:
    """Per row, the sum of value * weight[gene]: several times faster than the sparse matrix product of torch."""
    if not len(rows.values):  # embedding_bag refuses an empty list
        return weight.new_zeros(rows.n_profiles, weight.shape[1])
    values = rows.values.to(weight.dtype)
    parts = [
        F.embedding_bag(
            rows.indices,
            columns.contiguous(),
            rows.indptr,
            mode="sum",
            per_sample_weights=values,
            include_last_offset=True,
        )
        for columns in weight.split(COLUMN_BYTES // weight.element_size(), 1)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


class _SparseProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: SparseRows) -> Tensor:
        ctx.rows = rows
        return _bags(rows, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        if ctx.rows.transpose is None:
            raise ValueError("the gradient of a sparse product needs sparse_rows(matrix, transpose=True)")
        return _bags(ctx.rows.transpose, gradients[0].contiguous()), None


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


@dataclass(frozen=True)
class LinearOutput:
    """What is needed of predicted = weight h + offset, independently of the batch; `center` is a gene mean."""

    gram: Tensor | None
    """(n, n) weight' weight; None where it is the identity."""
    weight_offset: Tensor
    """(n,) weight' offset"""
    weight_center: Tensor
    """(n,) weight' center"""
    weight_sum: Tensor
    """(n,) sum of weight over genes"""
    offset_squared: Tensor
    """|offset|^2"""
    offset_center: Tensor
    """<offset, center>"""
    center_squared: Tensor
    """|center|^2"""
    offset_sum: Tensor
    """Sum of offset over genes."""
    n_genes: int
    """Rows of weight."""


def linear_output(weight: Tensor, offset: Tensor, center: Tensor, orthonormal: bool = False) -> LinearOutput:
    """Prepare a last layer for `inner_products`; once per step where it is learned, else once.

    Parameters
    ----------
    weight, offset, center
        (n_genes, n), (n_genes,), (n_genes,).
    orthonormal
        Whether the columns of `weight` are orthonormal.
    """
    return LinearOutput(
        gram=None if orthonormal else weight.T @ weight,
        weight_offset=weight.T @ offset,
        weight_center=weight.T @ center,
        weight_sum=weight.sum(0),
        offset_squared=offset @ offset,
        offset_center=offset @ center,
        center_squared=center @ center,
        offset_sum=offset.sum(),
        n_genes=int(weight.shape[0]),
    )


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

    def take(self, rows: Tensor) -> "Projection":
        """Some of the profiles."""
        return Projection(*(getattr(self, field)[rows] for field in self.__dataclass_fields__))

    def to(self, device: torch.device | str) -> "Projection":
        """The same elsewhere."""
        return Projection(*(getattr(self, field).to(device) for field in self.__dataclass_fields__))


def project(rows: SparseRows, weight: Tensor, offset: Tensor, center: Tensor) -> Projection:
    """Products of target profiles with a last layer; differentiable in `weight` and `offset`.

    Where `offset` and `center` are the same tensor, their product is taken once.
    """
    sums = rows.sums or row_sums(rows, center)
    by_offset = sums.center if center is offset else sparse_product(rows, offset)
    return Projection(sparse_product(rows, weight), by_offset, sums.center, sums.squared, sums.total)


def row_sums(rows: SparseRows, center: Tensor) -> RowSums:
    """Of profiles, without a gradient."""
    values = rows.values.to(center.dtype)
    ones = torch.ones_like(center)[:, None]
    squared, total = (_bags(replace(rows, values=summed), ones)[:, 0] for summed in (values * values, values))
    return RowSums(sparse_product(rows, center), squared, total)


class _LastLayer(torch.autograd.Function):
    """x weight, <x, offset>, weight' weight, weight' offset and |offset|^2, with their gradients in one go.

    Autograd would make five arrays of the size of `weight` and add them up; here one takes all parts in place.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, offset: Tensor, rows: SparseRows) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight, offset)
        ctx.rows = rows
        weight, offset = weight.detach(), offset.detach()
        by_offset = _bags(rows, offset[:, None])[:, 0]
        return _bags(rows, weight), by_offset, weight.T @ weight, weight.T @ offset, offset @ offset

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, offset = ctx.saved_tensors
        product, by_offset, gram, weight_offset, squared = gradients
        if ctx.rows.transpose is None:
            raise ValueError("the gradient of a sparse product needs sparse_rows(matrix, transpose=True)")
        by_weight = _bags(ctx.rows.transpose, product.contiguous())
        by_weight.addmm_(weight, gram + gram.T).addr_(offset, weight_offset)
        of_offset = _bags(ctx.rows.transpose, by_offset[:, None].contiguous())[:, 0]
        of_offset.addmv_(weight, weight_offset).add_(2 * squared * offset)
        return by_weight, of_offset, None


def last_layer(rows: SparseRows, weight: Tensor, offset: Tensor, center: Tensor) -> tuple[Projection, LinearOutput]:
    """`project` and `linear_output` of a learned last layer, with a gradient that costs one array of its size."""
    parts = _LastLayer.apply(weight, offset, rows)  # type: ignore[no-untyped-call]
    product, by_offset, gram, weight_offset, squared = parts
    sums = rows.sums or row_sums(rows, center)
    output = LinearOutput(
        gram=gram,
        weight_offset=weight_offset,
        weight_center=weight.T @ center,
        weight_sum=weight.sum(0),
        offset_squared=squared,
        offset_center=offset @ center,
        center_squared=center @ center,
        offset_sum=offset.sum(),
        n_genes=int(weight.shape[0]),
    )
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
