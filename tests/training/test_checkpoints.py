"""A training that was stopped anywhere goes on to the same bits."""

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK as SMALL
from conftest import simulate, write_checkpoint
from starts import PLAIN, QUICK, Data, Start, are_equal, make_start, weights

from geneae.data.reading import read_profiles
from geneae.fitting.fit import fit
from geneae.settings.errors import InputError, Interrupted
from geneae.settings.settings import Settings
from geneae.training import checkpoints
from geneae.training.checkpoints import (
    CHECKPOINT,
    Checkpoint,
    checkpoint_name,
    digest,
    is_partial,
    is_unfinished,
    stops_wait,
)
from geneae.training.loop import Training, train

CLOCKS = ["train_seconds", "seconds"]
SLOW = {"dropout": 0.3, "learning_rate": 0.01, "batch_size": 32, "epochs": 3, "device": "cpu"}


def identity(settings: Settings, **others: Any) -> dict[str, Any]:
    return {"settings": asdict(settings), "data": "a" * 64, "split": "b" * 64, **others}


def train_with(
    start: Start, folder: Path, resume: bool = True, on_epoch: Callable[[dict[str, float]], None] | None = None
) -> Training:
    """Train with a checkpoint; without anything to go on from it begins as `start.train` does."""
    torch.manual_seed(start.settings.seed)
    kept = Checkpoint(folder / CHECKPOINT, identity(start.settings), resume, time.perf_counter())
    plan = replace(start.plan(), names=pd.Index([f"cell{n}" for n in range(100)]))
    return train(start.network, plan, start.settings, on_epoch, kept)


