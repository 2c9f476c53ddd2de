"""Steps of a model with an estimator: what each brings in held-out cosine, and what is copied from own counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from geneae.evaluation.judge import ModelFacts
from geneae.evaluation.predictors import (
    LATENT_ONLY,
    OWN_COUNT,
    WHITENED,
    WITH_NEIGHBOURS,
    WITH_NETWORK,
    WITH_OWN_COUNTS,
)
from geneae.evaluation.records import (
    HELD_OUT,
    Evaluation,
    outcome,
    paired_difference,
    signed,
    value,
    with_interval,
)
from geneae.settings.families import LOSS_NAMES
from geneae.settings.loss_terms import loss_terms

LINEAR = "linear"
"""The start of all steps, which is always used."""
OWN_LOSS = "loss"
"""Name in `config.json` of the last step, which trains the correction of entries with the loss of the fit."""
GAIN, GAIN_ERROR = "step_gain", "step_gain_error"
"""Metrics of a step: mean gain over the step before it, profile by profile, and its standard error."""


@dataclass(frozen=True)
class Stage:
    """A model as far as one of its steps."""

    model: str
    """Name in the column `model` of tables."""
    title: str
    """Step in words."""


STAGES: dict[str, Stage] = {
    LINEAR: Stage(WHITENED, "whitened linear"),
    "network": Stage(WITH_NETWORK, "network"),
    "neighbours": Stage(WITH_NEIGHBOURS, "neighbours"),
    "calibration": Stage(LATENT_ONLY, "calibration"),
    "own_counts": Stage(WITH_OWN_COUNTS, "own counts"),
    "entries": Stage("model", "entries"),
}
"""Stages by name of the step, in their order."""
OF_STEPS: dict[str, ModelFacts] = {
    LATENT_ONLY: ModelFacts("from the latent alone"),
    WHITENED: ModelFacts("whitened linear", is_sized=True),
    OWN_COUNT: ModelFacts("own counts and mean profile"),
    WITH_NETWORK: ModelFacts("steps up to the network", is_step=True),
    WITH_NEIGHBOURS: ModelFacts("steps up to neighbours", is_step=True),
    WITH_OWN_COUNTS: ModelFacts("steps up to own counts", is_step=True),
}
"""Facts about parts of a model with an estimator, and about what it is compared with."""


def kept_steps(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names in `STAGES` of the steps that a model uses.

    The network is used wherever an epoch was better than the start, even if its gain is small; own counts are used
    wherever entries are, which build on them.

    Parameters
    ----------
    steps
        Entry `steps` of `config.json`.
    """
    known = {str(step["name"]): bool(step["is_kept"]) for step in steps}
    used = {LINEAR, "network" if "network" in known else LINEAR, *(name for name, is_kept in known.items() if is_kept)}
    if "entries" in used:
        used.add("own_counts")
    return [name for name in STAGES if name in used]


def step_gains(profiles: pd.DataFrame, split: str) -> dict[str, tuple[float, float, int]]:
    """Mean gain of each step in held-out cosine over the step before it, standard error and number of profiles.

    By model of `STAGES`; the first one is compared with the mean profile. Empty for a model without an estimator.

    Parameters
    ----------
    profiles
        One row per profile and model.
    split
        Split of the profiles.
    """
    found = {}
    if WHITENED in set(profiles["model"]):
        before = "mean_profile"
        for stage in STAGES.values():
            gain, error, differences = paired_difference(profiles, stage.model, before, split, HELD_OUT)
            if len(differences):
                found[stage.model] = gain, error, len(differences)
            before = stage.model
    return found


def step_sentences(evaluation: Evaluation, split: str) -> list[str]:
    """What each step brought, what the latent alone predicts, and what copying reaches, in a sentence each; none for a
    model without an estimator."""
    metrics = evaluation.metrics
    reached = {name: value(metrics, name, split, HELD_OUT) for name in ("model", *OF_STEPS)}
    if np.isnan(reached[WHITENED]):
        return []
    difference, error, _ = paired_difference(evaluation.profiles, LATENT_ONLY, "shrunken_pca", split, HELD_OUT)
    later = [stage for name, stage in STAGES.items() if name != LINEAR]
    gains = ", ".join(f"{stage.title} {signed(value(metrics, stage.model, split, GAIN))}" for stage in later)
    return [
        f"Step by step: {STAGES[LINEAR].title} {reached[WHITENED]:.4f}, {gains}.",
        f"From the latent alone it reaches {reached[LATENT_ONLY]:.4f}, which {outcome(difference, error)} shrunken PCA "
        f"({with_interval(difference, error)}); a profile's own count of each gene brings the other "
        f"{signed(reached['model'] - reached[LATENT_ONLY])}.",
        f"Own counts around the mean profile, which is nothing but copying, reach {reached[OWN_COUNT]:.4f}.",
    ]


def loss_of_steps(config: Mapping[str, Any]) -> str:
    """The loss by which the steps of a fit were chosen, in words, see `geneae.fitting.steps.plain_loss`.

    Parameters
    ----------
    config
        Content of `config.json`.
    """
    name = str(config["settings"]["loss"])
    if config.get("metric") is not None:
        return "the loss cosine (without the learned metric, under which the network was trained)"
    return f"the loss {name}" if {term for _, term in loss_terms(name)} <= set(LOSS_NAMES) else "the loss cosine"


def steps_sentence(steps: Sequence[Mapping[str, Any]], loss: str = "the loss") -> str:
    """Sentence on the steps that are used, by how much they lowered the loss of validation profiles, and on those left
    out; empty without steps.

    Parameters
    ----------
    steps
        Entry `steps` of `config.json`.
    loss
        The loss in which they are measured, in words.
    """
    if not steps:
        return ""
    used = kept_steps(steps)
    by_name = {str(step["name"]): step for step in steps}
    if by_name.get(OWN_LOSS, {}).get("is_kept"):
        used.append(OWN_LOSS)
    titles = {name: stage.title for name, stage in STAGES.items() if name != LINEAR}
    titles |= {OWN_LOSS: "entries trained with the loss of the fit"} if OWN_LOSS in by_name else {}
    if "entries" in used and not by_name["own_counts"]["is_kept"]:  # own counts were tried again, with entries on them
        used.remove("own_counts")
        titles = {name: title for name, title in titles.items() if name != "own_counts"}
        titles["entries"] = "own counts and entries together"
    gains = ", ".join(f"{titles[name]} {by_name[name]['gain']:.2g}" for name in used if name != LINEAR)
    left_out = ", ".join(title for name, title in titles.items() if name not in used)
    said = f"Steps, with the decrease of {loss} of validation profiles: {gains or 'none'}"
    return f"{said}; left out: {left_out}." if left_out else f"{said}."
