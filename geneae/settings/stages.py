"""Stages of a fit, in order, and who is told when one begins."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

STAGES = {
    "reading": "reading the profiles",
    "bases": "fitting bases",
    "training": "training",
    "steps": "choosing steps",
    "judging": "judging",
    "report": "writing the report",
}
"""Name and description of each stage. A permuted control begins with its bases again."""

_listeners: ContextVar[tuple[Callable[[str], None], ...]] = ContextVar("listeners", default=())


def enter(stage: str) -> None:
    """Tell all listeners that a stage of `STAGES` begins; the one before it is over."""
    for listener in _listeners.get():
        listener(stage)


@contextlib.contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Call `listener` with the name of every stage that begins inside the context."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)
