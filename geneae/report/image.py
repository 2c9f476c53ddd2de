"""Figures as images embedded in the page."""

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from geneae.pl.layout import fill, panels_shape, panels_size
from geneae.pl.names import names_of
from geneae.report.areas import areas_of
from geneae.report.drawing import to_element

MOST_VECTOR_DOTS = 2000  # more are smaller as PNG than as SVG
MOST_DOTS_TWICE = 400  # more would make the page large; for a phone, where nothing points at them, they are a PNG
NARROW = panels_size(1)[0]  # inches; the widest that a phone shows without scrolling
DPI = 144  # resolution of that PNG


@dataclass(frozen=True)
class Picture:
    """A figure of the report."""

    title: str
    """Title of a few words."""
    caption: str
    """Content of the figure, and how to read it."""
    alternative: str
    """Main numbers in words, for readers who cannot see the figure."""
    drawing: Markup
    """The figure as an SVG element."""
    is_wide: bool = False
    """Whether it is too wide for one of two columns."""
    narrow: str = ""
    """The same for a phone; empty where the figure itself fits."""


@dataclass(frozen=True)
class Sheet:
    """What a figure is drawn on: the width of a page, or that of a phone."""

    is_narrow: bool

    def canvas(self, size: tuple[float, float], shape: tuple[int, int] = (1, 1)) -> list[Axes]:
        """Axes on a new figure that is not registered with pyplot; `size` is in inches, at the width of a page."""
        width = min(size[0], NARROW) if self.is_narrow else size[0]
        axes = fill(Figure(figsize=(width, size[1]), layout="constrained"), shape)
        for spine in [spine for ax in axes for spine in ax.spines.values()]:
            spine.set_in_layout(False)  # inside the axes anyway, and measuring each takes half of the time
        return axes

    def rows(self, size: tuple[float, float]) -> Axes:
        """Axes of a figure with a row for each thing that it shows."""
        return self.canvas(size)[0]

    def panels(self, n_panels: int, n_names: int = 1) -> list[Axes]:
        """Axes for a grid of panels; on a phone one above the other."""
        if self.is_narrow:
            return self.canvas((NARROW, 2.8 * n_panels + 0.9 + 0.09 * n_names), (n_panels, 1))
        return self.canvas(panels_size(n_panels, n_names), panels_shape(n_panels))


PAGE, PHONE = Sheet(is_narrow=False), Sheet(is_narrow=True)
Draw = Callable[[Sheet], Axes | Sequence[Axes]]


def draw_picture(title: str, caption: str, alternative: str, draw: Draw) -> Picture:
    """Draw and embed a figure as SVG, for a page and, if it is wide, for a phone; many dots are an image in it.

    The user's matplotlib settings are ignored.
    """
    drawing, width = _drawing(alternative, draw, PAGE)
    is_wide = width > NARROW
    narrow = _drawing(alternative, draw, PHONE)[0] if is_wide else ""
    return Picture(title, caption, alternative, drawing, is_wide, narrow)


def _drawing(alternative: str, draw: Draw, sheet: Sheet) -> tuple[Markup, float]:
    """The SVG element, and its width in inches."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "geneae", "font.size": 10})
        mpl.rcParams.update({"figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none"})
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # browsers use another font
        drawn = draw(sheet)
        figure = (drawn if isinstance(drawn, Axes) else drawn[0]).figure
        assert isinstance(figure, Figure)
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)
            figure.set_layout_engine("none")  # otherwise it is drawn a second time, only for its layout
        dots = [artist for ax in figure.axes for artist in ax.collections if isinstance(artist, PathCollection)]
        n_dots = sum(len(np.asarray(artist.get_offsets())) for artist in dots)
        is_image = n_dots > (MOST_DOTS_TWICE if sheet.is_narrow else MOST_VECTOR_DOTS)
        for artist in dots:
            artist.set_rasterized(is_image)
        areas = areas_of(figure, dots) if is_image and not sheet.is_narrow else []
        names = _marked(figure)
        file = io.BytesIO()
        without = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.set_dpi(DPI)
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(file, metadata=without)  # `savefig` would draw it twice
    return to_element(file.getvalue(), alternative, names, areas), float(figure.get_size_inches()[0])


def _marked(figure: Figure) -> dict[str, tuple[str, ...]]:
    """Names of what has been drawn, by a mark that it gets; dots at no place are not drawn, and have none."""
    found = {}
    for number, artist in enumerate(figure.findobj(lambda artist: bool(names_of(artist)))):
        names = names_of(artist)
        if isinstance(artist, PathCollection) and len(names) > 1:
            places: np.ndarray = np.ma.filled(np.ma.asarray(artist.get_offsets(), float), np.nan)
            names = tuple(name for name, place in zip(names, places, strict=True) if np.isfinite(place).all())
        artist.set_gid(f"named-{number}")
        found[f"named-{number}"] = names
    return found
