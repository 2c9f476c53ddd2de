"""Paired differences: known answers, corrections, plain words."""

import re

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from geneae.comparison import BETTER, COMPARED, SAME, UNDEFINED, WORSE, Arm, answer, compare_arms, holm

N_PROFILES, SEEDS = 200, (0, 1, 2)


def arm(name: str, loss: str = "mse", gain: float = 0.0, noise: float = 0.01, held_out: bool = True) -> Arm:
    """Profiles of three seeds; every metric moves by `gain` in its good direction, give or take `noise`."""
    rng = np.random.default_rng(len(name))
    base = np.random.default_rng(0).uniform(0.3, 0.8, (N_PROFILES, len(COMPARED)))
    sign = np.array([1 if name in ("cosine", "centred_cosine", "heldout_cosine") else -1 for name in COMPARED])
    tables = {}
    for seed in SEEDS:
        table = pd.DataFrame(base + gain * sign + noise * rng.standard_normal(base.shape), columns=list(COMPARED))
        table.index = pd.Index([f"p{i}" for i in range(N_PROFILES)], name="profile")
        if not held_out:
            table["heldout_cosine"] = np.nan
        tables[seed] = table
    return Arm(name, loss, tables)


def verdicts(table: pd.DataFrame, name: str) -> set[str]:
    return set(table.loc[table["arm"] == name, "verdict"])


def test_a_clear_gain_is_better_a_loss_worse_and_noise_no_difference() -> None:
    arms = [arm("reference"), arm("up", gain=0.02), arm("down", gain=-0.02), arm("other")]
    table = compare_arms(arms, "test")
    assert verdicts(table, "up") == {BETTER}
    assert verdicts(table, "down") == {WORSE}
    assert verdicts(table, "other") == {SAME}
    assert (table["reference"] == "reference").all()
    assert (table["n_profiles"] == N_PROFILES).all()
    assert (table["n_seeds"] == len(SEEDS)).all()


def test_difference_and_interval_are_those_of_the_means() -> None:
    first, second = arm("reference"), arm("up", gain=0.02)
    row = compare_arms([first, second], "test").set_index("metric").loc["cosine"]
    differences = np.array([second.profiles[s]["cosine"] - first.profiles[s]["cosine"] for s in SEEDS])
    assert row["difference"] == pytest.approx(differences.mean(), abs=1e-12)
    error = differences.mean(0).std(ddof=1) / np.sqrt(N_PROFILES)
    assert row["low"] < row["difference"] < row["high"]
    assert 0.9 < (row["high"] - row["low"]) / (2 * 1.96 * error) < 2.5  # wider: seeds are drawn again too


def test_an_arm_does_not_differ_from_its_copy() -> None:
    first = arm("reference")
    table = compare_arms([first, Arm("copy", "mse", first.profiles)], "test")
    assert (table["difference"] == 0).all()
    assert (table["p"] == 1).all()
    assert verdicts(table, "copy") == {SAME}


def test_the_same_table_every_time() -> None:
    arms = [arm("reference"), arm("up", gain=0.001)]
    pd.testing.assert_frame_equal(compare_arms(arms, "test"), compare_arms(arms, "test"))


def test_spread_over_seeds_widens_the_interval() -> None:
    steady, shaky = arm("steady", gain=0.01), arm("steady", gain=0.01)
    shaky = Arm("shaky", "mse", {s: table + (s - 1) * 0.02 for s, table in shaky.profiles.items()})
    table = compare_arms([arm("reference"), steady, shaky], "test")
    width = (table["high"] - table["low"]).groupby(table["arm"]).mean()
    assert width["shaky"] > 3 * width["steady"]


def test_raw_errors_of_scale_free_arms_are_not_compared() -> None:
    table = compare_arms([arm("mse"), arm("cosine", loss="cosine", gain=0.02)], "test").set_index("metric")
    assert set(table.index[table["verdict"] == UNDEFINED]) == {
        "mse",
        "relative_mse",
        "direction_error",
        "magnitude_error",
    }
    assert table.loc["rescaled_mse", "verdict"] == BETTER
    assert np.isnan(table.loc["mse", "p_holm"])


def test_rescaled_errors_of_arms_centred_otherwise_are_not_compared() -> None:
    first, second = arm("mse"), arm("pearson", loss="pearson", gain=0.02)
    second = Arm(second.name, second.loss, second.profiles, center="profile")
    table = compare_arms([first, second], "test").set_index("metric")
    assert table.loc["rescaled_mse", "verdict"] == UNDEFINED
    assert table.loc["cosine", "verdict"] == BETTER


def test_holm_agrees_with_statsmodels() -> None:
    p = np.random.default_rng(0).uniform(0, 0.1, 12)
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], atol=1e-12)


def test_holm_leaves_out_what_is_unknown() -> None:
    corrected = holm(np.array([0.01, np.nan, 0.04]))
    np.testing.assert_allclose(corrected, [0.02, np.nan, 0.04])
    assert np.isnan(holm(np.array([np.nan]))).all()


def test_the_answer_names_every_arm_once_under_its_verdict() -> None:
    said = answer(compare_arms([arm("reference"), arm("up", gain=0.02), arm("down", gain=-0.02)], "test"))
    assert said.startswith("By held-out cosine on 200 test profiles and 3 seeds, against reference: better: up (+0.0")
    assert "; worse: down (-0.0" in said


def test_without_counts_the_answer_reads_the_own_input_cosine() -> None:
    table = compare_arms([arm("a", held_out=False), arm("up", gain=0.02, held_out=False)], "test")
    assert "heldout_cosine" not in set(table["metric"])
    assert answer(table).startswith("By own-input cosine (no counts")


def test_the_answer_has_two_sentences_at_most() -> None:
    arms = [arm("mse"), arm("cosine", loss="cosine", gain=0.02), arm("pearson", loss="pearson", gain=-0.02)]
    alone = [Arm(a.name, a.loss, {0: a.profiles[0]}) for a in arms]
    for several, expected in ((arms, 1), (alone, 2)):
        table = compare_arms(several, "test")
        assert (table["verdict"] == UNDEFINED).any()
        assert len(re.findall(r"\.(?: |$)", answer(table))) == expected


def test_one_seed_is_called_one_seed() -> None:
    arms = [arm("reference"), arm("up", gain=0.02)]
    alone = [Arm(a.name, a.loss, {0: a.profiles[0]}) for a in arms]
    assert "One seed says nothing about the spread" in answer(compare_arms(alone, "test"))
