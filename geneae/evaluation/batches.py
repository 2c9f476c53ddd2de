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
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import row_norms

from geneae.evaluation.controls import UNTRAINED, untrained_controls
from geneae.evaluation.judge import Judge, Judgement, JudgingData, MetricFacts, ModelFacts, Watch
from geneae.evaluation.labels import BY_PROFILE
from geneae.evaluation.latents import Representation, encode, sample
from geneae.evaluation.records import COLUMNS, value
from geneae.models.model import Model
from geneae.settings.errors import InputError, unknown
from geneae.training.loop import Training

LISI_NEIGHBOURS, KBET_NEIGHBOURS = 90, 50  # with the profile itself, as in the benchmark of scib-metrics
KBET_LEVEL = 0.05  # below it the test says that a neighbourhood is not mixed
SHUFFLED = "shuffled_batches"
OF_BATCHES = ("ilisi", "kbet", "bras")
NO_MERIT = "Good mixing alone proves nothing: a latent space without any information mixes batches perfectly."


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
    columns = (*OF_BATCHES, BY_PROFILE[0])

    def prepare(self, data: JudgingData) -> "_Prepared | None":
        """Refuse a column that is missing or holds too few profiles of a value; None without `--batch`."""
        return None if data.settings.batch_key is None else _Prepared(data, batched(data, data.settings.batch_key))

    def head(self, settings: Mapping[str, Any]) -> str:
        """What 0 means, and how many profiles there are."""
        return "How the latents mix batches, on {sizes} profiles; 0 is apart, shuffled batches are mixed"

    def note(self, settings: Sequence[Mapping[str, Any]]) -> str:
        """How the numbers are made and what they are worth."""
        return (
            "iLISI, kBET and, where there are labels, BRAS: how well the latents mix batches; 0 is apart, and shuffled "
            "batches are mixed. iLISI: how many batches the neighbours of a profile come from, the median over "
            "profiles, scaled to 0 to 1. kBET: the share of neighbourhoods that hold batches in the proportions of all "
            "profiles, a strict test. BRAS: 1 minus the size of the silhouette width of batches within a label, mean "
            f"over labels. {NO_MERIT} Where batches hold other kinds of profiles, iLISI and kBET should stay below "
            "what shuffled batches give. BRAS does not mind, but noise in many dimensions, as in raw input, raises it."
        )


@dataclass(frozen=True, eq=False)
class _Prepared:
    data: JudgingData
    known: "Batched"

    @property
    def watch(self) -> Watch | None:
        """None: mixing is not followed through training."""
        return None

    def judge(self, model: Model, training: Training) -> Judgement:
        """Evaluate the latents, their controls and shuffled batches."""
        settings, matrix = self.data.settings, self.known.matrix
        latent = encode(model.network, matrix, model.shift(is_half=False))
        representations = {"model": latent, **untrained_controls(matrix, model.baselines, settings)}
        metrics = judge_batches(self.known, representations, settings.seed)
        return Judgement(metrics, sentence=mixing_verdict(metrics, self.data.last_split))


@dataclass(frozen=True, eq=False)
class Batched:
    """Profiles of a batch, and what each is for."""

    matrix: sparse.csr_matrix
    """(n, n_genes) as the network sees them."""
    batches: np.ndarray
    """(n,) whole numbers from 0 on."""
    labels: np.ndarray | None
    """(n,) whole numbers, within equal ones of which batches are compared; None without labels."""
    split: np.ndarray
    """(n,) `train`, `validation` or `test`."""


def batched(data: JudgingData, key: str) -> Batched:
    """At most 5,000 profiles of each split that have a batch, by a column of `obs`, and a label where labels are given.

    Those that `labels.labelled` takes, where every profile has both.
    """
    obs, label = data.obs, data.settings.label
    for column in filter(None, (key, label)):
        if column not in obs.columns:
            raise unknown("obs column", column, obs.columns)
    batches = pd.factorize(obs[key])[0]
    labels = None if label is None else pd.factorize(obs[label])[0]
    is_known = batches >= 0 if labels is None else (batches >= 0) & (labels >= 0)
    kept = np.concatenate(sample(data.split, is_known, data.settings.seed))
    found, batches = np.unique(batches[kept], return_inverse=True)
    if not 2 <= len(found) <= len(kept) / 2:
        raise InputError(
            f"there must be two batches or more, of at least two profiles each on average; column '{key}' has "
            f"{len(found)} different values among {len(kept):,} profiles. Name another column with --batch."
        )
    labels = None if labels is None else labels[kept]
    matrix = data.preprocess.apply(data.expression.take(kept))
    return Batched(matrix, batches, labels, data.split.to_numpy()[kept])


