"""Representations that latents are compared with: raw input, PCA, a random and a supervised encoder."""

import torch
import torch.nn.functional as F
from scipy import sparse
from torch import nn

from geneae.evaluation.labels import Labelled
from geneae.evaluation.latents import Representation, encode
from geneae.losses.sparse_rows import RowStore, sparse_rows
from geneae.models.baselines import Baselines
from geneae.models.network import Network, random_network
from geneae.settings.settings import Settings

CEILING_EPOCHS, CEILING_RATE = 40, 2e-3  # of the encoder that is trained on labels


def controls(known: Labelled, baselines: Baselines, settings: Settings) -> dict[str, Representation]:
    """What stands beside the latents, by name: `untaught`, and the plain encoder trained on the labels, which says what
    its form can hold."""
    with torch.random.fork_rng(devices=[]):
        taught = _born(baselines, settings)
        teach(taught, known, settings)
    return {"supervised": encode(taught, known.matrix), **untaught(known.matrix, baselines, settings)}


def untaught(matrix: sparse.csr_matrix, baselines: Baselines, settings: Settings) -> dict[str, Representation]:
    """By name: the input itself, PCA of the same size, and the plain encoder as it is born."""
    with torch.random.fork_rng(devices=[]):
        born = _born(baselines, settings)
    scores = baselines.whole.scores(sparse_rows(matrix))[:, : settings.n_latent].numpy()
    return {"raw_input": matrix, "pca": scores, "random_encoder": encode(born, matrix)}


def _born(baselines: Baselines, settings: Settings) -> Network:
    """The plain encoder before any training; sets the random numbers of torch."""
    torch.manual_seed(settings.seed)
    born = random_network(baselines.whole.mean, settings.n_latent, settings.hidden, settings.dropout)
    born.drop_decoder()
    return born


def teach(network: Network, known: Labelled, settings: Settings) -> None:
    """Train an encoder, in place, to tell the labels of the training profiles by a linear layer on its latent."""
    train = known.among("train")
    store, labels = RowStore(known.matrix[train]), torch.from_numpy(known.labels[train]).long()
    layer = nn.Linear(settings.n_latent, int(known.labels.max()) + 1)
    parameters = [*network.parameters(), *layer.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=CEILING_RATE, weight_decay=settings.weight_decay)
    network.train()
    for _ in range(CEILING_EPOCHS):
        for index in torch.randperm(len(train)).split(settings.batch_size):
            loss = F.cross_entropy(layer(network.encode(network.scores(store.take(index)))), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
