"""The autoencoder: a gene basis, fixed or learned, around a core that works on its scores."""

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geneae.basis import Basis
from geneae.errors import InputError
from geneae.fixed_metric import FixedMetric
from geneae.products import (
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
from geneae.settings import CUT_BIASES, CUT_PLACES
from geneae.sparse_rows import SparseRows, sparse_product

SMALL_START = 0.01  # of the last layer of an MLP beside a linear path: the fit starts at the linear path
LATENT_FLOOR = 1e-6  # shorter latents are not brought to unit norm, which bounds the gradient


class Dropout(nn.Dropout):
    """Dropout whose mask costs a random 64-bit word for four values: on a processor ten times as fast as torch's own.

    The share that is dropped is `p` to the nearest 1/65,536, and what is kept is scaled by exactly that.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Some values set to zero in training, the others scaled up; the input itself otherwise."""
        if not self.training or not self.p or input.device.type != "cpu":
            return super().forward(input)
        dropped = round(self.p * 2**16)
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.int16)[: input.numel()].view(input.shape) >= dropped - 2**15
        return input * kept.to(input.dtype).mul_(2**16 / (2**16 - dropped))


def _mlp(n_inputs: int, hidden: int, n_outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_inputs, hidden), nn.ReLU(), Dropout(dropout), nn.Linear(hidden, n_outputs))


class SkipCore(nn.Module):
    """Linear path plus MLP on both sides: z = E s + MLP(s), s' = D z + MLP(z).

    It starts as the first components times `factors`: PCA, or shrunken PCA where they are Wiener factors.
    """

    def __init__(self, factors: Tensor, n_latent: int, hidden: int, dropout: float) -> None:
        super().__init__()
        n_scores = len(factors)
        self.encoder_linear = nn.Linear(n_scores, n_latent, bias=False)
        self.encoder_mlp = _mlp(n_scores, hidden, n_latent, dropout)
        self.decoder_linear = nn.Linear(n_latent, n_scores, bias=False)
        self.decoder_mlp = _mlp(n_latent, hidden, n_scores, dropout)
        with torch.no_grad():
            self.encoder_linear.weight.copy_(torch.eye(n_latent, n_scores))
            self.decoder_linear.weight.copy_(torch.diag(factors)[:, :n_latent])
            for mlp in (self.encoder_mlp, self.decoder_mlp):
                _last(mlp).weight.mul_(SMALL_START)
                _last(mlp).bias.zero_()

    def encode(self, scores: Tensor) -> Tensor:
        """(n_profiles, n_latent) from (n_profiles, n_scores)."""
        latent: Tensor = self.encoder_linear(scores) + self.encoder_mlp(scores)
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        """(n_profiles, n_scores) from (n_profiles, n_latent)."""
        scores: Tensor = self.decoder_linear(latent) + self.decoder_mlp(latent)
        return scores

    def silence_mlps(self) -> None:
        """Leave the linear path alone: the exact start, PCA or shrunken PCA."""
        with torch.no_grad():
            for mlp in (self.encoder_mlp, self.decoder_mlp):
                _last(mlp).weight.zero_()
                _last(mlp).bias.zero_()

    def blocks(self, side: str) -> tuple[list[nn.Linear], list[nn.Linear]]:
        """Layers of a side along its deep path, and those that bridge the whole of it."""
        mlp, bridge = (
            (self.encoder_mlp, self.encoder_linear) if side == "encoder" else (self.decoder_mlp, self.decoder_linear)
        )
        return [layer for layer in mlp if isinstance(layer, nn.Linear)], [bridge]

    def drop_decoder(self) -> None:
        """Leave the encoder alone."""
        del self.decoder_linear, self.decoder_mlp


class PlainCore(nn.Module):
    """The plain autoencoder between a first and a last matrix: z = W relu(s), h = relu(W z).

    With `has_unit_latents`, z is divided by its norm, which leaves a profile no way out of a comparison but its
    direction.
    """

    def __init__(self, n_scores: int, n_latent: int, dropout: float, has_unit_latents: bool = False) -> None:
        super().__init__()
        self.has_unit_latents = has_unit_latents
        self.encoder = nn.Sequential(nn.ReLU(), Dropout(dropout), nn.Linear(n_scores, n_latent))
        self.decoder = nn.Sequential(nn.Linear(n_latent, n_scores), nn.ReLU(), Dropout(dropout))

    def encode(self, scores: Tensor) -> Tensor:
        """(n_profiles, n_latent) from (n_profiles, n_scores)."""
        latent: Tensor = self.encoder(scores)
        return F.normalize(latent, eps=LATENT_FLOOR) if self.has_unit_latents else latent

    def decode(self, latent: Tensor) -> Tensor:
        """(n_profiles, n_scores) from (n_profiles, n_latent)."""
        hidden: Tensor = self.decoder(latent)
        return hidden

    def silence_mlps(self) -> None:
        """Nothing: a random start has no linear path to fall back on."""

    def blocks(self, side: str) -> tuple[list[nn.Linear], list[nn.Linear]]:
        """Layers of a side along its deep path, and those that bridge it (none)."""
        stack = self.encoder if side == "encoder" else self.decoder
        return [layer for layer in stack if isinstance(layer, nn.Linear)], []

    def drop_decoder(self) -> None:
        """Leave the encoder alone."""
        del self.decoder


