"""A model with an estimator as predictors: its chain of steps, its latent alone, and what controls see."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from dense_estimator import DenseEstimator, World, interpolated, small_fit, small_world, world_of
from reference import counts_matrix, csr, dense_products
from torch import nn

from geneae.evaluation.halves import EVALUATION_STREAM, half_against_half
from geneae.evaluation.predictors import (
    LATENT_ONLY,
    OWN_COUNT,
    WHITENED,
    Chunk,
    Predictor,
    predictors,
    products_of,
    step_predictor,
)
from geneae.evaluation.reconstruction import evaluate
from geneae.evaluation.records import HELD_OUT
from geneae.losses.metrics import METRICS, measure
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.baselines import Baselines
from geneae.models.cores import SkipCore
from geneae.models.depths import COMPLETE
from geneae.models.model import Model
from geneae.models.network import whitened_network
from geneae.models.pca import fit_basis

N = 30
STEPS = {
    "model": ("neighbours", "calibration", "own_counts", "entries"),
    "step_own_counts": ("neighbours", "calibration", "own_counts"),
    LATENT_ONLY: ("neighbours", "calibration"),
    "step_neighbours": ("neighbours",),
    "step_network": (),
    WHITENED: (),
}
"""Steps of each predictor for halves; all but the last one use the network."""


@pytest.fixture(scope="module")
def queries() -> World:
    return world_of(counts_matrix(N, 24, 5, 200.0))


@pytest.fixture(scope="module")
def model() -> Model:
    """The network is the identity."""
    world, estimator = small_world(), small_fit().estimator
    halves = world.halves
    whole, half = fit_basis([world.preprocess.apply(world.whole)], 4, 0), fit_basis([halves.first, halves.second], 4, 0)
    network = whitened_network(estimator, 4, 6, 0.0, is_frozen=True)
    assert isinstance(network.core, SkipCore)
    network.core.silence_mlps()
    config = {"center": "none", "seed": 0, "split_seed": 0, "settings": {"n_latent": 4, "objective": "reconstruction"}}
    return Model(network.eval(), world.preprocess, Baselines(whole, half, torch.ones(4), 4), {}, config, estimator)


def dense(model: Model, kept: tuple[str, ...], z: np.ndarray, totals: np.ndarray, delta: float) -> np.ndarray:
    assert model.estimator is not None
    return DenseEstimator(model.estimator.only(*kept), delta).expectation(z, totals)


def predicted(model: Predictor, z: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Dense predictions of a predictor."""
    matrix = csr(z)
    rows = sparse_rows(matrix).to("cpu", model.decoder.dtype)
    with torch.no_grad():
        hidden = model.predict(Chunk(rows, matrix, totals), model.project(rows))
        return np.asarray(model.decoder.expectation(hidden))


def test_halves_are_predicted_by_every_step_of_the_chain(model: Model, queries: World) -> None:
    known = predictors(model, is_half=True)
    assert {*STEPS, OWN_COUNT, "mean_profile", "shrunken_pca"} <= set(known)
    z, totals = queries.dense[0], queries.counts[0].totals
    for name, kept in STEPS.items():
        np.testing.assert_allclose(
            predicted(known[name], z, totals), dense(model, kept, z, totals, 0.0), rtol=1e-4, atol=1e-4
        )


def test_all_but_the_linear_start_use_the_network(model: Model, queries: World) -> None:
    before = {
        name: predicted(one, queries.dense[0], queries.counts[0].totals)
        for name, one in predictors(model, True).items()
    }
    bent = whitened_network(small_fit().estimator, 4, 6, 0.0, is_frozen=False).eval()
    nn.init.normal_(bent.core.decoder_linear.weight, generator=torch.Generator().manual_seed(0))
    other = Model(bent, model.preprocess, model.baselines, {}, model.config, model.estimator)
    after = {
        name: predicted(one, queries.dense[0], queries.counts[0].totals)
        for name, one in predictors(other, True).items()
    }
    changed = {name for name in before if np.abs(before[name] - after[name]).max() > 1e-3}
    assert changed == set(STEPS) - {WHITENED}


def test_the_control_of_own_counts_sees_nothing_of_the_components(model: Model, queries: World) -> None:
    z, totals = queries.dense[0], queries.counts[0].totals
    other = z.copy()
    other[:, 1:] = np.random.default_rng(0).permuted(z[:, 1:], axis=1)
    for is_half in (True, False):
        known = predictors(model, is_half)
        control, whole = known[OWN_COUNT], known["model"]
        np.testing.assert_array_equal(predicted(control, other, totals)[:, 0], predicted(control, z, totals)[:, 0])
        assert np.abs(predicted(whole, other, totals)[:, 0] - predicted(whole, z, totals)[:, 0]).max() > 1e-3


