"""Calibration: what part of a gene's predicted difference from its mean comes true in the other half.

Loadings are fitted, so that predictions of genes with little signal beside their noise reach too far. The calibration
slope, the regression of observed on predicted values, says how far (van Houwelingen and le Cessie 1990, predictive
value of statistical models). Components are those of other folds; the factors by which scores are shrunken are not, so
that slopes tell genes from each other, while their common size is close to 1.
"""

import numpy as np
import torch
from torch import Tensor

from geneae.models.pooled import pooled_ridge
from geneae.models.posterior import Scored
from geneae.models.whitening import SparseBlock, Whitened

SLOPE_RANGE = (0.0, 2.0)
LEAST = 1.0  # ridge towards the pooled slope, in units of noise variance: a gene that is hardly predicted takes it


def fit_calibration(whitened: Whitened, scored: list[Scored]) -> Tensor:
    """(n_genes,) float32 calibration slopes, each half way from that of genes with a similar mean to its own.

    From halves at the depth of training, each profile predicted in the basis without its fold. With the prediction
    p = S v and the target t of a gene, its sums of p t and p^2 over profiles are (t' S) v and v' (S' S) v.

    Parameters
    ----------
    whitened
        Bases for the profiles of the items.
    scored
        Items with scores that were predicted without the fold of each profile.
    """
    unit, mean = (of.double() for of in (whitened.whitening.deviation, whitened.whitening.mean))
    common, square = torch.zeros_like(unit), torch.zeros_like(unit)
    for one in scored:
        if one.item.share:
            continue
        for number, components in enumerate(whitened.without):
            rows = np.flatnonzero(whitened.fold == number)
            index, basis = torch.from_numpy(rows), components.double()
            scores, weight = one.expected[index], one.weight[index][:, None]
            weighted = (weight * scores).float()
            by_gene = SparseBlock(one.item.targets[rows]).back(weighted).double()
            common += ((by_gene / unit[:, None] - torch.outer(mean / unit, weighted.double().sum(0))) * basis).sum(1)
            square += ((basis @ (weighted.double().T @ scores.double())) * basis).sum(1)
    residual = (common - square)[:, None]
    found = 1 + pooled_ridge(square[:, None, None], residual, whitened.whitening.mean.numpy(), LEAST)[:, 0]
    return found.clamp(*SLOPE_RANGE).float()
