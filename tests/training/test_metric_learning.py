"""Gradients of a learned cosine agree with automatic differentiation, and learning finds what tells labels apart.

The gradient in M, see `geneae.training.metric_learning`, also follows from that in A; with the notation there:

If all entries of A are independent, dl/dA_ij = x_i y_j, dn/dA_ij = x_i x_j, dm/dA_ij = y_i y_j, and the quotient rule
on l (n m)^(-1/2) gives

    g_ij = x_i y_j / sqrt(n m) - l (m x_i x_j + n y_i y_j) / (2 (n m)^(3/2))

The power 3/2 is the n m of the quotient rule times the root in the derivative of the root.

g is not symmetric: after one step along it, A would not be a metric. The gradient among symmetric matrices is
S = (g + g') / 2, with x~ = x / sqrt(n) and y~ = y / sqrt(m)

    S = (x~ y~' + y~ x~' - c (x~ x~' + y~ y~')) / 2

and dc/dM = 2 M S. A cosine does not depend on the scale of A, hence <S, A> = 0.
"""

import numpy as np
import pytest
import torch
from scipy import sparse

from geneae.settings.settings import MetricSettings
from geneae.training.metric_learning import (
    batch_cosines,
    batch_map_gradient,
    learn_map,
    neighbor_loss,
    row_products,
)

N_PAIRS, N_FEATURES, N_COMPONENTS = 7, 6, 3


