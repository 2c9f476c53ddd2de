import numpy as np
import pytest
from scipy import sparse

from geneae.evaluation.chance import permuted_cosine, random_pair_cosine


def mean_cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.mean((first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)))


def test_random_pairs_and_permuted_genes_equal_the_long_way() -> None:
    rng = np.random.default_rng(0)
    dense = rng.poisson(0.7, (30, 40)).astype(np.float64)
    shift = rng.uniform(0, 0.5, 40)
    shifted = dense - shift
    unit = shifted / np.linalg.norm(shifted, axis=1, keepdims=True)
    pairs = (unit @ unit.T)[~np.eye(30, dtype=bool)].mean()
    assert random_pair_cosine(sparse.csr_matrix(dense), shift) == pytest.approx(pairs, abs=1e-12)
    draws = [mean_cosine(shifted, rng.permuted(shifted, axis=1)) for _ in range(400)]
    error = np.std(draws) / 20
    assert permuted_cosine(sparse.csr_matrix(dense), shift) == pytest.approx(np.mean(draws), abs=4 * error)
