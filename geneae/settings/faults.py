"""Errors of the system, such as a full disk, in one sentence that says what to do."""

import contextlib
import errno
import os
import re
from concurrent.futures import BrokenExecutor

from geneae.settings.errors import InputError

SPACE = "Free some space, or write to another disk; TMPDIR names the folder of temporary files."
FILES = "Raise the limit (ulimit -n), or run fewer jobs at a time."
MEMORY = (
    "Give it more memory (ulimit -v, the scheduler), or use less: --stream yes, fewer --jobs, --devices or profiles."
)
STORAGE = "Check the disk or the network file system, then run the same command again."
GPU = "Use a smaller --batch-size, a GPU with more memory, or --device cpu."

FAULTS = {
    errno.ENOSPC: ("the disk is full", SPACE),
    errno.EDQUOT: ("the quota of disk space is used up", SPACE),
    errno.EFBIG: ("a file would be larger than is allowed", "Raise the limit (ulimit -f), or write to another disk."),
    errno.EMFILE: ("too many files are open", FILES),
    errno.ENFILE: ("too many files are open on this machine", FILES),
    errno.ENOMEM: ("there is not enough memory", MEMORY),
    errno.EAGAIN: ("no further process or thread can be started", "Raise the limit (ulimit -u), or run fewer jobs."),
    errno.EIO: ("reading or writing failed", STORAGE),
    errno.ESTALE: ("a file on a network file system has vanished", STORAGE),
    errno.ETIMEDOUT: ("a file system did not answer", STORAGE),
    errno.ENXIO: ("reading or writing failed", STORAGE),
}
"""What has happened and what to do, by number of the error; none of these is a fault of the input."""
TEXTS = {
    **{os.strerror(number).lower(): number for number in FAULTS if number != errno.EAGAIN},
    "allocate memory": errno.ENOMEM,
    "failed to map segment": errno.ENOMEM,  # a library that does not fit
    "not enough memory": errno.ENOMEM,
    "bad_alloc": errno.ENOMEM,
    "could not create a primitive": errno.ENOMEM,  # oneDNN
    "error return without exception set": errno.ENOMEM,  # a library that could not even say so
    "can't start new thread": errno.EAGAIN,
    " requested and ": errno.ENOSPC,  # NumPy, which keeps no number of the error
}
"""Numbers by what libraries write where they keep no number."""
NUMBER = re.compile(r"\b(?:os error|errno =|\[errno) (\d+)")

LIBRARIES = 1.15, 0.15
"""GB of address space that the libraries of a command fill when they are loaded, and as much again for every thread of
linear algebra (measured with torch, SciPy and scikit-learn: 1.05 with one thread, 1.21 with two)."""
MOST_THREADS = 64  # for which the OpenBLAS of NumPy and SciPy is built


def loading_fault() -> str | None:
    """A sentence if the limit of address space is too low to load the libraries; they would abort, or never end."""
    with contextlib.suppress(ImportError):  # Windows has no such limit
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        of_all, of_thread = LIBRARIES
        threads = min(_threads(), MOST_THREADS)
        needed = of_all + of_thread * threads
        if limit != resource.RLIM_INFINITY and limit < needed * 1e9:
            return (
                f"there is not enough memory: loading needs {needed:.2f} GB of address space with {threads} threads, "
                f"and the limit is {limit / 1e9:.2f} GB. Raise it (ulimit -v, the scheduler), or set OMP_NUM_THREADS=1."
            )
    return None


def _threads() -> int:
    """Threads that OpenBLAS starts when it is loaded."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        if (said := os.environ.get(name, "")).isdigit() and int(said):
            return int(said)
    may_use = getattr(os, "sched_getaffinity", None)  # Linux; a scheduler may lend fewer cores than there are
    return len(may_use(0)) if may_use is not None else os.cpu_count() or 1


def fault_of(error: BaseException | None) -> str | None:
    """A sentence on what the system lacked, and what to do; None for an error that has another cause.

    Libraries wrap the errors of the system in classes of their own, some of them without its number, and an
    `InputError` may have one as its cause.
    """
    while isinstance(error, InputError):
        error = error.__cause__
    if error is None:
        return None
    text = str(error).lower()
    if isinstance(error, BrokenExecutor):
        return f"one of several processes ended before its run was complete, perhaps for want of memory. {MEMORY}"
    if "cuda" in text and "out of memory" in text:
        return f"the GPU has not enough memory. {GPU}"
    number = _number(error, text)
    if number is None:
        return fault_of(error.__cause__)
    what, advice = FAULTS[number]
    return f"{what}{_where(error)}. {advice}"


def _number(error: BaseException, text: str) -> int | None:
    """Number of a system error in `FAULTS`, from the error itself or from what a library has written."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    named = NUMBER.search(text)
    found = [error.errno] if isinstance(error, OSError) else []
    found += [int(named[1])] if named else []
    found += [number for said, number in TEXTS.items() if said in text]
    return next((number for number in found if number in FAULTS), None)


def _where(error: BaseException) -> str:
    name = (error.filename2 or error.filename) if isinstance(error, OSError) else None  # of a copy, the new file
    return f" ({os.fsdecode(name)})" if isinstance(name, str | bytes) and name else ""


def refusal_of(error: OSError) -> str:
    """A sentence on a path that the system refuses, for errors that `fault_of` does not know."""
    reason = error.strerror or str(error).partition("\n")[0] or type(error).__name__
    return f"{reason}{_where(error)}. Check that the path exists and may be read and written, or choose another."
