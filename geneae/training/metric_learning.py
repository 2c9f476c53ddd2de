"""Learned metric of a cosine: gradients in closed form, and a map M under which profiles of equal label are similar.

Notation: profiles x and y, v = M x, w = M y; A = M'M + epsilon I; l = x'Ay, n = x'Ax, m = y'Ay; c = l / sqrt(n m).

**Gradient in M.** dl = w'dM x + v'dM y, dn = 2 v'dM x, dm = 2 w'dM y, so that

    dc/dM = (w / sqrt(n m) - c v / n) x' + (v / sqrt(n m) - c w / m) y'

which for epsilon = 0 is ((w^ - c v^) / |v|) x' + ((v^ - c w^) / |w|) y' with unit vectors v^, w^: no power of n m above
1/2, hence safe in float32.

A cosine does not depend on the scale of A, so for epsilon = 0 <dc/dM, M> = 0. A itself is never learned: M is, and
A = M'M + epsilon I is positive semi-definite for every M.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy import sparse

from geneae.settings.settings import MetricSettings
from geneae.training.schedule import schedule

Rows = Any
"""(n_rows, n_features) NumPy array or SciPy CSR matrix, never made dense; SciPy's types cannot express this."""


def row_products(x: Rows, y: Rows) -> np.ndarray:
    """(n_rows,) <x_i, y_i>."""
    is_sparse = sparse.issparse(x)  # a variable of its own: mypy would narrow the type to one without methods
    products = x.multiply(y) if is_sparse else x * y
    return np.asarray(products.sum(axis=1)).ravel()


def batch_cosines(latent: np.ndarray) -> np.ndarray:
    """(n_rows, n_rows) cosines of all pairs of rows; 0 for a row of zeros."""
    unit = latent * _inverse_norm(latent)[:, None]
    return np.asarray(unit @ unit.T)


def batch_map_gradient(map_: np.ndarray, x: Rows, slopes: np.ndarray) -> np.ndarray:
    """(n_components, n_features) gradient in M of the sum over all pairs of rows of slopes_ij cos(M x_i, M x_j).

    Summed over pairs, dc/dM is V'(W + W' - D) x with W_ij = slopes_ij / (|v_i| |v_j|), where the diagonal matrix D
    accounts for the dependence on the length of each row. Rows of length 0 under M do not contribute.
    """
    latent = x @ map_.T
    inverse = _inverse_norm(latent)
    both = slopes + slopes.T
    lost = (both * batch_cosines(latent)).sum(axis=1) * inverse**2
    by_row = inverse[:, None] * (both @ (inverse[:, None] * latent)) - lost[:, None] * latent
    return np.asarray((x.T @ by_row).T)


def _inverse_norm(latent: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(latent, axis=1)
    inverse: np.ndarray = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    return inverse


def neighbor_loss(cosines: np.ndarray, labels: np.ndarray, temperature: float) -> tuple[float, np.ndarray]:
    """Loss of neighbours with different labels, and its derivatives with respect to the cosines.

    Each profile draws another one of the mini-batch with probability p_ij ~ exp(c_ij / temperature); the loss is the
    mean of -log(probability of one with the same label). It is the objective of neighbourhood components analysis
    (Goldberger et al. 2004) with cosines in place of distances and the logarithm of the probability, whose gradient
    does not vanish for profiles that are far from all others of their label. Lower is better, 0 at best.

    Parameters
    ----------
    cosines
        (n_rows, n_rows) cosines of all pairs of profiles.
    labels
        (n_rows,) label codes. A profile does not count if no other one has its label.
    temperature
        Temperature of the probabilities, above 0.

    Returns
    -------
    The loss, 0 if no profile counts; and its (n_rows, n_rows) derivatives.
    """
    same = labels[:, None] == labels[None, :]
    np.fill_diagonal(same, False)
    counts = same.any(axis=1)
    if not counts.any():
        return 0.0, np.zeros_like(cosines)
    weights = np.exp((cosines - cosines.max(axis=1, keepdims=True)) / temperature)
    np.fill_diagonal(weights, 0.0)
    alike = weights * same
    total, good = weights.sum(axis=1), alike.sum(axis=1)
    tiny = np.finfo(weights.dtype).tiny
    losses = np.log(np.maximum(total, tiny)) - np.log(np.maximum(good, tiny))
    slopes = weights / np.maximum(total, tiny)[:, None] - alike / np.maximum(good, tiny)[:, None]
    slopes[~counts] = 0.0
    return float(losses[counts].mean()), slopes / (temperature * counts.sum())


def learn_map(
    rows: Rows, labels: np.ndarray, start: np.ndarray, settings: MetricSettings
) -> Iterator[tuple[float, np.ndarray]]:
    """Mean loss per step (NaN before the first epoch) and the map, before the first epoch and after each.

    Parameters
    ----------
    rows
        (n_rows, n_features) scores or latents, scaled to a size of about 1, because the learning rate is in units of
        the map's entries.
    labels
        (n_rows,) label codes.
    start
        (n_components, n_features) initial map.
    settings
        Passes over all rows, rows per step within which pairs are formed, learning rate, temperature and seed.
    """
    rng = np.random.default_rng(settings.seed)
    weight = torch.from_numpy(start.astype(np.float64))
    map_ = weight.numpy()  # the same memory
    optimizer = torch.optim.Adam([weight], lr=settings.learning_rate)
    n_batches = -(-rows.shape[0] // settings.batch_size)
    rates = schedule(optimizer, settings.epochs * n_batches)
    yield np.nan, map_.copy()
    for _ in range(settings.epochs):
        losses = []
        for batch in np.array_split(rng.permutation(rows.shape[0]), n_batches):
            x = rows[batch]
            loss, slopes = neighbor_loss(batch_cosines(x @ map_.T), labels[batch], settings.temperature)
            weight.grad = torch.from_numpy(np.ascontiguousarray(batch_map_gradient(map_, x, slopes)))
            optimizer.step()
            rates.step()
            losses.append(loss)
        yield float(np.mean(losses)), map_.copy()
