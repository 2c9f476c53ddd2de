"""Names under the pointer where dots are too many to be shapes: one for each small square that has some."""

from dataclasses import dataclass

import numpy as np
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from geneae.pl.names import names_of

MOST_AREAS = 1000  # in one figure: some 100 kB
SMALLEST = 5.0  # points; a pointer finds nothing smaller
LARGER = 1.25  # factor by which squares grow until they are few enough


@dataclass(frozen=True)
class Area:
    """A square of a figure, in points from its upper left corner."""

    x: float
    """Left side."""
    y: float
    """Upper side."""
    side: float
    """Length of a side."""
    name: str
    """Name of the dot nearest to its middle, and how many more there are."""


def areas_of(figure: Figure, dots: list[PathCollection]) -> list[Area]:
    """Squares that hold named dots, at most `MOST_AREAS`; of dots that a panel does not show there are none."""
    parts = [_places_of(figure, some) for some in dots if len(names_of(some)) > 1]
    if not parts:
        return []
    places, names = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    side = SMALLEST
    while len(np.unique(np.floor(places / side), axis=0)) > MOST_AREAS:
        side *= LARGER
    return _squares(places, names, side)


def _places_of(figure: Figure, dots: PathCollection) -> tuple[np.ndarray, np.ndarray]:
    """(n_dots, 2) places of dots in points from the upper left corner, and their names."""
    axes = dots.axes
    assert axes is not None
    offsets: np.ndarray = np.ma.filled(np.ma.asarray(dots.get_offsets(), float), np.nan)
    pixels = axes.transData.transform(offsets)
    with np.errstate(invalid="ignore"):
        is_shown = ((pixels >= axes.bbox.min) & (pixels <= axes.bbox.max)).all(1)
    places = pixels * 72 / figure.dpi
    places[:, 1] = figure.get_figheight() * 72 - places[:, 1]
    return places[is_shown], np.array(names_of(dots), dtype=object)[is_shown]


def _squares(places: np.ndarray, names: np.ndarray, side: float) -> list[Area]:
    cells, which, counts = np.unique(np.floor(places / side), axis=0, return_inverse=True, return_counts=True)
    which = which.ravel()
    far = np.square(places - (cells[which] + 0.5) * side).sum(1)
    nearest = np.lexsort([far, which])[np.cumsum(counts) - counts]
    more = [f", and {count - 1:,} more" if count > 1 else "" for count in counts]
    return [
        Area(float(x * side), float(y * side), side, f"{names[dot]}{others}")
        for (x, y), dot, others in zip(cells, nearest, more, strict=True)
    ]
