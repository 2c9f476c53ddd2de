"""Reports: one self-contained HTML file that shows the tables of one or more run folders."""

from geneae.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]
