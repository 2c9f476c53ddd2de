"""Names of points, lines and bars, which a report shows under the pointer."""

from collections.abc import Iterable
from weakref import WeakKeyDictionary

from matplotlib.artist import Artist

_NAMES: WeakKeyDictionary[Artist, tuple[str, ...]] = WeakKeyDictionary()
"""Names by what has been drawn; they go with it."""


def name_drawn(drawn: Artist | Iterable[Artist], *names: str) -> None:
    """Name something that has been drawn: one name for all of it, or one for each of its points.

    Parameters
    ----------
    drawn
        A line, bar or collection of points; or several, which all get these names.
    names
        One name; or as many as there are points, in their order.
    """
    for artist in [drawn] if isinstance(drawn, Artist) else drawn:
        _NAMES[artist] = names


def names_of(artist: Artist) -> tuple[str, ...]:
    """Names of something that has been drawn; empty where it has none."""
    return _NAMES.get(artist, ())
