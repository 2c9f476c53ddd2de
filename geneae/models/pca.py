"""Gene bases: PCA of sparse profiles, and the Wiener factors that shrink its scores."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from geneae.data.preprocess import column_mean
from geneae.losses.sparse_rows import SparseRows, sparse_product, sparse_rows, transposed_product

OVERSAMPLING = 16  # directions beyond the requested rank; they absorb the error of the randomised range
ITERATIONS = 4  # subspace iterations; the spectra of expression data fall slowly
FOLDS = 5  # folds of the cross-fit of the Wiener factors
FOLD_ITERATIONS = 2  # enough for factors; the basis itself gains from more
CHUNK = 2048  # profiles multiplied at a time; their scores stay in the cache
ENOUGH = 1500  # profiles on which factors are estimated; further folds are skipped


@dataclass(frozen=True)
class Basis:
    """Principal components of training profiles."""

    components: Tensor
    """(n_genes, rank) float32, orthonormal, sorted by decreasing variance."""
    mean: Tensor
    """(n_genes,) float32: the mean training profile."""
    deviation: Tensor
    """(rank,) standard deviation of the training scores."""

    @property
    def rank(self) -> int:
        """Number of components."""
        return int(self.components.shape[1])

    def scores(self, rows: SparseRows) -> Tensor:
        """(n_profiles, rank) coordinates of profiles relative to the mean, not whitened."""
        return sparse_product(rows, self.components) - self.mean @ self.components


def largest_rank(n_profiles: int, n_genes: int) -> int:
    """Largest number of components that centred profiles can have."""
    return max(1, min(n_profiles - 1, n_genes))


def fit_basis(
    blocks: list[sparse.csr_matrix],
    rank: int,
    seed: int,
    iterations: int = ITERATIONS,
    start: Tensor | None = None,
) -> Basis:
    """PCA of the rows of all blocks together, by randomised subspace iteration on exact sparse products.

    Centring, by the mean of all rows, is implicit, so nothing is densified. Halko, Martinsson and Tropp 2011, SIAM
    Review 53(2), arXiv 0909.4061.

    Parameters
    ----------
    blocks
        CSR matrices with the same genes.
    rank
        Number of components; reduced to `largest_rank` if that is smaller.
    seed
        Seed of the random start.
    iterations
        Number of subspace iterations.
    start
        (n_genes, n) directions close to the components, such as those of the same profiles at another depth: with them,
        two iterations achieve as much as four. Missing directions are drawn at random. The last components, of nothing
        but noise, are approximate either way: held-out cosines are up to 0.0015 above those of exact components.
    """
    n_rows = sum(block.shape[0] for block in blocks)
    n_genes = blocks[0].shape[1]
    rank = min(rank, largest_rank(n_rows, n_genes))
    mean = sum(column_mean(block) * (block.shape[0] / n_rows) for block in blocks)
    # a copy, because the last bit of a product by MKL depends on where memory starts, and NumPy's starts anywhere
    centre = torch.tensor(np.asarray(mean, dtype=np.float32))
    chunks = [block[start : start + CHUNK] for block in blocks for start in range(0, block.shape[0], CHUNK)]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # SciPy transposes on one core
        rows = list(pool.map(lambda chunk: sparse_rows(chunk, transpose=True), chunks))
    draws = torch.Generator().manual_seed(seed)
    directions = torch.randn(n_genes, min(rank + OVERSAMPLING, n_rows, n_genes), generator=draws)
    if start is not None:
        known = min(start.shape[1], directions.shape[1])
        directions[:, :known] = start[:, :known]
    for left in reversed(range(iterations)):
        directions = orthonormal(_back(rows, centre, _forth(rows, centre, directions)), rounds=1 if left else 2)
    scores = _forth(rows, centre, directions).double()
    # the last bit of MKL's decompositions depends on what was computed before; float32 does not keep that of float64
    squared, rotation = torch.linalg.eigh(scores.T @ scores)
    components = (directions.double() @ rotation.flip(1)[:, :rank]).float()
    sign = components.gather(0, components.abs().argmax(0, keepdim=True)).sign()  # largest loading is positive
    deviation = (squared.flip(0)[:rank].clamp(min=0) / n_rows).sqrt().float()
    return Basis((components * sign).contiguous(), centre, deviation)


def orthonormal(columns: Tensor, rounds: int) -> Tensor:
    """An orthonormal basis of the columns, by Cholesky in float64 in a third of the time of QR; by QR where that fails.

    A second round removes the rounding error of the first; intermediate directions need only one.
    """
    columns = columns.double()
    for _ in range(rounds):
        factor, failed = torch.linalg.cholesky_ex(columns.T @ columns)
        if failed:
            columns = torch.linalg.qr(columns).Q
            break
        columns = torch.linalg.solve_triangular(factor.T, columns, upper=True, left=False)
    found: Tensor = columns.float()
    return found


def _forth(rows: list[SparseRows], mean: Tensor, directions: Tensor) -> Tensor:
    return torch.cat([sparse_product(block, directions) for block in rows]) - mean @ directions


def _back(rows: list[SparseRows], mean: Tensor, scores: Tensor) -> Tensor:
    parts = scores.split([block.n_profiles for block in rows])
    by_gene = -torch.outer(mean, scores.sum(0))
    for block, part in zip(rows, parts, strict=True):
        by_gene += transposed_product(block, part)
    return by_gene


def score_moments(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """(rank,) sums over profiles, with centred scores: of the product of both halves' scores, and of the mean of their
    squares. Both arguments are (n_profiles, rank)."""
    first, second = first - first.mean(0), second - second.mean(0)
    return (first * second).sum(0), (first.square().sum(0) + second.square().sum(0)) / 2


def wiener_factors(common: Tensor, variance: Tensor) -> Tensor:
    """(rank,) share of a score's variance that both halves have in common: cov(s', s'') / var(s'), within 0 and 1.

    A score of one half times its factor is the best linear prediction of the other half's score (Wiener 1949). The
    arguments are the results of `score_moments`.
    """
    return (common / variance.clamp(min=torch.finfo(variance.dtype).tiny)).clamp(0, 1)


def fit_wiener(first: sparse.csr_matrix, second: sparse.csr_matrix, rank: int, seed: int) -> Tensor:
    """(rank,) Wiener factors, each fold's moments taken on profiles that were not used to fit its basis.

    The moments of all folds are added before the factors are computed: factors clipped fold by fold would be too high
    for components that hold only noise.

    Parameters
    ----------
    first, second
        Halves of the same training profiles.
    rank
        Number of components; components beyond the rank that a fold allows get factor 0.
    seed
        Seed of the folds and the bases.
    """
    n_profiles = first.shape[0]
    folds = min(FOLDS, n_profiles // 2)
    common, variance = torch.zeros(rank), torch.zeros(rank)
    if folds < 2:
        return common
    fold = np.random.default_rng(seed).permutation(n_profiles) % folds
    for index in range(min(folds, -(-ENOUGH * folds // n_profiles))):
        inside, outside = np.flatnonzero(fold != index), np.flatnonzero(fold == index)
        basis = fit_basis([first[inside], second[inside]], rank, seed + 1 + index, FOLD_ITERATIONS)
        moments = score_moments(*(basis.scores(sparse_rows(half[outside])) for half in (first, second)))
        common[: basis.rank] += moments[0]
        variance[: basis.rank] += moments[1]
    return wiener_factors(common, variance)
