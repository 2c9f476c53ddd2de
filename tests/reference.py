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
from geneae.models.depths import DELTAS
from geneae.models.model import Model
from geneae.models.network import Network
from geneae.models.own_counts import ZERO_TERMS
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
        return self.encode_scores(scores)

    def encode_scores(self, scores: Tensor) -> Tensor:
        """(n_profiles, n_latent) from scores in units of their deviation."""
        core = self.network.core
        if isinstance(core, SkipCore):
            return scores @ core.encoder_linear.weight.T + _mlp(core.encoder_mlp, scores)
        return _affine(core.encoder[2], torch.relu(scores))

    def predict(self, latent: Tensor) -> Tensor:
        """(n_profiles, n_genes) from latents."""
        net, hidden = self.network, self.decode_scores(latent)
        if net.is_free:
            return hidden @ net.decoder_weight.T + net.decoder_bias
        return net.mean + hidden @ net.components.T

    def decode_scores(self, latent: Tensor) -> Tensor:
        """(n_profiles, n_scores) from latents."""
        core = self.network.core
        if isinstance(core, SkipCore):
            hidden = latent @ core.decoder_linear.weight.T + _mlp(core.decoder_mlp, latent)
        else:
            hidden = torch.relu(_affine(core.decoder[0], latent))
        return hidden * self.network.deviation

    def gradients(self) -> dict[str, Tensor]:
        """Of every parameter, by name."""
        return {name: p.grad for name, p in self.network.named_parameters() if p.grad is not None}


class DenseEstimator:
    """The estimator of a model in float64 on dense profiles as deep as its training profiles, or as their halves; what
    it predicts is as deep."""

    def __init__(self, model: Model, is_half: bool) -> None:
        assert model.estimator is not None
        self.of, self.network, self.depth = model.estimator, DenseTwin(model.network), 1 if is_half else 0
        basis, curves = self.of.whitening, self.of.curves
        self.base, self.deviation, self.v = (
            t.double().numpy() for t in (basis.mean, basis.deviation, basis.components)
        )
        self.mean, self.noise, self.slope = (
            t[self.depth].double().numpy() for t in (curves.means, curves.noises, curves.slopes)
        )
        self.shift = np.zeros(len(self.base)) if is_half else model.baselines.whole.mean.double().numpy() - self.base

    def latent(self, x: np.ndarray) -> Tensor:
        """(n_profiles, n_latent) latents."""
        return self.network.encode_scores(torch.from_numpy(self.scores(x)) / self.network.network.deviation)

    def scores(self, x: np.ndarray) -> np.ndarray:
        """(n_profiles, rank) posterior scores."""
        factors = self.of.posterior.factors[self.depth].double().numpy()
        return np.asarray((x - self.mean) / self.noise @ self.v * factors)

    def drawn(self, scores: np.ndarray) -> np.ndarray:
        """Scores moved towards the nearest training profiles, one profile at a time."""
        known = self.of.neighbours
        reference, pull = known.reference.double().numpy(), float(known.pull[self.depth])
        positions = reference * known.factors.double().numpy()
        moved = scores.copy()
        for row, own in enumerate(scores):
            nearest = np.argsort(((positions - own) ** 2).sum(1))[: known.number]
            moved[row] += pull * (reference[nearest].mean(0) - own)
        return moved

    def predict(
        self, x: np.ndarray, totals: np.ndarray, steps: Sequence[str] | None = None, has_network: bool = True
    ) -> np.ndarray:
        """(n_profiles, n_genes) predictions with some of the steps that are kept; None: with all of them."""
        steps = [step for step in self.of.kept if steps is None or step in steps]
        scores = self.scores(x)
        if has_network:
            scores = self.network.decode_scores(self.latent(x)).detach().numpy()
        p = (self.drawn(scores) if "neighbours" in steps else scores) @ self.v.T
        total = p
        if "own_counts" in steps:
            share = self.of.own_counts.shares[self.depth].double().numpy()
            total = p + share * ((x - self.mean) / self.deviation - self.slope * p)
        if "entries" in steps:
            total = total + self.residual(x, totals, p)
        return np.asarray(self.base + self.shift + self.slope * self.deviation * total)

    def own_count(self, x: np.ndarray) -> np.ndarray:
        """Predictions from the mean profile and own counts."""
        share = self.of.own_counts.alone[self.depth].double().numpy()
        return np.asarray(self.base + self.shift + self.slope * share * (x - self.mean))

    def residual(self, x: np.ndarray, totals: np.ndarray, p: np.ndarray) -> np.ndarray:
        """What the head adds where a gene is seen, and the linear formula where it is not."""
        delta, scale = DELTAS[self.depth], self.of.scale
        e = np.clip((np.log(np.maximum(totals, 1)) + delta - scale.mean) / scale.deviation, -3, 3)[:, None]
        at_zero = sum(
            weight.double().numpy() * p**of_p * e**of_e * max(delta, 0.0) ** of_delta
            for (of_p, of_e, of_delta), weight in zip(ZERO_TERMS, self.of.own_counts.zeros, strict=True)
        )
        level, noise = ((t - t.mean()) / t.std() for t in (np.log(self.base + 1e-6), np.log(self.deviation)))
        shares = self.of.own_counts.shares.double().numpy()
        columns = [
            np.clip(p, -8, 8),
            np.clip(0.3 * (x - self.mean) / self.deviation, -2.5, 2.5),
            0.3 * x,
            np.clip(0.3 * (self.base + self.deviation * p), -0.3, 2.7),
            np.full_like(x, max(delta, 0.0)),
            np.tile(level, (len(x), 1)),
            np.tile(noise, (len(x), 1)),
            np.tile(shares[self.depth] / (shares.std() + 1e-6), (len(x), 1)),
            0.3 * (x - np.log1p(1e4 / np.maximum(totals, 1))[:, None]),
            np.broadcast_to(e, x.shape),
        ]
        head = copy.deepcopy(self.of.head).double()
        seen = head(torch.from_numpy(np.stack(columns, 2).reshape(-1, len(columns)))).detach().numpy().reshape(x.shape)
        return np.where(x != 0, seen, at_zero)


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
