"""Grids of runs that share one split."""

import itertools
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import torch

from geneae.data.profiles import Profiles
from geneae.data.source import Source
from geneae.fitting.runs import Request, check_color, fit_run, is_finished, writing_alone
from geneae.folders.outputs import Output
from geneae.settings.errors import InputChanged, listed
from geneae.settings.settings import Settings


@dataclass(frozen=True)
class Task:
    """One run of a grid."""

    configuration: str
    """Name of its configuration, made of the settings that tell it from the others."""
    settings: Settings
    """All settings of the run."""
    folder: Path
    """Folder to write the run into."""
    is_first: bool = True
    """Whether it has the first seed of its configuration; only this run gets `latents.h5ad` and a UMAP."""
    with_report: bool = True
    """Whether it gets its own report, which takes as long as a small fit."""


def grid(base: Settings, choices: dict[str, list[Any]], seeds: int, folder: Path) -> list[Task]:
    """Every combination of choices with every seed, all on the split of `base`; the seed varies fastest.

    Parameters
    ----------
    base
        Settings that all runs share.
    choices
        Values to combine, by field of `Settings`; fields with more than one value name the configuration.
    seeds
        Number of seeds, counted up from the seed of `base`.
    folder
        Parent of the run folders.
    """
    fields = [field for field, values in choices.items() if len(values) > 1] or ["loss"]
    tasks = []
    for combination in itertools.product(*(dict.fromkeys(values) for values in choices.values())):
        settings = replace(base, **dict(zip(choices, combination, strict=True)), split_seed=base.seed_of_split)
        configuration = " ".join(shown_setting(field, getattr(settings, field)) for field in fields)
        name = re.sub(r"[^\w.+=-]+", "-", configuration)
        tasks += [
            Task(
                configuration,
                replace(settings, seed=base.seed + number),
                folder / f"{name}-seed{base.seed + number}",
                number == 0,
            )
            for number in range(seeds)
        ]
    return tasks


def shown_setting(field: str, value: Any) -> str:
    """A setting in the name of a configuration: `cosine` for an objective or a loss, `cut=3` for any other field."""
    return str(value) if field in ("objective", "loss") else f"{field.removeprefix('n_')}={value}"


def run_grid(source: Source, tasks: list[Task], request: Request, jobs: int) -> Iterator[tuple[Task, float]]:
    """Run all tasks that are not finished; yields each task when it is done, with its seconds (0 if it was finished).

    A finished folder with the same settings and data is kept, so that an interrupted grid resumes, from the middle of a
    run if it has left a checkpoint; a folder with others is refused, and the error names the difference. With a color,
    tables and figures tell profiles apart by it. The first seed of each configuration gets its latents and a UMAP.

    Parameters
    ----------
    source
        File from which each process reads the profiles.
    tasks
        All runs.
    request
        Outputs of all runs; UMAP and report are decided by each task.
    jobs
        Number of simultaneous runs.
    """
    profiles = source.read()
    check_color(profiles, request.color)
    waiting = []
    for task in tasks:
        if not is_finished(task.folder, task.settings, request, profiles.fingerprint):
            Output(task.folder, resume=True).check()
            waiting.append(task)
        else:
            yield task, 0.0
    if jobs == 1 or len(waiting) <= 1:
        for task in waiting:
            begin = time.perf_counter()
            _fit_task(profiles, task, request)
            yield task, time.perf_counter() - begin
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        known = profiles.fingerprint
        futures = {pool.submit(_run_apart, source, known, task, request, threads): task for task in waiting}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in active_children():
                worker.terminate()  # it finishes its step and writes a checkpoint
            raise


def _fit_task(profiles: Profiles, task: Task, request: Request) -> None:
    with_umap = task.with_report or request.color is not None
    asked = replace(request, with_latents=task.is_first, with_umap=with_umap, with_report=task.with_report)
    with writing_alone(task.folder):
        fit_run(profiles, task.settings, Output(task.folder, resume=True), asked)


def _run_apart(source: Source, fingerprint: str, task: Task, request: Request, threads: int) -> float:
    """One run in a separate process, on the data with this fingerprint; returns its seconds."""
    torch.set_num_threads(threads)
    begin = time.perf_counter()
    profiles = source.read()
    if profiles.fingerprint != fingerprint:
        raise InputChanged(
            f"{listed(source.paths)} changed between the runs. Run again with a file that stays as it is."
        )
    _fit_task(profiles, task, request)
    return time.perf_counter() - begin
