"""Cut constants against learning rates: do smaller initial weights achieve what another learning rate does not?"""

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from geneae import pl
from geneae.evaluation.comparison import answer, compare_configurations
from geneae.evaluation.records import HELD_OUT, judged_split, value
from geneae.fitting.compare import PAIRED, gather
from geneae.fitting.grid import Task
from geneae.folders.manifest import REPORT
from geneae.folders.outputs import new_files
from geneae.folders.run import Run, read_run
from geneae.folders.tables import write_table
from geneae.report import write_report
from geneae.settings.errors import InputError
from geneae.settings.settings import Settings

RUNS, ARMS, CONTROLS, CURVES = "runs.csv", "arms.csv", "controls.csv", "curves.png"
POWERS = (1, 2)  # a cut by c acts like a learning rate times c under Adam, times c^2 under gradient descent
NEARLY = 0.95  # share of the final value
SHOWN = ("reconstruction_norm", "gradient_norm", "validation_cosine")
MOST_SHOWN = 8  # configurations in a figure


@dataclass(frozen=True)
class Sweep:
    """Values to combine; all configurations share the same seeds and split."""

    cuts: tuple[float, ...]
    """Cut constants; 1 (no cut) is always added."""
    rates: tuple[float, ...]
    """Learning rates; controls are matched to the first one."""
    decays: tuple[float, ...]
    """Weight decays, factors."""
    n_seeds: int
    """Number of runs, one per seed, of each configuration."""

    def __post_init__(self) -> None:
        for name, values in (("cut", self.cuts), ("learning rate", self.rates), ("weight decay", self.decays)):
            if not values:
                raise InputError(f"a sweep needs at least one {name}; found none. Name one.")

    def configurations(self) -> list[tuple[float, float, float, bool]]:
        """Cut, learning rate, weight decay and whether it is only a control: every combination, then the missing
        controls, which are cut 1 with the first learning rate times c and times c^2."""
        cuts = tuple(dict.fromkeys((1.0, *self.cuts)))
        found = list(itertools.product(cuts, dict.fromkeys(self.rates), dict.fromkeys(self.decays)))
        controls = [
            (1.0, self.rates[0] * cut**power, decay) for cut in cuts for power in POWERS for decay in self.decays
        ]
        missing = [one for one in dict.fromkeys(controls) if not any(_is_same(one, other) for other in found)]
        return [(*one, False) for one in found] + [(*one, True) for one in missing]


