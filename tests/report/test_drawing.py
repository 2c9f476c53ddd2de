"""A figure in a page: nothing that its policy forbids, colours of the page, and names where the dots are."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes

from geneae.pl.names import name_drawn
from geneae.report.areas import MOST_AREAS
from geneae.report.image import MOST_DOTS_TWICE, MOST_VECTOR_DOTS, Picture, Sheet, draw_picture


def drawn(draw: Callable[[Axes], None]) -> Picture:
    def on_axes(sheet: Sheet) -> Axes:
        ax = sheet.rows((4.0, 3.0))
        draw(ax)
        return ax

    return draw_picture("title", "caption", "what it shows & how", on_axes)


def test_black_and_white_are_those_of_the_page_and_nothing_is_styled() -> None:
    svg = drawn(lambda ax: ax.plot([1, 2], [1, 2], "o", color="#0072B2", markerfacecolor="white")).drawing
    assert svg.startswith("<svg ")
    assert 'role="img" aria-label="what it shows &amp; how"' in svg
    assert not re.search("<style|style=|<!DOCTYPE|xlink|#000000|#ffffff|font-family", svg)
    assert 'stroke="currentColor"' in svg
    assert 'fill="var(--page)"' in svg
    assert "#0072b2" in svg


def test_ids_are_few_and_never_those_of_another_figure() -> None:
    one = drawn(lambda ax: ax.plot([1, 2], [1, 2])).drawing
    other = drawn(lambda ax: ax.plot([1, 2], [1, 3])).drawing
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (one, other)]
    assert not ids[0] & ids[1]
    for svg, names in zip((one, other), ids, strict=True):
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) == names


def test_each_dot_has_its_own_name_whatever_it_is() -> None:
    def draw(ax: Axes) -> None:
        dots = ax.scatter([1, 2, np.nan, 4], [1, 2, 3, 4], c=[1, 2, 3, 4])
        name_drawn(dots, "first", "<b>&\x1b", "nowhere", "last")

    svg = drawn(draw).drawing
    assert re.findall("<title>(.*?)</title>", svg) == ["first", r"&lt;b&gt;&amp;\x1b", "last"]
    places = re.findall(r'<use [^>]*x="([\d.]+)"[^>]*><title>', svg)
    assert [float(place) for place in places] == sorted(map(float, places))  # from left to right, as they were named


def test_lines_and_bars_have_one_name_or_one_for_each_point() -> None:
    def draw(ax: Axes) -> None:
        name_drawn(ax.plot([1, 2, 3], [1, 2, 3]), "line")
        name_drawn(ax.plot([1, 2], [1, 2], "o"), "here", "there")
        for bar, name in zip(ax.bar([1, 2], [3, 4]), ("low", "high"), strict=True):
            name_drawn(bar, name)

    assert set(re.findall("<title>(.*?)</title>", drawn(draw).drawing)) == {"line", "here", "there", "low", "high"}


@pytest.mark.parametrize("more", [0, 1])
def test_many_dots_are_an_image_between_axes_that_are_not(more: int) -> None:
    place = np.arange(MOST_VECTOR_DOTS + more)
    svg = drawn(lambda ax: ax.scatter(place, place)).drawing
    assert ("data:image/png;base64," in svg) == bool(more)
    assert "<text " in svg
    assert len(svg) < (40_000 if more else 600_000)


def test_dots_of_an_image_have_names_where_they_are() -> None:
    """Two heaps at known places and one dot that the panel does not show: a name for each heap, above its own place."""
    heaps = np.repeat([0.25, 0.75], MOST_VECTOR_DOTS)

    def draw(ax: Axes) -> None:
        ax.set_position((0.0, 0.0, 1.0, 1.0))
        ax.set_axis_off()
        ax.set(xlim=(0, 1), ylim=(0, 1))
        ax.figure.set_layout_engine("none")
        dots = ax.scatter([*heaps, 7, np.nan], [*heaps, 7, 0.5], s=9)
        name_drawn(dots, *(["low"] * MOST_VECTOR_DOTS + ["<high>"] * MOST_VECTOR_DOTS + ["beyond", "nowhere"]))

    svg = drawn(draw).drawing
    squares = re.findall(r'<path d="M([\d.]+) ([\d.]+)h([\d.]+)v[^"]*z"><title>(.*?)</title>', svg)
    more = f", and {MOST_VECTOR_DOTS - 1:,} more"
    assert sorted(square[3] for square in squares) == [f"&lt;high&gt;{more}", f"low{more}"]
    for x, y, side, name in squares:  # the figure has 288 x 216 points, its upper left corner is the origin
        place = 0.25 if name.startswith("low") else 0.75
        assert float(x) <= 288 * place <= float(x) + float(side)
        assert float(y) <= 216 * (1 - place) <= float(y) + float(side)


def test_a_line_over_an_image_of_dots_keeps_its_name() -> None:
    """What is drawn later lies above: squares come first, and the image lets the pointer through."""

    def draw(ax: Axes) -> None:
        name_drawn(ax.scatter(*np.random.default_rng(0).random((2, 3000))), *map(str, range(3000)))
        name_drawn(ax.plot([0, 1], [0, 1]), "line")

    svg = drawn(draw).drawing
    layer, image, line = (svg.index(some) for some in ('pointer-events="all"', "<image ", "<title>line<"))
    assert layer < image < line
    assert re.findall("<image [^>]*pointer-events=.none.", svg)


def test_names_of_an_image_are_few_and_every_dot_is_in_one() -> None:
    rng, n_dots = np.random.default_rng(0), 5 * MOST_VECTOR_DOTS

    def draw(ax: Axes) -> None:
        name_drawn(ax.scatter(*rng.random((2, n_dots))), *map(str, range(n_dots)))

    found = re.findall(r"<title>\d+(?:, and ([\d,]+) more)?</title>", drawn(draw).drawing)
    assert MOST_AREAS / 2 < len(found) <= MOST_AREAS
    assert sum(1 + int(more.replace(",", "") or 0) for more in found) == n_dots


@pytest.mark.parametrize("more", [0, 1])
def test_a_wide_figure_is_drawn_again_for_a_phone_with_many_dots_as_an_image(more: int) -> None:
    place = np.arange(MOST_DOTS_TWICE + more)

    def draw(sheet: Sheet) -> list[Axes]:
        axes = sheet.panels(2)
        axes[0].scatter(place, place)
        return axes

    picture = draw_picture("", "", "", draw)
    assert "data:image/png;base64," not in picture.drawing
    assert ("data:image/png;base64," in picture.narrow) == bool(more)
