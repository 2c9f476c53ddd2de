"""Grids of runs on one split."""

import itertools
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import torch

from geneae.data.profiles import Profiles
from geneae.fitting.checks import open_metric
from geneae.fitting.runs import Source, check_color, fit_run, writing_alone
from geneae.folders.model import read_config
from geneae.folders.outputs import CONFIG, finish_swap
from geneae.settings.errors import InputError
from geneae.settings.settings import Settings
from geneae.training.checkpoints import is_unfinished


@dataclass(frozen=True)
class Task:
    """One run of a grid."""

    arm: str
    """What tells its arm from the others."""
    settings: Settings
    """All of them."""
    folder: Path
    """To write."""
    is_first: bool = True
    """Whether it has the first seed of its arm, the one that a UMAP is made of."""
    with_report: bool = True
    """Whether it gets a report of its own, which takes as long as a small fit."""


def grid(base: Settings, choices: dict[str, list[Any]], seeds: int, folder: Path) -> list[Task]:
    """Every combination of choices with every seed, all on the split of `base`; seeds turn fastest.

    Parameters
    ----------
    base
        Settings that the arms share.
    choices
        By field of `Settings`, the values to combine; an arm is named by the fields of more than one value.
    seeds
        How many.
    folder
        The runs become folders inside.
    """
    fields = [field for field, values in choices.items() if len(values) > 1] or ["loss"]
    split_seed = base.seed if base.split_seed is None else base.split_seed
    tasks = []
    for combination in itertools.product(*(dict.fromkeys(values) for values in choices.values())):
        settings = replace(base, **dict(zip(choices, combination, strict=True)), split_seed=split_seed)
        arm = " ".join(shown_setting(field, getattr(settings, field)) for field in fields)
        name = re.sub(r"[^\w.+=-]+", "-", arm)
        tasks += [
            Task(
                arm,
                replace(settings, seed=base.seed + number),
                folder / f"{name}-seed{base.seed + number}",
                number == 0,
            )
            for number in range(seeds)
        ]
    return tasks


def shown_setting(field: str, value: Any) -> str:
    return str(value) if field in ("objective", "loss") else f"{field.removeprefix('n_')}={value}"


def run_grid(
    source: Source, tasks: list[Task], command: str, jobs: int, color: str | None = None
) -> Iterator[tuple[Task, float]]:
    """Run what has not been run; yields each task when it is done, with its seconds (0 if it was there already).

    A folder that holds the same settings and data is taken as it is, so that a grid that was interrupted goes on, in
    the middle of a run where that has left a checkpoint; one that holds others is refused by name of what differs.
    With `color`, a column of `obs`, profiles are labelled, and a UMAP is made of the first seed of each arm.
    """
    profiles = source.read()
    check_color(profiles, color)
    waiting = []
    for task in tasks:
        if not is_finished(task, profiles.fingerprint, color):
            waiting.append(task)
        else:
            yield task, 0.0
    if jobs == 1 or len(waiting) <= 1:
        for task in waiting:
            begin = time.perf_counter()
            _fit_task(profiles, task, command, color)
            yield task, time.perf_counter() - begin
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        futures = {pool.submit(_run_apart, source, task, command, threads, color): task for task in waiting}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in active_children():
                worker.terminate()  # which has it finish its step and write a checkpoint
            raise


def _fit_task(profiles: Profiles, task: Task, command: str, color: str | None) -> None:
    choices = color, False, task.is_first, task.with_report
    with writing_alone(task.folder):
        fit_run(profiles, task.settings, task.folder, command, False, *choices, resume=True)


def _run_apart(source: Source, task: Task, command: str, threads: int, color: str | None) -> float:
    """One run in a process of its own."""
    torch.set_num_threads(threads)
    begin = time.perf_counter()
    _fit_task(source.read(), task, command, color)
    return time.perf_counter() - begin


def is_finished(task: Task, fingerprint: str, color: str | None = None, null: bool = False) -> bool:
    """Whether the folder of a task is there and whole.

    One of other settings or data, without that `color`, or without the nulls that are asked for, is refused.
    """
    finish_swap(task.folder)
    if not (task.folder / CONFIG).is_file() or is_unfinished(task.folder):
        return False
    config = read_config(task.folder)
    wanted = json.loads(json.dumps(asdict(task.settings)))
    different = [name for name, value in wanted.items() if config["settings"].get(name) != value]
    if config["data"]["fingerprint"] != fingerprint:
        different.append("data")
    metric = open_metric(task.settings)
    if metric is not None and "metric" not in different and metric.fingerprint != config["metric"]["fingerprint"]:
        different.append("content of the metric")
    if color is not None and config.get("color") != color:
        different.append("color")
    if null and not config.get("null"):
        different.append("null")
    if different:
        raise InputError(
            f"{task.folder} holds a run with other {', '.join(different)}. Choose another output folder, or remove it."
        )
    return True
