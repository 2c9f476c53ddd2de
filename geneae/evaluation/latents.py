"""Latents of normalised profiles, and the profiles that representations are evaluated on."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from geneae.losses.sparse_rows import sparse_rows
from geneae.models.model import Model
from geneae.models.network import Network
from geneae.training.devices import threads

if TYPE_CHECKING:
    import anndata

MOST_PROFILES = 5000  # per split; more profiles change no digit that is shown
CHUNK = 2048  # profiles at a time
Representation = np.ndarray | sparse.csr_matrix


def sample(split: pd.Series, is_known: np.ndarray, seed: int) -> list[np.ndarray]:
    """Positions of at most 5,000 profiles of train, validation and test each, among those where `is_known` is true."""
    rng = np.random.default_rng(seed)
    rows = []
    for name in ("train", "validation", "test"):
        found = np.flatnonzero((split == name).to_numpy() & is_known)
        rows.append(np.sort(rng.choice(found, MOST_PROFILES, replace=False)) if len(found) > MOST_PROFILES else found)
    return rows


@torch.no_grad()
def encode(network: Network, matrix: sparse.csr_matrix, shift: Tensor | None = None) -> np.ndarray:
    """(n_profiles, n_latent) latents of normalised profiles."""
    network.eval()
    device = network.mean.device
    shift = None if shift is None else shift.to(device)
    parts = [
        network.encode(network.scores(sparse_rows(matrix[start : start + CHUNK]).to(device), shift)).cpu().numpy()
        for start in range(0, matrix.shape[0], CHUNK)
    ]
    return np.concatenate(parts)


@torch.no_grad()
def latents_of(model: Model, matrix: sparse.csr_matrix) -> np.ndarray:
    """(n_profiles, n_latent) latents of normalised, complete profiles, as the model exports them."""
    network, shift = model.network.eval(), model.shift(is_half=False)
    parts = [
        model.encoded(network.scores(sparse_rows(matrix[start : start + CHUNK]), shift)).numpy()
        for start in range(0, matrix.shape[0], CHUNK)
    ]
    return np.concatenate(parts)


def neighbour_graph(values: Representation, seed: int) -> "anndata.AnnData":
    """Profiles in `X`, with the graph of the 15 nearest neighbours of each by Euclidean distance, by scanpy."""
    import anndata
    import scanpy as sc  # slow to load

    adata = anndata.AnnData(values)
    with threads(torch.get_num_threads()):  # the neighbour search changes the number for the entire process
        sc.pp.neighbors(adata, n_neighbors=min(15, values.shape[0] - 1), use_rep="X", random_state=seed)
    return adata
