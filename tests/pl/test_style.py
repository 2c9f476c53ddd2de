"""Colours of figures."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from geneae.pl.style import GREY, PALETTE, colors_of_numbers

PAGES = ("#ffffff", "#14171a")  # of the report, in the light and in the dark
COLORS = [*PALETTE, GREY, *colors_of_numbers()(np.linspace(0, 1, 9))]


def luminance(color: object) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    parts = np.asarray(to_rgb(color))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("color", COLORS)
def test_dots_are_seen_on_white_and_in_the_dark(color: object, page: str) -> None:
    """Many dots are an image, which keeps its colours in the dark."""
    low, high = sorted((luminance(color), luminance(page)))
    assert (high + 0.05) / (low + 0.05) > 1.5
