"""Locks that let only one process at a time write an output."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from geneae.settings.errors import InputError

MOST_NAME = 225  # bytes of an output's name; file systems allow 255, and temporary names add up to 30
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL, errno.EIO, errno.ENOTTY)
"""Error numbers that file systems without locks give, or network file systems whose lock service does not answer."""
OF_FILES = (".zip", ".h5ad", ".csv", ".tsv", ".npy", ".html", ".json", ".png", ".pdf")
"""Ends of names that only files have."""
PATIENCE = 0.1  # seconds to wait for a lock, because a writer that ends needs a moment to remove its lock file


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Keep other processes that use `only_writer` from writing this file or folder; refuse it if one already does.

    The operating system locks a file next to the output, because the output itself is replaced. The lock ends with the
    process, however that ends: a killed process leaves an empty file that blocks nobody and that the next writer
    removes. On file systems without locks, and between threads of one process, nothing is blocked.
    """
    lock, file = _lock(path), lock_of(path)
    if lock.is_locked:
        yield
        return
    new = [folder for folder in file.parents if not folder.exists()]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _try(lock)
    except Timeout:
        if not file.exists():  # /proc and its like have folders in which nothing can be made
            raise InputError(f"the output {path} cannot be created. Choose another output.") from None
        raise _taken(path) from None
    except OSError as error:
        raise InputError(f"the output {path} cannot be created: {error}. Choose another output.") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a lock service that fails now does not fail what was written
            file.unlink(missing_ok=True)  # before the release, so that nobody locks a file that is about to be removed
            lock.release()
        for folder in new:
            with contextlib.suppress(OSError):  # something was written there
                folder.rmdir()


def check_folder_name(path: Path) -> None:
    """Refuse a new folder that would be taken for a file."""
    if path.suffix.lower() in OF_FILES and not path.is_dir():
        raise InputError(
            f"the output is a folder, and {path.name} is the name of a file. Choose a name without {path.suffix}; "
            "geneae share packs the folder of a model into a zip."
        )


def check_name(path: Path) -> None:
    """Refuse an output whose name is too long, is none, or is a link that leads to itself."""
    size = len(os.fsencode(path.name))
    if size > MOST_NAME:
        raise InputError(
            f"the name of an output must have at most {MOST_NAME} bytes, because temporary files have longer ones; "
            f"{path.name[:20]}... has {size}. Choose a shorter name."
        )
    try:
        path.resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, RuntimeError, ValueError) as error:  # of a circle of links, Python 3.11 and 3.12 say RuntimeError
        is_circle = isinstance(error, RuntimeError) or (isinstance(error, OSError) and error.errno == errno.ELOOP)
        reason = "it is a link that leads to itself" if is_circle else getattr(error, "strerror", None) or error
        raise InputError(f"the output {path} cannot be created: {reason}. Choose another output.") from error


def check_no_writer(path: Path) -> None:
    """Refuse an output that another process is writing."""
    if has_other_writer(path):
        raise _taken(path)


def has_other_writer(path: Path) -> bool:
    """Whether another process is writing this file or folder now."""
    lock, file = _lock(path), lock_of(path)
    if lock.is_locked or not file.exists():
        return False
    try:
        _try(lock)
    except Timeout:
        return True
    file.unlink(missing_ok=True)  # left by a killed writer
    lock.release()
    return False


def lock_of(path: Path) -> Path:
    """Path of the lock file: next to the output, or next to the target if the output is a link."""
    path = path.resolve()
    return path.with_name(f".{path.name}.geneae-lock")


def _lock(path: Path) -> FileLock:
    """The only lock of this process for an output."""
    return FileLock(lock_of(path), PATIENCE, thread_local=False, is_singleton=True, fallback_to_soft=False)


def _try(lock: FileLock) -> None:
    """Take a lock; raise `Timeout` if another process has it, and do nothing on file systems without locks."""
    try:
        lock.acquire(poll_interval=PATIENCE / 10)
    except Timeout:
        raise
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise


def _taken(path: Path) -> InputError:
    return InputError(
        f"the output {path} is being written by another geneae process. Wait until it has finished, or choose another "
        "output."
    )
