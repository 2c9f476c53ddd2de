"""A progress bar in a terminal or a notebook."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

BAR_WIDTH = 24  # characters


WATCHED = {
    "validation_cosine": "validation cosine {:.4f}",
    "validation_mse": "MSE {:.4g}",
    "view_cosine": "cosine of views {:.4f}",
    "validation_knn_20": "k-NN accuracy {:.4f}",
}


@contextlib.contextmanager
def progress_bar(epochs: int, is_quiet: bool) -> Iterator[Callable[[dict[str, float]], None] | None]:
    """A bar that takes rows of the history: on standard error where that is a terminal, below the cell of a notebook,
    and nowhere else or if `is_quiet`."""
    console = Console(stderr=True)
    if console.is_jupyter and not is_quiet:
        yield _notebook_bar(epochs)
        return
    if is_quiet or not console.is_terminal:
        yield None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=BAR_WIDTH),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("splitting molecules, fitting PCA", total=None)
        say = _how_far(epochs)
        yield lambda row: bar.update(task, description=say(row), total=epochs, completed=row["epoch"])


def _how_far(epochs: int) -> Callable[[dict[str, float]], str]:
    """What is said of each row of the history, which must come in order."""
    best = {"epoch": 0.0, "validation_loss": float("inf")}

    def say(row: dict[str, float]) -> str:
        is_start = row["epoch"] == 0  # of this fit or of the next, with --null
        best.update(row if is_start or row["validation_loss"] < best["validation_loss"] else {})
        shown = [said.format(row[name]) for name, said in WATCHED.items() if name in row]
        return "  ".join([f"epoch {row['epoch']:.0f}/{epochs}", *shown, f"lowest loss in epoch {best['epoch']:.0f}"])

    return say


def _notebook_bar(epochs: int) -> Callable[[dict[str, float]], None]:
    """A line of text below the cell, replaced by each row: rich's own bar would need ipywidgets."""
    from IPython.display import display  # there wherever a notebook runs

    say = _how_far(epochs)
    shown = display({"text/plain": "splitting molecules, fitting PCA"}, raw=True, display_id=True)

    def show(row: dict[str, float]) -> None:
        full = round(BAR_WIDTH * row["epoch"] / epochs)
        shown.update({"text/plain": f"{'█' * full}{'░' * (BAR_WIDTH - full)}  {say(row)}"}, raw=True)

    return show


def both(*takers: Callable[[dict[str, float]], None] | None) -> Callable[[dict[str, float]], None]:
    """Gives each row of the history to all that take one."""

    def give(row: dict[str, float]) -> None:
        for take in takers:
            if take is not None:
                take(row)

    return give
