"""Figure of the held-out cosine by depth of the input."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from geneae.evaluation.depth import AT_RATIO
from geneae.evaluation.records import HELD_OUT, judged_split
from geneae.evaluation.table import CEILING, DRAWN, metric_facts
from geneae.pl.layout import add_legend, arm_handles, finish, one_axes, panels_size
from geneae.pl.names import name_drawn
from geneae.pl.style import INK, arm_style, better_way
from geneae.pl.values import baseline_values, mean_of

BESIDE = ("mean_profile", "shrunken_pca")
"""Baselines that are read from the same inputs."""


def cosine_by_depth(
    metrics: pd.DataFrame,
    arms: Sequence[str] = ("model",),
    ax: Axes | None = None,
    *,
    split: str | None = None,
    show: bool = False,
    save: str | Path | None = None,
) -> Axes:
    """Held-out cosine against the share of all molecules that the input has, from a half to a twentieth.

    Lines without dots are the baselines, read from the same inputs, and the noise ceiling, which is the same for all
    inputs, because their target is.

    Parameters
    ----------
    metrics
        `metrics.csv` of a run, or of several with a column `arm`.
    arms
        Names of the configurations.
    ax
        Axes to draw on.
    split
        By default test, if there are test profiles.
    """
    split = split or judged_split(metrics["split"])
    ax = one_axes(ax, panels_size(1, len(arms) + len(BESIDE)))
    places = np.arange(len(AT_RATIO))
    handles = arm_handles(arms)
    for number, arm in enumerate(arms):
        reached = [mean_of(metrics, arm, "model", split, metric) for metric in AT_RATIO.values()]
        drawn = ax.plot(places, reached, **arm_style(number), linewidth=2, marker="o")
        pairs = zip(AT_RATIO, reached, strict=True)
        name_drawn(drawn, *(f"{arm}: {value:.4f} from 1/{ratio} of the molecules" for ratio, value in pairs))
    for name in BESIDE:
        found = [np.mean([mean_of(metrics, arm, name, split, metric) for arm in arms]) for metric in AT_RATIO.values()]
        style: dict[str, Any] = {"color": INK, "linestyle": DRAWN[name].line, "linewidth": 1.3}
        name_drawn(ax.plot(places, found, **style), f"{DRAWN[name].title}: {found[0]:.4f} to {found[-1]:.4f}")
        handles.append(Line2D([], [], **style, label=DRAWN[name].title))
    ceiling = baseline_values(metrics, arms, split, HELD_OUT).get("ceiling")
    if ceiling is not None:
        style = {"color": INK, "linestyle": CEILING.line, "linewidth": 1.0}
        name_drawn(ax.axhline(float(np.nanmean(ceiling)), **style), f"{CEILING.title} {np.nanmean(ceiling):.4f}")
        handles.append(Line2D([], [], **style, label=CEILING.title))
    ax.set_xticks(places, [f"1/{ratio}" for ratio in AT_RATIO])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("share of the molecules in the input")
    facts = metric_facts(HELD_OUT)
    ax.set_ylabel(f"{facts.title}{better_way(facts.better)}")
    ax.spines[["top", "right"]].set_visible(False)
    add_legend([ax], handles)
    return finish(ax, show, save)
