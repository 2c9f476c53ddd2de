"""Judged programs beside controls: their tables, paired differences, and the verdict in words."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from geneae.evaluation.comparison import ANSWERED_BY, BY_HALVES, Configuration, answer, compare_configurations
from geneae.evaluation.records import HELD_OUT, judged_split
from geneae.folders.run import Run

DRAW = "division"
"""What runs of one program differ in."""


@dataclass(frozen=True, eq=False)
class Judged:
    """Programs and controls on the same held-out halves."""

    runs: list[Run]
    """Programs, one run for each division of the molecules; the configuration is the name of the program."""
    controls: list[Run]
    """Controls likewise, the reference first."""
    paired: pd.DataFrame
    """Differences of all others from the reference, see `compare_configurations`."""
    answer: str
    """Verdict in words."""
    said: list[str]
    """What was found about the files: spaces, genes."""

    @property
    def metrics(self) -> pd.DataFrame:
        """Long table of programs and controls, with the columns `run` and `arm`."""
        tables = [run.named(run.metrics) for run in (*self.runs, *self.controls)]
        table = pd.concat(tables, ignore_index=True)
        return table[["run", "arm", *(name for name in table if name not in ("run", "arm"))]]

    @property
    def split(self) -> str:
        """The split from which conclusions are drawn."""
        return judged_split(self.runs[0].profiles["split"])

    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name, as they are written."""
        of_runs = {name: self.table(name) for name in ("profiles", "genewise", "diagnostics")}
        split = self.runs[0].tables()["split"]
        return {"metrics": self.metrics, "paired": self.paired, "split": split, **of_runs}

    def record(self) -> dict[str, Any]:
        """What was judged, with which halves."""
        config = self.runs[0].config
        return {
            "programs": {run.name: run.configuration for run in self.runs},
            "answer": self.answer,
            "said": self.said,
            **{key: value for key, value in config.items() if key not in ("judged", "seed")},
        }

    def table(self, name: str) -> pd.DataFrame:
        """`profiles`, `genewise` or `diagnostics` of programs and controls, with the columns `run` and `arm`."""
        found = [run.named(run.tables()[name]) for run in (*self.runs, *self.controls) if name in run.tables()]
        table = pd.concat(found, ignore_index=True) if found else pd.DataFrame()
        return table[["run", "arm", *(key for key in table if key not in ("run", "arm"))]] if len(table) else table


def conclude(runs: list[Run], controls: list[Run], said: list[str]) -> Judged:
    """Compare programs and controls with the reference, paired by profile and division."""
    split = judged_split(runs[0].profiles["split"])
    configurations: dict[str, Configuration] = {}
    reference = controls[0].configuration
    for run in sorted((*runs, *controls), key=lambda run: run.configuration != reference):  # programs before controls
        table = run.profiles[run.profiles["split"] == split].set_index("profile")
        configuration = configurations.setdefault(run.configuration, Configuration(run.configuration, "", {}))
        configuration.profiles[int(run.config["seed"])] = table
    paired = compare_configurations(list(configurations.values()), split)
    metrics = pd.concat([run.metrics.assign(arm=run.configuration) for run in (*controls, *runs)], ignore_index=True)
    return Judged(runs, controls, paired, _answers(paired, metrics), said)


def _answers(paired: pd.DataFrame, metrics: pd.DataFrame) -> str:
    """A verdict on reconstructions and one on latents, of those that there are."""
    by_latents = paired[paired["metric"] != HELD_OUT]
    parts = [table for table in (paired, by_latents) if table["metric"].isin(ANSWERED_BY).any()]
    parts = parts if (paired["metric"] == HELD_OUT).any() else parts[:1]
    said = [answer(table, metrics, DRAW) for table in parts]
    if not said:
        by = "judged without a label" if paired["metric"].eq(BY_HALVES).any() else "not judged by a label"
        said = [f"Latents were {by}: the tables say how far they agree; --label KEY says what they know."]
    return " ".join(said)
