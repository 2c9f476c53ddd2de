"""A fitted model: network, preprocessing, genes and the baselines it is compared with."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geneae.data.preprocess import Expression, Preprocess
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.baselines import Baselines
from geneae.models.network import Network
from geneae.settings.errors import InputError

FORMAT = 1  # of the model folder
CHUNK_VALUES = 2**23  # read and projected in one go: a gene matrix larger than the cache is gone through once for all


@dataclass(frozen=True, eq=False)
class Model:
    """Everything needed to use a fit on new profiles."""

    network: Network
    """On the CPU, with the weights of the best epoch."""
    preprocess: Preprocess
    """Genes, normalisation, scale."""
    baselines: Baselines
    """PCA of the same training profiles."""
    scales: dict[str, float]
    """By model and baseline, the factor of least squared error on validation profiles (`metrics.best_scale`)."""
    config: dict[str, Any]
    """Settings, space, seed, versions, data: what `config.json` holds."""

    @property
    def center(self) -> str:
        """Centring of the loss."""
        return str(self.config["center"])

    @property
    def n_latent(self) -> int:
        """Length of the latent."""
        return int(self.config["settings"]["n_latent"])

    @property
    def can_hold_out(self) -> bool:
        """Whether profiles can be judged on held-out molecules: they were counts."""
        return self.baselines.half is not None

    def check_decoder(self) -> None:
        """Refuse what needs a reconstruction where nothing was trained to reconstruct."""
        if not self.network.has_decoder:
            objective = self.config["settings"]["objective"]
            raise InputError(
                f"a model of objective {objective} has latents alone: no decoder was trained, and nothing can be "
                f"reconstructed or compared with a profile. Fit with --objective {objective}+reconstruction for both."
            )

    def shift(self, is_half: bool) -> Tensor | None:
        """(n_genes,) by which the mean of halves or whole profiles lies above the mean the network knows.

        The logarithm makes the mean of halves differ from the mean of whole profiles, so that a network trained on
        one and used on the other needs its centre moved.
        """
        basis = self.baselines.half if is_half else self.baselines.whole
        assert basis is not None
        shift = basis.mean.to(self.network.mean.dtype) - self.network.mean
        return shift if bool(shift.any()) else None

    def latent(self, expression: Expression) -> np.ndarray:
        """(n_profiles, n_latent) float32 of whole profiles."""
        shift = self.shift(is_half=False)
        latent = np.empty((expression.n_profiles, self.n_latent), np.float32)
        size = max(1, CHUNK_VALUES * expression.n_profiles // max(1, expression.n_values))
        with torch.no_grad():
            for rows, part in expression.chunks(size):
                matrix = self.preprocess.apply(part)
                latent[rows] = self.network.encode(self.network.scores(sparse_rows(matrix), shift)).numpy()
        return latent

    def reconstruction(self, latent: np.ndarray) -> np.ndarray:
        """(n_profiles, n_genes) float32 predicted from latents, in `preprocess.space`."""
        self.check_decoder()
        shift = self.shift(is_half=False)
        with torch.no_grad():
            hidden = self.network.decode(torch.from_numpy(np.ascontiguousarray(latent, dtype=np.float32)))
            predicted: np.ndarray = self.network.decoder(shift).expectation(hidden).numpy()
        return predicted


def latent_names(n_latent: int) -> list[str]:
    """`latent_0`, `latent_1`, ...: the columns of latents in every table."""
    return [f"latent_{index}" for index in range(n_latent)]
