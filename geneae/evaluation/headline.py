"""The outcome of an evaluation in one sentence and in three numbers."""

import numpy as np

from geneae.evaluation.records import HELD_OUT, WITHOUT_COUNTS, Evaluation, outcome, paired_difference, value
from geneae.models.baselines import BASELINES
from geneae.settings.text import counted

NO_CEILING = (
    "There is no noise ceiling: a baseline reaches more than Poisson noise would allow, so that these counts are not "
    "molecules drawn at random, but for example 0 and 1, averages, or profiles that repeat."
)
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
    difference, error, differences = paired_difference(evaluation.profiles, "model", rival, split, metric)
    if not len(differences):
        return f"The model cannot be judged: no {split} profile differs from the mean profile."
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
        difference, error, _ = paired_difference(evaluation.profiles, "model", "mean_profile", split, metric)
        return f"{said}, and {_below_or_equal(difference, error)} the mean profile."
    return f"{said} and covers {100 * skill:.0f} % of the way from the mean profile to the noise ceiling."


def _below_or_equal(difference: float, error: float) -> str:
    """Words for a model whose mean is below that of the mean profile, by a paired difference with this error."""
    words = outcome(difference, error)
    return "is below" if words == "is worse than" else words


def main_numbers(evaluation: Evaluation, split: str) -> str:
    """The three numbers that matter on a split, in one line; empty for an encoder without a reconstruction, and where
    no profile differs from the mean."""
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
    if not n_profiles:
        return ""
    numbers = ", ".join(f"{title} {number:.4f}" for title, number in found.items() if not np.isnan(number))
    name = "Held-out cosine" if has_counts else "Centred cosine"
    return f"{name} on {counted(n_profiles, 'profile')} ({split}): {numbers}"


def standing(evaluation: Evaluation, split: str) -> str:
    """Sentence that places the model between mean profile and noise ceiling."""
    metrics = evaluation.metrics
    trivial, reached = (value(metrics, name, split, HELD_OUT) for name in ("mean_profile", "model"))
    ceiling, skill = (value(metrics, "model", split, name) for name in ("ceiling", "skill"))
    if np.isnan(ceiling):
        return f"The mean profile reaches {trivial:.4f}. {NO_CEILING}"
    if np.isnan(skill):
        return f"The mean profile reaches {trivial:.4f}, the noise ceiling is {ceiling:.4f}: there is nothing to gain."
    ends = f"the mean profile ({trivial:.4f}) to the noise ceiling ({ceiling:.4f})"
    if skill < 0:
        difference, error, _ = paired_difference(evaluation.profiles, "model", "mean_profile", split, HELD_OUT)
        words = _below_or_equal(difference, error)
        return f"Its {reached:.4f} {words} the mean profile ({trivial:.4f}); the noise ceiling is {ceiling:.4f}."
    if skill > 1:
        return f"Its {reached:.4f} is above the noise ceiling ({ceiling:.4f}); the mean profile reaches {trivial:.4f}."
    return f"Its {reached:.4f} is {100 * skill:.0f} % of the way from {ends}."
