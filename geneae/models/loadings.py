"""Interpretation of latents: their loadings, and the genes that change along them."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from geneae.models.cores import SkipCore
from geneae.models.depths import COMPLETE
from geneae.models.model import Model, latent_names
from geneae.settings.errors import InputError


@torch.no_grad()
def loadings(model: Model) -> pd.DataFrame:
    """Genes x latents: what one unit of each latent adds to the reconstruction, in the units of the model's space.

    For a network with a linear path (every start at PCA or at posterior scores) this is the linear path alone, the same
    for every profile: the loadings of the start as changed by training, before the step `neighbours`, times the slopes
    of the step `calibration` if that is kept. For any other network it is the slope of the reconstruction at the mean
    training profile.
    """
    network = model.network
    if isinstance(network.core, SkipCore):
        hidden = network.core.decoder_linear.weight * network.deviation[:, None]
    else:
        hidden = torch.autograd.functional.jacobian(network.decode, mean_latent(model))
    weight = network.output_weight()
    if model.estimator is not None:  # reconstructions are as deep as complete training profiles
        weight = model.estimator.within("calibration").at(COMPLETE, COMPLETE).linear().weight
    values = (weight @ hidden).numpy()
    return pd.DataFrame(values, index=model.preprocess.genes, columns=latent_names(model.n_latent))


@torch.no_grad()
def mean_latent(model: Model) -> Tensor:
    """(n_latent,) latent of the mean training profile."""
    network = model.network
    if not network.is_free:
        return model.encoded(torch.zeros(1, len(network.deviation)))[0]
    mean = network.mean  # of the profiles that the network was trained on; a shift would be subtracted from the input
    return network.encode((mean[None] @ network.encoder_weight + network.encoder_bias) / network.deviation)[0]


def genes_along(model: Model, latent: int, latents: np.ndarray | None = None) -> pd.DataFrame:
    """Genes sorted by how much their reconstruction changes along one latent, the largest change first.

    The reconstruction is computed one step below and one step above the centre, with the other latents at the centre;
    half the difference is the change per step. The decoder is not linear, so the step follows the spread of profiles.

    Parameters
    ----------
    model
        Fitted model.
    latent
        Number of the latent, from 0.
    latents
        (n_profiles, n_latent) latents of the profiles of interest: the centre is their mean, the step the standard
        deviation of the latent among them. If None, the centre is the latent of the mean training profile and the step
        is one unit.

    Returns
    -------
    gene; change per step, in the units of the model's space; mean, the reconstruction at the centre.
    """
    if not 0 <= latent < model.n_latent:
        raise InputError(
            f"the model has {model.n_latent} latents, numbered 0 to {model.n_latent - 1}; found {latent}. "
            "Ask for one of them."
        )
    centre, step = mean_latent(model).numpy(), 1.0
    if latents is not None:
        centre, step = latents.mean(axis=0), float(latents[:, latent].std())
    moved = np.tile(centre, (3, 1))
    moved[0, latent] -= step
    moved[2, latent] += step
    below, middle, above = model.reconstruction(moved)
    table = pd.DataFrame({"gene": model.preprocess.genes, "change": (above - below) / 2, "mean": middle})
    return table.sort_values("change", key=np.abs, ascending=False, kind="stable", ignore_index=True)
