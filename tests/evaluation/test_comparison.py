"""Paired differences: known answers, corrections, plain words."""

import re

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from geneae.evaluation.bootstrap import bootstrap_interval
from geneae.evaluation.comparison import (
    BETTER,
    COMPARED,
    NONE,
    UNDEFINED,
    WORSE,
    Configuration,
    answer,
    compare_configurations,
    guard_sentence,
    holm,
    seed_sentence,
    seed_table,
)

N_PROFILES, SEEDS = 200, (0, 1, 2)


def arm(name: str, loss: str = "mse", gain: float = 0.0, noise: float = 0.01, held_out: bool = True) -> Configuration:
    """Profiles of three seeds; every metric moves by `gain` in its good direction, give or take `noise`."""
    rng = np.random.default_rng(len(name))
    base = np.random.default_rng(0).uniform(0.3, 0.8, (N_PROFILES, len(COMPARED)))
    sign = np.array([1 if facts.better == "higher" else -1 for facts in COMPARED.values()])
    tables = {}
    for seed in SEEDS:
        table = pd.DataFrame(base + gain * sign + noise * rng.standard_normal(base.shape), columns=list(COMPARED))
        table.index = pd.Index([f"p{i}" for i in range(N_PROFILES)], name="profile")
        if not held_out:
            table["heldout_cosine"] = np.nan
        tables[seed] = table
    return Configuration(name, loss, tables)


def verdicts(table: pd.DataFrame, name: str) -> set[str]:
    return set(table.loc[table["arm"] == name, "verdict"])


def test_a_clear_gain_is_better_a_loss_worse_and_noise_no_difference() -> None:
    arms = [arm("reference"), arm("up", gain=0.02), arm("down", gain=-0.02), arm("other")]
    table = compare_configurations(arms, "test")
    assert verdicts(table, "up") == {BETTER}
    assert verdicts(table, "down") == {WORSE}
    assert verdicts(table, "other") == {NONE}
    assert (table["reference"] == "reference").all()
    assert (table["n_profiles"] == N_PROFILES).all()
    assert (table["n_seeds"] == len(SEEDS)).all()


def test_difference_and_interval_are_those_of_the_means() -> None:
    first, second = arm("reference"), arm("up", gain=0.02)
    row = compare_configurations([first, second], "test").set_index("metric").loc["cosine"]
    differences = np.array([second.profiles[s]["cosine"] - first.profiles[s]["cosine"] for s in SEEDS])
    assert row["difference"] == pytest.approx(differences.mean(), abs=1e-12)
    error = differences.mean(0).std(ddof=1) / np.sqrt(N_PROFILES)
    assert row["low"] < row["difference"] < row["high"]
    assert 0.9 < (row["high"] - row["low"]) / (2 * 1.96 * error) < 2.5  # wider: seeds are drawn again too


def test_an_arm_does_not_differ_from_its_copy() -> None:
    first = arm("reference")
    table = compare_configurations([first, Configuration("copy", "mse", first.profiles)], "test")
    assert (table["difference"] == 0).all()
    assert (table["p"] == 1).all()
    assert verdicts(table, "copy") == {NONE}


def test_the_same_table_every_time() -> None:
    arms = [arm("reference"), arm("up", gain=0.001)]
    pd.testing.assert_frame_equal(compare_configurations(arms, "test"), compare_configurations(arms, "test"))


def test_spread_over_seeds_widens_the_interval() -> None:
    steady, shaky = arm("steady", gain=0.01), arm("steady", gain=0.01)
    shaky = Configuration("shaky", "mse", {s: table + (s - 1) * 0.02 for s, table in shaky.profiles.items()})
    table = compare_configurations([arm("reference"), steady, shaky], "test")
    width = (table["high"] - table["low"]).groupby(table["arm"]).mean()
    assert width["shaky"] > 3 * width["steady"]


def test_raw_errors_of_scale_free_arms_are_not_compared() -> None:
    table = compare_configurations([arm("mse"), arm("cosine", loss="cosine", gain=0.02)], "test").set_index("metric")
    assert set(table.index[table["verdict"] == UNDEFINED]) == {
        "mse",
        "relative_mse",
        "direction_error",
        "magnitude_error",
        "heldout_mse",
    }
    assert table.loc["rescaled_mse", "verdict"] == BETTER
    assert np.isnan(table.loc["mse", "p_holm"])


