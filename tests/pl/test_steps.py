"""The figure of steps."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from geneae import pl
from geneae.evaluation.records import CLEAR, HELD_OUT
from geneae.evaluation.steps import GAIN, GAIN_ERROR, STAGES
from geneae.pl.style import arm_style

REACHED = {
    "linear": 0.7,
    "network": 0.7,
    "neighbours": 0.702,
    "calibration": 0.703,
    "own_counts": 0.71,
    "entries": 0.73,
}
ALL = list(STAGES)


@pytest.fixture(autouse=True)
def _agg() -> None:
    mpl.use("Agg")


def metrics_of(arms: list[str], n_seeds: int = 1) -> pd.DataFrame:
    """Each configuration lies 0.01 above the one before, and each seed 0.002 above the one before."""
    rows = []
    for number, arm in enumerate(arms):
        for seed in range(n_seeds):
            before, shift = 0.6, 0.01 * number + 0.002 * seed
            for name, stage in STAGES.items():
                for metric, number_of in ((HELD_OUT, REACHED[name] + shift), (GAIN, REACHED[name] - before),
                                          (GAIN_ERROR, 0.001)):  # fmt: skip
                    rows += [(arm, stage.model, "test", metric, "mean", number_of)]
                    rows += [(arm, stage.model, "validation", metric, "mean", 9.0)]
                before = REACHED[name]
            for model, metric, mean in (("mean_profile", HELD_OUT, 0.6), ("shrunken_pca", HELD_OUT, 0.68),
                                        ("pca", HELD_OUT, 0.66), ("model", "ceiling", 0.8)):  # fmt: skip
                rows.append((arm, model, "test", metric, "mean", mean))
    return pd.DataFrame(rows, columns=["arm", "model", "split", "metric", "statistic", "value"])


def dots(ax: Axes) -> list[tuple[float, float, bool]]:
    """Place of each dot, and whether it is filled."""
    found = [line for line in ax.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]
    return [(line.get_xdata()[0], line.get_ydata()[0], line.get_markerfacecolor() != "white") for line in found]


def test_steps_follow_each_other_with_intervals_of_their_gains() -> None:
    kept = ["linear", "neighbours", "calibration", "own_counts", "entries"]
    ax = pl.cosine_by_step(metrics_of(["mse"], n_seeds=2), {"mse": kept})
    places = [(value + 0.001, place, name in kept) for place, (name, value) in enumerate(REACHED.items())]
    np.testing.assert_allclose(dots(ax), places)
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        "whitened linear", "+ network", "+ neighbours", "+ calibration", "+ own counts", "+ entries"]  # fmt: skip
    said = [text.get_text() for text in ax.texts]
    gain = f"± {CLEAR * 0.001:.4f}"
    gains = [f"+{gained} {gain}" for gained in ("0.0020", "0.0010", "0.0070", "0.0200")]
    assert said[3:] == ["0.7010", "left out", *gains]
    assert said[:3] == ["mean profile 0.6000", "shrunken PCA 0.6800", "noise ceiling 0.8000"]
    intervals = [each.get_segments()[0] for each in ax.collections if isinstance(each, LineCollection)][3:]
    ends = [(0.703 - CLEAR * 0.001, 0.703 + CLEAR * 0.001), (0.704 - CLEAR * 0.001, 0.704 + CLEAR * 0.001)]
    np.testing.assert_allclose([segment[:, 0] for segment in intervals[:2]], ends)
    assert len(intervals) == 4
    assert ax.get_xlabel() == "held-out cosine (higher is better →)"
    plt.close("all")


def test_several_configurations_have_a_legend_and_no_text_on_their_dots() -> None:
    arms = ["mse", "cosine"]
    ax = pl.cosine_by_step(metrics_of(arms), {"mse": ALL, "cosine": ["linear"]})
    figure = ax.figure
    assert isinstance(figure, Figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mse", "cosine", "left out"]
    assert len(ax.texts) == 3
    joined = [line for line in ax.lines if len(line.get_xdata()) == len(STAGES)]
    assert [line.get_color() for line in joined] == [arm_style(number)["color"] for number in range(2)]
    np.testing.assert_allclose(joined[1].get_xdata(), [value + 0.01 for value in REACHED.values()])
    assert [is_filled for _, _, is_filled in dots(ax)] == [True] * 6 + [True] + [False] * 5
    plt.close("all")


def test_it_is_drawn_on_given_axes() -> None:
    given = Figure().add_subplot()
    assert pl.cosine_by_step(metrics_of(["$a", "b"]), {"$a": ALL, "b": ALL}, given, split="test") is given
    assert plt.get_fignums() == []


def test_a_run_of_an_earlier_version_lacks_a_step() -> None:
    metrics = metrics_of(["mse"])
    ax = pl.cosine_by_step(metrics[metrics["model"] != STAGES["neighbours"].model], {"mse": ["linear", "entries"]})
    assert len(dots(ax)) == len(STAGES)
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]
    plt.close("all")
