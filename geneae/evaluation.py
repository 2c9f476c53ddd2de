"""Models and baselines on the same profiles: per-profile numbers, one long table, one sentence."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from geneae.baselines import Frame
from geneae.ceiling import cosine_of_halves, disattenuated_cosine, half_ceiling, has_molecules
from geneae.metrics import METRICS, best_scale, measure, rescaled_mse
from geneae.model import Model
from geneae.network import Network
from geneae.preprocess import ColumnMoments, Expression
from geneae.products import InnerProducts, LinearOutput, Projection, inner_products
from geneae.sparse_rows import SparseRows, sparse_rows
from geneae.views import Splitter, draw_halves

CHUNK = 1024  # profiles at a time
READ = 1024  # profiles in memory at a time, if they come from a file
REPEATS = 3  # count splits that a held-out number is the mean of, each in both directions
EVALUATION_STREAM = 7  # keeps the splits of evaluation apart from those of training, whatever the seed
STATISTICS: dict[str, Callable[[np.ndarray], float]] = {
    "mean": lambda values: float(np.mean(values)),
    "median": lambda values: float(np.median(values)),
    "p05": lambda values: float(np.quantile(values, 0.05)),
    "p95": lambda values: float(np.quantile(values, 0.95)),
}
HELD_OUT = "heldout_cosine"
WITHOUT_COUNTS = "centred_cosine"  # read where there is no held-out cosine: the plain one can be 0.999 for everybody
COLUMNS = (*METRICS, "rescaled_mse", HELD_OUT)
SAME = 5e-5  # a difference below the last digit that is shown
CLEAR = 1.96  # standard errors that make a mean difference one that the data can show


Products = dict[str, dict[str, InnerProducts]]
"""Inner products by model and centring."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Numbers of one model and its baselines."""

    profiles: pd.DataFrame
    """One row per profile and model: model, profile, split, and the columns of `COLUMNS`."""
    metrics: pd.DataFrame
    """Long: model, seed, split, metric, statistic, value, n_profiles, better."""
    scales: dict[str, float]
    """By model, the factor that `rescaled_mse` was taken with."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """Something that predicts profiles: a network or a baseline."""

    output: LinearOutput
    """Its last layer."""
    project: Callable[[SparseRows], Projection]
    """Products of profiles with the last layer."""
    predict: Callable[[SparseRows, Projection], Tensor]
    """(n_profiles, n) hidden from inputs and their products."""
    basis: int
    """Equal for predictors whose products are the same."""


def predictors(model: Model, is_half: bool) -> dict[str, Predictor]:
    """The model and its baselines by name: for whole profiles in float64, as a squared error may cancel; for halves,
    of which a cosine is wanted, in float32, whose sparse products are six times as fast."""
    dtype = torch.float32 if is_half else torch.float64
    network: Network = copy.deepcopy(model.network).to(dtype)
    shift = model.shift(is_half)
    shift = None if shift is None else shift.to(dtype)
    frames = model.baselines.held_out(dtype) if is_half else model.baselines.own_input()
    found = {"model": _free(network, shift) if network.is_free else _in_basis(network, shift, frames)}
    return found | linear_predictors(frames)


def _free(network: Network, shift: Tensor | None) -> Predictor:
    return Predictor(
        network.output(shift),
        lambda rows: network.project(rows, shift),
        lambda rows, _: network.decode(network.encode(network.scores(rows, shift))),
        id(network),
    )


def _in_basis(network: Network, shift: Tensor | None, frames: dict[str, tuple[Frame, Tensor]]) -> Predictor:
    """The network, with the products of the baseline in the same frame where there is one."""
    own = Frame(network.components, network.mean if shift is None else network.mean + shift)
    at = next((other for other, _ in frames.values() if _is_same(own, other)), own)

    def predict(_: SparseRows, inputs: Projection) -> Tensor:
        return network.decode(network.encode(at.predict(inputs, 1 / network.deviation)))

    return Predictor(at.output(), at.project, predict, id(at))


def _is_same(one: Frame, other: Frame) -> bool:
    return torch.equal(one.components, other.components) and torch.equal(one.mean, other.mean)


def linear_predictors(frames: dict[str, tuple[Frame, Tensor]]) -> dict[str, Predictor]:
    """Baselines by name, from frame and factors."""
    return {name: _linear(at, factors) for name, (at, factors) in frames.items()}


def _linear(at: Frame, factors: Tensor) -> Predictor:
    return Predictor(at.output(), at.project, lambda _, inputs: at.predict(inputs, factors), id(at))


@torch.no_grad()
def products_of(
    models: dict[str, Predictor], blocks: list[sparse.csr_matrix], centers: tuple[str, ...]
) -> list[Products]:
    """Inner products of every target profile and its prediction, by model and centring, in the models' precision.

    Parameters
    ----------
    models
        By name.
    blocks
        Profiles that each are their own target; or two halves, each of which is the other's target.
    centers
        Of the inner products.

    Returns
    -------
    By block that the predictions are made from.
    """
    dtype = next(iter(models.values())).output.weight_offset.dtype
    parts: list[list[Products]] = [[] for _ in blocks]
    for start in range(0, blocks[0].shape[0], CHUNK):
        rows = [sparse_rows(block[start : start + CHUNK]).to("cpu", dtype) for block in blocks]
        projections: dict[int, list[Projection]] = {}
        for by_chunk in parts:
            by_chunk.append({name: {} for name in models})
        for name, model in models.items():
            if model.basis not in projections:
                projections[model.basis] = [model.project(some) for some in rows]
            known = projections[model.basis]
            for by_chunk, given, source, target in zip(parts, rows, known, known[::-1], strict=True):
                hidden = model.predict(given, source)
                by_chunk[-1][name] = {c: inner_products(target, model.output, hidden, c) for c in centers}
    return [_join_chunks(by_chunk) for by_chunk in parts]


def _join_chunks(by_chunk: list[Products]) -> Products:
    """Inner products of all profiles from those of some at a time."""
    return {
        name: {center: _join([chunk[name][center] for chunk in by_chunk]) for center in by_center}
        for name, by_center in by_chunk[0].items()
    }


def _join(parts: list[InnerProducts]) -> InnerProducts:
    cross, target, predicted = (torch.cat([getattr(p, f) for p in parts]) for f in ("cross", "target", "predicted"))
    return InnerProducts(cross, target, predicted, parts[0].n_genes)


def _take(products: InnerProducts, rows: np.ndarray) -> InnerProducts:
    index = torch.from_numpy(np.flatnonzero(rows))
    return InnerProducts(products.cross[index], products.target[index], products.predicted[index], products.n_genes)


def evaluate(
    model: Model,
    expression: Expression,
    names: pd.Index,
    split: pd.Series,
    fit_scales: bool,
    partner: np.ndarray | None = None,
) -> Evaluation:
    """Judge a model and its baselines on profiles.

    Own-input numbers compare a profile with its reconstruction; the held-out cosine compares the reconstruction of a
    random half of the molecules with the other half, mean over three splits and both directions, and cannot be had by
    copying noise. Profiles with fewer than 20 molecules in a half have none.

    Parameters
    ----------
    model
        Fitted.
    expression
        Profiles in the model's genes.
    names, split
        Of the profiles; splits are reported apart.
    fit_scales
        Fit the scales of `rescaled_mse` on the validation profiles among these, instead of taking the model's.
    partner
        (n_profiles,) position of the profile that each is to predict; its own where there is none.
    """
    model.check_decoder()
    centers = tuple(dict.fromkeys(("none", "gene", model.center)))
    products, held_out, of_halves = _all_products(model, expression, centers, partner)
    scales = model.scales
    if fit_scales:
        chosen = (split == "validation").to_numpy()
        scales = {name: best_scale(_take(by_center[model.center], chosen)) for name, by_center in products.items()}
    tables = []
    for name, by_center in products.items():
        is_empty = (by_center["none"].target == 0).numpy()  # centring hides it: nothing minus the mean has a direction
        columns = {key: measure(metric, by_center[metric.center]).numpy() for key, metric in METRICS.items()}
        columns = {key: np.where(is_empty, np.nan, values) for key, values in columns.items()}
        columns["rescaled_mse"] = rescaled_mse(by_center[model.center], scales[name]).numpy()
        columns["rescaled_mse"][is_empty] = np.nan
        columns[HELD_OUT] = held_out.get(name, np.full(len(names), np.nan))
        if model.preprocess.state == "counts":
            columns["molecules"] = expression.totals
        tables.append(pd.DataFrame({"model": name, "profile": names, "split": split.to_numpy(), **columns}))
    for name in [name for name in held_out if name not in products]:  # PCA of other sizes: held-out numbers only
        tables.append(
            pd.DataFrame({"model": name, "profile": names, "split": split.to_numpy(), HELD_OUT: held_out[name]})
        )
    profiles = pd.concat(tables, ignore_index=True)
    return Evaluation(profiles, summarize(profiles, of_halves, split.to_numpy(), int(model.config["seed"])), scales)


def _all_products(
    model: Model, expression: Expression, centers: tuple[str, ...], partner: np.ndarray | None
) -> tuple[Products, dict[str, np.ndarray], np.ndarray]:
    """Inner products of whole profiles and what `held_out_cosines` gives, some profiles at a time.

    Each profile is read once; with partners, who may be anywhere, all are taken in one go.
    """
    judge_half = HalfJudge(model)
    models = predictors(model, is_half=False)
    by_chunk: list[Products] = []
    cosines: list[dict[str, np.ndarray]] = []
    of_halves: list[np.ndarray] = []
    for rows, part in expression.chunks(READ if partner is None else max(1, expression.n_profiles)):
        whole = model.preprocess.apply(part)
        blocks = [whole] if partner is None else [whole, whole[partner]]
        by_chunk.append(products_of(models, blocks, centers)[0])
        found, between = judge_half(part, rows.start, partner)
        cosines.append(found)
        of_halves.append(between)
    held_out = {name: np.concatenate([found[name] for found in cosines]) for name in cosines[0]}
    return _join_chunks(by_chunk), held_out, np.concatenate(of_halves)


class HalfJudge:
    """Held-out cosines of a model and its baselines, on count splits that the seed of its split decides."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._models = predictors(model, is_half=True) if model.can_hold_out else {}

    def __call__(
        self, expression: Expression, start: int = 0, partner: np.ndarray | None = None
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Cosine of the prediction from one half with the other half, or with that of the partner, by model.

        Parameters
        ----------
        expression
            Profiles in memory.
        start
            Position of the first of them among all; count splits are drawn anew from there.
        partner
            (n_profiles,) position of the profile that each is to predict.

        Returns
        -------
        (n_profiles,) means over splits and directions by model, empty without counts; and the cosines between the
        halves themselves, from which the ceiling follows.
        """
        if not self._models:
            return {}, np.full(expression.n_profiles, np.nan)
        preprocess = self._model.preprocess
        rng = np.random.default_rng((int(self._model.config["split_seed"]), EVALUATION_STREAM, start))
        sums = {name: np.zeros(expression.n_profiles) for name in self._models}
        of_halves = np.zeros(expression.n_profiles)
        splitter = Splitter(expression.rows)
        for _ in range(REPEATS):
            pair = draw_halves(splitter, expression.totals, rng)
            known = has_molecules(*pair)
            blocks = [preprocess.apply(half) for half in pair]
            of_halves += np.where(known, cosine_of_halves(blocks[0], blocks[1]), np.nan)
            judged = known if partner is None else known & known[partner]
            if partner is None:
                by_direction = products_of(self._models, blocks, ("none",))
            else:
                by_direction = [
                    products_of(self._models, [given, target[partner]], ("none",))[0]
                    for given, target in (blocks, reversed(blocks))
                ]
            for products in by_direction:
                for name, by_center in products.items():
                    cosine = measure(METRICS["cosine"], by_center["none"]).numpy()
                    sums[name] += np.where(judged, cosine, np.nan)
        return {name: total / (2 * REPEATS) for name, total in sums.items()}, of_halves / REPEATS


@torch.no_grad()
def gene_correlation(model: Model, expression: Expression) -> pd.DataFrame:
    """gene, mean, correlation: Pearson over profiles between a gene and its prediction from the profile itself.

    Exact, from products of the sparse profiles with the hidden layer; NaN for a gene that does not vary.
    """
    predictor = predictors(model, is_half=False)["model"]
    weight = model.network.output_weight().detach().double().numpy()
    n_genes, n_hidden = weight.shape
    moments = ColumnMoments(n_genes)
    cross, squares, total = np.zeros((n_genes, n_hidden)), np.zeros((n_hidden, n_hidden)), np.zeros(n_hidden)
    for _, part in expression.chunks(READ):
        whole = model.preprocess.apply(part)
        rows = sparse_rows(whole).to("cpu", torch.float64)
        hidden = predictor.predict(rows, predictor.project(rows)).numpy()
        moments.add(whole)
        cross += whole.T @ hidden
        squares += hidden.T @ hidden
        total += hidden.sum(0)
    n_profiles, mean = moments.n_profiles, total / moments.n_profiles
    covariance = ((cross / n_profiles - np.outer(moments.mean(), mean)) * weight).sum(1)
    variance = ((weight @ (squares / n_profiles - np.outer(mean, mean))) * weight).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = covariance / np.sqrt(np.maximum(variance, 0) * moments.variance())
    correlation[~np.isfinite(correlation)] = np.nan
    return pd.DataFrame({"gene": model.preprocess.genes, "mean": moments.mean(), "correlation": correlation})


def summarize(profiles: pd.DataFrame, of_halves: np.ndarray, split: np.ndarray, seed: int) -> pd.DataFrame:
    """Long table of means, medians and quantiles over the profiles that have a value; skill, disattenuated cosine and
    ceiling are of means.

    Parameters
    ----------
    profiles
        One row per profile and model, in one order of profiles for all models.
    of_halves, split
        (n_profiles,) in that order: cosine between the halves, and split.
    seed
        Named in the table.
    """
    rows = []
    for (model, name), table in profiles.groupby(["model", "split"], sort=False):
        for column in COLUMNS:
            values = table[column].dropna().to_numpy(float)
            better = METRICS[column].better if column in METRICS else "higher" if column == HELD_OUT else "lower"
            for statistic, of in STATISTICS.items():
                if len(values):
                    rows.append((model, seed, name, column, statistic, of(values), len(values), better))
    metrics = pd.DataFrame(
        rows, columns=["model", "seed", "split", "metric", "statistic", "value", "n_profiles", "better"]
    )
    extra = []
    for name in pd.unique(split):
        cosines = of_halves[split == name]
        ceiling, n_profiles = half_ceiling(cosines), int((~np.isnan(cosines)).sum())
        if not n_profiles:
            continue
        extra.append(("model", seed, name, "ceiling", "mean", ceiling, n_profiles, "higher"))
        trivial = value(metrics, "mean_profile", name, HELD_OUT)
        for model in pd.unique(metrics["model"]):
            gain = value(metrics, model, name, HELD_OUT) - trivial
            skill = gain / (ceiling - trivial) if ceiling > trivial else float("nan")  # nothing to be gained
            extra.append((model, seed, name, "skill", "mean", skill, n_profiles, "higher"))
            held_out = profiles.loc[(profiles["model"] == model) & (profiles["split"] == name), HELD_OUT].to_numpy(
                float
            )
            corrected = disattenuated_cosine(held_out, cosines)
            extra.append((model, seed, name, "disattenuated_cosine", "mean", corrected, n_profiles, "higher"))
    return pd.concat([metrics, pd.DataFrame(extra, columns=metrics.columns)], ignore_index=True) if extra else metrics


def value(metrics: pd.DataFrame, model: str, split: str, metric: str, statistic: str = "mean") -> float:
    """One number of the long table; NaN where it is not there."""
    found = metrics.loc[
        (metrics["model"] == model)
        & (metrics["split"] == split)
        & (metrics["metric"] == metric)
        & (metrics["statistic"] == statistic),
        "value",
    ]
    return float(found.iloc[0]) if len(found) else float("nan")


def verdict(evaluation: Evaluation, split: str) -> str:
    """Sentences that say whether the model beats PCA and shrunken PCA, profile by profile, on a split."""
    metrics = evaluation.metrics
    has_counts = not np.isnan(value(metrics, "model", split, HELD_OUT))
    metric = HELD_OUT if has_counts else WITHOUT_COUNTS
    rivals = {"pca": "PCA of the same size", "shrunken_pca": "shrunken PCA of the same size"}
    if has_counts:
        sizes = [name for name in metrics["model"].unique() if name.startswith("pca_")]
        best = max(sizes, key=lambda name: value(metrics, name, split, HELD_OUT))
        rivals[best] = f"the best PCA (size {best.removeprefix('pca_')})"
    said = []
    for rival, title in rivals.items():
        if rival in set(metrics["model"]):
            difference, error, _ = paired_difference(evaluation.profiles, "model", rival, split, metric)
            said.append(f"{outcome(difference, error)} {title} ({signed(difference)} ± {CLEAR * error:.4f})")
    what = "the other half of the molecules (held-out cosine)" if has_counts else "their own input (centred cosine)"
    n_profiles = len(paired_difference(evaluation.profiles, "model", "mean_profile", split, metric)[2])
    which = f"all {n_profiles:,}" if split == "all" else f"{n_profiles:,} {split}"
    sentence = f"On {which} profiles, judged against {what}, the model {', '.join(said)}."
    if has_counts:
        sentence += f" {_standing(metrics, split)}"
    else:
        is_shallow = "molecules" in evaluation.profiles  # counts, but none to judge by
        reason = "With fewer than 20 molecules in a half" if is_shallow else "Without counts"
        sentence += f" {reason} no held-out number can be had: an own-input cosine also rewards the copying of noise."
    return sentence


def _standing(metrics: pd.DataFrame, split: str) -> str:
    """Where the model is between mean profile and ceiling."""
    trivial, reached = (value(metrics, name, split, HELD_OUT) for name in ("mean_profile", "model"))
    ceiling, skill = (value(metrics, "model", split, name) for name in ("ceiling", "skill"))
    if np.isnan(skill):
        return f"The mean profile has {trivial:.4f} and the noise ceiling is {ceiling:.4f}: there is nothing to gain."
    return (
        f"Its {reached:.4f} is {100 * skill:.0f} % of the way from the mean profile ({trivial:.4f}) to the noise "
        f"ceiling ({ceiling:.4f})."
    )


def outcome(difference: float, error: float) -> str:
    """In words, how a mean difference with its standard error is to be read."""
    if abs(difference) < SAME:
        return "is as good as"
    if abs(difference) <= CLEAR * error or np.isnan(error):
        return "cannot be told from"
    return "beats" if difference > 0 else "is worse than"


def signed(difference: float) -> str:
    """Four decimals with a sign; no sign where all of them are zero."""
    return f"{difference:+.4f}" if round(difference, 4) else "0.0000"


def paired_difference(
    profiles: pd.DataFrame, first: str, second: str, split: str, metric: str
) -> tuple[float, float, np.ndarray]:
    """Mean difference of two models over the same profiles, its standard error, and the differences themselves."""
    chosen = profiles[profiles["split"] == split]
    values = [chosen.loc[chosen["model"] == name, metric].to_numpy(float) for name in (first, second)]
    differences = values[0] - values[1]
    differences = differences[~np.isnan(differences)]
    if len(differences) < 2:
        return float(differences.mean()) if len(differences) else float("nan"), float("nan"), differences
    return float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(differences))), differences


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write `profiles.csv` (the model alone) and `metrics.csv` (model and baselines)."""
    table = evaluation.profiles
    table[table["model"] == "model"].drop(columns="model").to_csv(folder / "profiles.csv", index=False)
    evaluation.metrics.to_csv(folder / "metrics.csv", index=False)
