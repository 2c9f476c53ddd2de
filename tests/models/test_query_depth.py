"""Depth of the profiles that a model is applied to: estimated or given, for all or by group, and what is said of it."""

import json
import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from geneae.models import query_depth
from geneae.models.query_depth import SHALLOWEST, QueryDepth, by_ratio, query_depths, ratios_of
from geneae.settings.errors import InputError


def totals_of(mean: float, n: int = 50, seed: int = 0) -> np.ndarray:
    """Totals whose geometric mean is exactly this."""
    logs = np.random.default_rng(seed).normal(0, 0.5, n)
    return np.asarray(mean * np.exp(logs - logs.mean()))


def depths(
    totals: np.ndarray, ratio: float | None = None, groups: pd.Series | None = None, training: float = 1000
) -> list[QueryDepth]:
    """Depths of profiles whose like have `training` molecules in training."""

    def estimate(rows: np.ndarray) -> np.ndarray:
        return np.log(training) - np.log(totals[rows])

    return query_depths(estimate, totals, (0.6, 0.5), ratio, groups)


@pytest.mark.parametrize("ratio", [0.5, 1.3, 4.0, 10.0, 60.0])
def test_the_ratio_is_the_estimate(ratio: float) -> None:
    totals = totals_of(5000 / ratio)
    (found,) = depths(totals, training=5000)
    assert found.ratio == pytest.approx(ratio)
    assert found.molecules == pytest.approx(5000 / ratio)
    assert found.of_training == pytest.approx(5000)
    assert not found.is_given
    assert found.rows.tolist() == list(range(50))


@pytest.mark.parametrize(("ratio", "expected"), [(1.24, 1.0), (0.81, 1.0), (1.0, 1.0), (1.26, 1.26), (0.79, 0.79)])
def test_profiles_of_nearly_the_same_depth_are_read_at_that_of_training(ratio: float, expected: float) -> None:
    assert depths(totals_of(1000 / ratio))[0].ratio == pytest.approx(expected)


@pytest.mark.parametrize(("ratio", "found"), [("10", "'10'"), ([1], "[1]"), (0, "0"), (np.nan, "nan"), (-1.5, "-1.5")])
def test_a_ratio_that_is_no_number_above_0_is_refused(ratio: Any, found: str) -> None:
    with pytest.raises(InputError, match=rf"^--depth-ratio must be a number above 0; found {re.escape(found)}\."):
        depths(totals_of(100.0), ratio)


def test_a_given_ratio_is_taken_as_it_is() -> None:
    (found,) = depths(totals_of(50), 1.1)
    assert (found.ratio, found.is_given) == (1.1, True)
    assert found.molecules == pytest.approx(50)


@pytest.mark.parametrize(("ratio", "said"), [(0.0, "0"), (-2.0, "-2"), (math.nan, "nan"), (math.inf, "inf")])
def test_a_ratio_that_is_not_above_zero_is_refused(ratio: float, said: str) -> None:
    with pytest.raises(InputError) as error:
        depths(totals_of(50), ratio)
    assert str(error.value) == (
        f"--depth-ratio must be a number above 0; found {said}. 10 means a tenth of the molecules of the training "
        "profiles."
    )


def test_every_group_has_its_depth_and_missing_values_are_one() -> None:
    groups = pd.Series(["b", "a", None, "b", "a", np.nan])
    totals = np.array([100.0, 1000, 10, 100, 1000, 10])
    found = {depth.group: depth for depth in depths(totals, groups=groups)}
    assert {name: depth.rows.tolist() for name, depth in found.items()} == {
        "b": [0, 3],
        "a": [1, 4],
        "no value": [2, 5],
    }
    assert {name: round(depth.ratio, 6) for name, depth in found.items()} == {"b": 10, "a": 1, "no value": 100}
    np.testing.assert_allclose(ratios_of(list(found.values()), 6), [10, 1, 100, 10, 1, 100])


