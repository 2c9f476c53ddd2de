"""Decoders: predictions of gene values from hidden, and their inner products with target profiles.

`Decoder` lists what others need of a decoder: `products` gives the three inner products of targets and predictions,
from which losses and metrics are computed, and `expectation` gives the predictions themselves, dense.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from geneae.losses.fixed_metric import FixedMetric
from geneae.losses.inner_products import (
    InnerProducts,
    LinearOutput,
    TargetProducts,
    inner_products,
    last_layer,
    linear_output,
    pair_products,
    project,
)
from geneae.losses.sparse_rows import SparseRows, matrix_of, plain_product, row_squares, sparse_rows


class Decoder(Protocol):
    """What evaluation needs of a decoder: `dtype`, `layer` and `products`; and `Model`: `expectation`.

    Hidden values and targets are what the decoder says: tensors and their products, or with additions at single genes.
    """

    @property
    def dtype(self) -> torch.dtype:
        """Precision of its values."""

    @property
    def layer(self) -> LinearOutput:
        """The linear layer, with the products of its tensors."""

    def products(self, hidden: Any, target: Any, centers: Iterable[str]) -> dict[str, InnerProducts]:
        """Inner products of each target profile and its prediction, by centring."""

    def expectation(self, hidden: Any) -> Tensor:
        """(n_profiles, n_genes) predictions, dense."""


@dataclass(frozen=True, eq=False)
class LinearDecoder:
    """predicted = weight h + offset: its inner products are exact and need no array of profiles x genes."""

    weight: Tensor
    """(n_genes, n)"""
    offset: Tensor
    """(n_genes,)"""
    center: Tensor
    """(n_genes,) gene mean."""
    is_orthonormal: bool = False
    """Whether the columns of `weight` are orthonormal."""
    known: LinearOutput | None = None
    """The layer with the products of these tensors, if it was computed before."""

    @property
    def dtype(self) -> torch.dtype:
        """Precision of its values."""
        return self.weight.dtype

    @cached_property
    def layer(self) -> LinearOutput:
        """The tensors and their products with each other, computed on first use."""
        if self.known is not None:
            return self.known
        return linear_output(self.weight, self.offset, self.center, self.is_orthonormal)

    def with_target(
        self, target: TargetProducts | SparseRows, metric: FixedMetric | None = None
    ) -> tuple["LinearDecoder", TargetProducts]:
        """The decoder and the products of target profiles with it, ready for the other methods.

        If the weight is learned and the targets are profiles, both are computed in one pass, with a gradient that takes
        one array of the size of the weight.

        Parameters
        ----------
        target
            Profiles, or their products with this decoder.
        metric
            Learned metric under which a loss compares them, if any.
        """
        if isinstance(target, TargetProducts):
            return self, target
        if not self.weight.requires_grad:
            return self, self.project(target, metric)
        products, layer = last_layer(target, self.weight, self.offset, self.center)
        return replace(self, known=layer), _mapped(products, target, metric)

    def project(self, rows: SparseRows, metric: FixedMetric | None = None) -> TargetProducts:
        """Products of target profiles with the weight."""
        return _mapped(project(rows, self.weight, self.offset, self.center), rows, metric)

    def products(self, hidden: Tensor, target: TargetProducts, centers: Iterable[str]) -> dict[str, InnerProducts]:
        """Inner products of each target profile and its prediction, by centring.

        Parameters
        ----------
        hidden
            (n_profiles, n) h.
        target
            Products of the target profiles, see `project`.
        centers
            Centrings: `none`, `gene`, `profile`.
        """
        return {center: inner_products(target, self.layer, hidden, center) for center in centers}

    def pairs(
        self, hidden: Tensor, target: TargetProducts, center: str, gram: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """(n_profiles, n_profiles) inner products of all predictions of a mini-batch with all its targets, and of its
        targets with each other; see `pair_products`."""
        return pair_products(target, self.layer, hidden, center, gram)

    def products_under(
        self, metric: FixedMetric, plain: InnerProducts, hidden: Tensor, target: TargetProducts, center: str
    ) -> InnerProducts:
        """Inner products under a learned metric, computed from the plain ones with the same centring."""
        return metric.products(plain, target, self.layer, hidden, center)

    def expectation(self, hidden: Tensor) -> Tensor:
        """(n_profiles, n_genes) predictions, dense."""
        return hidden @ self.weight.T + self.offset


@dataclass(frozen=True, eq=False)
class Corrected:
    """Hidden values of profiles, and what is added to their predictions at single genes."""

    hidden: Tensor
    """(n_profiles, n) h."""
    corrections: sparse.csr_matrix | None
    """(n_profiles, n_genes) additions, at the non-zero values of the inputs; None for none."""


@dataclass(frozen=True, eq=False)
class Targets:
    """Target profiles and their products with a linear decoder."""

    products: TargetProducts
    """Products with the linear part."""
    matrix: sparse.csr_matrix
    """(n_profiles, n_genes) the profiles."""


@dataclass(frozen=True, eq=False)
class EntryDecoder:
    """predicted = weight h + offset + c, with c at the non-zero values of an input: its inner products are exact.

        <x, predicted>   = <x, weight h + offset> + <x, c>
        |predicted|^2    = |weight h + offset|^2 + 2 <weight h + offset, c> + |c|^2

    All sums with c are over non-zero values, so that no array of profiles x genes is needed.
    """

    linear: LinearDecoder
    """The part without c."""

    @property
    def dtype(self) -> torch.dtype:
        """Precision of its values."""
        return self.linear.dtype

    @property
    def layer(self) -> LinearOutput:
        """The linear part, with the products of its tensors."""
        return self.linear.layer

    def project(self, rows: SparseRows, metric: FixedMetric | None = None) -> Targets:
        """Target profiles, and their products with the linear part."""
        return Targets(self.linear.project(rows, metric), matrix_of(rows))

    def products(self, hidden: Corrected, target: Targets, centers: Iterable[str]) -> dict[str, InnerProducts]:
        """Inner products of each target profile and its prediction, by centring."""
        plain = self.linear.products(hidden.hidden, target.products, centers)
        if hidden.corrections is None:
            return plain
        layer, n_genes = self.linear.layer, self.linear.layer.n_genes
        rows = sparse_rows(hidden.corrections).to("cpu", self.dtype)
        columns = torch.column_stack([layer.weight, layer.offset, layer.center, torch.ones_like(layer.offset)])
        found = plain_product(rows, columns)
        cross = torch.from_numpy(np.asarray(hidden.corrections.multiply(target.matrix).sum(1))).to(self.dtype).ravel()
        square = row_squares(rows, layer.offset)
        by_linear = (found[:, :-3] * hidden.hidden).sum(1) + found[:, -3]
        by_center, total = found[:, -2], found[:, -1]
        of_linear = hidden.hidden @ layer.weight_sum + layer.offset_sum
        added = {
            "none": (cross, square + 2 * by_linear),
            "gene": (cross - by_center, square + 2 * (by_linear - by_center)),
            "profile": (
                cross - target.products.total * total / n_genes,
                square - total**2 / n_genes + 2 * (by_linear - of_linear * total / n_genes),
            ),
        }
        return {
            center: replace(
                products,
                cross=products.cross + added[center][0],
                predicted=(products.predicted + added[center][1]).clamp(min=0),
            )
            for center, products in plain.items()
        }

    def expectation(self, hidden: Corrected) -> Tensor:
        """(n_profiles, n_genes) predictions, dense."""
        dense = self.linear.expectation(hidden.hidden)
        if hidden.corrections is None:
            return dense
        places = hidden.corrections.tocoo()
        rows, genes, values = map(torch.from_numpy, (places.row, places.col, places.data))
        return dense.index_put((rows.long(), genes.long()), values.to(dense.dtype), accumulate=True)


def _mapped(products: TargetProducts, rows: SparseRows, metric: FixedMetric | None) -> TargetProducts:
    return products if metric is None else replace(products, mapped=metric.project(rows))
