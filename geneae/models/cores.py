"""Cores: encoder and decoder between the first and the last matrix of a network."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL_START = 0.01  # scale of an MLP's last layer next to a linear path: the fit starts close to the linear path
LATENT_FLOOR = 1e-6  # shorter latents are not scaled to unit norm, which bounds the gradient


class Dropout(nn.Dropout):
    """Dropout whose mask takes one random 64-bit word for four values: on a CPU ten times as fast as torch's own.

    The dropped share is `p` to the nearest 1/65,536, and kept values are divided by exactly the kept share.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The input with some values set to zero and the others scaled up in training; the input itself otherwise."""
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

    The linear path starts as the first components times `factors`: PCA, or shrunken PCA with Wiener factors. Latents
    beyond the number of scores start at zero.
    """

    def __init__(self, factors: Tensor, n_latent: int, hidden: int, dropout: float) -> None:
        super().__init__()
        n_scores = len(factors)
        self.encoder_linear = nn.Linear(n_scores, n_latent, bias=False)
        self.encoder_mlp = _mlp(n_scores, hidden, n_latent, dropout)
        self.decoder_linear = nn.Linear(n_latent, n_scores, bias=False)
        self.decoder_mlp = _mlp(n_latent, hidden, n_scores, dropout)
        with torch.no_grad():
            # other operations, such as torch.eye, would load the compiler of torch on the device "meta"
            self.encoder_linear.weight.zero_().fill_diagonal_(1)
            self.decoder_linear.weight.zero_().diagonal().copy_(factors[:n_latent])
            for mlp in self._mlps():
                _last_layer(mlp).weight.mul_(SMALL_START)
                _last_layer(mlp).bias.zero_()

    def encode(self, scores: Tensor) -> Tensor:
        """(n_profiles, n_latent) from (n_profiles, n_scores)."""
        latent: Tensor = self.encoder_linear(scores) + self.encoder_mlp(scores)
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        """(n_profiles, n_scores) from (n_profiles, n_latent)."""
        scores: Tensor = self.decoder_linear(latent) + self.decoder_mlp(latent)
        return scores

    def silence_mlps(self) -> None:
        """Set the MLPs to zero, so that only the linear path remains: at the start, exactly PCA or shrunken PCA."""
        with torch.no_grad():
            for mlp in self._mlps():
                _last_layer(mlp).weight.zero_()
                _last_layer(mlp).bias.zero_()

    def _mlps(self) -> list[nn.Sequential]:
        """MLPs of both sides, or of the encoder alone once the decoder was removed."""
        return [part for part in self.children() if isinstance(part, nn.Sequential)]

    def blocks(self, side: str) -> tuple[list[nn.Linear], list[nn.Linear]]:
        """Layers of a side along its deep path, and the linear layers that bridge that path."""
        mlp, bridge = (
            (self.encoder_mlp, self.encoder_linear) if side == "encoder" else (self.decoder_mlp, self.decoder_linear)
        )
        return [layer for layer in mlp if isinstance(layer, nn.Linear)], [bridge]

    def drop_decoder(self) -> None:
        """Remove the decoder."""
        del self.decoder_linear, self.decoder_mlp


class GatedCore(SkipCore):
    """Linear path plus gated MLP in the encoder: z = E s + g * MLP(s), with a gate g for each latent.

    Gates are zero at first, so that a fit starts exactly at its linear path, and the MLP need not be small for that
    (ReZero, Bachlechner et al. 2020, arXiv 2003.04887).
    """

    def __init__(self, factors: Tensor, n_latent: int, hidden: int, dropout: float) -> None:
        super().__init__(factors, n_latent, hidden, dropout)
        self.gate = nn.Parameter(torch.zeros(n_latent))
        with torch.no_grad():
            _last_layer(self.encoder_mlp).weight.div_(SMALL_START)

    def encode(self, scores: Tensor) -> Tensor:
        """(n_profiles, n_latent) from (n_profiles, n_scores)."""
        latent: Tensor = self.encoder_linear(scores) + self.gate * self.encoder_mlp(scores)
        return latent


class PlainCore(nn.Module):
    """The plain autoencoder between a first and a last matrix: z = W relu(s), h = relu(W z).

    With `has_unit_latents`, z is divided by its norm, so that profiles can differ in direction only.
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
        """Do nothing: a random start has no linear path to fall back on."""

    def blocks(self, side: str) -> tuple[list[nn.Linear], list[nn.Linear]]:
        """Layers of a side along its deep path, and the linear layers that bridge that path (none)."""
        stack = self.encoder if side == "encoder" else self.decoder
        return [layer for layer in stack if isinstance(layer, nn.Linear)], []

    def drop_decoder(self) -> None:
        """Remove the decoder."""
        del self.decoder


SKIP_CORES = {"skip": SkipCore, "gated": GatedCore}
"""Cores with a linear path, by their name in `config.json`; the other one is `plain`."""


def _last_layer(mlp: nn.Sequential) -> nn.Linear:
    layer = mlp[-1]
    assert isinstance(layer, nn.Linear)
    return layer