def test_large_groups_are_estimated_from_evenly_spaced_profiles() -> None:
    seen: list[np.ndarray] = []

    def estimate(rows: np.ndarray) -> np.ndarray:
        seen.append(rows)
        return np.full(len(rows), np.log(3))

    totals = np.full(4 * query_depth.MOST_PROFILES, 100.0)
    totals[0] = 0  # has nothing to say
    assert query_depths(estimate, totals, (1.0, 1.0))[0].ratio == pytest.approx(3)
    (rows,) = seen
    assert len(rows) == query_depth.MOST_PROFILES
    assert (rows[0], rows[-1]) == (1, len(totals) - 1)
    assert set(np.diff(rows)) <= {3, 4, 5}


def test_groups_may_be_categories_and_numbers() -> None:
    totals = np.array([100.0, 1000, 1000])
    categories = pd.Series(pd.Categorical(["x", "y", "y"], categories=["z", "y", "x"]))
    assert [depth.group for depth in depths(totals, groups=categories)] == ["x", "y"]
    assert [depth.group for depth in depths(totals, groups=pd.Series([2, 1, 1]))] == ["2", "1"]


def test_a_given_ratio_holds_for_every_group() -> None:
    found = depths(np.array([100.0, 1000]), 3.0, pd.Series(["a", "b"]))
    assert [(depth.group, depth.ratio, depth.is_given) for depth in found] == [("a", 3.0, True), ("b", 3.0, True)]


def test_empty_profiles_do_not_count() -> None:
    (found,) = depths(np.array([0.0, 100, 0, 100]))
    assert found.ratio == pytest.approx(10)
    assert found.rows.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("n_empty", [1, 30, 500])
def test_profiles_with_hardly_any_molecule_change_the_depth_of_no_other(n_empty: int) -> None:
    """Empty droplets of an unfiltered matrix: of profiles with fewer than 8 molecules nothing is said."""
    totals = np.concatenate([totals_of(1000), np.random.default_rng(0).integers(0, 8, n_empty).astype(float)])
    (found,) = depths(totals)
    assert (found.ratio, found.molecules, found.of_training) == pytest.approx((1, 1000, 1000))
    assert found.apart is None
    assert found.rows.tolist() == list(range(50 + n_empty))
    assert depths(totals, 3.0)[0].molecules == pytest.approx(1000)


@pytest.mark.parametrize(
    "totals", [np.zeros(3), np.array([7.0, 1.0]), np.zeros(0)], ids=["empty profiles", "few molecules", "no profiles"]
)
def test_profiles_without_molecules_are_read_at_the_depth_of_training(totals: np.ndarray) -> None:
    (found,) = depths(totals)
    assert found.ratio == 1
    assert math.isnan(found.molecules)
    assert found.sentence() == "These profiles have fewer than 8 molecules each, which tell no depth."


def test_no_profiles_have_no_groups() -> None:
    assert depths(np.zeros(0), groups=pd.Series([], dtype=object)) == []


def test_sentences() -> None:
    def said(**fields: object) -> str:
        known = {"ratio": 1.0, "rows": np.arange(3), "is_given": False, "molecules": 1020.0, "of_training": 1000.0}
        return QueryDepth(**(known | fields)).sentence()  # type: ignore[arg-type]

    assert (
        said()
        == "These profiles are as deep as training profiles like them: 1,020 and 1,000 molecules (geometric means)."
    )
    assert said(ratio=10.0, molecules=100.0, group="d1") == (
        "Profiles of d1 have 100 molecules (geometric mean), training profiles like them had 1,000: they are read at a "
        "depth ratio of 10. If you know better, give --depth-ratio."
    )
    assert said(ratio=3.0, is_given=True) == (
        "These profiles are read as having 1/3 of the molecules of the training profiles, as given."
    )
    assert said(ratio=60.0, is_given=True).endswith(
        "as given. Training has seen ratios up to 25: its numbers for 25 are used, with 1/60 of the molecules taken as "
        "usual."
    )
    assert said(ratio=0.5, molecules=2000.0) == (
        "These profiles have 2,000 molecules (geometric mean), training profiles like them had 1,000: this is a depth "
        "ratio of 0.5. If you know better, give --depth-ratio. Deeper profiles are read as they would be with the "
        "molecules of training profiles."
    )
    assert "this is a depth ratio of 60. If you know better" in said(ratio=60.0)


def test_the_shallowest_profiles_of_training_are_within_its_range() -> None:
    assert pytest.approx(25) == SHALLOWEST
    (found,) = depths(totals_of(40), 25.0)
    assert "Training has seen" not in found.sentence()
    assert "Training has seen" in depths(totals_of(40), 25.1)[0].sentence()


