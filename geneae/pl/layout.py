"""Layout of figures: sizes, panels, legends and ticks."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from geneae.pl.style import LONGEST_NAME, MOST_LABELS, arm_style, colors_of_numbers, shown

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
Drawn = TypeVar("Drawn", Axes, list[Axes])


def rows_size(n_rows: int) -> tuple[float, float]:
    """Width and height, in inches, of a figure with a row for each configuration."""
    return 9.0, 1.7 + 0.36 * n_rows


def panels_shape(n_panels: int) -> tuple[int, int]:
    """Numbers of rows and columns of a grid of panels."""
    n_columns = 3 if n_panels in (5, 6) else min(n_panels, 4)
    return -(-n_panels // n_columns), n_columns


def panels_size(n_panels: int, n_names: int = 1) -> tuple[float, float]:
    """Width and height, in inches, of a grid of panels, with room for a legend of `n_names` names."""
    n_rows, n_columns = panels_shape(n_panels)
    width = {1: 5.4, 2: 9.0}.get(n_columns, 10.5)
    return width, n_rows * min(3.6, 0.9 * width / n_columns) + 0.9 + 0.09 * n_names


def label_size(n_labels: int, n_arms: int) -> tuple[float, float]:
    """Width and height, in inches, of `difference_by_label`."""
    return 9.0, 1.7 + 0.09 * n_arms + min(n_labels, MOST_LABELS) * float(np.clip(0.16 * n_arms, 0.34, 1.2))


def new_axes(size: tuple[float, float], shape: tuple[int, int] = (1, 1)) -> list[Axes]:
    """Axes on a new pyplot figure, which a notebook shows."""
    from matplotlib import pyplot as plt  # chooses a backend

    return fill(plt.figure(figsize=size, layout="constrained"), shape)


def fill(figure: Figure, shape: tuple[int, int]) -> list[Axes]:
    """Axes for a grid of panels, added to a figure row by row."""
    return [figure.add_subplot(*shape, number + 1) for number in range(shape[0] * shape[1])]


def add_colorbar(axes: Sequence[Axes], norm: Normalize, label: str) -> Colorbar:
    """A bar of the colours of numbers beside all panels, equally slim whatever the number of their rows."""
    place = axes[0].get_subplotspec()
    n_rows = 1 if place is None else place.get_gridspec().nrows
    mappable = ScalarMappable(norm, colors_of_numbers())
    return axes[0].figure.colorbar(mappable, ax=axes, label=label, pad=0.02, aspect=10 + 15 * n_rows)


def one_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """The given axes, or new ones."""
    return new_axes(size)[0] if ax is None else ax


def several_axes(axes: Sequence[Axes] | None, n_panels: int, n_names: int = 1) -> list[Axes]:
    """Axes for the panels, given or new; the remaining given ones are hidden. `ValueError` if too few are given."""
    found = new_axes(panels_size(n_panels, n_names), panels_shape(n_panels)) if axes is None else list(axes)
    if len(found) < n_panels:
        raise ValueError(
            f"{n_panels} panels need {n_panels} axes; found {len(found)}. Pass more axes, or none to make new ones."
        )
    for ax in found[n_panels:]:
        ax.set_visible(False)
    return found[:n_panels]


def finish(drawn: Drawn, show: bool, save: str | Path | None) -> Drawn:
    """Return the axes of a finished figure, after saving and showing it if requested."""
    figure = (drawn if isinstance(drawn, Axes) else drawn[0]).get_figure(root=True)
    if save is not None and figure is not None:
        figure.savefig(save, dpi=150, bbox_inches="tight")
    if show:
        from matplotlib import pyplot as plt  # chooses a backend

        plt.show()
    return drawn


def add_legend(axes: Sequence[Axes], handles: list[Line2D], title: str | None = None) -> None:
    """Add a legend below the figure if its layout engine makes room for it, otherwise inside the last axes."""
    figure = axes[0].figure
    widest = max((len(str(handle.get_label())) for handle in handles), default=1)
    per_row = int(13 * figure.bbox.width / figure.dpi / (widest + 8))  # about 13 characters per inch
    columns = max(1, min(len(handles), per_row))
    if figure.get_layout_engine() is not None:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=columns, fontsize="small", title=title, frameon=False
        )
    else:
        axes[-1].legend(handles=handles, fontsize="small", title=title)


def is_narrow(ax: Axes) -> bool:
    """Whether a figure has the width of one panel, as on a phone."""
    return ax.figure.bbox.width / ax.figure.dpi <= panels_size(1)[0]


def name_axis(ax: Axes, label: str) -> None:
    """Label the horizontal axis; what stands in brackets gets a line of its own where the figure is narrow."""
    width = ax.figure.bbox.width / ax.figure.dpi
    ax.set_xlabel(label.replace(" (", "\n(") if len(label) > 8 * width else label)  # 8 characters per inch, off centre


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Label the rows with names, the first at the top."""
    ax.set_yticks(range(len(names)), [shown(name) for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right"]].set_visible(False)


def dodge(number: int, n_arms: int) -> float:
    """Vertical offset of a configuration within its row, so that intervals do not hide each other."""
    return 0.0 if n_arms == 1 else 0.6 * (number / (n_arms - 1) - 0.5)


def set_title(ax: Axes, name: str, n_panels: int) -> None:
    """Set a title, shortened so that it does not run into the title of the next panel."""
    is_narrow = panels_shape(n_panels)[1] > 2
    ax.set_title(shown(name, 24 if is_narrow else LONGEST_NAME), fontsize="small" if is_narrow else "medium", y=1.0)


def is_in_a_row(ax: Axes) -> bool:
    """Whether axes are one of four or more panels beside each other, where tick labels have little room."""
    spec = ax.get_subplotspec()
    return spec is not None and spec.get_gridspec().ncols > 3


def lies_in_grid(axes: Sequence[Axes]) -> bool:
    """Whether axes form the grid of `panels_shape`, so that inner panels need no tick labels."""
    specs = [ax.get_subplotspec() for ax in axes]
    n_columns = panels_shape(len(axes))[1]
    return all(
        spec is not None and (spec.colspan.start, spec.rowspan.start) == (n % n_columns, n // n_columns)
        for n, spec in enumerate(specs)
    )


def use_plain_log(axis: Axis, low: float, high: float) -> None:
    """Show ticks of a logarithmic axis as plain numbers that do not run into each other."""
    decades = np.log10(high / low)
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 3 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    axis.set_minor_formatter(NullFormatter())


def _plain(value: float) -> str:
    """`1,000`, never `1e3`; powers of ten from a million on and below a thousandth as powers, which are shorter."""
    exponent = np.log10(value) if value > 0 else 0.0
    if (value >= 1e6 or value < 1e-3) and np.isclose(exponent, round(exponent)):
        return f"10{str(round(exponent)).translate(RAISED)}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def dot_size(n_dots: int) -> float:
    """Area of a dot in square points, 3 to 24: smaller for more dots, but always visible."""
    return float(np.clip(6000 / max(n_dots, 1), 3, 24))


def arm_handles(names: Sequence[str]) -> list[Line2D]:
    """Legend entry of each configuration."""
    return [Line2D([], [], **arm_style(n), linewidth=2, label=shown(name)) for n, name in enumerate(names)]
