"""The autoencoder: a gene basis, fixed or learned, around a core that works on scores in that basis."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from geneae.losses.inner_products import TargetProducts
from geneae.losses.sparse_rows import SparseRows, sparse_product
from geneae.models.cores import SKIP_CORES, PlainCore, SkipCore
from geneae.models.decoders import LinearDecoder
from geneae.models.estimator import Estimator
from geneae.models.pca import Basis


@dataclass(frozen=True)
class Activations:
    """Intermediate values of a network for some profiles."""

    latent: Tensor
    """(n_profiles, n_latent)"""
    hidden: Tensor
    """(n_profiles, n_scores) input h of the last layer."""


@dataclass(frozen=True)
class WhitenedInput:
    """Input of a network in a basis in units of noise: posterior scores of halves and of complete profiles."""

    weight: Tensor
    """(n_genes, n_scores) from halves to posterior scores."""
    gain: Tensor
    """(n_scores,) posterior scores of complete profiles, in units of those that the same weight would give; 1 to 2."""


class Network(nn.Module):
    """Autoencoder x -> scores -> latent -> hidden -> weight h + offset, on sparse profiles.

    `mean` is the gene mean of the profiles that it is trained on. Profiles of another depth have another mean; their
    shift from it is subtracted from the input and added to the output.

    Parameters
    ----------
    core
        Encoder and decoder between the first and the last matrix.
    encoder_weight, decoder_weight
        (n_genes, n_scores); the same tensor in a fixed basis.
    mean
        (n_genes,)
    deviation
        (n_scores,) unit of the scores; ones if they are not whitened.
    is_free
        Whether the gene-sized matrices are learned.
    whitened
        For a fixed basis in units of noise, what its input needs; `decoder_weight` is then not orthonormal.
    encoder_bias, decoder_bias
        (n_scores,) and (n_genes,); by default, the mean profile has scores 0, and h = 0 gives the mean profile.
    """

    def __init__(
        self,
        core: SkipCore | PlainCore,
        encoder_weight: Tensor,
        decoder_weight: Tensor,
        mean: Tensor,
        deviation: Tensor,
        is_free: bool,
        encoder_bias: Tensor | None = None,
        decoder_bias: Tensor | None = None,
        whitened: "WhitenedInput | None" = None,
    ) -> None:
        super().__init__()
        self.core = core
        self.is_free = is_free
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.mean: Tensor
        self.deviation: Tensor
        encoder_bias = -(mean @ encoder_weight) if encoder_bias is None else encoder_bias
        decoder_bias = mean.clone() if decoder_bias is None else decoder_bias
        if is_free:
            self.encoder_weight = nn.Parameter(encoder_weight.clone())
            self.encoder_bias = nn.Parameter(encoder_bias)
            self.decoder_weight = nn.Parameter(decoder_weight.clone())
            self.decoder_bias = nn.Parameter(decoder_bias)
        else:
            self.register_buffer("components", decoder_weight, persistent=whitened is None)
            self.components: Tensor
        self.is_whitened = whitened is not None
        if whitened is not None:  # not persistent, because the estimator holds them
            self.register_buffer("input_weight", whitened.weight, persistent=False)
            self.register_buffer("gain", whitened.gain, persistent=False)
            self.input_weight: Tensor
            self.gain: Tensor
        self._fixed_decoder: LinearDecoder | None = None
        self.has_decoder = True

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return len(self.mean)

    def shape(self) -> dict[str, str | bool | int]:
        """Facts needed in addition to the settings to build the network again."""
        core = next((name for name, kind in SKIP_CORES.items() if type(self.core) is kind), "plain")
        sizes = {"n_scores": len(self.deviation), "n_genes": self.n_genes}
        kind = {"is_free": self.is_free, "is_whitened": self.is_whitened, "has_decoder": self.has_decoder}
        return {"core": core, **kind, **sizes}

    def drop_decoder(self) -> None:
        """Remove the decoder, for objectives that train the encoder only."""
        self.core.drop_decoder()
        if self.is_free:
            del self.decoder_weight, self.decoder_bias
        self.has_decoder = False

    def output_weight(self) -> Tensor:
        """(n_genes, n_scores) weight of the last layer."""
        return self.decoder_weight if self.is_free else self.components

    def scores(self, rows: SparseRows, shift: Tensor | None = None, missing: Tensor | None = None) -> Tensor:
        """(n_profiles, n_scores) input of the core, for profiles whose gene mean is `mean` + `shift`.

        Genes at the positions `missing` were not measured, and take their mean.
        """
        mean = self.mean if shift is None else self.mean + shift
        if missing is not None:
            weight = self.encoder_weight if self.is_free else self.input_weight if self.is_whitened else self.components
            filled = mean[missing] @ weight[missing]
            gain = self.gain if self.is_whitened and not self.is_free and shift is not None else 1.0
            return self.scores(rows, shift) + filled * gain / self.deviation
        if self.is_free:
            product = sparse_product(rows, self.encoder_weight) + self.encoder_bias
            return (product if shift is None else product - shift @ self.encoder_weight) / self.deviation
        if self.is_whitened:
            scores = sparse_product(rows, self.input_weight) - mean @ self.input_weight
            return (scores if shift is None else scores * self.gain) / self.deviation
        return (sparse_product(rows, self.components) - mean @ self.components) / self.deviation

    def read(self, inputs: Tensor | SparseRows, shift: Tensor | None = None) -> Tensor:
        """(n_profiles, n_scores) input of the core, from profiles as in `scores`, or from their scores as they are."""
        return inputs if isinstance(inputs, Tensor) else self.scores(inputs, shift)

    def scores_of(self, projection: TargetProducts) -> Tensor:
        """(n_profiles, n_scores) input of the core in a fixed basis, from products that were computed before."""
        return (projection.weight - self.mean @ self.components) / self.deviation

    def encode(self, scores: Tensor) -> Tensor:
        """(n_profiles, n_latent) latents."""
        return self.core.encode(scores)

    def decode(self, latent: Tensor) -> Tensor:
        """(n_profiles, n_scores) input h of the last layer."""
        return self.core.decode(latent) * self.deviation

    def decoder(self, shift: Tensor | None = None) -> LinearDecoder:
        """The last layer, for profiles whose gene mean is `mean` + `shift`."""
        if self.is_free:
            center = self.mean if shift is None else self.mean + shift
            offset = self.decoder_bias if shift is None else self.decoder_bias + shift
            return LinearDecoder(self.decoder_weight, offset, center)
        if shift is not None:
            return self._in_basis(self.mean + shift)
        fixed = self._fixed_decoder
        if fixed is None:
            self._fixed_decoder = fixed = self._in_basis(self.mean)
        return fixed

    def _apply(self, *arguments: Any, **keywords: Any) -> Self:
        """Move or convert all tensors, as in torch; the decoder that was kept is of the old ones."""
        self._fixed_decoder = None
        moved: Self = super()._apply(*arguments, **keywords)  # type: ignore[no-untyped-call]
        return moved

    def _in_basis(self, center: Tensor) -> LinearDecoder:
        return LinearDecoder(self.components, center, center, is_orthonormal=not self.is_whitened)

    def forward(self, inputs: Tensor | SparseRows) -> Activations:
        """Latent and hidden, from profiles or from their scores."""
        latent = self.encode(self.read(inputs))
        return Activations(latent, self.decode(latent))

    def output_norms(self, inputs: Tensor | SparseRows, side: str) -> Tensor:
        """(n_profiles,) norms of the latents (`encoder`) or of the reconstructions (`decoder`); in a network with
        linear paths, of the differences between reconstructions and mean profile."""
        latent = self.encode(self.read(inputs))
        if side == "encoder":
            norms: Tensor = latent.norm(dim=1)
            return norms
        hidden, output = self.decode(latent), self.decoder().layer
        gram_hidden = hidden if output.gram is None else hidden @ output.gram
        squared: Tensor = (gram_hidden * hidden).sum(1)
        if isinstance(self.core, PlainCore):
            squared = squared + 2 * hidden @ output.weight_offset + output.offset_squared
        return squared.clamp(min=0).sqrt()

    def linear_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the linear paths, which start at PCA and are trained with a smaller learning rate; none if they
        are frozen."""
        if isinstance(self.core, SkipCore) and self.core.encoder_linear.weight.requires_grad:
            yield from self.core.encoder_linear.parameters()
            if self.is_free:
                yield from (self.encoder_weight, self.encoder_bias)
            if self.has_decoder:
                yield from self.core.decoder_linear.parameters()
            if self.has_decoder and self.is_free:
                yield from (self.decoder_weight, self.decoder_bias)


