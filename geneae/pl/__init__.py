"""Figures of the tables in run folders, drawn on given axes or on new ones.

Tables are passed by name of the configuration (column `arm`), in the order in which configurations are shown. A table
holds the rows of all seeds of a configuration, one seed after another; numbers per profile are averaged over seeds
before they are drawn.

Each function returns the axes. `show=True` shows the figure with `pyplot.show`; `save="figure.png"` writes it to a file
whose extension gives the format (`.png`, `.pdf`, `.svg`).
"""

from geneae.pl.depth import cosine_by_depth
from geneae.pl.differences import difference_by_label, paired_differences
from geneae.pl.epochs import dynamics_by_epoch, encoder_curves, norm_by_epoch, training_curves
from geneae.pl.genes import gene_correlation
from geneae.pl.latents import umap
from geneae.pl.profiles import cosine_against_mse, cosine_distribution, error_parts
from geneae.pl.steps import cosine_by_step
from geneae.pl.transfer import calibration

__all__ = [
    "calibration",
    "cosine_against_mse",
    "cosine_by_depth",
    "cosine_by_step",
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
