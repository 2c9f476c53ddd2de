"""Whitened gene basis: genes in units of their own noise, and the directions that both halves of a profile share."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from geneae.losses.sparse_rows import SparseRows, sparse_product, sparse_rows, transposed_product
from geneae.models.pca import CHUNK, OVERSAMPLING, orthonormal

OWN = 0.7  # share of a gene's own noise; the rest is the mean over genes, because rare genes would otherwise dominate
FOLDS = 4  # folds of profiles; what is said about a profile comes from bases that have not seen it
ROUNDS, FOLD_ROUNDS = 5, 3  # of subspace iteration; the bases of folds are only rotated onto the common one
LEAST = 4  # profiles and genes per component, so that every fold has more of both than components


@dataclass(frozen=True)
class Whitening:
    """A gene basis in units of noise: w = (z - mean) / deviation, with scores w @ components."""

    mean: Tensor
    """(n_genes,) float32 mean of halves of the training profiles."""
    deviation: Tensor
    """(n_genes,) float32 standard deviation of the noise of a half, above 0."""
    components: Tensor
    """(n_genes, rank) float32 orthonormal directions, sorted by the covariance between halves."""

    @property
    def rank(self) -> int:
        """Number of components."""
        return int(self.components.shape[1])

    @cached_property
    def decoder_weight(self) -> Tensor:
        """(n_genes, rank) change of each gene per unit of a score."""
        return self.components * self.deviation[:, None]


class SparseBlock:
    """Profiles in chunks, ready for products from both sides.

    Parameters
    ----------
    matrix
        (n_profiles, n_genes)
    """

    def __init__(self, matrix: sparse.csr_matrix) -> None:
        self.n_profiles, self.n_genes = matrix.shape
        self._rows: list[SparseRows]
        chunks = [matrix[start : start + CHUNK] for start in range(0, self.n_profiles, CHUNK)]
        if len(chunks) == 1:  # starting a thread takes longer than a small chunk does
            self._rows = [sparse_rows(chunks[0], transpose=True)]
            return
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # SciPy transposes on one core
            self._rows = list(pool.map(lambda chunk: sparse_rows(chunk, transpose=True), chunks))

    def forth(self, weight: Tensor) -> Tensor:
        """(n_profiles, n) z @ weight."""
        parts = [sparse_product(rows, weight) for rows in self._rows]
        return torch.cat(parts) if parts else weight.new_zeros(0, weight.shape[1])

    def back(self, by_profile: Tensor) -> Tensor:
        """(n_genes, n) z' @ by_profile."""
        parts = by_profile.split([rows.n_profiles for rows in self._rows])
        product: Tensor | None = None
        for rows, part in zip(self._rows, parts, strict=True):
            found = transposed_product(rows, part.contiguous())
            product = found if product is None else product.add_(found)
        return by_profile.new_zeros(self.n_genes, by_profile.shape[1]) if product is None else product


@dataclass(frozen=True, eq=False)
class Halves:
    """Both halves of the molecules of the same profiles, normalised."""

    first: sparse.csr_matrix
    """(n_profiles, n_genes)"""
    second: sparse.csr_matrix
    """(n_profiles, n_genes)"""

    def take(self, rows: np.ndarray) -> "Halves":
        """The same for some of the profiles."""
        return Halves(self.first[rows], self.second[rows])

    def mean(self) -> np.ndarray:
        """(n_genes,) float64 mean over profiles and both halves."""
        first, second = (np.asarray(half.sum(0, dtype=np.float64)).ravel() for half in (self.first, self.second))
        mean: np.ndarray = (first + second) / (2 * max(1, self.first.shape[0]))
        return mean

    def noise(self) -> np.ndarray:
        """(n_genes,) float64 variance of the noise of a half: half the mean squared difference of both halves."""
        n_profiles, n_genes = self.first.shape

        def squares(start: int) -> np.ndarray:
            rows = slice(start, start + CHUNK)
            difference = self.first[rows] - self.second[rows]
            return np.bincount(difference.indices, difference.data.astype(np.float64) ** 2, n_genes)

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # SciPy subtracts on one core
            parts = list(pool.map(squares, range(0, n_profiles, CHUNK)))
        noise: np.ndarray = np.sum(parts, axis=0) / (2 * max(1, n_profiles))
        return noise


def floored(noise: np.ndarray) -> np.ndarray:
    """Noise variances mixed with their mean over genes, above 0."""
    mixed: np.ndarray = OWN * noise + (1 - OWN) * noise.mean()
    return np.maximum(mixed, np.finfo(np.float32).tiny) if mixed.any() else np.ones_like(mixed)


