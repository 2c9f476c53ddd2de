import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import ON_COSINES, centred, dense_products, products_of
from scipy import stats
from torch import Tensor, nn

from geneae.losses.inner_products import InnerProducts, scale_gradient
from geneae.losses.names import find_loss
from geneae.losses.reconstruction import LOSSES, LossSettings, cosine_similarity
from geneae.training.monitor import (
    COLLAPSES,
    CollapseMonitor,
    EpochStatistics,
    effective_rank,
    gradient_norms,
    is_frozen,
    is_hinge_collapsed,
    relative_update,
    snapshot,
)
from geneae.training.objectives import Reconstruction

EXACT = LossSettings(median_norm=0.0)
RATE = 0.02


def draw(n: int = 6, n_genes: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    x, y = torch.randn(2, n, n_genes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x, y


def step(first: Tensor, second: Tensor, power: float = 0.0, rate: float = RATE) -> tuple[Tensor, Tensor]:
    """Both vectors of free pairs after one step of gradient descent on the sum of -cosine, together."""
    x, y = first.clone().requires_grad_(), second.clone().requires_grad_()

    def loss(target: Tensor, predicted: Tensor) -> Tensor:
        return -cosine_similarity(scale_gradient(dense_products(target, predicted), power)).sum()

    (by_x,) = torch.autograd.grad(loss(y.detach(), x), x)
    (by_y,) = torch.autograd.grad(loss(x.detach(), y), y)
    return first - rate * by_x, second - rate * by_y


def at_angle(norms: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Pairs of vectors of equal norm at an angle."""
    x = norms[:, None] * torch.tensor([1.0, 0.0], dtype=torch.float64)
    y = norms[:, None] * torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    return x, y


def cosines(x: Tensor, y: Tensor) -> Tensor:
    return torch.cosine_similarity(x, y)


@pytest.mark.parametrize("name", ["mse", "relative-mse", "cosine", "combined", "magnitude", "scaled-cosine", "pearson"])
@pytest.mark.parametrize("center", ["none", "gene"])
def test_gradient_norms_are_those_of_dense_predictions(name: str, center: str) -> None:
    x, y = draw()
    center = LOSSES[name].center or center
    objective = Reconstruction(find_loss(name), center, EXACT)
    mean = x.mean(0)
    seen = centred(y, center, mean).clone().requires_grad_()
    found = LOSSES[name].function(dense_products(centred(x, center, mean), seen), EXACT)
    (gradient,) = torch.autograd.grad(found.sum(), seen)
    norms = gradient_norms(objective, dense_products(x, y, center, mean))
    torch.testing.assert_close(norms, gradient.norm(dim=1), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ON_COSINES)
def test_gradient_norms_of_losses_with_negatives_are_those_of_dense_predictions(name: str) -> None:
    x, y = (v.abs() for v in draw())
    loss = find_loss(f"mse+{name}")
    leaf = y.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss.function(products_of(x, leaf), EXACT).sum(), leaf)
    products = products_of(x, y)
    norms = gradient_norms(Reconstruction(loss, "none", EXACT), products)
    torch.testing.assert_close(norms, gradient.norm(dim=1), rtol=1e-6, atol=1e-8)
    assert products.batch is not None
    unknown = replace(products, batch=replace(products.batch, targets=None))
    objective = Reconstruction(loss, "none", replace(EXACT, margin=0.3))
    assert gradient_norms(objective, unknown).isnan().all()


def test_the_gradient_of_cosine_is_sine_over_norm_and_orthogonal_and_its_product_is_the_mean_sine() -> None:
    x, y = draw()
    y = y * torch.logspace(-2, 2, 6, dtype=torch.float64)[:, None]
    leaf = y.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(LOSSES["cosine"].function(dense_products(x, leaf), EXACT).sum(), leaf)
    sine = (1 - cosines(x, y) ** 2).sqrt()
    torch.testing.assert_close(gradient.norm(dim=1) * y.norm(dim=1), sine, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close((gradient * y).sum(1), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-10)
    statistics = EpochStatistics(Reconstruction(LOSSES["cosine"], "none", EXACT))
    statistics.add(dense_products(x, y), y)
    means = statistics.means()
    assert means["gradient_times_norm"] == pytest.approx(float(sine.mean()), rel=1e-9)
    assert means["gradient_norm"] == pytest.approx(float(gradient.norm(dim=1).mean()), rel=1e-9)


def test_one_step_of_a_free_pair_follows_the_exact_law() -> None:
    """Change of cosine 2 a s^2 (1 - a c) / (1 + a^2 s^2), of squared norm rate^2 s^2 / norm^2; a = rate / norm^2."""
    draws = torch.Generator().manual_seed(0)
    norms = 0.1 + 3 * torch.rand(500, generator=draws, dtype=torch.float64)
    x, y = (torch.randn(500, 5, generator=draws, dtype=torch.float64) for _ in range(2))
    x, y = (norms[:, None] * v / v.norm(dim=1, keepdim=True) for v in (x, y))
    c, a = cosines(x, y), RATE / norms**2
    s = 1 - c**2
    new_x, new_y = step(x, y)
    expected = 2 * a * s * (1 - a * c) / (1 + a**2 * s)
    torch.testing.assert_close(cosines(new_x, new_y) - c, expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close((new_x**2).sum(1), norms**2 + RATE**2 * s / norms**2, rtol=1e-10, atol=1e-10)
    assert (new_x.norm(dim=1) >= norms).all()


def steps_to_converge(norms: list[float], power: float, most: int = 2000) -> list[int]:
    """Steps from a right angle to a cosine above 0.999."""
    x, y = at_angle(torch.tensor(norms, dtype=torch.float64), math.pi / 2)
    taken = torch.zeros(len(norms), dtype=torch.int64)
    for _ in range(most):
        is_apart = cosines(x, y) <= 0.999
        if not is_apart.any():
            break
        taken += is_apart
        x, y = step(x, y, power)
    return taken.tolist()


def test_steps_to_converge_grow_with_the_square_of_the_norm() -> None:
    found = steps_to_converge([0.25, 0.5, 0.75, 1, 2, 4], 0.0)
    for steps, expected in zip(found, [6, 23, 53, 95, 380, 1520], strict=True):
        assert abs(steps - expected) <= 1


@pytest.mark.parametrize(("power", "slope"), [(0.0, 2.0), (1.0, 1.0), (2.0, 0.0)])
def test_scaling_the_gradient_by_a_power_of_the_norm_takes_it_off_the_slope(power: float, slope: float) -> None:
    norms = [0.5, 1.0, 2.0, 4.0]
    steps = steps_to_converge(norms, power)
    found = np.polyfit(np.log(norms), np.log(steps), 1)[0]
    assert found == pytest.approx(slope, abs=0.05)
    assert steps[1] == pytest.approx(95, abs=1)


def test_the_angle_costs_its_logarithm() -> None:
    """t = norm^2 / (2 rate) ln(tan(from / 2) / tan(to / 2)): from nearly opposite it takes not much longer."""
    x, y = at_angle(torch.ones(1, dtype=torch.float64), math.pi - 1e-6)
    taken = 0
    while float(cosines(x, y)) <= 0.999:
        x, y = step(x, y)
        taken += 1
    end = math.acos(0.999)
    expected = 1 / (2 * RATE) * math.log(math.tan((math.pi - 1e-6) / 2) / math.tan(end / 2))
    assert taken == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("name", ["mse", "magnitude", "softmax", "cosine+ranking"])
def test_a_scaled_gradient_is_the_gradient_of_each_prediction_times_its_norm_to_that_power(
    name: str, power: float
) -> None:
    x, y = (v.abs() for v in draw())
    leaf = y.clone().requires_grad_()
    gradients = []
    for p in (0.0, power):
        objective = Reconstruction(find_loss(name), "none", EXACT, p)
        value = objective(products_of(x, leaf))
        gradients.append(torch.autograd.grad(value, leaf)[0])
    torch.testing.assert_close(gradients[1], gradients[0] * y.norm(dim=1, keepdim=True) ** power)
    plain, scaled = (Reconstruction(find_loss(name), "none", EXACT, p)(products_of(x, y)) for p in (0.0, power))
    assert float(plain) == float(scaled)


@pytest.mark.parametrize("dimension", [2, 64])
def test_half_of_independent_isotropic_pairs_lie_in_opposite_halves_in_every_dimension(dimension: int) -> None:
    x, y = draw(20_000, dimension)
    statistics = EpochStatistics(Reconstruction(LOSSES["cosine"], "none", EXACT))
    statistics.add(dense_products(x, y), x[:50])
    means = statistics.means()
    assert means["opposite_halves"] == pytest.approx(0.5, abs=0.02)
    assert means["near_antipodal"] == pytest.approx({2: math.acos(0.9) / math.pi, 64: 0.0}[dimension], abs=0.01)


def test_means_are_those_of_all_batches_and_count_targets_without_a_direction() -> None:
    x, y = draw(10)
    x[3] = 0
    latent = torch.randn(10, 4, generator=torch.Generator().manual_seed(1))
    statistics = EpochStatistics(Reconstruction(LOSSES["cosine"], "none", LossSettings()))
    for rows in (slice(0, 4), slice(4, 10)):
        statistics.add(dense_products(x[rows], y[rows]), latent[rows])
    means, lengths = statistics.means(), y.norm(dim=1)
    keep = torch.arange(10) != 3
    assert means["masked_targets"] == 1
    assert means["reconstruction_norm"] == pytest.approx(float(lengths.median()))
    assert means["reconstruction_norm_cv"] == pytest.approx(float(lengths.std(correction=0) / lengths.mean()))
    assert means["latent_norm"] == pytest.approx(float(latent.norm(dim=1).median()))
    assert means["loss_cosine"] == pytest.approx(float(cosines(x, y)[keep].mean()), abs=1e-5)
    assert means["effective_rank"] == pytest.approx(effective_rank(latent))
    assert "ranking_loss" not in means


def test_latents_of_zero_length_have_no_variation() -> None:
    x, y = draw()
    statistics = EpochStatistics(Reconstruction(LOSSES["mse"], "none", LossSettings()))
    statistics.add(dense_products(x, 0 * y), torch.zeros(6, 3))
    means = statistics.means()
    assert means["reconstruction_norm_cv"] == means["latent_norm_cv"] == 0
    assert means["loss_cosine"] == means["opposite_halves"] == 0


def test_relative_update_is_change_over_length() -> None:
    network = nn.Linear(3, 2)
    before = snapshot(network)
    with torch.no_grad():
        network.weight.mul_(1.1)
        network.bias.mul_(1.1)
    assert relative_update(network, before) == pytest.approx(0.1, rel=1e-4)
    assert math.isnan(relative_update(network, [torch.zeros_like(p) for p in network.parameters()]))


def test_a_hinge_has_collapsed_at_its_level_without_spread() -> None:
    assert is_hinge_collapsed(1.02, 1.0, 0.05)
    assert not is_hinge_collapsed(0.9, 1.0, 0.05)
    assert not is_hinge_collapsed(1.02, 1.0, 0.2)


FROZEN = {"norm_ratio": 1e6, "gradient_norm": 1e-7, "loss_cosine": 0.729, "effective_rank": 3.0}
FRESH = {"norm_ratio": 0.08, "gradient_norm": 0.4, "loss_cosine": 0.02, "effective_rank": 9.0}


def test_a_cosine_is_frozen_when_predictions_are_long_the_gradient_gone_and_the_mean_profile_reached() -> None:
    assert is_frozen(FROZEN, FRESH, 0.729)
    for name, value in {"norm_ratio": 1.0, "gradient_norm": 0.3, "loss_cosine": 0.8}.items():
        assert not is_frozen(FROZEN | {name: value}, FRESH, 0.729)


def test_the_monitor_speaks_after_three_epochs_in_a_row() -> None:
    objective = Reconstruction(LOSSES["cosine"], "none", LossSettings(mean_profile_cosine=1 - 0.729))
    monitor = CollapseMonitor(objective, FRESH)
    seen = [monitor.check(row) for row in (FROZEN, FROZEN, FRESH, FROZEN, FROZEN, FROZEN)]
    assert seen == [None] * 5 + ["frozen"]
    assert CollapseMonitor(replace(objective, loss=LOSSES["mse"]), FRESH).counts == {}
    by_mse = CollapseMonitor(replace(objective, loss=LOSSES["mse"]), FRESH)
    assert [by_mse.check(FROZEN) for _ in range(4)] == [None] * 4
    flat = FRESH | {"ranking_loss": 1.0, "ranking_level": 1.0, "score_deviation": 0.01}
    monitor = CollapseMonitor(objective, flat)
    assert [monitor.check(flat) for _ in range(3)] == [None, None, "hinge"]


def test_every_collapse_has_its_remedies_by_name() -> None:
    for word in ("--loss softmax", "--negatives mean", "fewer negatives", "--latent-norm", "smaller initial norm"):
        assert word in COLLAPSES["hinge"]
    for word in ("--learning-rate", "--target-norm", "--grad-scale 2"):
        assert word in COLLAPSES["frozen"]


def test_products_without_negatives_pass_through_a_power_of_zero_as_they_are() -> None:
    x, y = draw()
    products: InnerProducts = dense_products(x, y)
    assert scale_gradient(products, 0.0) is products


def test_the_docs_correct_what_is_often_said_about_opposite_halves() -> None:
    page = Path(__file__).parents[2] / "docs" / "explanation" / "cut.md"
    text = " ".join(page.read_text(encoding="utf-8").split())
    assert "lie in opposite halves in exactly one half of the cases, in every dimension" in text
    for dimension, shown in ((2, "14 % in 2 dimensions"), (8, "0.05 % in 8")):
        share = float(stats.beta.sf(0.9**2, 0.5, (dimension - 1) / 2)) / 2
        digits = 0 if dimension == 2 else 2
        assert f"{100 * share:.{digits}f} % in {dimension}" in shown
        assert shown in text
