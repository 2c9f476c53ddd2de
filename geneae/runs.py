"""Run folders: one fit written whole, and grids of fits on one split."""

import contextlib
import itertools
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from geneae.checkpoints import is_unfinished
from geneae.choices import open_metric
from geneae.comparison import Arm, answer, compare_arms, seed_sentence, seed_table
from geneae.devices import is_first, threads
from geneae.errors import InputError, unknown
from geneae.estimator import Autoencoder
from geneae.evaluation import Evaluation, verdict
from geneae.judging import is_judged, label_verdict
from geneae.locks import only_writer
from geneae.mixing import has_batches, mixing_verdict
from geneae.profiles import Profiles, read_profiles
from geneae.report import Run, read_run, write_report
from geneae.saving import CONFIG, SPLIT, finish_swap, new_file, read_config
from geneae.settings import Settings

PAIRED, METRICS, SEEDS, REPORT = "paired.csv", "metrics.csv", "seeds.csv", "report.html"
MOST_UMAP = 5000  # profiles in a picture


@dataclass(frozen=True)
class Source:
    """Where profiles are read from; each worker of a grid reads them itself."""

    data: str
    """Path."""
    layer: str | None = None
    """Layer in place of X."""
    use_raw: bool = False
    """raw in place of X."""

    def read(self) -> Profiles:
        """The profiles."""
        return read_profiles(self.data, self.layer, self.use_raw)


def fit_run(
    profiles: Profiles,
    settings: Settings,
    folder: Path,
    command: str,
    overwrite: bool = False,
    color: str | None = None,
    null: bool = False,
    with_umap: bool = True,
    with_report: bool = True,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    resume: bool = False,
) -> Autoencoder:
    """Fit, judge, and write a run folder, by default with its report, whole or not at all.

    Until it is whole the folder holds checkpoints, from which the same call goes on with `resume`. With `color`, a
    column of `obs`, profiles carry its value as their label, and a UMAP of the latents is made unless it is declined.
    With `null`, the nulls of `geneae.nulls` are fitted too.
    """
    check_color(profiles, color)
    model = Autoencoder(**asdict(settings))
    model.fit(profiles, on_epoch=on_epoch, null=null, checkpoint=folder, resume=resume)
    model.model_.config.update(command=command, color=color, null=null)
    if color is not None:
        table, labels = model.evaluation_.profiles, profiles.obs[color].astype(str)
        table["label"] = labels.reindex(table["profile"]).to_numpy()

    def add_report(partial: Path) -> None:
        if color is not None and with_umap:
            umap = umap_of(profiles.names, model.transform(profiles), settings.seed)
            umap.assign(label=labels.to_numpy()[umap.pop("row")]).to_csv(partial / "umap.csv", index=False)
        if with_report:
            write_report(partial / REPORT, [read_run(partial)], conclude(model.evaluation_, judged_split(settings)))

    model.save(folder, overwrite=overwrite or resume, and_then=add_report)
    return model


