"""A learned cosine beside the plain one and PCA: whose neighbours have the right label, on held-out profiles."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from geneae.data.preprocess import column_mean
from geneae.data.profiles import Profiles
from geneae.data.splits import SPLITS, split_profiles
from geneae.evaluation.bootstrap import bootstrap_interval
from geneae.fitting.cosine_metric import CosineMetric
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.model import Model
from geneae.models.pca import fit_basis
from geneae.settings.errors import InputError, listed, unknown
from geneae.training.metric_learning import Rows
from geneae.training.similarity import centred_cosines, cosines, vote

RARE = 3  # profiles of a label that are needed, as there are three splits
LEARNED = "learned"
WAYS = {
    "cosine": "plain cosine",
    "centred_cosine": "cosine after the mean is subtracted",
    "pca": "cosine of PCA scores",
    LEARNED: "learned metric",
}
"""Titles by name."""


@dataclass(frozen=True, eq=False)
class Judged:
    """A metric, and how it does beside others."""

    table: pd.DataFrame
    """One row per way and split: metric, split, accuracy, n_profiles, and for the test profiles the difference of the
    learned metric's accuracy to it, paired by profile, with a 95 % interval: learned_minus, low, high."""
    profiles: pd.DataFrame
    """One row per validation and test profile: profile, split, label, and the label voted for by each way."""
    split: pd.Series
    """By profile: `train`, `validation`, `test`, or `excluded`."""
    reasons: dict[str, int]
    """Why profiles were kept out, and how many of them."""
    n_labels: int
    """Labels of the profiles used."""
    n_features: int
    """Genes, or latents."""
    of: str
    """`genes` or `latents`."""

    def describe(self) -> str:
        """How many profiles and labels were used for what, and what was not."""
        parts = ", ".join(f"{(self.split == name).sum():,} {name}" for name in SPLITS)
        line = f"Split into {parts} profiles; {self.n_labels} labels; {self.n_features:,} {self.of}."
        said = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.items() if count)
        return f"{line} Kept out: {said}." if said else line

    def tables(self) -> dict[str, pd.DataFrame]:
        """The CSV files of a folder, by name."""
        split = pd.DataFrame({"profile": self.split.index, "split": self.split.to_numpy()})
        return {"split.csv": split, "profiles.csv": self.profiles, "metrics.csv": self.table}


def judge_metric(
    learner: CosineMetric,
    profiles: Profiles,
    key: str,
    validation: float,
    test: float,
    group: str | None = None,
    model: Model | None = None,
) -> Judged:
    """Learn a metric on training profiles, and judge it and what it has to beat on the others.

    Each is judged by the share of profiles whose nearest training profiles vote for their label.
    Genes, means, components and the map are fitted on training profiles; validation profiles choose the epoch of the
    map; test profiles choose nothing.

    Parameters
    ----------
    learner
        Is fitted. Its seed is that of the split.
    profiles
        All of them. Those without a value or a label, or with a label that fewer than three have, are kept out.
    key
        Column of obs with the labels, whose proportions each split keeps.
    validation, test
        Fractions, both above 0.
    group
        Column of obs whose equal values stay in one split.
    model
        Compare its latents in place of genes. It has seen profiles without their labels only.
    """
    labels, reasons = _usable(profiles, key)
    out = labels.isna().to_numpy()
    split = split_profiles(profiles.obs, validation, test, group, key, learner.seed, out)
    data = profiles if model is None else model.latent(model.preprocess.match(profiles)[0])
    parts = {name: np.flatnonzero(split == name) for name in SPLITS}
    taken = {name: data.take(rows) if isinstance(data, Profiles) else data[rows] for name, rows in parts.items()}
    named = {name: labels.to_numpy()[rows].astype(str) for name, rows in parts.items()}
    learner.fit(taken["train"], named["train"], validation=(taken["validation"], named["validation"]))
    ways = _ways(learner, taken["train"])
    classes, codes = np.unique(named["train"], return_inverse=True)
    tables = [
        pd.DataFrame(
            {"profile": profiles.names[parts[name]], "split": name, "label": named[name]}
            | {
                way: classes[vote(similarity(taken[name]), codes, learner.n_neighbors)]
                for way, similarity in ways.items()
            }
        )
        for name in SPLITS[1:]
    ]
    voted = pd.concat(tables, ignore_index=True)
    of = "genes" if model is None else "latents"
    return Judged(_accuracies(voted), voted, split, reasons, int(labels.nunique()), learner.n_features_in_, of)


