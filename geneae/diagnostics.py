"""What is wrong with a fit, if anything: each diagnostic has a value, a limit and words for when it fires."""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from geneae.evaluation import CLEAR, HELD_OUT, SAME, Evaluation, paired_difference, predictors, value
from geneae.model import Model
from geneae.preprocess import Expression
from geneae.products import sparse_rows

MOST_PROFILES = 3000  # whose reconstructions are searched for their own profile
CONSTANT_SKILL, COPYING_SKILL = 0.05, 1.02
DIVERSITY = 0.05  # of the simplest rival's
USED = 0.1  # share of the latents that the reconstruction should make use of
NORM_RANGE = (0.1, 10.0)


@dataclass(frozen=True)
class Diagnostic:
    """One look at a fit."""

    name: str
    """In snake case."""
    value: float
    """NaN where it cannot be had."""
    limit: str
    """What it should be."""
    fires: bool
    """Whether it is not so."""
    message: str
    """What that means and what to do, for when it fires."""


def diagnose(model: Model, evaluation: Evaluation, expression: Expression, split: str) -> list[Diagnostic]:
    """All diagnostics of a fit, on the judged profiles of one split.

    Parameters
    ----------
    model, evaluation
        Of the fit.
    expression
        The profiles of `split`.
    split
        `test` or `validation`.
    """
    matrix = model.preprocess.apply(expression)
    hidden, latent = _hidden(model, matrix)
    return [
        *_against_baselines(evaluation, split),
        _copying(evaluation, split),
        _diversity(model, evaluation, matrix, hidden),
        *_latent(model, latent),
        _norm(evaluation, split),
        _retrieval(model, matrix, hidden),
    ]


def to_table(diagnostics: list[Diagnostic]) -> pd.DataFrame:
    """name, value, limit, fires, message."""
    return pd.DataFrame([asdict(diagnostic) for diagnostic in diagnostics])


@torch.no_grad()
def _hidden(model: Model, matrix: sparse.csr_matrix) -> tuple[Tensor, Tensor]:
    """Hidden layer before the last matrix, and latents, of whole profiles."""
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
            "The model is as good as the mean profile: it has learned nothing about single profiles."
            if skill < CONSTANT_SKILL
            else "The model is better than the noise ceiling allows: noise is shared between the halves, or profiles "
            "are in both training and test.",
        )
    ]
    metric = HELD_OUT if not np.isnan(skill) else "cosine"
    for rival, title in (("pca", "PCA"), ("shrunken_pca", "shrunken PCA")):
        if rival in set(metrics["model"]):
            difference, error, _ = paired_difference(evaluation.profiles, "model", rival, split, metric)
            found.append(
                Diagnostic(
                    f"gain_over_{rival}",
                    difference,
                    f"above {max(SAME, CLEAR * error):.5f}",
                    not difference > max(SAME, CLEAR * error),
                    f"The model does not beat {title} of the same size: prefer {title}, it is simpler.",
                )
            )
    return found


def _copying(evaluation: Evaluation, split: str) -> Diagnostic:
    own, held_out = (
        value(evaluation.metrics, "model", split, metric) - value(evaluation.metrics, "mean_profile", split, metric)
        for metric in ("cosine", HELD_OUT)
    )
    return Diagnostic(
        "gain_over_mean_profile_held_out",
        held_out,
        "above 0, if the own-input cosine is above the mean profile's",
        bool(own > 0 and held_out < 0),
        "The model copies noise: its own-input cosine is above the mean profile's, its held-out cosine below. Train "
        "with --target split, a smaller latent, or fewer epochs.",
    )


