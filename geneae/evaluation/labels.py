"""How much an encoder knows of labels that took no part in its training, beside what needs no training of it."""

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from geneae.data.preprocess import Expression, Preprocess
from geneae.evaluation.latents import Representation, encode, sample
from geneae.evaluation.records import CLEAR, Evaluation, outcome, signed
from geneae.models.network import Network
from geneae.settings.errors import InputError, unknown
from geneae.training.devices import threads

NEIGHBOURS = (20, 200)  # the two numbers of the papers on self-supervised learning


TEMPERATURE = 0.1  # of a neighbour's vote, exp(cosine / temperature)


PROBE_STEPS = 300  # of the solver of a linear probe


BY_PROFILE = (*(f"knn_{k}" for k in NEIGHBOURS), "linear_probe")


OF_CLUSTERS = ("ari", "nmi")


COLUMNS = ["model", "seed", "split", "metric", "statistic", "value", "n_profiles", "better"]


TITLES = {
    "model": "model",
    "supervised": "supervised encoder",
    "raw_input": "raw input",
    "pca": "PCA",
    "random_encoder": "random encoder",
}


@dataclass(frozen=True, eq=False)
class Labelled:
    """Profiles with a label, and what each is for."""

    matrix: sparse.csr_matrix
    """(n, n_genes) as the network sees them."""
    names: pd.Index
    """Of the profiles."""
    labels: np.ndarray
    """(n,) as whole numbers."""
    split: np.ndarray
    """(n,) `train`, `validation` or `test`."""

    def among(self, name: str) -> np.ndarray:
        """Positions of a split."""
        return np.flatnonzero(self.split == name)


def labelled(
    expression: Expression, preprocess: Preprocess, obs: pd.DataFrame, split: pd.Series, key: str, seed: int
) -> Labelled:
    """At most 5,000 profiles of each split that have a label.

    Parameters
    ----------
    expression, preprocess, obs, split
        Of all profiles, in one order.
    key
        Column of `obs`; profiles without a value are left out.
    seed
        Of the choice where there are more.
    """
    if key not in obs.columns:
        raise unknown("obs column", key, obs.columns)
    codes, _ = pd.factorize(obs[key].astype(object), sort=True)
    rows = sample(split, codes >= 0, seed)
    if not len(rows[0]) or len(np.unique(codes[rows[0]])) < 2:
        raise InputError(
            f"labels must tell training profiles apart, but column '{key}' has {len(np.unique(codes[rows[0]]))} "
            "different values among them. Name another column with --label."
        )
    kept = np.concatenate(rows)
    return Labelled(preprocess.apply(expression.take(kept)), obs.index[kept], codes[kept], split.to_numpy()[kept])


def knn_votes(
    reference: Representation, labels: np.ndarray, queries: Representation, n_labels: int, k: int
) -> np.ndarray:
    """(n_queries, n_labels) votes of the k nearest references by cosine, each exp(cosine / 0.1) (Wu et al. 2018, arXiv
    1805.01978). Where there are fewer references, all vote."""
    k = min(k, reference.shape[0])
    distance, of = (
        NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(reference).kneighbors(queries)
    )
    weight = np.exp(-distance / TEMPERATURE)  # exp(1 / temperature), which all have, is left out
    votes = np.zeros((queries.shape[0], n_labels))
    np.add.at(votes, (np.arange(len(votes))[:, None], labels[of]), weight)
    return votes


def knn_is_right(known: Labelled, values: Representation, name: str, k: int) -> np.ndarray:
    """(n,) whether the training profiles vote for the right label of each profile of a split."""
    train, judged = known.among("train"), known.among(name)
    votes = knn_votes(values[train], known.labels[train], values[judged], known.labels.max() + 1, k)
    right: np.ndarray = votes.argmax(1) == known.labels[judged]
    return right


def probe_is_right(known: Labelled, values: Representation) -> np.ndarray:
    """(n,) whether logistic regression on training profiles, each column divided by its deviation, finds the label."""
    train = known.among("train")
    scaler = StandardScaler(with_mean=not sparse.issparse(values)).fit(values[train])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe is as good as it is after so many steps
        probe = LogisticRegression(max_iter=PROBE_STEPS).fit(scaler.transform(values[train]), known.labels[train])
    right: np.ndarray = probe.predict(scaler.transform(values)) == known.labels
    return right


