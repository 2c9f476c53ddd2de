"""The autoencoder: a gene basis, fixed or learned, around a core that works on its scores."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from geneae.losses.fixed_metric import FixedMetric
from geneae.losses.inner_products import (
    InnerProducts,
    LinearOutput,
    Others,
    Projection,
    compare,
    inner_products,
    last_layer,
    linear_output,
    project,
)
from geneae.losses.sparse_rows import SparseRows, sparse_product
from geneae.models.cores import PlainCore, SkipCore
from geneae.models.pca import Basis


class Network(nn.Module):
    """Autoencoder x -> scores -> latent -> hidden -> weight h + offset, on sparse profiles.

    `mean` is the gene mean of the profiles that it is trained on. Profiles of another depth have another mean; their
    shift from it is taken off the input and put onto the output again.

    Parameters
    ----------
    core
        What lies between the first and the last matrix.
    encoder_weight, decoder_weight
        (n_genes, n_scores); the same tensor in a fixed basis.
    mean
        (n_genes,)
    deviation
        (n_scores,) unit of the scores; ones where they are not whitened.
    is_free
        Whether the gene-sized matrices are learned.
    encoder_bias, decoder_bias
        (n_scores,) and (n_genes,); by default such that the mean profile has scores and hidden zero.
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
            self.register_buffer("components", encoder_weight)
            self.components: Tensor
        self._fixed_output: LinearOutput | None = None
        self.metric: FixedMetric | None = None  # of the loss; it goes with the network from device to device
        self.has_decoder = True

    @property
    def n_genes(self) -> int:
        """Genes."""
        return len(self.mean)

    def shape(self) -> dict[str, str | bool | int]:
        """What is needed beside the settings to build it again."""
        core = "skip" if isinstance(self.core, SkipCore) else "plain"
        sizes = {"n_scores": len(self.deviation), "n_genes": self.n_genes}
        return {"core": core, "is_free": self.is_free, "has_decoder": self.has_decoder, **sizes}

    def drop_decoder(self) -> None:
        """Leave the encoder alone, for objectives that train nothing else."""
        self.core.drop_decoder()
        if self.is_free:
            del self.decoder_weight, self.decoder_bias
        self.has_decoder = False

    def output_weight(self) -> Tensor:
        """(n_genes, n_scores) last matrix."""
        return self.decoder_weight if self.is_free else self.components

    def scores(self, rows: SparseRows, shift: Tensor | None = None) -> Tensor:
        """(n_profiles, n_scores) input of the core, from profiles whose gene mean lies `shift` above `mean`."""
        if self.is_free:
            product = sparse_product(rows, self.encoder_weight) + self.encoder_bias
            return (product if shift is None else product - shift @ self.encoder_weight) / self.deviation
        mean = self.mean if shift is None else self.mean + shift
        return (sparse_product(rows, self.components) - mean @ self.components) / self.deviation

    def scores_of(self, projection: Projection) -> Tensor:
        """The same in a fixed basis, from products that are at hand already."""
        return (projection.weight - self.mean @ self.components) / self.deviation

    def encode(self, scores: Tensor) -> Tensor:
        """(n_profiles, n_latent)"""
        return self.core.encode(scores)

    def decode(self, latent: Tensor) -> Tensor:
        """(n_profiles, n_scores) hidden h of the last layer."""
        return self.core.decode(latent) * self.deviation

    def offset(self, shift: Tensor | None = None) -> Tensor:
        """(n_genes,) of predicted = weight h + offset."""
        offset = self.decoder_bias if self.is_free else self.mean
        return offset if shift is None else offset + shift

    def output(self, shift: Tensor | None = None) -> LinearOutput:
        """The last layer, ready for inner products; it changes with every step in a free basis only."""
        center = self.mean if shift is None else self.mean + shift
        if self.is_free:
            return linear_output(self.decoder_weight, self.offset(shift), center)
        return linear_output(self.components, center, center, orthonormal=True)

    def project(self, rows: SparseRows, shift: Tensor | None = None) -> Projection:
        """Products of target profiles with the last layer."""
        offset = self.offset(shift)
        center = offset if not self.is_free else self.mean if shift is None else self.mean + shift
        projection = project(rows, self.output_weight(), offset, center)
        return projection if self.metric is None else replace(projection, mapped=self.metric.project(rows))

    def forward(
        self,
        inputs: Tensor | SparseRows,
        target: Projection | SparseRows,
        *centers: str,
        others: Others | None = None,
    ) -> tuple[list[InnerProducts], Tensor]:
        """Inner products of targets and predictions for each centring, and the latents.

        Parameters
        ----------
        inputs
            Scores in a fixed basis, profiles in a free one.
        target
            Likewise their projections, or the profiles.
        centers
            Of the inner products: `none`, `gene`, `profile`.
        others
            For a loss that compares the profiles of a batch: asks for all pairs, for the first of the centrings.

        While the network has a `metric`, the inner products of the first centring, the loss's, are those under it.
        """
        scores = inputs if isinstance(inputs, Tensor) else self.scores(inputs)
        latent = self.encode(scores)
        hidden = self.decode(latent)
        with torch.autocast(hidden.device.type, enabled=False):  # sums over genes need 32 bits
            if self.is_free and isinstance(target, SparseRows):
                projection, output = last_layer(target, self.decoder_weight, self.decoder_bias, self.mean)
            else:
                projection = target if isinstance(target, Projection) else self.project(target)
                output = self._output()
            hidden = hidden.to(projection.squared.dtype)
            products = [inner_products(projection, output, hidden, center) for center in centers]
            if others is not None:
                batch = compare(projection, output, hidden, centers[0], latent.to(hidden.dtype), others)
                products[0] = replace(products[0], batch=batch)
            if self.metric is not None:
                mapped = self.metric.project(target) if isinstance(target, SparseRows) else target.mapped
                projection = replace(projection, mapped=mapped)
                products[0] = self.metric.under(products[0], projection, output, hidden, centers[0])
        return products, latent

    def _output(self) -> LinearOutput:
        if self.is_free:
            return self.output()
        fixed = self._fixed_output
        here = (self.mean.device, self.mean.dtype)
        if fixed is None or (fixed.weight_offset.device, fixed.weight_offset.dtype) != here:
            self._fixed_output = fixed = self.output()
        return fixed

    def output_norms(self, inputs: Tensor | SparseRows, side: str) -> Tensor:
        """(n_profiles,) norms of the latents (`encoder`) or reconstructions (`decoder`); in a network with linear
        paths, of the distances of these from the mean profile."""
        latent = self.encode(inputs if isinstance(inputs, Tensor) else self.scores(inputs))
        if side == "encoder":
            norms: Tensor = latent.norm(dim=1)
            return norms
        hidden, output = self.decode(latent), self.output()
        gram_hidden = hidden if output.gram is None else hidden @ output.gram
        squared: Tensor = (gram_hidden * hidden).sum(1)
        if isinstance(self.core, PlainCore):
            squared = squared + 2 * hidden @ output.weight_offset + output.offset_squared
        return squared.clamp(min=0).sqrt()

    def linear_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the linear paths: they start at the right place and move slowly."""
        if isinstance(self.core, SkipCore):
            yield from self.core.encoder_linear.parameters()
            if self.is_free:
                yield from (self.encoder_weight, self.encoder_bias)
            if self.has_decoder:
                yield from self.core.decoder_linear.parameters()
            if self.has_decoder and self.is_free:
                yield from (self.decoder_weight, self.decoder_bias)


def network_in_basis(
    basis: Basis, factors: Tensor, n_latent: int, hidden: int, dropout: float, is_free: bool
) -> Network:
    """A network that starts at PCA times `factors`, in a fixed basis or in one that is learned from there."""
    largest = float(basis.deviation.max()) or 1.0  # 0 where no profile differs from another
    deviation = basis.deviation.clamp(min=1e-6 * largest)  # directions without variance
    core = SkipCore(factors, n_latent, hidden, dropout)
    return Network(core, basis.components, basis.components, basis.mean, deviation, is_free)


def random_network(mean: Tensor, n_latent: int, hidden: int, dropout: float, has_unit_latents: bool = False) -> Network:
    """The plain autoencoder: genes -> hidden -> latent -> hidden -> genes, every matrix learned from random."""
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
