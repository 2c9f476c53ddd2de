"""The numbers that figures draw, from tables of run folders."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from geneae.evaluation.records import CLEAR, HELD_OUT, WITHOUT_COUNTS
from geneae.evaluation.table import DRAWN

N_BINS = 20  # of genes of equal number, along the mean expression


def shown_split(profiles: Mapping[str, pd.DataFrame], split: str | None = None) -> str:
    """The split asked for; else `test` where there are test profiles, else the one that is there."""
    found = list(pd.unique(pd.concat([table["split"] for table in profiles.values()])))
    if split is None:
        return "test" if "test" in found else str(found[0])
    if split not in found:
        raise ValueError(f"no profile is in split '{split}'; there are {', '.join(map(str, found))}.")
    return split


def by_profile(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """Numbers of the profiles of a split, mean over seeds, and their label; indexed by profile."""
    chosen = table[table["split"] == split].groupby("profile", sort=False)
    means = chosen.mean(numeric_only=True)
    return means.assign(label=chosen["label"].first()) if "label" in table else means


def main_metric(profiles: Mapping[str, pd.DataFrame]) -> str:
    """`heldout_cosine` where there are such numbers, else `centred_cosine`."""
    has_held_out = any(HELD_OUT in table and table[HELD_OUT].notna().any() for table in profiles.values())
    return HELD_OUT if has_held_out else WITHOUT_COUNTS


def baseline_values(metrics: pd.DataFrame, arms: Sequence[str], split: str, metric: str) -> dict[str, list[float]]:
    """Mean over profiles and seeds of each baseline, and of the ceiling, beside each arm; NaN where there is none.

    Parameters
    ----------
    metrics
        Long: `metrics.csv` of a run, or of a comparison with its column `arm`.
    arms, split, metric
        In question. The ceiling is one of the held-out cosine.
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


def mean_curve(histories: Sequence[pd.DataFrame], column: str) -> pd.Series:
    """Mean over seeds by epoch, as far as the shortest history goes: a mean over others from there on would jump."""
    curves = [history.set_index("epoch")[column] for history in histories]
    return pd.concat(curves, axis=1, join="inner").mean(axis=1)


def label_differences(profiles: Mapping[str, pd.DataFrame], metric: str, split: str) -> pd.DataFrame:
    """Difference of every arm to the first, by label: label, arm, difference, low, high, n_profiles.

    Differences are taken profile by profile, after the mean over seeds; the interval is the normal 95 % one over
    profiles, NaN for a single profile. Labels come with the most frequent first.
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
    """mean and correlation, medians in up to 20 bins of equally many genes, in order of mean expression."""
    known = genes.dropna(subset=["mean", "correlation"]).sort_values("mean", kind="stable")
    edges = np.linspace(0, len(known), min(N_BINS, len(known)) + 1).astype(int)
    return pd.DataFrame([known.iloc[low:high][["mean", "correlation"]].median() for low, high in pairwise(edges)])


def by_gene(genes: pd.DataFrame) -> pd.DataFrame:
    """mean and correlation of every gene, mean over seeds."""
    return genes.groupby("gene", sort=False)[["mean", "correlation"]].mean()
