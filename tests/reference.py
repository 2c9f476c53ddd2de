"""The dense twin: every profile and prediction as a plain float64 array, as slow as it is plain. Tests only."""

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import anndata
import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor, nn

from geneae.data.matrix_check import Scan
from geneae.data.profiles import Profiles
from geneae.losses.in_batch import IN_BATCH_LOSSES
from geneae.losses.inner_products import BatchContext, InnerProducts, TargetProducts
from geneae.losses.reconstruction import LOSSES, LossSettings
from geneae.losses.sparse_rows import SparseRows
from geneae.models.cores import SkipCore
from geneae.models.network import Network
from geneae.training.batches import Batch
from geneae.training.objectives import Reconstruction

ON_COSINES = [name for name in IN_BATCH_LOSSES if name != "triplet"]
"""Losses that compare the cosines of a batch."""

FIVE = np.array([[0, 2, 0, 1], [3, 0, 0, 0], [0, 0, 0, 0], [1, 1, 4, 0], [0, 5, 0, 9]], dtype=np.float32)
"""Molecules of five profiles and four genes; the third profile has none."""


def counts_matrix(n_profiles: int = 30, n_genes: int = 50, seed: int = 0, depth: float = 60.0) -> np.ndarray:
    """Poisson counts of two programmes with gamma gene levels; every profile has molecules."""
    rng = np.random.default_rng(seed)
    levels = rng.gamma(0.7, 1.0, size=(2, n_genes))
    mixture = rng.dirichlet([1.0, 1.0], size=n_profiles) @ levels
    rates = mixture / mixture.sum(1, keepdims=True) * depth * rng.uniform(0.5, 2.0, size=(n_profiles, 1))
    counts = rng.poisson(rates).astype(np.float64)
    counts[:, 0] = np.maximum(counts[:, 0], 1)
    return counts


def with_holes(seed: int = 0) -> np.ndarray:
    """7 x 11 values with an empty first, middle and last profile and genes seen in none."""
    dense = np.random.default_rng(seed).poisson(0.8, size=(7, 11)).astype(float)
    dense[[0, 3, 6]] = 0
    dense[:, [0, 5, 10]] = 0
    return dense


def dense_normalize(counts: np.ndarray, totals: np.ndarray | None = None) -> np.ndarray:
    """log1p of counts per 10,000; an empty profile stays zero."""
    totals = counts.sum(1) if totals is None else totals
    return np.log1p(1e4 * counts / np.where(totals > 0, totals, 1.0)[:, None])


def csr(dense: np.ndarray | Tensor, dtype: type = np.float32) -> sparse.csr_matrix:
    """Dense rows as CSR without stored zeros."""
    return sparse.csr_matrix(np.asarray(dense, dtype=dtype))


def profiles_of(dense: np.ndarray, state: str = "counts", genes: list[str] | None = None) -> Profiles:
    """Profiles `p0`, `p1`, ... of genes `g0`, `g1`, ... unless named."""
    names = pd.Index([f"p{i}" for i in range(dense.shape[0])])
    columns = pd.Index(genes or [f"g{i}" for i in range(dense.shape[1])])
    scan = Scan(state, (dense != 0).sum(1).astype(np.int32), dense.sum(1).astype(float), float(dense.max()))
    return Profiles(csr(dense), names, columns, pd.DataFrame(index=names), scan, "array in memory", "X")


def five_profiles(x: Any = FIVE, **fields: Any) -> anndata.AnnData:
    """Five profiles of four genes, with annotation of several types."""
    obs = pd.DataFrame(
        {"donor": pd.Categorical(["a", "b", "a", "b", "c"]), "age": [1.5, 2, 3, 4, 5], "note": list("vwxyz")},
        index=[f"cell{i}" for i in range(5)],
    )
    return anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"gene{i}" for i in range(4)]), **fields)


def assert_same_profiles(found: Profiles, expected: Profiles) -> None:
    """The same matrix, stored alike, names, state and fingerprint."""
    assert found.matrix.dtype == np.float32
    assert found.matrix.indices.dtype == np.int32
    assert found.matrix.has_canonical_format
    np.testing.assert_array_equal(found.matrix.indptr, expected.matrix.indptr)
    np.testing.assert_array_equal(found.matrix.indices, expected.matrix.indices)
    np.testing.assert_array_equal(found.matrix.data, expected.matrix.data)
    assert list(found.names) == list(expected.names)
    assert list(found.genes) == list(expected.genes)
    assert (found.state, found.fingerprint) == (expected.state, expected.fingerprint)


def centred(x: Tensor, center: str, mean: Tensor | None = None) -> Tensor:
    """Dense profiles after centring."""
    if center == "gene":
        assert mean is not None
        return x - mean
    return x - x.mean(1, keepdim=True) if center == "profile" else x


def dense_products(x: Tensor, y: Tensor, center: str = "none", mean: Tensor | None = None) -> InnerProducts:
    """The three inner products from dense targets x and predictions y."""
    x, y = centred(x, center, mean), centred(y, center, mean)
    return InnerProducts((x * y).sum(1), (x * x).sum(1), (y * y).sum(1), x.shape[1])


