"""Cosines of profiles under a learned metric, and labels by the vote of nearest profiles."""

import numpy as np
from scipy import sparse

from geneae.data.preprocess import column_mean
from geneae.models.pca import fit_basis
from geneae.training.metric_learning import Rows, row_products

ALONG_MEAN = 1e-6  # a unit vector with a smaller part orthogonal to the mean is parallel to it, up to rounding
CHUNK = 1024  # profiles per block of sparse products
NEAR_TIE = 1e-6  # weight of a cosine relative to a vote: of labels with equally many votes, the nearer one wins


def normalize_trace(map_: np.ndarray, epsilon: float) -> np.ndarray:
    """The map, scaled so that M'M + epsilon I has the trace of the identity; a map of zeros stays unchanged."""
    length = float(np.linalg.norm(map_))
    return map_ * (np.sqrt((1 - epsilon) * map_.shape[1]) / length if length > 0 else 1.0)


def cosines(x: Rows, y: Rows, map_: np.ndarray | None = None, epsilon: float = 1.0) -> np.ndarray:
    """(n rows of x, n rows of y) cosines under M'M + epsilon I, in [-1, 1]; 0 for rows of length 0.

    Without a map they are plain cosines. Products of sparse rows are summed over the entries that both rows have.
    """
    found = epsilon * _cross(x, y)
    squares = [epsilon * row_products(rows, rows).astype(np.float64) for rows in (x, y)]
    if map_ is not None:
        latent = x @ map_.T, y @ map_.T
        found += latent[0] @ latent[1].T
        squares = [square + row_products(rows, rows) for square, rows in zip(squares, latent, strict=True)]
    return _normalized(found, *squares)


def centred_cosines(x: Rows, y: Rows, mean: np.ndarray) -> np.ndarray:
    """(n rows of x, n rows of y) plain cosines as if `mean` had been subtracted from every row."""
    along = [np.asarray(rows @ mean) for rows in (x, y)]
    found = _cross(x, y) - along[0][:, None] - along[1][None, :] + mean @ mean
    squares = [row_products(rows, rows) - 2 * part + mean @ mean for rows, part in zip((x, y), along, strict=True)]
    return _normalized(found, *squares)


def _normalized(cross: np.ndarray, x_squared: np.ndarray, y_squared: np.ndarray) -> np.ndarray:
    scale = [
        np.divide(1.0, np.sqrt(np.maximum(square, 0)), out=np.zeros_like(square), where=square > 0)
        for square in (x_squared, y_squared)
    ]
    return np.asarray(np.clip(cross * scale[0][:, None] * scale[1][None, :], -1, 1))


def _cross(x: Rows, y: Rows) -> np.ndarray:
    """(n rows of x, n rows of y) float64 products x y', dense because hardly any is zero."""
    are_sparse = sparse.issparse(x) and sparse.issparse(y)
    if not are_sparse:
        return np.asarray(x @ y.T, np.float64)
    found, back = np.empty((x.shape[0], y.shape[0])), y.T.tocsr()
    for start in range(0, x.shape[0], CHUNK):
        stored = (x[start : start + CHUNK] @ back).tocoo()
        part = np.zeros(stored.shape)
        part[stored.row, stored.col] = stored.data
        found[start : start + CHUNK] = part
    return found


def vote(similarity: np.ndarray, codes: np.ndarray, n_neighbors: int) -> np.ndarray:
    """(n_profiles,) most frequent code among the nearest neighbours; among equally frequent ones the nearer one.

    Parameters
    ----------
    similarity
        (n_profiles, n_known) similarities; higher is nearer.
    codes
        (n_known,) label codes of the known profiles, from 0.
    n_neighbors
        Number of neighbours that vote; all if there are fewer.
    """
    n_neighbors = min(n_neighbors, len(codes))
    nearest = np.argpartition(-similarity, n_neighbors - 1, axis=1)[:, :n_neighbors]
    votes = np.zeros((len(similarity), int(codes.max()) + 1))
    profiles = np.arange(len(similarity))[:, None]
    np.add.at(votes, (profiles, codes[nearest]), 1 + NEAR_TIE * np.take_along_axis(similarity, nearest, axis=1))
    return np.asarray(votes.argmax(axis=1))


def learned_within(rows: Rows, rank: int, seed: int) -> np.ndarray:
    """(n_features, n) orthonormal columns that span the space of a learned map, leading principal components first.

    They are orthogonal to the mean profile, which dominates a plain cosine of raw expression and does not distinguish
    profiles. If the components span the complete space, or none remains, the mean is the last column, so that no
    direction is lost.
    """
    block = sparse.csr_matrix(rows, dtype=np.float32)
    components = fit_basis([block], rank, seed).components.numpy().astype(np.float64)
    mean = column_mean(block)[:, None]
    length = np.linalg.norm(mean)
    shared = mean / length if length > 0 else mean[:, :0]
    columns, triangle = np.linalg.qr(components - shared @ (shared.T @ components))
    columns = columns[:, np.abs(np.diag(triangle)) > ALONG_MEAN]
    spans_all = components.shape[1] == rows.shape[1]
    return np.hstack([columns, shared]) if spans_all or not columns.shape[1] else columns
