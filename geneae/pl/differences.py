"""Figures of differences from the first configuration."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from geneae.evaluation.comparison import BETTER, NONE, UNDEFINED, WORSE
from geneae.evaluation.records import signed
from geneae.evaluation.table import metric_facts, title_of
from geneae.pl.layout import add_legend, dodge, finish, is_narrow, label_size, name_axis, name_rows, one_axes, rows_size
from geneae.pl.names import name_drawn
from geneae.pl.style import FAINT, GREY, INK, MOST_LABELS, PALETTE, arm_style, better_way, marker_of, shown
from geneae.pl.values import label_differences, main_metric, paired_main_metric, shown_split
from geneae.settings.text import counted


def difference_by_label(
    profiles: Mapping[str, pd.DataFrame],
    ax: Axes | None = None,
    *,
    metric: str | None = None,
    split: str | None = None,
    show: bool = False,
    save: str | Path | None = None,
) -> Axes:
    """Difference from the first configuration by label of the profiles, such as the cell type, with 95 % intervals.

    Intervals are over profiles. The 20 most frequent labels are drawn. `ValueError` unless there are at least two
    configurations and all tables have a column `label`.
    """
    if len(profiles) < 2 or not all("label" in table for table in profiles.values()):
        raise ValueError("a difference by label needs at least two configurations, and tables with a column 'label'.")
    metric, split = metric or main_metric(profiles), shown_split(profiles, split)
    table = label_differences(profiles, metric, split)
    labels = list(dict.fromkeys(table["label"]))[:MOST_LABELS]
    reference, *arms = profiles
    ax = one_axes(ax, label_size(len(labels), len(arms)))
    ax.axvline(0.0, color=GREY, linewidth=0.8)
    for number, arm in enumerate(arms):
        rows = table[(table["arm"] == arm) & table["label"].isin(labels)]
        places = np.array([labels.index(label) for label in rows["label"]]) + dodge(number, len(arms))
        errors = (rows["high"] - rows["difference"]).fillna(0.0)
        style = arm_style(number + 1)
        marker = marker_of(number + 1)
        drawn = ax.errorbar(
            rows["difference"], places, xerr=errors, fmt=marker, color=style["color"], markersize=4, linewidth=1.2
        )
        name_drawn(
            drawn[0],
            *(
                f"{row['label']}, {arm}: {signed(row['difference'], 5)} ({counted(row['n_profiles'], 'profile')})"
                for row in rows.to_dict("records")
            ),
        )
    counts = table.groupby("label")["n_profiles"].max()
    name_rows(ax, labels)
    ax.set_yticks(range(len(labels)), [f"{shown(label)} ({counts[label]:,})" for label in labels])
    for edge in range(1, len(labels)):
        ax.axhline(edge - 0.5, color=FAINT, linewidth=0.6)
    ax.xaxis.set_major_locator(MaxNLocator(4 if is_narrow(ax) else "auto"))
    ax.ticklabel_format(axis="x", style="plain", useOffset=False)
    name_axis(ax, _axis_label(metric, reference, metric_facts(metric).better))
    markers = [
        Line2D([], [], color=arm_style(n + 1)["color"], marker=marker_of(n + 1), label=shown(arm))
        for n, arm in enumerate(arms)
    ]
    add_legend([ax], markers)
    return finish(ax, show, save)


def _axis_label(metric: str, reference: str, better: str) -> str:
    return f"difference in {title_of(metric)} from {shown(reference)}{better_way(better, 'left', 'right')}"


def paired_differences(
    paired: pd.DataFrame,
    ax: Axes | None = None,
    *,
    metric: str | None = None,
    split: str | None = None,
    rivals: Mapping[str, float] | None = None,
    show: bool = False,
    save: str | Path | None = None,
) -> Axes:
    """Forest plot: difference of every configuration from the reference in one metric, with its interval in numbers.

    Colour and marker give the verdict. Baselines stand above, at their own difference from the reference or beyond the
    edge that they lie beyond: they say how much a difference is.

    Parameters
    ----------
    paired
        `paired.csv` of a comparison.
    ax
        Axes to draw on.
    metric, split
        By default the held-out cosine if available, otherwise the centred cosine; test profiles if there are any.
        `ValueError` if there is no such row.
    rivals
        Differences of baselines from the reference, by name; none by default.
    """
    metric = metric or paired_main_metric(paired)
    split = split or shown_split({"": paired})
    rows = paired[(paired["metric"] == metric) & (paired["split"] == split)]
    if rows.empty:
        raise ValueError(
            f"paired.csv has no difference in {metric} on {split} profiles. Choose another metric or split."
        )
    ax = one_axes(ax, rows_size(len(rows)))
    ax.axvline(0.0, color=GREY, linewidth=0.8)
    kinds = {
        BETTER: (PALETTE[0], "o"),
        WORSE: (PALETTE[1], "s"),
        NONE: (GREY, "D"),
        UNDEFINED: (GREY, "x"),
    }
    kind = [verdict if verdict in kinds else NONE for verdict in rows["verdict"]]
    for place, (of, difference, low, high) in enumerate(
        zip(kind, rows["difference"], rows["low"], rows["high"], strict=True)
    ):
        color, marker = kinds[of]
        said = f"{signed(difference, 5)}  ({signed(low, 5)} to {signed(high, 5)})"
        named = f"{rows['arm'].iloc[place]}: {said}, {of}"
        name_drawn(ax.plot([low, high], [place, place], color=color, linewidth=2), named)
        name_drawn(ax.plot([difference], [place], marker=marker, color=color, markersize=6), named)
        ax.annotate(
            said,
            (1.0, place),
            (8, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize="small",
            annotation_clip=False,
        )
    name_rows(ax, list(rows["arm"]))
    reach = 1.15 * float(np.nanmax(np.abs(rows[["difference", "low", "high"]].to_numpy(float))))
    reach = reach if reach > 0 else 1e-3
    ax.set_xlim(-reach, reach)
    ax.xaxis.set_major_locator(MaxNLocator(3 if is_narrow(ax) else 5, steps=[1, 2, 5, 10]))
    ax.ticklabel_format(axis="x", style="plain", useOffset=False)  # the table next to it has no powers of ten either
    name_axis(ax, _axis_label(metric, rows["reference"].iloc[0], rows["better"].iloc[0]))
    _draw_rivals(ax, rivals or {}, reach)
    add_legend(
        [ax],
        [
            Line2D([], [], color=color, marker=marker, linewidth=2, label=name)
            for name, (color, marker) in kinds.items()
            if name in kind
        ],
    )
    return finish(ax, show, save)


def _draw_rivals(ax: Axes, rivals: Mapping[str, float], reach: float) -> None:
    """Write the difference of each baseline above the axes: at its place, or with an arrow to where it would be."""
    for height, (name, difference) in enumerate(sorted(rivals.items(), key=lambda rival: -abs(rival[1]))):
        said = f"{name} {signed(difference, 4)}"
        place = float(np.clip(difference, -reach, reach))
        if abs(difference) <= reach:
            ax.axvline(difference, color=INK, linewidth=1.0, linestyle="--")
        else:
            said = f"← {said}" if difference < 0 else f"{said} →"
        ax.annotate(
            said,
            (place, 1.0),
            (0, 5 + 13 * height),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="left" if difference < 0 else "right",
            fontsize="small",
            color=INK,
            annotation_clip=False,
        )