def products_of(
    x: Tensor, y: Tensor, center: str = "none", mean: Tensor | None = None, **others: Tensor | float
) -> InnerProducts:
    """Inner products with those of all pairs, from dense targets and predictions."""
    found = dense_products(x, y, center, mean)
    x, y = centred(x, center, mean), centred(y, center, mean)
    latent = others.pop("latent", torch.zeros(len(x), 2, dtype=x.dtype))
    assert isinstance(latent, Tensor)
    return replace(found, batch=BatchContext(y @ x.T, x @ x.T, latent, **others))  # type: ignore[arg-type]


def reconstruct(
    network: Network, inputs: Tensor | SparseRows, target: TargetProducts | SparseRows, *centers: str
) -> tuple[dict[str, InnerProducts], Tensor]:
    """Plain inner products by centring, and the latents, as the package makes them of targets and predictions."""
    objective = Reconstruction(LOSSES["mse"], "none", LossSettings())
    found = objective.reconstruct(network, Batch(inputs, target), centers)
    return found.plain, found.latent


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))


def _pearson(x: Tensor, y: Tensor) -> Tensor:
    return torch.corrcoef(torch.cat([x, y]))[: len(x), len(x) :].diagonal()


def _mse(x: Tensor, y: Tensor) -> Tensor:
    return ((x - y) ** 2).mean(1)


DENSE_LOSSES: dict[str, Callable[[Tensor, Tensor, LossSettings], Tensor]] = {
    "mse": lambda x, y, s: _mse(x, y),
    "relative-mse": lambda x, y, s: ((x - y) ** 2).sum(1) / (x**2).sum(1),
    "cosine": lambda x, y, s: 1 - _cosine(x, y),
    "pearson": lambda x, y, s: 1 - _pearson(x, y),
    "combined": lambda x, y, s: (
        s.alpha * _mse(x, y) / s.mean_profile_mse + (1 - s.alpha) * (1 - _cosine(x, y)) / s.mean_profile_cosine
    ),
    "magnitude": lambda x, y, s: (
        1 - _cosine(x, y) + s.beta / 2 * (1 - y.norm(dim=1) / x.norm(dim=1) / s.norm_ratio) ** 2
    ),
    "scaled-cosine": lambda x, y, s: (1 - _cosine(x, y)) ** s.gamma,
}
"""One number per profile from dense (centred) targets and predictions without zeros among them."""


class DenseTwin:
    """The same network in float64 on dense profiles, with parameters of its own under the same names."""

    def __init__(self, network: Network) -> None:
        self.network = copy.deepcopy(network).double()

    def encode(self, x: Tensor) -> Tensor:
        """(n_profiles, n_latent) from dense profiles."""
        net = self.network
        if net.is_free:
            scores = (x @ net.encoder_weight + net.encoder_bias) / net.deviation
        else:
            scores = (x - net.mean) @ net.components / net.deviation
        core = net.core
        if isinstance(core, SkipCore):
            return scores @ core.encoder_linear.weight.T + _mlp(core.encoder_mlp, scores)
        return _affine(core.encoder[2], torch.relu(scores))

    def predict(self, latent: Tensor) -> Tensor:
        """(n_profiles, n_genes) from latents."""
        net, core = self.network, self.network.core
        if isinstance(core, SkipCore):
            hidden = latent @ core.decoder_linear.weight.T + _mlp(core.decoder_mlp, latent)
        else:
            hidden = torch.relu(_affine(core.decoder[0], latent))
        if net.is_free:
            return (hidden * net.deviation) @ net.decoder_weight.T + net.decoder_bias
        return net.mean + (hidden * net.deviation) @ net.components.T

    def gradients(self) -> dict[str, Tensor]:
        """Of every parameter, by name."""
        return {name: p.grad for name, p in self.network.named_parameters() if p.grad is not None}


def _affine(layer: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(layer, nn.Linear)
    return x @ layer.weight.T + layer.bias


def _mlp(mlp: nn.Sequential, x: Tensor) -> Tensor:
    return _affine(mlp[3], torch.relu(_affine(mlp[0], x)))


def pairwise(*parameters: Sequence[Any], is_allowed: Callable[..., bool] = lambda *_: True) -> list[tuple[Any, ...]]:
    """A few rows of the product of some parameters that hold every pair of values of any two of them.

    Rows that are not allowed are left out, and so are pairs that no allowed row has. The same rows every time.
    """
    sizes = (range(len(values)) for values in parameters)
    rows = {places: _row(parameters, places) for places in itertools.product(*sizes)}
    left = {places: _pairs(places) for places, row in rows.items() if is_allowed(*row)}
    missing, chosen = set().union(*left.values()), []
    while missing:
        best = max(left, key=lambda places: len(left[places] & missing))  # the first of the best
        chosen.append(rows[best])
        missing -= left[best]
    return chosen


def _row(parameters: Sequence[Sequence[Any]], places: tuple[int, ...]) -> tuple[Any, ...]:
    return tuple(values[place] for values, place in zip(parameters, places, strict=True))


def _pairs(places: tuple[int, ...]) -> set[tuple[tuple[int, int], tuple[int, int]]]:
    """Of each two parameters: which they are and which value each has."""
    return set(itertools.combinations(enumerate(places), 2))
