"""Judge of latents by labels that were not used in training, next to controls: raw input, PCA, a random and a
supervised encoder."""

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy import sparse
from torch import Tensor

from geneae.data.labels import labels_in
from geneae.data.splits import EXCLUDED
from geneae.evaluation.controls import SUPERVISED, UNTRAINED, supervised_control, untrained_controls
from geneae.evaluation.judge import (
    Diagnostic,
    Judge,
    Judgement,
    JudgingData,
    MetricFacts,
    ModelFacts,
    PreparedJudge,
    Watch,
)
from geneae.evaluation.latents import Representation, encode, latents_of, neighbour_graph, sample
from geneae.evaluation.records import CLEAR, COLUMNS, outcome, paired_difference, with_interval
from geneae.models.model import Model
from geneae.models.network import Network
from geneae.settings.errors import InputError
from geneae.settings.loss_terms import part_of_labels
from geneae.settings.text import counted
from geneae.training.loop import Training

NEIGHBOURS = (20, 200)  # the two values used in papers on self-supervised learning
TEMPERATURE = 0.1  # of a neighbour's vote, exp(cosine / temperature)
PROBE_STEPS = 300  # of the solver of the linear probe
ACCURACIES = (*(f"knn_{k}" for k in NEIGHBOURS), "linear_probe")
OF_CLUSTERS = ("ari", "nmi")


@dataclass(frozen=True, eq=False)
class Labelled:
    """Profiles with a label, and the split of each."""

    matrix: sparse.csr_matrix
    """(n, n_genes) preprocessed profiles."""
    names: pd.Index
    """Names of the profiles."""
    labels: np.ndarray
    """(n,) integer codes of the labels."""
    split: np.ndarray
    """(n,) `train`, `validation` or `test`."""
    n_missing: int = 0
    """Profiles of these splits that were left out, because they have no label."""

    def among(self, name: str) -> np.ndarray:
        """Positions of the profiles of a split."""
        return np.flatnonzero(self.split == name)


def labelled(data: JudgingData, key: str) -> Labelled:
    """Up to 5,000 profiles of each split that have a label in column `key` of `obs`."""
    obs, split = data.obs, data.split
    codes, _ = pd.factorize(labels_in(obs, key), sort=True)
    rows = sample(split, codes >= 0, data.settings.seed)
    if not len(rows[0]) or len(np.unique(codes[rows[0]])) < 2:
        raise InputError(
            "labels must have at least 2 different values among the training profiles; column "
            f"'{key}' has {len(np.unique(codes[rows[0]]))}. Name another column with --label."
        )
    n_train, n_values = len(rows[0]), len(np.unique(codes[rows[0]]))
    if n_values > round(n_train / 2):
        raise InputError(
            f"labels must be shared by profiles; column '{key}' has {n_values:,} different values among "
            f"{counted(n_train, 'training profile')}, as names or measurements have. Name another column with --label."
        )
    kept = np.concatenate(rows)
    matrix = data.preprocess.apply(data.expression.take(kept))
    n_missing = int(((codes < 0) & (split != EXCLUDED).to_numpy()).sum())
    return Labelled(matrix, obs.index[kept], codes[kept], split.to_numpy()[kept], n_missing)


class Labels(Judge):
    """Accuracy of predicting the labels of held-out profiles from latents, next to controls."""

    metrics: ClassVar[Mapping[str, MetricFacts]] = {
        **{
            f"knn_{k}": MetricFacts(
                f"{k}-NN accuracy",
                "higher",
                is_by_profile=True,
                is_main=True,
                short=f"{k}-NN",
                in_full=f"{k}-NN accuracy of the latents",
            )
            for k in NEIGHBOURS
        },
        "linear_probe": MetricFacts(
            "linear probe accuracy", "higher", is_by_profile=True, is_main=True, short="linear probe"
        ),
        "ari": MetricFacts("ARI", "higher", is_main=True),
        "nmi": MetricFacts("NMI", "higher", is_main=True),
    }
    models: ClassVar[Mapping[str, ModelFacts]] = {"model": ModelFacts("model"), **SUPERVISED, **UNTRAINED}
    columns = (*ACCURACIES, *OF_CLUSTERS)

    def prepare(self, data: JudgingData) -> "_Prepared | None":
        """Refuse a column that is missing, or that has one value or nearly as many values as training profiles.

        None without `--label`.
        """
        return None if data.settings.label is None else _Prepared(data, labelled(data, data.settings.label))

    def head(self, settings: Mapping[str, Any]) -> str:
        """Role of the labels in training, and numbers of profiles."""
        part = part_of_labels(str(settings["loss"]), settings.get("metric"))
        return f"Latents evaluated by labels that {part}, on {{sizes}} profiles; ↑ higher is better"

    def note(self, settings: Sequence[Mapping[str, Any]]) -> str:
        """Definitions of the numbers, and the role of the labels in training."""
        part = " or ".join(dict.fromkeys(part_of_labels(str(s.get("loss")), s.get("metric")) for s in settings))
        return (
            "k-NN accuracy: the training profiles whose latents are nearest by cosine vote for the label of a profile. "
            "Linear probe: logistic regression on the latents of training profiles. ARI and NMI: how well Leiden "
            f"clusters of the latents agree with the labels. Labels {part}; the supervised encoder was trained on "
            "them, which on few profiles need not make it the best."
        )


