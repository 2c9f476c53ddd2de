"""Figures as images embedded in the page."""

import base64
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from PIL import Image  # matplotlib writes PNGs with it, too

from geneae.pl.layout import fill, panels_shape, panels_size

MOST_VECTOR_DOTS = 2000  # with more dots, a figure is smaller as PNG than as SVG
DPI = 110  # resolution of a PNG
CSS_DPI = 96  # CSS pixels per inch in every browser


@dataclass(frozen=True)
class Picture:
    """A figure of the report."""

    title: str
    """Title of a few words."""
    caption: str
    """Content of the figure, and how to read it."""
    alternative: str
    """Main numbers in words, for readers who cannot see the figure."""
    source: str
    """Image as a `data:` URL."""
    width: int
    """Width in CSS pixels."""
    height: int
    """Height in CSS pixels."""


def canvas(size: tuple[float, float], shape: tuple[int, int] = (1, 1)) -> list[Axes]:
    """Axes on a new figure that is not registered with pyplot; `size` is in inches."""
    axes = fill(Figure(figsize=size, layout="constrained"), shape)
    for spine in [spine for ax in axes for spine in ax.spines.values()]:
        spine.set_in_layout(False)  # inside the axes anyway, and measuring each takes half of the time
    return axes


def panels(n_panels: int, n_names: int = 1) -> list[Axes]:
    """Axes for a grid of panels."""
    return canvas(panels_size(n_panels, n_names), panels_shape(n_panels))


def draw_picture(title: str, caption: str, alternative: str, draw: Callable[[], Axes | Sequence[Axes]]) -> Picture:
    """Draw and embed a figure: as SVG, or as PNG if it has many dots. The user's matplotlib settings are ignored."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "geneae", "font.size": 10})
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # browsers use another font; a PNG shows a box
        drawn = draw()
        figure = (drawn if isinstance(drawn, Axes) else drawn[0]).figure
        assert isinstance(figure, Figure)
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)
            figure.set_layout_engine("none")  # otherwise it is drawn a second time, only for its layout
        kind = "png" if _n_dots(figure) > MOST_VECTOR_DOTS else "svg"
        file = io.BytesIO()
        without = {"Date": None, "Creator": None, "Format": None, "Type": None} if kind == "svg" else {"Software": None}
        figure.savefig(file, format=kind, dpi=DPI, metadata=without)
    width, height = figure.get_size_inches()
    content = file.getvalue() if kind == "svg" else _few_colors(file)
    media = {"svg": "image/svg+xml", "png": "image/png"}[kind]
    source = f"data:{media};base64,{base64.b64encode(content).decode()}"
    return Picture(title, caption, alternative, source, round(width * CSS_DPI), round(height * CSS_DPI))


def _few_colors(file: io.BytesIO) -> bytes:
    """PNG with 255 colours, a third of the size: 20 configurations with 5,000 dots each stay below 3 MB."""
    smaller = io.BytesIO()
    with Image.open(file) as image:
        image.convert("RGB").quantize(255).save(smaller, "png", optimize=True)
    return smaller.getvalue()


def _n_dots(figure: Figure) -> int:
    dots = [artist for ax in figure.axes for artist in ax.collections if isinstance(artist, PathCollection)]
    return sum(len(np.asarray(artist.get_offsets())) for artist in dots)