def draw(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A map, x, y and weights; a third of the values of x and y are not zero."""
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(size=(N_PAIRS, N_FEATURES)) * (rng.random((N_PAIRS, N_FEATURES)) < 0.6) for _ in range(2))
    x[:, 0], y[:, 0] = 1.0, 2.0  # no row is empty
    return rng.normal(size=(N_COMPONENTS, N_FEATURES)), x, y, rng.normal(size=N_PAIRS)


def slow_cosine(a: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(n_pairs,) x'Ay / sqrt(x'Ax y'Ay), pair by pair."""
    return torch.stack([p @ a @ q / torch.sqrt((p @ a @ p) * (q @ a @ q)) for p, q in zip(x, y, strict=True)])


def by_autograd(a: np.ndarray, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Gradient of the weighted sum of cosines in A, every entry on its own."""
    metric = torch.tensor(a, requires_grad=True)
    (slow_cosine(metric, torch.tensor(x), torch.tensor(y)) * torch.tensor(weights)).sum().backward()
    assert metric.grad is not None
    return metric.grad.numpy()


def positive(seed: int = 0) -> np.ndarray:
    map_ = np.random.default_rng(seed).normal(size=(N_FEATURES, N_FEATURES))
    return map_.T @ map_ + 0.1 * np.eye(N_FEATURES)


def cosine_and_map_gradient(
    map_: np.ndarray, x: np.ndarray, y: np.ndarray, weights: np.ndarray, epsilon: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of pairs of rows under M'M + epsilon I, and the gradient of their weighted sum in M by the formula."""
    v, w = x @ map_.T, y @ map_.T
    pairs = (v, w, x, y), (v, v, x, x), (w, w, y, y)
    cross, n, m = ((p * q).sum(1) + epsilon * (a * b).sum(1) for p, q, a, b in pairs)
    root = np.sqrt(n * m)
    cosine = cross / root
    by_x = (weights / root)[:, None] * w - (weights * cosine / n)[:, None] * v
    by_y = (weights / root)[:, None] * v - (weights * cosine / m)[:, None] * w
    return cosine, (x.T @ by_x + y.T @ by_y).T


def cosine_and_metric_gradient(
    a: np.ndarray, x: np.ndarray, y: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of pairs of rows under A, and the gradient S of their weighted sum among symmetric matrices."""
    x, y = (rows / np.sqrt(np.einsum("ij,jk,ik->i", rows, a, rows))[:, None] for rows in (x, y))
    cosine = np.einsum("ij,jk,ik->i", x, a, y)
    across = x.T @ (weights[:, None] * y)
    own = sum(rows.T @ ((weights * cosine)[:, None] * rows) for rows in (x, y))
    return cosine, (across + across.T - own) / 2


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_in_the_map_is_that_of_autograd(seed: int, epsilon: float) -> None:
    map_, x, y, weights = draw(seed)
    variable = torch.tensor(map_, requires_grad=True)
    a = variable.T @ variable + epsilon * torch.eye(N_FEATURES, dtype=torch.float64)
    expected = slow_cosine(a, torch.tensor(x), torch.tensor(y))
    (expected * torch.tensor(weights)).sum().backward()
    cosine, gradient = cosine_and_map_gradient(map_, x, y, weights, epsilon)
    np.testing.assert_allclose(cosine, expected.detach(), atol=1e-10)
    assert variable.grad is not None
    np.testing.assert_allclose(gradient, variable.grad, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_in_a_is_the_symmetric_part_of_that_of_autograd(seed: int) -> None:
    _, x, y, weights = draw(seed)
    a = positive(seed)
    free = by_autograd(a, x, y, weights)
    cosine, gradient = cosine_and_metric_gradient(a, x, y, weights)
    assert np.abs(free - free.T).max() > 0.01  # one step along it, and A is no metric any more
    np.testing.assert_allclose(gradient, (free + free.T) / 2, rtol=0, atol=1e-10)
    np.testing.assert_allclose(cosine, slow_cosine(*map(torch.tensor, (a, x, y))), atol=1e-12)


def test_the_denominator_of_the_source_is_wrong_and_the_power_of_three_halves_right() -> None:
    _, x, y, _ = draw()
    a, x, y = positive(), x[0], y[0]
    l, n, m = x @ a @ y, x @ a @ x, y @ a @ y  # noqa: E741
    expected = by_autograd(a, x[None], y[None], np.ones(1))

    def derivation(denominator: float) -> np.ndarray:
        return np.outer(x, y) / np.sqrt(n * m) - l * (m * np.outer(x, x) + n * np.outer(y, y)) / denominator

    np.testing.assert_allclose(derivation(2 * (n * m) ** 1.5), expected, rtol=0, atol=1e-10)
    assert np.abs(derivation(2 * n * m) - expected).max() > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_a_cosine_knows_no_scale(seed: int) -> None:
    map_, x, y, weights = draw(seed)
    a = positive(seed)
    cosine, gradient = cosine_and_map_gradient(map_, x, y, weights)
    _, symmetric = cosine_and_metric_gradient(a, x, y, weights)
    assert abs((gradient * map_).sum()) < 1e-10
    assert abs((symmetric * a).sum()) < 1e-10
    scales = np.random.default_rng(seed).uniform(0.1, 10, size=(2, N_PAIRS, 1))
    scaled, gradient_scaled = cosine_and_map_gradient(5 * map_, scales[0] * x, scales[1] * y, weights)
    np.testing.assert_allclose(scaled, cosine, atol=1e-12)
    np.testing.assert_allclose(5 * gradient_scaled, gradient, atol=1e-10)


def test_the_gradient_in_the_map_is_twice_the_map_times_that_in_a() -> None:
    map_, x, y, weights = draw()
    for epsilon in (0.0, 0.2):
        _, gradient = cosine_and_map_gradient(map_, x, y, weights, epsilon)
        _, symmetric = cosine_and_metric_gradient(map_.T @ map_ + epsilon * np.eye(N_FEATURES), x, y, weights)
        np.testing.assert_allclose(gradient, 2 * map_ @ symmetric, rtol=0, atol=1e-10)


def test_sparse_rows_give_what_dense_ones_give() -> None:
    map_, x, y, _ = draw()
    rows = sparse.csr_matrix(x), sparse.csr_matrix(y)
    np.testing.assert_allclose(row_products(*rows), (x * y).sum(1))
    slopes = np.random.default_rng(1).normal(size=(N_PAIRS, N_PAIRS))
    np.testing.assert_allclose(
        batch_map_gradient(map_, rows[0], slopes), batch_map_gradient(map_, x, slopes), atol=1e-12
    )


def test_the_gradient_of_a_batch_is_the_sum_over_its_pairs() -> None:
    map_, x, _, _ = draw()
    slopes = np.random.default_rng(1).normal(size=(N_PAIRS, N_PAIRS))
    first, second = np.divmod(np.arange(N_PAIRS**2), N_PAIRS)
    cosine, expected = cosine_and_map_gradient(map_, x[first], x[second], slopes.ravel())
    np.testing.assert_allclose(batch_map_gradient(map_, x, slopes), expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(batch_cosines(x @ map_.T).ravel(), cosine, atol=1e-12)


def test_a_row_without_length_has_no_part_in_a_gradient() -> None:
    map_, x, _, _ = draw()
    with_zero = np.vstack([x, np.zeros(N_FEATURES)])
    slopes = np.random.default_rng(1).normal(size=(N_PAIRS + 1, N_PAIRS + 1))
    expected = batch_map_gradient(map_, x, slopes[:-1, :-1])
    np.testing.assert_allclose(batch_map_gradient(map_, with_zero, slopes), expected, atol=1e-12)
    assert (batch_cosines(with_zero)[-1] == 0).all()


def slow_loss(cosines: torch.Tensor, labels: np.ndarray, temperature: float) -> torch.Tensor:
    """Mean over profiles with a like of -log(sum of softmax over those alike)."""
    losses = []
    for i in range(len(labels)):
        others = [j for j in range(len(labels)) if j != i]
        alike = [j for j in others if labels[j] == labels[i]]
        if alike:
            weights = torch.exp(cosines[i] / temperature)
            losses.append(-torch.log(weights[alike].sum() / weights[others].sum()))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("temperature", [0.05, 0.3])
def test_the_loss_and_its_slopes_are_those_of_a_slow_definition(temperature: float) -> None:
    rng = np.random.default_rng(0)
    cosines = rng.uniform(-1, 1, size=(9, 9))
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3])  # the last one is alone
    variable = torch.tensor(cosines, requires_grad=True)
    expected = slow_loss(variable, labels, temperature)
    expected.backward()
    loss, slopes = neighbor_loss(cosines, labels, temperature)
    assert loss == pytest.approx(expected.item(), abs=1e-12)
    assert variable.grad is not None
    np.testing.assert_allclose(slopes, variable.grad, rtol=0, atol=1e-12)
    assert (slopes[8] == 0).all()


def test_the_loss_of_a_batch_without_likes_is_zero_and_has_no_slope() -> None:
    loss, slopes = neighbor_loss(np.eye(3), np.arange(3), 0.1)
    assert (loss, np.abs(slopes).max()) == (0.0, 0.0)


def labelled(n_rows: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Two labels that one of ten coordinates tells apart, the one of least variance."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n_rows, 10)) * np.linspace(2, 0.5, 10)
    labels = rng.integers(0, 2, n_rows)
    rows[:, 9] = 0.5 * np.where(labels, 1, -1) + 0.1 * rng.normal(size=n_rows)
    return rows, labels


def test_learning_finds_the_coordinate_that_tells_the_labels() -> None:
    rows, labels = labelled()
    settings = MetricSettings(epochs=30, batch_size=64, learning_rate=0.05, temperature=0.2)
    start = np.eye(4, 10) + 0.01  # at the four of largest variance
    found = list(learn_map(rows, labels, start, settings))
    losses = [loss for loss, _ in found]
    assert len(found) == 31
    assert np.isnan(losses[0])
    assert losses[-1] < 0.3 * losses[1]
    share = (found[-1][1] ** 2).sum(0) / (found[-1][1] ** 2).sum()
    assert share.argmax() == 9
    assert share[9] > 0.5
    np.testing.assert_array_equal(found[0][1], start)  # each is a copy


def test_the_same_seed_learns_the_same_map_and_sparse_rows_do_too() -> None:
    rows, labels = labelled()

    def last(rows: np.ndarray | sparse.csr_matrix, seed: int) -> np.ndarray:
        settings = MetricSettings(epochs=2, batch_size=64, learning_rate=0.05, temperature=0.2, seed=seed)
        return list(learn_map(rows, labels, np.eye(4, 10), settings))[-1][1]

    np.testing.assert_array_equal(last(rows, 0), last(rows, 0))
    np.testing.assert_allclose(last(sparse.csr_matrix(rows), 0), last(rows, 0), atol=1e-9)
    assert not np.allclose(last(rows, 0), last(rows, 1))
