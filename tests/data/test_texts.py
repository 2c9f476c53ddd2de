import numpy as np
import pandas as pd
import pytest

from geneae.data.texts import texts


@pytest.mark.parametrize(
    "values",
    [
        pd.Series(["a", None, "b"]),
        pd.Series(["a", np.nan, "b"], dtype=object),
        pd.Series(["a", pd.NA, "b"], dtype="string"),
        pd.Series(["a", None, "b"], dtype="category"),
    ],
    ids=lambda values: str(values.dtype),
)
def test_missing_values_are_text_too(values: pd.Series) -> None:
    found = list(texts(values))
    assert (found[0], found[2]) == ("a", "b")
    assert found[1] in ("nan", "None", "<NA>")


def test_numbers_are_written_as_they_are() -> None:
    assert list(texts(pd.Series(np.float32([0.1, np.nan, 2])))) == ["0.1", "nan", "2.0"]
    assert list(texts(pd.Series([1, 20]))) == ["1", "20"]
