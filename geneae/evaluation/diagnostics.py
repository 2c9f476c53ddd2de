"""Diagnostics of a fit: what may be wrong, each with a value, a limit and a message for when it fires."""

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from geneae.data.identity import n_copies
from geneae.data.permuted import NULLS
from geneae.data.preprocess import Expression
from geneae.evaluation.judge import Diagnostic
from geneae.evaluation.predictors import LATENT_ONLY, OWN_COUNT, WHITENED, Chunk, predictors
from geneae.evaluation.records import CLEAR, HELD_OUT, SAME, WITHOUT_COUNTS, Evaluation, paired_difference, value
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.baselines import BASELINES
from geneae.models.model import Model
from geneae.training.monitor import COLLAPSES, effective_rank, perplexity

MOST_PROFILES = 3000  # limit; every reconstruction is compared with every profile
CONSTANT_SKILL, COPYING_SKILL = 0.05, 1.02
DIVERSITY = 0.05  # share of the diversity of (shrunken) PCA
CONSTANT = 1e-6  # share of the largest deviation, below which a latent is constant
USED = 0.1  # share of the latents that the reconstruction should use
NORM_RANGE = (0.1, 10.0)


def diagnose(model: Model, evaluation: Evaluation, expression: Expression, split: str) -> list[Diagnostic]:
    """All diagnostics of a fit, on the profiles of one split.

    Parameters
    ----------
    model, evaluation
        Model and numbers of the fit.
    expression
        Profiles of `split`; reconstructions and latents of the first 3,000 at most are examined.
    split
        `test` or `validation`.
    """
    matrix = model.preprocess.apply(expression.take(slice(MOST_PROFILES)).load())
    hidden, latent = _hidden(model, matrix)
    return [
        *_against_baselines(evaluation, split),
        _copying(evaluation, split),
        _diversity(model, evaluation, matrix, hidden),
        *_latent(model, latent),
        _norm(evaluation, split),
        _retrieval(model, matrix, hidden),
    ]


def of_copies(keys: np.ndarray, split: pd.Series) -> list[Diagnostic]:
    """Diagnostic of validation and test profiles that have exactly the values of a training profile; none without any.

    Parameters
    ----------
    keys
        (n_profiles,) keys from `geneae.data.identity.profile_keys`.
    split
        Split of each profile.
    """
    is_judged = split.isin(["validation", "test"]).to_numpy()
    number = n_copies(keys, (split == "train").to_numpy(), is_judged)
    message = (
        f"{number:,} of {int(is_judged.sum()):,} validation and test profiles are copies of training profiles: numbers "
        "on them are too good. Remove copies, or keep those of one origin in one split with --group."
    )
    return [Diagnostic("copies_of_training", number, "0", True, message)] if number else []


def against_null(evaluation: Evaluation, null_evaluation: Evaluation, null: str, split: str) -> list[Diagnostic]:
    """Diagnostics of whether a fit has learned more than the same fit of a permuted control, with nothing to learn.

    The gain over the mean profile, each on its own data, is compared profile by profile, in held-out cosine (centred
    cosine without counts). A control below its mean profile counts as equal to it, which needs no signal either. Where
    the fit gains no more than its control, (shrunken) PCA shows whether data or model are the reason. Of a model that
    also reads own counts, that from the latent alone is compared: a count says something about the same gene in the
    other half of the profile even where genes are permuted.

    Parameters
    ----------
    evaluation, null_evaluation
        Numbers of the fit, and of the control with the same settings and split.
    null
        Name of the control in `geneae.data.permuted.NULLS`.
    split
        `test` or `validation`.
    """
    both = evaluation, null_evaluation
    has_counts = not np.isnan(value(evaluation.metrics, "model", split, HELD_OUT))
    metric, rival = (HELD_OUT, "shrunken_pca") if has_counts else (WITHOUT_COUNTS, "pca")
    subject = _without_own_counts(evaluation.metrics)
    gains = [_gain(of, subject, split, metric) for of in both]
    excess, needed = _excess(*gains)
    rival_excess, rival_needed = _excess(*(_gain(of, rival, split, metric) for of in both))
    title, reached = NULLS[null], {True: "shrunken PCA", False: "PCA"}[has_counts]
    numbers = {
        metric: [value(of.metrics, subject, split, metric) for of in both],
        "gain_over_mean_profile": [float(gain.mean()) for gain in gains],
        "skill": [value(of.metrics, subject, split, "skill") for of in both],
    }
    return [
        *(_of_null(null, name, *pair) for name, pair in numbers.items() if has_counts or name != "skill"),
        Diagnostic(
            f"excess_over_{null}",
            excess,
            f"above {needed:.5f}",
            not excess > needed,
            f"The model gains no more over the mean profile than the same fit with {title}, "
            + (
                f"but {reached} does: these data contain a signal that the model has not learned. Check the learning "
                "rate, the epochs and the latent."
                if rival_excess > rival_needed
                else f"and neither does {reached}: these profiles do not show that there is anything to learn about "
                "single profiles, and another loss or longer training will not change that."
            ),
        ),
    ]


