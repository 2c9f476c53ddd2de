"""Judge of latents without labels: how well the latents of both halves of a profile agree, next to controls.

A latent that shows what a profile is, and not the noise of its molecules, gives both halves the same neighbours, and
each half is the nearest of all to its own other half. Noise makes both worse, and so does throwing information away,
which makes profiles alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from geneae.data.count_split import Splitter, draw_halves
from geneae.data.preprocess import Expression, Preprocess
from geneae.evaluation.judge import Judge, Judgement, JudgingData, MetricFacts, ModelFacts, PreparedJudge
from geneae.evaluation.latents import encode
from geneae.evaluation.records import COLUMNS, value
from geneae.evaluation.regression import Regression
from geneae.losses.shared_neighbours import shared_neighbours
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.baselines import BASELINES
from geneae.models.ceiling import has_molecules
from geneae.models.estimator import Estimator
from geneae.models.model import Model
from geneae.models.network import Network
from geneae.training.choice import NEIGHBOURS
from geneae.training.loop import Training, is_clear, mean_gain

MOST_PROFILES = 1000  # of a split; more profiles change no digit that is shown
CHOICE_PROFILES = 2000  # of validation, where they choose a latent
REPEATS = 2  # count splits
LEAST_SPOKEN = 2 * NEIGHBOURS  # profiles; among fewer, most are neighbours anyway
AGREEMENT_STREAM = 19  # separates these random numbers from others of the same seed
START = "start"
"""Name of the latents from which training starts."""


class Agreement(Judge):
    """Neighbours that the latents of both halves share, the rank of a profile's other half, and how much is depth."""

    metrics: ClassVar[Mapping[str, MetricFacts]] = {
        "shared_neighbours": MetricFacts(
            "neighbours shared by both halves", "higher", is_by_profile=True, is_main=True
        ),
        "other_half_rank": MetricFacts("rank of the other half", "lower", is_by_profile=True, is_main=True),
        "depth_r2": MetricFacts("R² of log molecules from the latent"),
    }
    models: ClassVar[Mapping[str, ModelFacts]] = {
        "model": ModelFacts("model"),
        START: ModelFacts("start of training"),
        "pca": ModelFacts(BASELINES["pca"].title, BASELINES["pca"].is_sized, BASELINES["pca"].line),
    }
    columns = tuple(metrics)

    def prepare(self, data: JudgingData) -> "_Prepared | None":
        """Refuse nothing; None without counts, and where profiles predict others."""
        return _Prepared(data) if data.preprocess.state == "counts" and data.partner is None else None

    def note(self, settings: Sequence[Mapping[str, Any]]) -> str:
        """Definitions of the numbers, and their limit."""
        return (
            f"Neighbours shared by both halves: the share of the {NEIGHBOURS} nearest neighbours that the latent of "
            "one half of a profile's molecules has in common with that of the other half, mean of Euclidean distance "
            "and cosine. Rank of the other half: the share of all other profiles that are nearer by cosine to a half "
            "than its own other half, 0 at best and "
            "0.5 by chance. Neither needs a label. A latent that shows nothing but the depth of a profile also agrees: "
            "see R² of log molecules, by linear regression on training profiles."
        )


