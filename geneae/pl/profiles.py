"""Figures of numbers per profile: distribution of the cosine, cosine against MSE, parts of the error."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from geneae.evaluation.table import CEILING, DRAWN
from geneae.pl.layout import (
    add_colorbar,
    add_legend,
    dot_size,
    finish,
    lies_in_grid,
    name_rows,
    one_axes,
    panels_shape,
    rows_size,
    set_title,
    several_axes,
    use_plain_log,
)
from geneae.pl.names import name_drawn
from geneae.pl.style import FEW, GREY, INK, PALETTE, WIDE, axis_label, colors_of_numbers
from geneae.pl.values import baseline_values, by_profile, main_metric, shown_split

LINES = DRAWN | {"ceiling": CEILING}
"""Titles and line styles of the baselines and the noise ceiling."""


def cosine_distribution(
    profiles: Mapping[str, pd.DataFrame],
    metrics: pd.DataFrame | None = None,
    ax: Axes | None = None,
    *,
    metric: str | None = None,
    split: str | None = None,
    show: bool = False,
    save: str | Path | None = None,
) -> Axes:
    """Distribution of the cosine over profiles, a row for each configuration, and lines for baselines and ceiling.

    The bar spans the 5th to the 95th percentile, the dot marks the median, the diamond the mean. Lines are means:
    compare them with the diamonds.

    Parameters
    ----------
    profiles
        `profiles.csv` by configuration.
    metrics
        `metrics.csv`, for the lines.
    ax
        Axes to draw on.
    metric
        Column of `profiles`; by default the held-out cosine if available, otherwise the centred cosine.
    split
        By default test, if there are test profiles.
    """
    ax = one_axes(ax, rows_size(len(profiles)))
    metric, split = metric or main_metric(profiles), shown_split(profiles, split)
    for row, (number, table) in enumerate(enumerate(profiles.values())):
        values = by_profile(table, split)[metric].dropna().to_numpy(float)
        if len(values):
            name = f"{list(profiles)[row]}: mean {values.mean():.4f}, median {np.median(values):.4f}"
            _draw_distribution(ax, values, row, PALETTE[number % len(PALETTE)], name)
    if metrics is not None:
        draw_baselines(ax, baseline_values(metrics, list(profiles), split, metric))
    name_rows(ax, list(profiles))
    ax.set_xlabel(axis_label(metric))
    return finish(ax, show, save)


def _draw_distribution(ax: Axes, values: np.ndarray, row: int, color: str, name: str) -> None:
    if len(np.unique(values)) >= FEW:
        outline = ax.violinplot(values, positions=[row], orientation="horizontal", widths=0.8, showextrema=False)
        bodies: Any = outline["bodies"]  # a list, whatever the types of matplotlib say
        for body in bodies:
            body.set(facecolor=color, alpha=0.3, edgecolor=color)
        name_drawn(bodies, name)
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95])
    name_drawn(
        ax.plot([low, high], [row, row], color=color, linewidth=2, solid_capstyle="butt"),
        f"{name}, 5th to 95th percentile {low:.4f} to {high:.4f}",
    )
    name_drawn(ax.plot([median], [row], "o", color=color, markersize=6, zorder=4), name)
    diamond: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": color, "markersize": 5, "zorder": 4}
    name_drawn(ax.plot([values.mean()], [row], "D", **diamond), name)


def draw_baselines(ax: Axes, lines: dict[str, list[float]]) -> None:
    """Draw a vertical line through each row for every baseline; equal values join into one line.

    Names are above the axes: those of the lower half to the left, in ascending rows, those of the upper half to the
    right, in descending rows, so that no leader line crosses a name.
    """
    order = sorted(lines, key=lambda name: np.nanmean(lines[name]))
    values = {name: next(value for value in lines[name] if not np.isnan(value)) for name in order}
    for place, name in enumerate(order):
        is_left = place < len(order) / 2
        height = place if is_left else len(order) - 1 - place
        title = LINES[name].title
        drawn = ax.vlines(
            lines[name],
            np.arange(len(lines[name])) - 0.5,
            np.arange(len(lines[name])) + 0.5,
            colors=INK,
            linestyles=LINES[name].line,
            linewidth=1.3,
            label=name,
        )
        name_drawn(drawn, f"{title} {values[name]:.4f}")
        is_one = np.nanmax(lines[name]) - np.nanmin(lines[name]) < 5e-5
        ax.annotate(
            f"{title} {values[name]:.4f}" if is_one else f"{title} (varies)",
            (values[name], 1.0),
            (-4 if is_left else 4, 5 + 12 * height),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if is_left else "left",
            fontsize="small",
            arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": GREY, "shrinkA": 0, "shrinkB": 0},
            annotation_clip=False,
        )


def cosine_against_mse(
    profiles: Mapping[str, pd.DataFrame],
    axes: Sequence[Axes] | None = None,
    *,
    split: str | None = None,
    show: bool = False,
    save: str | Path | None = None,
) -> list[Axes]:
    """Cosine of reconstruction and input against MSE: a dot for each profile, a panel for each configuration.

    All panels have the same scales. Colour is the number of molecules, on a logarithmic scale, if all tables have a
    column `molecules`.
    """
    found = several_axes(axes, len(profiles))
    split = shown_split(profiles, split)
    tables = [by_profile(table, split) for table in profiles.values()]
    norm = _molecules_norm(tables)
    is_grid, n_columns = lies_in_grid(found), panels_shape(len(found))[1]
    errors, cosines = (np.concatenate([table[name].dropna() for table in tables]) for name in ("mse", "cosine"))
    for number, (ax, name, table) in enumerate(zip(found, profiles, tables, strict=True)):
        coloured = {"color": PALETTE[0]}
        colours = {"c": table["molecules"], "norm": norm, "cmap": colors_of_numbers()} if norm is not None else coloured
        dots = ax.scatter(table["mse"], table["cosine"], s=dot_size(len(table)), alpha=0.8, linewidths=0, **colours)
        name_drawn(dots, *_names_of_profiles(table))
        set_title(ax, name, len(found))
        _set_range(ax, errors, cosines)
        is_left = not is_grid or number % n_columns == 0
        is_bottom = not is_grid or number + n_columns >= len(found)
        ax.tick_params(labelleft=is_left, labelbottom=is_bottom)
        if is_bottom:
            ax.set_xlabel("MSE (← lower is better)" if len(found) < 3 else "← MSE")
        if is_left:
            ax.set_ylabel(axis_label("cosine") if len(found) < 3 else "cosine →")
    if norm is not None:
        bar = add_colorbar(found, norm, "molecules per profile")
        bar.ax.yaxis.labelpad = 8  # five-digit numbers are wide
        use_plain_log(bar.ax.yaxis, norm.vmin or 1.0, norm.vmax or 1.0)
    return finish(found, show, save)


def _names_of_profiles(table: pd.DataFrame) -> list[str]:
    """Profile, label, cosine, MSE and molecules of each dot."""
    said = [f"{name}: cosine {row['cosine']:.4f}, MSE {row['mse']:.4g}" for name, row in table.iterrows()]
    if "molecules" in table:
        said = [f"{one}, {number:,.0f} molecules" for one, number in zip(said, table["molecules"], strict=True)]
    if "label" in table:
        said = [f"{one}, {label}" for one, label in zip(said, table["label"], strict=True)]
    return said


def _molecules_norm(tables: list[pd.DataFrame]) -> Normalize | None:
    if not all("molecules" in table for table in tables):
        return None
    molecules = np.concatenate([table["molecules"].to_numpy(float) for table in tables])
    molecules = molecules[np.isfinite(molecules) & (molecules > 0)]
    if not len(molecules):
        return None
    low, high = float(molecules.min()), float(molecules.max())
    return LogNorm(low, high) if high > low else LogNorm(low / 2, high * 2)


def _set_range(ax: Axes, errors: np.ndarray, cosines: np.ndarray) -> None:
    """Set the range of a panel, the same for all, with a margin; log scale if the MSEs span orders of magnitude."""
    if len(errors) and errors.min() > 0 and errors.max() / errors.min() > WIDE:
        ax.set_xscale("log")
        ax.set_xlim(errors.min() / 1.2, errors.max() * 1.2)
        use_plain_log(ax.xaxis, errors.min(), errors.max())
    elif len(errors):
        ax.set_xlim(*_with_margin(errors))
        ax.xaxis.set_major_locator(MaxNLocator(4))
    if len(cosines):
        ax.set_ylim(*_with_margin(cosines))


def _with_margin(values: np.ndarray) -> tuple[float, float]:
    """Range of values with a margin, which shows equal values of any size."""
    low, high = float(values.min()), float(values.max())
    size = max(1.0, abs(low), abs(high))
    margin = 0.05 * (high - low if high - low > 1e-9 * size else size)
    return low - margin, high + margin


def error_parts(
    profiles: Mapping[str, pd.DataFrame],
    metrics: pd.DataFrame | None = None,
    ax: Axes | None = None,
    *,
    split: str | None = None,
    show: bool = False,
    save: str | Path | None = None,
) -> Axes:
    """Mean MSE of each configuration as stacked bars of its two parts, direction and magnitude, with their sum.

    A bar that is far longer than the others is cut at the edge; this happens with losses that ignore magnitude.

    Parameters
    ----------
    profiles
        `profiles.csv` by configuration.
    metrics
        `metrics.csv`; adds the baselines of the first configuration.
    ax
        Axes to draw on.
    split
        By default test, if there are test profiles.
    """
    split = shown_split(profiles, split)
    parts = ("direction_error", "magnitude_error")
    bars = {name: [float(by_profile(table, split)[part].mean()) for part in parts] for name, table in profiles.items()}
    rows = list(bars.items())
    if metrics is not None:
        first = list(profiles)[:1]
        by_part = [baseline_values(metrics, first, split, part) for part in parts]
        rows += [(DRAWN[name].title, [by_part[0][name][0], by_part[1][name][0]]) for name in by_part[0]]
    ax = one_axes(ax, rows_size(len(rows)))
    direction, magnitude = np.array([values for _, values in rows]).T
    parts_drawn = (
        ("direction", direction, ax.barh(np.arange(len(rows)), direction, height=0.7, color=PALETTE[0])),
        ("magnitude", magnitude, ax.barh(np.arange(len(rows)), magnitude, 0.7, direction, color=PALETTE[4])),
    )
    for part, lengths, bars_drawn in parts_drawn:
        for (name, _), length, bar in zip(rows, lengths, bars_drawn, strict=True):
            name_drawn(bar, f"{name}: {length:.4g} due to {part}")
    _write_totals(ax, direction + magnitude)
    name_rows(ax, [name for name, _ in rows])
    ax.set_xlabel(axis_label("mse"))
    handles = [
        Line2D([], [], color=PALETTE[n], linewidth=7, label=f"due to {part}")
        for n, part in ((0, "direction"), (4, "magnitude"))
    ]
    add_legend([ax], handles)
    return finish(ax, show, save)


def _write_totals(ax: Axes, totals: np.ndarray) -> None:
    """Write the length of every bar at its end; a bar that is far longer than the others is cut at the edge."""
    known = totals[~np.isnan(totals)]  # empty if no profile has a direction
    edge = (1.18 * min(known.max(), 4 * known.min()) if len(known) else 0.0) or 1.0
    for place, total in enumerate(totals):
        is_cut = total > edge / 1.18 * 1.001
        written = f"{total:,.0f}" if total >= 1000 else f"{total:#.4g}"
        ax.annotate(
            f"{written} →" if is_cut else written,
            (edge if is_cut else total, place),
            (-4 if is_cut else 4, 0),
            textcoords="offset points",
            ha="right" if is_cut else "left",
            va="center",
            fontsize="small",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1} if is_cut else None,
        )
    ax.set_xlim(0, edge)