def test_rescaled_errors_of_arms_centred_otherwise_are_not_compared() -> None:
    first, second = arm("mse"), arm("pearson", loss="pearson", gain=0.02)
    second = Configuration(second.name, second.loss, second.profiles, center="profile")
    table = compare_configurations([first, second], "test").set_index("metric")
    assert table.loc["rescaled_mse", "verdict"] == UNDEFINED
    assert table.loc["cosine", "verdict"] == BETTER


def test_holm_agrees_with_statsmodels() -> None:
    p = np.random.default_rng(0).uniform(0, 0.1, 12)
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], atol=1e-12)


def test_holm_leaves_out_what_is_unknown() -> None:
    corrected = holm(np.array([0.01, np.nan, 0.04]))
    np.testing.assert_allclose(corrected, [0.02, np.nan, 0.04])
    assert np.isnan(holm(np.array([np.nan]))).all()


def test_a_difference_below_the_last_digit_is_none_however_certain() -> None:
    table = compare_configurations([arm("reference", noise=0), arm("up", gain=4e-5, noise=1e-7)], "test").set_index(
        "metric"
    )
    assert (table["p_holm"] < 0.001).all()
    assert (table.loc[["cosine", "centred_cosine", "heldout_cosine"], "verdict"] == NONE).all()
    assert (table.loc[["mse", "rescaled_mse"], "verdict"] == NONE).all()  # 4e-5 of 0.55 is less than 1e-4 of it
    table = compare_configurations([arm("reference", noise=0), arm("up", gain=6e-5, noise=1e-7)], "test").set_index(
        "metric"
    )
    assert (table["verdict"] == BETTER).all()
    small = [
        Configuration(a.name, a.loss, {s: t / 1000 for s, t in a.profiles.items()})
        for a in (arm("a"), arm("up", gain=0.02))
    ]
    found = compare_configurations(small, "test").set_index("metric")["verdict"]
    assert (found["cosine"], found["mse"]) == (NONE, BETTER)  # errors have no scale of their own


