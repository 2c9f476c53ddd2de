"""What each step of an estimator brings, as numbers and in words."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from geneae import Autoencoder
from geneae.evaluation.reconstruction import BY_PROFILE, summarize
from geneae.evaluation.records import CLEAR, HELD_OUT, Evaluation, value
from geneae.evaluation.steps import (
    GAIN,
    GAIN_ERROR,
    OF_STEPS,
    STAGES,
    kept_steps,
    step_gains,
    step_sentences,
    steps_sentence,
)
from geneae.evaluation.table import short_table

SHIFTS = {
    "mean_profile": 0.0,
    "shrunken_pca": 0.07,
    "own_count": 0.03,
    "whitened": 0.1,
    "step_network": 0.1,
    "step_neighbours": 0.101,
    "model_latent_only": 0.102,
    "step_own_counts": 0.11,
    "model": 0.13,
}
"""Means over the mean profile."""
STAGE_MODELS = "whitened", "step_network", "step_neighbours", "model_latent_only", "step_own_counts", "model"
GAINS = [0.1, 0.0, 0.001, 0.001, 0.008, 0.02]


def made_up(names: list[str] | None = None) -> pd.DataFrame:
    """Numbers by profile, of fifty test profiles and of others that lie elsewhere."""
    rng = np.random.default_rng(0)
    base, noise = np.linspace(0.5, 0.7, 50), rng.normal(0, 0.001, 50)
    nothing = dict.fromkeys(BY_PROFILE, np.nan)
    tables = [
        pd.DataFrame({"model": name, "profile": range(50), "split": split, **nothing, HELD_OUT: values})
        for number, name in enumerate(names or SHIFTS)
        for split, values in (("test", base + SHIFTS[name] + number * (noise - noise.mean())), ("validation", base))
    ]
    return pd.concat(tables, ignore_index=True)


def test_gains_are_paired_differences_from_the_step_before() -> None:
    profiles = made_up()
    found = step_gains(profiles, "test")
    assert list(found) == list(STAGE_MODELS)
    np.testing.assert_allclose([gain for gain, _, _ in found.values()], GAINS, atol=1e-12)
    test = profiles[profiles["split"] == "test"].pivot_table(HELD_OUT, "profile", "model")
    difference = test["model"] - test["step_own_counts"]
    assert found["model"][1:] == (pytest.approx(difference.std(ddof=1) / np.sqrt(50)), 50)
    assert step_gains(made_up(["mean_profile", "model"]), "test") == {}
    nothing = profiles.assign(**{HELD_OUT: np.nan})
    assert step_gains(nothing, "test") == {}


def test_gains_are_in_the_long_table_and_their_steps_not_in_the_short_one() -> None:
    profiles = made_up()
    metrics = summarize(profiles, np.full(100, 0.81), np.repeat(["test", "validation"], 50), 0)
    assert value(metrics, "step_own_counts", "test", GAIN) == pytest.approx(0.008)
    assert value(metrics, "step_own_counts", "test", GAIN_ERROR) == step_gains(profiles, "test")["step_own_counts"][1]
    titles = [row[0] for row in short_table(metrics, ["test"], [HELD_OUT])]
    assert titles == ["", "model", "from the latent alone", "whitened linear", "own counts and mean profile",
                      "shrunken PCA", "mean profile", "noise ceiling"]  # fmt: skip
    assert {name for name, facts in OF_STEPS.items() if facts.is_step} == {
        "step_network",
        "step_neighbours",
        "step_own_counts",
    }


def evaluation_of(profiles: pd.DataFrame) -> Evaluation:
    metrics = summarize(profiles, np.full(100, 0.81), np.repeat(["test", "validation"], 50), 0)
    return Evaluation(profiles, metrics, {})


def test_sentences_say_what_steps_bring_and_what_is_copied() -> None:
    profiles = made_up()
    test = profiles[profiles["split"] == "test"].pivot_table(HELD_OUT, "profile", "model")
    error = (test["model_latent_only"] - test["shrunken_pca"]).std(ddof=1) / np.sqrt(50)
    assert step_sentences(evaluation_of(profiles), "test") == [
        "Step by step: whitened linear 0.7000, network 0.0000, neighbours +0.0010, calibration +0.0010, own "
        "counts +0.0080, entries +0.0200.",
        f"From the latent alone it reaches 0.7020, which beats shrunken PCA (+0.0320 ± {CLEAR * error:.4f}); a "
        "profile's own count of each gene brings the other +0.0280.",
        "Own counts around the mean profile, which is nothing but copying, reach 0.6300.",
    ]
    assert step_sentences(evaluation_of(made_up(["mean_profile", "model"])), "test") == []
    equal = profiles.assign(model=profiles["model"].replace({"shrunken_pca": "other"}))
    again = equal[equal["model"] == "model_latent_only"].assign(model="shrunken_pca")
    said = step_sentences(evaluation_of(pd.concat([equal, again])), "test")[1]
    assert "which is as good as shrunken PCA (0.0000 ± 0.0000)" in said


def step(name: str, is_kept: bool, gain: float = 0.0012) -> dict[str, Any]:
    return {"name": name, "is_kept": is_kept, "gain": gain, "error": 1e-4}


@pytest.mark.parametrize(
    ("steps", "kept", "said"),
    [
        ([], ["linear"], ""),
        (
            [
                *(step(name, True) for name in ("neighbours", "calibration")),
                step("own_counts", True, 0.0114),
                step("entries", True),
                step("loss", False),
            ],
            ["linear", "neighbours", "calibration", "own_counts", "entries"],
            "Steps, with the decrease of the loss of validation profiles: neighbours 0.0012, calibration 0.0012, own "
            "counts 0.011, entries 0.0012; left out: network, entries trained with the loss of the fit.",
        ),
        (
            [
                step("network", False, 1e-5),
                *(step(name, True) for name in ("neighbours", "calibration", "own_counts", "entries", "loss")),
            ],
            list(STAGES),
            "Steps, with the decrease of the loss of validation profiles: network 1e-05, neighbours 0.0012, "
            "calibration 0.0012, own counts 0.0012, entries 0.0012, entries trained with the loss of the fit 0.0012.",
        ),
        (
            [step("neighbours", False), step("own_counts", False, 1e-4), step("entries", True), step("loss", False)],
            ["linear", "own_counts", "entries"],
            "Steps, with the decrease of the loss of validation profiles: own counts and entries together 0.0012; left "
            "out: network, neighbours, calibration, entries trained with the loss of the fit.",
        ),
        (
            [step("neighbours", False), step("own_counts", False)],
            ["linear"],
            "Steps, with the decrease of the loss of validation profiles: none; left out: network, neighbours, "
            "calibration, own counts, entries.",
        ),
    ],
)
def test_steps_are_said_with_their_gains_or_as_left_out(
    steps: list[dict[str, Any]], kept: list[str], said: str
) -> None:
    assert kept_steps(steps) == kept
    assert steps_sentence(steps) == said


def test_a_step_that_was_left_out_brings_nothing(fitted: Autoencoder) -> None:
    metrics, kept = fitted.evaluation_.metrics, kept_steps(fitted.model_.config["steps"])
    gains = {name: value(metrics, stage.model, "test", GAIN) for name, stage in STAGES.items()}
    for name, gain in gains.items():
        assert name in kept or abs(gain) < 1e-6, name
    total = value(metrics, "model", "test", HELD_OUT) - value(metrics, "mean_profile", "test", HELD_OUT)
    assert sum(gains.values()) == pytest.approx(total, abs=1e-9)
    assert CLEAR * value(metrics, "whitened", "test", GAIN_ERROR) > 0
    assert step_sentences(fitted.evaluation_, "test")[0] in fitted.conclusion_
