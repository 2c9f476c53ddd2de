"""The split from which conclusions are drawn."""

import pandas as pd
import pytest

from geneae.evaluation.records import judged_split


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