def whitened_network(
    estimator: Estimator, n_latent: int, hidden: int, dropout: float, is_frozen: bool, core: str = "skip"
) -> Network:
    """A network on posterior scores that starts as the identity.

    Parameters
    ----------
    estimator
        Estimator whose posterior scores the network reads, and whose basis it predicts in.
    n_latent, hidden, dropout
        Sizes; latents beyond the rank of the basis are zero at first.
    is_frozen
        Whether the linear paths stay the identity, so that only what is not linear is learned; it is lost otherwise.
    core
        Name in `geneae.models.cores.SKIP_CORES`.
    """
    basis, whitened = estimator.whitening, whitened_input(estimator)
    found = SKIP_CORES[core](torch.ones(basis.rank), n_latent, hidden, dropout)
    if is_frozen:
        found.encoder_linear.requires_grad_(False)
        found.decoder_linear.requires_grad_(False)
    weight, unit = basis.decoder_weight, estimator.latent_unit
    return Network(found, weight, weight, basis.mean, unit, is_free=False, whitened=whitened)


def whitened_input(estimator: Estimator) -> WhitenedInput:
    """Input of a network that reads the posterior scores of an estimator."""
    basis, complete, half = estimator.whitening, *estimator.posterior.factors[:2]
    weight = basis.components / basis.deviation[:, None] * half
    return WhitenedInput(weight.contiguous(), torch.where(half > 0, complete / half.clamp(min=1e-12), 1.0))


def network_in_basis(
    basis: Basis, factors: Tensor, n_latent: int, hidden: int, dropout: float, is_free: bool
) -> Network:
    """A network that starts at PCA times `factors`, in a fixed basis or in one that is learned from there on."""
    largest = float(basis.deviation.max()) or 1.0  # 0 if all profiles are the same
    deviation = basis.deviation.clamp(min=1e-6 * largest)  # some directions may have no variance
    core = SkipCore(factors, n_latent, hidden, dropout)
    return Network(core, basis.components, basis.components, basis.mean, deviation, is_free)


def random_network(mean: Tensor, n_latent: int, hidden: int, dropout: float, has_unit_latents: bool = False) -> Network:
    """The plain autoencoder: genes -> hidden -> latent -> hidden -> genes, every matrix learned from a random start."""
    n_genes = len(mean)
    first, last = nn.Linear(n_genes, hidden), nn.Linear(hidden, n_genes)
    return Network(
        PlainCore(hidden, n_latent, dropout, has_unit_latents),
        first.weight.detach().T.contiguous(),
        last.weight.detach().contiguous(),
        mean,
        torch.ones(hidden),
        is_free=True,
        encoder_bias=first.bias.detach().clone(),
        decoder_bias=last.bias.detach().clone(),
    )
