"""Figure of the correlation of single genes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from geneae.pl.layout import add_legend, arm_handles, finish, one_axes, panels_size, use_plain_log
from geneae.pl.names import name_drawn
from geneae.pl.style import GREY, PALETTE, arm_style, shown
from geneae.pl.values import by_gene, running_median


def gene_correlation(
    genes: Mapping[str, pd.DataFrame], ax: Axes | None = None, *, show: bool = False, save: str | Path | None = None
) -> Axes:
    """Correlation over profiles between a gene and its prediction, against the mean expression of the gene.

    Of counts, predictions come from one half of the molecules and genes from the other, so that a gene of noise has 0,
    the grey line. Lines are medians in bins of equally many genes. With a single configuration, each gene is also
    drawn as a dot.

    Parameters
    ----------
    genes
        `genewise.csv` by configuration.
    ax
        Axes to draw on.
    """
    ax = one_axes(ax, panels_size(1, len(genes)))
    tables = [by_gene(table).dropna() for table in genes.values()]
    if len(tables) == 1:
        table = tables[0]
        dots = ax.scatter(table["mean"], table["correlation"], s=4, alpha=0.4, color=PALETTE[0], linewidths=0)
        pairs = zip(table.index, table["mean"], table["correlation"], strict=True)
        name_drawn(dots, *(f"{gene}: correlation {found:.4f}, mean {mean:.4g}" for gene, mean, found in pairs))
    for number, table in enumerate(tables):
        medians = running_median(table)
        if len(medians):
            color = {"color": "#000000"} if len(tables) == 1 else {}
            width = 2.0 + 3.0 * (len(tables) - 1 - number) / len(tables)  # so that equal lines stay visible
            drawn = ax.plot(medians["mean"], medians["correlation"], **(arm_style(number) | color), linewidth=width)
            name_drawn(drawn, f"{list(genes)[number]}: median in bins of genes")
    means = np.concatenate([table["mean"].to_numpy(float) for table in tables])
    if len(means) and means.min() > 0:
        ax.set_xscale("log")
        use_plain_log(ax.xaxis, means.min(), means.max())
    ax.axhline(0.0, color=GREY, linewidth=0.8)
    ax.set_xlabel("mean expression of the gene, in the space of the model")
    ax.set_ylabel("correlation with its prediction (higher is better →)")
    ax.spines[["top", "right"]].set_visible(False)
    names = arm_handles(list(genes))
    if len(tables) == 1:
        names = [Line2D([], [], color="#000000", linewidth=2, label=f"median, {shown(next(iter(genes)))}")]
    add_legend([ax], names)
    return finish(ax, show, save)
