"""Figure of the latents."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D

from geneae.pl.layout import add_legend, dot_size, finish, set_title, several_axes
from geneae.pl.style import GREY, MARKERS, MOST_LABELS, PALETTE, marker_of, shown


def umap(
    tables: Mapping[str, pd.DataFrame],
    axes: Sequence[Axes] | None = None,
    *,
    title: str = "label",
    show: bool = False,
    save: str | Path | None = None,
) -> list[Axes]:
    """UMAP of the latents of each configuration, in panels, coloured by `label`: the 20 most frequent, others in grey.

    Numerical labels with more than 20 values get a continuous colour scale. Distances between groups mean little in a
    UMAP.

    Parameters
    ----------
    tables
        `umap.csv` by configuration.
    axes
        Axes to draw on, one for each configuration.
    title
        Title of the legend: the column of `obs` that the labels come from.
    """
    found = several_axes(axes, len(tables))
    labels = pd.concat([table["label"] for table in tables.values()]).astype(str)
    numbers = pd.to_numeric(labels, errors="coerce")
    is_continuous = bool(numbers.notna().all()) and numbers.nunique() > MOST_LABELS
    kinds = [str(kind) for kind in labels.value_counts().index]
    norm = Normalize(float(numbers.min()), float(numbers.max())) if is_continuous else None
    for ax, (name, table) in zip(found, tables.items(), strict=True):
        size = dot_size(len(table))
        if norm is not None:
            values = pd.to_numeric(table["label"])
            ax.scatter(table["umap_1"], table["umap_2"], c=values, norm=norm, cmap="viridis", s=size, linewidths=0)
        else:
            _draw_kinds(ax, table, kinds, size)
        set_title(ax, name, len(found))
        ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    if norm is not None:
        found[0].figure.colorbar(ScalarMappable(norm, "viridis"), ax=found, label=shown(title), pad=0.02)
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


def _kind_style(number: int) -> tuple[str, str]:
    return PALETTE[number % len(PALETTE)], marker_of(number)


def _draw_kinds(ax: Axes, table: pd.DataFrame, kinds: list[str], size: float) -> None:
    """Draw one layer of dots for each marker, with rarer labels in grey below all others."""
    places = {kind: place for place, kind in enumerate(kinds)}
    order = table["label"].astype(str).map(places).to_numpy()
    is_named = order < MOST_LABELS
    layers = [(".", ~is_named)]
    layers += [(marker, is_named & (order // len(PALETTE) % len(MARKERS) == n)) for n, marker in enumerate(MARKERS)]
    for marker, chosen in layers:
        if chosen.any():
            colors = [GREY if marker == "." else _kind_style(place)[0] for place in order[chosen]]
            rows = table[chosen]
            ax.scatter(rows["umap_1"], rows["umap_2"], s=size, c=colors, marker=marker, linewidths=0)