def of_data(notes: Mapping[str, str]) -> list[Diagnostic]:
    """What somebody should know about the profiles of a fit, as diagnostics that fire.

    Parameters
    ----------
    notes
        `Profiles.notes`.
    """
    return [Diagnostic(f"data_{name}", float("nan"), "no note", True, said) for name, said in notes.items()]


def of_collapse(collapse: str | None, epochs_run: int) -> list[Diagnostic]:
    """Diagnostic of the collapse that ended a training; empty without one.

    Parameters
    ----------
    collapse
        Name in `geneae.training.monitor.COLLAPSES`, or None.
    epochs_run
        Number of epochs of the training.
    """
    if collapse is None:
        return []
    message = f"At epoch {epochs_run}: {COLLAPSES[collapse]}"
    return [Diagnostic(f"{collapse}_collapse", float(epochs_run), "never", True, message)]


def _gain(evaluation: Evaluation, model: str, split: str, metric: str) -> pd.Series:
    """Gain of a model over the mean profile, by profile."""
    chosen = evaluation.profiles[evaluation.profiles["split"] == split].set_index("profile")
    of, trivial = (chosen.loc[chosen["model"] == name, metric] for name in (model, "mean_profile"))
    return of - trivial


def _excess(gain: pd.Series, of_null: pd.Series) -> tuple[float, float]:
    """Mean gain in excess of that of the control, and the limit above which the data show an excess."""
    known = (gain - of_null if of_null.mean() > 0 else gain).dropna()
    error = float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else float("inf")
    return float(known.mean()), max(SAME, CLEAR * error)


def _without_own_counts(metrics: pd.DataFrame) -> str:
    """Name of the predictions of a model from its latent alone."""
    return LATENT_ONLY if LATENT_ONLY in set(metrics["model"]) else "model"


def _of_null(null: str, name: str, own: float, of_null: float) -> Diagnostic:
    """A number of a control, next to that of the fit; it does not fire."""
    beside = "this fit has none" if np.isnan(own) else f"this fit: {own:.4f}"
    return Diagnostic(f"{null}_{name}", of_null, beside, False, "")


