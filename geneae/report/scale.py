"""The scale at the top of the report: from the mean profile to the noise ceiling, with what lies between."""

from dataclasses import dataclass

import numpy as np

from geneae.evaluation.records import HELD_OUT, share_of_way, value
from geneae.folders.run import Run
from geneae.models.baselines import BASELINES
from geneae.report.across_runs import by_configuration, name_alone

MODEL = "model"
CEILING = "noise ceiling"


@dataclass(frozen=True)
class Mark:
    """A row of the scale."""

    title: str
    """What it is."""
    percent: float
    """Place between the mean profile, 0, and the noise ceiling, 100; within these."""
    shown: str
    """Its held-out cosine."""
    meaning: str
    """A sentence about it, shown under the pointer."""
    kind: str
    """`arm`, `baseline` or `ceiling`."""


def scale_of(runs: list[Run], split: str) -> list[Mark]:
    """Baselines, models and ceiling by held-out cosine on a split, means over runs; empty without such a ceiling.

    Parameters
    ----------
    runs
        At least one.
    split
        Split whose means are shown.
    """
    arms = by_configuration(runs)
    reached: dict[tuple[str, str], float] = {}
    for name, baseline in BASELINES.items():
        reached["baseline", baseline.title] = _mean(runs, name, split, HELD_OUT)
    for name, several in arms.items():
        reached["arm", name_alone(several[0]) if len(arms) == 1 else name] = _mean(several, MODEL, split, HELD_OUT)
    ceiling = reached["ceiling", CEILING] = _mean(runs, MODEL, split, "ceiling")
    trivial = _mean(runs, "mean_profile", split, HELD_OUT)
    if np.isnan(share_of_way(ceiling, trivial, ceiling)):
        return []
    marks = []
    for (kind, title), cosine in reached.items():
        if np.isnan(cosine):
            continue
        percent = 100 * share_of_way(cosine, trivial, ceiling)
        meaning = f"{title}: {cosine:.4f}, {percent:.0f} % of the way from the mean profile to the noise ceiling."
        marks.append(Mark(title, float(np.clip(percent, 0, 100)), f"{cosine:.4f}", meaning, kind))
    return marks


def _mean(runs: list[Run], model: str, split: str, metric: str) -> float:
    found = [value(run.metrics, model, split, metric) for run in runs]
    known = [number for number in found if not np.isnan(number)]
    return float(np.mean(known)) if known else float("nan")
