"""Learned metric, plain cosine and PCA compared by how often neighbours have the right label, on test profiles."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from geneae.data.labels import labels_in
from geneae.data.preprocess import column_mean
from geneae.data.profiles import Profiles
from geneae.data.splits import SPLITS, split_profiles
from geneae.evaluation.bootstrap import bootstrap_interval
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.model import Model
from geneae.models.pca import fit_basis
from geneae.settings.errors import InputError, listed
from geneae.settings.text import counted
from geneae.training.metric_learning import Rows
from geneae.training.similarity import centred_cosines, cosines, vote

if TYPE_CHECKING:
    from geneae.fitting.cosine_metric import CosineMetric  # with scikit-learn, which is slow to load

RARE = 3  # profiles that a label needs, one for each split
LEARNED = "learned"
WAYS = {
    "cosine": "plain cosine",
    "centred_cosine": "cosine after the mean is subtracted",
    "pca": "cosine of PCA scores",
    LEARNED: "learned metric",
}
"""Titles of the compared metrics, by name."""


@dataclass(frozen=True, eq=False)
class Judged:
    """Evaluation of a learned metric next to others."""

    table: pd.DataFrame
    """One row per metric and split: metric, split, accuracy, n_profiles; for the test profiles also learned_minus, the
    accuracy of the learned metric minus this one, paired by profile, with its 95 % interval low and high."""
    profiles: pd.DataFrame
    """One row per validation and test profile: profile, split, label, and the label voted for under each metric."""
    split: pd.Series
    """Split of each profile: `train`, `validation`, `test` or `excluded`."""
    reasons: dict[str, int]
    """Number of excluded profiles by reason."""
    n_labels: int
    """Number of different labels among the profiles used."""
    n_features: int
    """Number of genes or latents."""
    of: str
    """What the features are: `genes` or `latents`."""

    def describe(self) -> str:
        """Sentences on the number of profiles in each split, labels and features, and on excluded profiles."""
        parts = ", ".join(f"{(self.split == name).sum():,} {name}" for name in SPLITS)
        line = f"Split into {parts} profiles; {counted(self.n_labels, 'label')}; {self.n_features:,} {self.of}."
        said = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.items() if count)
        return f"{line} Excluded: {said}." if said else line

    def tables(self) -> dict[str, pd.DataFrame]:
        """CSV files of the metric folder, by file name."""
        split = pd.DataFrame({"profile": self.split.index, "split": self.split.to_numpy()})
        return {"split.csv": split, "profiles.csv": self.profiles, "metrics.csv": self.table}


def judge_metric(
    learner: "CosineMetric",
    profiles: Profiles,
    key: str,
    validation: float,
    test: float,
    group: str | None = None,
    model: Model | None = None,
) -> Judged:
    """Learn a metric on training profiles, and evaluate it and the simpler metrics on validation and test profiles.

    The accuracy of a metric is the share of profiles whose nearest training profiles vote for their label. Genes,
    means, components and M are fitted on training profiles; validation profiles choose the epoch of M; test profiles
    choose nothing.

    Parameters
    ----------
    learner
        Metric to fit, in place. Its seed is also that of the split.
    profiles
        All profiles. Those without any value or without a label, or with a label of fewer than three profiles, are
        excluded.
    key
        Column of obs with the labels, whose proportions each split keeps.
    validation, test
        Fractions of the profiles, both above 0.
    group
        Column of obs; profiles with the same value stay in one split.
    model
        Model whose latents are compared instead of genes.
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
    """(n_profiles,) labels as strings, missing for excluded profiles; and the number of these by reason."""
    labels = labels_in(profiles.obs, key)
    without = labels.isna()
    empty = pd.Series(profiles.scan.lengths == 0, index=labels.index) & ~without
    labels = labels.mask(empty)
    counts = labels.value_counts()
    if len(counts) < 2:
        raise InputError(
            f"obs column '{key}' must have at least two labels; found {listed(counts.index)}. Name another column."
        )
    if (counts >= RARE).sum() < 2:
        found = listed(f"'{name}' {count}" for name, count in counts.items())
        raise InputError(
            f"at least two labels of obs column '{key}' must have {RARE} or more profiles, for {', '.join(SPLITS)}; "
            f"found {found}. Merge labels, or name another column."
        )
    rare = labels.isin(counts.index[counts < RARE])
    return labels.mask(rare), {
        "without a label": int(without.sum()),
        "without any value": int(empty.sum()),
        f"with a label of fewer than {RARE} profiles": int(rare.sum()),
    }


def _ways(
    learner: "CosineMetric", train: Profiles | np.ndarray
) -> dict[str, Callable[[Profiles | np.ndarray], np.ndarray]]:
    """Functions by name of the metric, from profiles to their similarities to the training profiles."""

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
    """One sentence: which metrics the learned one is better than, worse than, or not distinguishable from."""
    test = judged.table[(judged.table["split"] == "test") & (judged.table["metric"] != LEARNED)]
    verdicts = {
        "better than": test["low"] > 0,
        "worse than": test["high"] < 0,
        "not distinguishable from": (test["low"] <= 0) & (test["high"] >= 0),
    }
    said = [f"{verdict} {_listed(test.loc[holds, 'metric'])}" for verdict, holds in verdicts.items() if holds.any()]
    return f"On {counted(test['n_profiles'].iloc[0], 'test profile')} the learned metric is {', and '.join(said)}."


def _listed(ways: pd.Series) -> str:
    return ", ".join(WAYS[way] for way in ways)
