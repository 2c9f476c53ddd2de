"""Facts about every metric and every model, read by terminal, report, figures, model card and comparison."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from geneae.evaluation.judge import MetricFacts, ModelFacts
from geneae.evaluation.judges import JUDGES
from geneae.evaluation.programs import HALF_METRICS
from geneae.evaluation.reconstruction import Reconstructions
from geneae.evaluation.records import HELD_OUT, value
from geneae.models.baselines import BASELINES

METRIC_FACTS: dict[str, MetricFacts] = {
    name: facts for judge in JUDGES for name, facts in judge.metrics.items()
} | HALF_METRICS
"""Facts about metrics by name, in the order of the judges; then those of other programs."""
MODEL_FACTS: dict[str, ModelFacts] = {name: facts for judge in JUDGES for name, facts in judge.models.items()}
"""Facts about models by name, in the order of the judges: the model, its baselines, controls of latents."""
CEILING = ModelFacts("noise ceiling", line="-")
"""The noise ceiling, which is drawn and listed together with the baselines."""
DRAWN: dict[str, ModelFacts] = {name: Reconstructions.models[name] for name in BASELINES}
"""Baselines drawn as lines in figures, the weakest first."""
SHOWN = ("cosine", "centred_cosine", "mse", HELD_OUT)
"""Metrics of the short table, in the terminal and on the model card."""
MAIN_METRICS = (
    *(HELD_OUT, "skill", *HALF_METRICS),
    *(name for name, facts in METRIC_FACTS.items() if facts.is_main and name not in HALF_METRICS),
)
"""Metrics of the first table of a report."""
ARROWS = {"higher": "↑", "lower": "↓"}


def metric_facts(name: str) -> MetricFacts:
    """Facts about a metric; for one from another version of geneae, only a title made from its name."""
    return METRIC_FACTS.get(name) or MetricFacts(name.replace("_", " "))


def title_of(name: str) -> str:
    """Title of a metric."""
    return metric_facts(name).title


def with_arrow(title: str, better: str, space: str = " ") -> str:
    """Title with an arrow that shows which direction is better; without an arrow where neither is."""
    return f"{title}{space}{ARROWS[better]}" if better in ARROWS else title


def header_of(name: str) -> str:
    """Short title of a metric with its arrow, for a table in the terminal."""
    facts = metric_facts(name)
    return with_arrow(facts.short or facts.title, facts.better)


def fewer(metrics: pd.DataFrame, splits: Sequence[str], name: str) -> str:
    """Numbers of profiles with a value of a metric, in brackets; empty if all profiles of these splits have one."""
    found, largest = [], []
    for split in splits:
        sizes = metrics.loc[(metrics["split"] == split) & (metrics["statistic"] == "mean"), ["metric", "n_profiles"]]
        own = sizes.loc[sizes["metric"] == name, "n_profiles"]
        found.append(int(own.max()) if len(own) else 0)
        largest.append(int(sizes["n_profiles"].max()) if len(sizes) else 0)
    return "" if found == largest or not any(found) else f" ({' / '.join(f'{size:,}' for size in found)})"


def short_table(metrics: pd.DataFrame, splits: Sequence[str], names: Sequence[str] = SHOWN) -> list[list[str]]:
    """Cells of the short table: headings, then model, baselines and, if it is known, the ceiling, each with its title.

    Parameters
    ----------
    metrics
        Long table of a fit.
    splits
        Splits whose means are shown in each cell, divided by slashes.
    names
        Metrics to show.
    """

    def row(title: str, model: str, shown: Sequence[str]) -> list[str]:
        cells = [[value(metrics, model, split, name) for split in splits] for name in shown]
        return [title, *(" / ".join(f"{number:.4f}" for number in cell if not np.isnan(number)) for cell in cells)]

    known = set(metrics["model"])
    rows = [["", *(f"{header_of(name)}{fewer(metrics, splits, name)}" for name in names)]]
    rows += [
        row(facts.title, name, names)
        for name, facts in Reconstructions.models.items()
        if name in known and not facts.is_step
    ]
    if not np.isnan(value(metrics, "model", splits[-1], "ceiling")):
        rows.append(row(CEILING.title, "model", ["ceiling" if name == HELD_OUT else "" for name in names]))
    return rows
