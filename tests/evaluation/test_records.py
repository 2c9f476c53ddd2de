"""The split from which conclusions are drawn."""

import math

import numpy as np
import pandas as pd
import pytest

from geneae.evaluation.records import Evaluation, joined, judged_split, share_of_way, with_interval


@pytest.mark.parametrize(
    ("splits", "judged"),
    [
        (["train", "test", "validation"], "test"),
        (["train", "validation", "excluded"], "validation"),
        (["evaluated", "evaluated"], "evaluated"),
    ],
)
def test_conclusions_are_drawn_from_test_profiles_if_there_are_any(splits: list[str], judged: str) -> None:
    assert judged_split(pd.Series(splits)) == judged


@pytest.mark.parametrize(
    ("difference", "error", "said"),
    [(0.01, 0.001, "+0.0100 ± 0.0020"), (-0.01, 0.0, "-0.0100 ± 0.0000"), (0.01, float("nan"), "+0.0100")],
)
def test_a_single_profile_has_a_difference_without_an_interval(difference: float, error: float, said: str) -> None:
    assert with_interval(difference, error) == said


def test_skill_is_a_share_of_a_way_that_can_be_seen() -> None:
    assert share_of_way(0.7, 0.5, 0.9) == pytest.approx(0.5)
    assert share_of_way(0.4, 0.5, 0.9) == pytest.approx(-0.25)
    for ceiling in (0.50004, 0.5, 0.4, float("nan")):
        assert math.isnan(share_of_way(0.50001, 0.5, ceiling))


def test_parts_are_joined_in_the_order_of_the_profiles() -> None:
    def part(names: list[str], split: str, has_metrics: bool = True) -> Evaluation:
        both = [pd.DataFrame({"model": model, "profile": names, "split": split}) for model in ("model", "pca")]
        metrics = pd.DataFrame([{"split": split, "value": 1.0}])
        return Evaluation(pd.concat(both), metrics if has_metrics else metrics[:0], {"model": 2.0})

    found = joined([part(["b", "d"], "test"), part(["a", "c"], "train")], [np.array([1, 3]), np.array([0, 2])])
    assert list(found.profiles["profile"]) == ["a", "b", "c", "d"] * 2
    assert list(found.profiles["model"]) == ["model"] * 4 + ["pca"] * 4
    assert list(found.metrics["split"]) == ["test", "train"]
    assert found.scales == {"model": 2.0}
    alone = joined([part(["a"], "test", False), part(["b"], "new", False)], [np.array([0]), np.array([1])])
    assert alone.metrics.empty  # none of the profiles has a value
