"""Baselines that a network has to beat: mean profile, PCA and shrunken PCA, as linear predictions in one gene basis."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from geneae.losses.inner_products import TargetProducts
from geneae.models.decoders import LinearDecoder
from geneae.models.pca import Basis

LineStyle = Literal["-", "--", "-.", ":", ""]

PCA_SIZES = (4, 8, 16, 32)  # reported next to the size of the latent: the best PCA is often smaller


@dataclass(frozen=True)
class Frame:
    """A basis centred at the gene mean of the profiles to be predicted, ready for inner products."""

    components: Tensor
    """(n_genes, rank)"""
    mean: Tensor
    """(n_genes,)"""

    def decoder(self) -> LinearDecoder:
        """Decoder that predicts mean + components h."""
        return LinearDecoder(self.components, self.mean, self.mean, is_orthonormal=True)

    def predict(self, inputs: TargetProducts, factors: Tensor) -> Tensor:
        """(n_profiles, rank) scores times factors: h of the decoder."""
        return (inputs.weight - self.mean @ self.components) * factors.to(self.mean.dtype)


def frame(basis: Basis, mean: Tensor, dtype: torch.dtype = torch.float64) -> Frame:
    """The basis centred at another mean, in float64 unless another type is given."""
    return Frame(basis.components.to(dtype), mean.to(dtype))


def mean_profile(rank: int) -> Tensor:
    """(rank,) factors with which only the mean profile is predicted: zeros."""
    return torch.zeros(rank, dtype=torch.float64)


def pca(rank: int, size: int) -> Tensor:
    """(rank,) factors of PCA with `size` components: ones, then zeros."""
    return (torch.arange(rank) < size).double()


def shrunken_pca(factors: Tensor, size: int) -> Tensor:
    """(rank,) Wiener factors of the first `size` components, then zeros."""
    return factors.double() * pca(len(factors), size)


@dataclass(frozen=True)
class Baselines:
    """Bases fitted to the training profiles."""

    whole: Basis
    """PCA of the profiles with all their molecules."""
    half: Basis | None
    """PCA of random halves of the same profiles; None without counts."""
    factors: Tensor | None
    """(rank of `half`,) Wiener factors; None without counts."""
    size: int
    """Number of components of the baselines that have the size of the latent."""

    def own_input(self) -> dict[str, tuple[Frame, Tensor]]:
        """Frame and factors of each baseline by name, for profiles with all their molecules."""
        whole = frame(self.whole, self.whole.mean)
        half = None if self.half is None else frame(self.half, self.whole.mean)
        at = {name: half if kind.needs_counts else whole for name, kind in BASELINES.items()}
        return {
            name: (place, BASELINES[name].factors(self, place.components.shape[1]))
            for name, place in at.items()
            if place is not None
        }

    def held_out(self, dtype: torch.dtype = torch.float64) -> dict[str, tuple[Frame, Tensor]]:
        """Frame and factors of each baseline and of PCA of other sizes by name, for predicting one half from the other.

        Empty without counts.
        """
        if self.half is None:
            return {}
        half, rank = frame(self.half, self.half.mean, dtype), self.half.rank
        sizes = {f"pca_{size}": (half, pca(rank, size)) for size in PCA_SIZES if size <= rank}
        return {name: (half, kind.factors(self, rank)) for name, kind in BASELINES.items()} | sizes


@dataclass(frozen=True)
class Baseline:
    """A linear prediction that a network has to beat, and how it is shown."""

    factors: Callable[[Baselines, int], Tensor]
    """(rank,) factors of the scores, from the bases and the rank."""
    title: str
    """Name in words."""
    line: LineStyle
    """Line style in figures, as matplotlib names it."""
    is_sized: bool = True
    """Whether it has as many components as the latent has dimensions."""
    needs_counts: bool = False
    """Whether it is fitted to halves of the molecules."""


def _shrunken(bases: Baselines, rank: int) -> Tensor:
    assert bases.factors is not None
    return shrunken_pca(bases.factors, bases.size)


BASELINES = {
    "mean_profile": Baseline(lambda _, rank: mean_profile(rank), "mean profile", ":", is_sized=False),
    "pca": Baseline(lambda bases, rank: pca(rank, bases.size), "PCA", "--"),
    "shrunken_pca": Baseline(_shrunken, "shrunken PCA", "-.", needs_counts=True),
}
"""Baselines by name, the weakest first."""