def writing_alone(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Inside, no process but those of one training writes a folder; of these the first one sees to it."""
    return only_writer(folder) if is_first() else contextlib.nullcontext()


def conclude(evaluation: Evaluation, split: str) -> str:
    """What came of a fit, in sentences: of its reconstruction, of its latents by labels and batches, of whichever there
    is."""
    said = [verdict(evaluation, split)] if "cosine" in evaluation.profiles else []
    said += [label_verdict(evaluation, split)] if is_judged(evaluation) else []
    said = said or ["Without labels nothing says how good these latents are: fit with --label KEY."]
    return " ".join([*said, mixing_verdict(evaluation, split)] if has_batches(evaluation) else said)


def check_color(profiles: Profiles, color: str | None) -> None:
    """Refuse a column of `obs` that is not there."""
    if color is not None and color not in profiles.obs.columns:
        raise unknown("obs column", color, profiles.obs.columns)


def umap_of(names: pd.Index, latent: np.ndarray, seed: int) -> pd.DataFrame:
    """row, profile, umap_1, umap_2 of at most 5,000 profiles, by scanpy with its defaults."""
    import anndata
    import scanpy as sc  # slow to load

    rows = np.arange(len(latent))
    if len(rows) > MOST_UMAP:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_UMAP, replace=False))
    adata = anndata.AnnData(latent[rows])
    with threads(torch.get_num_threads()):  # the search for neighbours changes the number for all of the process
        sc.pp.neighbors(adata, n_neighbors=min(15, len(rows) - 1), use_rep="X", random_state=seed)
        sc.tl.umap(adata, random_state=seed)
    first, second = adata.obsm["X_umap"].T
    return pd.DataFrame({"row": rows, "profile": names[rows], "umap_1": first, "umap_2": second})


def judged_split(settings: Settings) -> str:
    """The split that verdicts read."""
    return "test" if settings.test else "validation"


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
        arm = " ".join(_shown(field, getattr(settings, field)) for field in fields)
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


def _shown(field: str, value: Any) -> str:
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


def compare_runs(
    folders: Iterable[Path], output: Path, names: dict[Path, str] | None = None, color: str | None = None
) -> str:
    """Compare finished run folders and give the answer.

    Written are `metrics.csv`, `paired.csv`, `seeds.csv` and `report.html`.

    Runs of different split, space or data are refused, and so is an output that another process is writing.

    Parameters
    ----------
    folders
        Run folders; the arm of the first is what the others are compared with.
    output
        Folder to write into; made if need be.
    names
        Arm by folder; by default named by the settings in which the folders differ.
    color
        Column of `obs` that the profiles of all folders must be labelled by.
    """
    folders = list(folders)
    check_same(folders, color)
    names = names or arm_names(folders)
    runs = [read_run(folder, names[folder]) for folder in folders]
    split = judged_split(Settings(test=runs[0].config["settings"]["test"]))
    arms = gather(runs, split)
    paired = compare_arms(arms, split) if len(arms) > 1 else None
    metrics = pd.concat([run.metrics.assign(run=run.name, arm=run.arm) for run in runs], ignore_index=True)
    said = answer(paired, metrics) if paired is not None else "There is one arm, and nothing to compare it with."
    seeds = seed_table(metrics, split)
    said += seed_sentence(seeds)
    columns = ["run", "arm", *(name for name in metrics.columns if name not in ("run", "arm"))]
    paired = None if paired is None or paired.empty else paired
    with only_writer(output):
        for name, table in ((METRICS, metrics[columns]), (SEEDS, seeds), (PAIRED, paired)):
            if table is not None:
                with new_file(output / name, overwrite=True) as partial:
                    table.to_csv(partial, index=False)
        with new_file(output / REPORT, overwrite=True) as partial:
            write_report(partial, runs, said, paired)
    return said


def gather(runs: list[Run], split: str) -> list[Arm]:
    """Runs by arm, in order of appearance; every arm must have the same seeds."""
    arms: dict[str, Arm] = {}
    for run in runs:
        arm = arms.setdefault(run.arm, Arm(run.arm, str(run.config["settings"]["loss"]), {}, str(run.config["center"])))
        seed = int(run.config["seed"])
        if seed in arm.profiles:
            raise InputError(f"two runs of arm '{run.arm}' have seed {seed}. Leave one out.")
        arm.profiles[seed] = run.profiles[run.profiles["split"] == split].set_index("profile")
    seeds = {name: sorted(arm.profiles) for name, arm in arms.items()}
    first = next(iter(seeds))
    for name, found in seeds.items():
        if found != seeds[first]:
            raise InputError(
                f"every arm must have the same seeds; '{first}' has {seeds[first]} and '{name}' has {found}. "
                "Run the missing ones, or leave the others out."
            )
    return list(arms.values())


def check_same(folders: list[Path], color: str | None = None) -> None:
    """Refuse runs that were not made on the same data, split and space, and say which and in what.

    With `color`, those whose profiles are not labelled by it are refused, too.
    """
    configs = {folder: read_config(folder) for folder in folders}
    for folder, config in configs.items():
        if color is not None and (found := config.get("color")) != color:
            labelled = "no labels" if found is None else f"labels of '{found}'"
            raise InputError(
                f"--color {color} needs runs whose profiles are labelled by it; {folder} has {labelled}. Fit it again "
                f"with --color {color}, or leave the flag out."
            )
    splits = {folder: (folder / SPLIT).read_bytes() if (folder / SPLIT).is_file() else b"" for folder in folders}
    first = folders[0]
    for folder, config in configs.items():
        for title, is_same in (
            ("data", config["data"]["fingerprint"] == configs[first]["data"]["fingerprint"]),
            ("space", config["space"] == configs[first]["space"]),
            ("genes", config["network"]["n_genes"] == configs[first]["network"]["n_genes"]),
            ("split", splits[folder] == splits[first]),
        ):
            if not is_same:
                raise InputError(f"{folder} and {first} cannot be compared: they differ in their {title}.")


def arm_names(folders: list[Path]) -> dict[Path, str]:
    """An arm by folder, named by the settings, other than the seed, in which the folders differ."""
    settings = {folder: read_config(folder)["settings"] for folder in folders}
    first = settings[folders[0]]
    fields = [
        name for name in first if name != "seed" and any(other.get(name) != first[name] for other in settings.values())
    ]
    return {
        folder: " ".join(_shown(field, found[field]) for field in fields or ["loss"])
        for folder, found in settings.items()
    }