def _usable(profiles: Profiles, key: str) -> tuple[pd.Series, dict[str, int]]:
    """(n_profiles,) labels as text, missing where a profile is not to be used; and how many are not, by reason."""
    if key not in profiles.obs:
        raise unknown("obs column", key, profiles.obs.columns)
    labels = profiles.obs[key].astype(object)
    labels = labels.where(labels.isna(), labels.astype(str))
    without = labels.isna()
    empty = pd.Series(profiles.scan.lengths == 0, index=labels.index) & ~without
    labels = labels.mask(empty)
    counts = labels.value_counts()
    if len(counts) < 2:
        raise InputError(
            f"obs column '{key}' must have two labels or more; found {listed(counts.index)}. Name another column."
        )
    if (counts >= RARE).sum() < 2:
        found = listed(f"'{name}' {count}" for name, count in counts.items())
        raise InputError(
            f"at least two labels of obs column '{key}' must have {RARE} profiles or more, for {', '.join(SPLITS)}; "
            f"found {found}. Merge labels, or name another column."
        )
    rare = labels.isin(counts.index[counts < RARE])
    return labels.mask(rare), {
        "without a label": int(without.sum()),
        "without any value": int(empty.sum()),
        f"of labels with fewer than {RARE} profiles": int(rare.sum()),
    }


def _ways(
    learner: CosineMetric, train: Profiles | np.ndarray
) -> dict[str, Callable[[Profiles | np.ndarray], np.ndarray]]:
    """By name, what gives the similarities of profiles to the training profiles."""

    def rows_of(data: Profiles | np.ndarray) -> Rows:
        if isinstance(data, Profiles):
            assert learner.preprocess_ is not None
            return learner.preprocess_.apply(learner.preprocess_.match(data)[0])
        return data

    known = rows_of(train)
    block = sparse.csr_matrix(known, dtype=np.float32)
    mean = column_mean(block)
    basis = fit_basis([block], learner.n_components, learner.seed)

    def scores(rows: Rows) -> np.ndarray:
        return np.asarray(basis.scores(sparse_rows(sparse.csr_matrix(rows, dtype=np.float32))).numpy(), np.float64)

    return {
        "cosine": lambda data: cosines(rows_of(data), known),
        "centred_cosine": lambda data: centred_cosines(rows_of(data), known, mean),
        "pca": lambda data: cosines(scores(rows_of(data)), scores(known)),
        LEARNED: lambda data: learner.similarity(data, train),
    }


def _accuracies(voted: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for name in SPLITS[1:]:
        part = voted[voted["split"] == name]
        right = {way: (part[way] == part["label"]).to_numpy(float) for way in WAYS}
        for way in WAYS:
            row = {"metric": way, "split": name, "accuracy": right[way].mean(), "n_profiles": len(part)}
            if name == "test" and way != LEARNED:
                interval = bootstrap_interval((right[LEARNED] - right[way])[None, :], 0)
                row |= dict(zip(("learned_minus", "low", "high"), interval[:3], strict=True))
            rows.append(row)
    return pd.DataFrame(rows)


def answer(judged: Judged) -> str:
    """One sentence: against what the neighbours of the learned metric have the right label more often, or less."""
    test = judged.table[(judged.table["split"] == "test") & (judged.table["metric"] != LEARNED)]
    verdicts = {
        "better than": test["low"] > 0,
        "worse than": test["high"] < 0,
        "not told apart from": (test["low"] <= 0) & (test["high"] >= 0),
    }
    said = [f"{verdict} {_listed(test.loc[holds, 'metric'])}" for verdict, holds in verdicts.items() if holds.any()]
    return f"On {test['n_profiles'].iloc[0]:,} test profiles the learned metric is {', and '.join(said)}."


def _listed(ways: pd.Series) -> str:
    return ", ".join(WAYS[way] for way in ways)
