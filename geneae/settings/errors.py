"""Error classes for unusable input and interruptions, and the wording of their messages."""

import difflib
import signal
from collections.abc import Iterable

from geneae.settings.text import escaped

SHOWN = 20  # an annotation table may have hundreds of columns, and nobody reads so many names in an error


class InputError(ValueError):
    """The input of the user cannot be used; the message says what was expected, what was found and what to do.

    The message is one line; control characters of the names in it are escaped. The command line prints it without a
    traceback and exits with status 2.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(escaped(message))


class InputChanged(InputError):
    """A file is no longer what it was when it was first read, so that nothing can be said about either."""


def did_you_mean(name: object, options: Iterable[object]) -> str:
    """The hint `"; did you mean 'cosine'?"`, or an empty string if no option is similar; case is ignored."""
    by_lower = {str(option).lower(): str(option) for option in options}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=1)
    return f"; did you mean '{by_lower[near[0]]}'?" if near else ""


def reason_of(error: BaseException) -> str:
    """First line of what an error of a library says, or its class where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def listed(options: Iterable[object]) -> str:
    """Comma-separated names for a message: the first 20, then the number of the others; `none` for an empty list."""
    names = [str(option) for option in options]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "none") + more


def unknown(kind: str, name: object, options: Iterable[object]) -> InputError:
    """Error for a name that is not among the options; it suggests the most similar one and lists those available."""
    options = list(options)
    hint = did_you_mean(name, options) or "."
    available = f"Available: {listed(options)}" if options else "There are none."
    return InputError(f"unknown {kind} '{name}'{hint} {available}")


STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask the program to stop: from the keyboard, from a scheduler, and when its terminal is closed."""


def listened() -> list[signal.Signals]:
    """The signals of `STOPS` that have an effect: `nohup` has SIGHUP ignored, and it stays so."""
    return [stop for stop in STOPS if stop != signal.SIGHUP or signal.getsignal(stop) != signal.SIG_IGN]


class Interrupted(KeyboardInterrupt):
    """A signal has asked the program to stop; the message says how to resume.

    The command line prints the message without a traceback and exits with status 128 plus the number of the signal.
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(number, message)
        self.number, self.message = number, message
