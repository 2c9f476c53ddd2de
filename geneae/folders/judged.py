"""Folders of judged programs: tables, report, and what was judged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from geneae.folders.contents import FolderContents
from geneae.folders.outputs import write_json
from geneae.folders.run import Run, read_columns, read_sizes, write_tables
from geneae.settings.errors import InputError

RECORD = "judged.json"
FORMAT = 1
NEEDED = {
    "metrics": ("run", "arm", "model", "seed", "split", "metric", "better", "statistic", "value", "n_profiles"),
    "profiles": ("run", "arm", "profile", "split"),
    "genewise": ("run", "arm", "gene", "mean", "correlation"),
    "diagnostics": ("run", "arm", "name", "value", "limit", "fires", "message"),
}


def write_judged(folder: Path, tables: Mapping[str, pd.DataFrame], record: Mapping[str, object]) -> None:
    """Write tables that are not empty, and the record, into an existing folder."""
    write_tables(folder, {name: table for name, table in tables.items() if len(table)})
    write_json(folder / RECORD, {"format": FORMAT, **record})


def is_judged(folder: Path) -> bool:
    """Whether a folder holds judged programs."""
    return (folder / RECORD).is_file()


def read_record(folder: Path) -> dict[str, Any]:
    """What was judged; a folder of another version is refused."""
    record: dict[str, Any] = FolderContents(folder).json(RECORD)
    if record.get("format") != FORMAT:
        raise InputError(f"{folder / RECORD} is of another version of geneae. Judge the programs again.")
    return record


def read_judged(folder: Path) -> list[Run]:
    """The judged programs, without their controls, as runs; the first division has seed 0."""
    files, record = FolderContents(folder), read_record(folder)
    tables = {name: read_columns(files, f"{name}.csv", NEEDED) for name in NEEDED if f"{name}.csv" in files}
    sizes = read_sizes(files)
    runs = []
    for name, program in record["programs"].items():
        own = {
            key: found.drop(columns=["run", "arm"]).dropna(axis=1, how="all").reset_index(drop=True)
            for key, table in tables.items()
            if len(found := table[table["run"] == name])
        }
        network = record["network"] | {"has_decoder": "genewise" in own}
        config = record | {"judged": True, "seed": int(own["metrics"]["seed"].iloc[0]) - 1, "network": network}
        runs.append(
            Run(
                name=name,
                configuration=str(program),
                config=config,
                metrics=own["metrics"],
                profiles=own["profiles"],
                history=pd.DataFrame(),
                genewise=own.get("genewise"),
                diagnostics=own.get("diagnostics"),
                split_sizes=sizes,
            )
        )
    return runs