@dataclass(frozen=True, eq=False)
class _Prepared(PreparedJudge):
    data: JudgingData
    known: "Labelled"

    @property
    def watch(self) -> Watch | None:
        """k-NN accuracy of the validation profiles: `validation_knn_20`, ..."""
        return self._watch

    def _watch(self, network: Network, shift: Tensor | None) -> dict[str, float]:
        latent = encode(network, self.known.matrix, shift)
        return {
            f"validation_knn_{k}": float(np.mean(knn_is_right(self.known, latent, "validation", k)))
            if len(self.known.among("validation"))
            else float("nan")
            for k in NEIGHBOURS
        }

    def judge(self, model: Model, training: Training) -> Judgement:
        """Evaluate the latents and all controls; without a decoder, diagnostics compare them, too."""
        settings, split = self.data.settings, self.data.last_split
        latent = latents_of(model, self.known.matrix)
        others = {
            "supervised": supervised_control(
                self.known.matrix, self.known.labels, self.known.among("train"), model.baselines, settings
            ),
            **untrained_controls(self.known.matrix, model.baselines, settings),
        }
        profiles, metrics = judge_latents(self.known, {"model": latent, **others}, settings.seed)
        found = [] if self.data.has_decoder else _against_controls(profiles, split)
        sentence = label_verdict(profiles, split)
        if self.known.n_missing:
            left_out = counted(
                self.known.n_missing,
                f"profile without a label in '{settings.label}' was left out.",
                f"profiles without a label in '{settings.label}' were left out.",
            )
            sentence += f" {left_out}"
        return Judgement(metrics, profiles, found, sentence)


def nearest_labels(reference: Representation, labels: np.ndarray, queries: Representation, k: int) -> np.ndarray:
    """(n_queries,) labels by a vote of the k nearest references by cosine, each with the weight exp(cosine / 0.1).

    Wu et al. 2018, arXiv 1805.01978. With fewer than k references, all vote.
    """
    from sklearn.neighbors import KNeighborsClassifier  # slow to load

    k = min(k, reference.shape[0])
    voters = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=vote_weights)
    # predict would sum the votes label by label, which is slow for many labels
    shares = voters.fit(reference, labels).predict_proba(queries)
    found: np.ndarray = voters.classes_[shares.argmax(axis=1)]
    return found


def knn_is_right(known: Labelled, values: Representation, name: str, k: int) -> np.ndarray:
    """(n,) whether a k-NN vote of the training profiles gives the right label, for each profile of a split."""
    train, judged = known.among("train"), known.among(name)
    found = nearest_labels(values[train], known.labels[train], values[judged], k)
    right: np.ndarray = found == known.labels[judged]
    return right


def vote_weights(distances: np.ndarray) -> np.ndarray:
    """exp(cosine / temperature), without the factor exp(1 / temperature) that all votes share."""
    weights: np.ndarray = np.exp(-distances / TEMPERATURE)
    return weights


def probed_labels(among: Representation, codes: np.ndarray, values: Representation) -> np.ndarray:
    """(n,) labels that logistic regression on other profiles gives, with columns scaled to unit deviation.

    Parameters
    ----------
    among
        (n_train, n_columns) representation of profiles whose labels are known.
    codes
        (n_train,) their labels, at least two different ones.
    values
        (n, n_columns) profiles to label.
    """
    from sklearn.exceptions import ConvergenceWarning  # slow to load
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler(with_mean=not sparse.issparse(among)).fit(among)
    # The probe is defined by this number of steps. Products of matrices may be said to be invalid where none is.
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe = LogisticRegression(max_iter=PROBE_STEPS).fit(scaler.transform(among), codes)
        found: np.ndarray = probe.predict(scaler.transform(values))
    return found


