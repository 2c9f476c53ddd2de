"""Reports: one self-contained HTML file that shows the tables of one or more run folders."""

from pathlib import Path

import pandas as pd

from geneae.folders.run import Run

__all__ = ["render_report", "write_report"]


def write_report(path: Path, runs: list[Run], answer: str, paired: pd.DataFrame | None = None) -> None:
    """Write the report of one run or of many, see `geneae.report.page.write_report`."""
    from geneae.report import page  # with matplotlib, which is slow to load

    page.write_report(path, runs, answer, paired)


def render_report(runs: list[Run], answer: str, paired: pd.DataFrame | None = None) -> str:
    """HTML of the report, see `geneae.report.page.render_report`."""
    from geneae.report import page  # with matplotlib, which is slow to load

    return page.render_report(runs, answer, paired)
