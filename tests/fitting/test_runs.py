"""Grids: the same seeds on one split, resumed, refused where runs do not belong together."""

import json
import re
import shutil
import signal
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import QUICK

from geneae.cli.main import main
from geneae.data.source import Source
from geneae.fitting.compare import compare_runs, configuration_names, same_start
from geneae.fitting.grid import grid, run_grid
from geneae.fitting.runs import Request, fit_run, is_finished
from geneae.folders.outputs import Output
from geneae.settings.errors import InputError
from geneae.settings.settings import Settings
from geneae.training.checkpoints import Checkpoint

BASE = Settings(**QUICK)
FLAGS = ["--hidden", "16", "--rank", "12", "--epochs", "2", "--splits", "2", "--latent", "4", "--batch-size", "64"]


@pytest.fixture(scope="module")
def compared(counts_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two losses, two seeds."""
    folder = tmp_path_factory.mktemp("compare") / "out"
    arguments = ["compare", str(counts_path), "--loss", "mse", "--loss", "cosine", "--seeds", "2", "-o", str(folder)]
    result = CliRunner().invoke(main, [*arguments, *FLAGS])
    assert result.exit_code == 0, result.output
    assert "4/4  cosine, seed 1" in result.output
    assert "against mse: " in result.output
    return folder


def test_a_grid_is_every_combination_with_every_seed_on_one_split() -> None:
    tasks = grid(BASE, {"loss": ["mse", "cosine"], "cut": [1.0, 3.0], "n_latent": [4]}, 3, Path("out"))
    assert [task.configuration for task in tasks[::3]] == [
        "mse cut=1.0",
        "mse cut=3.0",
        "cosine cut=1.0",
        "cosine cut=3.0",
    ]
    assert [task.settings.seed for task in tasks[:3]] == [0, 1, 2]
    assert {task.settings.split_seed for task in tasks} == {0}
    assert len({task.folder for task in tasks}) == len(tasks) == 12


def test_compare_writes_run_folders_and_tables(compared: Path) -> None:
    runs = sorted(path.name for path in compared.iterdir() if path.is_dir())
    assert runs == ["cosine-seed0", "cosine-seed1", "mse-seed0", "mse-seed1"]
    metrics, paired = pd.read_csv(compared / "metrics.csv"), pd.read_csv(compared / "paired.csv")
    assert (pd.read_csv(compared / "seeds.csv")["n_seeds"] == metrics["seed"].nunique()).all()
    assert list(metrics.columns[:2]) == ["run", "arm"]
    for run in runs:
        own = pd.read_csv(compared / run / "metrics.csv")
        found = metrics[metrics["run"] == run].drop(columns=["run", "arm"]).reset_index(drop=True)
        pd.testing.assert_frame_equal(found, own)
    assert set(paired["arm"]) == {"cosine"}
    assert (paired["n_seeds"] == 2).all()
    assert (compared / "report.html").stat().st_size > 0


def test_all_runs_have_one_split_and_each_seed_its_own_weights(compared: Path) -> None:
    splits = {(folder / "split.csv").read_bytes() for folder in compared.iterdir() if folder.is_dir()}
    weights = {(folder / "model.safetensors").read_bytes() for folder in compared.glob("*-seed*")}
    assert len(splits) == 1
    assert len(weights) >= 2  # losses that keep the start have one set of weights a seed


def test_paired_differences_are_those_of_the_profiles(compared: Path) -> None:
    tables = {
        name: pd.read_csv(compared / name / "profiles.csv").query("split == 'test'").set_index("profile")
        for name in ("mse-seed0", "mse-seed1", "cosine-seed0", "cosine-seed1")
    }
    difference = sum(tables[f"cosine-seed{s}"]["cosine"] - tables[f"mse-seed{s}"]["cosine"] for s in (0, 1)) / 2
    row = pd.read_csv(compared / "paired.csv").set_index("metric").loc["cosine"]
    assert row["difference"] == pytest.approx(difference.mean(), abs=1e-9)
    assert row["n_profiles"] == len(difference)


def test_finished_runs_are_not_repeated_and_the_verdict_stays(compared: Path, counts_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in compared.glob("*/model.safetensors")}
    paired = (compared / "paired.csv").read_bytes()
    arguments = ["compare", str(counts_path), "--loss", "mse", "--loss", "cosine", "--seeds", "2", "-o", str(compared)]
    result = CliRunner().invoke(main, [*arguments, *FLAGS[:-4], "--latent", "4", "--batch-size", "64"])
    assert result.output.count("already done") == 4
    assert {path: path.stat().st_mtime_ns for path in compared.glob("*/model.safetensors")} == before
    assert (compared / "paired.csv").read_bytes() == paired


def test_a_folder_with_other_settings_is_refused_by_name(compared: Path, counts_path: Path) -> None:
    task = grid(BASE, {"loss": ["mse"]}, 1, compared)[0]
    fingerprint = Source(str(counts_path)).read().fingerprint
    with pytest.raises(InputError, match=r"mse-seed0 holds a run that differs in epochs\. Choose another output"):
        is_finished(task.folder, task.settings, Request("test"), fingerprint)
    with pytest.raises(InputError, match="differs in epochs, data"):
        is_finished(task.folder, task.settings, Request("test"), "other")


def test_a_grid_goes_on_in_the_middle_of_a_run(
    compared: Path, counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("geneae.fitting.runs", "geneae.fitting.compare"):  # drawing takes longer than these fits
        monkeypatch.setattr(f"{place}.write_report", lambda path, *_: path.write_text("<html></html>"))
    arguments = ["compare", str(counts_path), "--loss", "mse", "--loss", "cosine", "--seeds", "2", "-o", str(tmp_path)]
    real, left = Checkpoint.is_due, [20]  # of 9 in each training

    def is_due(self: Checkpoint) -> bool:
        left[0] -= 1
        if not left[0]:
            signal.raise_signal(signal.SIGINT)
        return real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "is_due", is_due)
        result = CliRunner().invoke(main, [*arguments, *FLAGS])
    assert result.exit_code == 130
    assert "Stopped by SIGINT. Run the same command again to resume:\ngeneae" in result.output
    assert [path.name for path in (tmp_path / "cosine-seed0").iterdir()] == ["checkpoint.safetensors"]
    result = CliRunner().invoke(main, [*arguments, *FLAGS])
    assert result.output.count("already done") == 2
    for name in ("mse-seed1", "cosine-seed0", "cosine-seed1"):
        assert (tmp_path / name / "metrics.csv").read_bytes() == (compared / name / "metrics.csv").read_bytes()
    assert json.loads((tmp_path / "cosine-seed0" / "config.json").read_text())["parts"] == 2


@pytest.mark.slow
def test_several_jobs_give_the_same_bits(compared: Path, counts_path: Path, tmp_path: Path) -> None:
    base = replace(BASE, epochs=2)
    tasks = grid(base, {"loss": ["mse", "cosine"]}, 1, tmp_path)
    done = list(run_grid(Source(str(counts_path)), tasks, Request("test"), jobs=2))
    assert {task.configuration for task, _ in done} == {"mse", "cosine"}
    for name in ("mse-seed0", "cosine-seed0"):
        for file in ("metrics.csv", "model.safetensors"):
            assert (tmp_path / name / file).read_bytes() == (compared / name / file).read_bytes()


def test_finished_folders_can_be_compared_by_themselves(compared: Path, tmp_path: Path) -> None:
    folders = [str(compared / name) for name in ("mse-seed0", "mse-seed1", "cosine-seed0", "cosine-seed1")]
    result = CliRunner().invoke(main, ["compare", *folders, "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "paired.csv").read_bytes() == (compared / "paired.csv").read_bytes()
    assert configuration_names([Path(f) for f in folders])[Path(folders[2])] == "cosine"


def test_flags_of_a_fit_are_refused_where_finished_runs_are_compared(compared: Path, tmp_path: Path) -> None:
    given = ["compare", str(compared / "mse-seed0"), "-o", str(tmp_path / "out"), "--loss", "cosine", "--seeds", "5"]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 2
    said = "Error: finished runs are compared as they are, without --loss, --seeds. Leave out these.\n"
    assert result.stderr == said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("title", ["data", "space", "genes", "split"])
def test_runs_that_do_not_belong_together_are_refused(compared: Path, tmp_path: Path, title: str) -> None:
    other = tmp_path / "other"
    shutil.copytree(compared / "cosine-seed0", other)
    (other / "SHA256SUMS").unlink()  # by which the change would be found first
    config = json.loads((other / "config.json").read_text())
    if title == "data":
        config["data"]["fingerprint"] = "0"
    elif title == "space":
        config["space"] = "scaled"
    elif title == "genes":
        config["network"]["n_genes"] += 1
    else:
        (other / "split.csv").write_text((other / "split.csv").read_text().replace("test", "train", 1))
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=rf"cannot be compared: they differ in their {title}\. Leave one out\."):
        compare_runs([compared / "mse-seed0", other], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_arms_with_other_seeds_are_refused(compared: Path, tmp_path: Path) -> None:
    folders = [compared / "mse-seed0", compared / "mse-seed1", compared / "cosine-seed0"]
    with pytest.raises(InputError, match="all configurations must have the same seeds"):
        compare_runs(folders, tmp_path / "out")
    with pytest.raises(InputError, match=r"two runs of configuration 'mse' have seed 0\. Leave one out\."):
        compare_runs(folders[:1] * 2, tmp_path / "out")


def test_one_configuration_has_nothing_to_be_compared_with(
    compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geneae.fitting.compare.write_report", lambda path, *_: path.write_text("<html></html>"))
    said = compare_runs([compared / "mse-seed0"], tmp_path / "out")
    assert said.startswith("There is only one configuration, so there is nothing to compare it with.")


def test_an_unknown_loss_is_refused_before_anything_runs(counts_path: Path, tmp_path: Path) -> None:
    arguments = ["compare", str(counts_path), "--loss", "mse", "--loss", "cosin", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "did you mean 'cosine'?" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_color_labels_profiles_and_draws_a_umap(counts_path: Path, tmp_path: Path) -> None:
    profiles = Source(str(counts_path)).read()
    fit_run(profiles, replace(BASE, epochs=1), Output(tmp_path / "run"), Request("test", color="kind"))
    umap = pd.read_csv(tmp_path / "run" / "umap.csv")
    assert list(umap.columns) == ["profile", "umap_1", "umap_2", "cluster", "molecules", "label"]
    assert (umap["molecules"].to_numpy() == profiles.totals).all()
    labels = profiles.obs["kind"].astype(str)
    assert (umap["label"].to_numpy() == labels[umap["profile"]].to_numpy()).all()
    table = pd.read_csv(tmp_path / "run" / "profiles.csv").set_index("profile")
    assert (table["label"] == labels[table.index]).all()
    with pytest.raises(InputError, match="unknown obs column 'kid'; did you mean 'kind'"):
        fit_run(profiles, BASE, Output(tmp_path / "other"), Request("test", color="kid"))


@pytest.fixture(scope="module")
def coloured(counts_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two losses, two seeds, labelled."""
    folder = tmp_path_factory.mktemp("coloured") / "out"
    arguments = ["compare", str(counts_path), "--loss", "mse", "--loss", "cosine", "--seeds", "2", "-o", str(folder)]
    result = CliRunner().invoke(main, [*arguments, *FLAGS, "--color", "kind"])
    assert result.exit_code == 0, result.output
    return folder


def titles(folder: Path) -> list[str]:
    """Of the figures of a report."""
    return re.findall("<h3>(.*?)</h3>", (folder / "report.html").read_text())


COLOURED = ["Difference from mse by kind", "UMAP of the latents by kind"]
PLAIN = ["UMAP of the latents by cluster", "UMAP of the latents by molecules"]


@pytest.mark.slow
def test_color_in_a_comparison_shows_labels_and_one_umap_an_arm(coloured: Path, compared: Path) -> None:
    assert set(COLOURED) <= set(titles(coloured))
    assert not set(COLOURED) & set(titles(compared))
    assert set(PLAIN) <= set(titles(compared))
    assert set(PLAIN) & set(titles(coloured)) == {"UMAP of the latents by molecules"}
    for name in ("umap.csv", "latents.h5ad"):
        assert sorted(path.parent.name for path in coloured.glob(f"*/{name}")) == ["cosine-seed0", "mse-seed0"]
    assert all("label" in pd.read_csv(path) for path in coloured.glob("*/profiles.csv"))
    assert (
        "UMAP of the latents coloured by kind. mse: 240 profiles, 4 labels; cosine: 240"
        in (coloured / "report.html").read_text()
    )
    metrics = [pd.read_csv(folder / "metrics.csv") for folder in (coloured, compared)]
    pd.testing.assert_frame_equal(*metrics, rtol=1e-4, atol=1e-6)


def test_labelled_folders_can_be_compared_by_themselves(coloured: Path, tmp_path: Path) -> None:
    folders = [str(coloured / name) for name in ("mse-seed0", "mse-seed1", "cosine-seed0", "cosine-seed1")]
    result = CliRunner().invoke(main, ["compare", *folders, "--color", "kind", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert set(COLOURED) <= set(titles(tmp_path / "out"))


def test_runs_without_the_labels_asked_for_are_refused(
    coloured: Path, compared: Path, counts_path: Path, tmp_path: Path
) -> None:
    plain = compared / "mse-seed1"
    with pytest.raises(InputError, match=r"--color kind needs runs .*mse-seed1 was fitted without --color\. Fit"):
        compare_runs([coloured / "mse-seed0", plain], tmp_path / "out", color="kind")
    with pytest.raises(InputError, match="was fitted with --color kind"):
        compare_runs([coloured / "mse-seed0"], tmp_path / "out", color="donor")
    arguments = ["compare", str(counts_path), "--seeds", "2", *FLAGS, "-o", str(compared), "--color"]
    assert "holds a run that differs in color. Choose" in CliRunner().invoke(main, [*arguments, "kind"]).output
    assert "did you mean 'kind'?" in CliRunner().invoke(main, [*arguments, "kid"]).output


def test_settings_of_a_run_are_written_whole(compared: Path) -> None:
    config = json.loads((compared / "mse-seed1" / "config.json").read_text())
    assert set(config["settings"]) == set(asdict(BASE))
    assert config["seed"] == 1
    assert config["split_seed"] == 0


def config_of(has_decoder: bool = True, n_latent: int = 8, **entries: Any) -> dict[str, Any]:
    settings = {"init": entries.pop("init", "pca"), "n_latent": n_latent}
    return {"settings": settings, "network": {"has_decoder": has_decoder}, "best_epoch": 0} | entries


BY_LOSS = {"steps": [{"name": "entries", "is_kept": True}, {"name": "loss", "is_kept": True}]}
"""Entries trained with the loss of the fit: predictions differ by loss, though the network was left out."""
UNBENT = {"steps": [{"name": "entries", "is_kept": True}, {"name": "loss", "is_kept": False}]}
BACK = {"best_epoch": 5, "latent_choice": {"is_start": True}}
"""Trained, but halves disliked it: latents are those of the start."""


@pytest.mark.parametrize(
    ("configs", "same"),
    [
        ([config_of(), config_of()], "a and b"),
        ([config_of(**UNBENT), config_of(**UNBENT), config_of(best_epoch=3)], "a and b"),
        ([config_of(**BY_LOSS), config_of(**BY_LOSS)], ""),
        ([config_of(), config_of(init="random")], ""),
        ([config_of(n_latent=8), config_of(n_latent=4)], ""),
        ([config_of(**BACK), config_of(**BACK)], ""),  # only their latents are the start
        ([config_of(False), config_of(False, **BACK), config_of(False, best_epoch=2)], "a and b"),
        ([config_of(False), config_of(**BY_LOSS)], "a and b"),  # latents are compared, as the first has nothing else
        ([config_of(), {"judged": {}}], ""),
        ([config_of(), config_of(), config_of()], "a, b and c"),
    ],
)
def test_only_those_that_are_their_start_are_said_to_be(configs: list[dict[str, Any]], same: str) -> None:
    said = same_start(list(zip("abc", configs, strict=False)))
    assert said.split(" kept the start")[0] == same
    assert (said == "") == (same == "")


def test_a_start_that_one_seed_left_was_not_kept() -> None:
    runs = [("a", config_of()), ("a", config_of(best_epoch=1)), ("b", config_of())]
    assert same_start(runs) == ""


@pytest.mark.slow
def test_objectives_are_arms(counts_path: Path, tmp_path: Path) -> None:
    base = Settings(**QUICK | {"epochs": 1}, label="kind")
    choices: dict[str, Any] = {"objective": ["simclr", "reconstruction"], "loss": ["mse"]}
    tasks = grid(base, choices, 1, tmp_path)
    assert [task.configuration for task in tasks] == ["simclr", "reconstruction"]
    list(run_grid(Source(str(counts_path)), tasks, Request("test"), jobs=1))
    said = compare_runs(
        [task.folder for task in tasks], tmp_path / "both", {task.folder: task.configuration for task in tasks}
    )
    assert said.startswith("simclr and reconstruction kept the start that they share, because training did not clearly")
    assert " By 20-NN accuracy of the latents on 24 test profiles and one seed" in said
    paired = pd.read_csv(tmp_path / "both" / "paired.csv")
    assert set(paired["metric"]) == {"knn_20", "knn_200", "linear_probe"}
    assert set(paired["better"]) == {"higher"}
    report = (tmp_path / "both" / "report.html").read_text()
    assert "Agreement of views" in report
    assert "20-NN accuracy" in report
