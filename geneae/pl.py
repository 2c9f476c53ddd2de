"""The figures: each draws tables of run folders, on the axes it is given or on new ones.

Arms are given by name, in the order in which they are shown. A table of an arm holds the rows of all its seeds, one
after another; per-profile numbers are averaged over seeds before they are drawn. Colours are those of Okabe and Ito,
told apart by colour-blind people; beyond seven, line styles and markers differ too. Names come from strangers' files:
they are shown as they are, shortened, and never read as formulas.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from geneae.evaluation import CLEAR, HELD_OUT

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", ":")
MARKERS = ("o", "^", "s")
GREY = "#8a8a8a"
BASELINES = {"mean_profile": "mean profile", "pca": "PCA", "shrunken_pca": "shrunken PCA"}
BASELINE_LINES: dict[str, Any] = {"mean_profile": ":", "pca": "--", "shrunken_pca": "-.", "ceiling": "-"}
METRIC_TITLES = {
    HELD_OUT: "held-out cosine",
    "skill": "skill",
    "disattenuated_cosine": "disattenuated cosine",
    "cosine": "cosine",
    "centred_cosine": "centred cosine",
    "mse": "MSE",
    "rescaled_mse": "rescaled MSE",
    "relative_mse": "relative MSE",
    "norm_ratio": "norm ratio",
    "direction_error": "direction error",
    "magnitude_error": "magnitude error",
    "knn_20": "20-NN accuracy",
    "knn_200": "200-NN accuracy",
    "linear_probe": "linear probe accuracy",
    "ari": "ARI",
    "nmi": "NMI",
}
LOWER_IS_BETTER = ("mse", "rescaled_mse", "relative_mse", "direction_error", "magnitude_error")
NEITHER_IS_BETTER = (
    "norm_ratio",
    "latent_norm",
    "effective_rank",
    "view_cosine",
    "opposite_halves",
    "embedding_norm",
    "effective_gradient",
    "latent_spread",
)
FEW = 10  # values from which a smooth outline of their distribution can be drawn
MOST_LABELS = 20  # labels told apart in a figure; the rarer ones are left out, or drawn in grey
N_BINS = 20  # of genes of equal number, along the mean expression
LONGEST_NAME = 32  # characters
LEAST_NORM_RANGE = 0.1  # of norm ratios along the axis: smaller changes should look small
WIDE = 100.0  # ratio of largest to smallest value from which an axis is logarithmic


def shown(name: object, longest: int = LONGEST_NAME) -> str:
    """A name as text of a figure: printable, in one line, shortened in the middle, `$` escaped."""
    text = "".join(sign if sign.isprintable() else " " for sign in str(name)).strip() or "(no name)"
    if len(text) > longest:
        text = f"{text[: longest // 2]}…{text[-(longest - longest // 2 - 1) :]}"
    return text.replace("$", r"\$")


def title_of(metric: str) -> str:
    """A metric in words."""
    return METRIC_TITLES.get(metric, metric.replace("_", " "))


def axis_label(metric: str) -> str:
    """A metric in words, with its unit, and which way is better: the arrow points along the axis."""
    unit = ", mean over genes" if metric in ("mse", "rescaled_mse", "direction_error", "magnitude_error") else ""
    if metric in LOWER_IS_BETTER:
        return f"{title_of(metric)}{unit} (← lower is better)"
    return f"{title_of(metric)} (higher is better →)"


def rows_size(n_rows: int) -> tuple[float, float]:
    """Width and height, in inches, of a figure with a row for each arm."""
    return 9.0, 1.7 + 0.36 * n_rows


def panels_shape(n_panels: int) -> tuple[int, int]:
    """Rows and columns of small multiples."""
    n_columns = 3 if n_panels in (5, 6) else min(n_panels, 4)
    return -(-n_panels // n_columns), n_columns


def panels_size(n_panels: int, n_names: int = 1) -> tuple[float, float]:
    """Width and height, in inches, of small multiples, with room for a legend of so many names."""
    n_rows, n_columns = panels_shape(n_panels)
    width = {1: 6.5, 2: 9.0}.get(n_columns, 10.5)
    return width, n_rows * min(3.6, 0.9 * width / n_columns) + 0.9 + 0.09 * n_names


def label_size(n_labels: int, n_arms: int) -> tuple[float, float]:
    """Width and height, in inches, of `difference_by_label`."""
    return 9.0, 1.7 + 0.09 * n_arms + min(n_labels, MOST_LABELS) * float(np.clip(0.16 * n_arms, 0.34, 1.2))


def _new_axes(size: tuple[float, float], shape: tuple[int, int] = (1, 1)) -> list[Axes]:
    from matplotlib import pyplot as plt  # chooses a backend

    figure = plt.figure(figsize=size, layout="constrained")
    return [figure.add_subplot(*shape, number + 1) for number in range(shape[0] * shape[1])]


def _one(ax: Axes | None, size: tuple[float, float]) -> Axes:
    return _new_axes(size)[0] if ax is None else ax


def _several(axes: Sequence[Axes] | None, n_panels: int, n_names: int = 1) -> list[Axes]:
    """One of the axes for each panel; those left over are hidden."""
    found = _new_axes(panels_size(n_panels, n_names), panels_shape(n_panels)) if axes is None else list(axes)
    if len(found) < n_panels:
        raise ValueError(f"{n_panels} panels need as many axes; found {len(found)}.")
    for ax in found[n_panels:]:
        ax.set_visible(False)
    return found[:n_panels]


def arm_style(number: int) -> dict[str, Any]:
    """Colour and line style of the arm of that number; 21 differ."""
    return {
        "color": PALETTE[number % len(PALETTE)],
        "linestyle": LINE_STYLES[number // len(PALETTE) % len(LINE_STYLES)],
    }


def _legend(axes: Sequence[Axes], handles: list[Line2D], title: str | None = None) -> None:
    """Below everything where the layout makes room for that, else inside the last axes."""
    figure = axes[0].figure
    widest = max((len(str(handle.get_label())) for handle in handles), default=1)
    per_row = int(13 * figure.bbox.width / figure.dpi / (widest + 8))  # about 13 characters to an inch
    columns = max(1, min(len(handles), per_row))
    if figure.get_layout_engine() is not None:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=columns, fontsize="small", title=title, frameon=False
        )
    else:
        axes[-1].legend(handles=handles, fontsize="small", title=title)


def shown_split(profiles: Mapping[str, pd.DataFrame], split: str | None = None) -> str:
    """The split asked for; else `test` where there are test profiles, else the one that is there."""
    found = list(pd.unique(pd.concat([table["split"] for table in profiles.values()])))
    if split is None:
        return "test" if "test" in found else str(found[0])
    if split not in found:
        raise ValueError(f"no profile is in split '{split}'; there are {', '.join(map(str, found))}.")
    return split


def by_profile(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """Numbers of the profiles of a split, mean over seeds, and their label; indexed by profile."""
    chosen = table[table["split"] == split].groupby("profile", sort=False)
    means = chosen.mean(numeric_only=True)
    return means.assign(label=chosen["label"].first()) if "label" in table else means


def main_metric(profiles: Mapping[str, pd.DataFrame]) -> str:
    """`heldout_cosine` where there are such numbers, else `cosine`."""
    has_held_out = any(HELD_OUT in table and table[HELD_OUT].notna().any() for table in profiles.values())
    return HELD_OUT if has_held_out else "cosine"


def baseline_values(metrics: pd.DataFrame, arms: Sequence[str], split: str, metric: str) -> dict[str, list[float]]:
    """Mean over profiles and seeds of each baseline, and of the ceiling, beside each arm; NaN where there is none.

    Parameters
    ----------
    metrics
        Long: `metrics.csv` of a run, or of a comparison with its column `arm`.
    arms, split, metric
        In question. The ceiling is one of the held-out cosine.
    """
    means = metrics[(metrics["split"] == split) & (metrics["statistic"] == "mean")]
    wanted = {name: (name, metric) for name in BASELINES} | (
        {"ceiling": ("model", "ceiling")} if metric == HELD_OUT else {}
    )
    found = {}
    for name, (model, of) in wanted.items():
        rows = means[(means["model"] == model) & (means["metric"] == of)]
        values = [float((rows[rows["arm"] == arm] if "arm" in rows else rows)["value"].mean()) for arm in arms]
        if not np.isnan(values).all():
            found[name] = values
    return found


def cosine_distribution(
    profiles: Mapping[str, pd.DataFrame],
    metrics: pd.DataFrame | None = None,
    ax: Axes | None = None,
    *,
    metric: str | None = None,
    split: str | None = None,
) -> Axes:
    """Distribution over profiles of the cosine, a row for each arm, with lines for baselines and noise ceiling.

    A bar goes from the 5th to the 95th percentile, a dot marks the median, a diamond the mean. Lines are means, and are
    to be compared with the diamonds.

    Parameters
    ----------
    profiles
        `profiles.csv` by arm.
    metrics
        `metrics.csv`, for the lines.
    ax
        To draw on.
    metric
        A column of `profiles`; by default the held-out cosine where it is there, else the cosine with the own input.
    split
        By default test, where there are test profiles.
    """
    ax = _one(ax, rows_size(len(profiles)))
    metric, split = metric or main_metric(profiles), shown_split(profiles, split)
    for row, (number, table) in enumerate(enumerate(profiles.values())):
        values = by_profile(table, split)[metric].dropna().to_numpy(float)
        if len(values):
            _draw_distribution(ax, values, row, PALETTE[number % len(PALETTE)])
    if metrics is not None:
        _draw_baselines(ax, baseline_values(metrics, list(profiles), split, metric))
    _name_rows(ax, list(profiles))
    ax.set_xlabel(axis_label(metric))
    return ax


def _draw_distribution(ax: Axes, values: np.ndarray, row: int, color: str) -> None:
    if len(np.unique(values)) >= FEW:
        outline = ax.violinplot(values, positions=[row], orientation="horizontal", widths=0.8, showextrema=False)
        bodies: Any = outline["bodies"]  # a list, whatever the types of matplotlib say
        for body in bodies:
            body.set(facecolor=color, alpha=0.3, edgecolor=color)
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95])
    ax.plot([low, high], [row, row], color=color, linewidth=2, solid_capstyle="butt")
    ax.plot([median], [row], "o", color=color, markersize=6)
    ax.plot([values.mean()], [row], "D", markerfacecolor="white", markeredgecolor=color, markersize=5)


def _draw_baselines(ax: Axes, lines: dict[str, list[float]]) -> None:
    """A line through each row; equal ones join to one line. Names stand above, one below another."""
    order = sorted(lines, key=lambda name: np.nanmean(lines[name]))
    values = {name: next(value for value in lines[name] if not np.isnan(value)) for name in order}
    for height, name in enumerate(order):
        ax.vlines(
            lines[name],
            np.arange(len(lines[name])) - 0.5,
            np.arange(len(lines[name])) + 0.5,
            colors="#333333",
            linestyles=BASELINE_LINES[name],
            linewidth=1.3,
            label=name,
        )
        title = {"ceiling": "noise ceiling", **BASELINES}[name]
        is_one = np.nanmax(lines[name]) - np.nanmin(lines[name]) < 5e-5
        place = list(values).index(name)
        ax.annotate(
            f"{title} {values[name]:.4f}" if is_one else f"{title} (differs by arm)",
            (values[name], 1.0),
            (-4 if place < len(order) / 2 else 4, 5 + 12 * height),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if place < len(order) / 2 else "left",
            fontsize="small",
            arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": GREY, "shrinkA": 0, "shrinkB": 0},
            annotation_clip=False,
        )


def _name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Names at the rows, the first at the top."""
    ax.set_yticks(range(len(names)), [shown(name) for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right"]].set_visible(False)


def cosine_against_mse(
    profiles: Mapping[str, pd.DataFrame], axes: Sequence[Axes] | None = None, *, split: str | None = None
) -> list[Axes]:
    """Cosine with the own input against MSE, a dot for each profile and a panel for each arm, all on the same scales.

    Colour is the number of molecules, on a logarithmic scale, where the tables have a column `molecules`.
    """
    found = _several(axes, len(profiles))
    split = shown_split(profiles, split)
    tables = [by_profile(table, split) for table in profiles.values()]
    norm = _molecules_norm(tables)
    is_grid, n_columns = _is_grid(found), panels_shape(len(found))[1]
    errors, cosines = (np.concatenate([table[name].dropna() for table in tables]) for name in ("mse", "cosine"))
    for number, (ax, name, table) in enumerate(zip(found, profiles, tables, strict=True)):
        coloured = {"color": PALETTE[0]}
        colours = {"c": table["molecules"], "norm": norm, "cmap": "viridis"} if norm is not None else coloured
        ax.scatter(table["mse"], table["cosine"], s=_dot_size(len(table)), alpha=0.8, linewidths=0, **colours)
        _set_title(ax, name, len(found))
        _set_range(ax, errors, cosines)
        is_left = not is_grid or number % n_columns == 0
        is_bottom = not is_grid or number + n_columns >= len(found)
        ax.tick_params(labelleft=is_left, labelbottom=is_bottom)
        if is_bottom:
            ax.set_xlabel("MSE (← lower is better)" if len(found) < 3 else "← MSE")
        if is_left:
            ax.set_ylabel(axis_label("cosine") if len(found) < 3 else "cosine →")
    if norm is not None:
        slimness = 10 + 15 * panels_shape(len(found))[0]
        bar = found[0].figure.colorbar(
            ScalarMappable(norm, "viridis"), ax=found, label="molecules per profile", pad=0.02, aspect=slimness
        )
        _plain_log(bar.ax.yaxis, norm.vmin or 1.0, norm.vmax or 1.0)
    return found


def _set_title(ax: Axes, name: str, n_panels: int) -> None:
    """Short enough not to run into the title of the next panel."""
    is_narrow = panels_shape(n_panels)[1] > 2
    ax.set_title(shown(name, 24 if is_narrow else LONGEST_NAME), fontsize="small" if is_narrow else "medium", y=1.0)


def _is_grid(axes: Sequence[Axes]) -> bool:
    """Whether axes lie as `panels_shape` would have them, so that inner ones need no numbers of their own."""
    specs = [ax.get_subplotspec() for ax in axes]
    n_columns = panels_shape(len(axes))[1]
    return all(
        spec is not None and (spec.colspan.start, spec.rowspan.start) == (n % n_columns, n // n_columns)
        for n, spec in enumerate(specs)
    )


def _molecules_norm(tables: list[pd.DataFrame]) -> Normalize | None:
    if not all("molecules" in table for table in tables):
        return None
    molecules = np.concatenate([table["molecules"].to_numpy(float) for table in tables])
    molecules = molecules[np.isfinite(molecules) & (molecules > 0)]
    if not len(molecules):
        return None
    low, high = float(molecules.min()), float(molecules.max())
    return LogNorm(low, high) if high > low else LogNorm(low / 2, high * 2)


def _plain_log(axis: Axis, low: float, high: float) -> None:
    """Ticks of a logarithmic axis as plain numbers that do not run into each other."""
    decades = np.log10(high / low)
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 3 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1000 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _dot_size(n_dots: int) -> float:
    """Area of a dot in square points: smaller where there are more, never too small to be seen."""
    return float(np.clip(6000 / max(n_dots, 1), 3, 24))


def _set_range(ax: Axes, errors: np.ndarray, cosines: np.ndarray) -> None:
    """The same range for all panels, with a margin; logarithmic where the errors of arms are of different magnitude."""
    if len(errors) and errors.min() > 0 and errors.max() / errors.min() > WIDE:
        ax.set_xscale("log")
        ax.set_xlim(errors.min() / 1.2, errors.max() * 1.2)
        _plain_log(ax.xaxis, errors.min(), errors.max())
    elif len(errors):
        margin = 0.05 * (errors.max() - errors.min()) or 0.05
        ax.set_xlim(errors.min() - margin, errors.max() + margin)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    if len(cosines):
        margin = 0.05 * (cosines.max() - cosines.min()) or 0.05
        ax.set_ylim(cosines.min() - margin, cosines.max() + margin)


def error_parts(
    profiles: Mapping[str, pd.DataFrame],
    metrics: pd.DataFrame | None = None,
    ax: Axes | None = None,
    *,
    split: str | None = None,
) -> Axes:
    """Mean MSE of each arm as its two parts, direction and magnitude, stacked; the number is their sum.

    A bar that is far longer than the others is cut at the edge, as happens to losses that do not see magnitude.

    Parameters
    ----------
    profiles
        `profiles.csv` by arm.
    metrics
        `metrics.csv`; adds the baselines, those beside the first arm.
    ax
        To draw on.
    split
        By default test, where there are test profiles.
    """
    split = shown_split(profiles, split)
    parts = ("direction_error", "magnitude_error")
    bars = {name: [float(by_profile(table, split)[part].mean()) for part in parts] for name, table in profiles.items()}
    rows = list(bars.items())
    if metrics is not None:
        first = list(profiles)[:1]
        by_part = [baseline_values(metrics, first, split, part) for part in parts]
        rows += [(BASELINES[name], [by_part[0][name][0], by_part[1][name][0]]) for name in by_part[0]]
    ax = _one(ax, rows_size(len(rows)))
    direction, magnitude = np.array([values for _, values in rows]).T
    totals = direction + magnitude
    places = np.arange(len(rows))
    ax.barh(places, direction, height=0.7, color=PALETTE[0], label="direction")
    ax.barh(places, magnitude, height=0.7, left=direction, color=PALETTE[4], label="magnitude")
    edge = 1.18 * min(np.nanmax(totals), 4 * np.nanmin(totals)) or 1.0
    for place, total in enumerate(totals):
        is_cut = total > edge / 1.18 * 1.001
        ax.annotate(
            f"{total:.4g} →" if is_cut else f"{total:.4g}",
            (edge if is_cut else total, place),
            (-4 if is_cut else 4, 0),
            textcoords="offset points",
            ha="right" if is_cut else "left",
            va="center",
            fontsize="small",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1} if is_cut else None,
        )
    ax.set_xlim(0, edge)
    _name_rows(ax, [name for name, _ in rows])
    ax.set_xlabel(axis_label("mse"))
    handles = [
        Line2D([], [], color=PALETTE[n], linewidth=7, label=f"due to {part}")
        for n, part in ((0, "direction"), (4, "magnitude"))
    ]
    _legend([ax], handles)
    return ax


def mean_curve(histories: Sequence[pd.DataFrame], column: str) -> pd.Series:
    """Mean over seeds by epoch, as far as the shortest history goes: a mean over others from there on would jump."""
    curves = [history.set_index("epoch")[column] for history in histories]
    return pd.concat(curves, axis=1, join="inner").mean(axis=1)


def _draw_curves(ax: Axes, histories: Mapping[str, Sequence[pd.DataFrame]], column: str) -> None:
    for number, several in enumerate(histories.values()):
        style = arm_style(number)
        if len(several) > 1:
            for history in several:
                ax.plot(history["epoch"], history[column], **style, linewidth=0.6, alpha=0.5)
        mean = mean_curve(several, column)
        marker: dict[str, Any] = {"marker": "o", "markersize": 3} if len(mean) < FEW else {}
        ax.plot(mean.index, mean.to_numpy(), **style, linewidth=2, **marker)
    values = np.concatenate([history[column].to_numpy(float) for several in histories.values() for history in several])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() / values.min() > WIDE:
        ax.set_yscale("log")
        _plain_log(ax.yaxis, values.min(), values.max())
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)


def _arm_handles(names: Sequence[str]) -> list[Line2D]:
    return [Line2D([], [], **arm_style(n), linewidth=2, label=shown(name)) for n, name in enumerate(names)]


def training_curves(histories: Mapping[str, Sequence[pd.DataFrame]], axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Validation cosine and validation MSE by epoch: the mean over seeds, and a thin line for each seed.

    Parameters
    ----------
    histories
        `history.csv` of every seed, by arm.
    axes
        Two, to draw on.
    """
    found = _several(axes, 2, len(histories))
    for ax, metric in zip(found, ("cosine", "mse"), strict=True):
        _draw_curves(ax, histories, f"validation_{metric}")
        better = "← lower is better" if metric == "mse" else "higher is better →"
        ax.set_ylabel(f"validation {title_of(metric)} ({better})")
    _legend(found, _arm_handles(list(histories)))
    return found


def encoder_curves(histories: Mapping[str, Sequence[pd.DataFrame]], axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Cosine of two views, share of opposite ones, and k-NN accuracy where there are labels, by epoch.

    Parameters
    ----------
    histories
        `history.csv` of every seed, by arm; each learns by views.
    axes
        Two or, with labels, three to draw on.
    """
    titles = {"view_cosine": "cosine of two views", "opposite_halves": "share of views below cosine 0"}
    if all("validation_knn_20" in history for several in histories.values() for history in several):
        titles["validation_knn_20"] = "validation 20-NN accuracy (higher is better →)"
    found = _several(axes, len(titles), len(histories))
    for ax, (column, title) in zip(found, titles.items(), strict=True):
        _draw_curves(ax, histories, column)
        ax.set_ylabel(title)
    _legend(found, _arm_handles(list(histories)))
    return found


def norm_by_epoch(histories: Mapping[str, Sequence[pd.DataFrame]], ax: Axes | None = None) -> Axes:
    """Median over validation profiles of norm of prediction over norm of target, by epoch; 1 means equal lengths.

    A prediction of noisy molecules has the least squared error where this ratio equals the cosine, below 1.
    """
    ax = _one(ax, panels_size(1, len(histories)))
    _draw_curves(ax, histories, "norm_ratio")
    low, high = ax.get_ylim()
    if high - low < LEAST_NORM_RANGE:
        middle = (low + high) / 2
        low, high = middle - LEAST_NORM_RANGE / 2, middle + LEAST_NORM_RANGE / 2
    ax.axhline(1.0, color=GREY, linewidth=0.8)
    ax.set_ylim(low, high)
    ax.set_ylabel("norm of prediction / norm of target")
    _legend([ax], _arm_handles(list(histories)))
    return ax


def label_differences(profiles: Mapping[str, pd.DataFrame], metric: str, split: str) -> pd.DataFrame:
    """Difference of every arm to the first, by label: label, arm, difference, low, high, n_profiles.

    Differences are taken profile by profile, after the mean over seeds; the interval is the normal 95 % one over
    profiles, NaN for a single profile. Labels come with the most frequent first.
    """
    tables = {name: by_profile(table, split) for name, table in profiles.items()}
    first = next(iter(tables.values()))
    rows = []
    for label in first["label"].value_counts().index:
        chosen = first.index[first["label"] == label]
        for name, table in list(tables.items())[1:]:
            differences = (table[metric].reindex(chosen) - first.loc[chosen, metric]).dropna().to_numpy(float)
            if len(differences):
                mean, n = float(differences.mean()), len(differences)
                error = CLEAR * float(differences.std(ddof=1)) / n**0.5 if n > 1 else float("nan")
                rows.append((label, name, mean, mean - error, mean + error, n))
    return pd.DataFrame(rows, columns=["label", "arm", "difference", "low", "high", "n_profiles"])


def difference_by_label(
    profiles: Mapping[str, pd.DataFrame],
    ax: Axes | None = None,
    *,
    metric: str | None = None,
    split: str | None = None,
) -> Axes:
    """Difference of each arm to the first by label of the profiles (cell type, say), with 95 % intervals over profiles.

    Needs two arms and a column `label`. The 20 most frequent labels are drawn.
    """
    if len(profiles) < 2 or not all("label" in table for table in profiles.values()):
        raise ValueError("a difference by label needs at least two arms, and tables with a column 'label'.")
    metric, split = metric or main_metric(profiles), shown_split(profiles, split)
    table = label_differences(profiles, metric, split)
    labels = list(dict.fromkeys(table["label"]))[:MOST_LABELS]
    reference, *arms = profiles
    ax = _one(ax, label_size(len(labels), len(arms)))
    ax.axvline(0.0, color=GREY, linewidth=0.8)
    for number, arm in enumerate(arms):
        rows = table[(table["arm"] == arm) & table["label"].isin(labels)]
        places = np.array([labels.index(label) for label in rows["label"]]) + _dodge(number, len(arms))
        errors = (rows["high"] - rows["difference"]).fillna(0.0)
        style = arm_style(number + 1)
        marker = MARKERS[(number + 1) // len(PALETTE) % len(MARKERS)]
        ax.errorbar(
            rows["difference"], places, xerr=errors, fmt=marker, color=style["color"], markersize=4, linewidth=1.2
        )
    counts = table.groupby("label")["n_profiles"].max()
    _name_rows(ax, labels)
    ax.set_yticks(range(len(labels)), [f"{shown(label)} ({counts[label]:,})" for label in labels])
    for edge in range(1, len(labels)):
        ax.axhline(edge - 0.5, color="#e4e4e4", linewidth=0.6)
    better = "← left is better" if metric in LOWER_IS_BETTER else "right is better →"
    ax.set_xlabel(f"difference in {title_of(metric)} to {shown(reference)} ({better})")
    markers = [
        Line2D([], [], color=arm_style(n + 1)["color"], marker=MARKERS[(n + 1) // len(PALETTE) % 3], label=shown(arm))
        for n, arm in enumerate(arms)
    ]
    _legend([ax], markers)
    return ax


def _dodge(number: int, n_arms: int) -> float:
    """Offset of an arm within its row, so that intervals do not hide each other."""
    return 0.0 if n_arms == 1 else 0.7 * (number / (n_arms - 1) - 0.5)


def running_median(genes: pd.DataFrame) -> pd.DataFrame:
    """mean and correlation, medians in up to 20 bins of equally many genes, in order of mean expression."""
    known = genes.dropna(subset=["mean", "correlation"]).sort_values("mean", kind="stable")
    edges = np.linspace(0, len(known), min(N_BINS, len(known)) + 1).astype(int)
    return pd.DataFrame([known.iloc[low:high][["mean", "correlation"]].median() for low, high in pairwise(edges)])


def by_gene(genes: pd.DataFrame) -> pd.DataFrame:
    """mean and correlation of every gene, mean over seeds."""
    return genes.groupby("gene", sort=False)[["mean", "correlation"]].mean()


def gene_correlation(genes: Mapping[str, pd.DataFrame], ax: Axes | None = None) -> Axes:
    """Correlation over profiles of a gene with its prediction, against its mean expression.

    Lines are medians in bins of equally many genes; the genes themselves are dots where there is one arm.

    Parameters
    ----------
    genes
        `genewise.csv` by arm.
    ax
        To draw on.
    """
    ax = _one(ax, panels_size(1, len(genes)))
    tables = [by_gene(table).dropna() for table in genes.values()]
    if len(tables) == 1:
        table = tables[0]
        ax.scatter(table["mean"], table["correlation"], s=3, alpha=0.25, color=PALETTE[0], linewidths=0)
    for number, table in enumerate(tables):
        medians = running_median(table)
        if len(medians):
            color = {"color": "#000000"} if len(tables) == 1 else {}
            width = 2.0 + 3.0 * (len(tables) - 1 - number) / len(tables)  # of equal lines, the lower ones stay visible
            ax.plot(medians["mean"], medians["correlation"], **(arm_style(number) | color), linewidth=width)
    means = np.concatenate([table["mean"].to_numpy(float) for table in tables])
    if len(means) and means.min() > 0:
        ax.set_xscale("log")
        _plain_log(ax.xaxis, means.min(), means.max())
    ax.axhline(0.0, color=GREY, linewidth=0.8)
    ax.set_xlabel("mean expression of the gene, in the space of the model")
    ax.set_ylabel("correlation with its prediction (higher is better →)")
    ax.spines[["top", "right"]].set_visible(False)
    names = _arm_handles(list(genes))
    if len(tables) == 1:
        names = [Line2D([], [], color="#000000", linewidth=2, label=f"median, {shown(next(iter(genes)))}")]
    _legend([ax], names)
    return ax


def umap(tables: Mapping[str, pd.DataFrame], axes: Sequence[Axes] | None = None, *, title: str = "label") -> list[Axes]:
    """UMAP of the latent of each arm side by side, coloured by label: the 20 most frequent, others in grey.

    More than 20 different numbers are drawn on a continuous scale. Distances between groups mean little in a UMAP.

    Parameters
    ----------
    tables
        `umap.csv` by arm.
    axes
        To draw on, one for each arm.
    title
        What the labels are: the name of a column of `obs`.
    """
    found = _several(axes, len(tables))
    labels = pd.concat([table["label"] for table in tables.values()]).astype(str)
    numbers = pd.to_numeric(labels, errors="coerce")
    is_continuous = bool(numbers.notna().all()) and numbers.nunique() > MOST_LABELS
    kinds = [str(kind) for kind in labels.value_counts().index]
    norm = Normalize(float(numbers.min()), float(numbers.max())) if is_continuous else None
    for ax, (name, table) in zip(found, tables.items(), strict=True):
        size = _dot_size(len(table))
        if norm is not None:
            values = pd.to_numeric(table["label"])
            ax.scatter(table["umap_1"], table["umap_2"], c=values, norm=norm, cmap="viridis", s=size, linewidths=0)
        else:
            _draw_kinds(ax, table, kinds, size)
        _set_title(ax, name, len(found))
        ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    if norm is not None:
        found[0].figure.colorbar(ScalarMappable(norm, "viridis"), ax=found, label=shown(title), pad=0.02)
        return found
    handles = [
        Line2D([], [], linestyle="none", color=_kind_style(n)[0], marker=_kind_style(n)[1], label=shown(kind))
        for n, kind in enumerate(kinds[:MOST_LABELS])
    ]
    if len(kinds) > MOST_LABELS:
        left = len(kinds) - MOST_LABELS
        handles.append(Line2D([], [], linestyle="none", color=GREY, marker=".", label=f"{left} rarer ones"))
    _legend(found, handles, shown(title))
    return found


def _kind_style(number: int) -> tuple[str, str]:
    return PALETTE[number % len(PALETTE)], MARKERS[number // len(PALETTE) % len(MARKERS)]


def _draw_kinds(ax: Axes, table: pd.DataFrame, kinds: list[str], size: float) -> None:
    """One layer of dots for each marker; rarer kinds in grey below all others."""
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


def paired_differences(
    paired: pd.DataFrame, ax: Axes | None = None, *, metric: str | None = None, split: str | None = None
) -> Axes:
    """Difference of every arm to the reference on one metric, with its interval; colour and marker give the verdict.

    Parameters
    ----------
    paired
        `paired.csv`.
    ax
        To draw on.
    metric, split
        By default the held-out cosine where it is there, else the cosine; test, where there are test profiles.
    """
    metric = metric or (HELD_OUT if (paired["metric"] == HELD_OUT).any() else "cosine")
    split = split or shown_split({"": paired})
    rows = paired[(paired["metric"] == metric) & (paired["split"] == split)]
    if rows.empty:
        raise ValueError(f"there is no difference in {metric} on {split} profiles.")
    ax = _one(ax, rows_size(len(rows)))
    ax.axvline(0.0, color=GREY, linewidth=0.8)
    kinds = {
        "better": (PALETTE[0], "o"),
        "worse": (PALETTE[1], "s"),
        "no clear difference": (GREY, "D"),
        "not comparable": (GREY, "x"),
    }
    kind = [verdict if verdict in kinds else "no clear difference" for verdict in rows["verdict"]]
    for place, (of, difference, low, high) in enumerate(
        zip(kind, rows["difference"], rows["low"], rows["high"], strict=True)
    ):
        color, marker = kinds[of]
        ax.plot([low, high], [place, place], color=color, linewidth=2)
        ax.plot([difference], [place], marker=marker, color=color, markersize=6)
    _name_rows(ax, list(rows["arm"]))
    reach = 1.15 * float(np.nanmax(np.abs(rows[["difference", "low", "high"]].to_numpy(float))))
    reach = reach if reach > 0 else 1e-3
    ax.set_xlim(-reach, reach)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    better = "← left is better" if (rows["better"] == "lower").any() else "right is better →"
    ax.set_xlabel(f"difference in {title_of(metric)} to {shown(rows['reference'].iloc[0])} ({better})")
    _legend(
        [ax],
        [
            Line2D([], [], color=color, marker=marker, linewidth=2, label=name)
            for name, (color, marker) in kinds.items()
            if name in kind
        ],
    )
    return ax
