"""Latents of normalised profiles, and the profiles that representations are evaluated on."""

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from geneae.losses.sparse_rows import sparse_rows
from geneae.models.network import Network

MOST_PROFILES = 5000  # in each split, as neighbours (training) or evaluated (others); more change no digit


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
