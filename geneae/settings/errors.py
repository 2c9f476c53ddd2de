"""The one error for input that cannot be used."""

import difflib
from collections.abc import Iterable

SHOWN = 20  # a table of annotation may have hundreds of columns; an error of more names is not read


class InputError(ValueError):
    """What the user gave cannot be used; the message says what was expected, what was found and what to do.

    The command prints the message without a traceback and exits with 2.
    """


def did_you_mean(name: object, options: Iterable[object]) -> str:
    """`"; did you mean 'cosine'?"`, or nothing where no option is near; upper and lower case count as equal."""
    by_lower = {str(option).lower(): str(option) for option in options}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=1)
    return f"; did you mean '{by_lower[near[0]]}'?" if near else ""


def listed(options: Iterable[object]) -> str:
    """Names in a row for a message: the first 20, then how many more; `none` where there are none."""
    names = [str(option) for option in options]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "none") + more


def unknown(kind: str, name: object, options: Iterable[object]) -> InputError:
    """The error for a name that is not among the options: the nearest one, then what there is."""
    options = list(options)
    hint = did_you_mean(name, options) or "."
    return InputError(f"unknown {kind} '{name}'{hint} Available: {listed(options)}")


class Interrupted(KeyboardInterrupt):
    """A signal has asked to stop; the message says how to go on.

    The command prints the message without a traceback and exits with 128 plus the number of the signal.
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(number, message)
        self.number, self.message = number, message
