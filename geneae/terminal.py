"""What the commands print: progress while training, tables and sentences at the end."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from geneae.evaluation import HELD_OUT, Evaluation, value, verdict

SHOWN = {"cosine": "cosine ↑", "centred_cosine": "centred cosine ↑", "mse": "MSE ↓", HELD_OUT: "held-out cosine ↑"}
TITLES = {"model": "model", "shrunken_pca": "shrunken PCA", "pca": "PCA", "mean_profile": "mean profile"}
SPLITS = ("validation", "test")


@contextlib.contextmanager
def progress_bar(epochs: int, is_quiet: bool) -> Iterator[Callable[[dict[str, float]], None] | None]:
    """A bar on standard error that takes rows of the history; nothing where that is no terminal or `is_quiet`."""
    console = Console(stderr=True)
    if is_quiet or not console.is_terminal:
        yield None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("splitting molecules, fitting PCA", total=None)
        best = {"epoch": 0.0, "validation_loss": float("inf")}

        def show(row: dict[str, float]) -> None:
            best.update(row if row["validation_loss"] < best["validation_loss"] else {})
            said = (
                f"epoch {row['epoch']:.0f}/{epochs}  validation cosine {row['validation_cosine']:.4f}  "
                f"MSE {row['validation_mse']:.4g}  best epoch {best['epoch']:.0f}"
            )
            bar.update(task, description=said, total=epochs, completed=row["epoch"])

        yield show


def metrics_table(evaluation: Evaluation, splits: tuple[str, ...] = SPLITS) -> Table:
    """Model and baselines x cosine, centred cosine, MSE and held-out cosine; in each cell the mean of every split."""
    metrics = evaluation.metrics
    present = [split for split in splits if split in set(metrics["split"])]
    sizes = [f"{int(metrics.loc[metrics['split'] == split, 'n_profiles'].max()):,} {split}" for split in present]
    table = Table(
        box=None, title=f"Means over {' / '.join(sizes)} profiles", title_justify="left", padding=(0, 2, 0, 0)
    )
    table.add_column("")
    shown = [metric for metric in SHOWN if _is_there(evaluation, metric, present[-1])]
    for metric in shown:
        table.add_column(SHOWN[metric], justify="right", no_wrap=True)

    def cells(model: str, of: Callable[[str], str]) -> list[str]:
        return [_numbers([value(metrics, model, split, of(metric)) for split in present]) for metric in shown]

    for model, title in TITLES.items():
        if model in set(metrics["model"]):
            table.add_row(title, *cells(model, lambda metric: metric))
    if _is_there(evaluation, "ceiling", present[-1]):
        table.add_row("noise ceiling", *cells("model", lambda metric: "ceiling" if metric == HELD_OUT else ""))
    return table


def _is_there(evaluation: Evaluation, metric: str, split: str) -> bool:
    return not np.isnan(value(evaluation.metrics, "model", split, metric))


def _numbers(numbers: list[float]) -> str:
    return " / ".join(f"{number:.4f}" for number in numbers if not np.isnan(number))


def print_result(evaluation: Evaluation, split: str, splits: tuple[str, ...] = SPLITS) -> None:
    """The table, then the sentence about one split."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(metrics_table(evaluation, splits), markup=False)
    console.print("↑ higher is better, ↓ lower is better", verdict(evaluation, split), sep="\n", markup=False)