def test_intervals_hold_as_often_as_they_say_for_few_seeds_that_differ() -> None:
    """100 worlds of three seeds without a difference: 95 % of the intervals, give or take, hold the zero."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        of_seed, of_profile = rng.normal(0, 0.01, (3, 1)), rng.normal(0, 0.05, (1, 100))
        _, low, high, p = bootstrap_interval(of_seed + of_profile + rng.normal(0, 0.02, (3, 100)), seed=0)
        held += low < 0 < high
        assert (p < 0.05) == (not low < 0 < high) or 0.02 < p < 0.1  # both say the same
    assert held >= 90


def metrics_of(*arms: str) -> pd.DataFrame:
    """Means of arms and their baselines."""
    rows = [
        (name, model, "test", metric, "mean", value)
        for name in arms
        for model, metric, value in (
            ("model", "heldout_cosine", 0.7), ("model", "centred_cosine", 0.6), ("mean_profile", "heldout_cosine", 0.5),
            ("mean_profile", "centred_cosine", 0.0), ("pca", "centred_cosine", 0.55), ("model", "ceiling", 0.8),
        )
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["arm", "model", "split", "metric", "statistic", "value"])


def test_the_answer_names_every_arm_once_under_its_verdict() -> None:
    arms = [arm("reference"), arm("up", gain=0.02), arm("down", gain=-0.02)]
    said = answer(compare_configurations(arms, "test"), metrics_of("reference"))
    assert said.startswith("By held-out cosine on 200 test profiles and 3 seeds, against reference: better: up (+0.0")
    assert "; worse: down (-0.0" in said
    assert said.endswith(" The reference reference has 0.7000 (mean profile 0.5000, noise ceiling 0.8000).")
    first = arms[0]
    same = answer(
        compare_configurations([first, Configuration("copy", "mse", first.profiles)], "test"), metrics_of("reference")
    )
    assert f"{NONE}: copy (0.0000)" in same


def test_without_counts_the_answer_reads_the_centred_cosine() -> None:
    table = compare_configurations([arm("a", held_out=False), arm("up", gain=0.02, held_out=False)], "test")
    assert "heldout_cosine" not in set(table["metric"])
    said = answer(table, metrics_of("a").query("metric == 'centred_cosine'"))
    assert said.startswith("By own-input centred cosine (no counts")
    assert said.endswith("The reference a has 0.6000 (mean profile 0.0000, PCA of the same size 0.5500).")


def test_the_answer_has_two_sentences() -> None:
    arms = [arm("mse"), arm("cosine", loss="cosine", gain=0.02), arm("pearson", loss="pearson", gain=-0.02)]
    alone = [Configuration(a.name, a.loss, {0: a.profiles[0]}) for a in arms]
    for several in (arms, alone):
        table = compare_configurations(several, "test")
        assert (table["verdict"] == UNDEFINED).any()
        assert len(re.findall(r"\.(?: |$)", answer(table, metrics_of("mse")))) == 2


def test_one_seed_is_called_one_seed() -> None:
    arms = [arm("reference"), arm("up", gain=0.02)]
    alone = [Configuration(a.name, a.loss, {0: a.profiles[0]}) for a in arms]
    said = answer(compare_configurations(alone, "test"), metrics_of("reference"))
    assert "one seed, which says nothing about the spread between seeds" in said


def seed_metrics(skills: dict[str, list[float]], cosines: dict[str, list[float]] | None = None) -> pd.DataFrame:
    rows = []
    for arm_name, values in skills.items():
        for seed, skill in enumerate(values):
            cosine = skill if cosines is None else cosines[arm_name][seed]
            rows += [(arm_name, seed, "model", "skill", skill), (arm_name, seed, "model", "cosine", cosine)]
            rows.append((arm_name, seed, "mean_profile", "cosine", 0.6))
    table = pd.DataFrame(rows, columns=["arm", "seed", "model", "metric", "value"])
    return table.assign(split="test", statistic="mean")


def test_an_arm_that_fails_with_a_seed_or_varies_much_is_said() -> None:
    table = seed_table(
        seed_metrics({"good": [0.6, 0.62, 0.61], "luck": [0.6, 0.0, 0.6], "wide": [0.2, 0.6, 0.9]}), "test"
    )
    assert list(table["arm"]) == ["good", "luck", "wide"]
    assert list(table["fires"]) == [False, True, True]
    assert list(table["success_rate"]) == pytest.approx([1, 2 / 3, 1])
    assert table["deviation"][0] == pytest.approx(0.01)
    said = seed_sentence(table)
    assert "luck succeeds with 2 of 3 seeds (skill 0.00 to 0.60)" in said
    assert "good" not in said
    assert "The result depends on the seed: luck" in said
    assert said.endswith("for a ranking loss use --negatives mean or --loss softmax.")
    assert seed_sentence(table[:1]) == ""
    assert seed_sentence(seed_table(seed_metrics({"one": [0.0]}), "test")) == ""


def test_an_arm_that_fails_with_every_seed_does_not_depend_on_it() -> None:
    said = seed_sentence(seed_table(seed_metrics({"good": [0.6, 0.6], "bad": [-4.8, -4.7]}), "test"))
    assert said == (
        " No seed clearly beats the mean profile: bad (skill -4.80 to -4.70). Prefer another configuration."
    )


def test_without_counts_success_is_a_share_of_the_way_from_the_mean_profile() -> None:
    nothing = {"a": [float("nan")] * 2}
    table = seed_table(seed_metrics(nothing, {"a": [0.8, 0.61]}), "test")
    assert table["metric"][0] == "gain_over_mean_profile"
    assert (table["least"][0], table["most"][0]) == (pytest.approx(0.025), pytest.approx(0.5))
    assert table["success_rate"][0] == 0.5


def test_labels_and_halves_are_counted_where_both_are_clear() -> None:
    def table(**verdicts: tuple[str, str]) -> pd.DataFrame:
        rows = [
            (arm, metric, verdict)
            for arm, pair in verdicts.items()
            for metric, verdict in zip(("knn_20", "other_half_rank"), pair, strict=True)
        ]
        return pd.DataFrame(rows, columns=["arm", "metric", "verdict"])

    found = table(a=(BETTER, BETTER), b=(WORSE, BETTER), c=(NONE, WORSE), d=(WORSE, WORSE))
    assert guard_sentence(found) == (
        " Where labels and the agreement of halves (rank of the other half) are both clear, they agree on 2 of 3 "
        "configurations."
    )
    assert guard_sentence(table(a=(NONE, BETTER))).endswith(" are both clear about no configuration.")
    assert guard_sentence(found[found["metric"] == "knn_20"]) == ""
