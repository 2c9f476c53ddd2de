"""Judge of latents by how well they mix profiles of different batches (donors, sequencing runs), next to controls.

Good mixing alone proves nothing: a latent space without any information mixes batches perfectly.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy import sparse

from geneae.data.labels import labels_in
from geneae.evaluation.controls import UNTRAINED, untrained_controls
from geneae.evaluation.judge import Judge, Judgement, JudgingData, MetricFacts, ModelFacts, PreparedJudge
from geneae.evaluation.labels import ACCURACIES
from geneae.evaluation.latents import Representation, latents_of, sample
from geneae.evaluation.records import COLUMNS, value
from geneae.models.model import Model
from geneae.settings.errors import InputError
from geneae.settings.text import counted
from geneae.training.loop import Training

LISI_NEIGHBOURS, KBET_NEIGHBOURS = 90, 50  # including the profile itself, as in the benchmark of scib-metrics
KBET_LEVEL = 0.05  # a neighbourhood with a lower p value counts as not mixed
SHUFFLED = "shuffled_batches"
OF_BATCHES = ("ilisi", "kbet", "bras")
ALONE_PROVES_NOTHING = (
    "Good mixing alone proves nothing: a latent space without any information mixes batches perfectly."
)


class Batches(Judge):
    """How well latents mix batches, next to controls and shuffled batches."""

    metrics: ClassVar[Mapping[str, MetricFacts]] = {
        "ilisi": MetricFacts("iLISI of batches", is_main=True, short="iLISI"),
        "kbet": MetricFacts("kBET of batches", is_main=True, short="kBET"),
        "bras": MetricFacts("BRAS of batches", is_main=True, short="BRAS"),
    }
    models: ClassVar[Mapping[str, ModelFacts]] = {
        "model": ModelFacts("model"),
        **UNTRAINED,
        SHUFFLED: ModelFacts("shuffled batches"),
    }
    columns = (*OF_BATCHES, ACCURACIES[0])

    def prepare(self, data: JudgingData) -> "_Prepared | None":
        """Refuse a column that is missing, or has fewer than two values or too many; None without `--batch`."""
        return None if data.settings.batch_key is None else _Prepared(data, batched(data, data.settings.batch_key))

    def head(self, settings: Mapping[str, Any]) -> str:
        """Meaning of the scale, and numbers of profiles."""
        return "How well the latents mix batches, on {sizes} profiles; 0: separate; shuffled batches: fully mixed"

    def note(self, settings: Sequence[Mapping[str, Any]]) -> str:
        """Definitions of the numbers, and what they do not show."""
        return (
            "iLISI, kBET and, with labels, BRAS measure how well the latents mix batches: 0 is separate, and shuffled "
            "batches are fully mixed. iLISI: the number of batches among the neighbours of a profile, as the "
            "median over profiles, scaled to 0 to 1. kBET: the share of neighbourhoods with the batch proportions of "
            "all profiles, by a strict test. BRAS: 1 minus the absolute silhouette width of batches within a label, "
            f"mean over labels. {ALONE_PROVES_NOTHING} Where batches contain different kinds of profiles, iLISI and "
            "kBET should stay below their values for shuffled batches. This does not affect BRAS, but noise in many "
            "dimensions, as in raw input, raises it."
        )


@dataclass(frozen=True, eq=False)
class _Prepared(PreparedJudge):
    data: JudgingData
    known: "Batched"

    def judge(self, model: Model, training: Training) -> Judgement:
        """Evaluate the latents, their controls and shuffled batches."""
        settings, matrix = self.data.settings, self.known.matrix
        latent = latents_of(model, matrix)
        representations = {"model": latent, **untrained_controls(matrix, model.baselines, settings)}
        metrics = judge_batches(self.known, representations, settings.seed)
        return Judgement(metrics, sentence=mixing_verdict(metrics, self.data.last_split))


@dataclass(frozen=True, eq=False)
class Batched:
    """Profiles with a batch, and the split of each."""

    matrix: sparse.csr_matrix
    """(n, n_genes) preprocessed profiles."""
    batches: np.ndarray
    """(n,) integer codes from 0."""
    labels: np.ndarray | None
    """(n,) integer codes; BRAS compares batches among profiles of equal label. None without labels."""
    split: np.ndarray
    """(n,) `train`, `validation` or `test`."""
    rows: np.ndarray
    """(n,) positions of these profiles among all."""


def batched(data: JudgingData, key: str) -> Batched:
    """Up to 5,000 profiles of each split that have a batch in column `key` of `obs` and, with `--label`, a label.

    These are the profiles of `labels.labelled` if every profile has both.
    """
    obs, label = data.obs, data.settings.label
    batches = pd.factorize(labels_in(obs, key, "--batch"))[0]
    labels = None if label is None else pd.factorize(labels_in(obs, label))[0]
    is_known = batches >= 0 if labels is None else (batches >= 0) & (labels >= 0)
    kept = np.concatenate(sample(data.split, is_known, data.settings.seed))
    found, batches = np.unique(batches[kept], return_inverse=True)
    if not 2 <= len(found) <= len(kept) / 2:
        raise InputError(
            f"there must be at least two batches, with at least two profiles each on average; column '{key}' has "
            f"{counted(len(found), 'different value')} among {counted(len(kept), 'profile')}. Name another column with "
            "--batch."
        )
    labels = None if labels is None else labels[kept]
    matrix = data.preprocess.apply(data.expression.take(kept))
    return Batched(matrix, batches, labels, data.split.to_numpy()[kept], kept)


def neighbours(values: Representation, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, k) positions of the nearest profiles by Euclidean distance, each profile itself first, and (n, k) float32
    distances minus the distance to the nearest other profile.

    The subtraction does not change normalised weights exp(-beta distance), and keeps them from underflowing to 0.
    """
    from sklearn.neighbors import NearestNeighbors  # slow to load

    distance, of = NearestNeighbors(n_neighbors=k - 1, algorithm="brute").fit(values).kneighbors()
    distance = np.column_stack([np.zeros(len(of)), distance - distance[:, :1]])
    return np.column_stack([np.arange(len(of)), of]), distance.astype(np.float32)


