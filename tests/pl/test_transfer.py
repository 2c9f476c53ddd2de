"""The figure of calibration."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from scipy.stats import binomtest

from geneae import pl


@pytest.fixture(autouse=True)
def _agg() -> None:
    mpl.use("Agg")


def test_share_of_right_labels_and_its_interval_by_probability() -> None:
    obs = pd.DataFrame(
        {
            "my_label": ["T", "B", "B", "T", "T", None, "T"],
            "my_probability": [0.62, 0.64, 0.66, 0.95, 0.97, 0.3, 0.5],
            "kind": ["T", "T", "B", "T", "T", "B", None],
        }
    )
    ax = pl.calibration({"donor 1": obs, "donor 2": obs}, "kind", Figure().add_subplot(), prefix="my")
    diagonal, first, second = ax.lines
    np.testing.assert_array_equal(diagonal.get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_allclose(first.get_xydata(), [[0.64, 2 / 3], [0.96, 1.0]])  # neither refused nor unknown
    np.testing.assert_array_equal(first.get_xydata(), second.get_xydata())
    assert first.get_color() != second.get_color()
    (drawn, _) = (found for found in ax.collections if isinstance(found, LineCollection))
    expected = [binomtest(right, n).proportion_ci(method="wilson") for right, n in ((2, 3), (2, 2))]
    found = [segment[:, 1] for segment in drawn.get_segments()]
    np.testing.assert_allclose(found, [[one.low, one.high] for one in expected], atol=1e-4)
    assert ax.get_xlabel() == "probability of the label"