def probe_is_right(known: Labelled, values: Representation) -> np.ndarray:
    """(n,) whether logistic regression on training profiles finds the label."""
    train = known.among("train")
    right: np.ndarray = probed_labels(values[train], known.labels[train], values) == known.labels
    return right


def can_cluster() -> bool:
    """Whether igraph, which scanpy's Leiden clustering needs, is installed."""
    return importlib.util.find_spec("igraph") is not None


def clusters(values: Representation, seed: int) -> np.ndarray:
    """(n,) Leiden clusters by scanpy: 15 neighbours by Euclidean distance, resolution 1."""
    import scanpy as sc  # slow to load

    adata = neighbour_graph(values, seed)
    sc.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False, random_state=seed)
    found: np.ndarray = adata.obs["leiden"].cat.codes.to_numpy()
    return found


def judge_latents(
    known: Labelled, representations: dict[str, Representation], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Evaluate representations by labels, on validation and test profiles.

    Returns
    -------
    A table by profile: whether k-NN and linear probe are right, 1 or 0. And the long table: the means of these, and the
    agreement of labels within a split with Leiden clusters of all profiles (training profiles included): adjusted Rand
    index (`ari`, 0 by chance, 1 at best) and normalised mutual information (`nmi`, 0 to 1); both only with igraph.
    """
    tables, rows = [], []
    for model, values in representations.items():
        by_probe = probe_is_right(known, values)
        of_cluster = clusters(values, seed) if can_cluster() else None
        for name in ("validation", "test"):
            judged = known.among(name)
            if not len(judged):
                continue
            right = {f"knn_{k}": knn_is_right(known, values, name, k).astype(float) for k in NEIGHBOURS}
            right["linear_probe"] = by_probe[judged].astype(float)
            found = {metric: float(column.mean()) for metric, column in right.items()}
            if of_cluster is not None:
                found |= _agreement(known.labels[judged], of_cluster[judged])
            tables.append(pd.DataFrame({"model": model, "profile": known.names[judged], "split": name, **right}))
            rows += [Labels.row(model, seed, name, metric, mean, len(judged)) for metric, mean in found.items()]
    return pd.concat(tables, ignore_index=True), pd.DataFrame(rows, columns=COLUMNS)


def _agreement(labels: np.ndarray, of_cluster: np.ndarray) -> dict[str, float]:
    """`ari` and `nmi` of labels and clusters."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score  # slow to load

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes")  # of few profiles, most labels may be single
        return {
            "ari": adjusted_rand_score(labels, of_cluster),
            "nmi": normalized_mutual_info_score(labels, of_cluster),
        }


def _against_controls(profiles: pd.DataFrame, split: str) -> list[Diagnostic]:
    """Diagnostics of whether an encoder predicts labels better than a random encoder and PCA."""
    rivals = {
        "random_encoder": "a random encoder: these labels do not show that anything was learned",
        "pca": "PCA of the same size: prefer PCA, which is simpler",
    }
    found = []
    for rival, advice in rivals.items():
        difference, error, _ = paired_difference(profiles, "model", rival, split, ACCURACIES[0])
        found.append(
            Diagnostic(
                f"knn_over_{rival}",
                difference,
                f"above {CLEAR * error:.5f}",
                not difference > CLEAR * error,
                f"By {NEIGHBOURS[0]}-NN accuracy the latent is not clearly better than {advice}.",
            )
        )
    return found


def label_verdict(profiles: pd.DataFrame, split: str) -> str:
    """Sentence on whether the latents predict labels better than each control, by k-NN accuracy on a split."""
    said, n_profiles = [], 0
    for rival in ("random_encoder", "raw_input", "pca"):
        difference, error, each = paired_difference(profiles, "model", rival, split, ACCURACIES[0])
        n_profiles = len(each)
        title = Labels.models[rival].of_size
        said.append(f"{outcome(difference, error)} {title} ({with_interval(difference, error)})")
    return f"By {NEIGHBOURS[0]}-NN accuracy of labels on {n_profiles:,} {split} profiles, the latent {', '.join(said)}."
