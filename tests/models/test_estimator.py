"""The estimator at a depth, with any of its steps, is the dense formula; and it is read back as it was."""

import itertools
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from dense_estimator import BETWEEN, DenseEstimator, interpolated, queries, random_estimator, small_fit, small_world
from reference import csr, dense_products
from torch import Tensor

from geneae.losses.sparse_rows import sparse_rows
from geneae.models import estimator as steps_of
from geneae.models.decoders import Corrected, EntryDecoder
from geneae.models.depths import DELTAS
from geneae.models.estimator import (
    STEPS,
    TENSORS,
    AtDepth,
    Estimator,
    estimator_facts,
    estimator_of,
    estimator_tensors,
)

N_GENES, N_PROFILES = 13, 9
SUBSETS = [some for size in range(len(STEPS) + 1) for some in itertools.combinations(STEPS, size)]
"""Steps that are kept; without own counts, entries count for nothing."""
POSSIBLE = [some for some in SUBSETS if "entries" not in some or "own_counts" in some]


@pytest.fixture(scope="module")
def whole() -> Estimator:
    return random_estimator(N_GENES)


@pytest.fixture(scope="module")
def profiles() -> tuple[np.ndarray, np.ndarray]:
    return queries(N_PROFILES, N_GENES)


def predict(at: AtDepth, z: np.ndarray, totals: np.ndarray, scores: Tensor | None = None) -> np.ndarray:
    """Dense predictions, as the package makes them."""
    matrix = csr(z)
    scores = at.drawn(at.scores(matrix, totals) if scores is None else scores)
    decoder = EntryDecoder(at.linear())
    found = Corrected(at.hidden(scores, totals), at.corrections(scores, matrix, totals))
    return decoder.expectation(found).numpy()