def whitened_rank(n_latent: int, n_profiles: int, n_genes: int) -> int:
    """Number of components for a latent of this size: fewer where profiles or genes are few."""
    return max(1, min(n_latent, n_profiles // LEAST, n_genes // LEAST))


@dataclass(frozen=True, eq=False)
class Whitened:
    """A whitening and, for each fold of the profiles, the basis of the other folds."""

    whitening: Whitening
    """Mean, noise and components of all training profiles."""
    fold: np.ndarray
    """(n_profiles,) fold of each profile."""
    without: list[Tensor]
    """(n_genes, rank) components from the profiles outside each fold, rotated onto the common ones."""

    def calibrated(self, slopes: Tensor) -> "Whitened":
        """The same with components from which genes are predicted, times their (n_genes,) calibration slopes."""
        by_gene = slopes[:, None]
        whitening = replace(self.whitening, components=self.whitening.components * by_gene)
        return Whitened(whitening, self.fold, [components * by_gene for components in self.without])


def fit_whitened(splits: Sequence[Halves], rank: int, seed: int) -> Whitened:
    """Gene noise, and the directions of the largest covariance between the halves of whitened profiles.

    The covariance between halves has no noise on its diagonal, so that no component is spent on a noisy gene. Dividing
    genes by their noise makes a low-rank linear prediction optimal under noise that differs between genes (Leeb and
    Romanov 2021, optimal spectral shrinkage with heteroscedastic noise).

    Parameters
    ----------
    splits
        Halves of the training profiles, from one count split or more. The covariance is the mean over all of them, in
        which more pairs of molecules take part; mean and noise are those of the first.
    rank
        Number of components, see `whitened_rank`.
    seed
        Seed of the folds and of the random starts.
    """
    halves = splits[0]
    n_profiles = halves.first.shape[0]
    mean = torch.tensor(halves.mean(), dtype=torch.float32)
    deviation = torch.tensor(np.sqrt(floored(halves.noise())), dtype=torch.float32)
    n_folds = max(1, min(FOLDS, n_profiles // 2))
    fold = np.random.default_rng(seed).permutation(n_profiles) % n_folds
    by_fold = [_both(splits, np.flatnonzero(fold == number)) for number in range(n_folds)]
    components = _shared_directions(by_fold, mean, deviation, rank, seed, ROUNDS)
    without = []
    for number in range(n_folds):
        others = [block for index, block in enumerate(by_fold) if index != number] or by_fold
        found = _shared_directions(others, mean, deviation, rank, seed + 1 + number, FOLD_ROUNDS)
        without.append(_rotated(found, components))
    return Whitened(Whitening(mean, deviation, components), fold, without)


def _both(splits: Sequence[Halves], rows: np.ndarray) -> SparseBlock:
    """Some profiles of all splits, first all first halves and then all second halves, in the same order."""
    halves = [half[rows] for half in (*(one.first for one in splits), *(one.second for one in splits))]
    return SparseBlock(sparse.vstack(halves, format="csr"))


def _shared_directions(
    blocks: Sequence[SparseBlock],
    mean: Tensor,
    deviation: Tensor,
    rank: int,
    seed: int,
    rounds: int,
) -> Tensor:
    """(n_genes, rank) leading eigenvectors of the symmetric covariance between whitened halves, see `_both`."""
    n_genes, centre, unit = len(mean), mean / deviation, deviation[:, None]

    def covariance(directions: Tensor) -> Tensor:
        given, shift = directions / unit, centre @ directions
        by_gene, total = torch.zeros_like(directions), torch.zeros_like(shift)
        for block in blocks:
            scores = block.forth(given) - shift
            by_gene += block.back(scores.roll(len(scores) // 2, 0))  # to every profile the scores of its other half
            total += scores.sum(0)
        n_halves = sum(block.n_profiles for block in blocks)
        return by_gene.div_(unit).sub_(torch.outer(centre, total)).div_(max(1, n_halves))

    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(n_genes, min(rank + OVERSAMPLING, n_genes), generator=generator)
    for left in reversed(range(rounds)):
        directions = orthonormal(covariance(directions), rounds=1 if left else 2)
    small = directions.double().T @ covariance(directions).double()
    _, rotation = torch.linalg.eigh((small + small.T) / 2)
    components: Tensor = (directions.double() @ rotation.flip(1)[:, :rank]).float()
    sign = components.gather(0, components.abs().argmax(0, keepdim=True)).sign()  # largest loading is positive
    return (components * torch.where(sign == 0, 1.0, sign)).contiguous()


def _rotated(components: Tensor, onto: Tensor) -> Tensor:
    """Components turned within their span to lie as close as possible to others (orthogonal Procrustes)."""
    left, _, right = torch.linalg.svd(components.double().T @ onto.double())
    turned: Tensor = components.double() @ (left @ right)
    return turned.float()
