"""Batches in latents: what is mixed, what is apart, and the definitions written out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import QUICK, simulate
from scipy import sparse, stats
from sklearn.metrics import pairwise_distances

from geneae.cli.main import main
from geneae.data.preprocess import fit_preprocess
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.evaluation.batches import (
    ALONE_PROVES_NOTHING,
    SHUFFLED,
    Batched,
    batch_silhouette,
    batched,
    bras_by_profile,
    judge_batches,
    lisi_and_kbet,
    mixing_verdict,
    neighbours,
)
from geneae.evaluation.judge import JudgingData
from geneae.evaluation.labels import labelled
from geneae.evaluation.records import value
from geneae.fitting import checks
from geneae.fitting.fit import Fitted, fit
from geneae.report.pictures import Picture
from geneae.settings.errors import InputError
from geneae.settings.settings import Settings

N = 240
SETTINGS = Settings(**QUICK | {"epochs": 1}, device="cpu")
BATCHES = np.random.default_rng(1).integers(2, size=N)
LABELS = np.arange(N) % 3
NOISE = np.random.default_rng(0).normal(size=(N, 6))
KINDS = 30 * np.eye(6)[LABELS] + NOISE
APART = 30 * np.eye(6)[3 * BATCHES + LABELS] + NOISE  # six places: a batch of a label at each


@pytest.fixture(scope="module")
def profiles() -> Profiles:
    return read_profiles(simulate())


@pytest.fixture(scope="module")
def judged(profiles: Profiles) -> Fitted:
    return fit(profiles, replace(SETTINGS, label="kind", batch_key="donor"))


def means(values: np.ndarray, batches: np.ndarray = BATCHES) -> pd.DataFrame:
    """Model x metric on the test profiles, a quarter of all."""
    split = np.where(np.arange(N) % 4 == 0, "test", "train")
    known = Batched(sparse.csr_matrix((N, 3)), batches, LABELS, split, np.arange(N))
    table = judge_batches(known, {"model": values, "raw_input": values}, seed=0)
    assert set(table["n_profiles"]) == {N // 4}
    assert set(table["better"]) == {""}
    return table.pivot_table(index="model", columns="metric", values="value")


@pytest.mark.slow
def test_batches_of_one_distribution_are_mixed_like_shuffled_ones() -> None:
    for values in (NOISE, KINDS):
        found = means(values)
        assert (abs(found.loc["model"] - found.loc[SHUFFLED]) < 0.1).all()
        assert (found.loc["model", ["kbet", "bras"]] > 0.9).all()
        assert found.loc["model", "ilisi"] > 0.8  # a little below 1, as neighbours are few


def test_batches_that_are_apart_are_not_mixed_until_they_are_shuffled() -> None:
    found = means(APART)
    assert found.loc["model", "ilisi"] == pytest.approx(0, abs=1e-3)
    assert found.loc["model", "kbet"] == 0
    assert found.loc["model", "bras"] < 0.1
    assert (found.loc[SHUFFLED] > 0.5).all()
    again = means(APART, np.random.default_rng(0).permutation(BATCHES))
    pd.testing.assert_series_equal(again.loc["model"], found.loc[SHUFFLED], check_names=False)


def test_batches_of_other_kinds_of_profiles_are_apart_but_not_within_a_label() -> None:
    mostly = np.where(np.random.default_rng(0).random(N) < 0.1, 1 - LABELS // 2, LABELS // 2)
    found = means(KINDS, mostly)
    assert (found.loc["model", ["ilisi", "kbet"]] < 0.5 * found.loc[SHUFFLED, ["ilisi", "kbet"]]).all()
    assert found.loc["model", "bras"] > 0.8  # the rarer batch of a label has eight profiles


def slow_lisi(distance: np.ndarray, batches: np.ndarray, perplexity: float) -> float:
    """Of one profile, from distances to its neighbours and their batches."""
    low, high = 0.0, 1e6
    for _ in range(200):
        beta = (low + high) / 2
        weight = np.exp(-beta * (distance - distance.min()))
        weight /= weight.sum()
        entropy = -(weight * np.log(np.maximum(weight, 1e-300))).sum()
        low, high = (beta, high) if entropy > np.log(perplexity) else (low, beta)
    return float(1 / sum(weight[batches == batch].sum() ** 2 for batch in range(batches.max() + 1)))


@pytest.mark.parametrize("n_values", [6, 3000])  # with the latter, exp(-beta distance) is 0 in 32 bits
def test_lisi_and_kbet_are_as_they_are_defined(n_values: int) -> None:
    values = np.random.default_rng(2).normal(size=(N, n_values)) + 0.5 * BATCHES[:, None] / np.sqrt(n_values)
    lisi, accepts = lisi_and_kbet(*neighbours(values, 90), BATCHES)
    share = np.bincount(BATCHES) / N
    between = pairwise_distances(values)
    np.fill_diagonal(between, -1)
    for row in range(0, N, 20):
        near = np.argsort(between[row])[:90]
        assert near[0] == row
        assert lisi[row] == pytest.approx(slow_lisi(between[row, near[1:]], BATCHES[near[1:]], 30), rel=1e-3)
        observed, expected = np.bincount(BATCHES[near[:50]], minlength=2), 50 * share
        p = stats.chi2.sf(((observed - expected) ** 2 / expected).sum(), df=1)
        assert accepts[row] == (p >= 0.05)


def test_the_silhouette_of_batches_is_that_of_distances_and_that_of_scib_metrics() -> None:
    batches = np.append(np.random.default_rng(3).integers(3, size=N - 1), 3)  # the last one by itself
    values = np.maximum(NOISE + 0.3 * batches[:, None], 0) + 0.01
    distance = pairwise_distances(values, metric="cosine")
    found = batch_silhouette(values, batches)
    for row in range(0, N - 1, 30):
        own = (batches == batches[row]) & (np.arange(N) != row)
        within, between = distance[row, own].mean(), distance[row, batches != batches[row]].mean()
        assert found[row] == pytest.approx((between - within) / max(within, between))
    assert found[-1] == 0
    np.testing.assert_allclose(batch_silhouette(sparse.csr_matrix(values), batches), found, atol=1e-12)
    np.testing.assert_allclose(batch_silhouette(3 * values, batches), found, atol=1e-12)

    import scib_metrics  # loaded by lisi_and_kbet before

    mixed = bras_by_profile(values, batches, LABELS)
    expected = scib_metrics.bras(values, LABELS, batches)
    assert pd.Series(mixed).groupby(LABELS).mean().mean() == pytest.approx(float(expected), abs=1e-5)
    values[0] = 0
    assert np.isfinite(batch_silhouette(values, batches)).all()


def test_a_label_in_one_batch_alone_says_nothing() -> None:
    found = bras_by_profile(NOISE, np.where(LABELS == 0, 0, BATCHES), LABELS)
    np.testing.assert_array_equal(np.isnan(found), LABELS == 0)


@pytest.mark.slow
def test_a_fit_is_judged_by_batches_beside_its_controls(judged: Fitted) -> None:
    metrics = judged.evaluation.metrics
    for split in ("validation", "test"):
        rows = metrics[(metrics["split"] == split) & metrics["metric"].isin(["ilisi", "kbet", "bras"])]
        by_model = rows.pivot_table(index="model", columns="metric", values="value")
        assert set(by_model.index) == {"model", "raw_input", "pca", "random_encoder", SHUFFLED}
        assert ((by_model >= 0) & (by_model <= 1)).all(axis=None)
        assert (by_model["kbet"] > 0.5).all()  # donors of the simulation differ in nothing
        assert (rows["n_profiles"] == 24).all()


def test_batches_change_no_training_and_need_no_labels(profiles: Profiles, judged: Fitted) -> None:
    plain, found = (fit(profiles, replace(SETTINGS, batch_key=key)) for key in (None, "donor"))
    same = ["train_loss", "validation_loss", "validation_cosine"]
    pd.testing.assert_frame_equal(plain.history[same], found.history[same])
    pd.testing.assert_frame_equal(plain.evaluation.profiles, found.evaluation.profiles)
    added = found.evaluation.metrics.iloc[len(plain.evaluation.metrics) :]
    assert set(added["metric"]) == {"ilisi", "kbet"}
    with_labels = judged.evaluation.metrics
    with_labels = with_labels[with_labels["metric"].isin(["ilisi", "kbet"])]
    pd.testing.assert_frame_equal(
        added.reset_index(drop=True), with_labels.reset_index(drop=True)
    )  # and twice the same


def test_profiles_are_those_that_labels_judge_less_those_without_a_batch(profiles: Profiles) -> None:
    obs = profiles.obs.astype(object)
    split = pd.Series(np.where(np.arange(N) % 4 == 0, "test", "train"), index=obs.index)
    preprocess = fit_preprocess(profiles, np.arange(100))
    expression, _ = preprocess.match(profiles)
    data = JudgingData(replace(SETTINGS, label="kind"), obs, split, expression, preprocess, has_decoder=True)
    known, by_label = batched(data, "donor"), labelled(data, "kind")
    assert (known.matrix != by_label.matrix).nnz == 0
    np.testing.assert_array_equal(known.split, by_label.split)
    assert known.batches.max() == 7
    obs.iloc[:6, obs.columns.get_loc("donor")] = None
    obs.iloc[6, obs.columns.get_loc("kind")] = None
    assert len(batched(data, "donor").batches) == N - 7
    assert len(batched(replace(data, settings=SETTINGS), "donor").batches) == N - 6


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("donr", r"unknown obs column 'donr'; did you mean 'donor'\?"),
        ("one", r"column 'one' has 1 different value among 240 profiles\. Name another column with --batch\."),
        ("name", r"with at least two profiles each on average; column 'name' has 240 different values among 240 "),
        ("none", "column 'none' has 0 different values among 0 profiles"),
    ],
)
def test_a_column_that_holds_no_batches_is_refused_before_training(key: str, message: str) -> None:
    adata = simulate()
    adata.obs["one"], adata.obs["name"], adata.obs["none"] = "x", adata.obs_names, np.nan
    epochs: list[dict[str, float]] = []
    with pytest.raises(InputError, match=message):
        fit(read_profiles(adata), replace(SETTINGS, batch_key=key), on_epoch=epochs.append)
    assert epochs == []


def test_without_scib_metrics_nothing_is_trained(
    profiles: Profiles, counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install scib-metrics"):
        fit(profiles, replace(SETTINGS, batch_key="donor"))
    for command in ("fit", "compare"):
        arguments = [command, str(counts_path), "--batch", "donor", "-o", str(tmp_path / "out")]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2
        assert "pip install scib-metrics" in result.output
        assert "profiles x" not in result.output  # before the data are read
    assert list(tmp_path.iterdir()) == []


def test_the_verdict_says_what_mixing_is_worth(judged: Fitted) -> None:
    said = mixing_verdict(judged.evaluation.metrics, "test")
    number = {name: value(judged.evaluation.metrics, name, "test", "ilisi") for name in ("model", "pca", SHUFFLED)}
    assert f"(0: separate; {number[SHUFFLED]:.4f}: shuffled batches)" in said
    assert f"latent {number['model']:.4f}, raw input" in said
    assert f"PCA of the same size {number['pca']:.4f}" in said
    assert said.endswith(ALONE_PROVES_NOTHING)


def test_batches_are_told_in_terminal_and_report(
    counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geneae.report.pictures.draw_picture", lambda title, *_: Picture(title, "", "", "data:,", 1, 1))
    flags = ["--latent", "4", "--hidden", "16", "--rank", "12", "--epochs", "1", "--splits", "2", "--label", "kind"]
    arguments = ["compare", str(counts_path), "--seeds", "1", *flags, "--batch", "donor", "-o", str(tmp_path / "cmp")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    report = (tmp_path / "cmp" / "report.html").read_text()
    assert report.count("shuffled batches<") == 2  # once a split, as it is the same beside both arms
    assert ALONE_PROVES_NOTHING in report
    assert not pd.read_csv(tmp_path / "cmp" / "paired.csv")["metric"].isin(["ilisi", "kbet", "bras"]).any()
    result = CliRunner().invoke(
        main, ["fit", str(counts_path), *flags, "--verbose", "--batch", "donor", "-o", str(tmp_path / "run")]
    )
    lines = result.stdout.splitlines()
    first = next(
        number for number, line in enumerate(lines) if line.startswith("How well the latents mix batches, on 24 ")
    )
    assert lines[first + 1].split() == ["iLISI", "kBET", "BRAS", "20-NN", "↑"]
    assert [line.split("  ")[0] for line in lines[first + 2 : first + 7]] == [
        "model",
        "raw input",
        "PCA",
        "random encoder",
        "shuffled batches",
    ]
    assert ALONE_PROVES_NOTHING in result.stdout
    assert 'batch = "donor"' in (tmp_path / "run" / "settings.toml").read_text()
