"""The report of one run or many."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder, read."""

    name: str
    arm: str
    config: dict[str, Any]
    metrics: pd.DataFrame
    profiles: pd.DataFrame
    history: pd.DataFrame
    genewise: pd.DataFrame | None
    umap: pd.DataFrame | None


def read_run(folder: Path, arm: str | None = None) -> Run:
    """A run from its files."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tables = [pd.read_csv(folder / f"{name}.csv") for name in ("metrics", "profiles", "history")]
    return Run(folder.name, arm or config["settings"]["loss"], config, *tables, None, None)


def write_report(path: Path, runs: list[Run], answer: str, paired: pd.DataFrame | None = None) -> None:
    """One HTML file."""
    path.write_text(answer, encoding="utf-8")
