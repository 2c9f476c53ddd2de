"""The figure of depth."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geneae import pl
from geneae.evaluation.depth import AT_RATIO
from geneae.evaluation.records import HELD_OUT
from geneae.models.baselines import BASELINES


@pytest.fixture(autouse=True)
def _agg() -> None:
    mpl.use("Agg")


def metrics_of(arms: list[str]) -> pd.DataFrame:
    """The model falls by 0.01 with each depth, shrunken PCA by 0.05; each configuration lies 0.02 above the other."""
    rows = []
    for number, arm in enumerate(arms):
        for place, metric in enumerate(AT_RATIO.values()):
            for model, top, slope in (("model", 0.75, 0.01), ("shrunken_pca", 0.7, 0.05), ("mean_profile", 0.6, 0.0)):
                rows.append((arm, model, "test", metric, "mean", top + 0.02 * number - slope * place))
                rows.append((arm, model, "validation", metric, "mean", 9.0))
        rows.append((arm, "model", "test", "ceiling", "mean", 0.8))
    return pd.DataFrame(rows, columns=["arm", "model", "split", "metric", "statistic", "value"])


def curves(ax: Axes) -> list[np.ndarray]:
    return [np.asarray(line.get_ydata(), float) for line in ax.lines]


def test_model_baselines_and_ceiling_by_share_of_the_molecules() -> None:
    ax = pl.cosine_by_depth(metrics_of(["mse"]).drop(columns="arm"))
    model, trivial, pca, ceiling = curves(ax)
    np.testing.assert_allclose(model, [0.75, 0.74, 0.73, 0.72])
    np.testing.assert_allclose(trivial, 0.6)
    np.testing.assert_allclose(pca, [0.7, 0.65, 0.6, 0.55])
    np.testing.assert_allclose(ceiling, 0.8)
    assert [line.get_linestyle() for line in ax.lines[1:]] == [
        BASELINES["mean_profile"].line, BASELINES["shrunken_pca"].line, "-"]  # fmt: skip
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1/2", "1/4", "1/10", "1/20"]
    assert ax.get_ylabel() == "held-out cosine (higher is better →)"
    figure = ax.figure
    assert isinstance(figure, Figure)
    names = ["model", "mean profile", "shrunken PCA", "noise ceiling"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names
    plt.close("all")


def test_each_configuration_has_a_curve_and_depths_without_profiles_have_a_gap() -> None:
    metrics = metrics_of(["mse", "cosine"])
    gap = metrics[metrics["metric"] != AT_RATIO[20]]
    ax = pl.cosine_by_depth(gap, ["mse", "cosine"], Figure().add_subplot())
    np.testing.assert_allclose(curves(ax)[1], [0.77, 0.76, 0.75, np.nan])
    np.testing.assert_allclose(curves(ax)[2], [0.61, 0.61, 0.61, np.nan])  # mean of both
    without = metrics[~metrics["metric"].isin(["ceiling"])]
    assert len(curves(pl.cosine_by_depth(without, ["mse"], Figure().add_subplot()))) == 3
    assert AT_RATIO[2] == HELD_OUT
    assert plt.get_fignums() == []