@pytest.mark.parametrize("delta", BETWEEN)
@pytest.mark.parametrize("kept", POSSIBLE, ids=lambda kept: "+".join(kept) or "scores")
def test_a_prediction_is_that_of_the_formula(
    whole: Estimator, profiles: tuple[np.ndarray, np.ndarray], kept: tuple[str, ...], delta: float
) -> None:
    estimator = whole.only(*kept)
    expected = DenseEstimator(estimator, delta).expectation(*profiles)
    np.testing.assert_allclose(predict(estimator.at(delta), *profiles), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("delta", BETWEEN)
def test_scores_are_those_of_the_formula(
    whole: Estimator, profiles: tuple[np.ndarray, np.ndarray], delta: float
) -> None:
    found = whole.at(delta).scores(csr(profiles[0]), profiles[1])
    np.testing.assert_allclose(found, DenseEstimator(whole, delta).scores(*profiles), rtol=1e-4, atol=1e-5)


def test_every_step_changes_predictions(whole: Estimator, profiles: tuple[np.ndarray, np.ndarray]) -> None:
    chain = [STEPS[:number] for number in range(len(STEPS) + 1)]
    found = [predict(whole.only(*kept).at(0.4), *profiles) for kept in chain]
    assert all(np.abs(one - other).max() > 0.01 for one, other in itertools.pairwise(found))


@pytest.mark.parametrize("output", [0.0, DELTAS[0], 0.9])
def test_products_are_those_of_dense_predictions(
    whole: Estimator, profiles: tuple[np.ndarray, np.ndarray], output: float
) -> None:
    z, totals = profiles
    at, matrix = whole.at(0.4, output), csr(z)
    y = DenseEstimator(whole, 0.4).expectation(z, totals)
    if output:
        target_mean, slope = (interpolated(table, output) for table in (whole.curves.means, whole.curves.slopes))
        y = target_mean + slope * (y - whole.whitening.mean.double().numpy())
    y = torch.from_numpy(y)
    x = torch.from_numpy(np.roll(z, 1, axis=0)).double()
    mean = at.output_mean
    decoder = EntryDecoder(at.linear(torch.float64))
    scores = at.drawn(at.scores(matrix, totals))
    hidden = Corrected(at.hidden(scores, totals).double(), at.corrections(scores, matrix, totals))
    found = decoder.products(hidden, decoder.project(sparse_rows(csr(x)).to("cpu", torch.float64)), ("gene", "profile"))
    for center, products in found.items():
        expected = dense_products(x, y, center, mean.double())
        for field in ("cross", "target", "predicted"):
            torch.testing.assert_close(getattr(products, field), getattr(expected, field), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("output", [DELTAS[0], 0.4, DELTAS[3], 4.0])
@pytest.mark.parametrize("delta", [DELTAS[0], 0.0, 0.9])
@pytest.mark.parametrize("kept", POSSIBLE, ids=lambda kept: "+".join(kept) or "scores")
def test_a_prediction_of_another_depth_is_that_of_a_half_moved_to_its_mean_and_slope(
    whole: Estimator, profiles: tuple[np.ndarray, np.ndarray], kept: tuple[str, ...], delta: float, output: float
) -> None:
    estimator = whole.only(*kept)
    of_half = DenseEstimator(estimator, delta).expectation(*profiles)
    mean, slope = (interpolated(table, output) for table in (whole.curves.means, whole.curves.slopes))
    expected = mean + slope * (of_half - whole.whitening.mean.double().numpy())
    np.testing.assert_allclose(predict(estimator.at(delta, output), *profiles), expected, rtol=1e-4, atol=4e-5)
    np.testing.assert_allclose(estimator.at(delta, output).output_mean, mean, rtol=1e-6)


def test_at_depth_zero_the_output_is_a_half_whatever_the_curves(whole: Estimator) -> None:
    at = whole.at(0.9)
    assert at.output == 0
    assert at.output_mean is whole.whitening.mean
    assert torch.equal(at.linear().center, whole.whitening.mean)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decoders_have_the_precision_asked_for(whole: Estimator, dtype: torch.dtype) -> None:
    at = whole.at(0.4, DELTAS[0])
    for decoder in (at.linear(dtype), at.own_linear(dtype)):
        assert decoder.weight.dtype == decoder.offset.dtype == decoder.center.dtype == dtype


@pytest.mark.parametrize("rows", [slice(2, 5), [7], [4, 4, 0]])
def test_profiles_do_not_change_each_other(
    whole: Estimator, profiles: tuple[np.ndarray, np.ndarray], rows: Any
) -> None:
    z, totals = profiles
    for delta in (DELTAS[0], 0.9):
        at = whole.at(delta)
        every = at.drawn(at.scores(csr(z), totals)), predict(at, z, totals)
        some = at.drawn(at.scores(csr(z[rows]), totals[rows])), predict(at, z[rows], totals[rows])
        np.testing.assert_allclose(some[0], every[0][rows], rtol=0, atol=1e-6)
        np.testing.assert_allclose(some[1], every[1][rows], rtol=0, atol=2e-6)


def test_entries_computed_in_parts_are_the_same(
    whole: Estimator, profiles: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = predict(whole.at(0.4), *profiles)
    monkeypatch.setattr(steps_of, "HEAD_ENTRIES", 7)
    np.testing.assert_allclose(predict(whole.at(0.4), *profiles), together, atol=1e-6)


def test_no_profiles_have_no_predictions(whole: Estimator) -> None:
    for kept in POSSIBLE:
        assert predict(whole.only(*kept).at(0.0), np.zeros((0, N_GENES)), np.zeros(0)).shape == (0, N_GENES)


def test_a_profile_without_molecules_has_a_finite_prediction(whole: Estimator) -> None:
    nothing, totals = np.zeros((2, N_GENES), np.float32), np.zeros(2)
    found = predict(whole.at(0.0), nothing, totals)
    np.testing.assert_allclose(found, DenseEstimator(whole, 0.0).expectation(nothing, totals), atol=2e-5)


def test_single_predictions_are_those_of_the_whole(whole: Estimator, profiles: tuple[np.ndarray, np.ndarray]) -> None:
    z, totals = profiles
    at, scores = whole.at(0.4), torch.randn(N_PROFILES, 3)
    dense, p = DenseEstimator(whole, 0.4), scores.double().numpy() @ whole.whitening.components.double().numpy().T
    p = p * whole.calibration.double().numpy()
    rows, genes = np.nonzero(z)
    places = torch.from_numpy(rows), torch.from_numpy(genes)
    values = torch.from_numpy(z[rows, genes])
    found = at.predictions(*places, scores)
    np.testing.assert_allclose(found, p[rows, genes], atol=1e-5)
    seen = at.seen_without_head(found, places[1], values)
    linear = replace(dense.of, kept=("calibration", "own_counts"))
    expected = DenseEstimator(linear, 0.4).expectation(z, totals, scores.double().numpy())
    np.testing.assert_allclose(seen, expected[rows, genes], rtol=1e-4, atol=1e-5)
    features = at.features(found, *places, values, totals)
    np.testing.assert_allclose(features, dense.features(z, p, totals)[rows, genes], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("delta", [DELTAS[0], 0.4])
def test_the_control_of_own_counts_is_the_mean_profile_and_a_share_of_the_own_difference(
    whole: Estimator, profiles: tuple[np.ndarray, np.ndarray], delta: float
) -> None:
    z, at = profiles[0], whole.at(delta)
    decoder = EntryDecoder(at.own_linear(torch.float32))

    def control(values: np.ndarray) -> np.ndarray:
        hidden = Corrected(torch.zeros(len(values), 1), at.own_corrections(csr(values)))
        return decoder.expectation(hidden).numpy()

    dense = DenseEstimator(whole, delta)
    share = np.array([np.interp(delta, DELTAS, column) for column in whole.own_counts.alone.double().numpy().T])
    np.testing.assert_allclose(control(z), dense.mean + share * (z - dense.input_mean), atol=1e-5)
    deep = whole.at(delta, DELTAS[2])
    hidden = Corrected(torch.zeros(len(z), 1), deep.own_corrections(csr(z)))
    mean, slope = (interpolated(table, DELTAS[2]) for table in (whole.curves.means, whole.curves.slopes))
    expected = mean + slope * share * (z - dense.input_mean)
    np.testing.assert_allclose(EntryDecoder(deep.own_linear(torch.float32)).expectation(hidden), expected, atol=2e-5)
    # other genes of the profile say nothing about a gene
    other = z.copy()
    other[:, 1:] = np.random.default_rng(0).permuted(z[:, 1:], axis=1)
    np.testing.assert_array_equal(control(other)[:, 0], control(z)[:, 0])
    assert np.abs(predict(at, other, profiles[1])[:, 0] - predict(at, z, profiles[1])[:, 0]).max() > 1e-3


def test_the_latent_is_half_way_between_plain_scores_and_scores_of_equal_spread(whole: Estimator) -> None:
    spread = whole.neighbours.reference.double().numpy() ** 2
    expected = (spread.mean(0) * whole.posterior.factors[1].double().numpy()) ** 0.25
    np.testing.assert_allclose(whole.latent_unit, expected, rtol=1e-5)


def test_no_component_is_blown_up_in_the_latent(whole: Estimator) -> None:
    factors = whole.posterior.factors.clone()
    factors[1, 1] = 0
    found = replace(whole, posterior=replace(whole.posterior, factors=factors)).latent_unit
    assert float(found[1]) == pytest.approx(float(found.max()) / 20)


def test_steps_stand_in_their_order(whole: Estimator) -> None:
    assert whole.kept == STEPS
    assert whole.only("entries", "neighbours").kept == ("neighbours", "entries")
    assert whole.only().kept == ()


@pytest.mark.parametrize("make", [random_estimator, lambda: small_fit().estimator], ids=["random", "fitted"])
@pytest.mark.parametrize("kept", POSSIBLE, ids=lambda kept: "+".join(kept) or "scores")
def test_an_estimator_is_read_back_as_it_was(make: Any, kept: tuple[str, ...]) -> None:
    estimator = make().only(*kept)
    n_genes = len(estimator.whitening.mean)
    tensors, facts = estimator_tensors(estimator), json.loads(json.dumps(estimator_facts(estimator)))
    assert "mean" not in tensors
    found = estimator_of(tensors | {"mean": estimator.whitening.mean}, facts)
    assert found.kept == estimator.kept
    z, totals = queries(6, n_genes)
    np.testing.assert_array_equal(predict(found.at(0.4), z, totals), predict(estimator.at(0.4), z, totals))
    again = estimator_tensors(found)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in tensors.items())
    assert estimator_facts(found) == facts


def test_reading_leaves_random_numbers_alone(whole: Estimator) -> None:
    tensors = estimator_tensors(whole) | {"mean": whole.whitening.mean}
    before = torch.get_rng_state()
    estimator_of(tensors, estimator_facts(whole))
    assert torch.equal(torch.get_rng_state(), before)


OTHERS = ("mean", "score_deviation", "calibration", "by_score", "mean_score")


@pytest.mark.parametrize("name", sorted({*TENSORS, *OTHERS} - {"components"}))
def test_a_tensor_of_another_shape_is_refused_by_name(whole: Estimator, name: str) -> None:
    tensors = estimator_tensors(whole) | {"mean": whole.whitening.mean}
    tensors[name] = torch.ones(2, 2, 2)
    with pytest.raises(ValueError, match=rf"tensor estimator\.{name} must have shape \(.*\); found \(2, 2, 2\)"):
        estimator_of(tensors, estimator_facts(whole))


@pytest.mark.parametrize("slope", [-0.1, 2.1])
def test_a_slope_that_no_fit_gives_is_refused(whole: Estimator, slope: float) -> None:
    tensors = estimator_tensors(whole) | {"mean": whole.whitening.mean}
    tensors["calibration"] = torch.ones(len(whole.calibration)).index_fill(0, torch.tensor([1]), slope)
    with pytest.raises(ValueError, match=r"calibration slopes must be between 0 and 2"):
        estimator_of(tensors, estimator_facts(whole))


@pytest.mark.parametrize("kept", ["neighbours calibration", ["neighbors"], None])
def test_steps_that_there_are_not_are_refused(whole: Estimator, kept: Any) -> None:
    tensors = estimator_tensors(whole) | {"mean": whole.whitening.mean}
    with pytest.raises(ValueError, match=r"steps must be a list of some of neighbours, calibration, own_counts, ent"):
        estimator_of(tensors, estimator_facts(whole) | {"kept": kept})


def test_a_model_of_before_the_calibration_predicts_as_it_did(whole: Estimator) -> None:
    earlier = whole.only("neighbours", "own_counts", "entries")
    tensors = estimator_tensors(earlier) | {"mean": whole.whitening.mean}
    del tensors["calibration"]
    found = estimator_of(tensors, estimator_facts(earlier))
    z, totals = queries(6, len(whole.whitening.mean))
    np.testing.assert_array_equal(predict(found.at(0.4), z, totals), predict(earlier.at(0.4), z, totals))


@pytest.mark.parametrize("name", ["deviation", "noises"])
def test_noise_that_is_not_above_zero_is_refused(whole: Estimator, name: str) -> None:
    tensors = estimator_tensors(whole) | {"mean": whole.whitening.mean}
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[1] = 0
    with pytest.raises(ValueError, match=r"noise deviations of genes must be above 0"):
        estimator_of(tensors, estimator_facts(whole))


def test_scores_without_spread_are_refused(whole: Estimator) -> None:
    tensors = estimator_tensors(whole) | {
        "mean": whole.whitening.mean,
        "score_deviation": torch.tensor([1.0, 0.0, 1.0]),
    }
    with pytest.raises(ValueError, match=r"deviations of scores must be above 0"):
        estimator_of(tensors, estimator_facts(whole))


@pytest.mark.parametrize(("mean", "deviation"), [(math.nan, 1.0), (3.0, 0.0), (3.0, math.inf), (3.0, -1.0)])
def test_a_scale_of_depths_that_is_none_is_refused(whole: Estimator, mean: float, deviation: float) -> None:
    facts = estimator_facts(whole)
    facts["log_molecules"] |= {"mean": mean, "deviation": deviation}
    with pytest.raises(
        ValueError, match=r"log_molecules must be finite, with a deviation above 0; found \{'mean': .*\}"
    ):
        estimator_of(estimator_tensors(whole) | {"mean": whole.whitening.mean}, facts)


def test_a_model_without_neighbours_is_refused(whole: Estimator) -> None:
    tensors = estimator_tensors(whole) | {"mean": whole.whitening.mean}
    with pytest.raises(ValueError, match=r"there must be neighbours; found 0 among 40 profiles"):
        estimator_of(tensors, estimator_facts(whole) | {"n_neighbours": 0})
    with pytest.raises(ValueError, match=r"there must be neighbours; found 5 among 0 profiles"):
        estimator_of(tensors | {"reference": torch.zeros(0, 3)}, estimator_facts(whole) | {"n_reference": 0})
    with pytest.raises(ValueError, match=r"tensor estimator\.reference must have shape \(40, 3\); found \(0, 3\)"):
        estimator_of(tensors | {"reference": torch.zeros(0, 3)}, estimator_facts(whole))


def test_a_head_of_another_size_is_refused(whole: Estimator) -> None:
    tensors = estimator_tensors(whole) | {"mean": whole.whitening.mean}
    tensors["head.layers.0.weight"] = torch.ones(32, 3)
    with pytest.raises(RuntimeError, match=r"size mismatch for layers\.0\.weight"):
        estimator_of(tensors, estimator_facts(whole))


@pytest.mark.parametrize("missing", ["kept", "n_neighbours", "log_molecules"])
def test_facts_must_be_complete(whole: Estimator, missing: str) -> None:
    facts = {name: fact for name, fact in estimator_facts(whole).items() if name != missing}
    with pytest.raises(KeyError, match=missing):
        estimator_of(estimator_tensors(whole) | {"mean": whole.whitening.mean}, facts)


def test_a_fit_predicts_the_other_half_better_than_its_mean() -> None:
    estimator, world = small_fit().estimator, small_world()
    first, second = world.halves.first.toarray(), world.halves.second.toarray()
    found = predict(estimator.at(0.0), first, world.counts[0].totals)

    def error(predicted: np.ndarray) -> float:
        return float(((predicted - second) ** 2).mean())

    assert error(found) < 0.8 * error(np.tile(estimator.whitening.mean.numpy(), (len(first), 1)))
    assert math.isfinite(error(found))


def test_what_scores_do_not_explain_of_the_molecules_is_less_than_their_deviation(whole: Estimator) -> None:
    positions = whole.neighbours.reference.double() * whole.posterior.factors[0].double()
    logs = (positions - whole.molecules.mean_score.double()) @ whole.molecules.weight.double() + whole.molecules.mean
    explained = logs.numpy().clip(*whole.molecules.limits).var()
    expected = max(whole.scale.deviation**2 - explained, 0.1 * whole.scale.deviation**2) ** 0.5
    assert whole.unexplained_depth == pytest.approx(expected, rel=1e-5)
    assert 0 < whole.unexplained_depth <= whole.scale.deviation
