"""The cosine under a learned metric: its gradients in closed form, and the map that makes equal labels agree.

Notation: profiles x and y, v = M x, w = M y; A = M'M + epsilon I; l = x'Ay, n = x'Ax, m = y'Ay; c = l / sqrt(n m).

**In M.** dl = w'dM x + v'dM y, dn = 2 v'dM x, dm = 2 w'dM y, so that

    dc/dM = (w / sqrt(n m) - c v / n) x' + (v / sqrt(n m) - c w / m) y'

which for epsilon = 0 is ((w^ - c v^) / |v|) x' + ((v^ - c w^) / |w|) y' with unit vectors v^, w^: no power of n m above
1/2, hence safe in float32.

**In A.** With every entry on its own, dl/dA_ij = x_i y_j, dn/dA_ij = x_i x_j, dm/dA_ij = y_i y_j, and the quotient rule
on l (n m)^(-1/2) gives

    g_ij = x_i y_j / sqrt(n m) - l (m x_i x_j + n y_i y_j) / (2 (n m)^(3/2))

The derivation that this follows has 2 n m as the second denominator in one of its lines. That line is wrong, and the
next one is right again: the power 3/2 is the n m of the quotient rule times the root in the derivative of the root.

g is not symmetric: one step along it, and A is no metric any more. The gradient among symmetric matrices is
S = (g + g') / 2, with x~ = x / sqrt(n) and y~ = y / sqrt(m)

    S = (x~ y~' + y~ x~' - c (x~ x~' + y~ y~')) / 2

dc/dM = 2 M S. A cosine knows no scale: <S, A> = 0, and for epsilon = 0 <dc/dM, M> = 0. A free symmetric A is never
learned, as n and m have to stay positive; M is learned, and A is positive semi-definite whatever M is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse

from geneae.training.schedule import schedule

Rows = Any
"""(n_rows, n_features) NumPy array or SciPy CSR matrix, which is never made dense; SciPy's types say less than that."""


def row_products(x: Rows, y: Rows) -> np.ndarray:
    """(n_rows,) <x_i, y_i>."""
    is_sparse = sparse.issparse(x)  # a name of its own: mypy would narrow the type to one without methods
    products = x.multiply(y) if is_sparse else x * y
    return np.asarray(products.sum(axis=1)).ravel()


def batch_cosines(latent: np.ndarray) -> np.ndarray:
    """(n_rows, n_rows) cosines of all pairs of rows; 0 for a row of zeros."""
    unit = latent * _inverse_norm(latent)[:, None]
    return np.asarray(unit @ unit.T)


def batch_map_gradient(map_: np.ndarray, x: Rows, slopes: np.ndarray) -> np.ndarray:
    """Gradient in M of the sum over all pairs of a batch of slopes_ij cos(M x_i, M x_j), (n_components, n_features).

    dc/dM summed over pairs: with W_ij = slopes_ij / (|v_i| |v_j|) it is V'(W + W' - D) x, where the diagonal D
    holds what all cosines of a row lose by its length. Rows without length under M have no part in it.
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
    """How far the neighbours of a profile are from having its label, and the slope of that in each cosine.

    Each profile draws another one of the batch with probability p_ij ~ exp(c_ij / temperature); the loss is the mean of
    -log(probability of one with the same label). It is the objective of neighbourhood components analysis (Goldberger
    et al. 2004) with cosines in place of distances and the logarithm of the probability, which does not fade
    for profiles that are far from their like. Lower is better, 0 at best.

    Parameters
    ----------
    cosines
        (n_rows, n_rows)
    labels
        (n_rows,) codes. A profile whose label no other one has does not count.
    temperature
        Above 0.

    Returns
    -------
    The loss, 0 where no profile counts; and (n_rows, n_rows) slopes.
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


@dataclass(frozen=True)
class Learning:
    """How a map is learned."""

    epochs: int
    """Passes over all rows."""
    batch_size: int
    """Rows a step, at most; pairs are formed within."""
    learning_rate: float
    """Of Adam, falling linearly to zero over the second half of the steps."""
    temperature: float
    """Of the probabilities of neighbours, in units of a cosine."""
    seed: int
    """Of the order of the rows."""


def learn_map(
    rows: Rows, labels: np.ndarray, start: np.ndarray, learning: Learning
) -> Iterator[tuple[float, np.ndarray]]:
    """The map before the first epoch and after each, with the mean loss per step (NaN before the first).

    Parameters
    ----------
    rows
        (n_rows, n_features) scores or latents, of a size about 1: the learning rate is in units of the map's entries.
    labels
        (n_rows,) codes.
    start
        (n_components, n_features)
    learning
        Choices.
    """
    rng = np.random.default_rng(learning.seed)
    weight = torch.from_numpy(start.astype(np.float64))
    map_ = weight.numpy()  # the same memory
    optimizer = torch.optim.Adam([weight], lr=learning.learning_rate)
    n_batches = -(-rows.shape[0] // learning.batch_size)
    rates = schedule(optimizer, learning.epochs * n_batches)
    yield np.nan, map_.copy()
    for _ in range(learning.epochs):
        losses = []
        for batch in np.array_split(rng.permutation(rows.shape[0]), n_batches):
            x = rows[batch]
            loss, slopes = neighbor_loss(batch_cosines(x @ map_.T), labels[batch], learning.temperature)
            weight.grad = torch.from_numpy(np.ascontiguousarray(batch_map_gradient(map_, x, slopes)))
            optimizer.step()
            rates.step()
            losses.append(loss)
        yield float(np.mean(losses)), map_.copy()