def _diversity(model: Model, evaluation: Evaluation, matrix: sparse.csr_matrix, hidden: Tensor) -> Diagnostic:
    """Variance of the predictions over that of the simplest rival's, which is not zero where there is any signal."""
    ratio = _spread(model.network.output_weight(), hidden)
    rivals = predictors(model, is_half=False)
    rival = rivals.get("shrunken_pca", rivals["pca"])
    rows = sparse_rows(matrix).to("cpu", torch.float64)
    with torch.no_grad():
        scores = rival.predict(rows, rival.project(rows))
    reference = float((scores - scores.mean(0)).square().sum(1).mean())
    diversity = ratio / reference if reference > 0 else float("nan")
    return Diagnostic(
        "diversity",
        diversity,
        f"above {DIVERSITY} of that of (shrunken) PCA",
        diversity < DIVERSITY,
        "The reconstructions are nearly the same for every profile. Look at the latent, the learning rate, the cut.",
    )


def _spread(weight: Tensor, hidden: Tensor) -> float:
    """Mean squared distance of predictions weight h from their mean."""
    centred, weight = (hidden - hidden.mean(0)).double(), weight.detach().double()
    return float(((centred @ (weight.T @ weight)) * centred).sum(1).mean())


def effective_rank(latent: Tensor) -> float:
    """exp of the entropy of the normalised eigenvalues of the covariance: 1 to n_latent (Roy and Vetterli 2007)."""
    if len(latent) < 2:
        return float("nan")
    eigenvalues = torch.linalg.eigvalsh(torch.cov(latent.double().T).reshape(latent.shape[1], -1)).clamp(min=0)
    return _perplexity(eigenvalues)


def _perplexity(amounts: Tensor) -> float:
    """exp of the entropy of shares: how many equal shares would be as even."""
    share = amounts.double() / amounts.double().sum()
    return float(torch.exp(-torch.special.xlogy(share, share).sum()))


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
    used = _perplexity(share)
    return [
        Diagnostic(
            "effective_rank",
            rank,
            f"at least {max(1.5, 0.1 * n_latent):g}",
            n_latent > 1 and rank < max(1.5, 0.1 * n_latent),
            "The latent has collapsed to few directions. Lower the learning rate, or start from PCA.",
        ),
        Diagnostic(
            "used_latents",
            used,
            f"at least {USED * n_latent:g}",
            used < USED * n_latent,
            f"The reconstruction makes use of about {used:.0f} of {n_latent} latents: the latent is larger than these "
            "data can fill. Ask for a smaller --latent.",
        ),
    ]


def _norm(evaluation: Evaluation, split: str) -> Diagnostic:
    ratio = value(evaluation.metrics, "model", split, "norm_ratio", "median")
    return Diagnostic(
        "norm_ratio",
        ratio,
        f"{NORM_RANGE[0]:g} to {NORM_RANGE[1]:g}",
        not NORM_RANGE[0] <= ratio <= NORM_RANGE[1],
        f"Reconstructions are {ratio:.3g} times as long as profiles: the gradient of a cosine is divided by that, and "
        "no squared error can be read without rescaling (rescaled_mse). Use --loss magnitude, or a cut.",
    )


@torch.no_grad()
def _retrieval(model: Model, matrix: sparse.csr_matrix, hidden: Tensor) -> Diagnostic:
    """Median rank, 0 best to 1 worst, of the own profile among all by cosine with the reconstruction."""
    n_profiles = min(MOST_PROFILES, matrix.shape[0])
    rows, hidden = sparse_rows(matrix[:n_profiles]), hidden[:n_profiles]
    projection = model.network.project(rows, model.shift(is_half=False))
    cosines = (hidden @ projection.weight.T + projection.offset) / projection.squared.sqrt().clamp(min=1e-12)
    own = cosines.diagonal()
    rank = float(((cosines > own[:, None]).sum(1).double() / max(1, n_profiles - 1)).median())
    return Diagnostic(
        "own_profile_rank",
        rank,
        "below 0.25 (0.5 is chance)",
        n_profiles > 1 and rank >= 0.25,
        "Reconstructions are no nearer to their own profile than to others: they are not specific.",
    )
