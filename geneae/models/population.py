"""A population of profiles: a generative model of counts, with which the best possible prediction can be computed.

The share of gene j in profile i is softmax_j(base_j + loadings_j . u_i), times gamma noise of its own with shape k_j
and mean 1; u_i comes from a mixture of normal distributions. Counts are Poisson, so that both halves of the molecules
of a profile share the gamma noise, and nothing else is random between them.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from geneae.losses.sparse_rows import to_tensor
from geneae.models.log_counts import LogCounts
from geneae.models.own_counts import rows_of

DRAWS = 64  # from the posterior of a profile; 128 change skill by less than 0.001
NEWTON_STEPS = 8  # to the mode; the proposals need not be exact, because draws are weighted
WIDER = 1.15  # variance of the proposals over that of the curvature at the mode, so that no weight is large
AT_ONCE = 2**23  # numbers in memory at a time: profiles x draws x genes


@dataclass(frozen=True, eq=False)
class Population:
    """Parameters of the generative model."""

    base: Tensor
    """(n_genes,) float32 log shares where u = 0, up to a constant."""
    loadings: Tensor
    """(n_genes, rank) float32 change of the log share per unit of u."""
    shape: Tensor
    """(n_genes,) float32 shape of the gamma noise, whose variance is 1 / shape; infinite without noise."""
    weights: Tensor
    """(n_parts,) float64 weights of the parts of the mixture."""
    means: Tensor
    """(n_parts, rank) float64 their means."""
    covariances: Tensor
    """(n_parts, rank, rank) float64 their covariances."""

    @cached_property
    def has_noise(self) -> bool:
        """Whether there is gamma noise."""
        return bool(torch.isfinite(self.shape).all())

    @cached_property
    def _precisions(self) -> Tensor:
        inverse: Tensor = torch.linalg.inv(self.covariances)
        return inverse

    @cached_property
    def _products(self) -> Tensor:
        """(n_genes, rank^2) products of the loadings of each gene with each other."""
        return torch.flatten(self.loadings[:, :, None] * self.loadings[:, None, :], 1)

    def take(self, genes: np.ndarray) -> "Population":
        """The same for some of the genes, whose shares then sum to 1."""
        some = torch.from_numpy(genes)
        return Population(
            self.base[some], self.loadings[some], self.shape[some], self.weights, self.means, self.covariances
        )

    def log_shares(self, u: Tensor) -> Tensor:
        """(..., n_genes) log shares of genes, without noise."""
        shares: Tensor = torch.log_softmax(self.base + u @ self.loadings.T, -1)
        return shares

    def draw(self, totals: np.ndarray, rng: np.random.Generator) -> sparse.csr_matrix:
        """(n_profiles, n_genes) float32 counts of new profiles with about these numbers of molecules."""
        part = rng.choice(len(self.weights), len(totals), p=(self.weights / self.weights.sum()).numpy())
        normal = torch.from_numpy(rng.standard_normal((len(totals), self.means.shape[1])))
        chosen = torch.from_numpy(part)
        u = self.means[chosen] + (torch.linalg.cholesky(self.covariances)[chosen] @ normal[:, :, None])[:, :, 0]
        size = max(1, AT_ONCE // len(self.base))
        blocks = []
        for start in range(0, len(totals), size):
            expected = self.log_shares(u[start : start + size].float()).exp().numpy()
            if self.has_noise:
                expected = expected * rng.gamma(self.shape.numpy(), 1 / self.shape.numpy(), expected.shape)
            counts = rng.poisson(expected * totals[start : start + size, None]).astype(np.float32)
            blocks.append(sparse.csr_matrix(counts))
        drawn: sparse.csr_matrix = sparse.vstack(blocks, format="csr")
        return drawn

    def predict(self, counts: sparse.csr_matrix, totals: np.ndarray, rng: np.random.Generator) -> "Predicted":
        """Bayes predictions of log1p(10,000 counts / total), for as many other molecules of the same profiles.

        Draws from the posterior of u: proposals are normal distributions at its modes, one for each part of the
        mixture, and draws are weighted by posterior over proposal. The gamma noise is conjugate to the counts and the
        logarithm comes from a table, so that nothing else is approximate.

        Parameters
        ----------
        counts
            (n_profiles, n_genes) molecules seen, such as one half.
        totals
            (n_profiles,) expected sum of these, which also normalises the prediction.
        rng
            Generator of the draws.
        """
        size = max(1, AT_ONCE // (DRAWS * len(self.base)))
        means, sizes = [], []
        for start in range(0, counts.shape[0], size):
            block = dense_block(counts[start : start + size])
            total = torch.tensor(totals[start : start + size], dtype=torch.float32)[:, None]
            u, weights = self._posterior(block, total, rng)
            sizes.append(1 / weights.square().sum(1))
            expected = total[:, None] * self.log_shares(u).exp()
            if self.has_noise:
                seen = (block[:, None] + self.shape).expand_as(expected)
                noise = torch.from_numpy(rng.standard_gamma(seen.numpy(), dtype=np.float32))
                expected = expected * noise / (self.shape + expected)
            logs = torch.stack([LogCounts(1e4 / float(t))(m) for t, m in zip(total[:, 0], expected, strict=True)])
            means.append((weights.float()[:, None] @ logs)[:, 0])
        return Predicted(torch.cat(means), torch.cat(sizes).numpy())

    def _posterior(self, counts: Tensor, totals: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """(n, DRAWS, rank) draws of u and their (n, DRAWS) weights, which sum to 1."""
        n_profiles, rank = len(counts), self.loadings.shape[1]
        found = [self._mode(counts, totals, part) for part in range(len(self.weights))]
        modes, curvatures = (torch.stack([one[at] for one in found], 1) for at in (0, 1))
        evidence = torch.softmax(torch.stack([one[2] for one in found], 1), 1)
        curvatures = curvatures.double() / WIDER
        roots = torch.linalg.cholesky(torch.linalg.inv(curvatures))
        limits = evidence.cumsum(1)[:, None]
        part = (torch.from_numpy(rng.random((n_profiles, DRAWS, 1))) > limits).sum(2).clamp(max=evidence.shape[1] - 1)
        normal = torch.from_numpy(rng.standard_normal((n_profiles, DRAWS, rank)))
        rows = torch.arange(n_profiles)[:, None]
        u = modes[rows, part] + (roots[rows, part] @ normal[..., None])[..., 0].float()

        def log_density(weights: Tensor, centres: Tensor, precisions: Tensor) -> Tensor:
            away = u.double()[:, :, None] - centres
            squares = (away * (precisions @ away[..., None])[..., 0]).sum(-1)
            return torch.logsumexp(weights.log() - squares / 2 + torch.logdet(precisions) / 2, 2)

        proposed = log_density(evidence.clamp(min=1e-30)[:, None], modes.double()[:, None], curvatures[:, None])
        prior = log_density(self.weights, self.means, self._precisions)
        likelihood = self._log_likelihood(self.log_shares(u), counts[:, None], totals[:, None])
        return u, torch.softmax(likelihood.double() + prior - proposed, 1)

    def _log_likelihood(self, log_shares: Tensor, counts: Tensor, totals: Tensor) -> Tensor:
        """Sums over genes, up to constants of the counts."""
        by_gene = counts * log_shares
        if self.has_noise:
            by_gene = by_gene - (counts + self.shape) * torch.log1p(totals * log_shares.exp() / self.shape)
        return by_gene.sum(-1)

    def _mode(self, counts: Tensor, totals: Tensor, part: int) -> tuple[Tensor, Tensor, Tensor]:
        """Mode of the posterior within a part of the mixture, (expected) curvature there, and log evidence by Laplace.

        Newton's method; a step that lowers the posterior of a profile is shortened.
        """
        n_profiles, rank = len(counts), self.loadings.shape[1]
        mean, precision = self.means[part].float(), self._precisions[part].float()
        u = mean.expand(n_profiles, -1)

        def height(at: Tensor) -> Tensor:
            away = at - mean
            return self._log_likelihood(self.log_shares(at), counts, totals) - ((away @ precision) * away).sum(1) / 2

        best = height(u)
        for _ in range(NEWTON_STEPS):
            shares = self.log_shares(u).exp()
            expected = totals * shares
            weight, residual = expected, counts - expected
            if self.has_noise:
                weight = expected * self.shape / (self.shape + expected)
                residual = counts - (counts + self.shape) * expected / (self.shape + expected)
            centre, weighted = shares @ self.loadings, weight @ self.loadings
            cross = weighted[:, :, None] * centre[:, None]
            square = weight.sum(1)[:, None, None] * centre[:, :, None] * centre[:, None]
            curvature = (weight @ self._products).view(-1, rank, rank) - cross - cross.mT + square + precision
            slope = residual @ self.loadings - residual.sum(1, keepdim=True) * centre - (u - mean) @ precision
            step = torch.linalg.solve(curvature, slope)
            for _ in range(4):
                tried = height(u + step)
                is_lower = tried < best - 1e-3
                step = torch.where(is_lower[:, None], step / 4, step)
                if not is_lower.any():
                    break
            step = torch.where((height(u + step) < best - 1e-3)[:, None], 0.0, step)
            u = u + step
            best = height(u)
        evidence = best.double() - torch.logdet(curvature.double()) / 2
        return u, curvature, evidence + torch.logdet(self._precisions[part]) / 2 + self.weights[part].log()


@dataclass(frozen=True, eq=False)
class Predicted:
    """Bayes predictions, and how well their draws cover the posterior."""

    mean: Tensor
    """(n_profiles, n_genes) expected values."""
    sizes: np.ndarray
    """(n_profiles,) effective numbers of draws, at most `DRAWS`."""


def dense_block(matrix: sparse.csr_matrix) -> Tensor:
    """A few profiles as an array."""
    block = torch.zeros(matrix.shape)
    block[rows_of(matrix), to_tensor(matrix.indices).long()] = to_tensor(matrix.data)
    return block
