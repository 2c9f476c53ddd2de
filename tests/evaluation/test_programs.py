"""Other programs on held-out halves: on counts with known rates every metric orders methods by the truth."""

import numpy as np
import pandas as pd
import pytest
from worlds import World, make_world

from geneae.data.halves import as_expression
from geneae.evaluation.programs import (
    BY_GENE_OF_HALF,
    CENTRED,
    MSE_OF_HALF,
    JudgedHalves,
    OfHalf,
    gene_correlation,
    long_table,
    of_halves,
    score,
)
from geneae.evaluation.records import HELD_OUT, value
from geneae.models.ceiling import half_ceiling

METRICS = (HELD_OUT, "skill", "disattenuated_cosine", CENTRED, MSE_OF_HALF, BY_GENE_OF_HALF)


@pytest.fixture(scope="module")
def world() -> World:
    """Halves of counts with known rates."""
    return make_world()


@pytest.fixture(scope="module")
def rows(world: World) -> np.ndarray:
    """Positions of the judged profiles."""
    return np.flatnonzero(world.halves.split.isin(["validation", "test"]))


@pytest.fixture(scope="module")
def judged(world: World, rows: np.ndarray) -> JudgedHalves:
    """The judged profiles, centred at the mean of the held-out halves of training profiles."""
    halves = world.halves
    train = (halves.split == "train").to_numpy()
    return JudgedHalves(
        as_expression(halves.given, halves.given.genes, rows),
        as_expression(halves.held_out, halves.given.genes, rows),
        halves.given.names[rows],
        halves.split.to_numpy()[rows],
        halves.given.genes,
        world.held_out[train].mean(0),
        0.5,
        0,
    )


