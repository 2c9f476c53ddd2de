"""Reports: one self-contained HTML file that shows the tables of one or more run folders."""

from geneae.folders.run import Run, read_run
from geneae.report.page import render_report, write_report

__all__ = ["Run", "read_run", "render_report", "write_report"]
