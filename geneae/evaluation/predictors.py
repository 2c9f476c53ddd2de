"""A model and its baselines as predictors, and the inner products of profiles with their predictions."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from geneae.losses.inner_products import InnerProducts, TargetProducts
from geneae.losses.sparse_rows import SparseRows, sparse_rows
from geneae.models.baselines import Frame
from geneae.models.decoders import Decoder
from geneae.models.model import Model
from geneae.models.network import Network

CHUNK = 1024  # profiles at a time
Products = dict[str, dict[str, InnerProducts]]
"""Inner products of each model, by centring."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """A network or a baseline as a predictor of profiles."""

    decoder: Decoder
    """The decoder, from hidden values to genes."""
    project: Callable[[SparseRows], TargetProducts]
    """Function that computes the products of profiles with the decoder."""
    predict: Callable[[SparseRows, TargetProducts], Tensor]
    """Function that computes (n_profiles, n) hidden values from inputs and their products."""
    basis: int
    """Identifier, equal for predictors whose products are the same."""


def predictors(model: Model, is_half: bool) -> dict[str, Predictor]:
    """The model and its baselines by name, for complete profiles or for halves of their molecules.

    Complete profiles are computed in float64, because terms of a squared error may cancel; halves, which only need a
    cosine, in float32, whose sparse products are six times as fast.
    """
    dtype = torch.float32 if is_half else torch.float64
    network: Network = copy.deepcopy(model.network).to(dtype)
    shift = model.shift(is_half)
    shift = None if shift is None else shift.to(dtype)
    frames = model.baselines.held_out(dtype) if is_half else model.baselines.own_input()
    found = {"model": _free(network, shift) if network.is_free else _in_basis(network, shift, frames)}
    return found | linear_predictors(frames)


def _free(network: Network, shift: Tensor | None) -> Predictor:
    decoder = network.decoder(shift)
    return Predictor(
        decoder,
        decoder.project,
        lambda rows, _: network.decode(network.encode(network.scores(rows, shift))),
        id(network),
    )


def _in_basis(network: Network, shift: Tensor | None, frames: dict[str, tuple[Frame, Tensor]]) -> Predictor:
    """The network as a predictor; it shares the products of a baseline in the same frame, if there is one."""
    own = Frame(network.components, network.mean if shift is None else network.mean + shift)
    at = next((other for other, _ in frames.values() if _is_same(own, other)), own)

    def predict(_: SparseRows, inputs: TargetProducts) -> Tensor:
        return network.decode(network.encode(at.predict(inputs, 1 / network.deviation)))

    return _at(at, predict)


def _is_same(one: Frame, other: Frame) -> bool:
    return torch.equal(one.components, other.components) and torch.equal(one.mean, other.mean)


def linear_predictors(frames: dict[str, tuple[Frame, Tensor]]) -> dict[str, Predictor]:
    """Baselines as predictors by name, from their frames and factors."""
    return {name: _linear(at, factors) for name, (at, factors) in frames.items()}


def _linear(at: Frame, factors: Tensor) -> Predictor:
    return _at(at, lambda _, inputs: at.predict(inputs, factors))


def _at(at: Frame, predict: Callable[[SparseRows, TargetProducts], Tensor]) -> Predictor:
    decoder = at.decoder()
    return Predictor(decoder, decoder.project, predict, id(at))


@torch.no_grad()
def products_of(
    models: dict[str, Predictor], blocks: list[sparse.csr_matrix], centers: tuple[str, ...]
) -> list[Products]:
    """Inner products of every target profile and its prediction, by model and centring, in the models' precision.

    Parameters
    ----------
    models
        Predictors by name.
    blocks
        One block of profiles that are their own targets; or two blocks, each with the targets of the other.
    centers
        Centrings of the inner products.

    Returns
    -------
    Inner products for each block that predictions are made from.
    """
    dtype = next(iter(models.values())).decoder.dtype
    parts: list[list[Products]] = [[] for _ in blocks]
    for start in range(0, blocks[0].shape[0], CHUNK):
        rows = [sparse_rows(block[start : start + CHUNK]).to("cpu", dtype) for block in blocks]
        projections: dict[int, list[TargetProducts]] = {}
        for by_chunk in parts:
            by_chunk.append({name: {} for name in models})
        for name, model in models.items():
            if model.basis not in projections:
                projections[model.basis] = [model.project(some) for some in rows]
            known = projections[model.basis]
            for by_chunk, given, source, target in zip(parts, rows, known, known[::-1], strict=True):
                hidden = model.predict(given, source)
                by_chunk[-1][name] = model.decoder.products(hidden, target, centers)
    return [join_chunks(by_chunk) for by_chunk in parts]


def join_chunks(by_chunk: list[Products]) -> Products:
    """Inner products of all profiles, joined from chunks."""
    return {
        name: {center: _join([chunk[name][center] for chunk in by_chunk]) for center in by_center}
        for name, by_center in by_chunk[0].items()
    }


def _join(parts: list[InnerProducts]) -> InnerProducts:
    cross, target, predicted = (torch.cat([getattr(p, f) for p in parts]) for f in ("cross", "target", "predicted"))
    return InnerProducts(cross, target, predicted, parts[0].n_genes)


def take_products(products: InnerProducts, rows: np.ndarray) -> InnerProducts:
    """Inner products of the profiles where the boolean mask `rows` is true."""
    index = torch.from_numpy(np.flatnonzero(rows))
    return InnerProducts(products.cross[index], products.target[index], products.predicted[index], products.n_genes)
