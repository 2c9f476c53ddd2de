"""The outcome of an evaluation in one sentence and in three numbers."""

import numpy as np

from geneae.evaluation.records import HELD_OUT, WITHOUT_COUNTS, Evaluation, outcome, paired_difference, value
from geneae.models.baselines import BASELINES
from geneae.settings.text import counted

BY_HOW_MUCH = ("beats", "is worse than")
"""Outcomes that are told with their size."""


def headline(evaluation: Evaluation, split: str) -> str:
    """The verdict on a split in at most 25 words: beside the strongest baseline, shrunken PCA for counts, else PCA."""
    metrics = evaluation.metrics
    has_counts = not np.isnan(value(metrics, "model", split, HELD_OUT))
    metric, there = HELD_OUT if has_counts else WITHOUT_COUNTS, set(metrics["model"])
    rival = next(
        name for name in reversed(BASELINES) if name in there and (has_counts or not BASELINES[name].needs_counts)
    )
    title = BASELINES[rival].title if BASELINES[rival].is_sized else f"the {BASELINES[rival].title}"
    difference, error, _ = paired_difference(evaluation.profiles, "model", rival, split, metric)
    words = outcome(difference, error)
    said = f"The model {words} {title}" + (f" by {abs(difference):.4f}" if words in BY_HOW_MUCH else "")
    if not has_counts:
        return f"{said} by centred cosine with its own input, which also rewards copying noise."
    skill = value(metrics, "model", split, "skill")
    if np.isnan(value(metrics, "model", split, "ceiling")):
        return f"{said}; these data have no noise ceiling to measure it by."
    if np.isnan(skill):
        return f"{said}; between the mean profile and the noise ceiling there is nothing to gain."
    if skill < 0:
        return f"{said}, and is below the mean profile."
    return f"{said} and covers {100 * skill:.0f} % of the way from the mean profile to the noise ceiling."


def main_numbers(evaluation: Evaluation, split: str) -> str:
    """The three numbers that matter on a split, in one line; empty for an encoder without a reconstruction."""
    metrics = evaluation.metrics
    if "cosine" not in evaluation.profiles:
        return ""
    has_counts = not np.isnan(value(metrics, "model", split, HELD_OUT))
    metric = HELD_OUT if has_counts else WITHOUT_COUNTS
    found = {
        "model": value(metrics, "model", split, metric),
        "shrunken PCA": value(metrics, "shrunken_pca", split, metric),
        "PCA": np.nan if has_counts else value(metrics, "pca", split, metric),
        "mean profile": np.nan if has_counts else value(metrics, "mean_profile", split, metric),
        "noise ceiling": value(metrics, "model", split, "ceiling") if has_counts else np.nan,
    }
    n_profiles = len(paired_difference(evaluation.profiles, "model", "mean_profile", split, metric)[2])
    numbers = ", ".join(f"{title} {number:.4f}" for title, number in found.items() if not np.isnan(number))
    name = "Held-out cosine" if has_counts else "Centred cosine"
    return f"{name} on {counted(n_profiles, 'profile')} ({split}): {numbers}"