class Killed(Exception):
    pass


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a training that writes after each step end with one of its steps."""
    left = [step]

    def is_due(_: Checkpoint) -> bool:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return True

    monkeypatch.setattr(Checkpoint, "is_due", is_due)


@pytest.mark.parametrize("settings", [QUICK, PLAIN], ids=["fixed", "random"])
@pytest.mark.parametrize("steps", [[0], [2, 2, 4], [11]])
def test_a_training_that_was_killed_ends_as_if_it_never_was(
    data: Data, settings: Settings, steps: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(settings, dropout=0.3, learning_rate=0.01)  # two steps an epoch and its end: three chances
    whole = make_start(data, settings)
    expected = whole.train()
    for step in steps:
        killed_at(step, monkeypatch)
        with pytest.raises(Killed):
            train_with(make_start(data, settings), tmp_path)
    monkeypatch.undo()
    seen: list[dict[str, float]] = []
    last = make_start(data, settings)
    found = train_with(last, tmp_path, on_epoch=seen.append)
    pd.testing.assert_frame_equal(
        found.history.drop(columns=CLOCKS), expected.history.drop(columns=CLOCKS), check_exact=True
    )
    assert are_equal(weights(last.network), weights(whole.network))
    assert found.best_epoch == expected.best_epoch
    assert [row["epoch"] for row in seen] == list(range(len(expected.history)))
    assert found.history["seconds"].is_monotonic_increasing


@pytest.mark.parametrize(
    "kind",
    [
        {"objective": "moco-v2", "basis": "free", "init": "random", "optimizer": "sgd-momentum"},
        {"objective": "byol+reconstruction"},
        {"objective": "dino", "cut": 2.0},
        {"objective": "barlow", "positives": "neighbours", "balance": "donor"},
    ],
    ids=lambda kind: kind["objective"],
)
def test_heads_teachers_queues_and_views_go_on_too(
    kind: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles = read_profiles(simulate(100, 60))
    settings = Settings(**(SMALL | SLOW | kind))
    expected = fit(profiles, settings)
    for step in (2, 4):  # of three steps and an end an epoch: amid the first one, amid the second
        killed_at(step, monkeypatch)
        with pytest.raises(Killed):
            fit(profiles, settings, checkpoint=tmp_path)
    monkeypatch.undo()
    found = fit(profiles, settings, checkpoint=tmp_path)
    assert found.model.config["parts"] == 3
    pd.testing.assert_frame_equal(
        found.history.drop(columns=CLOCKS), expected.history.drop(columns=CLOCKS), check_exact=True
    )
    assert are_equal(weights(found.model.network), weights(expected.model.network))


def test_a_training_that_had_ended_is_not_repeated(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SPARE", 0)
    first = make_start(data)
    expected = train_with(first, tmp_path)
    monkeypatch.setattr("geneae.training.loop.TrainingLoop.run_epoch", None)
    again = make_start(data)
    found = train_with(again, tmp_path)
    pd.testing.assert_frame_equal(found.history, expected.history, check_exact=True)
    assert are_equal(weights(again.network), weights(first.network))


def test_what_is_there_is_replaced_without_resume(data: Data, tmp_path: Path) -> None:
    train_with(make_start(data, replace(QUICK, epochs=2)), tmp_path)
    other = make_start(data, replace(QUICK, seed=1))
    expected = make_start(data, replace(QUICK, seed=1)).train().history.drop(columns=CLOCKS)
    assert train_with(other, tmp_path, resume=False).history.drop(columns=CLOCKS).equals(expected)
    assert Checkpoint(tmp_path / CHECKPOINT, identity(other.settings), True, 0.0).is_resumed


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"epochs": 9},
            "different epochs (4 in the checkpoint, 9 now). Resume with the data and settings of that run, add "
            "--overwrite to start again, or choose another output.",
        ),
        (
            {"loss": "cosine", "seed": 3},
            "different loss (mse in the checkpoint, cosine now), seed (0 in the checkpoint, 3 now). ",
        ),
        ({"data": "c" * 64}, "different data (aaaaaaaa... in the checkpoint, cccccccc... now). Resume"),
        (
            {"split": "d" * 64, "null": "gene_permuted"},
            "different split (bbbbbbbb... in the checkpoint, dddddddd... now), null (none in",
        ),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_by_name(
    data: Data, change: dict[str, Any], text: str, tmp_path: Path
) -> None:
    train_with(make_start(data), tmp_path)
    settings = replace(QUICK, **{name: value for name, value in change.items() if hasattr(QUICK, name)})
    others = {name: value for name, value in change.items() if not hasattr(QUICK, name)}
    with pytest.raises(InputError) as error:
        Checkpoint(tmp_path / CHECKPOINT, identity(settings) | others, True, 0.0)
    assert f"{tmp_path / CHECKPOINT} is the checkpoint of a run with {text}" in str(error.value)


def test_a_damaged_checkpoint_is_refused(data: Data, tmp_path: Path) -> None:
    train_with(make_start(data), tmp_path)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"should be a checkpoint of geneae, but cannot be read \(SafetensorError: "):
        Checkpoint(path, identity(QUICK), True, 0.0)


@pytest.fixture
def _heard() -> Iterator[None]:
    """SIGHUP has its usual effect even if the tests were started with `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("_heard")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_step_and_the_training_goes_on_from_there(data: Data, stop: int, tmp_path: Path) -> None:
    before = signal.getsignal(stop)
    settings = replace(PLAIN, learning_rate=0.01)
    expected = make_start(data, settings).train().history.drop(columns=CLOCKS)

    def kill(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            os.kill(os.getpid(), stop)

    with pytest.raises(Interrupted) as error:
        train_with(make_start(data, settings), tmp_path, on_epoch=kill)
    assert error.value.number == stop
    assert signal.getsignal(stop) is before
    assert train_with(make_start(data, settings), tmp_path).history.drop(columns=CLOCKS).equals(expected)


def test_the_same_signal_a_second_time_does_not_wait() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with stops_wait() as stopped_by:
            assert stopped_by() == 0
            os.kill(os.getpid(), signal.SIGINT)
            assert stopped_by() == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heard")
def test_a_hangup_that_is_ignored_as_under_nohup_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stops_wait() as stopped_by:
        signal.raise_signal(signal.SIGHUP)
        assert stopped_by() == 0


def test_a_loss_that_runs_away_names_profiles_and_leaves_good_weights(data: Data, tmp_path: Path) -> None:
    start = make_start(data, replace(PLAIN, learning_rate=1e30, epochs=9))
    with pytest.raises(InputError) as error:
        train_with(start, tmp_path)
    assert "on the profiles 'cell" in str(error.value)
    assert str(error.value).endswith(f"Earlier weights are in {tmp_path / CHECKPOINT}.")
    tensors, _ = checkpoints._read(tmp_path / CHECKPOINT)
    assert all(tensor.isfinite().all() for name, tensor in tensors.items() if name.startswith(("network", "best")))


def test_time_and_memory_are_those_of_all_parts(data: Data, tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    train_with(make_start(data), tmp_path)
    tensors, state = checkpoints._read(path)
    state["before"] = {"seconds": 100.0, "peak_memory_mb": 1e9, "parts": 3}
    checkpoints._replace(path, tensors, state)
    kept = Checkpoint(path, identity(QUICK), True, time.perf_counter())
    assert kept.spent()["seconds"] == pytest.approx(100, abs=5)
    assert (kept.spent()["peak_memory_mb"], kept.spent()["parts"]) == (1e9, 4)
    new = Checkpoint(tmp_path / "new", identity(QUICK), True, time.perf_counter())
    assert 0 < new.spent()["peak_memory_mb"] < 1e6
    assert new.spent()["parts"] == 1


def test_writing_takes_at_most_a_hundredth_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    kept = Checkpoint(tmp_path / CHECKPOINT, identity(QUICK), True, 0.0)
    kept._cost = 0.1
    for seconds, is_due in ((9.9, False), (10.1, True)):
        now[0] = 100 + seconds
        assert kept.is_due() is is_due


def test_a_file_is_one_of_tensors_and_json(data: Data, tmp_path: Path) -> None:
    train_with(make_start(data), tmp_path)
    raw = (tmp_path / CHECKPOINT).read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    state = json.loads(header["__metadata__"]["state"])
    assert state["identity"]["settings"]["epochs"] == 4
    assert math.isnan(state["rows"][0]["train_loss"])
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_names(tmp_path: Path) -> None:
    assert checkpoint_name() == "checkpoint.safetensors"
    assert checkpoint_name("gene_permuted") == "checkpoint-gene_permuted.safetensors"
    assert not is_unfinished(tmp_path)
    (tmp_path / f".{checkpoint_name()}.partial").write_text("half")
    assert not is_unfinished(tmp_path)
    assert [is_partial(path) for path in tmp_path.iterdir()] == [True]
    write_checkpoint(tmp_path / checkpoint_name("gene_permuted"))
    assert is_unfinished(tmp_path)
    assert digest(np.array(["a", "b"])) != digest(np.array(["ab"]))
