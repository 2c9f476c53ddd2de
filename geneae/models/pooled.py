"""Coefficients of single genes, drawn to those of genes that are expressed alike."""

import numpy as np
import torch
from torch import Tensor

POOL_BINS, FEW_POOL_BINS, MANY_GENES = 20, 8, 1000  # bins of genes whose coefficients are pooled
POOL_RIDGE = 0.002  # ridge of the pooled coefficients, in units of the mean of their diagonal


def pooled_ridge(gram: Tensor, right: Tensor, mean: np.ndarray, pooling: float) -> Tensor:
    """(n_genes, n_terms) ridge regression of each gene towards coefficients of genes with a similar mean.

    The ridge of each coefficient is its own diagonal element plus `pooling`: a gene that says much about its
    coefficients goes half of the way from the pooled ones to its own.

    Parameters
    ----------
    gram, right
        (n_genes, n_terms, n_terms) and (n_genes, n_terms) sums of products of the terms, and of terms with the target.
    mean
        (n_genes,) mean of each gene.
    pooling
        Ridge beside the diagonal.
    """
    n_genes, n_terms = right.shape
    identity, diagonal = torch.eye(n_terms, dtype=gram.dtype), gram.diagonal(dim1=1, dim2=2)
    order = np.argsort(mean, kind="stable")
    places, pooled = [], []
    for genes in np.array_split(order, min(n_genes, POOL_BINS if n_genes >= MANY_GENES else FEW_POOL_BINS)):
        some = torch.from_numpy(genes)
        own = gram[some].sum(0)
        ridge = POOL_RIDGE * float(own.trace()) / n_terms + 1
        pooled.append(torch.linalg.solve(own + ridge * identity, right[some].sum(0)).numpy())
        places.append(float(np.log(mean[genes] + 1e-9).mean()))
    at, rows = np.log(mean + 1e-9), np.array(pooled)
    start = torch.tensor(np.stack([np.interp(at, places, rows[:, k]) for k in range(n_terms)], 1))
    towards = diagonal + pooling
    found: Tensor = torch.linalg.solve(gram + torch.diag_embed(towards), right + towards * start)
    return found
