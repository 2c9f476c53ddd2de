"""Judge of the distance to the noise ceiling: how much of it lies in the molecules, in the profiles, and in the model.

The noise ceiling knows the truth. An estimator sees half the molecules of a profile, and some training profiles. A
generative model (`geneae.models.population`) is fitted to the training profiles; its Bayes prediction is one estimator
with these molecules and these profiles. How much better it would be if it knew the population is measured in a
parametric bootstrap: counts of as many profiles are drawn from the fitted population, the generative model is fitted to
them anew, and predicts new profiles beside the population that they were drawn from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from geneae.data.count_split import Splitter
from geneae.data.preprocess import Expression, Preprocess
from geneae.data.states import STATES
from geneae.evaluation.halves import HeldOutCosines
from geneae.evaluation.judge import Judge, Judgement, JudgingData, MetricFacts, ModelFacts, PreparedJudge
from geneae.evaluation.predictors import predictors, products_of
from geneae.evaluation.reconstruction import READ
from geneae.evaluation.records import CLEAR, COLUMNS, share_of_way
from geneae.losses.metrics import METRICS, measure
from geneae.models.ceiling import MIN_MOLECULES, cosine_of_halves, half_ceiling
from geneae.models.model import Model
from geneae.models.population import Population, dense_block
from geneae.models.population_fit import fit_population
from geneae.settings.errors import InputError
from geneae.training.loop import Training

ATTAINABLE_STREAM = 17  # separates its random numbers from others of the same seed
MOST_VALUES, LEAST_PROFILES = 2**22, 400  # training profiles x genes, which set the time; never fewer profiles
MOST_JUDGED = 200  # profiles in which estimators are compared, paired
ACCURACY = 0.02  # error in skill; the largest of eight simulations with known Bayes predictors is 0.007


class Attainables(Judge):
    """What a best possible estimator would reach, and in what the distance to the noise ceiling lies."""

    metrics: ClassVar[Mapping[str, MetricFacts]] = {
        "attainable": MetricFacts("attainable held-out cosine", "higher"),
        "attainable_skill": MetricFacts("attainable skill", "higher"),
        "attainable_here": MetricFacts("attainable held-out cosine with as many profiles", "higher"),
        "attainable_here_skill": MetricFacts("attainable skill with as many profiles", "higher"),
    }
    models: ClassVar[Mapping[str, ModelFacts]] = {"model": ModelFacts("model")}
    columns = ("attainable",)

    def prepare(self, data: JudgingData) -> "_Prepared | None":
        """Refuse what has no counts or no reconstruction; None without `--attainable` and for permuted targets."""
        if not data.settings.attainable or data.partner is not None:
            return None
        if data.preprocess.state != "counts" or not data.has_decoder:
            raise InputError(
                "--attainable compares with counts drawn from a model, so it needs counts and a reconstruction; found "
                f"{STATES[data.preprocess.state].noun}"
                f"{'' if data.has_decoder else ' and no decoder'}. Leave out --attainable."
            )
        return _Prepared(data)

    def note(self, settings: Sequence[Mapping[str, Any]]) -> str:
        """Meaning of the numbers, and what they rest on."""
        return (
            "Attainable: what the best possible estimator would reach from one half of the molecules if it knew the "
            "population of profiles; and with as many profiles as there are for training. Both are estimates under a "
            "generative model of counts (log-linear components, gamma noise of every gene and profile, Poisson "
            "sampling), from counts drawn from it. The error given is that on simulations; where real profiles have "
            "structure that this model cannot describe, it counts as gamma noise, and more may be attainable."
        )


@dataclass(frozen=True)
class Standing:
    """Held-out cosines on the way from the mean profile to the noise ceiling."""

    trivial: float
    """Held-out cosine of the mean profile."""
    reached: float
    """Held-out cosine of the model."""
    here: float
    """Attainable with as many profiles."""
    attainable: float
    """Attainable with the population known."""
    ceiling: float
    """Noise ceiling."""
    error: float
    """Standard error of `attainable`, from the profiles in which estimators were compared."""

    def skill(self, cosine: float) -> float:
        """Share of the way; NaN if there is none."""
        return share_of_way(cosine, self.trivial, self.ceiling)

    def sentence(self) -> str:
        """The distance between model and noise ceiling, in three parts."""
        if np.isnan(self.skill(self.reached)):
            return ""
        steps = (self.reached, self.here, self.attainable, self.ceiling)
        model, profiles, molecules = (100 * (b - a) / (self.ceiling - self.trivial) for a, b in pairwise(steps))
        spread = 100 * np.hypot(CLEAR * self.error / (self.ceiling - self.trivial), ACCURACY)
        return (
            f"Of the {100 * (1 - self.skill(self.reached)):.0f} % that are missing to the noise ceiling, an estimated "
            f"{molecules:.0f} ± {spread:.0f} lie in the molecules (from one half, {self.attainable:.4f} is attainable "
            f"even if the population is known), {profiles:.0f} in the number of profiles (with as many, "
            f"{self.here:.4f}) and {model:.0f} in the model."
        )


@dataclass(frozen=True, eq=False)
class _Prepared(PreparedJudge):
    data: JudgingData

    def judge(self, model: Model, training: Training) -> Judgement:
        """Estimate for the last split."""
        data, name = self.data, self.data.last_split
        train = data.expression.take(np.flatnonzero(data.split == "train"))
        standing, n_profiles = stand(model, train, data.expression, data.split, name, data.settings.seed)
        found = {"attainable": standing.attainable, "attainable_here": standing.here}
        found |= {f"{metric}_skill": standing.skill(cosine) for metric, cosine in found.items()}
        seed = data.settings.seed
        rows = [Attainables.row("model", seed, name, metric, number, n_profiles) for metric, number in found.items()]
        return Judgement(pd.DataFrame(rows, columns=COLUMNS), sentence=standing.sentence())


def stand(
    model: Model, train: Expression, expression: Expression, split: pd.Series, name: str, seed: int
) -> tuple[Standing, int]:
    """Where a model stands on a split, and the number of its profiles.

    Parameters
    ----------
    model
        Fitted model.
    train
        Its training profiles.
    expression, split
        All profiles, and the split of each.
    name
        Split to judge.
    seed
        Seed of the sample, of the generative model and of the counts drawn from it.
    """
    held_out, of_halves = _held_out(model, expression, split, name)
    trivial, reached = (float(np.nanmean(held_out[of])) for of in ("mean_profile", "model"))
    ceiling, n_profiles = half_ceiling(of_halves), int((~np.isnan(of_halves)).sum())
    rng = np.random.default_rng((seed, ATTAINABLE_STREAM))
    most = max(LEAST_PROFILES, MOST_VALUES // len(model.preprocess.genes))
    sample = _sampled(train, np.arange(train.n_profiles), most, rng)
    judged = _sampled(expression, np.flatnonzero(split == name), MOST_JUDGED, rng)
    lead, gap = estimate(model, sample, judged, seed)
    attainable = reached + float(lead.mean()) + (ceiling - trivial) * float(gap.mean())
    attainable = min(max(attainable, reached), max(ceiling, reached))
    share = sample.n_profiles / train.n_profiles  # what profiles are worth falls in proportion to their number
    here = attainable - (ceiling - trivial) * float(gap.mean()) * share
    here = min(max(here, reached), attainable)
    errors = [values.std(ddof=1) / np.sqrt(len(values)) for values in (lead, (ceiling - trivial) * gap)]
    return Standing(trivial, reached, here, attainable, ceiling, float(np.hypot(*errors))), n_profiles


def _held_out(
    model: Model, expression: Expression, split: pd.Series, name: str
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Held-out cosines of a split and cosines between its halves, on the count splits of every other judge."""
    held_out_cosines, rows = HeldOutCosines(model), np.flatnonzero(split.isin(["validation", "test"]))
    found = [held_out_cosines(part, at.start) for at, part in expression.take(rows).chunks(READ)]
    chosen = (split.iloc[rows] == name).to_numpy()
    by_model = {key: np.concatenate([cosines[key] for cosines, _ in found])[chosen] for key in found[0][0]}
    return by_model, np.concatenate([of_halves for _, of_halves in found])[chosen]


