"""Judge of depth: how well profiles are predicted from ever fewer of their molecules."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from geneae.data.augment import thin_to
from geneae.data.count_split import Splitter, draw_halves, with_own_totals
from geneae.data.preprocess import Expression
from geneae.evaluation.halves import ByModel
from geneae.evaluation.judge import Judge, Judgement, JudgingData, MetricFacts, ModelFacts, PreparedJudge
from geneae.evaluation.predictors import LATENT_ONLY, Predictor, predictors, products_of
from geneae.evaluation.reconstruction import Reconstructions
from geneae.evaluation.records import COLUMNS, HELD_OUT, value
from geneae.losses.metrics import METRICS, measure
from geneae.models.ceiling import has_molecules
from geneae.models.model import Model
from geneae.settings.text import counted
from geneae.training.loop import Training

OF_HALF = 2
"""Molecules of a complete profile per molecule of an input, where the input is a half: the held-out cosine."""
RATIOS = (4, 10, 20)
"""The same for thinned halves."""
AT_RATIO = {OF_HALF: HELD_OUT} | {ratio: f"{HELD_OUT}_at_{ratio}" for ratio in RATIOS}
"""Metrics by ratio."""
MOST_PROFILES = 2000  # more change no digit that is shown
REPEATS = 2  # count splits, each used in both directions
MIN_INPUT = 10  # molecules; with fewer, an input says next to nothing about its profile
DEPTH_STREAM = 11  # separates these random numbers from others of the same seed
MOST_KNOWN = 0.5  # share of the profiles that must have enough molecules at a ratio that is shown
SPOKEN = 10  # ratio that the sentence is about


class Depths(Judge):
    """Held-out cosines from inputs with 1/4, 1/10 and 1/20 of the molecules, for models that know the depth."""

    metrics: ClassVar[Mapping[str, MetricFacts]] = {
        AT_RATIO[ratio]: MetricFacts(
            f"held-out cosine from 1/{ratio} of the molecules", "higher", short=f"from 1/{ratio}"
        )
        for ratio in RATIOS
    }
    models: ClassVar[Mapping[str, ModelFacts]] = {
        name: Reconstructions.models[name] for name in ("model", LATENT_ONLY, "shrunken_pca", "mean_profile")
    }
    columns = tuple(metrics)

    def prepare(self, data: JudgingData) -> "_Prepared | None":
        """Refuse nothing; None for a model of one depth, and where profiles predict others."""
        return _Prepared(data) if data.has_estimator and data.has_decoder and data.partner is None else None

    def head(self, settings: Mapping[str, Any]) -> str:
        """Heading of the table of thinned inputs."""
        return "Held-out cosine from inputs thinned to a share of all molecules, means over {sizes} profiles"

    def note(self, settings: Sequence[Mapping[str, Any]]) -> str:
        """What is thinned, and what is compared."""
        return (
            f"Held-out cosine from 1/{RATIOS[0]}, 1/{RATIOS[1]} or 1/{RATIOS[2]} of the molecules: the half that is "
            "predicted from is thinned at random to that share of all molecules and read at that depth, the other half "
            f"stays as it is. Means over at most {MOST_PROFILES:,} profiles whose input keeps at least {MIN_INPUT} "
            "molecules. Real shallow sequencing may differ from thinning in more than its depth."
        )


@dataclass(frozen=True, eq=False)
class _Prepared(PreparedJudge):
    data: JudgingData

    def judge(self, model: Model, training: Training) -> Judgement:
        """Predict thinned profiles of the last split."""
        name, seed = self.data.last_split, self.data.settings.seed
        expression = self.data.expression.take(np.flatnonzero(self.data.split == name))
        metrics = judge_depths(model, expression, name, seed)
        return Judgement(metrics, sentence=depth_sentence(metrics, name, expression.n_profiles))


def judge_depths(model: Model, expression: Expression, split: str, seed: int) -> pd.DataFrame:
    """Long table of the mean held-out cosine from thinned inputs, by ratio and model.

    Without rows for a model of one depth, and without those of ratios at which most profiles have too few molecules;
    all means are over the same profiles.

    Parameters
    ----------
    model
        Fitted model.
    expression
        Profiles in the model's genes; a random 2,000 of them at most are used.
    split
        Their split, a column of the table.
    seed
        Seed of sample, count splits and thinning.
    """
    rows = []
    if model.estimator is not None:
        chosen = np.arange(expression.n_profiles)
        if len(chosen) > MOST_PROFILES:
            chosen = np.sort(np.random.default_rng((seed, DEPTH_STREAM)).choice(chosen, MOST_PROFILES, replace=False))
        found = thinned_cosines(model, expression.take(chosen).load(), seed)
        shown, is_known = _shown(found)
        for ratio in shown:
            for name, cosines in found[ratio].items():
                of = int(model.config["seed"]), split, AT_RATIO[ratio]
                rows.append(Depths.row(name, *of, float(cosines[is_known].mean()), int(is_known.sum())))
    return pd.DataFrame(rows, columns=COLUMNS)


def _shown(found: Mapping[int, ByModel]) -> tuple[list[int], np.ndarray]:
    """Ratios at which most profiles have enough molecules, and (n_profiles,) whether a profile has enough at all of
    these: means over other profiles at each ratio could not be compared."""
    shown: list[int] = []
    has_all = np.ones(len(next(iter(found[RATIOS[0]].values()))), bool)
    for ratio, by_model in found.items():
        is_known = has_all & ~np.isnan(by_model["model"])
        if is_known.sum() < max(1, MOST_KNOWN * len(is_known)):
            break
        shown, has_all = [*shown, ratio], is_known
    return shown, has_all


def thinned_cosines(
    model: Model, expression: Expression, seed: int, ratios: Sequence[int] = RATIOS, misread: float = 1.0
) -> dict[int, ByModel]:
    """(n_profiles,) cosines of predictions from one thinned half with the other, untouched half, by ratio and model.

    Means over count splits and directions. NaN for profiles with fewer than 20 molecules in a half, or fewer than 10 in
    a thinned one. The model is read at the depth of the input.

    Parameters
    ----------
    model
        Fitted model with an estimator.
    expression
        Counts in memory.
    seed
        Seed of count splits and thinning.
    ratios
        Molecules of complete profiles per molecule of an input, at least 2.
    misread
        Factor by which inputs are taken to be shallower than they are: what a wrong depth costs.
    """
    rng = np.random.default_rng((seed, DEPTH_STREAM, 0))
    at_depths = {ratio: _at(model, ratio, misread) for ratio in ratios}
    readers = {ratio: _readers(at_depth, model.delta) for ratio, at_depth in at_depths.items()}
    sums = {ratio: {name: np.zeros(expression.n_profiles) for name in readers[ratio]} for ratio in ratios}
    splitter = Splitter(expression.rows)
    for _ in range(REPEATS):
        pair = draw_halves(splitter, expression.totals, rng)
        known = has_molecules(*pair)
        blocks = [model.preprocess.apply(half) for half in pair]
        own = with_own_totals(pair)
        for given, target in ((own[0], blocks[1]), (own[1], blocks[0])):
            for ratio, models in readers.items():
                thinned = thin_to(given, OF_HALF / ratio, rng)
                is_judged = known & (np.asarray(thinned.rows.sum(1)).ravel() >= MIN_INPUT)
                pair_of = [model.preprocess.apply(thinned), target]
                share = at_depths[ratio].share_read(is_half=True)
                read = [model.preprocess.apply(thinned, share)] if share < 1 else None
                totals = [thinned.totals, given.totals]
                products = products_of(models, pair_of, ("none",), totals, is_one_way=True, read=read)[0]
                for name, by_center in products.items():
                    cosines = measure(METRICS["cosine"], by_center["none"]).numpy()
                    sums[ratio][name] += np.where(is_judged, cosines, np.nan)
    return {
        ratio: {name: total / (2 * REPEATS) for name, total in by_model.items()} for ratio, by_model in sums.items()
    }


def _at(model: Model, ratio: int, misread: float = 1.0) -> Model:
    """The model for halves with `1 / ratio` of the molecules of the profiles that it is applied to."""
    return replace(model, delta=model.delta + math.log(misread * ratio / OF_HALF))


def _readers(at_depth: Model, output: float) -> dict[str, Predictor]:
    """Predictors, from halves of one depth, of halves of another."""
    found = predictors(at_depth, is_half=True, output=output)
    return {name: found[name] for name in Depths.models}


def depth_sentence(metrics: pd.DataFrame, split: str, n_whole: int) -> str:
    """Sentence on predictions from a tenth of the molecules; empty where profiles have too few.

    Parameters
    ----------
    metrics
        Result of `judge_depths`, among other rows.
    split
        Split of the profiles.
    n_whole
        Number of its profiles.
    """
    metric = AT_RATIO[SPOKEN]
    reached = {name: value(metrics, name, split, metric) for name in Depths.models}
    if np.isnan(reached["model"]):
        return ""
    beside = ", ".join(f"{Depths.models[name].title} {reached[name]:.4f}" for name in ("shrunken_pca", "mean_profile"))
    n_profiles = _n_profiles(metrics, split, metric)
    those = counted(n_profiles, "profile that has", "profiles that have")
    which = f", over the {those} enough" if n_profiles < min(n_whole, MOST_PROFILES) else ""
    return (
        f"From 1/{SPOKEN} of the molecules{which}, the model, read at that depth, reaches {reached['model']:.4f} "
        f"({beside})."
    )


def _n_profiles(metrics: pd.DataFrame, split: str, metric: str) -> int:
    rows = metrics[(metrics["model"] == "model") & (metrics["split"] == split) & (metrics["metric"] == metric)]
    return int(rows["n_profiles"].max()) if len(rows) else 0
