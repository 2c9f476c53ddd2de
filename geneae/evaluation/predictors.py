"""A model and its baselines as predictors, and the inner products of profiles with their predictions."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from geneae.losses.inner_products import InnerProducts, TargetProducts
from geneae.losses.sparse_rows import SparseRows, sparse_rows
from geneae.models.baselines import Frame
from geneae.models.decoders import Corrected, Decoder, EntryDecoder, Targets
from geneae.models.depths import COMPLETE
from geneae.models.estimator import FROM_LATENT, AtDepth, Estimator
from geneae.models.model import Model
from geneae.models.network import Network

CHUNK = 1024  # profiles at a time
Products = dict[str, dict[str, InnerProducts]]
"""Inner products of each model, by centring."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some profiles as inputs of predictors."""

    rows: SparseRows
    """Normalised profiles, in the precision of the predictors."""
    matrix: sparse.csr_matrix
    """The same profiles as they were given."""
    totals: np.ndarray
    """(n_profiles,) molecules; empty where they are not known."""
    read: sparse.csr_matrix | None = None
    """The same profiles as an estimator reads them, where that differs: those deeper than training profiles as they are
    expected with as many molecules, see `Model.share_read`."""
    known: dict[int, Any] = field(default_factory=dict)
    """What predictors have computed from these profiles and share with each other, by identifier."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """A network or a baseline as a predictor of profiles."""

    decoder: Decoder
    """The decoder, from hidden values to genes."""
    project: Callable[[SparseRows], Any]
    """Function that computes the products of profiles with the decoder."""
    predict: Callable[[Chunk, Any], Any]
    """Function that computes hidden values from inputs and their products."""
    basis: int
    """Identifier, equal for predictors whose products are the same."""


def predictors(model: Model, is_half: bool, output: float | None = None) -> dict[str, Predictor]:
    """The model and its baselines by name, for complete profiles or for halves of their molecules.

    Complete profiles are computed in float64, because terms of a squared error may cancel; halves, which only need a
    cosine, in float32, whose sparse products are six times as fast.

    Parameters
    ----------
    model
        Fitted model; `delta` is the depth of the profiles.
    is_half
        Whether inputs are halves.
    output
        Depth of the profiles that an estimator predicts, see `geneae.models.depths`; None: that of the inputs.
    """
    dtype = torch.float32 if is_half else torch.float64
    network: Network = copy.deepcopy(model.network).to(dtype)
    shift = model.shift(is_half)
    shift = None if shift is None else shift.to(dtype)
    if model.estimator is not None:
        depth = model.delta if is_half else model.delta + COMPLETE
        at = model.estimator.at(depth, depth if output is None else output)
        frames = model.baselines.held_out(dtype) if is_half else model.baselines.own_input()
        found = estimated_predictors(model, at, is_half, dtype)
        return found | linear_predictors(_moved(frames, at) if model.delta else frames)
    frames = model.baselines.held_out(dtype) if is_half else model.baselines.own_input()
    found = {"model": _free(network, shift) if network.is_free else _in_basis(network, shift, frames)}
    return found | linear_predictors(frames)


LATENT_ONLY, WHITENED, OWN_COUNT = "model_latent_only", "whitened", "own_count"
"""Names of what is predicted from the latent alone, of the linear start, and of own counts around the mean profile."""
WITH_NETWORK, WITH_NEIGHBOURS, WITH_OWN_COUNTS = "step_network", "step_neighbours", "step_own_counts"
"""Names of the steps up to the network, up to neighbours, and up to own counts."""


def estimated_predictors(model: Model, at: AtDepth, is_half: bool, dtype: torch.dtype) -> dict[str, Predictor]:
    """A model with an estimator, what its latent alone predicts, and the controls; for halves also its single steps."""
    estimator, network = at.estimator, model.network
    chains = {"model": (estimator.kept, True), LATENT_ONLY: (FROM_LATENT, True), WHITENED: ((), False)}
    if is_half:
        chains |= {WITH_NETWORK: ((), True), WITH_NEIGHBOURS: (("neighbours",), True)}
        chains |= {WITH_OWN_COUNTS: ((*FROM_LATENT, "own_counts"), True)}
    decoders: dict[tuple[str, ...], EntryDecoder] = {}
    found = {}
    for name, (wanted, has_network) in chains.items():
        here = replace(at, estimator=estimator.within(*wanted))
        kind = tuple(name for name in here.estimator.kept if name != "neighbours")
        decoder = decoders.setdefault(kind, EntryDecoder(here.linear(dtype)))
        found[name] = _step(here, decoder, network if has_network else None)
    return found | {OWN_COUNT: _own_count(at, EntryDecoder(at.own_linear(dtype)))}


def _moved(frames: dict[str, tuple[Frame, Tensor]], at: AtDepth) -> dict[str, tuple[Frame, Tensor]]:
    """Baselines, centred at the mean of the profiles that an estimator predicts."""
    moved = {id(one): replace(one, mean=at.output_mean.to(one.mean.dtype)) for one, _ in frames.values()}
    return {name: (moved[id(one)], factors) for name, (one, factors) in frames.items()}


def _step(at: AtDepth, decoder: EntryDecoder, network: Network | None) -> Predictor:
    def predict(chunk: Chunk, _: Targets) -> Corrected:
        key = id(at.estimator.posterior)
        if key not in chunk.known:
            chunk.known[key] = _scores(at, chunk)
        scores = chunk.known[key]
        if network is not None:
            if id(network) not in chunk.known:
                chunk.known[id(network)] = network.decode(network.encode(scores / network.deviation))
            scores = chunk.known[id(network)]
        scores = at.drawn(scores)
        corrections = at.corrections(scores, chunk.matrix, chunk.totals)
        return Corrected(at.hidden(scores, chunk.totals).to(decoder.dtype), corrections)

    return Predictor(decoder, decoder.project, predict, id(decoder))


def _scores(at: AtDepth, chunk: Chunk) -> Tensor:
    if chunk.read is None:
        return at.scores(chunk.matrix, chunk.totals)
    return replace(at, delta=COMPLETE).scores(chunk.read, math.exp(at.delta - COMPLETE) * chunk.totals)


def step_predictor(estimator: Estimator, network: Network | None) -> Predictor:
    """An estimator with the steps that it keeps, for halves at the depth of training."""
    at = estimator.at(0.0)
    return _step(at, EntryDecoder(at.linear()), network)


def _own_count(at: AtDepth, decoder: EntryDecoder) -> Predictor:
    def predict(chunk: Chunk, _: Targets) -> Corrected:
        hidden = torch.zeros(chunk.matrix.shape[0], 1, dtype=decoder.dtype)
        return Corrected(hidden, at.own_corrections(chunk.matrix))

    return Predictor(decoder, decoder.project, predict, id(decoder))


def _free(network: Network, shift: Tensor | None) -> Predictor:
    decoder = network.decoder(shift)
    return Predictor(
        decoder,
        decoder.project,
        lambda chunk, _: network.decode(network.encode(network.scores(chunk.rows, shift))),
        id(network),
    )


def _in_basis(network: Network, shift: Tensor | None, frames: dict[str, tuple[Frame, Tensor]]) -> Predictor:
    """The network as a predictor; it shares the products of a baseline in the same frame, if there is one."""
    own = Frame(network.components, network.mean if shift is None else network.mean + shift)
    at = next((other for other, _ in frames.values() if _is_same(own, other)), own)

    def predict(_: Chunk, inputs: TargetProducts) -> Tensor:
        return network.decode(network.encode(at.predict(inputs, 1 / network.deviation)))

    return _at(at, predict)


def _is_same(one: Frame, other: Frame) -> bool:
    return torch.equal(one.components, other.components) and torch.equal(one.mean, other.mean)


def linear_predictors(frames: dict[str, tuple[Frame, Tensor]]) -> dict[str, Predictor]:
    """Baselines as predictors by name, from their frames and factors."""
    return {name: _linear(at, factors) for name, (at, factors) in frames.items()}


def _linear(at: Frame, factors: Tensor) -> Predictor:
    return _at(at, lambda _, inputs: at.predict(inputs, factors))


def _at(at: Frame, predict: Callable[[Chunk, TargetProducts], Tensor]) -> Predictor:
    decoder = at.decoder()
    return Predictor(decoder, decoder.project, predict, id(at))


@torch.no_grad()
def products_of(
    models: dict[str, Predictor],
    blocks: list[sparse.csr_matrix],
    centers: tuple[str, ...],
    totals: list[np.ndarray] | None = None,
    is_one_way: bool = False,
    read: list[sparse.csr_matrix] | None = None,
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
    totals
        (n_profiles,) molecules of the profiles of each block, which only an estimator needs.
    is_one_way
        Whether only the first of two blocks is predicted from, so that the second one is a target alone.
    read
        The profiles of each block that is predicted from as an estimator reads them, see `Chunk`; None: as they are.

    Returns
    -------
    Inner products for each block that predictions are made from.
    """
    dtype = next(iter(models.values())).decoder.dtype
    parts: list[list[Products]] = [[] for _ in (blocks[:1] if is_one_way else blocks)]
    for start in range(0, blocks[0].shape[0], CHUNK):
        some = slice(start, start + CHUNK)
        of_blocks = [np.empty(0)] * len(blocks) if totals is None else totals
        matrices = [block[some] for block in blocks]
        rows = [sparse_rows(matrix).to("cpu", dtype) for matrix in matrices]
        given = [Chunk(*one) for one in zip(rows, matrices, [of[some] for of in of_blocks], strict=True)]
        if read is not None:
            given = [replace(chunk, read=block[some]) for chunk, block in zip(given, read, strict=False)]
        projections: dict[int, list[Any]] = {}
        for by_chunk in parts:
            by_chunk.append({name: {} for name in models})
        for name, model in models.items():
            if model.basis not in projections:
                projections[model.basis] = [model.project(one) for one in rows]
            known = projections[model.basis]
            for by_chunk, chunk, source, target in zip(parts, given, known, known[::-1], strict=not is_one_way):
                hidden = model.predict(chunk, source)
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
    """Inner products of the profiles at the positions `rows`."""
    index = torch.from_numpy(rows)
    return InnerProducts(products.cross[index], products.target[index], products.predicted[index], products.n_genes)
