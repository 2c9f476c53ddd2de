"""From hidden to genes: what a network predicts, and the inner products of that with target profiles.

A decoder answers by two verbs. `products` gives the three inner products of targets and predictions, which losses and
metrics are made of; `expectation` gives the predictions themselves, dense.
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
    """What evaluation asks of whatever predicts profiles."""

    @property
    def dtype(self) -> torch.dtype:
        """Precision of its numbers."""

    def products(self, hidden: Tensor, target: TargetProducts, centers: Iterable[str]) -> dict[str, InnerProducts]:
        """Inner products of each target profile and its prediction, by centring."""

    def expectation(self, hidden: Tensor) -> Tensor:
        """(n_profiles, n_genes) predictions, dense."""


@dataclass(frozen=True, eq=False)
class LinearDecoder:
    """predicted = weight h + offset: its inner products are exact, and no array of profiles x genes is needed."""

    weight: Tensor
    """(n_genes, n)"""
    offset: Tensor
    """(n_genes,)"""
    center: Tensor
    """(n_genes,) gene mean."""
    is_orthonormal: bool = False
    """Whether the columns of `weight` are orthonormal."""
    known: LinearOutput | None = None
    """The layer with the products of these tensors, where it was made before."""

    @property
    def dtype(self) -> torch.dtype:
        """Precision of its numbers."""
        return self.weight.dtype

    @cached_property
    def layer(self) -> LinearOutput:
        """The tensors and their products with each other, made when first asked for."""
        if self.known is not None:
            return self.known
        return linear_output(self.weight, self.offset, self.center, self.is_orthonormal)

    def facing(
        self, target: TargetProducts | SparseRows, metric: FixedMetric | None = None
    ) -> tuple["LinearDecoder", TargetProducts]:
        """The decoder and the products of target profiles with it, ready for the other verbs.

        Where the weight is learned and the targets are profiles, both are made in one pass, with a gradient that costs
        one array of the size of the weight.

        Parameters
        ----------
        target
            The profiles, or their products with this decoder.
        metric
            That a loss compares them under, if any.
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
            (n_profiles, n)
        target
            See `project`.
        centers
            `none`, `gene`, `profile`.
        """
        return {center: inner_products(target, self.layer, hidden, center) for center in centers}

    def pairs(
        self, hidden: Tensor, target: TargetProducts, center: str, gram: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """(n_profiles, n_profiles) products of all predictions and targets of a batch, and of all its targets."""
        return pair_products(target, self.layer, hidden, center, gram)

    def under(
        self, metric: FixedMetric, plain: InnerProducts, hidden: Tensor, target: TargetProducts, center: str
    ) -> InnerProducts:
        """Inner products under a metric, from the plain ones of that centring."""
        return metric.under(plain, *metric.map_pair(target, self.layer, hidden, center))

    def expectation(self, hidden: Tensor) -> Tensor:
        """(n_profiles, n_genes) predictions, dense."""
        return hidden @ self.weight.T + self.offset


def _mapped(products: TargetProducts, rows: SparseRows, metric: FixedMetric | None) -> TargetProducts:
    return products if metric is None else replace(products, mapped=metric.project(rows))
