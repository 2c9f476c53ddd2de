"""Properties that several runs share, and those in which they differ."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from geneae.evaluation.records import HELD_OUT, JUDGED, judged_split
from geneae.evaluation.table import METRIC_FACTS
from geneae.folders.run import Run
from geneae.report.cells import show_range

REPORTED = (*JUDGED, "train")
"""Splits with a table, the first one that is there with the large one."""


def by_configuration(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs by configuration, in order of appearance."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.configuration, []).append(run)
    return found


def name_alone(run: Run) -> str:
    """What the only configuration is called: `model`, not by its loss; another program by its own name."""
    return run.configuration if of_config(run, "judged") else "model"


def profiles_of(split: str, number: int = 2) -> str:
    """Words for so many profiles of a split."""
    noun = "profile" if number == 1 else "profiles"
    return noun if split == "all" else f"{split} {noun}"


def main_split(runs: list[Run]) -> str:
    """The split that a report describes first: `test` if any run has test profiles, otherwise `validation`."""
    return judged_split(pd.concat([run.profiles["split"] for run in runs]))


def of_config(run: Run, *keys: str) -> Any:
    """A value of the nested `config.json` of a run; None if it is missing."""
    found: Any = run.config
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def distinct(runs: Iterable[Run], *keys: str) -> list[str]:
    """Distinct values in the `config.json` of runs, as text, in order of appearance."""
    return list(dict.fromkeys(str(found) for run in runs if (found := of_config(run, *keys)) is not None))


def has_held_out(runs: list[Run]) -> bool:
    """Whether any run was evaluated on held-out halves of the counts."""
    return any(bool((run.metrics["metric"] == HELD_OUT).any()) for run in runs)


def color_name(runs: list[Run]) -> str:
    """Name of the column of `obs` that `--color` gave; `label` if none."""
    return ", ".join(distinct(runs, "color")) or "label"


def genes_by_configuration(runs: list[Run]) -> dict[str, pd.DataFrame]:
    """`genewise.csv` of all seeds joined, by configuration."""
    tables = {
        name: [run.genewise for run in several if run.genewise is not None]
        for name, several in by_configuration(runs).items()
    }
    return {name: pd.concat(several) for name, several in tables.items() if several}


def directions(runs: Iterable[Run]) -> dict[str, str]:
    """Better direction of each metric: `higher`, `lower`, or empty if neither is better."""
    tables = [run.metrics for run in runs]
    found = {str(name): str(better) for t in tables for name, better in zip(t["metric"], t["better"], strict=True)}
    return {name: facts.better for name, facts in METRIC_FACTS.items() if name not in found} | found


def repeat_of(runs: Iterable[Run]) -> str:
    """What runs of one configuration differ in: a `seed`, or for other programs the `division` of the molecules."""
    return "division" if all(of_config(run, "judged") for run in runs) else "seed"


def profiles_and_seeds(n_profiles: Iterable[int], n_seeds: Iterable[int], split: str, repeat: str = "seed") -> str:
    """Numbers of profiles and seeds (or what else `repeat_of` says) in a figure, as text."""
    profiles, seeds = list(n_profiles), list(n_seeds)
    said = f"{show_range(min(profiles), max(profiles))} {profiles_of(split, max(profiles))}"
    return f"{said} and {show_range(min(seeds), max(seeds))} {repeat}s" if max(seeds) > 1 else said
