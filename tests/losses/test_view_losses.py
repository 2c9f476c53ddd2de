"""View losses against slow NumPy definitions, their gradients against closed forms."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss
from torch import Tensor

from geneae.losses.view_losses import (
    against_batch,
    against_queue,
    cross_correlation,
    distillation,
    negative_cosine,
    nt_xent,
    squared_distance,
    unit,
    variance_covariance,
)

N, D, TAU = 7, 5, 0.4


def vectors(seed: int, n: int = N) -> Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def log_sum_exp(values: list[float]) -> float:
    return float(np.log(np.sum(np.exp(values))))


def slow_nt_xent(first: np.ndarray, second: np.ndarray) -> list[float]:
    both = [*first, *second]
    losses = []
    for i, anchor in enumerate(both):
        logits = {j: cosine(anchor, other) / TAU for j, other in enumerate(both) if j != i}
        losses.append(log_sum_exp(list(logits.values())) - logits[(i + len(first)) % len(both)])
    return [(losses[i] + losses[i + len(first)]) / 2 for i in range(len(first))]


def slow_negative_cosine(first: np.ndarray, second: np.ndarray) -> list[float]:
    return [-cosine(a, b) for a, b in zip(first, second, strict=True)]


def slow_squared_distance(first: np.ndarray, second: np.ndarray) -> list[float]:
    units = [(a / np.sqrt(a @ a), b / np.sqrt(b @ b)) for a, b in zip(first, second, strict=True)]
    return [float(np.sum((a - b) ** 2)) for a, b in units]


QUEUE = vectors(9, 11)


def slow_against_queue(first: np.ndarray, second: np.ndarray) -> list[float]:
    losses = []
    for query, key in zip(first, second, strict=True):
        logits = [cosine(query, other) / TAU for other in (key, *QUEUE.numpy())]
        losses.append(log_sum_exp(logits) - logits[0])
    return losses


def slow_against_batch(first: np.ndarray, second: np.ndarray) -> list[float]:
    losses = []
    for i, query in enumerate(first):
        logits = [cosine(query, key) / TAU for key in second]
        losses.append(2 * TAU * (log_sum_exp(logits) - logits[i]))
    return losses


CENTER = torch.linspace(-1, 1, D, dtype=torch.float64)


def slow_distillation(student: np.ndarray, teacher: np.ndarray) -> list[float]:
    losses = []
    for s, t in zip(student / 0.1, (teacher - CENTER.numpy()) / 0.04, strict=True):
        wanted = np.exp(t - t.max()) / np.exp(t - t.max()).sum()
        losses.append(float(-(wanted * (s - log_sum_exp(list(s)))).sum()))
    return losses


def slow_cross_correlation(first: np.ndarray, second: np.ndarray) -> float:
    total = 0.0
    for k in range(D):
        for other in range(D):
            c = np.corrcoef(first[:, k], second[:, other])[0, 1]
            total += (1 - c) ** 2 if k == other else REDUNDANCY * c**2
    return total


def slow_variance_covariance(first: np.ndarray, second: np.ndarray) -> float:
    total = 25 * np.mean((first - second) ** 2)
    for view in (first, second):
        covariance = np.cov(view.T)
        deviations = np.sqrt(np.diag(covariance) + 1e-4)
        total += 25 * np.mean(np.maximum(0, 1 - deviations)) / 2
        total += sum(covariance[k, j] ** 2 for k in range(D) for j in range(D) if k != j) / D
    return float(total)


REDUNDANCY = 0.3
OF_BATCH: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[np.ndarray, np.ndarray], float]]] = {
    "cross_correlation": (lambda a, b: cross_correlation(a, b, REDUNDANCY), slow_cross_correlation),
    "variance_covariance": (variance_covariance, slow_variance_covariance),
}


@pytest.mark.parametrize("name", OF_BATCH)
@pytest.mark.parametrize("scale", [1.0, 0.3])  # below and above the deviation that VICReg asks for
def test_the_mean_of_losses_of_components_is_the_slow_definition(name: str, scale: float) -> None:
    fast, slow = OF_BATCH[name]
    first, second = scale * vectors(0, 40), scale * (vectors(0, 40) + vectors(1, 40))
    found = fast(first, second)
    assert found.shape == (40,)
    assert found.std() > 1e-3  # profiles have shares of their own
    np.testing.assert_allclose(float(found.mean()), slow(first.numpy(), second.numpy()), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", OF_BATCH)
def test_losses_of_components_do_not_see_shifts_or_the_order_of_profiles(name: str) -> None:
    fast = OF_BATCH[name][0]
    first, second = vectors(0, 40), vectors(1, 40)
    expected = fast(first, second)
    shift = torch.linspace(-2, 2, D, dtype=torch.float64)
    torch.testing.assert_close(fast(first + shift, second + shift), expected)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(fast(first[order], second[order]), expected[order])
    torch.testing.assert_close(fast(second, first).mean(), expected.mean())


def test_correlations_do_not_see_the_scales_of_components() -> None:
    first, second = vectors(0, 40), vectors(1, 40)
    scales = torch.linspace(0.5, 3, D, dtype=torch.float64)
    expected = cross_correlation(first, second, REDUNDANCY)
    torch.testing.assert_close(cross_correlation(first * scales, second / scales, REDUNDANCY), expected)


def test_losses_of_components_are_zero_for_equal_views_whose_components_are_not_correlated() -> None:
    plain = torch.linalg.qr(vectors(0, 40) - vectors(0, 40).mean(0)).Q * np.sqrt(39)  # mean 0, covariance one
    np.testing.assert_allclose(float(cross_correlation(plain, plain, REDUNDANCY).mean()), 0, atol=1e-10)
    np.testing.assert_allclose(float(variance_covariance(plain, plain).mean()), 0, atol=1e-10)
    collapsed = torch.ones(40, D, dtype=torch.float64)
    np.testing.assert_allclose(float(variance_covariance(collapsed, collapsed).mean()), 25 * (1 - 0.01))
    np.testing.assert_allclose(float(cross_correlation(collapsed, collapsed, REDUNDANCY).mean()), D)


@pytest.mark.parametrize("name", OF_BATCH)
def test_gradients_of_losses_of_components_are_finite_differences_of_the_slow_definition(name: str) -> None:
    fast, slow = OF_BATCH[name]
    first, second = (0.5 * vectors(0, 12)).requires_grad_(), vectors(1, 12)
    (found,) = torch.autograd.grad(fast(first, second).mean(), first)
    for row, column in ((0, 0), (3, 2), (11, 4)):
        moved = [first.detach().numpy().copy() for _ in range(2)]
        moved[0][row, column] += 1e-5
        moved[1][row, column] -= 1e-5
        expected = (slow(moved[0], second.numpy()) - slow(moved[1], second.numpy())) / 2e-5
        np.testing.assert_allclose(float(found[row, column]), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", OF_BATCH)
def test_a_single_profile_has_a_finite_loss(name: str) -> None:
    assert OF_BATCH[name][0](vectors(0, 1), vectors(1, 1)).isfinite().all()


@pytest.mark.parametrize("name", OF_BATCH)
def test_components_without_variance_have_finite_losses_and_gradients(name: str) -> None:
    first = vectors(0)
    first[:, 1] = 3.0
    first.requires_grad_()
    loss = OF_BATCH[name][0](first, vectors(1))
    (gradient,) = torch.autograd.grad(loss.sum(), first)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()
    low = OF_BATCH[name][0](vectors(0).bfloat16(), vectors(1).bfloat16())
    assert low.dtype == torch.float32


Fast = Callable[[Tensor, Tensor], Tensor]
PAIRS: dict[str, tuple[Fast, Callable[[np.ndarray, np.ndarray], list[float]]]] = {
    "nt_xent": (lambda a, b: nt_xent(a, b, TAU), slow_nt_xent),
    "negative_cosine": (negative_cosine, slow_negative_cosine),
    "squared_distance": (squared_distance, slow_squared_distance),
    "against_queue": (lambda a, b: against_queue(a, b, QUEUE, TAU), slow_against_queue),
    "against_batch": (lambda a, b: against_batch(a, b, TAU), slow_against_batch),
    "distillation": (lambda a, b: distillation(a, b, CENTER, 0.1, 0.04), slow_distillation),
}


@pytest.mark.parametrize("name", PAIRS)
def test_losses_are_their_slow_definitions(name: str) -> None:
    fast, slow = PAIRS[name]
    first, second = vectors(0), vectors(1)
    np.testing.assert_allclose(fast(first, second).numpy(), slow(first.numpy(), second.numpy()), rtol=0, atol=1e-6)


def test_nt_xent_is_that_of_pytorch_metric_learning() -> None:
    first, second = vectors(0).float(), vectors(1).float()
    theirs = SelfSupervisedLoss(NTXentLoss(temperature=TAU))(first, second)
    torch.testing.assert_close(nt_xent(first, second, TAU).mean(), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in PAIRS if name != "distillation"])
def test_only_directions_count_and_gradients_are_orthogonal_and_fall_with_the_length(name: str) -> None:
    fast = PAIRS[name][0]
    first, second = vectors(0).requires_grad_(), vectors(1)
    (gradient,) = torch.autograd.grad(fast(first, second).sum(), first)
    longer = (3 * first.detach()).requires_grad_()
    torch.testing.assert_close(fast(longer, 0.2 * second), fast(first, second))
    torch.testing.assert_close(torch.autograd.grad(fast(longer, second).sum(), longer)[0], gradient / 3)
    assert (gradient * first).sum(1).abs().max() < 1e-12
    assert gradient.norm(dim=1).min() > 1e-3


def closed_forms(first: Tensor, second: Tensor) -> dict[str, Tensor]:
    """Gradients of the sums of losses with respect to `first`, before normalisation."""
    u, v, length = unit(first), unit(second), first.norm(dim=1, keepdim=True)

    def across(d: Tensor) -> Tensor:
        """(I - u u') d / length"""
        return (d - (d * u).sum(1, keepdim=True) * u) / length

    both = torch.cat([u, v])
    logits = (both @ both.T / TAU).fill_diagonal_(-torch.inf)
    partner = torch.eye(2 * N, dtype=torch.float64).roll(N, 0)
    gap = torch.softmax(logits, 1) - partner
    by_queue = torch.softmax(torch.cat([(u * v).sum(1, keepdim=True), u @ unit(QUEUE).T], 1) / TAU, 1)
    by_batch = torch.softmax(u @ v.T / TAU, 1)
    return {
        "nt_xent": across(((gap + gap.T) @ both / TAU / 2)[:N]),  # half, as a profile's loss is a mean of two views
        "negative_cosine": -across(v),
        "squared_distance": -2 * across(v),
        "against_queue": across((by_queue[:, :1] * v + by_queue[:, 1:] @ unit(QUEUE) - v) / TAU),
        "against_batch": 2 * TAU * across((by_batch @ v - v) / TAU),
    }


@pytest.mark.parametrize("name", [name for name in PAIRS if name != "distillation"])
def test_gradients_are_the_closed_forms(name: str) -> None:
    first, second = vectors(0).requires_grad_(), vectors(1)
    (found,) = torch.autograd.grad(PAIRS[name][0](first, second).sum(), first)
    torch.testing.assert_close(found, closed_forms(first.detach(), second)[name], rtol=0, atol=1e-10)


def test_the_gradient_of_distillation_is_that_of_the_softmaxes() -> None:
    student, teacher = vectors(0).requires_grad_(), vectors(1)
    (found,) = torch.autograd.grad(distillation(student, teacher, CENTER, 0.1, 0.04).sum(), student)
    expected = (torch.softmax(student / 0.1, 1) - torch.softmax((teacher - CENTER) / 0.04, 1)) / 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_perfect_agreement_and_none() -> None:
    same = vectors(0)
    torch.testing.assert_close(negative_cosine(same, 2 * same), -torch.ones(N, dtype=torch.float64))
    torch.testing.assert_close(squared_distance(same, -same), torch.full((N,), 4.0, dtype=torch.float64))
    equal = torch.ones(N, D)
    torch.testing.assert_close(nt_xent(equal, equal, TAU), torch.full((N,), float(np.log(2 * N - 1))))


@pytest.mark.parametrize("name", PAIRS)
def test_a_vector_without_length_has_finite_loss_and_gradient(name: str) -> None:
    first = vectors(0)
    first[2] = 0
    first.requires_grad_()
    loss = PAIRS[name][0](first, vectors(1))
    (gradient,) = torch.autograd.grad(loss.sum(), first)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()


def test_low_precision_is_computed_in_32_bits() -> None:
    first, second = vectors(0).bfloat16(), vectors(1).bfloat16()
    torch.testing.assert_close(negative_cosine(first, second), negative_cosine(first.float(), second.float()))
    assert nt_xent(first, second, TAU).dtype == torch.float32