def can_cluster() -> bool:
    """Whether igraph, which scanpy's Leiden clustering needs, is installed."""
    return importlib.util.find_spec("igraph") is not None


def clusters(values: Representation, seed: int) -> np.ndarray:
    """(n,) Leiden clusters by scanpy: 15 neighbours by Euclidean distance, resolution 1."""
    import anndata
    import scanpy as sc  # slow to load

    adata = anndata.AnnData(values)
    with threads(torch.get_num_threads()):  # the search for neighbours changes the number for all of the process
        sc.pp.neighbors(adata, n_neighbors=min(15, values.shape[0] - 1), use_rep="X", random_state=seed)
    sc.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False, random_state=seed)
    found: np.ndarray = adata.obs["leiden"].cat.codes.to_numpy()
    return found


def watch(known: Labelled, shift: Tensor | None) -> Callable[[Network], dict[str, float]]:
    """A look at the k-NN accuracy of the validation profiles, for each epoch: `validation_knn_20`, ..."""

    def look(network: Network) -> dict[str, float]:
        latent = encode(network, known.matrix, shift)
        return {
            f"validation_knn_{k}": float(np.mean(knn_is_right(known, latent, "validation", k)))
            if len(known.among("validation"))
            else float("nan")
            for k in NEIGHBOURS
        }

    return look


def judge_latents(known: Labelled, representations: dict[str, Representation], seed: int) -> Evaluation:
    """Judge representations by labels, on validation and test profiles.

    Returns
    -------
    In `profiles`, whether k-NN and linear probe are right, 1 or 0; in `metrics`, the means of these, and how much
    Leiden clusters of all these profiles, training ones too, agree with the labels within a split: adjusted Rand index
    (`ari`, 0 by chance, 1 at best) and normalised mutual information (`nmi`, 0 to 1); without igraph neither.
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
                found["ari"] = adjusted_rand_score(known.labels[judged], of_cluster[judged])
                found["nmi"] = normalized_mutual_info_score(known.labels[judged], of_cluster[judged])
            tables.append(pd.DataFrame({"model": model, "profile": known.names[judged], "split": name, **right}))
            rows += [(model, seed, name, metric, "mean", mean, len(judged), "higher") for metric, mean in found.items()]
    return Evaluation(pd.concat(tables, ignore_index=True), pd.DataFrame(rows, columns=COLUMNS), {})


def is_judged(evaluation: Evaluation) -> bool:
    """Whether labels took part."""
    return BY_PROFILE[0] in evaluation.profiles


def merge(first: Evaluation, second: Evaluation) -> Evaluation:
    """Numbers of both, profile by profile and model by model, in the order of the first."""
    keys = ["model", "profile", "split"]
    others = second.profiles[~second.profiles["model"].isin(first.profiles["model"])]
    profiles = pd.concat([first.profiles.merge(second.profiles, how="left", on=keys), others], ignore_index=True)
    return Evaluation(profiles, pd.concat([first.metrics, second.metrics], ignore_index=True), first.scales)


def paired(evaluation: Evaluation, rival: str, split: str) -> tuple[float, float, int]:
    """Mean difference in k-NN accuracy of model and rival over the same profiles, its standard error, and how many."""
    table = evaluation.profiles[evaluation.profiles["split"] == split]
    own, other = (
        table[table["model"] == name].set_index("profile")[BY_PROFILE[0]].dropna() for name in ("model", rival)
    )
    differences = (own - other).dropna()
    return float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(differences))), len(differences)


def label_verdict(evaluation: Evaluation, split: str) -> str:
    """One sentence: whether the latents tell labels better than each control does, on a split, by k-NN accuracy."""
    said = []
    for rival in ("random_encoder", "raw_input", "pca"):
        difference, error, n_profiles = paired(evaluation, rival, split)
        title = f"{TITLES[rival]}{' of the same size' if rival == 'pca' else ''}"
        said.append(f"{outcome(difference, error)} {title} ({signed(difference)} ± {CLEAR * error:.4f})")
    return (
        f"Judged by labels of {NEIGHBOURS[0]} neighbours (k-NN accuracy) on {n_profiles:,} {split} profiles, the "
        f"latent {', '.join(said)}."
    )
