"""Coefficients that are drawn to those of similar genes."""

import numpy as np
import pytest
import torch
from dense_estimator import dense_pooled_ridge

from geneae.models.pooled import pooled_ridge


@pytest.mark.parametrize("pooling", [0.0, 1.5])
def test_pooled_ridge_of_many_genes_is_that_gene_by_gene(pooling: float) -> None:
    rng = np.random.default_rng(0)
    design = rng.standard_normal((20, 30, 9))
    gram, right = np.einsum("gnk,gnm->gkm", design, design), rng.standard_normal((20, 9)) * 10
    mean = rng.random(20)
    found = pooled_ridge(torch.from_numpy(gram), torch.from_numpy(right), mean, pooling)
    np.testing.assert_allclose(found, dense_pooled_ridge(gram, right, mean, pooling), atol=1e-10)


@pytest.mark.parametrize("n_genes", [999, 1000])
def test_more_genes_are_pooled_in_more_bins(n_genes: int) -> None:
    rng = np.random.default_rng(0)
    gram, right, mean = rng.gamma(2.0, 50.0, (n_genes, 1, 1)), rng.standard_normal((n_genes, 1)), rng.random(n_genes)
    right = right * 5 + 100 * np.sin(9 * mean)[:, None]  # bins of another number see another curve
    found = pooled_ridge(torch.from_numpy(gram), torch.from_numpy(right), mean, 0.5)
    np.testing.assert_allclose(found, dense_pooled_ridge(gram, right, mean, 0.5), atol=1e-10)


def test_a_single_coefficient_is_half_way_from_the_pooled_one_to_its_own() -> None:
    gram = torch.full((64, 1, 1), 1e9, dtype=torch.float64)
    own = torch.tensor([0.0, 2.0], dtype=torch.float64).repeat(32)
    mean = np.arange(64) // 8 + 1.0  # eight bins, with either in each
    found = pooled_ridge(gram, 1e9 * own[:, None], mean, 0.0)
    np.testing.assert_allclose(found[:, 0], (own + 1) / 2, atol=0.01)
