"""One process at a time writes an output."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from geneae.settings.errors import InputError

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
"""What file systems that know no locks say."""
PATIENCE = 0.1  # seconds, in which a lock file that its writer is just removing is gone


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Inside, no other process writes this file or folder by `only_writer`; where one does already, it is refused.

    The lock is that of the system on a file next to the output, as the output itself is replaced. It ends with the
    process, however that ends: what a killed one leaves is an empty file that keeps nobody out, and that the next
    writer removes. Where the file system knows no locks, nobody is kept out. Threads of a process are not kept apart.
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
        raise _taken(path) from None
    except OSError as error:
        raise InputError(f"the output {path} cannot be made: {error}. Choose another output.") from error
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # first, so that nobody locks a file that is about to go
        lock.release()
        for folder in new:
            with contextlib.suppress(OSError):  # something was written there
                folder.rmdir()


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
    file.unlink(missing_ok=True)  # of a killed writer
    lock.release()
    return False


def lock_of(path: Path) -> Path:
    """The file next to an output, or to what it links to, whose lock its writer has."""
    path = path.resolve()
    return path.with_name(f".{path.name}.geneae-lock")


def _lock(path: Path) -> FileLock:
    """The one lock that this process has for an output."""
    return FileLock(lock_of(path), PATIENCE, thread_local=False, is_singleton=True, fallback_to_soft=False)


def _try(lock: FileLock) -> None:
    """Take a lock, which raises `Timeout` where another process has it; where there are no locks, do nothing."""
    try:
        lock.acquire(poll_interval=PATIENCE / 10)
    except Timeout:
        raise
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise


def _taken(path: Path) -> InputError:
    return InputError(
        f"the output {path} is being written by another geneae that runs now. Wait until that has ended, or choose "
        "another output."
    )
