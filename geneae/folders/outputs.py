"""Output files and folders that are written completely or not at all."""

import contextlib
import json
import os
import shutil
import tempfile
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
    """A folder to write, and what to do if it already exists."""

    folder: Path
    """Folder to write."""
    overwrite: bool = False
    """Replace an existing folder that geneae wrote."""
    resume: bool = False
    """Resume from the checkpoint in an existing folder, and replace the folder at the end."""

    def check(self) -> None:
        """Finish an interrupted write, then refuse what `check_writable` refuses."""
        finish_swap(self.folder)
        check_writable(self.folder, self.overwrite, self.resume)

    def new(self) -> contextlib.AbstractContextManager[Path]:
        """Temporary folder from `new_folder`."""
        return new_folder(self.folder, self.overwrite or self.resume)


@contextlib.contextmanager
def new_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder next to `path` that is renamed to `path` at the end, or removed if anything fails before.

    An existing folder is refused, or with `overwrite` replaced if geneae wrote it. A folder that holds only checkpoints
    is always replaced. A folder that another process is writing is refused, too. If the process is killed,
    `finish_swap` repairs what it left behind.
    """
    check_parent(path)
    with only_writer(path):
        finish_swap(path)
        check_writable(path, overwrite, resume=is_unfinished(path) and not (path / CONFIG).exists())
        path = path.resolve()  # a link to a folder elsewhere stays a link
        partial, old = _beside(path)
        partial.mkdir(parents=True)
        try:
            yield partial
            for file in partial.iterdir():
                file.chmod(0o666 & ~_umask())  # safetensors writes files that only their owner can read
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
    """Repair a write that was killed: afterwards any folder at `path` is complete, and no temporary one remains.

    The old folder is renamed only when the new one is complete, so if the old one exists and `path` does not, the new
    one was about to take its name. A folder that another process is writing now is left alone.
    """
    if has_other_writer(path):
        return
    path = path.resolve()
    partial, old = _beside(path)
    if old.is_dir() and not path.exists():
        with contextlib.suppress(FileNotFoundError):  # another process of the same run may have done it
            os.replace(partial if partial.is_dir() else old, path)
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)


def _beside(path: Path) -> tuple[Path, Path]:
    """Temporary names of a new folder and of the one that it replaces; fixed, so that a later run finds them."""
    return path.with_name(f".{path.name}.geneae-partial"), path.with_name(f".{path.name}.geneae-old")


def check_writable(path: Path, overwrite: bool = False, resume: bool = False) -> None:
    """Refuse an output folder that exists, cannot be created, or is being written by another process.

    With `overwrite` or `resume` it may exist, unfinished or finished, if geneae wrote it.
    """
    check_no_writer(path)
    if path.exists():
        if not _is_ours(path):
            raise InputError(
                f"{path} already exists and was not written by geneae. Choose another name for the output."
            )
        if is_unfinished(path) and not overwrite and not resume:
            raise InputError(
                f"{path} holds the checkpoint of an unfinished run. Add --resume to resume it, --overwrite to start "
                "again, or choose another output."
            )
        if _names(path) and not overwrite and not resume:
            raise InputError(
                f"the output folder {path} already exists. Choose another one, or add --overwrite to replace it."
            )
    check_parent(path)


def _is_ours(path: Path) -> bool:
    """Whether a folder is empty, or holds a checkpoint, a model, a learned metric, or the tables of an evaluation or
    comparison. One file alone does not tell: other programs write a `config.json` or a `metrics.csv`, too."""
    return path.is_dir() and (not _names(path) or is_unfinished(path) or any(known <= _names(path) for known in OURS))


def _names(path: Path) -> set[str]:
    """Names of the files in a folder, without half-written checkpoints."""
    return {file.name for file in path.iterdir() if not is_partial(file)}


@contextlib.contextmanager
def new_file(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary file name with the same ending; renamed to `path` at the end, or removed if anything fails before."""
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
    """Refuse an output file that exists (unless `overwrite`), cannot be created, or is written by another process."""
    check_no_writer(path)
    if path.is_dir() or (path.exists() and not overwrite):
        raise InputError(
            f"the output {path} already exists. Choose another name, or add --overwrite to replace a file."
        )
    check_parent(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_parent(path: Path) -> None:
    """Refuse an output whose folder cannot be created or written to."""
    above = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        tempfile.TemporaryFile(dir=above).close()  # permissions alone do not tell, of /proc or a disk that is read-only
    except OSError as error:
        raise InputError(
            f"the output {path} cannot be created: {above} is not a writable folder. Choose another output."
        ) from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dictionary as a JSON file in the format of `to_json`."""
    path.write_text(to_json(content) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Contents of a JSON file; anything that is not JSON is refused."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}). Copy the complete folder again.") from error


def to_json(content: dict[str, Any]) -> str:
    """Indented JSON, with null for NaN and infinities."""
    return json.dumps(_plain(content), indent=2, allow_nan=False)


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _plain(item) for key, item in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(item) for item in content]
    if isinstance(content, np.generic):
        content = content.item()
    return None if isinstance(content, float) and not np.isfinite(content) else content
