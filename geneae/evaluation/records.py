"""Numbers of models on the same profiles, and words for the differences between them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

COLUMNS = ["model", "seed", "split", "metric", "statistic", "value", "n_profiles", "better"]
"""Columns of the long table."""
HELD_OUT = "heldout_cosine"
WITHOUT_COUNTS = "centred_cosine"  # used without a held-out cosine: the plain one can be 0.999 for every model
SAME = 5e-5  # a difference below the last digit that is shown
CLEAR = 1.96  # standard errors beyond which a mean difference counts as shown by the data


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Numbers of one model and its baselines."""

    profiles: pd.DataFrame
    """One row per profile and model: model, profile, split, and a column for each metric of single profiles."""
    metrics: pd.DataFrame
    """Long table with the columns `COLUMNS`."""
    scales: dict[str, float]
    """Factor of the predictions in `rescaled_mse`, by model."""


def joined(parts: Sequence[Evaluation], rows: Sequence[np.ndarray]) -> Evaluation:
    """Evaluations of one model on different profiles as one.

    Parameters
    ----------
    parts
        At least one evaluation, each of whole splits.
    rows
        Positions of the profiles of each.
    """
    profiles = pd.concat([part.profiles for part in parts], ignore_index=True)
    places = np.concatenate([np.resize(some, len(part.profiles)) for part, some in zip(parts, rows, strict=True)])
    order = np.lexsort([places, pd.factorize(profiles["model"])[0]])
    known = [part.metrics for part in parts if len(part.metrics)] or [parts[0].metrics]
    metrics = pd.concat(known, ignore_index=True)
    return Evaluation(profiles.iloc[order].reset_index(drop=True), metrics, parts[0].scales)


def value(metrics: pd.DataFrame, model: str, split: str, metric: str, statistic: str = "mean") -> float:
    """One number of the long table; NaN if it is absent."""
    found = metrics.loc[
        (metrics["model"] == model)
        & (metrics["split"] == split)
        & (metrics["metric"] == metric)
        & (metrics["statistic"] == statistic),
        "value",
    ]
    return float(found.iloc[0]) if len(found) else float("nan")


def share_of_way(cosine: float, trivial: float, ceiling: float) -> float:
    """Share of the way from the mean profile to the noise ceiling, by held-out cosine: the skill. NaN where there is no
    way, or one that is shorter than the last digit that is shown."""
    return (cosine - trivial) / (ceiling - trivial) if ceiling - trivial > SAME else float("nan")


JUDGED = ("new", "all", "test", "validation")
"""Splits from which conclusions may be drawn; `all` where it is not known which profiles were fitted on."""
JUDGED_BY_FIT = ("validation", "test")
"""Splits on which a fit evaluates its model."""


def judged_split(splits: pd.Series) -> str:
    """The split from which conclusions are drawn: profiles that are new to the model if there are such, else `test`,
    else `validation`, else the first."""
    found = [str(name) for name in pd.unique(splits)]
    return next((name for name in JUDGED if name in found), found[0])


def outcome(difference: float, error: float) -> str:
    """Words for a mean difference with this standard error: who is better, if either is."""
    if abs(difference) < SAME:
        return "is as good as"
    if abs(difference) <= CLEAR * error or np.isnan(error):
        return "cannot be distinguished from"
    return "beats" if difference > 0 else "is worse than"


def signed(difference: float, decimals: int = 4) -> str:
    """A number with a sign and four or other decimals; without a sign where all decimals are zero."""
    return f"{difference:+.{decimals}f}" if round(difference, decimals) else f"{0:.{decimals}f}"


def shown_range(low: float, high: float) -> str:
    """`0.81 to 0.83`; one number where both read the same."""
    ends = dict.fromkeys((f"{low:.2f}", f"{high:.2f}"))
    return " to ".join(ends)


def with_interval(difference: float, error: float) -> str:
    """A mean difference with its 95 % interval; without one where a single profile gives none."""
    return signed(difference) if np.isnan(error) else f"{signed(difference)} ± {CLEAR * error:.4f}"


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
