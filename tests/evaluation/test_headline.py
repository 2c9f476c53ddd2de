"""The outcome of an evaluation in one sentence and in three numbers."""

from dataclasses import replace

import numpy as np
import pytest
from made_up import FLAT, SPREAD, made_up

from geneae.evaluation.headline import headline, main_numbers
from geneae.evaluation.reconstruction import verdict


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (0.01 + SPREAD, "The model beats shrunken PCA by 0.0100 and covers 50 % of the way"),
        (-0.01 + SPREAD, "The model is worse than shrunken PCA by 0.0100 and covers 50 % of the way"),
        (0.0003 + SPREAD, "The model cannot be distinguished from shrunken PCA and covers 50 % of the way"),
        (FLAT + 1e-9, "The model is as good as shrunken PCA and covers 50 % of the way"),
    ],
)
def test_the_headline_is_short_and_begins_the_verdict(difference: np.ndarray, said: str) -> None:
    found = made_up({"mean_profile": FLAT + 0.2, "pca": FLAT + 0.1, "shrunken_pca": difference})
    line = headline(found, "test")
    assert line == f"{said} from the mean profile to the noise ceiling."
    assert len(line.split()) <= 25
    assert verdict(found, "test").startswith(f"{line} On 100 test profiles")


def test_the_headline_of_a_model_below_the_mean_profile_and_of_one_without_counts() -> None:
    worse = made_up({"mean_profile": -0.1 + SPREAD, "shrunken_pca": -0.15 + SPREAD})
    assert headline(worse, "test") == "The model is worse than shrunken PCA by 0.1500, and is below the mean profile."
    found = made_up({"mean_profile": FLAT + 0.2, "pca": 0.01 + SPREAD}, "centred_cosine")
    assert headline(found, "test") == (
        "The model beats PCA by 0.0100 by centred cosine with its own input, which also rewards copying noise."
    )


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (-0.01 + SPREAD, "is below"),
        (-0.0003 + SPREAD, "cannot be distinguished from"),
        (FLAT - 1e-9, "is as good as"),
    ],
)
def test_a_model_is_below_the_mean_profile_only_where_the_profiles_show_it(difference: np.ndarray, words: str) -> None:
    found = made_up({"mean_profile": difference, "shrunken_pca": FLAT + 0.01})
    assert headline(found, "test") == f"The model beats shrunken PCA by 0.0100, and {words} the mean profile."
    trivial = 0.7 - difference.mean()
    standing = f"Its 0.7000 {words} the mean profile ({trivial:.4f}); the noise ceiling is 0.9000."
    assert standing in verdict(found, "test")


def test_profiles_that_are_all_the_mean_profile_judge_no_model() -> None:
    found = made_up({"mean_profile": FLAT, "pca": FLAT}, "centred_cosine")
    found.profiles["cosine"], found.profiles["centred_cosine"] = 1.0, np.nan
    said = "The model cannot be judged: no test profile differs from the mean profile."
    assert (headline(found, "test"), verdict(found, "test"), main_numbers(found, "test")) == (said, said, "")


def test_without_a_noise_ceiling_nothing_is_said_of_the_way_to_it() -> None:
    found = made_up({"mean_profile": FLAT + 0.2, "shrunken_pca": 0.01 + SPREAD})
    without = replace(found, metrics=found.metrics[~found.metrics["metric"].isin(["ceiling", "skill"])])
    assert headline(without, "test") == (
        "The model beats shrunken PCA by 0.0100; these data have no noise ceiling to measure it by."
    )


def test_the_numbers_are_those_of_the_table() -> None:
    found = made_up({"mean_profile": FLAT + 0.2, "pca": FLAT + 0.1, "shrunken_pca": FLAT + 0.05})
    assert main_numbers(found, "test") == (
        "Held-out cosine on 100 profiles (test): model 0.7000, shrunken PCA 0.6500, noise ceiling 0.9000"
    )
    without = made_up({"mean_profile": FLAT + 0.2, "pca": FLAT + 0.1}, "centred_cosine")
    without.profiles["cosine"] = 0.5
    assert main_numbers(without, "test") == (
        "Centred cosine on 100 profiles (test): model 0.7000, PCA 0.6000, mean profile 0.5000"
    )
