"""Figure of the latents."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.lines import Line2D

from geneae.data.texts import texts
from geneae.pl.layout import add_colorbar, add_legend, dot_size, finish, set_title, several_axes, use_plain_log
from geneae.pl.names import name_drawn
from geneae.pl.style import GREY, MARKERS, MOST_LABELS, PALETTE, colors_of_numbers, marker_of, shown

MISSING = ("", "nan", "NaN", "None", "<NA>")  # missing numbers as text
TENFOLD = 10.0  # ratio of largest to smallest number above which their scale is logarithmic


def umap(
    tables: Mapping[str, pd.DataFrame],
    axes: Sequence[Axes] | None = None,
    *,
    color: str = "label",
    title: str | None = None,
    show: bool = False,
    save: str | Path | None = None,
) -> list[Axes]:
    """UMAP of the latents of each configuration, in panels, coloured by a column: its 20 most frequent values, and
    others in grey.

    Numbers with more than 20 values get a continuous colour scale, logarithmic where they are positive and span a
    factor of ten; a missing one is grey. Distances between groups mean little in a UMAP.

    Parameters
    ----------
    tables
        `umap.csv` by configuration.
    axes
        Axes to draw on, one for each configuration.
    color
        Column of the tables: `label`, `cluster` or `molecules`.
    title
        Title of the legend; by default the name of the column.
    """
    found, title = several_axes(axes, len(tables)), color if title is None else title
    labels = texts(pd.concat([table[color] for table in tables.values()]))
    numbers = pd.to_numeric(labels, errors="coerce")
    is_continuous = bool((numbers.notna() | labels.isin(MISSING)).all()) and numbers.nunique() > MOST_LABELS
    kinds = [str(kind) for kind in labels.value_counts().index]
    norm = _norm_of(numbers) if is_continuous and color != "cluster" else None
    for ax, (name, table) in zip(found, tables.items(), strict=True):
        size = dot_size(len(table))
        if norm is not None:
            _draw_numbers(ax, table, pd.to_numeric(table[color], errors="coerce"), norm, size)
        else:
            _draw_kinds(ax, table, texts(table[color]), kinds, size)
        set_title(ax, name, len(found))
        ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    if norm is not None:
        bar = add_colorbar(found, norm, shown(title))
        if isinstance(norm, LogNorm):
            use_plain_log(bar.ax.yaxis, float(norm.vmin or 1.0), float(norm.vmax or 1.0))
        return finish(found, show, save)
    handles = [
        Line2D([], [], linestyle="none", color=_kind_style(n)[0], marker=_kind_style(n)[1], label=shown(kind))
        for n, kind in enumerate(kinds[:MOST_LABELS])
    ]
    if len(kinds) > MOST_LABELS:
        left = len(kinds) - MOST_LABELS
        handles.append(Line2D([], [], linestyle="none", color=GREY, marker=".", label=f"{left} rarer labels"))
    add_legend(found, handles, shown(title))
    return finish(found, show, save)


def _norm_of(numbers: pd.Series) -> Normalize:
    low, high = float(numbers.min()), float(numbers.max())
    return LogNorm(low, high) if low > 0 and high / low > TENFOLD else Normalize(low, high)


def _draw_numbers(ax: Axes, table: pd.DataFrame, values: pd.Series, norm: Normalize, size: float) -> None:
    """Draw dots coloured by numbers, with those of missing ones in grey below all others."""
    known = values.notna().to_numpy()
    if not known.all():
        rows = table[~known]
        ax.scatter(rows["umap_1"], rows["umap_2"], s=size, c=GREY, marker=".", linewidths=0)
    rows = table[known]
    dots = ax.scatter(
        rows["umap_1"], rows["umap_2"], c=values[known], norm=norm, cmap=colors_of_numbers(), s=size, linewidths=0
    )
    name_drawn(dots, *_names(rows, values[known].map("{:,.4g}".format)))


def _kind_style(number: int) -> tuple[str, str]:
    return PALETTE[number % len(PALETTE)], marker_of(number)


def _names(table: pd.DataFrame, values: pd.Series) -> list[str]:
    """Profile and value of each dot; a table without names of profiles has its index."""
    profiles = table.get("profile", table.index)
    return [f"{name}: {value}" for name, value in zip(profiles, values, strict=True)]


def _draw_kinds(ax: Axes, table: pd.DataFrame, labels: pd.Series, kinds: list[str], size: float) -> None:
    """Draw one layer of dots for each marker, with rarer labels in grey below all others."""
    places = {kind: place for place, kind in enumerate(kinds)}
    order = labels.map(places).to_numpy()
    is_named = order < MOST_LABELS
    layers = [(".", ~is_named)]
    layers += [(marker, is_named & (order // len(PALETTE) % len(MARKERS) == n)) for n, marker in enumerate(MARKERS)]
    for marker, chosen in layers:
        if chosen.any():
            colors = [GREY if marker == "." else _kind_style(place)[0] for place in order[chosen]]
            rows = table[chosen]
            dots = ax.scatter(rows["umap_1"], rows["umap_2"], s=size, c=colors, marker=marker, linewidths=0)
            name_drawn(dots, *_names(rows, labels[chosen]))
