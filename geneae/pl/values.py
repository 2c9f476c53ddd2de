"""Numbers shown in figures, computed from tables of run folders."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from geneae.evaluation.labels import ACCURACIES
from geneae.evaluation.records import CLEAR, HELD_OUT, WITHOUT_COUNTS, judged_split
from geneae.evaluation.table import DRAWN

N_BINS = 20  # bins of equally many genes, by mean expression


def shown_split(profiles: Mapping[str, pd.DataFrame], split: str | None = None) -> str:
    """The requested split; by default the one from which conclusions are drawn, see `judged_split`.

    `ValueError` if the requested split has no profiles.
    """
    found = list(pd.unique(pd.concat([table["split"] for table in profiles.values()])))
    if split is None:
        return judged_split(pd.Series(found))
    if split not in found:
        raise ValueError(f"no profile is in split '{split}'. Available: {', '.join(map(str, found))}.")
    return split


def by_profile(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """Numbers per profile of a split, averaged over seeds, with label if present; indexed by profile."""
    chosen = table[table["split"] == split].groupby("profile", sort=False)
    means = chosen.mean(numeric_only=True)
    return means.assign(label=chosen["label"].first()) if "label" in table else means


def main_metric(profiles: Mapping[str, pd.DataFrame]) -> str:
    """`heldout_cosine` if any table has values of it, otherwise `centred_cosine`."""
    has_held_out = any(HELD_OUT in table and table[HELD_OUT].notna().any() for table in profiles.values())
    return HELD_OUT if has_held_out else WITHOUT_COUNTS


def paired_main_metric(paired: pd.DataFrame) -> str:
    """The first of `heldout_cosine`, `centred_cosine` and `knn_20` in which `paired.csv` has differences."""
    there = set(paired["metric"])
    return next((metric for metric in (HELD_OUT, WITHOUT_COUNTS, ACCURACIES[0]) if metric in there), WITHOUT_COUNTS)


def baseline_values(metrics: pd.DataFrame, arms: Sequence[str], split: str, metric: str) -> dict[str, list[float]]:
    """Means over profiles and seeds of each baseline, and of the ceiling, by configuration; NaN if there are none.

    Parameters
    ----------
    metrics
        Long table: `metrics.csv` of a run, or of a comparison with its column `arm`.
    arms, split, metric
        Configurations, split and metric to take. Only the held-out cosine has a ceiling.
    """
    means = metrics[(metrics["split"] == split) & (metrics["statistic"] == "mean")]
    wanted = {name: (name, metric) for name in DRAWN} | (
        {"ceiling": ("model", "ceiling")} if metric == HELD_OUT else {}
    )
    found = {}
    for name, (model, of) in wanted.items():
        rows = means[(means["model"] == model) & (means["metric"] == of)]
        values = [float((rows[rows["arm"] == arm] if "arm" in rows else rows)["value"].mean()) for arm in arms]
        if not np.isnan(values).all():
            found[name] = values
    return found


def mean_of(metrics: pd.DataFrame, arm: str, model: str, split: str, metric: str) -> float:
    """Mean over profiles and seeds of one model in one configuration; NaN if there is none. Parameters as above."""
    rows = metrics[
        (metrics["model"] == model)
        & (metrics["split"] == split)
        & (metrics["metric"] == metric)
        & (metrics["statistic"] == "mean")
    ]
    return float((rows[rows["arm"] == arm] if "arm" in rows else rows)["value"].mean())


def mean_curve(histories: Sequence[pd.DataFrame], column: str) -> pd.Series:
    """Mean over seeds by epoch, up to the end of the shortest history; beyond it the mean would jump."""
    curves = [history.set_index("epoch")[column] for history in histories]
    return pd.concat(curves, axis=1, join="inner").mean(axis=1)


def label_differences(profiles: Mapping[str, pd.DataFrame], metric: str, split: str) -> pd.DataFrame:
    """Difference of every configuration from the first: columns label, arm, difference, low, high, n_profiles.

    Differences are taken profile by profile, after averaging over seeds; the interval is a normal 95 % interval over
    profiles, NaN for a single profile. The most frequent labels come first.
    """
    tables = {name: by_profile(table, split) for name, table in profiles.items()}
    first = next(iter(tables.values()))
    rows = []
    for label in first["label"].value_counts().index:
        chosen = first.index[first["label"] == label]
        for name, table in list(tables.items())[1:]:
            differences = (table[metric].reindex(chosen) - first.loc[chosen, metric]).dropna().to_numpy(float)
            if len(differences):
                mean, n = float(differences.mean()), len(differences)
                error = CLEAR * float(differences.std(ddof=1)) / n**0.5 if n > 1 else float("nan")
                rows.append((label, name, mean, mean - error, mean + error, n))
    return pd.DataFrame(rows, columns=["label", "arm", "difference", "low", "high", "n_profiles"])


def running_median(genes: pd.DataFrame) -> pd.DataFrame:
    """Medians of `mean` and `correlation` in up to 20 bins of equally many genes, in order of mean expression."""
    known = genes.dropna(subset=["mean", "correlation"]).sort_values("mean", kind="stable")
    edges = np.linspace(0, len(known), min(N_BINS, len(known)) + 1).astype(int)
    return pd.DataFrame([known.iloc[low:high][["mean", "correlation"]].median() for low, high in pairwise(edges)])


def by_gene(genes: pd.DataFrame) -> pd.DataFrame:
    """`mean` and `correlation` of every gene, averaged over seeds."""
    return genes.groupby("gene", sort=False)[["mean", "correlation"]].mean()
