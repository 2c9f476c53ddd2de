"""What several runs have in common, and where they differ."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from geneae.evaluation.records import HELD_OUT
from geneae.evaluation.table import METRIC_FACTS
from geneae.folders.run import Run
from geneae.pl.values import shown_split

SPLITS = ("test", "validation")


def by_configuration(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs by configuration, in order of appearance."""
    arms: dict[str, list[Run]] = {}
    for run in runs:
        arms.setdefault(run.configuration, []).append(run)
    return arms


def split_judged(runs: list[Run]) -> str:
    """`test` where there are test profiles, else `validation`."""
    return shown_split({str(number): run.profiles for number, run in enumerate(runs)})


def of_config(run: Run, *keys: str) -> Any:
    """A value of the nested config; None where it is not there."""
    found: Any = run.config
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def distinct(runs: Iterable[Run], *keys: str) -> list[str]:
    """Different values in the configs of runs, as text."""
    return list(dict.fromkeys(str(found) for run in runs if (found := of_config(run, *keys)) is not None))


def has_held_out(runs: list[Run]) -> bool:
    """Whether there were counts to hold out."""
    return any(bool((run.metrics["metric"] == HELD_OUT).any()) for run in runs)


def color_name(runs: list[Run]) -> str:
    """The column of `obs` that tells profiles apart."""
    return ", ".join(distinct(runs, "color")) or "label"


def genes_by_configuration(runs: list[Run]) -> dict[str, pd.DataFrame]:
    """`genewise.csv` of all seeds, by configuration."""
    tables = {
        arm: [run.genewise for run in several if run.genewise is not None]
        for arm, several in by_configuration(runs).items()
    }
    return {arm: pd.concat(several) for arm, several in tables.items() if several}


def directions(runs: Iterable[Run]) -> dict[str, str]:
    """By metric, which way is better: `higher`, `lower`, or empty where neither is."""
    tables = [run.metrics for run in runs]
    found = {str(name): str(better) for t in tables for name, better in zip(t["metric"], t["better"], strict=True)}
    return {name: facts.better for name, facts in METRIC_FACTS.items() if name not in found} | found
