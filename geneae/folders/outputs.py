"""Output files and folders that are written completely or not at all, and replace only what geneae wrote."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geneae.folders.locks import check_folder_name, check_name, check_no_writer, has_other_writer, only_writer
from geneae.folders.manifest import (
    CONFIG,
    EDITABLE,
    OF_RUNS,
    SHAREABLE,
    SUMS,
    archive_lines,
    archive_sums,
    edited,
    foreign,
    is_marked,
    list_of,
    owned,
    read_list,
    remove_owned,
    write_list,
)
from geneae.settings.errors import InputError, listed
from geneae.training.checkpoints import is_partial, is_unfinished, sync

NEW_SUMS = f"{SUMS}.new"


@dataclass(frozen=True)
class Output:
    """A folder to write, and what to do if it already exists."""

    folder: Path
    """Folder to write."""
    overwrite: bool = False
    """Replace what geneae wrote into an existing folder."""
    resume: bool = False
    """Resume from the checkpoint in an existing folder, and replace what geneae wrote at the end."""

    def check(self) -> None:
        """Finish an interrupted write, then refuse what `check_writable` refuses."""
        finish_swap(self.folder)
        check_writable(self.folder, self.overwrite, self.resume, (*OF_RUNS, SUMS))

    def new(self) -> contextlib.AbstractContextManager[Path]:
        """Temporary folder from `new_folder`."""
        return new_folder(self.folder, self.overwrite or self.resume)


@contextlib.contextmanager
def new_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder next to `path` that is renamed to `path` at the end, or removed if anything fails before.

    It gets a list of its files with their checksums, by which geneae knows later that it wrote them. An existing folder
    is refused, or with `overwrite` replaced if geneae wrote it; what others have put into it is moved to the new one. A
    folder in which geneae wrote only checkpoints is always replaced. A folder that another process is writing is
    refused, too. If the process is killed, `finish_swap` repairs what it left behind.
    """
    check_parent(path)
    with only_writer(path):
        finish_swap(path)
        check_writable(path, overwrite, resume=is_unfinished(path) and not (path / CONFIG).exists())
        path = path.resolve()  # a link to a folder elsewhere stays a link
        with _new_partial(path) as partial:
            yield partial
            names = _complete(partial)
            if path.exists():
                check_free(path, names)
                old = _beside(path)[1]
                os.replace(path, old)
                os.replace(partial, path)
                _clear(old, path)
            else:
                os.replace(partial, path)
            sync(path.parent)


