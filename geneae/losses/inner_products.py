"""The three inner products that every loss and metric is computed from, exact and sparse.

With a linear last layer, predicted = W h + b, no dense array of profiles x genes is needed:

    <x, predicted>   = (x W) . h + <x, b>
    |predicted|^2    = h' (W'W) h + 2 h' (W'b) + |b|^2

Centring, by gene or by profile, adds terms of rank one.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from scipy import sparse
from torch import Tensor

from geneae.losses.sparse_rows import (
    ByProfile,
    SparseRows,
    plain_product,
    row_squares,
    row_sums,
    sparse_product,
    to_tensor,
    transposed_product,
)
from geneae.settings.settings import CENTERS


@dataclass(frozen=True)
class BatchContext:
    """Additional input of a loss that compares the profiles of a mini-batch: values of all of them together."""

    cross: Tensor
    """(n_profiles, n_profiles) <predicted_i, target_j>"""
    targets: Tensor | None
    """(n_profiles, n_profiles) <target_i, target_j>; None where they are not known."""
    latent: Tensor
    """(n_profiles, n_latent)"""
    labels: Tensor | None = None
    """(n_profiles,) int64 code of the label of each profile; below 0 for none."""
    progress: float = 1.0
    """Completed share of the training, 0 to 1."""


@dataclass(frozen=True)
class InnerProducts:
    """Inner products of profiles and their reconstructions: input of losses and metrics; tensors are (n_profiles,)."""

    cross: Tensor
    """<target, predicted>"""
    target: Tensor
    """|target|^2, at least 0"""
    predicted: Tensor
    """|predicted|^2, at least 0"""
    n_genes: int
    """Number of genes."""
    batch: BatchContext | None = None
    """Inner products of all pairs, where a loss needs them."""


@dataclass(frozen=True)
class LinearOutput:
    """The last layer, predicted = weight h + offset, and its products that do not depend on the mini-batch.

    Products that only a centring needs are computed on first use.
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
        """Number of genes, the rows of `weight`."""
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
    """Prepare a last layer for `inner_products`: once per step if it is learned, otherwise once.

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
class TargetProducts(ByProfile):
    """Products of target profiles with the last layer, and sums of the profiles themselves."""

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


def project(rows: SparseRows, weight: Tensor, offset: Tensor, center: Tensor) -> TargetProducts:
    """Products of target profiles with a last layer; differentiable in `weight` and `offset`.

    If `offset` and `center` are the same tensor, as in a fixed basis, and the rows carry no sums, one pass gives all.
    """
    if rows.sums is None and center is offset:
        squared = row_squares(rows, center)
        products = sparse_product(rows, torch.column_stack([weight, center, torch.ones_like(center)]))
        by_weight, by_center, total = products[:, :-2], products[:, -2], products[:, -1]
        return TargetProducts(by_weight.contiguous(), by_center, by_center, squared, total)
    sums = rows.sums or row_sums(rows, center)
    return TargetProducts(
        sparse_product(rows, weight), sparse_product(rows, offset), sums.center, sums.squared, sums.total
    )


class _LastLayer(torch.autograd.Function):
    """x weight, <x, offset>, weight' weight, weight' offset and |offset|^2, with a common gradient.

    Autograd would make five arrays of the size of `weight` and add them up; here all parts are added to one, in place.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, offset: Tensor, rows: SparseRows) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight, offset)
        ctx.rows = rows
        weight, offset = weight.detach(), offset.detach()
        by_offset = plain_product(rows, offset[:, None])[:, 0]
        return plain_product(rows, weight), by_offset, weight.T @ weight, weight.T @ offset, offset @ offset

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, offset = ctx.saved_tensors
        product, by_offset, gram, weight_offset, squared = gradients
        by_weight = transposed_product(ctx.rows, product.contiguous())
        by_weight.addmm_(weight, gram + gram.T).addr_(offset, weight_offset)
        of_offset = transposed_product(ctx.rows, by_offset[:, None].contiguous())[:, 0]
        of_offset.addmv_(weight, weight_offset).add_(2 * squared * offset)
        return by_weight, of_offset, None


def last_layer(rows: SparseRows, weight: Tensor, offset: Tensor, center: Tensor) -> tuple[TargetProducts, LinearOutput]:
    """`project` and `linear_output` of a learned last layer, with a gradient that takes one array of its size."""
    parts = _LastLayer.apply(weight, offset, rows)  # type: ignore[no-untyped-call]
    product, by_offset, gram, weight_offset, squared = parts
    sums = rows.sums or row_sums(rows, center)
    output = LinearOutput(weight, offset, center, gram, weight_offset, squared)
    return TargetProducts(product, by_offset, sums.center, sums.squared, sums.total), output


def inner_products(target: TargetProducts, output: LinearOutput, hidden: Tensor, center: str = "none") -> InnerProducts:
    """The three inner products of each target profile and its reconstruction, weight h + offset.

    Parameters
    ----------
    target
        Products of the target profiles with the last layer.
    output
        The last layer.
    hidden
        h, (n_profiles, n).
    center
        `none`; `gene`: the gene mean `center` is subtracted from both; `profile`: its own mean over genes is subtracted
        from each, which makes the cosine Pearson's correlation.
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


def pair_products(
    target: TargetProducts, output: LinearOutput, hidden: Tensor, center: str, gram: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Inner products of every reconstruction of a mini-batch with every target, and of every two targets.

    Exact, and no array is larger than profiles x profiles: (x_j weight) . h_i + <x_j, offset>.

    Parameters
    ----------
    target, output, hidden, center
        See `inner_products`.
    gram
        (n_profiles, n_profiles) <x_i, x_j> without centring; None where they are not known.
    """
    cross = hidden @ target.weight.T + target.offset
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
    return cross, gram


def gram_of(matrix: sparse.csr_matrix) -> Tensor:
    """(n_profiles, n_profiles) <x_i, x_j> of sparse profiles; only stored values are multiplied."""
    product = (matrix @ matrix.T).tocoo()
    gram = torch.zeros(product.shape, dtype=to_tensor(product.data).dtype)
    gram[to_tensor(product.row).long(), to_tensor(product.col).long()] = to_tensor(product.data)
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
    """The same products, with the gradient in each prediction multiplied by the norm of that prediction to a power.

    A loss depends on a prediction only through its inner products, so the factor can be applied to their gradients. The
    gradient of a cosine is the sine of the angle over the norm: power 1 removes the norm from it. The angle of a step
    of gradient descent is still divided by the norm: power 2 removes it there, too (Draganov et al. 2025, arXiv
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
