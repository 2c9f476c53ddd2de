"""Output files and folders that are written whole or not at all."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geneae.folders.locks import check_no_writer, has_other_writer, only_writer
from geneae.settings.errors import InputError
from geneae.training.checkpoints import is_partial, is_unfinished, sync

CONFIG, WEIGHTS, GENES, SPLIT = "config.json", "model.safetensors", "genes.csv", "split.csv"
METRIC_WEIGHTS = "metric.safetensors"
OURS = (
    {CONFIG, WEIGHTS, GENES},
    {CONFIG, METRIC_WEIGHTS},
    {"profiles.csv", "metrics.csv"},
    {"paired.csv", "metrics.csv"},
)


@dataclass(frozen=True)
class Output:
    """A folder to write, and what may be done with one that is there already."""

    folder: Path
    """To write."""
    overwrite: bool = False
    """Replace a folder of ours."""
    resume: bool = False
    """Resume from the checkpoint that it holds, and replace that."""

    def check(self) -> None:
        """Refuse what `check_writable` refuses, once an interrupted write is finished."""
        finish_swap(self.folder)
        check_writable(self.folder, self.overwrite, self.resume)

    def new(self) -> contextlib.AbstractContextManager[Path]:
        """The temporary folder of `new_folder`."""
        return new_folder(self.folder, self.overwrite or self.resume)


@contextlib.contextmanager
def new_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its name at the end, or vanishes if anything fails before.

    A folder that is there already is refused; with `overwrite` it is replaced, if it is one of ours. One that holds
    nothing but checkpoints is replaced always. One that another process is writing is refused, too. Where the process
    is killed, `finish_swap` makes good.
    """
    check_parent(path)
    with only_writer(path):
        finish_swap(path)
        check_writable(path, overwrite, resume=is_unfinished(path) and not (path / CONFIG).exists())
        path = path.resolve()  # a link to a folder elsewhere stays one
        partial, old = _beside(path)
        partial.mkdir(parents=True)
        try:
            yield partial
            for file in partial.iterdir():
                file.chmod(0o666 & ~_umask())  # safetensors makes its files private
                sync(file)
            sync(partial)
            if path.exists():
                os.replace(path, old)
                os.replace(partial, path)
                shutil.rmtree(old)
            else:
                os.replace(partial, path)
            sync(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def finish_swap(path: Path) -> None:
    """End what was killed while a folder was written or replaced: there is one whole folder, and nothing beside it.

    The old folder gives its name away only when the new one is whole, so that a name without a folder means that the
    new one was about to take it. What another process is writing now was not killed, and is left alone.
    """
    if has_other_writer(path):
        return
    path = path.resolve()
    partial, old = _beside(path)
    if old.is_dir() and not path.exists():
        with contextlib.suppress(FileNotFoundError):  # another process of the same run may do it, too
            os.replace(partial if partial.is_dir() else old, path)
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)


def _beside(path: Path) -> tuple[Path, Path]:
    """Names of a folder that is being written and of the one that it replaces; fixed, so that a next run finds them."""
    return path.with_name(f".{path.name}.geneae-partial"), path.with_name(f".{path.name}.geneae-old")


def check_writable(path: Path, overwrite: bool = False, resume: bool = False) -> None:
    """Refuse an output folder that is there, is no folder of ours, cannot be made, or is being written.

    With `resume` it may be there: with a checkpoint, or finished.
    """
    check_no_writer(path)
    if path.exists():
        if not _is_ours(path):
            raise InputError(f"{path} is there and was not written by geneae. Choose another name for the output.")
        if is_unfinished(path) and not overwrite and not resume:
            raise InputError(
                f"{path} holds the checkpoint of a run that has not ended. Add --resume to go on with it, --overwrite "
                "to start anew, or choose another output."
            )
        if _names(path) and not overwrite and not resume:
            raise InputError(
                f"the output folder {path} is there. Choose another one, or add --overwrite to replace it."
            )
    check_parent(path)


def _is_ours(path: Path) -> bool:
    """Whether a folder is empty, or holds a checkpoint, a model, a metric or the tables of an evaluation or comparison:
    others write a `config.json` or a `metrics.csv` too."""
    return path.is_dir() and (not _names(path) or is_unfinished(path) or any(known <= _names(path) for known in OURS))


def _names(path: Path) -> set[str]:
    """What is in a folder, but for a checkpoint that was killed while it was written."""
    return {file.name for file in path.iterdir() if not is_partial(file)}


@contextlib.contextmanager
def new_file(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary name with the same ending that becomes `path` at the end, or vanishes if anything fails before."""
    check_parent(path)
    with only_writer(path):
        check_new_file(path, overwrite)
        partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        try:
            yield partial
            sync(partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def check_new_file(path: Path, overwrite: bool = False) -> None:
    """Refuse an output file that is there, cannot be made, or is being written."""
    check_no_writer(path)
    if path.is_dir() or (path.exists() and not overwrite):
        raise InputError(f"the output {path} is there. Choose another name, or add --overwrite to replace a file.")
    check_parent(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_parent(path: Path) -> None:
    """Refuse an output whose folder cannot be made or written to."""
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"the output {path} cannot be made: {above} is not a folder that can be written to.")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """A file of `to_json`."""
    path.write_text(to_json(content) + "\n", encoding="utf-8")


def to_json(content: dict[str, Any]) -> str:
    """Indented JSON; NaN becomes null."""
    return json.dumps(_plain(content), indent=2, allow_nan=False)


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _plain(item) for key, item in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(item) for item in content]
    if isinstance(content, np.generic):
        content = content.item()
    return None if isinstance(content, float) and not np.isfinite(content) else content
