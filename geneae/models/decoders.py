"""Decoders: predictions of gene values from hidden, and their inner products with target profiles.

`Decoder` lists what others need of a decoder: `products` gives the three inner products of targets and predictions,
from which losses and metrics are computed, and `expectation` gives the predictions themselves, dense.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
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
from geneae.losses.sparse_rows import SparseRows


class Decoder(Protocol):
    """What evaluation needs of a decoder: `dtype` and `products`; and `Model`: `expectation`."""

    @property
    def dtype(self) -> torch.dtype:
        """Precision of its values."""

    def products(self, hidden: Tensor, target: TargetProducts, centers: Iterable[str]) -> dict[str, InnerProducts]:
        """Inner products of each target profile and its prediction, by centring."""

    def expectation(self, hidden: Tensor) -> Tensor:
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


def _mapped(products: TargetProducts, rows: SparseRows, metric: FixedMetric | None) -> TargetProducts:
    return products if metric is None else replace(products, mapped=metric.project(rows))
