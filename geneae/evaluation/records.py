"""Numbers of models on the same profiles, and how differences between them are read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

COLUMNS = ["model", "seed", "split", "metric", "statistic", "value", "n_profiles", "better"]
"""Of the long table."""
HELD_OUT = "heldout_cosine"


WITHOUT_COUNTS = "centred_cosine"  # read where there is no held-out cosine: the plain one can be 0.999 for everybody


SAME = 5e-5  # a difference below the last digit that is shown


CLEAR = 1.96  # standard errors that make a mean difference one that the data can show


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Numbers of one model and its baselines."""

    profiles: pd.DataFrame
    """One row per profile and model: model, profile, split, and a column for each metric of single profiles."""
    metrics: pd.DataFrame
    """Long, with the columns of `COLUMNS`."""
    scales: dict[str, float]
    """By model, the factor that `rescaled_mse` was taken with."""


def value(metrics: pd.DataFrame, model: str, split: str, metric: str, statistic: str = "mean") -> float:
    """One number of the long table; NaN where it is not there."""
    found = metrics.loc[
        (metrics["model"] == model)
        & (metrics["split"] == split)
        & (metrics["metric"] == metric)
        & (metrics["statistic"] == statistic),
        "value",
    ]
    return float(found.iloc[0]) if len(found) else float("nan")


def outcome(difference: float, error: float) -> str:
    """In words, how a mean difference with its standard error is to be read."""
    if abs(difference) < SAME:
        return "is as good as"
    if abs(difference) <= CLEAR * error or np.isnan(error):
        return "cannot be told from"
    return "beats" if difference > 0 else "is worse than"


def signed(difference: float) -> str:
    """Four decimals with a sign; no sign where all of them are zero."""
    return f"{difference:+.4f}" if round(difference, 4) else "0.0000"


def paired_difference(
    profiles: pd.DataFrame, first: str, second: str, split: str, metric: str
) -> tuple[float, float, np.ndarray]:
    """Mean difference of two models over the same profiles, its standard error, and the differences themselves."""
    chosen = profiles[profiles["split"] == split]
    values = [chosen.loc[chosen["model"] == name, metric].to_numpy(float) for name in (first, second)]
    differences = values[0] - values[1]
    differences = differences[~np.isnan(differences)]
    if len(differences) < 2:
        return float(differences.mean()) if len(differences) else float("nan"), float("nan"), differences
    return float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(differences))), differences


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write `profiles.csv` (the model alone) and `metrics.csv` (model and baselines)."""
    table = evaluation.profiles
    table[table["model"] == "model"].drop(columns="model").to_csv(folder / "profiles.csv", index=False)
    evaluation.metrics.to_csv(folder / "metrics.csv", index=False)