def neighbours(values: Representation, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, k) positions of the nearest profiles by Euclidean distance, each profile itself first, and (n, k) float32
    distances less that to the nearest other profile.

    What is weighted by exp(-beta distance) does not see what is taken off, and large distances no longer vanish there.
    """
    distance, of = NearestNeighbors(n_neighbors=k - 1, algorithm="brute").fit(values).kneighbors()
    distance = np.column_stack([np.zeros(len(of)), distance - distance[:, :1]])
    return np.column_stack([np.arange(len(of)), of]), distance.astype(np.float32)


def lisi_and_kbet(of: np.ndarray, distance: np.ndarray, batches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) LISI, 1 to the number of batches, and (n,) whether kBET accepts a neighbourhood, by scib-metrics.

    LISI is the inverse Simpson index of the batches among 90 neighbours at a perplexity of 30 (Korsunsky et al. 2019).
    kBET accepts where a chi-squared test finds the batches of 50 neighbours in the proportions of all profiles (Büttner
    et al. 2019). Where there are fewer profiles, all are neighbours.

    Parameters
    ----------
    of, distance
        Of `neighbours`.
    batches
        (n,) whole numbers.
    """
    import jax  # slow to load, and optional, as scib-metrics is

    scib = _scib()
    n = KBET_NEIGHBOURS
    with jax.default_device(jax.devices("cpu")[0]):  # the same numbers wherever the fit was trained
        lisi = scib.lisi_knn(scib.nearest_neighbors.NeighborsResults(of, distance), batches)
        _, _, p = scib.kbet(scib.nearest_neighbors.NeighborsResults(of[:, :n], distance[:, :n]), batches)
    return np.asarray(lisi, np.float64), np.asarray(p) >= KBET_LEVEL


def _scib() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)  # of umap, which it loads
        import scib_metrics
        import scib_metrics.nearest_neighbors
    return scib_metrics


def batch_silhouette(values: Representation, batches: np.ndarray) -> np.ndarray:
    """(n,) (b - a) / max(a, b), -1 to 1, 0 where batches are mixed: a is the mean cosine distance of a profile to the
    others of its batch, b that to all profiles of other batches. 0 for the only profile of a batch.

    A mean cosine distance is one minus a product with a sum of unit vectors, so that it is exact on sparse profiles
    and takes no n x n distances. A profile of zeros is at distance 1 from all; in scib-metrics it makes others NaN.
    """
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
    """(n,) one minus the size of `batch_silhouette` among profiles of the same label (BRAS, Rautenstrauch and Ohler
    2025): 0 to 1, where batches are mixed; NaN where a label has one batch alone, or one profile in each."""
    found = np.full(len(batches), np.nan)
    for label in np.unique(labels):
        inside = np.flatnonzero(labels == label)
        present, among = np.unique(batches[inside], return_inverse=True)
        if 1 < len(present) < len(inside):
            found[inside] = 1 - np.abs(batch_silhouette(values[inside], among))
    return found


def judge_batches(known: Batched, representations: dict[str, Representation], seed: int) -> pd.DataFrame:
    """Judge how representations mix batches, on validation and test profiles.

    Neighbours and distances are taken among all of these profiles, training ones too, as few of a batch may be in a
    split. The model `shuffled_batches` is the raw input with batches permuted over the profiles.

    Returns
    -------
    Rows of `Evaluation.metrics`. All lie between 0, batches apart, and 1. `ilisi`: the median LISI of the profiles,
    less 1, over the number of batches less 1; 1 where neighbours come from all batches equally, which shuffled batches
    of unequal size do not. `kbet`: the share of neighbourhoods with batches in the proportions of all, at least 0.95 or
    so where they are shuffled; a strict test, often near 0. With labels `bras`: the mean over labels of the mean of
    `bras_by_profile`; it alone does not mind that batches hold other kinds of profiles, and noise in many dimensions,
    as in the raw input, raises it. Which way is better is left open: mixing is lost where batches differ in biology,
    and gained where everything is forgotten.
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
    """How far the latents mix batches beside controls and full mixing, on a split, by iLISI; and what that is worth."""
    number = {name: value(metrics, name, split, OF_BATCHES[0]) for name in Batches.models}
    beside = ", ".join(
        f"{Batches.models[name].of_size} {number[name]:.4f}" for name in ("raw_input", "pca", "random_encoder")
    )
    return (
        f"By iLISI (0: batches apart; {number[SHUFFLED]:.4f} where they are shuffled) the latent mixes batches by "
        f"{number['model']:.4f}, {beside}. {NO_MERIT}"
    )