def _sampled(expression: Expression, rows: np.ndarray, most: int, rng: np.random.Generator) -> Expression:
    """Random profiles with enough molecules, at most `most` of those at `rows`, in memory."""
    rows = rows[expression.totals[rows] >= 2 * MIN_MOLECULES]
    if len(rows) > most:
        rows = np.sort(rng.choice(rows, most, replace=False))
    return expression.take(rows).load()


def estimate(model: Model, train: Expression, judged: Expression, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Lead of the generative model over a model, and what it would gain by knowing the population.

    Parameters
    ----------
    model
        Fitted model.
    train, judged
        Training profiles and others, in memory.
    seed
        Seed of everything.

    Returns
    -------
    (n,) cosine of the generative model minus that of the model, on the judged profiles. And (n,) the difference between
    the Bayes prediction with the population known and that of the generative model fitted to as many profiles of it, on
    profiles drawn from it, in units of skill: of the way from their mean profile to their noise ceiling.
    """
    rng, preprocess = np.random.default_rng((seed, ATTAINABLE_STREAM, 1)), model.preprocess
    fitted = fit_population(with_rest(train), seed)
    divided = divide(with_rest(judged), judged.totals, preprocess, rng)
    by_direction = products_of(predictors(model, is_half=True), divided.targets, ("none",), [divided.totals] * 2)
    own = [measure(METRICS["cosine"], found["model"]["none"]).numpy() for found in by_direction]
    lead = bayes_cosines(fitted.expected(seed), divided, preprocess, rng) - np.mean(own, 0)

    population = fitted.drawn(seed)
    drawn, new = population.draw(train.totals, rng), population.draw(judged.totals, rng)
    again = fit_population(drawn, seed + 1).expected(seed + 1)
    learned = divide(drawn, row_sums(drawn), preprocess, rng).targets
    divided = divide(new, row_sums(new), preprocess, rng)
    known, refitted = (bayes_cosines(of, divided, preprocess, rng) for of in (population, again))
    mean = torch.tensor(np.asarray((learned[0].mean(0) + learned[1].mean(0)) / 2).ravel(), dtype=torch.float32)
    trivial = np.mean([_cosines(mean[None], target) for target in divided.targets])
    way = half_ceiling(cosine_of_halves(divided.targets[0], divided.targets[1])) - trivial
    return _known(lead), _known((known - refitted) / way if way > 0 else known * 0)


def _known(values: np.ndarray) -> np.ndarray:
    known: np.ndarray = values[~np.isnan(values)]
    return known


def row_sums(counts: sparse.csr_matrix) -> np.ndarray:
    """(n_profiles,) molecules."""
    return np.asarray(counts.sum(1), dtype=np.float64).ravel()


def with_rest(expression: Expression) -> sparse.csr_matrix:
    """(n_profiles, n_genes + 1) counts; the last column holds the molecules of all genes that a model does not have."""
    rest = np.rint(expression.totals - row_sums(expression.rows)).clip(min=0).astype(np.float32)
    counts: sparse.csr_matrix = sparse.hstack([expression.rows, sparse.csr_matrix(rest[:, None])], format="csr")
    return counts


@dataclass(frozen=True, eq=False)
class Divided:
    """Both halves of the molecules of profiles."""

    counts: tuple[sparse.csr_matrix, sparse.csr_matrix]
    """(n_profiles, n_genes + 1) molecules."""
    targets: list[sparse.csr_matrix]
    """(n_profiles, n_genes) the same in the genes of the model, normalised."""
    totals: np.ndarray
    """(n_profiles,) half the molecules of each profile."""


def divide(counts: sparse.csr_matrix, totals: np.ndarray, preprocess: Preprocess, rng: np.random.Generator) -> Divided:
    """Divide (n_profiles, n_genes + 1) molecules at random."""
    halves = Splitter(counts).draw(rng)
    targets = [preprocess.apply(Expression(half[:, :-1], totals / 2)) for half in halves]
    return Divided(halves, targets, totals / 2)


def bayes_cosines(
    population: Population, divided: Divided, preprocess: Preprocess, rng: np.random.Generator
) -> np.ndarray:
    """(n_profiles,) cosines of the Bayes prediction from one half with the other, mean of both directions."""
    by_direction = []
    for given, target in zip(divided.counts, divided.targets[::-1], strict=True):
        predicted = population.predict(given, divided.totals, rng).mean[:, :-1]
        by_direction.append(_cosines(predicted / torch.tensor(preprocess.scale, dtype=torch.float32), target))
    return np.asarray(np.mean(by_direction, 0))


def _cosines(predicted: Tensor, target: sparse.csr_matrix) -> np.ndarray:
    """(n_profiles,) cosines with sparse profiles; NaN for an empty one."""
    lengths = predicted.square().sum(1) * dense_block(target.power(2)).sum(1)
    cross = (predicted * dense_block(target)).sum(1)
    return torch.where(lengths > 0, cross / lengths.sqrt(), torch.nan).numpy()
