"""Several processes that train together do what one does."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from starts import PLAIN, QUICK, Data, Start, are_equal, make_start, weights
from torch import Tensor

from geneae.cli.main import main
from geneae.settings.errors import InputError
from geneae.settings.settings import Settings
from geneae.training import loop
from geneae.training.checkpoints import _set_random_state
from geneae.training.devices import Processes, loading_fabric, open_processes
from geneae.training.loop import Training

CLOCKS = ["train_seconds", "seconds"]


class Meeting:
    """Threads that meet to add up tensors, in place of processes."""

    def __init__(self, size: int) -> None:
        self.size, self.barrier, self.brought = size, threading.Barrier(size), [torch.empty(0)] * size

    def processes(self, rank: int) -> Processes:
        def all_sum(tensor: Tensor) -> Tensor:
            self.brought[rank] = tensor
            self.barrier.wait(timeout=20)
            summed = torch.stack(self.brought).sum(0)
            self.barrier.wait(timeout=20)
            return summed

        alone = open_processes(QUICK)
        return Processes(rank, self.size, alone.device, alone.autocast, all_sum)


def train_together(starts: list[Start], monkeypatch: pytest.MonkeyPatch) -> list[Training]:
    """Train a start in each of several threads, as processes would."""
    meeting = Meeting(len(starts))
    local = threading.local()
    monkeypatch.setattr(loop, "open_processes", lambda _: local.processes)
    found: dict[int, Training] = {}

    def run(rank: int, start: Start) -> None:
        local.processes = meeting.processes(rank)
        found[rank] = start.train()

    threads = [threading.Thread(target=run, args=item) for item in enumerate(starts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monkeypatch.undo()
    return [found[rank] for rank in range(len(starts))]


@pytest.mark.parametrize("settings", [QUICK, PLAIN, replace(PLAIN, batch_size=33)], ids=["fixed", "random", "uneven"])
@pytest.mark.parametrize("size", [2, 3])
def test_parts_of_a_batch_train_as_the_whole_batch(
    data: Data, settings: Settings, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(settings, dropout=0.0, learning_rate=0.01)  # dropout is drawn by each process for itself
    whole = make_start(data, settings)
    expected = whole.train().history.drop(columns=CLOCKS)
    starts = [make_start(data, settings) for _ in range(size)]
    for result in train_together(starts, monkeypatch):
        np.testing.assert_allclose(result.history.drop(columns=CLOCKS), expected, rtol=1e-5)
    assert all(are_equal(weights(start.network), weights(starts[0].network)) for start in starts)


def test_each_profile_is_seen_once_an_epoch(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    start = make_start(data, replace(QUICK, epochs=1, batch_size=49))  # 49 + 49 + 2 profiles on three processes
    starts = [make_start(data, start.settings) for _ in range(3)]
    real = Processes.part

    def part(self: Processes, index: Tensor) -> Tensor:
        own = real(self, index)
        if self.has_part(index) and len(index) in (49, 2):  # others are of validation
            seen.append([int(row) % 100 for row in own])
        return own

    monkeypatch.setattr(Processes, "part", part)
    train_together(starts, monkeypatch)
    assert sorted(row for rows in seen for row in rows) == list(range(100))


def test_each_process_gets_its_own_random_numbers_back() -> None:
    drawn, states = [], []
    with torch.random.fork_rng():
        for seed in (1, 2**40):
            torch.manual_seed(seed)
            states.append(torch.get_rng_state())
            drawn.append(torch.rand(3))
        for rank, numbers in enumerate(drawn):
            _set_random_state(torch.stack(states)[rank], torch.device("cpu"))
            assert torch.equal(torch.rand(3), numbers)


def test_parts_are_disjoint_and_whole() -> None:
    index = torch.arange(10, 17)
    processes = [Meeting(3).processes(rank) for rank in range(3)]
    assert sorted(torch.cat([one.part(index) for one in processes]).tolist()) == index.tolist()
    assert [one.has_part(index[:2]) for one in processes] == [True, True, False]
    assert processes[2].part(index[:2]).tolist() == [10]  # something to compute on, which weighs nothing


@pytest.mark.parametrize(
    ("device", "where", "text"),
    [
        ("cuda", "torch.cuda.is_available", "device cuda was requested, but torch finds no CUDA device."),
        ("mps", "torch.backends.mps.is_available", "device mps was requested, but torch finds no Apple GPU."),
    ],
)
def test_a_device_that_is_not_there_is_said(
    device: str, where: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, lambda: False)
    with pytest.raises(InputError) as error:
        open_processes(replace(QUICK, device=device))
    assert str(error.value) == f"{text} Use --device cpu or auto."


def test_more_processes_than_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match="torchrun has started 4 processes, but 1 devices on 1 nodes need 1"):
        open_processes(QUICK)


def test_a_library_that_cannot_be_loaded_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    failed: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    with loading_fabric():
        pass
    assert failed == []
    with pytest.raises(ImportError, match="lightning_fabric"):
        open_processes(Settings())


@pytest.mark.slow
def test_two_processes_give_what_one_gives(counts_path: Path, tmp_path: Path) -> None:
    flags = ["--basis", "free", "--init", "random", "--learning-rate", "0.01", "--dropout", "0", "--device", "cpu"]
    flags += ["--latent", "4", "--hidden", "16", "--rank", "12", "--epochs", "3", "--splits", "2", "--quiet"]
    assert CliRunner().invoke(main, ["fit", str(counts_path), "-o", str(tmp_path / "one"), *flags]).exit_code == 0
    command = [sys.executable, "-m", "geneae.cli", "fit", str(counts_path), "-o", "two", *flags, "--devices", "2"]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    histories = [pd.read_csv(tmp_path / name / "history.csv").drop(columns=CLOCKS) for name in ("one", "two")]
    np.testing.assert_allclose(*histories, rtol=1e-5)
    metrics = [pd.read_csv(tmp_path / name / "metrics.csv") for name in ("one", "two")]
    pd.testing.assert_frame_equal(*metrics, rtol=1e-5, atol=1e-6)
    assert json.loads((tmp_path / "two" / "config.json").read_text())["settings"]["devices"] == 2
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}