def lisi_and_kbet(of: np.ndarray, distance: np.ndarray, batches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) LISI, 1 to the number of batches, and (n,) whether kBET accepts a neighbourhood, by scib-metrics.

    LISI is the inverse Simpson index of the batches among 90 neighbours at a perplexity of 30 (Korsunsky et al. 2019).
    kBET accepts where a chi-squared test finds the batches of 50 neighbours in the proportions of all profiles (Büttner
    et al. 2019). With fewer profiles, all are neighbours.

    Parameters
    ----------
    of, distance
        Results of `neighbours`.
    batches
        (n,) integer codes from 0.
    """
    import jax  # slow to load, and optional like scib-metrics

    scib = _scib()
    n = KBET_NEIGHBOURS
    with jax.default_device(jax.devices("cpu")[0]):  # the same numbers wherever the fit was trained
        lisi = scib.lisi_knn(scib.nearest_neighbors.NeighborsResults(of, distance), batches)
        _, _, p = scib.kbet(scib.nearest_neighbors.NeighborsResults(of[:, :n], distance[:, :n]), batches)
    return np.asarray(lisi, np.float64), np.asarray(p) >= KBET_LEVEL


def _scib() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)  # from umap, which it loads
        import scib_metrics
        import scib_metrics.nearest_neighbors
    return scib_metrics


def batch_silhouette(values: Representation, batches: np.ndarray) -> np.ndarray:
    """(n,) (b - a) / max(a, b), -1 to 1, 0 where batches are mixed: a is the mean cosine distance of a profile to the
    others of its batch, b its mean to all profiles of other batches. 0 for the only profile of a batch.

    A mean cosine distance is one minus a product with a sum of unit vectors, which is exact for sparse profiles and
    needs no n x n distances. A profile of zeros has distance 1 to all others; in scib-metrics it makes others NaN.
    """
    from sklearn.preprocessing import normalize  # slow to load
    from sklearn.utils.extmath import row_norms

    unit = normalize(values.astype(np.float64))
    similarity = unit @ (unit.T @ np.eye(batches.max() + 1)[batches])  # (n, n_batches), sums over a batch
    own, count = similarity[np.arange(len(batches)), batches], np.bincount(batches)[batches]
    with np.errstate(invalid="ignore", divide="ignore"):
        within = 1 - (own - row_norms(unit, squared=True)) / (count - 1)
        between = 1 - (similarity.sum(1) - own) / (len(batches) - count)
        width = (between - within) / np.maximum(within, between)
    found: np.ndarray = np.where(count > 1, np.nan_to_num(width), 0.0)
    return found


def bras_by_profile(values: Representation, batches: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n,) one minus the absolute `batch_silhouette` among profiles of the same label (BRAS, Rautenstrauch and Ohler
    2025): 0 (separate) to 1 (mixed); NaN where a label has only one batch, or only one profile in each batch."""
    found = np.full(len(batches), np.nan)
    for label in np.unique(labels):
        inside = np.flatnonzero(labels == label)
        present, among = np.unique(batches[inside], return_inverse=True)
        if 1 < len(present) < len(inside):
            found[inside] = 1 - np.abs(batch_silhouette(values[inside], among))
    return found


