"""Runs that are killed and go on, compared with runs that were left alone.

`python tests/kills.py 50` kills a small `geneae fit` fifty times, each time another run, and prints what came of it.
The runs are forks of this process, so that what takes long, the loading of libraries, is done once.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from conftest import simulate
from made_up import place_on_a_line

from geneae.cli.main import main
from geneae.fitting import runs
from geneae.settings.errors import STOPS
from geneae.training import checkpoints

torch.set_num_threads(1)
FLAGS = ["--latent", "4", "--hidden", "16", "--rank", "12", "--splits", "2", "--batch-size", "32", "--epochs", "6"]
KINDS = {
    "free": [*FLAGS, "--basis", "free", "--init", "random", "--learning-rate", "0.01"],
    "joint": [*FLAGS, "--objective", "dino+reconstruction", "--dropout", "0.1"],
    "pca": [*FLAGS, "--learning-rate", "0.02", "--dropout", "0.1", "--loss", "cosine"],
}
CLOCKS = {"seconds", "train_seconds"}
ALLOWED = {"seconds", "seconds_to_best_epoch", "profiles_per_second", "peak_memory_mb", "parts", "command"}


def start(arguments: list[str], log: Path, before: Callable[[], None] = lambda: None) -> int:
    """The command in a process of its own: its number."""
    process = os.fork()
    if process:
        return process
    with log.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        sys.argv = ["geneae", *arguments]
        before()
        code = 1
        try:
            main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            os._exit(code)


def end(process: int) -> int:
    """Its exit code; -9 where it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def always_write() -> None:
    """Write a checkpoint after each step, so that most kills fall into the writing of one."""
    checkpoints.SPARE = 0


def die_before_replace(number: int) -> Callable[[], None]:
    """Have a process kill itself when it has replaced something so many times and is about to do so again.

    43 checkpoints are written: at the start, after each of 6 steps in 6 epochs, and after each epoch. Then the old
    folder gives its name away, and the new one takes it.
    """

    def arm() -> None:
        real, left = os.replace, [number]

        def replace(old: Any, new: Any) -> None:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            real(old, new)

        os.replace = replace
        always_write()

    return arm


def differences(whole: Path, other: Path) -> list[str]:
    """What is not the same in two run folders, but for time, memory, the report that shows them, and the command."""
    names = {path.name for path in whole.iterdir()}
    found = [f"file {path.name}" for path in other.iterdir() if path.name not in names]
    for name in sorted(names - {"config.json", "history.csv", "report.html", "SHA256SUMS"}):
        if not (other / name).is_file() or (other / name).read_bytes() != (whole / name).read_bytes():
            found.append(name)
    histories = [pd.read_csv(folder / "history.csv", dtype=str, keep_default_na=False) for folder in (whole, other)]
    found += [c for c in histories[0] if c not in CLOCKS and not histories[0][c].equals(histories[1][c])]
    first, second = (json.loads((folder / "config.json").read_text()) for folder in (whole, other))
    return found + [key for key in first | second if key not in ALLOWED and first.get(key) != second.get(key)]


def go_on(arguments: list[str], folder: Path, whole: Path) -> tuple[list[str], int]:
    """Resume a killed run: what went wrong, and in how many parts it was made."""
    code = end(start([*arguments, "--resume"], folder.with_suffix(".log")))
    if code:
        return [f"exit code {code}: {folder.with_suffix('.log').read_text()}"], 0
    beside = [path.name for path in folder.parent.iterdir() if path.name.startswith(f".{folder.name}.")]
    return differences(whole, folder) + beside, json.loads((folder / "config.json").read_text())["parts"]


def kill_at_random(arguments: list[str], run: Path, seconds: float, rng: np.random.Generator) -> bool:
    """Start a run and kill it: in every second run somewhere in it, else while it trains and writes at every step.

    Whether it was alive; on a machine with other work it may have ended before.
    """
    is_training = rng.random() < 0.5
    process = start(arguments, run.with_suffix(".log"), always_write if is_training else lambda: None)
    while is_training and not (run / checkpoints.CHECKPOINT).exists():
        time.sleep(0.001)
    time.sleep(rng.uniform(0, seconds / 3 if is_training else seconds))
    os.kill(process, signal.SIGKILL)
    return end(process) == -signal.SIGKILL


