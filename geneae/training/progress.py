"""Progress of a fit: a bar in a terminal, a line in a notebook."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task
from rich.progress_bar import ProgressBar as RichBar
from rich.table import Table
from rich.text import Text

from geneae.settings.stages import STAGES, enter, listening
from geneae.training.time_left import TimeLeft

OnEpoch = Callable[[dict[str, float]], None]
BAR_WIDTH, LEFT_WIDTH, TAKEN = 24, 17, 6  # characters of the bar, of the time left, of the spinner and between them
ROOMY = (
    100  # columns of a terminal in which the bar leaves room for the numbers of an epoch; in others it is half as wide
)

WATCHED = {
    "validation_cosine": "validation cosine {:.4f}",
    "validation_mse": "MSE {:.4g}",
    "view_cosine": "cosine of views {:.4f}",
    "validation_knn_20": "k-NN accuracy {:.4f}",
}


@contextlib.contextmanager
def reading_shown(is_quiet: bool) -> Iterator[None]:
    """Say on standard error, if that is a terminal, that profiles are read; tell listeners that the stage begins."""
    enter("reading")
    console = Console(stderr=True)
    if is_quiet or console.is_jupyter or not console.is_terminal:
        yield
        return
    with console.status(STAGES["reading"]):
        yield


@contextlib.contextmanager
def progress_bar(epochs: int, is_quiet: bool, time_left: TimeLeft | None = None) -> Iterator[OnEpoch | None]:
    """Progress of a fit from its bases on, as a function of rows of the history: on standard error if that is a
    terminal, or below the cell of a notebook; None elsewhere or if `is_quiet`.

    Stages show themselves. With `time_left` the bar is about the whole fit, and says when it ends; without it there is
    a bar of the epochs alone.
    """
    console = Console(stderr=True)
    if is_quiet or not (console.is_jupyter or console.is_terminal):
        yield None
        return
    shown = _notebook_line() if console.is_jupyter else None
    with contextlib.ExitStack() as stack:
        if shown is None:
            bar = stack.enter_context(_Bar(SpinnerColumn(), _Whole(console), console=console, transient=True))
            shown = bar.show
        show = _Shown(epochs, time_left, shown)
        stack.enter_context(listening(show.begin))
        yield show.note


class _Shown:
    """What a bar or a line says, brought up to date by stages and by epochs."""

    def __init__(self, epochs: int, time_left: TimeLeft | None, show: "Show") -> None:
        self._epochs, self._time_left, self._show, self._begun = epochs, time_left, show, time.monotonic()
        self._say, self._said = _how_far(epochs), STAGES["bases"]
        self._share_of_epochs = 0.0
        self._tell()

    def begin(self, stage: str) -> None:
        """A stage begins."""
        if self._time_left is not None:
            self._time_left.begin(stage)
        self._said = STAGES[stage]
        self._tell()

    def note(self, row: dict[str, float]) -> None:
        """An epoch is over."""
        if self._time_left is not None:
            self._time_left.note(row)
        self._said, self._share_of_epochs = self._say(row), row["epoch"] / self._epochs
        self._tell()

    def _tell(self) -> None:
        self._show(self._said, self.share, self.left)

    def left(self) -> float | None:
        """Seconds until the end, if they are known."""
        return None if self._time_left is None else self._time_left.left()

    def share(self) -> float:
        """What is done, from 0 to 1."""
        left, spent = self.left(), time.monotonic() - self._begun
        return self._share_of_epochs if left is None else spent / (spent + left) if spent + left > 0 else 1.0


Show = Callable[[str, Callable[[], float], Callable[[], float | None]], None]
"""Shows what is going on, the share that is done, and the seconds left."""


class _Whole(ProgressColumn):
    """The text, the bar and the time left of a fit, drawn anew with every refresh."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def render(self, task: Task) -> RenderableType:
        """One line."""
        done, left = task.fields["share"](), task.fields["left"]()
        line = Table.grid(padding=(0, 1))
        bar_width = BAR_WIDTH if self._console.width >= ROOMY else BAR_WIDTH // 2
        widths = (bar_width, 5, LEFT_WIDTH if left is not None else 1)
        for width in widths:
            line.add_column(width=width, no_wrap=True)
        said = Text(task.description, no_wrap=True)
        said.truncate(max(self._console.width - sum(widths) - TAKEN, 1), overflow="ellipsis")
        bar = RichBar(total=1.0, completed=done, width=bar_width)
        line.add_row(bar, f"{100 * done:3.0f} %", _said_left(left), said)
        return line


class _Bar(Progress):
    """A line on a terminal."""

    def show(self, said: str, share: Callable[[], float], left: Callable[[], float | None]) -> None:
        """Replace the line."""
        if not self.task_ids:
            self.add_task(said, total=None, share=share, left=left)
        self.update(self.task_ids[0], description=said, share=share, left=left, refresh=True)


def _said_left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:
        return f"about {max(1, round(seconds))} s left"
    return f"about {round(seconds / 60)} min left" if seconds < 5400 else f"about {seconds / 3600:.1f} h left"


def _how_far(epochs: int) -> Callable[[dict[str, float]], str]:
    """Function that describes each row of the history; the rows must come in order."""
    best = {"epoch": 0.0, "validation_loss": float("inf")}

    def say(row: dict[str, float]) -> str:
        is_start = row["epoch"] == 0  # start of this fit, or with --null of the next one
        best.update(row if is_start or row["validation_loss"] < best["validation_loss"] else {})
        shown = [said.format(row[name]) for name, said in WATCHED.items() if name in row]
        return "  ".join([f"epoch {row['epoch']:.0f}/{epochs}", *shown, f"lowest loss in epoch {best['epoch']:.0f}"])

    return say


def _notebook_line() -> "Show":
    """Line of text below the cell, replaced by each stage and epoch. The bars of rich and tqdm need ipywidgets: without
    it, rich shows nothing, and tqdm warns."""
    from IPython.display import display  # available wherever a notebook runs

    shown: list[Any] = []

    def show(said: str, share: Callable[[], float], left: Callable[[], float | None]) -> None:
        full = round(BAR_WIDTH * share())
        text = f"{'█' * full}{'░' * (BAR_WIDTH - full)}  {said}"
        content = {"text/plain": "  ".join(filter(None, (text, _said_left(left()))))}
        if shown:
            shown[0].update(content, raw=True)
        else:
            shown.append(display(content, raw=True, display_id=True))

    return show


def both(*takers: OnEpoch | None) -> OnEpoch:
    """Function that passes each row of the history to all given functions; None is skipped."""

    def give(row: dict[str, float]) -> None:
        for take in takers:
            if take is not None:
                take(row)

    return give
