"""Reconstruction losses under a learned metric: inner products under a cosine that was learned before and stays fixed.

Under A = M'M + epsilon I, <x, y>_A = (M x) . (M y) + epsilon <x, y>. With predicted = W h + b, M predicted is
(M W) h + M b. This again takes a few numbers per profile, is exact, and needs no array of profiles x genes:

    <x, predicted>_A = (M x) . ((M W) h + M b) + epsilon <x, predicted>

Centring by gene subtracts M center from M x and M predicted; centring by profile subtracts from each its mean over
genes times M 1.

**Why M is not trained with the autoencoder.** A cosine loss falls as M becomes worse at telling profiles apart. All
profiles share a large component, their mean. If M has a single row along it, M x points the same way for every x, and
every reconstruction that shares this component, such as the mean profile itself, has cosine 1. An M trained on the
reconstruction loss could end there whatever the network does, and nothing in the loss would prevent it; for a squared
error, M = 0 is the same end. Therefore M is learned from labels, which say what it has to tell apart, and is constant
here.
"""

from dataclasses import replace

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from geneae.losses.inner_products import InnerProducts, LinearOutput, TargetProducts
from geneae.losses.sparse_rows import SparseRows, row_sums, sparse_product, sparse_rows


class FixedMetric(nn.Module):
    """M and epsilon of A = M'M + epsilon I, as a module without parameters that moves to the device of its objective.

    It is not part of any saved state: a model trained under a metric is used without it.

    Parameters
    ----------
    columns
        M', (n_genes, n_components).
    epsilon
        At least 0.
    """

    def __init__(self, columns: Tensor, epsilon: float) -> None:
        super().__init__()
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("of_ones", columns.sum(0), persistent=False)
        self.columns: Tensor
        self.of_ones: Tensor
        self.epsilon = epsilon
        self._last: tuple[LinearOutput, tuple[Tensor, Tensor, Tensor]] | None = None

    @property
    def n_components(self) -> int:
        """Number of rows of M."""
        return int(self.columns.shape[1])

    def project(self, rows: SparseRows) -> Tensor:
        """(n_profiles, n_components) M x: the values stored with the rows, otherwise one sparse product."""
        if rows.sums is not None and rows.sums.mapped is not None:
            return rows.sums.mapped
        return sparse_product(rows.to(self.columns.device), self.columns)

    def products(
        self, plain: InnerProducts, target: TargetProducts, output: LinearOutput, hidden: Tensor, center: str
    ) -> InnerProducts:
        """Inner products under A of targets and predictions, computed from the plain ones.

        Parameters
        ----------
        plain
            Inner products with the same centring; including those of all pairs of the mini-batch where the loss
            compares profiles.
        target
            Products of the target profiles, with `mapped`.
        output, hidden, center
            See `geneae.losses.inner_products.inner_products`.
        """
        assert target.mapped is not None
        weight, offset, mean = self._map_output(output)
        total = hidden @ output.weight_sum + output.offset_sum if center == "profile" else target.total
        x = self._centred(target.mapped, mean, target.total, center)
        y = self._centred(hidden @ weight + offset, mean, total, center)
        batch = plain.batch
        if batch is not None:
            targets = None if batch.targets is None else x @ x.T + self.epsilon * batch.targets
            batch = replace(batch, cross=y @ x.T + self.epsilon * batch.cross, targets=targets)
        return InnerProducts(
            (x * y).sum(1) + self.epsilon * plain.cross,
            x.square().sum(1) + self.epsilon * plain.target,
            y.square().sum(1) + self.epsilon * plain.predicted,
            plain.n_genes,
            batch,
        )

    def map_rows(self, matrix: sparse.csr_matrix, mean: np.ndarray | None, center: str) -> np.ndarray:
        """(n_profiles, n_components) M x of centred profiles; only centring by gene needs the gene mean `mean`."""
        rows, nothing = sparse_rows(matrix), torch.zeros_like(self.columns[:, 0])
        of_mean = self.of_ones * 0 if mean is None else torch.from_numpy(mean).to(self.columns) @ self.columns
        mapped = self._centred(self.project(rows), of_mean, row_sums(rows, nothing).total, center)
        return np.asarray(mapped.cpu().numpy())

    def _map_output(self, output: LinearOutput) -> tuple[Tensor, Tensor, Tensor]:
        """(n, n_components) transpose of M W, (n_components,) M b and M center; cached if the layer is not learned."""
        if self._last is None or self._last[0] is not output:
            mapped = output.weight.T @ self.columns, output.offset @ self.columns, output.center @ self.columns
            if output.weight.requires_grad:
                return mapped
            self._last = output, mapped
        return self._last[1]

    def _centred(self, mapped: Tensor, mean: Tensor, total: Tensor, center: str) -> Tensor:
        """M x of centred profiles, from M x, M times the gene mean, and the sums of x over genes."""
        if center == "gene":
            return mapped - mean
        if center == "profile":
            return mapped - torch.outer(total, self.of_ones / len(self.columns))
        return mapped