def kill_many(n_kills: int, seed: int, folder: Path, replaces: tuple[int, ...] = ()) -> dict[str, Any]:
    """Kill so many runs at random moments, and one before each of some replacements, and resume each."""
    rng = np.random.default_rng(seed)
    data = folder / "data.h5ad"
    simulate().write_h5ad(data)
    wholes, seconds = {}, 0.0
    for kind, flags in KINDS.items():
        wholes[kind], begin = folder / f"{kind}-whole", time.perf_counter()
        assert end(start(["fit", str(data), "-o", str(wholes[kind]), *flags], folder / "log")) == 0
        seconds = time.perf_counter() - begin
    result: dict[str, Any] = {"identical": 0, "wrong": {}, "parts": [], "killed": 0, "ended": 0}
    while result["killed"] < n_kills + len(replaces):
        number = result["killed"]
        kind = list(KINDS)[number % len(KINDS)]
        run = folder / f"run{number}"
        arguments = ["fit", str(data), "-o", str(run), *KINDS[kind]]
        if number < n_kills and not kill_at_random(arguments, run, seconds, rng):
            shutil.rmtree(run)
            seconds *= 0.8  # it was quicker than the ones before
            result["ended"] += 1
            continue
        if number >= n_kills:
            arm = die_before_replace(replaces[number - n_kills])
            assert end(start(arguments, run.with_suffix(".log"), arm)) == -signal.SIGKILL
        result["killed"] += 1
        begin = time.perf_counter()
        wrong, parts = go_on(arguments, run, wholes[kind])
        seconds = max(seconds, time.perf_counter() - begin)
        result["parts"].append(parts)
        result["identical"] += not wrong
        result["wrong"] |= {run.name: wrong} if wrong else {}
        shutil.rmtree(run, ignore_errors=True)
    return result | {"left": sorted(path.name for path in folder.iterdir() if path.name.startswith("."))}


def stop_each(folder: Path, stops: tuple[signal.Signals, ...] = STOPS) -> dict[str, Any]:
    """Stop a run by each signal: exit code, what it says, and whether it goes on to the same."""
    data, whole, flags = folder / "data.h5ad", folder / "free-whole", KINDS["free"]
    result: dict[str, Any] = {}
    for stop in stops:
        run = folder / stop.name
        arguments = ["fit", str(data), "-o", str(run), *flags]

        def slow() -> None:
            checkpoints.SPARE = 10**9  # so that only the signal has a checkpoint written

        process = start(arguments, run.with_suffix(".log"), slow)
        while not (run / checkpoints.CHECKPOINT).exists():
            time.sleep(0.002)
        os.kill(process, stop)
        code, said = end(process), run.with_suffix(".log").read_text()
        _, state = checkpoints._read(run / checkpoints.CHECKPOINT)
        wrong, parts = go_on(arguments, run, whole)
        result[stop.name] = {"code": code, "said": said, "wrong": wrong, "parts": parts, "epoch": state["epoch"]}
        result[stop.name]["step"] = state["step"]
    return result


if __name__ == "__main__":
    n_kills, *replaces = map(int, sys.argv[1:] or ["50"])
    if replaces:  # the short version: drawing takes most of the time of so small a run
        runs.write_report = lambda path, *_: path.write_text("<html></html>")  # type: ignore[assignment]
        runs.umap_of = place_on_a_line
    with tempfile.TemporaryDirectory() as made:
        killed = kill_many(n_kills, 0, Path(made), tuple(replaces))
        stops = (signal.SIGTERM,) if replaces else STOPS
        print(json.dumps(killed | {"stopped": stop_each(Path(made), stops)}))
