"""Cells and tables of the report, and the format of its numbers."""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from geneae.evaluation.table import title_of, with_arrow
from geneae.settings.text import escaped

KEPT = "\N{NO-BREAK SPACE}"  # a line of a narrow cell may end before what it joins, not within
HYPHENATED = {
    word.replace("-", ""): word.replace("-", "&shy;")
    for word in (
        "accu-racy", "compar-able", "configu-ration", "corre-lation", "differ-ence", "direc-tion", "disattenu-ated",
        "expres-sion", "magni-tude", "mole-cules", "neigh-bours",
    )
}  # fmt: skip
"""Long words of column headings, with the place where a narrow column may break them."""
LARGE = 1e7  # larger numbers are too wide for a table
NOTHING = 1e-7  # smaller numbers are rounding errors of single precision


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    """Text as shown."""
    value: str = ""
    """Sort key, a number with all digits; empty if the cell is sorted by its text."""
    kind: str = ""
    """CSS class."""


@dataclass(frozen=True)
class Table:
    """A table of the report."""

    title: str
    """Caption."""
    headers: tuple[str, ...]
    """Column headings; the first column names the rows."""
    rows: list[list[Cell]]
    """Cells of each row."""
    note: str = ""
    """Explanation below the table."""


def hyphenated(text: str) -> Markup:
    """The text for a page, in which a browser may break long words."""
    shown = str(escape(escaped(text)))
    for word, broken in HYPHENATED.items():
        shown = shown.replace(word, broken)
    return Markup(shown)


def number(value: float) -> str:
    """Text of a number: four decimals, none from 1,000, powers of ten below 0.001 and from 10^7; `–` if not finite."""
    if not np.isfinite(value):
        return "–"
    size = abs(value)
    if size >= LARGE:
        return f"{value:.2e}"
    if size >= 1000:
        return f"{value:,.0f}"
    if size < NOTHING:
        return "0.0000"
    return f"{value:.4f}" if size >= 0.001 else f"{value:.2e}"


def number_cell(value: float, text: str | None = None) -> Cell:
    """Cell of a number, sorted by all of its digits; `text` replaces the format of `number`."""
    is_known = bool(np.isfinite(value))
    text = number(value) if text is None or not is_known else text
    return Cell(text, repr(float(value)) if is_known else "", "number")


def count_cell(value: float) -> Cell:
    """Cell of a whole number."""
    return number_cell(value, f"{value:,.0f}")


def show_range(low: float, high: float) -> str:
    """`low to high`, or a single number if both are equal."""
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def metric_header(metric: str, better: str) -> str:
    """Title of a metric with an arrow for the better direction: `higher`, `lower` or empty."""
    return with_arrow(title_of(metric), better, space=KEPT)


def mean_cell(values: list[float]) -> Cell:
    """Cell of the mean over runs, ± their standard deviation if there are several."""
    known = np.array([value for value in values if np.isfinite(value)])
    if not len(known):
        return number_cell(float("nan"))
    mean = float(known.mean()) if len(known) > 1 else float(known[0])
    if len(known) == 1:
        return number_cell(mean)
    spread = float(known.std(ddof=1))
    shown = f"{spread:.4f}"
    if NOTHING < abs(mean) < 0.001:  # too small for four decimals
        shown = f"{spread:.2e}"
    elif abs(mean) >= 1000:  # too large for decimals
        shown = f"{spread:,.0f}" if abs(mean) < LARGE else f"{spread:.2e}"
    return number_cell(mean, f"{number(mean)} ±{KEPT}{shown}")


def show_difference(value: float) -> str:
    """Number with sign and five decimals, two from 10, none from 1,000; without sign if it rounds to zero."""
    size = abs(value)
    if not np.isfinite(value):
        return "–"
    if size >= LARGE:
        return f"{value:+.1e}"
    if size >= 10:
        return f"{value:+,.0f}" if size >= 1000 else f"{value:+.2f}"
    return f"{value:+.5f}" if round(value, 5) else "0.00000"
