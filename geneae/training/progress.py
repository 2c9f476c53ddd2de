"""The history of a fit while it trains: as CSV, or for TensorBoard. `LOGS`."""

import contextlib
import csv
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path

from geneae.settings.errors import InputError

OnEpoch = Callable[[dict[str, float]], None]
CSV = "history.csv"


@contextlib.contextmanager
def csv_log(folder: Path) -> Iterator[OnEpoch]:
    """Takes rows of the history into `history.csv`; each is in the file when its epoch is over."""
    with contextlib.ExitStack() as stack:
        writers: list[tuple[csv.DictWriter[str], Callable[[], None]]] = []

        def note(row: dict[str, float]) -> None:
            if not writers:  # a fit that is refused leaves no file
                folder.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context((folder / CSV).open("a", encoding="utf-8", newline=""))
                writers.append((csv.DictWriter(file, list(row)), file.flush))
                if not file.tell():  # a resumed fit goes on where its log ends
                    writers[0][0].writeheader()
            writer, flush = writers[0]
            writer.writerow(row)
            flush()

        yield note


@contextlib.contextmanager
def tensorboard_log(folder: Path) -> Iterator[OnEpoch]:
    """Takes rows of the history for `tensorboard --logdir FOLDER`: a curve for each column, by epoch."""
    with contextlib.ExitStack() as stack:
        from torch.utils.tensorboard import SummaryWriter  # slow to load, and optional

        writers: list[SummaryWriter] = []

        def note(row: dict[str, float]) -> None:
            if not writers:
                writers.append(SummaryWriter(str(folder)))
                stack.callback(writers[0].close)
            for name, number in row.items():
                if name != "epoch":
                    writers[0].add_scalar(name, number, int(row["epoch"]))
            writers[0].flush()

        yield note


LOGS: dict[str, Callable[[Path], AbstractContextManager[OnEpoch]]] = {"csv": csv_log, "tensorboard": tensorboard_log}


@contextlib.contextmanager
def open_log(name: str | None, folder: Path) -> Iterator[OnEpoch | None]:
    """Takes rows of the history into a folder that is made with the first; nothing where `name` is None.

    Of a fit with nulls, whose epochs begin at 0 again, only the fit itself is logged.
    """
    if name is None:
        yield None
        return
    with LOGS[name](folder) as note:
        epochs: list[float] = []

        def note_first_fit(row: dict[str, float]) -> None:
            if not epochs or row["epoch"] == epochs[-1] + 1:
                epochs.append(row["epoch"])
                note(row)
            else:
                epochs.append(float("inf"))

        yield note_first_fit


def check_log(name: str | None, folder: Path, overwrite: bool, resume: bool = False) -> None:
    """Refuse a log that cannot be written; with `overwrite`, an earlier log makes room; with `resume` it goes on."""
    if name is None:
        return
    if name == "tensorboard" and find_spec("tensorboard") is None:
        raise InputError(
            "--log tensorboard needs the package tensorboard, which is not installed. "
            "Install it by: pip install 'geneae[tensorboard]', or use --log csv."
        )
    if not folder.exists() or (resume and folder.is_dir()):
        return
    ours = [folder / CSV, *folder.glob("events.out.tfevents.*")] if folder.is_dir() else []
    if not overwrite or not folder.is_dir():
        raise InputError(f"the log {folder} is there. Choose another output, or add --overwrite to replace it.")
    for file in ours:
        file.unlink(missing_ok=True)
