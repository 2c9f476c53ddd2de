"""Cosines that two profiles have by chance: of two random ones, and of one with itself after its genes are permuted."""

import numpy as np
from scipy import sparse


def random_pair_cosine(matrix: sparse.csr_matrix, shift: np.ndarray) -> float:
    """Mean cosine of two different rows, each minus `shift`, over all pairs: (|sum of unit rows|^2 - n) / (n (n-1))."""
    norms = np.sqrt(_squared_norms(matrix, shift))
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    total = matrix.T.astype(np.float64) @ inverse - shift * inverse.sum()
    n = int((norms > 0).sum())
    return float((total @ total - n) / (n * (n - 1))) if n > 1 else float("nan")


def permuted_cosine(matrix: sparse.csr_matrix, shift: np.ndarray) -> float:
    """Mean cosine of a row minus `shift` with itself after its genes are permuted: (sum x)^2 / (n_genes |x|^2)."""
    sums = np.asarray(matrix.sum(1), dtype=np.float64).ravel() - shift.sum()
    squared = _squared_norms(matrix, shift)
    found = sums[squared > 0] ** 2 / (matrix.shape[1] * squared[squared > 0])
    return float(found.mean()) if len(found) else float("nan")


def _squared_norms(matrix: sparse.csr_matrix, shift: np.ndarray) -> np.ndarray:
    squares = np.asarray(matrix.astype(np.float64).power(2).sum(1)).ravel()
    norms: np.ndarray = np.maximum(squares - 2 * (matrix @ shift) + shift @ shift, 0)
    return norms
