"""Labels, colours and markers shared by all figures.

The colours of Okabe and Ito can be distinguished by colour-blind people. A violet stands for their black, which is not
seen in the dark: of all colours seen on white and in the dark it is farthest from the others, to those people, too.
Beyond seven, line styles and markers differ. Names come from arbitrary files: they are shown as they are, shortened,
and never interpreted as formulas.
"""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, ListedColormap

from geneae.evaluation.table import metric_facts

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#9018F0")
LINE_STYLES = ("-", "--", ":")
MARKERS = ("o", "^", "s")
GREY = "#8a8a8a"
INK = "#333333"
FAINT = "#e4e4e4"
COLORMAP = "viridis"
COLORS_OF_NUMBERS = (0.2, 0.88)  # part of it whose ends are seen on white and in the dark
FEW = 10  # smallest number of values for a smooth outline of their distribution, or for a curve without markers
MOST_LABELS = 20  # labels distinguished in a figure; rarer ones are left out or drawn in grey
LONGEST_NAME = 32  # characters
WIDE = 100.0  # ratio of largest to smallest value above which an axis is logarithmic

DYNAMICS = {
    "reconstruction_norm": "norm of prediction\n(median)",
    "gradient_norm": "gradient at prediction\n(mean norm)",
    "gradient_times_norm": "gradient x norm\n(cosine: mean sine)",
    "effective_rank": "effective rank\nof the latent",
}
"""Columns of `history.csv` that describe the course of training, and titles short enough for adjacent panels."""


def shown(name: object, longest: int = LONGEST_NAME) -> str:
    """A name as text in a figure: printable, on one line, shortened in the middle, `$` escaped."""
    text = "".join(sign if sign.isprintable() else " " for sign in str(name)).strip() or "(no name)"
    if len(text) > longest:
        text = f"{text[: longest // 2]}…{text[-(longest - longest // 2 - 1) :]}"
    return text.replace("$", r"\$")


def axis_label(metric: str) -> str:
    """Title of a metric with its unit and the better direction; the arrow points along the axis."""
    facts = metric_facts(metric)
    title = f"{facts.title}, {facts.unit}" if facts.unit else facts.title
    return title + better_way(facts.better)


def better_way(better: str, low: str = "lower", high: str = "higher") -> str:
    """Text in parentheses after the title of an axis; its arrow points to the better end. Empty if neither is better.

    Parameters
    ----------
    better
        `higher`, `lower` or empty.
    low, high
        Words for the two ends of the axis.
    """
    return {"lower": f" (← {low} is better)", "higher": f" ({high} is better →)"}.get(better, "")


def colors_of_numbers() -> Colormap:
    """Colour scale of numbers, from low to high."""
    return ListedColormap(colormaps[COLORMAP](np.linspace(*COLORS_OF_NUMBERS, 256)))


def arm_style(number: int) -> dict[str, Any]:
    """Colour and line style of configuration `number`; 21 combinations, then they repeat."""
    return {
        "color": PALETTE[number % len(PALETTE)],
        "linestyle": LINE_STYLES[number // len(PALETTE) % len(LINE_STYLES)],
    }


def marker_of(number: int) -> str:
    """Marker of configuration or label `number`; together with its colour one of 21 combinations."""
    return MARKERS[number // len(PALETTE) % len(MARKERS)]