@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_complete_profiles_are_read_and_predicted_at_their_depth(model: Model, queries: World, ratio: float) -> None:
    """Evaluation predicts them at their own depth; reconstructions are as deep as training profiles."""
    at = model.at(ratio)
    z, totals = queries.preprocess.apply(queries.whole).toarray().astype(float), queries.whole.totals
    assert model.estimator is not None
    basis, curves = model.estimator.whitening, model.estimator.curves
    np.testing.assert_allclose(interpolated(curves.means, COMPLETE), model.baselines.whole.mean, rtol=1e-5)

    def expected(name: str, output: float) -> np.ndarray:
        of_half = dense(model, STEPS[name], z, totals, math.log(ratio) + COMPLETE) - basis.mean.double().numpy()
        return interpolated(curves.means, output) + interpolated(curves.slopes, output) * of_half

    known, own = predictors(at, is_half=False), math.log(ratio) + COMPLETE
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    for name in ("model", LATENT_ONLY, WHITENED):
        np.testing.assert_allclose(predicted(known[name], z, totals), expected(name, own), **tolerance)
    mean_profile = np.tile(interpolated(curves.means, own), (N, 1))
    np.testing.assert_allclose(predicted(known["mean_profile"], z, totals), mean_profile, **tolerance)
    np.testing.assert_allclose(at.reconstructed(queries.whole), expected("model", COMPLETE), **tolerance)
    from_latent = at.reconstruction(at.latent(queries.whole))
    np.testing.assert_allclose(from_latent, expected(LATENT_ONLY, COMPLETE), **tolerance)
    at = replace(at, own_depth=True)  # unless they are asked for as they are judged
    np.testing.assert_allclose(at.reconstructed(queries.whole), expected("model", own), **tolerance)
    from_latent = at.reconstruction(at.latent(queries.whole))
    np.testing.assert_allclose(from_latent, expected(LATENT_ONLY, own), **tolerance)


@pytest.mark.parametrize("ratio", [0.4, 0.1])
def test_profiles_deeper_than_training_are_judged_as_they_are_reconstructed(
    model: Model, queries: World, ratio: float
) -> None:
    """As they are expected with as many molecules as training profiles, whether complete or as halves."""
    at, names = model.at(ratio), pd.Index([f"p{number}" for number in range(N)])
    split = pd.Series("validation", index=names)
    found = evaluate(model, queries.whole, names, split, fit_scales=True, ratios=np.full(N, ratio)).profiles
    whole = queries.preprocess.apply(queries.whole).toarray()
    own = found.set_index("model")["cosine"]
    from_latent = at.reconstruction(at.latent(queries.whole))
    for name, predicted_ in (("model", at.reconstructed(queries.whole)), (LATENT_ONLY, from_latent)):
        np.testing.assert_allclose(own[name], cosines(predicted_, whole), atol=1e-5)
    first, second = (queries.preprocess.apply(half).toarray() for half in queries.counts)
    of_half = model.at(2 * ratio)  # a half of a deep profile is a profile with half its depth
    share = at.share_read(is_half=True)
    assert share == pytest.approx(min(1.0, 2 * ratio))
    assert at.share_read(is_half=False) == pytest.approx(ratio)
    models, read = predictors(at, is_half=True), [queries.preprocess.apply(half, share) for half in queries.counts]
    totals = [half.totals for half in queries.counts]
    products = products_of(models, [csr(first), csr(second)], ("none",), totals, read=read)
    for by_model, given, target in zip(products, queries.counts, (second, first), strict=True):
        held_out = measure(METRICS["cosine"], by_model["model"]["none"])
        np.testing.assert_allclose(held_out, cosines(of_half.reconstructed(given), target), atol=1e-5)
    rngs = [np.random.default_rng((0, EVALUATION_STREAM, 0)) for _ in range(2)]
    read_so, plain = (
        half_against_half(models, queries.preprocess, queries.whole, rng, share=one)[0]["model"]
        for rng, one in zip(rngs, (share, 1.0), strict=True)
    )
    np.testing.assert_allclose(found.set_index("model").loc["model", HELD_OUT], read_so, rtol=1e-6)
    assert np.abs(read_so - plain).max() > 1e-3


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n_profiles,) cosine of rows."""
    return np.asarray((first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1))


def test_each_half_is_compared_with_the_other_one(model: Model, queries: World) -> None:
    halves, totals = queries.halves, [half.totals for half in queries.counts]
    found = products_of(predictors(model, True), [halves.first, halves.second], ("none", "gene"), totals)
    mean = model.network.mean.double()
    for products, x, y, of in zip(found, queries.dense, queries.dense[::-1], totals, strict=True):
        prediction = torch.from_numpy(dense(model, STEPS["model"], x, of, 0.0))
        for center in ("none", "gene"):
            expected = dense_products(torch.from_numpy(y), prediction, center, mean)
            for field in ("cross", "target", "predicted"):
                values = getattr(products["model"][center], field).double(), getattr(expected, field)
                torch.testing.assert_close(*values, rtol=1e-3, atol=2e-2)


def test_steps_are_tried_on_halves_with_and_without_the_network(model: Model, queries: World) -> None:
    assert model.estimator is not None
    z, totals = queries.dense[0], queries.counts[0].totals
    for network in (None, model.network):
        some = step_predictor(model.estimator.only("own_counts"), network)
        expected = dense(model, ("own_counts",), z, totals, 0.0)
        np.testing.assert_allclose(predicted(some, z, totals), expected, rtol=1e-4, atol=1e-4)


def test_an_evaluation_reads_every_profile_at_its_depth(model: Model, queries: World) -> None:
    names, split = pd.Index([f"p{number}" for number in range(N)]), pd.Series(["test"] * N)
    ratios = np.where(np.arange(N) % 3 == 0, 4.0, 1.0)

    def own_input(model: Model, ratios: np.ndarray | None) -> pd.Series:
        found = evaluate(model, queries.whole, names, split, fit_scales=True, ratios=ratios).profiles
        table = found[found["model"] == "model"].set_index("profile")
        assert table.index.tolist() == names.tolist()
        assert table[HELD_OUT].notna().any()
        return table["cosine"]

    mixed, same, shallow = own_input(model, ratios), own_input(model, None), own_input(model.at(4.0), None)
    np.testing.assert_allclose(mixed, np.where(ratios == 4, shallow, same), rtol=1e-9)
    assert np.abs(shallow - same).max() > 1e-3
    np.testing.assert_allclose(own_input(model, np.ones(N)), same, rtol=1e-9)
