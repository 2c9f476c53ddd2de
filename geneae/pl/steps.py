"""Figure of the steps of models with an estimator."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from geneae.evaluation.records import CLEAR, HELD_OUT, judged_split, signed
from geneae.evaluation.steps import GAIN, GAIN_ERROR, LINEAR, STAGES
from geneae.pl.layout import add_legend, arm_handles, dodge, finish, name_rows, one_axes, rows_size
from geneae.pl.names import name_drawn
from geneae.pl.profiles import draw_baselines
from geneae.pl.style import GREY, arm_style, axis_label
from geneae.pl.values import baseline_values, mean_of

RIVALS = ("mean_profile", "shrunken_pca", "ceiling")
"""Lines that the steps are seen against."""


def cosine_by_step(
    metrics: pd.DataFrame,
    kept: Mapping[str, Collection[str]],
    ax: Axes | None = None,
    *,
    split: str | None = None,
    show: bool = False,
    save: str | Path | None = None,
) -> Axes:
    """Held-out cosine after each step, with the 95 % interval of its gain over the step before, paired by profile.

    Steps follow each other from top to bottom. A hollow dot marks a step that was left out, because it did not lower
    the loss of the validation profiles. Lines are the mean profile, shrunken PCA and the noise ceiling.

    Parameters
    ----------
    metrics
        `metrics.csv` of a run, or of several with a column `arm`.
    kept
        Names in `geneae.evaluation.steps.STAGES` of the steps that are used, by configuration.
    ax
        Axes to draw on.
    split
        By default test, if there are test profiles.
    """
    split = split or judged_split(metrics["split"])
    ax = one_axes(ax, rows_size(len(STAGES)))
    lines = baseline_values(metrics, list(kept), split, HELD_OUT)
    draw_baselines(ax, {name: [float(np.nanmean(lines[name]))] * len(STAGES) for name in RIVALS if name in lines})
    for number, (arm, used) in enumerate(kept.items()):
        _draw_steps(ax, metrics, arm, used, split, number, len(kept))
    names = [stage.title if name == LINEAR else f"+ {stage.title}" for name, stage in STAGES.items()]
    name_rows(ax, names)
    ax.set_xlabel(axis_label(HELD_OUT))
    ax.ticklabel_format(axis="x", style="plain", useOffset=False)
    handles = arm_handles(list(kept)) if len(kept) > 1 else []
    if handles and any(set(STAGES) - set(used) for used in kept.values()):
        handles.append(Line2D([], [], color=GREY, marker="o", markerfacecolor="white", linewidth=0, label="left out"))
    if handles:
        add_legend([ax], handles)
    return finish(ax, show, save)


def _draw_steps(
    ax: Axes, metrics: pd.DataFrame, arm: str, used: Collection[str], split: str, number: int, n_arms: int
) -> None:
    """Draw one configuration: its dots, the line through them, the intervals and, if it is alone, the gains."""
    style = arm_style(number)
    places = np.arange(len(STAGES)) + dodge(number, n_arms)
    reached, gains, errors = (
        np.array([mean_of(metrics, arm, stage.model, split, metric) for stage in STAGES.values()])
        for metric in (HELD_OUT, GAIN, GAIN_ERROR)
    )
    ax.plot(reached, places, **style, linewidth=1)
    for name, place, value, gain, error in zip(STAGES, places, reached, gains, errors, strict=True):
        is_used = name in used
        end = value
        if is_used and name != LINEAR and not np.isnan(error):  # the start is seen against the lines
            ax.errorbar([value], [place], xerr=CLEAR * error, color=style["color"], capsize=4)
            end = value + CLEAR * error
        face = style["color"] if is_used else "white"
        dot = ax.plot([value], [place], "o", color=style["color"], markerfacecolor=face, markersize=5, zorder=4)
        said = f"{value:.4f}" if name == LINEAR else f"{signed(gain)} ± {CLEAR * error:.4f}"
        said = said if is_used else "left out"
        name_drawn(dot, f"{arm}, {STAGES[name].title}: {value:.4f}" + f" ({said})" * (name != LINEAR))
        if n_arms == 1:
            ax.annotate(
                said,
                (end, place),
                (9, 0),
                textcoords="offset points",
                va="center",
                fontsize="small",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},  # over the line of the ceiling
            )
