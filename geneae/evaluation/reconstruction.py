"""Judge of reconstructions: model and baselines on the same profiles, in numbers by profile and in a sentence."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from geneae.data.backed import chunks
from geneae.data.count_split import Splitter, draw_halves
from geneae.data.permuted import among
from geneae.data.preprocess import ColumnMoments, Expression
from geneae.evaluation.diagnostics import diagnose, of_collapse
from geneae.evaluation.halves import HeldOutCosines
from geneae.evaluation.headline import headline, standing
from geneae.evaluation.judge import Judge, Judgement, JudgingData, MetricFacts, ModelFacts, PreparedJudge
from geneae.evaluation.predictors import (
    WHITENED,
    Chunk,
    Products,
    join_chunks,
    predictors,
    products_of,
    take_products,
)
from geneae.evaluation.records import (
    COLUMNS,
    HELD_OUT,
    WITHOUT_COUNTS,
    Evaluation,
    outcome,
    paired_difference,
    share_of_way,
    value,
    with_interval,
)
from geneae.evaluation.steps import GAIN, GAIN_ERROR, OF_STEPS, step_gains, step_sentences
from geneae.losses.inner_products import InnerProducts
from geneae.losses.metrics import BY_GENE, METRICS, best_scale, measure, rescaled_mse
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.baselines import BASELINES
from geneae.models.ceiling import disattenuated_cosine, half_ceiling, is_impossible
from geneae.models.decoders import Corrected
from geneae.models.model import Model
from geneae.models.query_depth import by_ratio
from geneae.settings.errors import InputError
from geneae.settings.text import counted
from geneae.training.loop import Training

GENES_STREAM = 23  # separates the halves of the correlations of genes from others of the same seed
READ = 1024  # profiles in memory at a time, if they are read from a file
STATISTICS: dict[str, Callable[[np.ndarray], float]] = {
    "mean": lambda values: float(np.mean(values)),
    "median": lambda values: float(np.median(values)),
    "p05": lambda values: float(np.quantile(values, 0.05)),
    "p95": lambda values: float(np.quantile(values, 0.95)),
}
BY_PROFILE: dict[str, MetricFacts] = {
    **{
        name: MetricFacts(
            title=metric.title,
            better=metric.better,
            unit=metric.unit,
            sees_length=metric.sees_length,
            is_by_profile=True,
            is_main=metric.is_main,
            in_full=metric.in_full,
        )
        for name, metric in METRICS.items()
    },
    "rescaled_mse": MetricFacts("rescaled MSE", "lower", BY_GENE, is_by_profile=True, is_main=True),
    HELD_OUT: MetricFacts("held-out cosine", "higher", is_by_profile=True),
}
"""Metrics of single profiles: columns of `profiles.csv`."""


class Reconstructions(Judge):
    """Reconstructed profiles against the profiles themselves and against held-out molecules, alongside baselines."""

    metrics: ClassVar[Mapping[str, MetricFacts]] = BY_PROFILE | {
        "ceiling": MetricFacts("noise ceiling", "higher"),
        "skill": MetricFacts("skill", "higher"),
        "disattenuated_cosine": MetricFacts("disattenuated cosine", "higher"),
        "gain_over_mean_profile": MetricFacts("gain over mean profile", "higher"),
        GAIN: MetricFacts("gain over the step before", "higher"),
        GAIN_ERROR: MetricFacts("standard error of the gain over the step before"),
    }
    models: ClassVar[Mapping[str, ModelFacts]] = {
        "model": ModelFacts("model"),
        **OF_STEPS,
        **{name: ModelFacts(kind.title, kind.is_sized, kind.line) for name, kind in reversed(BASELINES.items())},
    }
    columns = ("cosine",)

    def prepare(self, data: JudgingData) -> "_Prepared | None":
        """Refuse a split without a value in the genes of the model; None for an encoder without a decoder."""
        if not data.has_decoder:
            return None
        for name in ("validation", "test"):
            rows = np.flatnonzero(data.split == name)
            if len(rows) and not any(block.nnz for _, block in chunks(data.expression.matrix[rows], READ)):
                raise InputError(
                    f"{counted(len(rows), f'{name} profile')} without any value in the "
                    f"{counted(len(data.preprocess.genes), 'gene')} of the model leave nothing to judge it by. Take "
                    f"more {name} profiles (--{name}), another --split-seed, or more genes (--n-top-genes)."
                )
        return _Prepared(data)


@dataclass(frozen=True, eq=False)
class _Prepared(PreparedJudge):
    data: JudgingData

    def judge(self, model: Model, training: Training) -> Judgement:
        """Evaluate validation and test profiles."""
        split, expression, name = self.data.split, self.data.expression, self.data.last_split
        rows = np.flatnonzero(split.isin(["validation", "test"]))
        partner = among(self.data.partner, rows)
        found = evaluate(model, expression.take(rows), self.data.obs.index[rows], split.iloc[rows], True, partner)
        last = expression.take(np.flatnonzero(split == name))
        return Judgement(
            found.metrics,
            found.profiles,
            of_collapse(training.collapse, int(training.history["epoch"].iloc[-1]))
            + diagnose(model, found, last, name),
            verdict(found, name),
            found.scales,
            gene_correlation(model, last),
        )


def evaluate(
    model: Model,
    expression: Expression,
    names: pd.Index,
    split: pd.Series,
    fit_scales: bool,
    partner: np.ndarray | None = None,
    ratios: np.ndarray | None = None,
) -> Evaluation:
    """Evaluate a model and its baselines on profiles; a model without a decoder is refused.

    Own-input numbers compare a profile with its reconstruction. The held-out cosine compares the reconstruction from a
    random half of the molecules with the other half, as a mean over three count splits and both directions, so that
    copying noise does not raise it. It is NaN for profiles with fewer than 20 molecules in a half.

    Parameters
    ----------
    model
        Fitted model.
    expression
        Profiles in the model's genes.
    names, split
        Names and splits of the profiles; each split is reported separately.
    fit_scales
        Whether to fit the scales of `rescaled_mse` on the validation profiles among these; if not, use the model's.
    partner
        (n_profiles,) position of the profile that each profile predicts; None: itself.
    ratios
        (n_profiles,) depth ratio of each profile, see `geneae.models.query_depth`; None: that of the training profiles.
        Not together with partners.
    """
    model.check_decoder()
    centers = tuple(dict.fromkeys(("none", "gene", model.center)))
    if ratios is None or model.estimator is None:
        products, held_out, of_halves = _all_products(model, expression, centers, partner)
    else:
        products, held_out, of_halves = _by_depth(model, expression, centers, ratios)
    scales = model.scales
    if fit_scales:
        chosen = (split == "validation").to_numpy()
        scales = {
            name: best_scale(take_products(by_center[model.center], np.flatnonzero(chosen)))
            for name, by_center in products.items()
        }
    own = {name: _own_input(products.pop(name), model.center, scales[name]) for name in list(products)}
    if model.preprocess.state == "counts":
        molecules = expression.totals
        for found in own.values():
            found["molecules"] = molecules
    for name in dict.fromkeys((*own, *held_out)):  # PCA of other sizes: held-out numbers only
        own.setdefault(name, {})[HELD_OUT] = held_out.pop(name, np.full(len(names), np.nan))
    profiles = _table(own, names, split.to_numpy())
    return Evaluation(profiles, summarize(profiles, of_halves, split.to_numpy(), int(model.config["seed"])), scales)


def _table(found: dict[str, dict[str, np.ndarray]], names: pd.Index, split: np.ndarray) -> pd.DataFrame:
    """One row per predictor and profile, with NaN for what is not known of a predictor. Empties `found` as it goes, so
    that the numbers of many profiles are not in memory twice."""
    columns = list(dict.fromkeys(column for by_column in found.values() for column in by_column))
    columns = [column for column in columns if column not in (HELD_OUT, "molecules")] + [
        column for column in (HELD_OUT, "molecules") if column in columns
    ]
    nothing, n_profiles = np.full(len(names), np.nan), len(names)
    table: dict[str, Any] = {
        "model": pd.Index(list(found)).repeat(n_profiles),
        "profile": names[np.tile(np.arange(n_profiles), len(found))],
        "split": np.tile(split, len(found)),
    }
    for column in columns:
        table[column] = np.concatenate([by_column.pop(column, nothing) for by_column in found.values()])
    return pd.DataFrame(table, copy=False)


def _own_input(by_center: dict[str, InnerProducts], center: str, scale: float) -> dict[str, np.ndarray]:
    """(n_profiles,) own-input numbers of one predictor by metric; NaN for profiles without molecules."""
    is_empty = (by_center["none"].target == 0).numpy()  # hidden by centring: zeros minus the mean have a direction
    found = {key: measure(metric, by_center[metric.center]) for key, metric in METRICS.items()}
    found["rescaled_mse"] = rescaled_mse(by_center[center], scale)
    return {key: np.where(is_empty, np.nan, values.numpy()) for key, values in found.items()}


def _by_depth(
    model: Model, expression: Expression, centers: tuple[str, ...], ratios: np.ndarray
) -> tuple[Products, dict[str, np.ndarray], np.ndarray]:
    """Results of `_all_products` with the profiles of each depth read at their depth."""
    groups = list(by_ratio(ratios))
    found = [_all_products(model.at(ratio), expression.take(rows), centers, None) for ratio, rows in groups]
    back = np.argsort(np.concatenate([rows for _, rows in groups]), kind="stable")
    joined = join_chunks([products for products, _, _ in found])
    products = {
        name: {center: take_products(by, back) for center, by in by_center.items()}
        for name, by_center in joined.items()
    }
    held_out = {name: np.concatenate([known[name] for _, known, _ in found])[back] for name in found[0][1]}
    return products, held_out, np.concatenate([halves for _, _, halves in found])[back]


def _all_products(
    model: Model, expression: Expression, centers: tuple[str, ...], partner: np.ndarray | None
) -> tuple[Products, dict[str, np.ndarray], np.ndarray]:
    """Inner products of complete profiles, and the results of `half_against_half`, computed in chunks.

    Each profile is read once; with partners, which may be at any position, all profiles form one chunk.
    """
    held_out_cosines = HeldOutCosines(model)
    models = predictors(model, is_half=False)
    by_chunk: list[Products] = []
    cosines: list[dict[str, np.ndarray]] = []
    of_halves: list[np.ndarray] = []
    for rows, part in expression.chunks(READ if partner is None else max(1, expression.n_profiles)):
        whole = model.preprocess.apply(part)
        blocks = [whole] if partner is None else [whole, whole[partner]]
        totals = [part.totals] if partner is None else [part.totals, part.totals[partner]]
        share = model.share_read(is_half=False)
        read = [model.preprocess.apply(part, share)] if share < 1 else None
        by_chunk.append(products_of(models, blocks, centers, totals, read=read)[0])
        found, between = held_out_cosines(part, rows.start, partner)
        cosines.append(found)
        of_halves.append(between)
    held_out = {name: np.concatenate([found[name] for found in cosines]) for name in cosines[0]}
    return join_chunks(by_chunk), held_out, np.concatenate(of_halves)


@torch.no_grad()
@np.errstate(over="ignore", invalid="ignore")  # of a loss that nearly ran away: such a gene has no correlation
def gene_correlation(model: Model, expression: Expression) -> pd.DataFrame:
    """Table of gene, mean and correlation (Pearson, over profiles) of a gene and its prediction.

    Of counts, the gene in one half of the molecules and its prediction from the other, over both directions, so that
    a gene of noise has 0 on average: copying does not help. Of other values, profiles and their own reconstruction.
    Exact, from products of the sparse profiles with the hidden layer; NaN for a gene that is constant or predicted so.
    """
    predictor = predictors(model, is_half=model.can_hold_out)["model"]
    layer = predictor.decoder.layer
    weight, offset = layer.weight.double().numpy(), layer.offset.double().numpy()
    n_genes, n_hidden = weight.shape
    complete, moments, added = ColumnMoments(n_genes), ColumnMoments(n_genes), _Additions(weight, offset)
    cross, squares, total = np.zeros((n_genes, n_hidden)), np.zeros((n_hidden, n_hidden)), np.zeros(n_hidden)
    rng = np.random.default_rng((int(model.config["split_seed"]), GENES_STREAM))
    for _, part in expression.chunks(READ):
        complete.add(model.preprocess.apply(part))
        for given, target in _directions(part, rng) if model.can_hold_out else [(part, part)]:
            block, truth = model.preprocess.apply(given), model.preprocess.apply(target)
            rows = sparse_rows(block).to("cpu", torch.float64)
            found = predictor.predict(Chunk(rows, block, given.totals), predictor.project(rows))
            hidden = (found.hidden if isinstance(found, Corrected) else found).numpy()
            moments.add(truth)
            cross += truth.T @ hidden
            squares += hidden.T @ hidden
            total += hidden.sum(0)
            if isinstance(found, Corrected) and found.corrections is not None:
                added.add(truth, found.corrections, hidden)
    n_profiles, mean = moments.n_profiles, total / moments.n_profiles
    level, gene_mean = weight @ mean, moments.mean()
    covariance = ((cross / n_profiles - np.outer(gene_mean, mean)) * weight).sum(1)
    covariance += added.with_target / n_profiles - gene_mean * added.total / n_profiles
    variance = ((weight @ (squares / n_profiles - np.outer(mean, mean))) * weight).sum(1)
    variance += 2 * (added.with_linear / n_profiles - (level + offset) * added.total / n_profiles)
    variance += added.squares / n_profiles - (added.total / n_profiles) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = covariance / np.sqrt(np.maximum(variance, 0) * moments.variance())
    correlation[~np.isfinite(correlation)] = np.nan
    return pd.DataFrame({"gene": model.preprocess.genes, "mean": complete.mean(), "correlation": correlation})


def _directions(part: Expression, rng: np.random.Generator) -> list[tuple[Expression, Expression]]:
    """Both halves of profiles in memory, each as what is given and as what is predicted."""
    first, second = draw_halves(Splitter(part.rows), part.totals, rng)
    return [(first, second), (second, first)]


class _Additions:
    """Sums over profiles of what a decoder adds at single genes, and of its products; each (n_genes,)."""

    def __init__(self, weight: np.ndarray, offset: np.ndarray) -> None:
        self._weight, self._offset = weight, offset
        self.total, self.squares, self.with_target, self.with_linear = np.zeros((4, len(offset)))

    def add(self, target: sparse.csr_matrix, additions: sparse.csr_matrix, hidden: np.ndarray) -> None:
        """Include the next profiles."""
        additions = additions.astype(np.float64)
        total = np.asarray(additions.sum(0)).ravel()
        self.total += total
        self.squares += np.asarray(additions.power(2).sum(0)).ravel()
        self.with_target += np.asarray(additions.multiply(target).sum(0)).ravel()
        self.with_linear += ((additions.T @ hidden) * self._weight).sum(1) + total * self._offset


def summarize(profiles: pd.DataFrame, of_halves: np.ndarray, split: np.ndarray, seed: int) -> pd.DataFrame:
    """Long table of means, medians and quantiles over the profiles that have a value; skill, disattenuated cosine and
    ceiling are computed from means.

    Parameters
    ----------
    profiles
        One row per profile and model, with the profiles of every model in the same order.
    of_halves, split
        (n_profiles,) cosine between the two halves, and split, in that order of profiles.
    seed
        Seed of the fit, a column of the table.
    """
    rows, row = [], Reconstructions.row
    for (model, name), table in profiles.groupby(["model", "split"], sort=False):
        for column in BY_PROFILE:
            values = table[column].dropna().to_numpy(float)
            for statistic, of in STATISTICS.items():
                if len(values):
                    rows.append(row(str(model), seed, str(name), column, of(values), len(values), statistic))
    metrics = pd.DataFrame(rows, columns=COLUMNS)
    extra = []
    for name in pd.unique(split):
        cosines = of_halves[split == name]
        ceiling, n_profiles = half_ceiling(cosines), int((~np.isnan(cosines)).sum())
        if not n_profiles:
            continue
        if is_impossible(ceiling, cosines, [value(metrics, rival, name, HELD_OUT) for rival in BASELINES]):
            continue
        extra.append(row("model", seed, name, "ceiling", ceiling, n_profiles))
        trivial = value(metrics, "mean_profile", name, HELD_OUT)
        for model in pd.unique(metrics["model"]):
            skill = share_of_way(value(metrics, model, name, HELD_OUT), trivial, ceiling)
            extra.append(row(model, seed, name, "skill", skill, n_profiles))
            held_out = profiles.loc[(profiles["model"] == model) & (profiles["split"] == name), HELD_OUT].to_numpy(
                float
            )
            corrected = disattenuated_cosine(held_out, cosines)
            extra.append(row(model, seed, name, "disattenuated_cosine", corrected, n_profiles))
    for name in pd.unique(split):
        for model, (gain, error, n_paired) in step_gains(profiles, name).items():
            extra.append(row(model, seed, name, GAIN, gain, n_paired))
            extra.append(row(model, seed, name, GAIN_ERROR, error, n_paired))
    return pd.concat([metrics, pd.DataFrame(extra, columns=COLUMNS)], ignore_index=True) if extra else metrics


def verdict(evaluation: Evaluation, split: str) -> str:
    """Sentences that say whether the model beats PCA, shrunken PCA and, with an estimator, its linear start, profile by
    profile, on a split; and what its steps brought."""
    metrics = evaluation.metrics
    has_counts = not np.isnan(value(metrics, "model", split, HELD_OUT))
    metric = HELD_OUT if has_counts else WITHOUT_COUNTS
    rivals = {name: Reconstructions.models[name].of_size for name, kind in BASELINES.items() if kind.is_sized}
    if has_counts:
        sizes = [name for name in metrics["model"].unique() if name.startswith("pca_")]
        if sizes:  # none where profiles or genes are too few
            best = max(sizes, key=lambda name: value(metrics, name, split, HELD_OUT))
            rivals[best] = f"the best PCA (size {best.removeprefix('pca_')})"
        rivals[WHITENED] = "its whitened linear start"
    said = []
    for rival, title in rivals.items():
        if rival in set(metrics["model"]):
            difference, error, _ = paired_difference(evaluation.profiles, "model", rival, split, metric)
            said.append(f"{outcome(difference, error)} {title} ({with_interval(difference, error)})")
    what = "the other half of the molecules (held-out cosine)" if has_counts else "their own input (centred cosine)"
    n_profiles = len(paired_difference(evaluation.profiles, "model", "mean_profile", split, metric)[2])
    if not n_profiles:
        return headline(evaluation, split)
    which = f"all {n_profiles:,}" if split == "all" else f"{n_profiles:,} {split}"
    which = f"{which} profiles" if n_profiles != 1 else f"one profile ({split})"
    sentence = f"On {which}, evaluated against {what}, the model {', '.join(said)}."
    if has_counts:
        sentence = " ".join([sentence, standing(evaluation, split), *step_sentences(evaluation, split)])
    else:
        is_shallow = "molecules" in evaluation.profiles  # counts, but too few for a held-out cosine
        reason = "With fewer than 20 molecules in a half of each profile" if is_shallow else "Without counts"
        sentence += f" {reason} there is no held-out cosine, and an own-input cosine also rewards copying noise."
    return f"{headline(evaluation, split)} {sentence}"