@pytest.fixture(scope="module")
def predictions(world: World, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Predictions of the judged profiles, whose quality is known from the rates."""
    truth, given = world.expected[rows], world.given[rows]
    mean = np.tile(world.given[(world.halves.split == "train").to_numpy()].mean(0), (len(rows), 1))
    noise = np.random.default_rng(0).permuted(given, axis=1)
    return {
        "truth": truth,
        "nearer": 0.75 * truth + 0.25 * mean,
        "near": 0.5 * truth + 0.5 * mean,
        "far": 0.25 * truth + 0.75 * mean,
        "mean_profile": mean,
        "input": given,
        "zeros": np.zeros_like(truth),
        "noise": noise,
        "small": truth * 0.001,
    }


@pytest.fixture(scope="module")
def found(judged: JudgedHalves, predictions: dict[str, np.ndarray]) -> dict[str, OfHalf]:
    """Their numbers."""
    return {name: score(lambda some, values=values: values[some], judged) for name, values in predictions.items()}


@pytest.fixture(scope="module")
def metrics(found: dict[str, OfHalf], judged: JudgedHalves) -> pd.DataFrame:
    """The long table."""
    return long_table(found, judged, of_halves(judged), 1)


def test_numbers_are_those_of_a_slow_definition(
    judged: JudgedHalves, predictions: dict[str, np.ndarray], found: dict[str, OfHalf], world: World, rows: np.ndarray
) -> None:
    target, mean = world.held_out[rows], judged.mean
    for name, x in predictions.items():
        table = found[name].profiles
        lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(target, axis=1)
        cosine = np.where(lengths > 0, (x * target).sum(1) / np.maximum(lengths, 1e-300), 0)
        np.testing.assert_allclose(table[HELD_OUT], cosine, atol=1e-6)
        a, b = x - mean, target - mean
        centred = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        np.testing.assert_allclose(table[CENTRED], centred, atol=1e-5)
        np.testing.assert_allclose(table[MSE_OF_HALF], ((x - target) ** 2).mean(1), rtol=1e-5)
        test = judged.split == "test"
        genes = found[name].genes["test"]
        for gene in range(0, 120, 7):
            expected = 0.0
            if np.ptp(x[test, gene]) > 1e-12:
                expected = np.corrcoef(x[test, gene], target[test, gene])[0, 1]
            assert genes["correlation"][gene] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_the_order_is_that_of_the_distance_from_the_truth(metrics: pd.DataFrame, metric: str) -> None:
    order = ("truth", "nearer", "near", "far")
    numbers = [value(metrics, name, "test", metric) for name in order]
    sign = -1 if metric == MSE_OF_HALF else 1
    numbers.append(value(metrics, "mean_profile", "test", metric))
    steps = sign * np.diff(numbers)
    if metric in (CENTRED, BY_GENE_OF_HALF):  # a mixture with the mean has the deviations of the truth, only smaller
        assert (steps[:-1] < 0.001).all()
        assert steps[-1] < 0
    else:
        assert (steps < 0).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("rival", ["zeros", "noise", "input", "mean_profile"])
def test_no_metric_prefers_anything_to_the_truth(metrics: pd.DataFrame, metric: str, rival: str) -> None:
    truth, other = (value(metrics, name, "test", metric) for name in ("truth", rival))
    assert truth < other if metric == MSE_OF_HALF else truth > other


def test_the_truth_reaches_the_ceiling_and_the_mean_profile_has_no_skill(metrics: pd.DataFrame) -> None:
    ceiling = value(metrics, "model", "test", "ceiling")
    assert value(metrics, "truth", "test", HELD_OUT) == pytest.approx(ceiling, abs=0.005)
    assert value(metrics, "truth", "test", "skill") == pytest.approx(1, abs=0.1)
    assert value(metrics, "truth", "test", "disattenuated_cosine") == pytest.approx(1, abs=0.01)
    assert value(metrics, "mean_profile", "test", "skill") == 0


def test_the_length_changes_the_error_and_nothing_else(metrics: pd.DataFrame) -> None:
    for metric in METRICS:
        truth, small = (value(metrics, name, "test", metric) for name in ("truth", "small"))
        if metric in (MSE_OF_HALF, CENTRED):  # what is left after centring is minus the mean
            assert small > 1.2 * truth if metric == MSE_OF_HALF else small < truth
        else:
            assert small == pytest.approx(truth, abs=1e-6)


def test_zeros_have_no_direction_and_tell_nothing_apart(metrics: pd.DataFrame) -> None:
    assert value(metrics, "zeros", "test", HELD_OUT) == 0
    assert value(metrics, "zeros", "test", BY_GENE_OF_HALF) == 0
    assert value(metrics, "zeros", "test", "skill") < -2


def test_the_input_itself_has_the_cosine_of_the_halves(metrics: pd.DataFrame, judged: JudgedHalves) -> None:
    between = of_halves(judged)
    inside = judged.split == "test"
    assert value(metrics, "input", "test", HELD_OUT) == pytest.approx(float(between[inside].mean()), abs=1e-6)
    assert value(metrics, "model", "test", "ceiling") == pytest.approx(half_ceiling(between[inside]))


def test_what_was_made_from_the_given_half_leans_towards_it(found: dict[str, OfHalf]) -> None:
    assert np.nanmean(found["input"].with_given) > 0.02
    for name in ("truth", "mean_profile", "noise"):
        lean = found[name].with_given
        assert abs(np.nanmean(lean)) < 4 * np.nanstd(lean) / np.sqrt(len(lean))


def test_gene_correlations_are_over_the_more_expressed_half() -> None:
    genes = pd.DataFrame({"mean": [1.0, 2.0, 3.0, 4.0], "correlation": [0.9, 0.9, 0.2, np.nan]})
    assert gene_correlation(genes) == 0.2


@pytest.mark.parametrize("fraction", [0.3, 0.7])
def test_at_other_fractions_the_truth_is_the_best_and_the_ceiling_that_of_the_held_out_depth(fraction: float) -> None:
    world = make_world(fraction=fraction)
    halves = world.halves
    rows = np.flatnonzero(halves.split == "test")
    parts = [as_expression(half, halves.given.genes, rows) for half in (halves.given, halves.held_out)]
    mean = world.held_out[(halves.split == "train").to_numpy()].mean(0)
    judged = JudgedHalves(
        *parts, halves.given.names[rows], np.full(len(rows), "test"), halves.given.genes, mean, fraction, 0
    )
    truth, trivial = world.expected[rows], np.tile(mean, (len(rows), 1))
    found = {
        "truth": score(lambda some: truth[some], judged),
        "mean_profile": score(lambda some: trivial[some], judged),
    }
    table = long_table(found, judged, of_halves(judged), 1)
    reached = value(table, "truth", "test", HELD_OUT)
    assert reached > value(table, "mean_profile", "test", HELD_OUT)
    ceiling = value(table, "model", "test", "ceiling")
    assert np.isnan(ceiling) if fraction < 0.5 else ceiling == pytest.approx(reached, abs=0.02)