def null_table(metrics: pd.DataFrame, diagnostics: pd.DataFrame, split: str) -> pd.DataFrame:
    """Table of heldout_cosine (or centred_cosine), gain_over_mean_profile and skill, for the fit and its permuted
    controls by title, from the latent alone; empty without controls.

    Parameters
    ----------
    metrics, diagnostics
        Tables of a run.
    split
        Split of the diagnostics.
    """
    values = dict(zip(diagnostics["name"], diagnostics["value"], strict=True))
    columns = [
        name
        for name in (HELD_OUT, WITHOUT_COUNTS, "gain_over_mean_profile", "skill")
        if any(f"{null}_{name}" in values for null in NULLS)
    ]
    if not columns:
        return pd.DataFrame()
    own = {name: value(metrics, _without_own_counts(metrics), split, name) for name in columns}
    own["gain_over_mean_profile"] = own[columns[0]] - value(metrics, "mean_profile", split, columns[0])
    rows = {"this fit": [own[name] for name in columns]}
    rows |= {title: [float(values[f"{null}_{name}"]) for name in columns] for null, title in NULLS.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def to_table(diagnostics: list[Diagnostic]) -> pd.DataFrame:
    """Table with the columns name, value, limit, fires and message."""
    return pd.DataFrame([asdict(diagnostic) for diagnostic in diagnostics])


@torch.no_grad()
def _hidden(model: Model, matrix: sparse.csr_matrix) -> tuple[Tensor, Tensor]:
    """Hidden values before the last matrix, and latents, of complete profiles."""
    latent = model.network.encode(model.network.scores(sparse_rows(matrix), model.shift(is_half=False)))
    return model.network.decode(latent), latent


def _against_baselines(evaluation: Evaluation, split: str) -> list[Diagnostic]:
    metrics = evaluation.metrics
    skill = value(metrics, "model", split, "skill")
    found = [
        Diagnostic(
            "skill",
            skill,
            f"{CONSTANT_SKILL} to {COPYING_SKILL}",
            bool(skill < CONSTANT_SKILL or skill > COPYING_SKILL),
            "The model is not clearly better than the mean profile: it has learned nothing about single profiles."
            if skill < CONSTANT_SKILL
            else "The model is better than the noise ceiling allows: the halves share noise, or some profiles are in "
            "both training and test.",
        )
    ]
    has_counts = not np.isnan(value(metrics, "model", split, HELD_OUT))  # also where there is no ceiling, and no skill
    metric = HELD_OUT if has_counts else WITHOUT_COUNTS
    said = {
        rival: f"The model does not beat {baseline.title} of the same size: prefer {baseline.title}, which is simpler."
        for rival, baseline in BASELINES.items()
        if baseline.is_sized
    }
    said[WHITENED] = (
        "The model does not beat the whitened linear prediction of the same size that it starts from: its network, "
        "neighbours and own counts add nothing that these profiles show."
    )
    said[OWN_COUNT] = (
        "The model does not beat own counts around the mean profile: its latent adds nothing to what the counts of a "
        "profile say by themselves."
    )
    known = set(metrics["model"])
    for rival, message in said.items():
        if rival in known and (metric == HELD_OUT or rival in BASELINES):
            difference, error, _ = paired_difference(evaluation.profiles, "model", rival, split, metric)
            needed = max(SAME, CLEAR * error)
            limit = f"above {needed:.5f}"
            found.append(Diagnostic(f"gain_over_{rival}", difference, limit, not difference > needed, message))
    return found


def _copying(evaluation: Evaluation, split: str) -> Diagnostic:
    reached, trivial = (value(evaluation.metrics, name, split, "cosine") for name in ("model", "mean_profile"))
    held_out, error, _ = paired_difference(evaluation.profiles, "model", "mean_profile", split, HELD_OUT)
    clear = max(SAME, CLEAR * error)
    return Diagnostic(
        "gain_over_mean_profile_held_out",
        held_out,
        f"above {-clear:.5f}, if the own-input cosine is above the mean profile's",
        bool(reached > trivial and held_out < -clear),
        "The model copies noise: its own-input cosine is above the mean profile's, its held-out cosine below. Train "
        "with --target split, a smaller latent, or fewer epochs.",
    )


def _diversity(model: Model, evaluation: Evaluation, matrix: sparse.csr_matrix, hidden: Tensor) -> Diagnostic:
    """Variance of the predictions divided by that of (shrunken) PCA, which is positive where there is any signal."""
    ratio = _spread(model.network.output_weight(), hidden)
    rivals = predictors(model, is_half=False)
    rival = rivals.get("shrunken_pca", rivals["pca"])
    rows = sparse_rows(matrix).to("cpu", torch.float64)
    with torch.no_grad():
        scores = rival.predict(Chunk(rows, matrix, np.empty(0)), rival.project(rows))
    reference = float((scores - scores.mean(0)).square().sum(1).mean())
    diversity = ratio / reference if reference > 0 else float("nan")
    return Diagnostic(
        "diversity",
        diversity,
        f"above {DIVERSITY}",
        diversity < DIVERSITY,
        "The reconstructions are nearly the same for every profile. Check the latent, the learning rate and the cut.",
    )


def _spread(weight: Tensor, hidden: Tensor) -> float:
    """Mean squared distance of predictions, weight times hidden, from their mean."""
    centred, weight = (hidden - hidden.mean(0)).double(), weight.detach().double()
    return float(((centred @ (weight.T @ weight)) * centred).sum(1).mean())


@torch.no_grad()
def contributions(model: Model, latent: Tensor) -> Tensor:
    """(n_latent,) mean squared change of the prediction when a latent is replaced by its mean."""
    weight = model.network.output_weight()
    gram, full = weight.T @ weight, model.network.decode(latent)
    found = []
    for index in range(latent.shape[1]):
        without = latent.clone()
        without[:, index] = latent[:, index].mean()
        change = full - model.network.decode(without)
        found.append(((change @ gram) * change).sum(1).mean())
    return torch.stack(found)


def _latent(model: Model, latent: Tensor) -> list[Diagnostic]:
    n_latent, rank = latent.shape[1], effective_rank(latent)
    share = contributions(model, latent)
    used = perplexity(share)
    return [
        Diagnostic(
            "effective_rank",
            rank,
            f"at least {max(1.5, 0.1 * n_latent):g}",
            n_latent > 1 and rank < max(1.5, 0.1 * n_latent),
            _of_few_directions(latent),
        ),
        Diagnostic(
            "used_latents",
            used,
            f"at least {USED * n_latent:g}",
            used < USED * n_latent,
            f"The reconstruction uses about {used:.0f} of {n_latent} latents: the latent is larger than these data can "
            "fill. Use a smaller --latent.",
        ),
    ]


def _of_few_directions(latent: Tensor) -> str:
    """What a latent of few directions means, and what to do."""
    n_constant = int((latent.std(0) <= CONSTANT * latent.std(0).max()).sum()) if len(latent) > 1 else 0
    if n_constant:
        return (
            f"{n_constant} of {latent.shape[1]} latents are the same for all profiles: these profiles hold no more "
            f"directions than the other {latent.shape[1] - n_constant} that molecules show. Use a smaller --latent."
        )
    return (
        "The latent has collapsed to few directions. Lower the learning rate, start from PCA or, for a loss with "
        "negatives, use --loss softmax or --negatives mean."
    )


def _norm(evaluation: Evaluation, split: str) -> Diagnostic:
    ratio = value(evaluation.metrics, "model", split, "norm_ratio", "median")
    times = f"{ratio:,.0f}" if ratio >= 1000 else f"{ratio:.3g}"
    return Diagnostic(
        "norm_ratio",
        ratio,
        f"{NORM_RANGE[0]:g} to {NORM_RANGE[1]:g}",
        not NORM_RANGE[0] <= ratio <= NORM_RANGE[1],
        f"Reconstructions are {times} times as long as profiles: the gradient of a cosine loss is divided by this "
        "factor, and squared errors need rescaling (rescaled_mse) to be meaningful. Use --loss magnitude, or a cut.",
    )


@torch.no_grad()
def _retrieval(model: Model, matrix: sparse.csr_matrix, hidden: Tensor) -> Diagnostic:
    """Median rank, from 0 (best) to 1 (worst), of the own profile among all, by cosine with the reconstruction."""
    n_profiles = matrix.shape[0]
    projection = model.network.decoder(model.shift(is_half=False)).project(sparse_rows(matrix))
    cosines = (hidden @ projection.weight.T + projection.offset) / projection.squared.sqrt().clamp(min=1e-12)
    own = cosines.diagonal()
    rank = float(((cosines > own[:, None]).sum(1).double() / max(1, n_profiles - 1)).median())
    return Diagnostic(
        "own_profile_rank",
        rank,
        "below 0.25 (0.5 is chance)",
        n_profiles > 1 and rank >= 0.25,
        "Reconstructions are hardly nearer to their own profile than to others: they are not specific.",
    )
