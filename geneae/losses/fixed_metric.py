"""A cosine that was learned before, inside a reconstruction loss: inner products under a metric that stays as it is.

Under A = M'M + epsilon I, <x, y>_A = (M x) . (M y) + epsilon <x, y>. With predicted = W h + b, M predicted is
(M W) h + M b, so that all of it again is a few numbers per profile, exact, without an array of profiles x genes:

    <x, predicted>_A = (M x) . ((M W) h + M b) + epsilon <x, predicted>

Centring by gene takes M center off M x and M predicted, centring by profile the mean over genes times M 1.

**Why M does not learn with the autoencoder.** A loss of cosines is the lower, the less M tells profiles apart. Profiles
share a large part, their mean: let M have a single row along it, and M x points the same way for every x, so that every
reconstruction that shares this part, the mean profile itself for one, has cosine 1. An M that learned from the
reconstruction loss could go there whatever the network does, and nothing in the loss would hold it back; of a squared
error M = 0 is the same end. So M comes from labels, which say what it has to tell apart, and is a constant here.
"""

from dataclasses import replace

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from geneae.losses.inner_products import InnerProducts, LinearOutput, TargetProducts
from geneae.losses.sparse_rows import SparseRows, row_sums, sparse_product, sparse_rows


class FixedMetric(nn.Module):
    """M and epsilon of A = M'M + epsilon I: a module without parameters, which goes where its objective goes.

    It is in no saved state: what was trained under a metric is used without it.

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
        """Rows of M."""
        return int(self.columns.shape[1])

    def project(self, rows: SparseRows) -> Tensor:
        """(n_profiles, n_components) M x, as the rows know it, or by one sparse product."""
        if rows.sums is not None and rows.sums.mapped is not None:
            return rows.sums.mapped
        return sparse_product(rows.to(self.columns.device), self.columns)

    def map_pair(
        self, target: TargetProducts, output: LinearOutput, hidden: Tensor, center: str
    ) -> tuple[Tensor, Tensor]:
        """(n_profiles, n_components) M x and M predicted of centred profiles and reconstructions.

        Parameters
        ----------
        target
            The target profiles, with `mapped`.
        output, hidden, center
            As in `geneae.losses.inner_products.inner_products`.
        """
        assert target.mapped is not None
        weight, offset, mean = self._map_output(output)
        total = hidden @ output.weight_sum + output.offset_sum if center == "profile" else target.total
        x = self._centred(target.mapped, mean, target.total, center)
        return x, self._centred(hidden @ weight + offset, mean, total, center)

    def under(self, plain: InnerProducts, x: Tensor, y: Tensor) -> InnerProducts:
        """Inner products under A, from the plain ones.

        Parameters
        ----------
        plain
            With the centring of `x` and `y`; of all pairs of a batch, too, where the loss compares profiles.
        x, y
            (n_profiles, n_components) M target and M predicted.
        """
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
        """(n_profiles, n_components) M x of centred profiles, where `mean` is the gene mean."""
        rows, nothing = sparse_rows(matrix), torch.zeros_like(self.columns[:, 0])
        of_mean = self.of_ones * 0 if mean is None else torch.from_numpy(mean).to(self.columns) @ self.columns
        mapped = self._centred(self.project(rows), of_mean, row_sums(rows, nothing).total, center)
        return np.asarray(mapped.cpu().numpy())

    def _map_output(self, output: LinearOutput) -> tuple[Tensor, Tensor, Tensor]:
        """(n, n_components) of M W, (n_components,) M b and M center; kept while a last layer is not learned."""
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