def _last(mlp: nn.Sequential) -> nn.Linear:
    layer = mlp[-1]
    assert isinstance(layer, nn.Linear)
    return layer


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


def cut_initialize(
    network: Network,
    factor: float = 1.0,
    where: str = "all",
    bias: str = "homogeneous",
    target_norm: float | None = None,
    inputs: Tensor | SparseRows | None = None,
) -> None:
    """Make the initial weights smaller, in place: "cut-initialisation" (Draganov, Vadgama and Bekkers 2024, arXiv
    2406.16468).

    Parameters
    ----------
    network
        Freshly initialised.
    factor
        c > 1 makes the start smaller, c < 1 larger, 1 leaves the weights alone.
    where
        `encoder`, `decoder` (whose output is what a cosine loss normalises) or `all`. The gene matrices of a random
        start belong to their sides; a PCA basis is left alone, as is the mean profile it adds.
    bias
        `homogeneous`: the l-th bias along a path is divided by factor^l, and a linear path that bridges L layers by
        factor^L; as ReLU is homogeneous, every output keeps its direction and is factor^-L times as long. `zero`:
        biases start at zero. `scale`: every parameter is divided by the factor alone, as in the code of the paper
        (which divides normalisation layers, too; there are none here); biases then outweigh the cut weights below
        them, and profiles start almost alike.
    target_norm
        After that, scale the last layer such that this is the median norm of its output over `inputs`: of the
        reconstruction (in a PCA basis, of its distance from the mean profile), or of the latent where only the encoder
        is cut. Directions stay exactly.
    inputs
        A batch for `target_norm`, as `Network.forward` takes it.
    """
    if not factor > 0:
        raise InputError(f"the cut must be a number above 0; found {factor:g}. 1 means no cut.")
    if where not in CUT_PLACES:
        raise InputError(f"the cut must be in one of {', '.join(CUT_PLACES)}; found '{where}'.")
    if bias not in CUT_BIASES:
        raise InputError(f"the biases of a cut must be one of {', '.join(CUT_BIASES)}; found '{bias}'.")
    depth = 0
    with torch.no_grad():
        for side in ("encoder", "decoder"):
            if where in (side, "all") and (side == "encoder" or network.has_decoder):
                depth = _cut_side(network, side, factor, bias, depth)
        if target_norm is not None:
            _calibrate(network, "encoder" if where == "encoder" else "decoder", target_norm, inputs)


def _side(network: Network, side: str) -> tuple[list[tuple[Tensor, Tensor | None]], list[nn.Linear]]:
    """Weights and biases of a side along its deep path, and the linear layers that bridge it."""
    layers, bridges = network.core.blocks(side)
    weights: list[tuple[Tensor, Tensor | None]] = [(layer.weight, layer.bias) for layer in layers]
    is_plain_free = network.is_free and not bridges
    if is_plain_free and side == "encoder":
        weights.insert(0, (network.encoder_weight, network.encoder_bias))
    if is_plain_free and side == "decoder":
        weights.append((network.decoder_weight, network.decoder_bias))
    return weights, bridges


def _cut_side(network: Network, side: str, factor: float, bias: str, depth: int) -> int:
    """Cut one side; `depth` counts the layers cut below it, which its biases have to make up for."""
    weights, bridges = _side(network, side)
    for below, (weight, offset) in enumerate(weights, start=1):
        weight.div_(factor)
        if offset is not None and bias == "zero":
            offset.zero_()
        elif offset is not None:
            offset.div_(factor if bias == "scale" else factor ** (depth + below))
    for bridge in bridges:
        bridge.weight.div_(factor if bias == "scale" else factor ** len(weights))
    return depth + len(weights)


def _calibrate(network: Network, side: str, target_norm: float, inputs: Tensor | SparseRows | None) -> None:
    """Scale the last layer of a side such that its outputs have this median norm."""
    if inputs is None:
        raise InputError("a target norm is reached on a batch; found none. Pass inputs.")
    if not 0 < target_norm < float("inf"):
        raise InputError(f"the target norm must be a number above 0; found {target_norm:g}.")
    was_training = network.training
    network.eval()
    found = float(network.output_norms(inputs, side).median())
    network.train(was_training)
    if not found > 0:
        raise InputError("the target norm cannot be reached: every output of the start is zero. Use another --cut.")
    weights, bridges = _side(network, side)
    last, offset = weights[-1]
    for tensor in (last, offset, *(bridge.weight for bridge in bridges)):
        if tensor is not None:
            tensor.mul_(target_norm / found)
