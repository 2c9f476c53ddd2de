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

FORMAT = 1  # version of the format of a model folder
# stored values per chunk: large chunks, because each one reads the gene matrix, which exceeds the cache, once
CHUNK_VALUES = 2**23


@dataclass(frozen=True, eq=False)
class Model:
    """Everything needed to apply a fit to new profiles."""

    network: Network
    """Network on the CPU, with the weights of the best epoch."""
    preprocess: Preprocess
    """Genes, normalisation and scale."""
    baselines: Baselines
    """PCA of the same training profiles."""
    scales: dict[str, float]
    """Factor of least squared error on validation profiles, see `geneae.losses.metrics.best_scale`, by name of model or
    baseline."""
    config: dict[str, Any]
    """Contents of `config.json`: settings, space, seed, versions, data."""

    @property
    def center(self) -> str:
        """Centring of the loss."""
        return str(self.config["center"])

    @property
    def n_latent(self) -> int:
        """Number of latents."""
        return int(self.config["settings"]["n_latent"])

    @property
    def can_hold_out(self) -> bool:
        """Whether profiles can be evaluated on held-out molecules, because training profiles were counts."""
        return self.baselines.half is not None

    def check_decoder(self) -> None:
        """Raise InputError if no decoder was trained, so that there is no reconstruction."""
        if not self.network.has_decoder:
            objective = self.config["settings"]["objective"]
            raise InputError(
                f"a model of objective {objective} has latents only: no decoder was trained, so nothing can be "
                f"reconstructed or compared with profiles. For both, fit with --objective {objective}+reconstruction."
            )

    def shift(self, is_half: bool) -> Tensor | None:
        """(n_genes,) mean of halves or complete profiles, minus the mean of the network; None if they are equal.

        The logarithm makes the mean of halves differ from the mean of complete profiles, so a network trained on one
        and used on the other needs a shifted centre.
        """
        basis = self.baselines.half if is_half else self.baselines.whole
        assert basis is not None
        shift = basis.mean.to(self.network.mean.dtype) - self.network.mean
        return shift if bool(shift.any()) else None

    def latent(self, expression: Expression) -> np.ndarray:
        """(n_profiles, n_latent) float32 latents of complete profiles."""
        shift = self.shift(is_half=False)
        latent = np.empty((expression.n_profiles, self.n_latent), np.float32)
        size = max(1, CHUNK_VALUES * expression.n_profiles // max(1, expression.n_values))
        with torch.no_grad():
            for rows, part in expression.chunks(size):
                matrix = self.preprocess.apply(part)
                latent[rows] = self.network.encode(self.network.scores(sparse_rows(matrix), shift)).numpy()
        return latent

    def reconstruction(self, latent: np.ndarray) -> np.ndarray:
        """(n_profiles, n_genes) float32 reconstructions from latents, in `preprocess.space`."""
        self.check_decoder()
        shift = self.shift(is_half=False)
        with torch.no_grad():
            hidden = self.network.decode(torch.from_numpy(np.ascontiguousarray(latent, dtype=np.float32)))
            predicted: np.ndarray = self.network.decoder(shift).expectation(hidden).numpy()
        return predicted


def latent_names(n_latent: int) -> list[str]:
    """Column names of latents in every table: `latent_0`, `latent_1`, ..."""
    return [f"latent_{index}" for index in range(n_latent)]