def test_what_is_recorded_is_json() -> None:
    (found,) = depths(np.full(4, 100.0))
    assert json.loads(json.dumps(found.recorded())) == {
        "group": "",
        "ratio": pytest.approx(10),
        "is_given": False,
        "n_profiles": 4,
        "n_at_own_depth": 0,
        "molecules": pytest.approx(100),
        "molecules_of_training": pytest.approx(1000),
    }


def test_profiles_of_a_ratio_stand_together() -> None:
    ratios = np.array([2.0, 1, 2, 5])
    assert [(ratio, rows.tolist()) for ratio, rows in by_ratio(ratios)] == [(1.0, [1]), (2.0, [0, 2]), (5.0, [3])]
    np.testing.assert_array_equal(ratios_of([], 2), [1, 1])


@pytest.mark.parametrize(("ratio", "said"), [(1.2345, "1.23"), (12.345, "12.3"), (1271.6, "1,272")])
def test_ratios_are_short(ratio: float, said: str) -> None:
    assert query_depth._short(ratio) == said


def test_profiles_far_below_their_set_are_read_at_their_own_depth() -> None:
    totals = totals_of(1000.0, 400, seed=1)
    totals[:5] = [9.0, 40, 200, 2000, 7]  # the third is within three deviations of 0.6
    (found,) = depths(totals)
    assert found.ratio == 1
    own = {row: ratio for ratio, rows in found.own.items() for row in rows}
    assert set(own) == {0, 1}
    for row in own:
        assert own[row] == pytest.approx(found.molecules / totals[row], rel=0.42)  # powers of 2
    ratios = ratios_of([found], 400)
    assert (ratios[0], ratios[1], ratios[2]) == (own[0], own[1], 1)
    assert "2 with far fewer molecules than the others are read at their own depth." in found.sentence()
    assert found.recorded()["n_at_own_depth"] == 2
    assert depths(totals, 3.0)[0].own == {}  # a given ratio holds for all


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_two_depths_in_one_set_are_said(share: float) -> None:
    totals = np.exp(np.random.default_rng(0).normal(7, 0.4, 400))
    is_shallow = np.arange(400) < 400 * share
    totals[is_shallow] /= 10
    (found,) = depths(totals)
    assert found.apart is not None
    assert found.apart[0] == pytest.approx(share, abs=0.02)
    assert found.apart[1] == pytest.approx(10, rel=0.15)
    said = f"{100 * found.apart[0]:.0f} % have about 1/{found.apart[1]:.2g} of the molecules of the others. If a column"
    assert said in found.sentence()
    assert "name it with --depth-by." in found.sentence()
    groups = pd.Series(np.where(is_shallow, "late", "early"))
    assert [depth.apart for depth in depths(totals, groups=groups)] == [None, None]


def test_one_depth_is_not_taken_for_two() -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        logs = np.random.default_rng(seed).normal(0, 0.9, 300)
        assert query_depth.two_depths(logs, np.exp(7 - logs), 0.5) is None  # wide, and of one kind
    logs = np.concatenate([rng.normal(0, 0.1, 200), rng.normal(0.5, 0.1, 200)])
    assert query_depth.two_depths(logs, np.exp(7 - logs), 0.1) is None  # a factor of 1.6
    logs = np.concatenate([rng.normal(0, 0.3, 200), rng.normal(2.5, 0.3, 200)])
    assert query_depth.two_depths(logs, np.exp(7 - logs), 1.0) is None  # as training profiles were
    assert query_depth.two_depths(logs, np.exp(7 - logs), 0.5) is not None
    assert query_depth.two_depths(logs[::40], np.exp(7 - logs[::40]), 0.5) is None  # 10 profiles


def test_a_ratio_is_checked_alone() -> None:
    with pytest.raises(InputError, match="--depth-ratio must be a number above 0; found 0"):
        query_depth.check_ratio(0)
    with pytest.raises(
        InputError, match=r"--depth-ratio must be at least 0\.0001, profiles with 10,000 times .* found 1e-06"
    ):
        query_depth.check_ratio(1e-6)
    query_depth.check_ratio(1e-4)
    query_depth.check_ratio(None)