@contextlib.contextmanager
def new_files(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files are moved into `folder` at the end, or removed if anything fails before.

    There they replace earlier files of geneae with the same names; a file of somebody else under such a name is
    refused. Everything else in the folder stays, such as the folders of runs beside the tables that compare them.
    """
    check_parent(folder)
    with only_writer(folder):
        finish_swap(folder)
        folder = folder.resolve()
        with _new_partial(folder) as partial:
            yield partial
            names = _complete(partial)
            folder.mkdir(parents=True, exist_ok=True)
            check_addable(folder, names)
            before = {name for name in owned(folder) if name not in names and not (folder / name).is_symlink()}
            kept = {name: digest for name, digest in (read_list(folder) or {}).items() if name in before}
            (partial / NEW_SUMS).write_text(list_of((read_list(partial) or {}) | kept), encoding="utf-8")
            sync(partial / NEW_SUMS)
            for name in names:  # an old text beside a new list would be taken for one that somebody has changed
                if name.endswith(EDITABLE) and (folder / name).exists():
                    os.replace(folder / name, partial / f"{name}.before")
            os.replace(partial / NEW_SUMS, folder / SUMS)
            for name in sorted(names - {SUMS}):  # a killed process leaves files that the list has already
                os.replace(partial / name, folder / name)
            sync(folder)


@contextlib.contextmanager
def replaced_file(folder: Path, name: str) -> Iterator[Path]:
    """A temporary file that takes the place of one of the files that geneae wrote into a folder.

    One that somebody has changed since is refused. Where this fails, the folder is as it was; if the process is killed,
    it is complete, with or without this file.
    """
    check_parent(folder / name)
    with only_writer(folder):
        finish_swap(folder)
        check_free(folder, [name])
        check_no_mount(folder)
        folder = folder.resolve()
        with _new_partial(folder) as partial:
            yield partial / name
            _complete(partial)
            has_list = _write_list_of_both(partial, folder)
            if has_list:
                shutil.copyfile(folder / SUMS, partial / f"{SUMS}.before")
            if os.path.lexists(folder / name):
                os.replace(folder / name, partial / f"{name}.before")
            try:
                if has_list:
                    os.replace(partial / NEW_SUMS, folder / SUMS)
                os.replace(partial / name, folder / name)
            except OSError:
                for file in (SUMS, name):
                    with contextlib.suppress(FileNotFoundError):  # there was none
                        os.replace(partial / f"{file}.before", folder / file)
                raise
            sync(folder)


def _write_list_of_both(partial: Path, folder: Path) -> bool:
    """Write the list of the files that a folder keeps and of those that join them from a temporary one, which keeps its
    own as the mark that it is ours; False for a folder without a list, as older versions wrote it."""
    sums, new = read_list(folder), read_list(partial) or {}
    if sums is not None:
        ours = owned(folder) | edited(folder)
        text = list_of({file: digest for file, digest in sums.items() if file in ours} | new)
    elif (of_archive := archive_sums(folder)) and set(of_archive) <= set(SHAREABLE):
        text = archive_lines(of_archive | new)
    else:
        return False
    (partial / NEW_SUMS).write_text(text, encoding="utf-8")
    sync(partial / NEW_SUMS)
    return True


@contextlib.contextmanager
def _new_partial(path: Path) -> Iterator[Path]:
    """The temporary folder of an output, marked as ours and empty; it is removed at the end if it is still there."""
    partial = _beside(path)[0]
    if partial.exists():
        raise InputError(f"{partial} is in the way of the output {path}, and geneae did not write it. Move it away.")
    partial.mkdir(parents=True)
    try:
        write_list(partial)
        yield partial
    finally:
        _remove_partial(partial)


def _remove_partial(partial: Path) -> None:
    """Remove a temporary folder; its mark goes last, so that one whose removal was killed is still known."""
    for file in list(partial.iterdir()) if partial.is_dir() else []:
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file, ignore_errors=True)
        elif file.name != SUMS:
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
    shutil.rmtree(partial, ignore_errors=True)


def _complete(partial: Path) -> set[str]:
    """List the files of a temporary folder with their checksums, bring them to disk, and return their names."""
    names = {file.name for file in partial.iterdir()}
    write_list(partial, names - {SUMS})
    for name in names:
        (partial / name).chmod(0o666 & ~_umask())  # safetensors writes files that only their owner can read
        sync(partial / name)
    sync(partial)
    return names


def finish_swap(path: Path) -> None:
    """Repair a write that was killed: afterwards any folder at `path` is complete, and no temporary one remains.

    The old folder is renamed only when the new one is complete, so if the old one exists and `path` does not, the new
    one was about to take its name. Folders that geneae did not write are left alone, and so is one that another process
    is writing now.
    """
    check_name(path)
    if has_other_writer(path):
        return
    path = path.resolve()
    partial, old = _beside(path)
    is_ours = old.is_dir() and (bool(owned(old)) or not any(old.iterdir()))
    if is_ours and not path.exists():
        with contextlib.suppress(FileNotFoundError):  # another process of the same run may have done it
            os.replace(partial if partial.is_dir() else old, path)
    if is_ours and old.is_dir() and path.is_dir():
        _clear(old, path)
    if partial.is_dir() and (is_marked(partial) or not any(file.name != SUMS for file in partial.iterdir())):
        _remove_partial(partial)


def _clear(old: Path, path: Path) -> None:
    """Remove the folder that another has replaced; what geneae did not write there is moved to the new one."""
    for name in foreign(old):
        if not os.path.lexists(path / name):
            try:
                os.replace(old / name, path / name)
            except OSError as error:
                raise InputError(
                    f"{path} was replaced, but {old / name}, which geneae did not write, could not be moved there "
                    f"({error.strerror}). Move it there yourself."
                ) from error
    remove_owned(old)


def _beside(path: Path) -> tuple[Path, Path]:
    """Temporary names of a new folder and of the one that it replaces; fixed, so that a later run finds them."""
    return path.with_name(f".{path.name}.geneae-partial"), path.with_name(f".{path.name}.geneae-old")


def check_writable(path: Path, overwrite: bool = False, resume: bool = False, names: Iterable[str] = (SUMS,)) -> None:
    """Refuse an output folder that exists, cannot be created, or is being written by another process.

    With `overwrite` or `resume` it may exist, unfinished or finished, if geneae wrote it; files of somebody else in it
    must not have the `names` of files to be written.
    """
    check_name(path)
    check_folder_name(path)
    check_no_writer(path)
    if path.exists():  # what a link leads to, which may be yet to come
        if not path.is_dir() or (any(not is_partial(file) for file in path.iterdir()) and not owned(path)):
            raise InputError(
                f"{path} already exists and was not written by geneae. Choose another name for the output."
            )
        if is_unfinished(path) and not overwrite and not resume:
            raise InputError(
                f"{path} holds the checkpoint of an unfinished run. Add --resume to resume it, --overwrite to start "
                "again, or choose another output."
            )
        if not overwrite and not resume and any(not is_partial(file) for file in path.iterdir()):
            raise InputError(
                f"the output folder {path} already exists. Choose another one, or add --overwrite to replace it."
            )
        check_free(path, names)
        check_no_mount(path)
    check_parent(path)


def check_no_mount(folder: Path) -> None:
    """Refuse the top folder of a disk, such as a volume of a container: what is written beside it cannot be moved into
    it as a whole."""
    if os.path.ismount(folder.resolve()):
        raise InputError(
            f"{folder} is the top folder of a disk or volume, which cannot be replaced as a whole. Give a path in it, "
            f"such as {folder / 'new'}, as the output."
        )


def check_free(folder: Path, names: Iterable[str]) -> None:
    """Refuse to write files under these names into a folder where somebody else's file has one of them."""
    taken = sorted(set(names) & foreign(folder)) if folder.is_dir() else []
    changed = [name for name in taken if name in edited(folder)]
    if changed:
        raise InputError(
            f"{folder} holds {listed(changed)}, which somebody has changed since geneae wrote it, and which would be "
            "replaced. Give it another name, or choose another output."
        )
    if taken:
        raise InputError(
            f"{folder} holds {listed(taken)}, which geneae did not write and would replace. Move it away, or choose "
            "another output."
        )


def check_addable(folder: Path, names: Iterable[str]) -> None:
    """Refuse a folder to which files with these names cannot be added: they are somebody else's, or a model's."""
    check_name(folder)
    check_parent(folder / SUMS)
    if not folder.is_dir():
        return
    check_no_mount(folder)
    if CONFIG in owned(folder):
        raise InputError(f"{folder} holds a model or a metric, whose tables would be replaced. Choose another output.")
    check_free(folder, names)


def check_apart(output: Path, *inputs: str | Path | None) -> None:
    """Refuse an output that is one of the inputs of a command, lies in its container, or is one of its files."""
    check_name(output)
    to = output.resolve()
    for given in inputs:
        if given is None or not Path(given).exists():
            continue
        source = Path(given).resolve()
        is_same = to == source or (to.exists() and to.samefile(source))
        is_within = source.is_dir() and source in to.parents
        is_part = is_within and (_is_zarr(source) or to.relative_to(source).parts[0] in owned(source))
        if is_same or is_part:
            raise InputError(
                f"the output {output} is {'the input' if is_same else 'a part of the input'} {given}, which would be "
                "replaced. Choose another output."
            )


def _is_zarr(folder: Path) -> bool:
    return any((folder / name).exists() for name in (".zgroup", "zarr.json"))


@contextlib.contextmanager
def new_file(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary file name with the same ending; renamed to `path` at the end, or removed if anything fails before."""
    check_parent(path)
    with only_writer(path):
        check_new_file(path, overwrite)
        partial = path.with_name(f".{path.name}.geneae-partial{path.suffix}")
        try:
            partial.unlink(missing_ok=True)  # left by a killed process
            yield partial
            sync(partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def check_new_file(path: Path, overwrite: bool = False) -> None:
    """Refuse an output file that exists (unless `overwrite`), cannot be created, or is written by another process."""
    check_name(path)
    check_no_writer(path)
    if path.is_dir() or (os.path.lexists(path) and not overwrite):
        raise InputError(
            f"the output {path} already exists. Choose another name, or add --overwrite to replace a file."
        )
    check_parent(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_parent(path: Path) -> None:
    """Refuse an output whose name is too long, or whose folder cannot be created or written to."""
    check_name(path)
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
