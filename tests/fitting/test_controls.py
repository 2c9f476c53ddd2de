"""Controls of other programs: linear predictions of the given half, whose numbers are those of plain NumPy."""

import numpy as np
import pytest
from worlds import World, make_world

from geneae.data.halves import as_expression
from geneae.data.preprocess import fit_preprocess
from geneae.evaluation.programs import JudgedHalves
from geneae.fitting.controls import Control, fit_control


@pytest.fixture(scope="module")
def world() -> World:
    """Halves of counts with known rates."""
    return make_world()


def fitted(world: World) -> tuple[Control, JudgedHalves]:
    """Controls of four components, and the judged profiles."""
    halves, whole = world.halves, world.halves.whole()
    train = np.flatnonzero(halves.split == "train")
    control = fit_control(halves, whole, fit_preprocess(whole, train), 4)
    rows = np.flatnonzero(halves.split == "test")
    given, held_out = (as_expression(half, halves.given.genes, rows) for half in (halves.given, halves.held_out))
    split = np.full(len(rows), "test")
    mean, fraction = control.mean_of_held_out, halves.settings.fraction
    return control, JudgedHalves(
        given, held_out, halves.given.names[rows], split, halves.given.genes, mean, fraction, 0
    )


def test_linear_controls_are_projections_around_the_mean(world: World) -> None:
    control, judged = fitted(world)
    rows = world.halves.given.names.get_indexer(judged.names)
    train = (world.halves.split == "train").to_numpy()
    mean = (world.given[train].mean(0) + world.held_out[train].mean(0)) / 2
    half, factors = control.bases.baselines.half, control.bases.baselines.factors
    assert half is not None
    assert factors is not None
    components = half.components[:, :4].double().numpy()
    scores = (world.given[rows] - mean) @ components
    some = slice(5, 20)
    found = {name: predict(some) for name, predict in control.predictions(judged).items()}
    np.testing.assert_allclose(found["mean_profile"], np.tile(mean, (15, 1)), atol=1e-5)
    np.testing.assert_allclose(found["pca"], scores[some] @ components.T + mean, atol=1e-4)
    shrunken = (scores * factors[:4].double().numpy())[some] @ components.T + mean
    np.testing.assert_allclose(found["shrunken_pca"], shrunken, atol=1e-4)
    assert {"pca_4", "pca_8", "whitened"} <= set(found)
    latents = control.representations(judged.given)
    np.testing.assert_allclose(latents["shrunken_pca"], latents["pca"] * factors[:4].float().numpy(), rtol=1e-6)
    assert latents["whitened"].shape == (len(rows), 4)


def test_the_whitened_control_is_nearer_to_the_truth_than_pca(world: World) -> None:
    control, judged = fitted(world)
    truth = world.expected[world.halves.given.names.get_indexer(judged.names)]
    every = slice(0, len(truth))
    errors = {name: ((of(every) - truth) ** 2).mean() for name, of in control.predictions(judged).items()}
    assert errors["whitened"] < errors["pca"] < errors["mean_profile"]
    assert errors["shrunken_pca"] < errors["pca"]


def test_at_another_fraction_both_depths_have_their_own_mean() -> None:
    world = make_world(fraction=0.8)
    control, judged = fitted(world)
    train = (world.halves.split == "train").to_numpy()
    np.testing.assert_allclose(control.mean_of_given, world.given[train].mean(0), atol=1e-5)
    np.testing.assert_allclose(control.mean_of_held_out, world.held_out[train].mean(0), atol=1e-5)
    target = world.held_out[world.halves.given.names.get_indexer(judged.names)]
    every = slice(0, len(target))
    errors = {name: ((of(every) - target) ** 2).mean() for name, of in control.predictions(judged).items()}
    assert max(errors["whitened"], errors["shrunken_pca"]) < errors["mean_profile"]
