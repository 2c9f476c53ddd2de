"""The plain autoencoder as dense PyTorch layers, with the weights of a network of geneae."""

import copy

import torch
from torch import nn

from geneae.models.cores import PlainCore
from geneae.models.network import Network


def dense_network(network: Network) -> nn.Sequential:
    """The same layers as `nn.Linear`, with the same weights."""
    core = network.core
    assert isinstance(core, PlainCore)
    n_hidden = len(network.deviation)
    first, last = nn.Linear(network.n_genes, n_hidden), nn.Linear(n_hidden, network.n_genes)
    with torch.no_grad():
        first.weight.copy_(network.encoder_weight.T)
        first.bias.copy_(network.encoder_bias)
        last.weight.copy_(network.decoder_weight)
        last.bias.copy_(network.decoder_bias)
    inner = [
        nn.Dropout(layer.p) if isinstance(layer, nn.Dropout) else copy.deepcopy(layer)
        for layer in (*core.encoder, *core.decoder)
    ]
    return nn.Sequential(first, *inner, last)
