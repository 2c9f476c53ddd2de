"""Cells and tables of the report, and numbers as it shows them."""

from dataclasses import dataclass

import numpy as np

from geneae.evaluation.table import title_of, with_arrow

NOTHING = 1e-12  # smaller numbers are rounding


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    """As shown."""
    value: str = ""
    """What it is sorted by where that is not the text: a number in full."""
    kind: str = ""
    """Class of its style."""


@dataclass(frozen=True)
class Table:
    """A table of the report."""

    title: str
    """Its caption."""
    headers: tuple[str, ...]
    """Of the columns; the first names the rows."""
    rows: list[list[Cell]]
    """Cells of every row."""
    note: str = ""
    """Below it."""


def number(value: float) -> str:
    """Four decimals, or three digits where these say too little; `–` where there is none."""
    if not np.isfinite(value):
        return "–"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size < NOTHING:
        return "0.0000"
    return f"{value:.4f}" if size >= 0.001 else f"{value:.2e}"


def number_cell(value: float, text: str | None = None) -> Cell:
    """A number, sorted by all of its digits; `text` where it is not to be shown as `number` does."""
    is_known = bool(np.isfinite(value))
    text = number(value) if text is None or not is_known else text
    return Cell(text, repr(float(value)) if is_known else "", "number")


def count_cell(value: float) -> Cell:
    """A whole number."""
    return number_cell(value, f"{value:,.0f}")


def show_range(low: float, high: float) -> str:
    """`low to high`, or one of them where they are equal."""
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def metric_header(metric: str, better: str) -> str:
    """A metric in words, and which way is better (`higher`, `lower` or empty), as the tables of the runs say."""
    return with_arrow(title_of(metric), better, space="\N{NO-BREAK SPACE}")


def mean_cell(values: list[float]) -> Cell:
    """Mean over runs, ± their standard deviation."""
    known = np.array([value for value in values if np.isfinite(value)])
    if not len(known):
        return number_cell(float("nan"))
    mean = float(known.mean()) if len(known) > 1 else float(known[0])
    if len(known) == 1:
        return number_cell(mean)
    spread = float(known.std(ddof=1))
    shown = f"{spread:.4f}"
    if NOTHING < abs(mean) < 0.001:  # four decimals say too little
        shown = f"{spread:.2e}"
    elif abs(mean) >= 1000:  # and too much
        shown = f"{spread:,.0f}"
    return number_cell(mean, f"{number(mean)} ± {shown}")


def signed(value: float) -> str:
    """Five decimals with a sign, none from 1,000 on; no sign where all of them are zero."""
    if not np.isfinite(value):
        return "–"
    if abs(value) >= 1000:
        return f"{value:+,.0f}"
    return f"{value:+.5f}" if round(value, 5) else "0.00000"