def judge_batches(known: Batched, representations: dict[str, Representation], seed: int) -> pd.DataFrame:
    """Evaluate how well representations mix batches, on validation and test profiles.

    Neighbours and distances are taken among all of these profiles, training profiles included, because a split may
    hold few profiles of a batch. The model `shuffled_batches` is the raw input with batches permuted over the profiles.

    Returns
    -------
    Rows of `Evaluation.metrics`, all between 0 (separate batches) and 1. `ilisi`: (median LISI of the profiles - 1) /
    (number of batches - 1); 1 where neighbours come from all batches equally, which shuffled batches of unequal size do
    not reach. `kbet`: the share of neighbourhoods with the batch proportions of all profiles; about 0.95 or more for
    shuffled batches; a strict test, often near 0. With labels also `bras`: the mean over labels of the mean
    `bras_by_profile`; only `bras` is not affected by batches with different kinds of profiles, and noise in many
    dimensions, as in raw input, raises it. Neither direction counts as better: batches that differ in biology mix less,
    and a latent space without information mixes everything.
    """
    shuffled = np.random.default_rng(seed).permutation(known.batches)
    k = min(LISI_NEIGHBOURS, len(known.batches))
    rows = []
    for model, values in representations.items():
        near = neighbours(values, k)
        for name, batches in {model: known.batches, **({SHUFFLED: shuffled} if model == "raw_input" else {})}.items():
            lisi, accepts = lisi_and_kbet(*near, batches)
            mixed = None if known.labels is None else bras_by_profile(values, batches, known.labels)
            for split in ("validation", "test"):
                inside = known.split == split
                if not inside.any():
                    continue
                found = {"ilisi": (np.median(lisi[inside]) - 1) / batches.max(), "kbet": accepts[inside].mean()}
                if mixed is not None and known.labels is not None:
                    found["bras"] = pd.Series(mixed[inside]).groupby(known.labels[inside]).mean().mean()
                rows += [Batches.row(name, seed, split, key, float(n), int(inside.sum())) for key, n in found.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def mixing_verdict(metrics: pd.DataFrame, split: str) -> str:
    """Sentences on how well the latents mix batches, by iLISI on a split, next to controls and shuffled batches."""
    number = {name: value(metrics, name, split, OF_BATCHES[0]) for name in Batches.models}
    beside = ", ".join(
        f"{Batches.models[name].of_size} {number[name]:.4f}" for name in ("raw_input", "pca", "random_encoder")
    )
    return (
        f"Mixing of batches by iLISI (0: separate; {number[SHUFFLED]:.4f}: shuffled batches): latent "
        f"{number['model']:.4f}, {beside}. {ALONE_PROVES_NOTHING}"
    )
