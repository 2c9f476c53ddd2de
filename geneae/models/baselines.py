"""What a network has to beat: the mean profile, PCA and shrunken PCA, as linear predictions in one gene basis."""

from dataclasses import dataclass

import torch
from torch import Tensor

from geneae.losses.inner_products import TargetProducts
from geneae.models.decoders import LinearDecoder
from geneae.models.pca import Basis

PCA_SIZES = (4, 8, 16, 32)  # reported beside the size of the latent: the best PCA is often smaller


@dataclass(frozen=True)
class Frame:
    """A basis at the gene mean of the profiles in question, ready for inner products."""

    components: Tensor
    """(n_genes, rank)"""
    mean: Tensor
    """(n_genes,)"""

    def decoder(self) -> LinearDecoder:
        """mean + components h"""
        return LinearDecoder(self.components, self.mean, self.mean, is_orthonormal=True)

    def predict(self, inputs: TargetProducts, factors: Tensor) -> Tensor:
        """(n_profiles, rank) scores times factors."""
        return (inputs.weight - self.mean @ self.components) * factors.to(self.mean.dtype)


def frame(basis: Basis, mean: Tensor, dtype: torch.dtype = torch.float64) -> Frame:
    """The basis around another mean, in float64 unless said otherwise."""
    return Frame(basis.components.to(dtype), mean.to(dtype))


def mean_profile(rank: int) -> Tensor:
    """(rank,) factors that leave the mean profile alone: zeros."""
    return torch.zeros(rank, dtype=torch.float64)


def pca(rank: int, size: int) -> Tensor:
    """(rank,) factors of PCA with `size` components: ones, then zeros."""
    return (torch.arange(rank) < size).double()


def shrunken_pca(factors: Tensor, size: int) -> Tensor:
    """(rank,) Wiener factors of the first `size` components, then zeros."""
    return factors.double() * pca(len(factors), size)


@dataclass(frozen=True)
class Baselines:
    """Bases of the training profiles."""

    whole: Basis
    """PCA of the profiles with all their molecules."""
    half: Basis | None
    """PCA of their random halves; None without counts."""
    factors: Tensor | None
    """(rank of `half`,) Wiener factors; None without counts."""
    size: int
    """Components of `pca` and `shrunken_pca`: those of the latent."""

    def own_input(self) -> dict[str, tuple[Frame, Tensor]]:
        """Frame and factors by name, for profiles with all their molecules."""
        whole = frame(self.whole, self.whole.mean)
        found = {
            "mean_profile": (whole, mean_profile(self.whole.rank)),
            "pca": (whole, pca(self.whole.rank, self.size)),
        }
        if self.half is not None and self.factors is not None:
            found["shrunken_pca"] = (frame(self.half, self.whole.mean), shrunken_pca(self.factors, self.size))
        return found

    def held_out(self, dtype: torch.dtype = torch.float64) -> dict[str, tuple[Frame, Tensor]]:
        """Frame and factors by name, for halves predicting halves; empty without counts."""
        if self.half is None or self.factors is None:
            return {}
        half, rank = frame(self.half, self.half.mean, dtype), self.half.rank
        sizes = {f"pca_{size}": (half, pca(rank, size)) for size in PCA_SIZES if size <= rank}
        return {
            "mean_profile": (half, mean_profile(rank)),
            "pca": (half, pca(rank, self.size)),
            "shrunken_pca": (half, shrunken_pca(self.factors, self.size)),
            **sizes,
        }
