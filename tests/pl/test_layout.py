"""Labels and ticks have the room that a figure gives them."""

import pandas as pd
import pytest
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from geneae import pl
from geneae.pl.layout import add_colorbar, fill, is_in_a_row, name_axis, use_plain_log
from geneae.pl.style import DYNAMICS

LONG = "difference in held-out cosine from shrunken PCA (right is better →)"


@pytest.mark.parametrize(("width", "expected"), [(9.0, LONG), (5.4, LONG.replace(" (", "\n("))])
def test_a_long_label_of_a_narrow_figure_has_two_lines(width: float, expected: str) -> None:
    ax = Figure(figsize=(width, 3)).add_subplot()
    name_axis(ax, LONG)
    assert ax.get_xlabel() == expected
    name_axis(ax, "cosine (right is better)")
    assert ax.get_xlabel() == "cosine (right is better)"


def test_axes_over_many_decades_have_short_labels() -> None:
    ax = Figure().add_subplot()
    use_plain_log(ax.xaxis, 1e-6, 1e10)
    label = ax.xaxis.get_major_formatter()
    values = (1e-6, 1e-3, 0.5, 1, 20_000, 1e6, 1e10)
    assert [label(value) for value in values] == ["10⁻⁶", "0.001", "0.5", "1", "20,000", "10⁶", "10¹⁰"]


@pytest.mark.parametrize(("shape", "size"), [((1, 4), (10.5, 3)), ((4, 1), (5.4, 12))])
def test_four_panels_in_a_row_have_few_epochs_on_their_axes(shape: tuple[int, int], size: tuple[float, float]) -> None:
    history = pd.DataFrame({"epoch": range(29), **dict.fromkeys(DYNAMICS, 1.0)})
    axes = fill(Figure(figsize=size), shape)
    pl.dynamics_by_epoch({"mse": [history]}, list(DYNAMICS)[: len(axes)], axes)
    in_a_row = shape == (1, 4)
    assert {is_in_a_row(ax) for ax in axes} == {in_a_row}
    steps = {float(ax.get_xticks()[1] - ax.get_xticks()[0]) for ax in axes}
    assert (min(steps) > 4) == in_a_row  # numbers in steps of 4 run into each other there


@pytest.mark.parametrize("n_rows", [1, 4])
def test_a_bar_of_colours_is_equally_slim_beside_any_number_of_rows(n_rows: int) -> None:
    figure = Figure(figsize=(5.4, 2.8 * n_rows), layout="constrained")
    axes = fill(figure, (n_rows, 1))
    bar = add_colorbar(axes, Normalize(0, 1), "molecules")
    figure.draw_without_rendering()
    width = bar.ax.get_window_extent().width / figure.dpi
    assert 0.08 < width < 0.2  # inches
