"""Comparison of finished runs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from geneae.evaluation.comparison import (
    Configuration,
    answer,
    compare_configurations,
    guard_sentence,
    seed_sentence,
    seed_table,
)
from geneae.evaluation.records import judged_split
from geneae.evaluation.steps import OWN_LOSS
from geneae.fitting.grid import shown_setting
from geneae.folders.judged import is_judged, read_judged, read_record
from geneae.folders.manifest import OF_GRIDS, REPORT, SPLIT
from geneae.folders.model import read_config
from geneae.folders.outputs import check_addable, check_apart, new_files
from geneae.folders.run import Run, read_run
from geneae.folders.tables import read_table, write_table
from geneae.report import write_report
from geneae.settings.errors import InputError

PAIRED = "paired.csv"
METRICS = "metrics.csv"
MIXED = (
    " Numbers of programs that geneae judge has judged are of one division of the molecules, those of fits means over "
    "three in both directions, and of other draws."
)
SEEDS = "seeds.csv"


def compare_runs(
    folders: Iterable[Path], output: Path, names: dict[Path, str] | None = None, color: str | None = None
) -> str:
    """Compare finished run folders; returns the answer.

    Writes `metrics.csv`, `paired.csv` (for several configurations), `seeds.csv` and `report.html`. Runs on different
    data, splits, spaces or genes are refused, and so is an output that another process is writing.

    Parameters
    ----------
    folders
        Run folders, and folders of `geneae judge`, each of whose programs is a configuration; all others are compared
        with the first one.
    output
        Folder to write into; it is created if it does not exist.
    names
        Name of the configuration of each folder; by default the settings in which the folders differ.
    color
        Column of `obs` that all runs must have been fitted with (`--color`).
    """
    folders = list(folders)
    check_apart(output, *folders)
    check_addable(output, OF_GRIDS)
    check_same(folders, color)
    fits = [folder for folder in folders if not is_judged(folder)]
    names = names or configuration_names(fits)
    runs = [
        run
        for folder in folders
        for run in (read_judged(folder) if is_judged(folder) else [read_run(folder, names[folder])])
    ]
    split = judged_split(runs[0].profiles["split"])
    configurations = gather(runs, split)
    paired = compare_configurations(configurations, split) if len(configurations) > 1 else None
    metrics = pd.concat([run.named(run.metrics) for run in runs], ignore_index=True)
    said = (
        answer(paired, metrics)
        if paired is not None
        else "There is only one configuration, so there is nothing to compare it with."
    )
    said = same_start([(run.configuration, run.config) for run in runs]) + said
    seeds = seed_table(metrics, split)
    if fits and len(fits) < len(folders):
        said += MIXED
    said += ("" if paired is None else guard_sentence(paired)) + seed_sentence(seeds)
    columns = ["run", "arm", *(name for name in metrics.columns if name not in ("run", "arm"))]
    paired = None if paired is None or paired.empty else paired
    with new_files(output) as partial:
        for name, table in ((METRICS, metrics[columns]), (SEEDS, seeds), (PAIRED, paired)):
            if table is not None:
                write_table(table, partial / name)
        write_report(partial / REPORT, runs, said, paired)
    return said


def same_start(runs: list[tuple[str, Mapping[str, Any]]]) -> str:
    """Sentence, with a space after it, on configurations that all are their start, which training did not change, as
    the first thing to know about them; empty for less than two of the same latent.

    Parameters
    ----------
    runs
        Name of the configuration of each run, and its `config.json`.
    """
    of_latents = not all(config.get("network", {}).get("has_decoder", True) for _, config in runs)
    kept: dict[str, bool] = {}
    sizes = {name: config["settings"]["n_latent"] for name, config in runs if is_start(config, of_latents)}
    for name, config in runs:
        kept[name] = kept.get(name, True) and is_start(config, of_latents)
    said = ""
    for size in dict.fromkeys(sizes.values()):
        same = [name for name, is_kept in kept.items() if is_kept and sizes[name] == size]
        if len(same) > 1:
            said += (
                f"{', '.join(same[:-1])} and {same[-1]} kept the start that they share, because training did not "
                "clearly better it: that they are equal, or nearly, says nothing about their losses, objectives or "
                "cuts. "
            )
    return said


def is_start(config: Mapping[str, Any], of_latents: bool) -> bool:
    """Whether nothing of a run comes from its loss or objective: neither its latents nor, where these are not all that
    is compared, its reconstruction.

    Parameters
    ----------
    config
        Contents of `config.json`.
    of_latents
        Whether latents are compared, because another run has nothing else.
    """
    if "best_epoch" not in config or config["settings"]["init"] != "pca":  # programs that geneae judge has judged
        return False
    if of_latents:
        return config["best_epoch"] == 0 or bool((config.get("latent_choice") or {}).get("is_start"))
    by_loss = any(step["name"] == OWN_LOSS and step["is_kept"] for step in config.get("steps") or [])
    return config["best_epoch"] == 0 and not by_loss


def gather(runs: list[Run], split: str) -> list[Configuration]:
    """Configurations with their runs, in order of appearance; all must have the same seeds."""
    configurations: dict[str, Configuration] = {}
    for run in runs:
        name = run.configuration
        new = Configuration(name, str(run.config["settings"]["loss"]), {}, str(run.config["center"]))
        configuration = configurations.setdefault(name, new)
        seed = int(run.config["seed"])
        if seed in configuration.profiles:
            raise InputError(f"two runs of configuration '{name}' have seed {seed}. Leave one out.")
        configuration.profiles[seed] = run.profiles[run.profiles["split"] == split].set_index("profile")
    seeds = {name: sorted(configuration.profiles) for name, configuration in configurations.items()}
    first = next(iter(seeds))
    for name, found in seeds.items():
        if found != seeds[first]:
            raise InputError(
                f"all configurations must have the same seeds; '{first}' has {seeds[first]} and '{name}' has {found}. "
                "Run the missing ones, or leave the others out."
            )
    return list(configurations.values())


def check_same(folders: list[Path], color: str | None = None) -> None:
    """Refuse runs that differ in data, space, genes or split; the error names two of them and the difference.

    With `color`, runs that were fitted without that column are refused, too.
    """
    configs = {folder: read_record(folder) if is_judged(folder) else read_config(folder) for folder in folders}
    for folder, config in configs.items():
        if color is not None and (found := config.get("color")) != color:
            fitted = "without --color" if found is None else f"with --color {found}"
            raise InputError(
                f"--color {color} needs runs that were fitted with it; {folder} was fitted {fitted}. Fit it again "
                f"with --color {color}, or leave the flag out."
            )
    splits = {folder: _split_in(folder) for folder in folders}
    first = folders[0]
    for folder, config in configs.items():
        for title, is_same in (
            ("data", config["data"]["fingerprint"] == configs[first]["data"]["fingerprint"]),
            ("space", config["space"] == configs[first]["space"]),
            ("genes", config["network"]["n_genes"] == configs[first]["network"]["n_genes"]),
            ("split", splits[folder] == splits[first]),
        ):
            if not is_same:
                raise InputError(
                    f"{folder} and {first} cannot be compared: they differ in their {title}. Leave one out."
                )


def _split_in(folder: Path) -> list[list[str]]:
    """Names and splits of the profiles of a folder; without their digests, which folders of older versions lack."""
    if not (folder / SPLIT).is_file():
        return []
    table = read_table((folder / SPLIT).read_bytes())
    return table[[name for name in ("profile", "split") if name in table]].to_numpy().tolist()


def configuration_names(folders: list[Path]) -> dict[Path, str]:
    """Name of the configuration of each folder: the settings, other than the seed, in which the folders differ."""
    settings = {folder: read_config(folder)["settings"] for folder in folders}
    if not folders:
        return {}
    first = settings[folders[0]]
    fields = [
        name for name in first if name != "seed" and any(other.get(name) != first[name] for other in settings.values())
    ]
    return {
        folder: " ".join(shown_setting(field, found[field]) for field in fields or ["loss"])
        for folder, found in settings.items()
    }
