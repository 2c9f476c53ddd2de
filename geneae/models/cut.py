"""Cut-initialisation: smaller initial weights."""

import torch
from torch import Tensor, nn

from geneae.losses.sparse_rows import SparseRows
from geneae.models.network import Network
from geneae.settings.errors import InputError
from geneae.settings.settings import CUT_BIASES, CUT_PLACES


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
        c > 1 makes the initial weights smaller, c < 1 larger; 1 does not change them.
    where
        `encoder`, `decoder` (whose output a cosine loss normalises) or `all`. The gene matrices of a random start
        belong to their sides; a PCA basis and the mean profile that it adds are not changed.
    bias
        `homogeneous`: the l-th bias along a path is divided by factor^l, and a linear path that bridges L layers by
        factor^L; because ReLU is homogeneous, every output keeps its direction and is factor^-L times as long. `zero`:
        biases start at zero. `scale`: every parameter is divided by the factor itself, as in the code of the paper
        (which also divides normalisation layers; there are none here); biases then outweigh the cut weights below
        them, and all profiles start with almost the same output.
    target_norm
        If given, the last layer is then scaled so that its outputs over `inputs` have this median norm: the
        reconstruction (in a PCA basis, its difference from the mean profile), or the latent if only the encoder is
        cut. Directions do not change.
    inputs
        Mini-batch for `target_norm`, as `Network.forward` takes it.
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
    """Weights and biases of a side along its deep path, and the linear layers that bridge that path."""
    layers, bridges = network.core.blocks(side)
    weights: list[tuple[Tensor, Tensor | None]] = [(layer.weight, layer.bias) for layer in layers]
    is_plain_free = network.is_free and not bridges
    if is_plain_free and side == "encoder":
        weights.insert(0, (network.encoder_weight, network.encoder_bias))
    if is_plain_free and side == "decoder":
        weights.append((network.decoder_weight, network.decoder_bias))
    return weights, bridges


def _cut_side(network: Network, side: str, factor: float, bias: str, depth: int) -> int:
    """Cut one side; `depth` is the number of layers cut before it, for which its biases have to make up."""
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
    """Scale the last layer of a side so that its outputs have this median norm."""
    if inputs is None:
        raise InputError("a target norm needs a mini-batch to measure norms on; found none. Pass inputs.")
    if not 0 < target_norm < float("inf"):
        raise InputError(f"the target norm must be a number above 0; found {target_norm:g}.")
    was_training = network.training
    network.eval()
    found = float(network.output_norms(inputs, side).median())
    network.train(was_training)
    if not found > 0:
        raise InputError("the target norm cannot be reached: all initial outputs are zero. Use another --cut.")
    weights, bridges = _side(network, side)
    last, offset = weights[-1]
    for tensor in (last, offset, *(bridge.weight for bridge in bridges)):
        if tensor is not None:
            tensor.mul_(target_norm / found)