def _is_same(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two configurations are equal up to rounding."""
    return all(abs(a - b) <= 1e-9 * max(abs(a), abs(b)) for a, b in zip(one, other, strict=True))


def sweep_tasks(base: Settings, sweep: Sweep, folder: Path) -> list[Task]:
    """Every run of a sweep; the seed varies fastest."""
    tasks = []
    for cut, rate, decay, is_control in sweep.configurations():
        settings = replace(base, cut=cut, learning_rate=rate, weight_decay=decay, split_seed=base.seed_of_split)
        title = f"cut={cut:.3g} rate={rate:.3g}"
        with_decay, control = f"{title} decay={decay:g}", " control" * is_control
        name = re.sub(r"[^\w.+=-]+", "-", with_decay + control)
        title = (with_decay if len(set(sweep.decays)) > 1 else title) + control
        tasks += [
            Task(
                title, replace(settings, seed=seed), folder / f"{name}-seed{seed}", seed == base.seed, with_report=False
            )
            for seed in range(base.seed, base.seed + sweep.n_seeds)
        ]
    return tasks


def judge_sweep(tasks: list[Task], sweep: Sweep, folder: Path) -> str:
    """Evaluate the finished runs of a sweep, and write its tables, curves and report.

    For each cut, the learning rate and weight decay with the lowest validation loss, averaged over seeds, are chosen.
    Controls are left out of this choice, so that every cut has the same number of candidates. The chosen configurations
    are compared profile by profile on the split of `judged_split`.

    Returns
    -------
    The answer. Written to `folder`: `runs.csv`, `arms.csv`, `controls.csv`, `paired.csv`, `curves.png`, `report.html`.
    """
    runs = [read_run(task.folder, task.configuration) for task in tasks]
    split = judged_split(runs[0].profiles["split"])
    table = pd.DataFrame([_row(task, run, split) for task, run in zip(tasks, runs, strict=True)])
    means = _by_configuration(table)
    best = _best(means)
    chosen = [run for name in best for run in runs if run.configuration == name]
    paired = compare_configurations(gather(chosen, split), split) if len(best) > 1 else None
    controls = control_table(means, table, sweep)
    metrics = pd.concat([run.named(run.metrics) for run in chosen], ignore_index=True)
    said = "There is only one cut, and nothing to compare it with." if paired is None else answer(paired, metrics)
    said += f" Each cut has its best learning rate and weight decay by validation loss.{_at_the_edge(means, best)}"
    shown = [name for name in dict.fromkeys(controls["arm"]) if name in set(means["arm"])][:MOST_SHOWN] or best
    with new_files(folder) as partial:
        for name, content in ((RUNS, table), (ARMS, means), (CONTROLS, controls), (PAIRED, paired)):
            if content is not None:
                write_table(content, partial / name)
        figure = pl.dynamics_by_epoch(_histories(runs, shown), SHOWN)[0].get_figure(root=True)
        assert figure is not None
        figure.savefig(partial / CURVES, dpi=150)
        write_report(partial / REPORT, chosen, said, paired)
    return said


def _histories(runs: Iterable[Run], names: Iterable[str]) -> dict[str, list[pd.DataFrame]]:
    runs = list(runs)
    return {name: [run.history for run in runs if run.configuration == name] for name in names}


def _row(task: Task, run: Run, split: str) -> dict[str, object]:
    """Settings and results of one run."""
    history, settings = run.history, task.settings
    held_out = value(run.metrics, "model", split, HELD_OUT)
    return {
        "arm": task.configuration,
        "cut": settings.cut,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "seed": settings.seed,
        "is_control": task.configuration.endswith(" control"),
        "start_norm": float(history["reconstruction_norm"].iloc[0]),
        "final_norm": float(history["reconstruction_norm"].iloc[-1]),
        "validation_loss": float(history["validation_loss"].min()),
        "first_validation_cosine": float(history["validation_cosine"].iloc[min(1, len(history) - 1)]),
        "mean_validation_cosine": float(history["validation_cosine"].iloc[1:].mean()),
        "best_validation_cosine": float(history["validation_cosine"].max()),
        "epochs_to_95": epochs_to(history["validation_cosine"]),
        f"{split}_cosine": value(run.metrics, "model", split, "cosine"),
        f"{split}_{HELD_OUT}": held_out,
    }


def epochs_to(curve: pd.Series, share: float = NEARLY) -> int:
    """First epoch, counted from 0, at which a curve reaches this share of its final value."""
    values = curve.to_numpy(float)
    return int((values >= share * values[-1]).argmax())


def _by_configuration(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, and the standard deviation of the validation loss between seeds."""
    keys = ["arm", "cut", "learning_rate", "weight_decay", "is_control"]
    groups = table.groupby(keys, sort=False)
    means = groups.mean(numeric_only=True).drop(columns="seed")
    means["validation_loss_deviation"] = groups["validation_loss"].std(ddof=1)
    return means.reset_index()


def _best(means: pd.DataFrame) -> list[str]:
    """The configuration with the lowest validation loss of each cut, cut 1 first."""
    candidates = means[~means["is_control"]]
    rows = candidates.loc[candidates.groupby("cut")["validation_loss"].idxmin()]
    rows = rows.sort_values("cut", key=lambda cut: (cut != 1) * 1e9 + cut)
    return list(rows["arm"])


def _at_the_edge(means: pd.DataFrame, best: list[str]) -> str:
    """Sentence on cuts that might do better at a learning rate that was not tried; empty if there are none."""
    rates = means.loc[~means["is_control"], "learning_rate"]
    chosen = means[means["arm"].isin(best)]
    edge = chosen[chosen["learning_rate"].isin([rates.min(), rates.max()])]["arm"]
    return f" At the edge of the learning rates tried: {', '.join(edge)}." if len(edge) else ""


def control_table(means: pd.DataFrame, table: pd.DataFrame, sweep: Sweep) -> pd.DataFrame:
    """Each cut c at the first learning rate, next to no cut at that rate, at c times and at c^2 times that rate.

    Returns
    -------
    Columns cut, arm, control (`cut`, `lr`, `lr c` or `lr c^2`), first_validation_cosine, mean_validation_cosine (over
    all epochs after the start, as a measure of speed), epochs_to_95, difference (mean_validation_cosine minus that of
    the cut) and deviation (standard deviation of the difference between seeds).
    """
    rows = []
    rate, decay = sweep.rates[0], sweep.decays[0]
    by_seed = table.set_index(["arm", "seed"])["mean_validation_cosine"]
    for cut in dict.fromkeys(sweep.cuts):
        if cut == 1:
            continue
        wanted = {"cut": (cut, rate), "lr": (1.0, rate), "lr c": (1.0, rate * cut), "lr c^2": (1.0, rate * cut**2)}
        own = None
        for control, (factor, at) in wanted.items():
            is_it = [
                _is_same((factor, at, decay), found)
                for found in zip(means["cut"], means["learning_rate"], means["weight_decay"], strict=True)
            ]
            row = means[is_it].iloc[0]
            values = by_seed[row["arm"]]
            own = values if own is None else own
            rows.append(
                {
                    "cut": cut,
                    "arm": row["arm"],
                    "control": control,
                    "first_validation_cosine": row["first_validation_cosine"],
                    "mean_validation_cosine": row["mean_validation_cosine"],
                    "epochs_to_95": row["epochs_to_95"],
                    "difference": float((values - own).mean()),
                    "deviation": float((values - own).std(ddof=1)) if len(values) > 1 else float("nan"),
                }
            )
    names = ["cut", "arm", "control", "first_validation_cosine", "mean_validation_cosine", "epochs_to_95"]
    return pd.DataFrame(rows, columns=[*names, "difference", "deviation"])
