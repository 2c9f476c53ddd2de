"""Representations that latents are compared with: raw input, PCA, a random and a supervised encoder."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import nn

from geneae.evaluation.judge import ModelFacts
from geneae.evaluation.latents import Representation, encode
from geneae.losses.sparse_rows import RowStore, sparse_rows
from geneae.models.baselines import BASELINES, Baselines
from geneae.models.network import Network, random_network
from geneae.settings.settings import Settings
from geneae.training.devices import forked_random

SUPERVISED = {"supervised": ModelFacts("supervised encoder")}
UNTRAINED = {
    "raw_input": ModelFacts("raw input"),
    "pca": ModelFacts(BASELINES["pca"].title, BASELINES["pca"].is_sized, BASELINES["pca"].line),
    "random_encoder": ModelFacts("random encoder"),
}
"""Controls without a trained network, by name."""
SUPERVISED_EPOCHS, SUPERVISED_RATE = 40, 2e-3  # of the training of an encoder on labels


def untrained_controls(
    matrix: sparse.csr_matrix, baselines: Baselines, settings: Settings
) -> dict[str, Representation]:
    """Representations without a trained network, by name: the input itself, PCA of the same size, a random encoder.

    Parameters
    ----------
    matrix
        (n_profiles, n_genes) normalised profiles.
    baselines
        Baselines of the fit.
    settings
        Settings of the fit: the latent, the hidden layers, and the seed of the random encoder.
    """
    with forked_random():
        encoder = _random_encoder(baselines, settings)
    scores = baselines.whole.scores(sparse_rows(matrix))[:, : settings.size].numpy()
    return {"raw_input": matrix, "pca": scores, "random_encoder": encode(encoder, matrix)}


def supervised_control(
    matrix: sparse.csr_matrix, labels: np.ndarray, train: np.ndarray, baselines: Baselines, settings: Settings
) -> np.ndarray:
    """(n_profiles, n_latent) latents of the plain encoder trained on the labels: what this architecture can reach.

    Parameters
    ----------
    matrix, baselines, settings
        See `untrained_controls`.
    labels
        (n_profiles,) integer codes from 0.
    train
        Positions of the training profiles.
    """
    with forked_random():
        encoder = _random_encoder(baselines, settings)
        _train_on_labels(encoder, matrix[train], labels[train], int(labels.max()) + 1, settings)
    return encode(encoder, matrix)


def _random_encoder(baselines: Baselines, settings: Settings) -> Network:
    """The plain encoder before training; sets the seed of torch."""
    torch.manual_seed(settings.seed)
    encoder = random_network(baselines.whole.mean, settings.size, settings.hidden, settings.dropout)
    encoder.drop_decoder()
    return encoder


def _train_on_labels(
    network: Network, matrix: sparse.csr_matrix, labels: np.ndarray, n_labels: int, settings: Settings
) -> None:
    """Train an encoder, in place, to predict labels through a linear layer on its latent."""
    store, targets = RowStore(matrix), torch.from_numpy(labels).long()
    layer = nn.Linear(settings.size, n_labels)
    parameters = [*network.parameters(), *layer.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=SUPERVISED_RATE, weight_decay=settings.weight_decay)
    network.train()
    for _ in range(SUPERVISED_EPOCHS):
        for index in torch.randperm(matrix.shape[0]).split(settings.batch_size):
            loss = F.cross_entropy(layer(network.encode(network.scores(store.take(index)))), targets[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
