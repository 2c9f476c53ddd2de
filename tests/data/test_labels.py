"""Labels as text, whatever the types of a column."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from geneae.data.labels import labels_in, spelled_like
from geneae.settings.errors import InputError


def found(values: Any) -> list[str | None]:
    return [None if pd.isna(value) else value for value in labels_in(pd.DataFrame({"kind": values}), "kind")]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, "1", 1.0, np.float32(1), " 1 ", "B ", None, "", np.nan], [*["1"] * 5, "B", None, None, None]),
        ([1.0, 2.0, np.nan], ["1", "2", None]),
        (pd.Categorical(["b", None, "a"]), ["b", None, "a"]),
        ([True, False, True], ["True", "False", "True"]),
        (pd.array([1, None, 3], dtype="Int64"), ["1", None, "3"]),
    ],
    ids=["mixed", "whole floats", "categories", "booleans", "nullable"],
)
def test_equal_texts_are_one_label_and_empty_ones_none(values: Any, expected: list[str | None]) -> None:
    assert found(values) == expected


def test_measurements_are_refused() -> None:
    message = (
        "labels must be names or whole numbers that profiles share; obs column 'kind' holds measurements, such as "
        "0.25. Name another column with --batch, or divide the values into classes."
    )
    for values in ([1.0, 0.25, 2.0], np.array([1, 0.25], np.float32), ["a", 0.25]):
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            labels_in(pd.DataFrame({"kind": values}), "kind", "--batch")


def test_an_unknown_column_is_refused() -> None:
    with pytest.raises(InputError, match="unknown obs column 'kin'; did you mean 'kind'"):
        labels_in(pd.DataFrame({"kind": ["a"]}), "kin")


def test_truth_values_are_spelled_like_the_known_ones() -> None:
    numbers, truths = pd.Series(["1", "0", None]), pd.Series(["True", "False", None])
    assert spelled_like(numbers, ("False", "True")).dropna().tolist() == ["True", "False"]
    assert spelled_like(truths, ("0", "1")).dropna().tolist() == ["1", "0"]
    for labels, known in ((numbers, ("0", "1", "2")), (pd.Series(["1", "2"]), ("False", "True")), (truths, ("a", "b"))):
        pd.testing.assert_series_equal(spelled_like(labels, known), labels)
