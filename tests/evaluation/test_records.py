"""The split from which conclusions are drawn."""

import pandas as pd
import pytest

from geneae.evaluation.records import judged_split, with_interval


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
