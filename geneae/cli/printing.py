"""What commands print: lines without control characters, on an output that may be closed or full."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from geneae.settings.text import escaped

Say = Callable[..., None]
"""`say`, or a function that takes the same and prints nothing."""

CLOSED = (errno.EPIPE, errno.EIO)
"""Errors of an output that nobody reads any more: a closed pipe, a closed terminal."""


def say_unless(is_quiet: bool) -> Say:
    """`say`, or a function that does nothing if quiet."""
    return (lambda *_: None) if is_quiet else say


def noting(say: Say, heard: list[str]) -> Say:
    """A function that prints by `say`, and appends to a list, quiet or not."""

    def both(*lines: str) -> None:
        heard.extend(lines)
        say(*lines)

    return both


def say(*lines: str) -> None:
    """Print lines; control characters, line breaks too, are escaped, so that no name can begin a line of its own."""
    for line in lines:
        click.echo(escaped(line))


def complain(text: str) -> None:
    """Print text on standard error; control characters other than line breaks are escaped."""
    click.echo(escaped(text, keep="\n"), err=True)


STDERR = 2  # the largest number of a standard stream


class Outlet(io.RawIOBase):
    """Bytes passed on to a stream until it cannot take them; what comes later is dropped.

    A command whose output is cut off (`| head`), whose terminal is closed or whose output is a full disk completes its
    work before it ends.

    Parameters
    ----------
    stream
        Binary stream.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.fault: OSError | None = None

    def write(self, data: Any) -> int:
        """Pass bytes on; the first error is kept in `fault`."""
        if self.fault is None:
            try:
                self._stream.write(data)
                self._stream.flush()
            except ValueError:  # closed by Python
                self.fault = OSError(errno.EPIPE, os.strerror(errno.EPIPE))
            except OSError as error:
                self.fault = error
                self._drop_the_rest()
        return len(data)

    def _drop_the_rest(self) -> None:
        """Send what the stream has kept back to nowhere, so that Python does not fail on it when it ends."""
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def writable(self) -> bool:
        """True."""
        return True

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return bool(self._stream.isatty())

    def fileno(self) -> int:
        """Number of the file."""
        return int(self._stream.fileno())


def open_closed_streams() -> None:
    """Open standard streams that are closed (`>&-`) to nowhere, for the whole process.

    Otherwise the next file that is opened gets their number, and a library that prints would write into it.
    """
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(nowhere, True)
    os.close(nowhere)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  until the process ends
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


@contextlib.contextmanager
def outlets() -> Iterator[Callable[[], OSError | None]]:
    """Let standard output and standard error outlast a closed pipe, a closed terminal and a full disk.

    Characters that their encoding lacks, as in the C locale, are escaped. Yields a function that gives the error for
    which standard output could not be written; None if it was, or if its reader has closed it.
    """
    before = sys.stdout, sys.stderr
    opened = [stream if stream is None else _through_outlet(stream) for stream in before]
    sys.stdout, sys.stderr = opened

    def fault() -> OSError | None:
        found: OSError | None = getattr(getattr(opened[0], "buffer", None), "fault", None)
        return None if found is None or found.errno in CLOSED else found

    try:
        yield fault
    finally:
        sys.stdout, sys.stderr = before


def _through_outlet(stream: Any) -> Any:
    """A text stream through an `Outlet`; a stream without bytes, such as that of a notebook, as it is."""
    if not hasattr(stream, "buffer"):
        return stream
    stream.flush()
    return io.TextIOWrapper(
        Outlet(stream.buffer),
        encoding=stream.encoding,
        errors="backslashreplace",
        newline="\n",
        line_buffering=True,
    )
