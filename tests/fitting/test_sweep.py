"""A sweep of cuts: its arms, its choices, and its files."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import QUICK

from geneae.cli.main import main
from geneae.fitting.sweep import Sweep, epochs_to, sweep_tasks
from geneae.settings.errors import InputError
from geneae.settings.settings import Settings

BASE = Settings(loss="cosine", basis="free", init="random", **QUICK)


def test_every_cut_meets_every_rate_and_no_cut_the_rates_that_a_cut_stands_for() -> None:
    arms = Sweep((3.0, 1.0), (0.002, 0.006), (0.0,), 2).configurations()
    assert [arm[:3] for arm in arms[:4]] == [(1, 0.002, 0), (1, 0.006, 0), (3, 0.002, 0), (3, 0.006, 0)]
    assert [arm[3] for arm in arms] == [False] * 4 + [True]
    assert arms[4][:3] == (1.0, pytest.approx(0.018), 0.0)  # 0.002 x 3 is there already


def test_tasks_share_a_split_and_differ_in_their_seeds(tmp_path: Path) -> None:
    tasks = sweep_tasks(replace(BASE, seed=4), Sweep((3.0,), (0.01,), (0.05,), 3), tmp_path)
    assert len(tasks) == 4 * 3
    assert {task.settings.split_seed for task in tasks} == {4}
    assert [task.settings.seed for task in tasks[:3]] == [4, 5, 6]
    assert len({task.folder for task in tasks}) == len(tasks)
    assert [task.configuration for task in tasks[6::3]] == ["cut=1 rate=0.03 control", "cut=1 rate=0.09 control"]
    assert tasks[-1].folder.name == "cut=1-rate=0.09-decay=0.05-control-seed6"  # where earlier versions look for it
    several = sweep_tasks(BASE, Sweep((3.0,), (0.01,), (0.05, 0.1), 1), tmp_path)
    assert [task.configuration for task in several[:2]] == ["cut=1 rate=0.01 decay=0.05", "cut=1 rate=0.01 decay=0.1"]


def test_the_epoch_of_nearly_the_final_value() -> None:
    assert epochs_to(pd.Series([0.0, 0.5, 0.94, 0.96, 0.9, 1.0])) == 3
    assert epochs_to(pd.Series([1.0, 1.0])) == 0


def test_a_sweep_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="a sweep needs at least one learning rate; found none"):
        Sweep((3.0,), (), (0.0,), 2)


@pytest.fixture(scope="module")
def swept(counts_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the command says, and its folder."""
    folder = tmp_path_factory.mktemp("sweep") / "out"
    words = ["sweep-cut", str(counts_path), "-o", str(folder), "--cut", "3", "--learning-rate", "0.01"]
    words += ["--seeds", "2", "--loss", "cosine", "--basis", "free", "--init", "random", "--latent", "4"]
    words += ["--hidden", "16", "--rank", "12", "--epochs", "3", "--splits", "2", "--batch-size", "64"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    return done.output, folder


@pytest.mark.slow
def test_the_command_compares_each_cut_at_its_best_rate_and_shows_the_controls(swept: tuple[str, Path]) -> None:
    said, folder = swept
    assert "Each cut has its best learning rate and weight decay by validation loss." in said
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert '<p class="answer">By held-out cosine' in html  # the verdict at a glance, not how it was reached
    assert "against cut=1 rate=0.01: " in said
    assert "At the edge of the learning rates tried:" in said
    for name in ("runs.csv", "arms.csv", "controls.csv", "paired.csv", "curves.png", "report.html"):
        assert (folder / name).stat().st_size > 100
    controls = pd.read_csv(folder / "controls.csv")
    assert list(controls["control"]) == ["cut", "lr", "lr c", "lr c^2"]
    assert controls["difference"][0] == 0
    paired = pd.read_csv(folder / "paired.csv")
    assert set(paired["arm"]) == {"cut=3 rate=0.01"}  # the decay that all have is in the names of their folders alone
    assert not list(folder.glob("*-seed0/report.html"))


def test_tables_of_a_sweep_are_those_of_its_runs(swept: tuple[str, Path]) -> None:
    folder = swept[1]
    runs, arms = pd.read_csv(folder / "runs.csv"), pd.read_csv(folder / "arms.csv")
    assert len(runs) == 8
    own = pd.read_csv(folder / "cut=3-rate=0.01-decay=0.05-seed1" / "history.csv")
    row = runs[(runs["cut"] == 3) & (runs["seed"] == 1)].iloc[0]
    assert row["validation_loss"] == pytest.approx(own["validation_loss"].min())
    assert row["mean_validation_cosine"] == pytest.approx(own["validation_cosine"][1:].mean())
    assert row["start_norm"] == pytest.approx(own["reconstruction_norm"][0])
    mean = runs.loc[runs["cut"] == 3, "validation_loss"].mean()
    assert arms.loc[arms["cut"] == 3, "validation_loss"].item() == pytest.approx(mean)
    start = runs.groupby("cut")["start_norm"].mean()
    assert start[3.0] < start[1.0] / 20  # four layers, less what they would be without their biases


def test_a_sweep_that_was_done_is_not_done_again(swept: tuple[str, Path], counts_path: Path) -> None:
    folder = swept[1]
    before = (folder / "runs.csv").read_bytes()
    words = ["sweep-cut", str(counts_path), "-o", str(folder), "--cut", "3", "--learning-rate", "0.01", "--seeds", "2"]
    words += ["--loss", "cosine", "--basis", "free", "--init", "random", "--latent", "4", "--hidden", "16"]
    done = CliRunner().invoke(main, [*words, "--rank", "12", "--epochs", "3", "--splits", "2", "--batch-size", "64"])
    assert done.output.count("already done") == 8
    assert (folder / "runs.csv").read_bytes() == before


def test_a_cut_that_is_no_number_is_said(counts_path: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["sweep-cut", str(counts_path), "-o", str(tmp_path / "o"), "--cut", "1/0"])
    assert done.exit_code == 2
    assert "a cut must be a number such as 3 or 1/3; found '1/0'." in done.output
