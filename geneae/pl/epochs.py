"""Figures of training: metrics, norms and gradients by epoch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from geneae.evaluation.table import metric_facts, title_of
from geneae.pl.layout import (
    add_legend,
    arm_handles,
    finish,
    is_in_a_row,
    one_axes,
    panels_size,
    several_axes,
    use_plain_log,
)
from geneae.pl.names import name_drawn
from geneae.pl.style import DYNAMICS, FEW, GREY, WIDE, arm_style, better_way
from geneae.pl.values import mean_curve

LEAST_RANGE = 0.02  # smallest range of a curve on the axis, as a share of its middle, so that small changes look small
FEWEST_TICKS = 5  # of epochs, where panels are narrow
LEAST_NORM_RANGE = 0.1  # smallest range of norm ratios on the axis, so that small changes look small


def _draw_curves(ax: Axes, histories: Mapping[str, Sequence[pd.DataFrame]], column: str) -> None:
    for number, (arm, several) in enumerate(histories.items()):
        style = arm_style(number)
        if len(several) > 1:
            for place, history in enumerate(several, 1):
                drawn = ax.plot(history["epoch"], history[column], **style, linewidth=0.6, alpha=0.5)
                name_drawn(drawn, f"{arm}, seed {place} of {len(several)}")
        mean = mean_curve(several, column)
        marker: dict[str, Any] = {"marker": "o", "markersize": 3} if len(mean) < FEW else {}
        drawn = ax.plot(mean.index, mean.to_numpy(), **style, linewidth=2, **marker)
        ends = f"{mean.iloc[0]:.4g} at epoch {mean.index[0]}, {mean.iloc[-1]:.4g} at epoch {mean.index[-1]}"
        name_drawn(drawn, f"{arm}: {ends}" if len(mean) else arm)
    values = np.concatenate([history[column].to_numpy(float) for several in histories.values() for history in several])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() / values.min() > WIDE:
        ax.set_yscale("log")
        use_plain_log(ax.yaxis, values.min(), values.max())
    _widen(ax, LEAST_RANGE * abs(sum(ax.get_ylim())) / 2)
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(FEWEST_TICKS if is_in_a_row(ax) else "auto", integer=True))
    ax.spines[["top", "right"]].set_visible(False)


def _widen(ax: Axes, least: float) -> None:
    """Make the range of the vertical axis at least so large, around its middle; logarithmic axes stay."""
    low, high = ax.get_ylim()
    if high - low < least and ax.get_yscale() == "linear":
        middle = (low + high) / 2
        ax.set_ylim(middle - least / 2, middle + least / 2)


def training_curves(
    histories: Mapping[str, Sequence[pd.DataFrame]],
    axes: Sequence[Axes] | None = None,
    *,
    show: bool = False,
    save: str | Path | None = None,
) -> list[Axes]:
    """Validation cosine and validation MSE by epoch: the mean over seeds, and a thin line for each seed.

    Parameters
    ----------
    histories
        `history.csv` of every seed, by configuration.
    axes
        Two axes to draw on.
    """
    found = several_axes(axes, 2, len(histories))
    for ax, metric in zip(found, ("cosine", "mse"), strict=True):
        _draw_curves(ax, histories, f"validation_{metric}")
        ax.set_ylabel(f"validation {title_of(metric)}{better_way(metric_facts(metric).better)}")
    add_legend(found, arm_handles(list(histories)))
    return finish(found, show, save)


def encoder_curves(
    histories: Mapping[str, Sequence[pd.DataFrame]],
    axes: Sequence[Axes] | None = None,
    *,
    show: bool = False,
    save: str | Path | None = None,
) -> list[Axes]:
    """Cosine of two views, share of views with negative cosine and, with labels, 20-NN accuracy, by epoch.

    Parameters
    ----------
    histories
        `history.csv` of every seed, by configuration, from training on views.
    axes
        Two axes to draw on or, with labels, three.
    """
    titles = {"view_cosine": "cosine of two views", "opposite_halves": "share of views below cosine 0"}
    if all("validation_knn_20" in history for several in histories.values() for history in several):
        titles["validation_knn_20"] = f"validation 20-NN accuracy\n{better_way('higher').strip()}"
    found = several_axes(axes, len(titles), len(histories))
    for ax, (column, title) in zip(found, titles.items(), strict=True):
        _draw_curves(ax, histories, column)
        ax.set_ylabel(title)
    found[list(titles).index("opposite_halves")].set_ylim(-0.03, 1.03)  # a share, with room for lines at 0 and 1
    add_legend(found, arm_handles(list(histories)))
    return finish(found, show, save)


def norm_by_epoch(
    histories: Mapping[str, Sequence[pd.DataFrame]],
    ax: Axes | None = None,
    *,
    show: bool = False,
    save: str | Path | None = None,
) -> Axes:
    """Norm of the prediction divided by norm of the target, median over validation profiles, by epoch.

    A ratio of 1 means equal lengths. With noisy targets, the squared error is smallest where the ratio equals the
    cosine, below 1.
    """
    ax = one_axes(ax, panels_size(1, len(histories)))
    _draw_curves(ax, histories, "norm_ratio")
    _widen(ax, LEAST_NORM_RANGE)
    low, high = ax.get_ylim()
    ax.axhline(1.0, color=GREY, linewidth=0.8)
    ax.set_ylim(low, high)
    ax.set_ylabel("norm of prediction / norm of target")
    add_legend([ax], arm_handles(list(histories)))
    return finish(ax, show, save)


def dynamics_by_epoch(
    histories: Mapping[str, Sequence[pd.DataFrame]],
    columns: Sequence[str] = tuple(DYNAMICS),
    axes: Sequence[Axes] | None = None,
    *,
    show: bool = False,
    save: str | Path | None = None,
) -> list[Axes]:
    """Norms, gradients, effective rank or other columns by epoch: mean over seeds, and a thin line for each seed.

    Parameters
    ----------
    histories
        `history.csv` of every seed, by configuration.
    columns
        Columns of `history.csv` to draw.
    axes
        Axes to draw on, one for each column.
    """
    found = several_axes(axes, len(columns), len(histories))
    for ax, column in zip(found, columns, strict=True):
        _draw_curves(ax, histories, column)
        ax.set_ylabel(DYNAMICS.get(column, column.replace("_", " ")))
    add_legend(found, arm_handles(list(histories)))
    return finish(found, show, save)
