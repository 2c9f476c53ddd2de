"""Folders of judged programs: tables, report, and what was judged."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from geneae.folders.outputs import write_json
from geneae.folders.run import write_tables

RECORD = "judged.json"
REPORT = "report.html"
OF_JUDGED = (RECORD, "metrics.csv", "profiles.csv", "paired.csv", "genewise.csv", "diagnostics.csv", REPORT)
"""Files of a folder of judged programs."""


def write_judged(folder: Path, tables: Mapping[str, pd.DataFrame], record: Mapping[str, object]) -> None:
    """Write tables that are not empty, and the record, into an existing folder."""
    write_tables(folder, {name: table for name, table in tables.items() if len(table)})
    write_json(folder / RECORD, dict(record))
