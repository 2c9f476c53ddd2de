"""The figures: each draws tables of run folders, on the axes it is given or on new ones.

Arms are given by name, in the order in which they are shown. A table of an arm holds the rows of all its seeds, one
after another; per-profile numbers are averaged over seeds before they are drawn.

Each gives the axes back. `show=True` shows the figure, as `pyplot.show` does; `save="figure.png"` writes it, and the
ending says as what (`.png`, `.pdf`, `.svg`).
"""

from geneae.pl.differences import difference_by_label, paired_differences
from geneae.pl.epochs import dynamics_by_epoch, encoder_curves, norm_by_epoch, training_curves
from geneae.pl.genes import gene_correlation
from geneae.pl.latents import umap
from geneae.pl.profiles import cosine_against_mse, cosine_distribution, error_parts

__all__ = [
    "cosine_against_mse",
    "cosine_distribution",
    "difference_by_label",
    "dynamics_by_epoch",
    "encoder_curves",
    "error_parts",
    "gene_correlation",
    "norm_by_epoch",
    "paired_differences",
    "training_curves",
    "umap",
]
