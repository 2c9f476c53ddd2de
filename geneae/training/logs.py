"""Logs of the history of a fit, as CSV or for TensorBoard (`LOGS`)."""

import contextlib
import csv
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path

from geneae.settings.errors import InputError
from geneae.settings.text import escaped
from geneae.training.progress import OnEpoch

CSV = "history.csv"
CSV_BEGINS = b"epoch,train_loss,validation_loss,"
"""Beginning of a `history.csv` of geneae, by which it is told from one of another program."""
EVENTS_END = ".geneae"
"""End of the names of geneae's files for TensorBoard."""


@contextlib.contextmanager
def csv_log(folder: Path) -> Iterator[OnEpoch]:
    """Write rows of the history to `history.csv` in a folder, each at the end of its epoch.

    A resumed fit gives the rows of all its epochs again, so an earlier file is replaced.
    """
    with contextlib.ExitStack() as stack:
        writers: list[tuple[csv.DictWriter[str], Callable[[], None]]] = []

        def note(row: dict[str, float]) -> None:
            if not writers:  # a refused fit leaves no file
                folder.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context((folder / CSV).open("w", encoding="utf-8", newline=""))
                writers.append((csv.DictWriter(file, list(row)), file.flush))
                writers[0][0].writeheader()
            writer, flush = writers[0]
            writer.writerow(row)
            flush()

        yield note


@contextlib.contextmanager
def tensorboard_log(folder: Path) -> Iterator[OnEpoch]:
    """Write rows of the history for `tensorboard --logdir FOLDER`: a curve for each column, by epoch."""
    with contextlib.ExitStack() as stack:
        from torch.utils.tensorboard import SummaryWriter  # slow to load, and optional

        writers: list[SummaryWriter] = []

        def note(row: dict[str, float]) -> None:
            if not writers:
                writers.append(SummaryWriter(str(folder), filename_suffix=EVENTS_END))
                stack.callback(writers[0].close)
            for name, number in row.items():
                if name != "epoch":
                    writers[0].add_scalar(name, number, int(row["epoch"]))
            writers[0].flush()

        yield note


LOGS: dict[str, Callable[[Path], AbstractContextManager[OnEpoch]]] = {"csv": csv_log, "tensorboard": tensorboard_log}


@contextlib.contextmanager
def open_log(name: str | None, folder: Path) -> Iterator[OnEpoch | None]:
    """Write rows of the history to a folder that the first row creates; None if `name` is None.

    Permuted controls (`--null`), whose epochs begin at 0 again, are not logged.
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
    """Refuse a log that cannot be written; `overwrite` deletes an earlier log, `resume` keeps it until the fit
    gives its rows again."""
    if name is None:
        return
    if name == "tensorboard" and find_spec("tensorboard") is None:
        raise InputError(
            "--log tensorboard needs the package tensorboard, which is not installed. "
            "Install it with: pip install tensorboard, or use --log csv."
        )
    table = folder / CSV
    if table.exists() and not _is_history(table):
        raise InputError(f"{table} was not written by geneae, and the log would replace it. Choose another output.")
    if name == "tensorboard" and escaped(folder) != str(folder):
        raise InputError(
            f"--log tensorboard needs a folder whose name is UTF-8 text; found {folder}. Choose another output, or use "
            "--log csv."
        )
    if not folder.exists() or (resume and folder.is_dir()):
        return
    if not overwrite or not folder.is_dir():
        raise InputError(f"the log {folder} already exists. Choose another output, or add --overwrite to replace it.")
    for file in (table, *folder.glob(f"events.out.tfevents.*{EVENTS_END}")):
        file.unlink(missing_ok=True)


def _is_history(path: Path) -> bool:
    """Whether a file is a table that `csv_log` wrote, or the empty beginning of one."""
    with path.open("rb") as file:
        beginning = file.read(len(CSV_BEGINS))
    return beginning in (b"", CSV_BEGINS)
