"""Figure of the calibration of transferred labels."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from geneae.evaluation.calibration import calibration_table
from geneae.evaluation.records import CLEAR
from geneae.pl.layout import add_legend, arm_handles, finish, one_axes, panels_size
from geneae.pl.style import GREY, arm_style, marker_of


def calibration(
    tables: Mapping[str, pd.DataFrame],
    truth: str,
    ax: Axes | None = None,
    *,
    prefix: str = "geneae",
    show: bool = False,
    save: str | Path | None = None,
) -> Axes:
    """Share of transferred labels that are right, against their probability, in bins; on the diagonal both are equal.

    Vertical lines are 95 % intervals (Wilson). Profiles without a transferred label or a true one are left out.

    Parameters
    ----------
    tables
        `obs` of a query after `geneae transfer`, by configuration.
    truth
        Column with the true labels.
    ax
        Axes to draw on.
    prefix
        Prefix of the columns with label and probability.
    """
    ax = one_axes(ax, panels_size(1, len(tables)))
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    for number, obs in enumerate(tables.values()):
        known = obs[obs[f"{prefix}_label"].notna() & obs[truth].notna()]
        is_right = known[f"{prefix}_label"].astype(str) == known[truth].astype(str)
        bins = calibration_table(known[f"{prefix}_probability"].to_numpy(float), is_right.to_numpy())
        low, high = _interval(bins["right"].to_numpy(float), bins["n_profiles"].to_numpy(float))
        style = arm_style(number)
        ax.vlines(bins["probability"], low, high, color=style["color"], linewidth=1.0)
        ax.plot(bins["probability"], bins["right"], **style, linewidth=1.5, marker=marker_of(number))
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="probability of the label", ylabel="share of labels that are right")
    ax.spines[["top", "right"]].set_visible(False)
    add_legend([ax], arm_handles(list(tables)))
    return finish(ax, show, save)


def _interval(share: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of a share among a number of cases (Wilson 1927); within 0 and 1."""
    shrink = CLEAR**2 / number
    centre = (share + shrink / 2) / (1 + shrink)
    half = CLEAR * np.sqrt(share * (1 - share) / number + shrink / (4 * number)) / (1 + shrink)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