def other_half_rank(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n,) share of the other profiles whose latent in `second` is nearer by cosine than the profile's own.

    Mean of both directions. Equal distances count half; 0 is best, 0.5 is chance.
    """
    if len(first) < 2:
        return np.full(len(first), np.nan)
    cosines = _unit(first) @ _unit(second).T
    own = cosines.diagonal().copy()
    ranks = np.zeros(len(first))
    for table in (cosines, cosines.T):
        ranks += (table > own[:, None]).sum(1) + ((table == own[:, None]).sum(1) - 1) / 2
    found: np.ndarray = ranks / 2 / (len(first) - 1)
    return found


def _unit(values: np.ndarray) -> np.ndarray:
    """Rows of length 1, float64; rows of zeros stay."""
    rows = values.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    found: np.ndarray = rows / np.where(lengths < 10 * np.finfo(np.float64).eps, 1.0, lengths)[:, None]
    return found


@dataclass(frozen=True, eq=False)
class DrawnHalves:
    """Halves of profiles, from several count splits."""

    blocks: list[tuple[sparse.csr_matrix, sparse.csr_matrix]]
    """Both halves of each count split, normalised."""
    totals: list[tuple[np.ndarray, np.ndarray]]
    """Their molecules."""
    is_known: np.ndarray
    """(n_profiles,) whether both halves have 20 molecules in every count split; only these are judged."""

    def agreement(self, represent: Callable[[sparse.csr_matrix, np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
        """(n_profiles,) `shared_neighbours` and `other_half_rank` of latents; NaN where too little is known."""
        known = np.flatnonzero(self.is_known)
        shared, rank = np.full((2, len(self.is_known)), np.nan)
        if len(known) < 2:
            return {"shared_neighbours": shared, "other_half_rank": rank}
        shared[known] = rank[known] = 0
        for (first, second), (of_first, of_second) in zip(self.blocks, self.totals, strict=True):
            latents = represent(first[known], of_first[known]), represent(second[known], of_second[known])
            one, other = map(torch.from_numpy, latents)
            found = shared_neighbours(one, other, NEIGHBOURS)
            shared[known] += found.numpy() / len(self.blocks)
            rank[known] += other_half_rank(*latents) / len(self.blocks)
        return {"shared_neighbours": shared, "other_half_rank": rank}


def drawn_halves(
    expression: Expression, preprocess: Preprocess, rng: np.random.Generator, repeats: int = REPEATS
) -> DrawnHalves:
    """Divide the molecules of profiles in memory at random, several times."""
    splitter, is_known = Splitter(expression.rows), np.ones(expression.n_profiles, bool)
    blocks, totals = [], []
    for _ in range(repeats):
        pair = draw_halves(splitter, expression.totals, rng)
        is_known &= has_molecules(*pair)
        blocks.append((preprocess.apply(pair[0]), preprocess.apply(pair[1])))
        totals.append((pair[0].totals, pair[1].totals))
    return DrawnHalves(blocks, totals, is_known)


@dataclass(frozen=True, eq=False)
class Represent:
    """Latents of normalised halves: of a network or, with an estimator and without a network, of the start."""

    estimator: Estimator | None
    """Estimator that the network reads; None for a network on profiles."""
    network: Network | None
    """Network; None for the start of an estimator."""
    shift: torch.Tensor | None = None
    """Shift of the gene means of halves, for a network on profiles."""

    @torch.no_grad()
    def __call__(self, matrix: sparse.csr_matrix, totals: np.ndarray) -> np.ndarray:
        """(n_profiles, n_latent) latents of normalised halves with these molecules."""
        if self.estimator is None:
            assert self.network is not None
            return encode(self.network, matrix, self.shift)
        scores = self.estimator.at(0.0).scores(matrix, totals) / self.estimator.latent_unit
        if self.network is None:
            return scores.numpy()
        self.network.eval()
        latent: np.ndarray = self.network.encode(scores).numpy()
        return latent


@dataclass(frozen=True)
class LatentChoice:
    """Whether the latents of a trained network are exported, or those of its start, and why."""

    is_start: bool
    """Whether the latents of the start are exported."""
    rank_gain: float
    """Mean decrease of `other_half_rank` of validation profiles by training."""
    rank_error: float
    """Its standard error."""
    shared_gain: float
    """Mean increase of `shared_neighbours` of validation profiles by training."""
    shared_error: float
    """Its standard error."""


def choose_latent(
    estimator: Estimator, network: Network, validation: Expression, preprocess: Preprocess, seed: int
) -> LatentChoice:
    """Choose between the latents of a trained network and those of its start, on halves of validation profiles.

    The network's are taken only where, profile by profile, the rank of the other half or the share of neighbours that
    halves have in common is clearly better, and neither is clearly worse.

    Parameters
    ----------
    estimator
        Estimator from which the network starts.
    network
        Trained network, on the CPU.
    validation
        Validation profiles in memory.
    preprocess
        Normalisation.
    seed
        Seed of the count splits.
    """
    rng = np.random.default_rng((seed, AGREEMENT_STREAM))
    halves = drawn_halves(validation, preprocess, rng)
    before, after = (halves.agreement(Represent(estimator, one)) for one in (None, network))

    def gain(name: str, sign: float) -> tuple[float, float]:
        gains = sign * (after[name] - before[name])[halves.is_known]
        return mean_gain(torch.from_numpy(gains)) if len(gains) else (0.0, 0.0)

    of_rank, of_shared = gain("other_half_rank", -1.0), gain("shared_neighbours", 1.0)
    is_better = any(is_clear(*of) for of in (of_rank, of_shared))
    is_worse = any(is_clear(-mean, error) for mean, error in (of_rank, of_shared))
    return LatentChoice(is_worse or not is_better, *of_rank, *of_shared)


@dataclass(frozen=True, eq=False)
class _Prepared(PreparedJudge):
    data: JudgingData

    def judge(self, model: Model, training: Training) -> Judgement:
        """Evaluate the latents that are exported, those of the start, and PCA."""
        data, seed = self.data, self.data.settings.seed
        half = model.baselines.half
        if half is None:
            return Judgement(pd.DataFrame(columns=COLUMNS))
        represent: dict[str, Callable[[sparse.csr_matrix, np.ndarray], np.ndarray]] = {"model": _exported(model)}
        has_start = model.estimator is not None
        is_start = has_start and (model.exports_start or not training.best_epoch)
        if has_start and not is_start:
            represent[START] = Represent(model.estimator, None)
        represent["pca"] = lambda matrix, _: half.scores(sparse_rows(matrix))[:, : model.n_latent].numpy()
        rng = np.random.default_rng((seed, AGREEMENT_STREAM, 1))
        train = self._sampled("train", rng)
        of_train = _complete(model, train)
        tables, rows = [], []
        for name in ("validation", "test"):
            part = self._sampled(name, rng)
            if part.expression.n_profiles < 2:
                continue
            halves = drawn_halves(part.expression, data.preprocess, rng)
            depth = _depth_r2(of_train, train, _complete(model, part), part)
            n_judged = int(halves.is_known.sum())
            agreed = {of: halves.agreement(latents) for of, latents in represent.items()}
            agreed |= {START: agreed["model"]} if is_start else {}
            for of, found in agreed.items():
                tables.append(pd.DataFrame({"model": of, "profile": part.names, "split": name, **found}))
                rows += [
                    Agreement.row(of, seed, name, metric, float(np.nanmean(values)), n_judged)
                    for metric, values in found.items()
                    if n_judged > 1
                ]
                if of in depth:
                    n_profiles = part.expression.n_profiles
                    rows.append(Agreement.row(of, seed, name, "depth_r2", depth[of], n_profiles))
        metrics = pd.DataFrame(rows, columns=COLUMNS)
        profiles = pd.concat(tables, ignore_index=True) if tables else None
        return Judgement(metrics, profiles, sentence=agreement_sentence(metrics, data.last_split, model.config))

    def _sampled(self, name: str, rng: np.random.Generator) -> "_Sampled":
        data = self.data
        rows = np.flatnonzero((data.split == name).to_numpy())
        if len(rows) > MOST_PROFILES:
            rows = np.sort(rng.choice(rows, MOST_PROFILES, replace=False))
        return _Sampled(data.expression.take(rows).load(), data.obs.index[rows])


@dataclass(frozen=True, eq=False)
class _Sampled:
    expression: Expression
    names: pd.Index


def _exported(model: Model) -> Represent:
    """Latents of halves as the model exports those of complete profiles."""
    is_start = model.estimator is not None and model.exports_start
    network = None if is_start else model.network
    return Represent(model.estimator, network, model.shift(is_half=True))


def _complete(model: Model, part: _Sampled) -> dict[str, np.ndarray]:
    """Latents of complete profiles by model."""
    matrix = model.preprocess.apply(part.expression)
    pca = model.baselines.whole.scores(sparse_rows(matrix))[:, : model.n_latent].numpy()
    return {"model": model.latent(part.expression), "pca": pca}


def _depth_r2(
    of_train: dict[str, np.ndarray], train: _Sampled, of_part: dict[str, np.ndarray], part: _Sampled
) -> dict[str, float]:
    """R² of the log molecules of profiles, by linear regression of those of training profiles on their latents."""
    logs = [np.log(np.maximum(one.expression.totals, 1.0)) for one in (train, part)]
    if len(logs[0]) < 2 or np.ptp(logs[1]) == 0:
        return {}
    return {name: Regression(latents, logs[0]).r2(of_part[name], logs[1]) for name, latents in of_train.items()}


def agreement_sentence(metrics: pd.DataFrame, split: str, config: Mapping[str, Any]) -> str:
    """Sentence on the neighbours that halves share, and on whether the latents of the start are exported; empty where
    there are none.

    Parameters
    ----------
    metrics
        Long table.
    split
        Split that the sentence is about.
    config
        Contents of `config.json`.
    """
    own, pca = (value(metrics, name, split, "shared_neighbours") for name in ("model", "pca"))
    judged = metrics[(metrics["metric"] == "shared_neighbours") & (metrics["split"] == split)]
    if np.isnan(own) or judged["n_profiles"].max() < LEAST_SPOKEN:
        return ""
    said = (
        f"The latents of both halves of a profile share {100 * own:.0f} % of their {NEIGHBOURS} nearest neighbours "
        f"({Agreement.models['pca'].of_size} {100 * pca:.0f} %)."
    )
    if (config.get("latent_choice") or {}).get("is_start"):
        said += " By this, training did not clearly better them, so that the latents of its start are exported."
    return said
