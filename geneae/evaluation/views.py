"""Judge of encoders that learn from views alone: numbers about latents without labels or a reconstruction."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from geneae.data.preprocess import Expression
from geneae.evaluation.judge import (
    Diagnostic,
    Judge,
    Judgement,
    JudgingData,
    MetricFacts,
    ModelFacts,
    PreparedJudge,
)
from geneae.evaluation.records import COLUMNS, value
from geneae.models.model import Model
from geneae.training.loop import Training
from geneae.training.monitor import effective_rank

OF_VIEWS = ("view_cosine", "opposite_halves", "embedding_norm", "effective_gradient", "latent_spread")
LEAST_SPREAD = 0.1  # as a share of the spread of random directions
MOST_OPPOSITE = 0.05  # share of the profiles; 0.5 for independent pairs, in every dimension


class Views(Judge):
    """Latents of an encoder without a decoder: norms, effective rank, agreement of views."""

    metrics: ClassVar[Mapping[str, MetricFacts]] = {
        "latent_norm": MetricFacts("latent norm"),
        "effective_rank": MetricFacts("effective rank"),
        "view_cosine": MetricFacts("view cosine"),
        "opposite_halves": MetricFacts("opposite halves"),
        "embedding_norm": MetricFacts("embedding norm"),
        "effective_gradient": MetricFacts("effective gradient"),
        "latent_spread": MetricFacts("latent spread"),
    }
    models: ClassVar[Mapping[str, ModelFacts]] = {"model": ModelFacts("model")}
    columns = ("latent_norm",)

    def prepare(self, data: JudgingData) -> "_Prepared | None":
        """Refuse nothing; None where profiles are reconstructed."""
        return None if data.has_decoder else _Prepared(data)


@dataclass(frozen=True, eq=False)
class _Prepared(PreparedJudge):
    data: JudgingData

    def judge(self, model: Model, training: Training) -> Judgement:
        """Describe the latents of validation and test profiles."""
        split, expression = self.data.split, self.data.expression
        rows = np.flatnonzero(split.isin(["validation", "test"]))
        last = training.history.iloc[0 if model.exports_start else training.best_epoch]
        names = self.data.obs.index[rows]
        profiles, metrics = describe_latents(model, expression.take(rows), names, split.iloc[rows], last)
        unknown = "Without labels, the quality of these latents is unknown: fit with --label KEY."
        said = (start_sentence(model.config), unknown if self.data.settings.label is None else "")
        return Judgement(
            metrics,
            profiles,
            diagnose_latents(metrics, model.n_latent, self.data.last_split),
            " ".join(filter(None, said)),
        )


def start_sentence(config: Mapping[str, Any]) -> str:
    """Sentence on an encoder whose latents are those of its start; empty if they are its own, and without such a start.

    Parameters
    ----------
    config
        Contents of `config.json`.
    """
    settings, is_left = config["settings"], (config.get("latent_choice") or {}).get("is_start", False)
    starts_at_fit = config["network"]["is_whitened"] and settings["cut"] == 1
    if not (is_left or (starts_at_fit and config["best_epoch"] == 0)):
        return ""
    return (
        f"Training with {settings['objective']} did not clearly better its start, the latents of the default fit, "
        "which are exported."
    )


def describe_latents(
    model: Model, expression: Expression, names: pd.Index, split: pd.Series, last: pd.Series
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Numbers about latents without labels or a reconstruction.

    Parameters
    ----------
    model
        Model without a decoder.
    expression, names, split
        Profiles to evaluate, their names and splits.
    last
        Row of the history at the chosen epoch; its numbers about views come from validation profiles.

    Returns
    -------
    A table of `latent_norm` by profile. And the long table: its mean, the `effective_rank` of the latents and, for
    validation profiles, the numbers about views of `last`.
    """
    seed, latent = int(model.config["seed"]), torch.from_numpy(model.latent(expression))
    norms = latent.norm(dim=1).numpy()
    rows = []
    for name in pd.unique(split):
        inside = np.flatnonzero(split == name)
        found = {"latent_norm": float(norms[inside].mean()), "effective_rank": effective_rank(latent[inside])}
        if name == "validation":
            found |= {metric: float(last[metric]) for metric in OF_VIEWS}
        rows += [Views.row("model", seed, str(name), metric, mean, len(inside)) for metric, mean in found.items()]
    table = pd.DataFrame({"model": "model", "profile": names, "split": split.to_numpy(), "latent_norm": norms})
    return table, pd.DataFrame(rows, columns=COLUMNS)


def diagnose_latents(metrics: pd.DataFrame, n_latent: int, split: str) -> list[Diagnostic]:
    """Diagnostics of an encoder: collapse, or views that point in opposite directions.

    Parameters
    ----------
    metrics
        Long table of `describe_latents`.
    n_latent
        Length of the latent.
    split
        `test` or `validation`; numbers about views always come from validation profiles.
    """
    rank, least = value(metrics, "model", split, "effective_rank"), max(1.5, 0.1 * n_latent)
    spread, opposite = (value(metrics, "model", "validation", name) for name in ("latent_spread", "opposite_halves"))
    return [
        Diagnostic(
            "effective_rank",
            rank,
            f"at least {least:g}",
            n_latent > 1 and rank < least,
            "The latent has collapsed to few directions. Lower the learning rate, or train with another objective.",
        ),
        Diagnostic(
            "latent_spread",
            spread,
            f"above {LEAST_SPREAD}",
            spread < LEAST_SPREAD,
            "The latents of all profiles point in nearly the same direction: the encoder has collapsed, or a constant "
            "outweighs the differences between profiles.",
        ),
        Diagnostic(
            "opposite_halves",
            opposite,
            f"at most {MOST_OPPOSITE}",
            opposite > MOST_OPPOSITE,
            "The two views of more than one in twenty profiles point in opposite directions (cosine below 0): training "
            "has made little progress. Use more epochs, or smaller initial weights (--cut).",
        ),
    ]
