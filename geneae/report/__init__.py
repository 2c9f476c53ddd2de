"""The report: run folders as one HTML file that needs nothing else and shows what their tables hold."""

from geneae.folders.run import Run, read_run
from geneae.report.page import render_report, write_report

__all__ = ["Run", "read_run", "render_report", "write_report"]
