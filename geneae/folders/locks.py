"""One process at a time writes an output."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from geneae.settings.errors import InputError

_HELD: set[Path] = set()  # lock files of this process, which may write an output in several steps


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Inside, no other process writes this file or folder by `only_writer`; where one does already, it is refused.

    The lock is that of the system on a file beside the output, as the output itself is replaced. It ends with the
    process, however that ends: what a killed one leaves is an empty file that keeps nobody out, and that the next
    writer removes. Threads of a process are not kept apart.
    """
    lock = lock_of(path)
    if lock in _HELD:
        yield
        return
    new = [folder for folder in lock.parents if not folder.exists()]
    try:
        descriptor = _acquire(lock)
    except OSError as error:
        raise InputError(f"the output {path} cannot be made: {error}. Choose another output.") from error
    if descriptor is None:
        raise _taken(path)
    _HELD.add(lock)
    try:
        yield
    finally:
        _HELD.remove(lock)
        _release(lock, descriptor)
        for folder in new:
            with contextlib.suppress(OSError):  # something was written there
                folder.rmdir()


def check_no_writer(path: Path) -> None:
    """Refuse an output that another process is writing."""
    if has_other_writer(path):
        raise _taken(path)


def has_other_writer(path: Path) -> bool:
    """Whether another process is writing this file or folder now."""
    lock = lock_of(path)
    if lock in _HELD or not lock.exists():
        return False
    descriptor = _acquire(lock)
    if descriptor is not None:
        _release(lock, descriptor)
    return descriptor is None


def lock_of(path: Path) -> Path:
    """The file beside an output, or what it links to, whose lock its writer has."""
    path = path.resolve()
    return path.with_name(f".{path.name}.geneae-lock")


def _taken(path: Path) -> InputError:
    return InputError(
        f"the output {path} is being written by another geneae that runs now. Wait until that has ended, or choose "
        "another output."
    )


def _acquire(lock: Path) -> int | None:
    """Descriptor of the lock file, locked; None where another process has it."""
    while True:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:  # a file system without locks: as good as can be
            return descriptor
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                return descriptor
        os.close(descriptor)  # the writer before has removed the file in between


def _release(lock: Path, descriptor: int) -> None:
    lock.unlink(missing_ok=True)  # first, so that nobody locks a file that is about to go
    os.close(descriptor)
