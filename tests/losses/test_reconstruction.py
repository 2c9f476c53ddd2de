import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import (
    DENSE_LOSSES,
    DenseTwin,
    centred,
    counts_matrix,
    csr,
    dense_normalize,
    dense_products,
    pairwise,
    profiles_of,
    reconstruct,
)
from torch import Tensor

from geneae.data.preprocess import Expression, fit_preprocess
from geneae.losses.inner_products import InnerProducts
from geneae.losses.names import find_loss
from geneae.losses.reconstruction import (
    ALIASES,
    LOSSES,
    NORM_FLOOR,
    LossSettings,
    cosine_similarity,
    mean_loss,
    squared_error,
)
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.network import Network, network_in_basis, random_network
from geneae.models.pca import fit_basis
from geneae.settings.errors import InputError

CONSTANTS = LossSettings(
    alpha=0.3,
    beta=0.7,
    gamma=1.5,
    mean_profile_mse=2.5,
    mean_profile_cosine=0.4,
    median_norm=30.0,
    norm_ratio=0.8,
)


def draw(n: int = 6, n_genes: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random float64 targets and predictions."""
    x, y = torch.randn(2, n, n_genes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x, y


def perturb(network: Network, seed: int) -> Network:
    """Random weights and biases everywhere, so that no term of a gradient is zero by the start."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            size = 0.3 * float(parameter.std()) if parameter.numel() > 1 and parameter.std() > 0 else 0.1
            parameter.add_(torch.randn(parameter.shape, generator=draws) * max(size, 0.05))
    return network.eval()


def build(kind: str, matrix: np.ndarray) -> Network:
    """A network of each kind for dense profiles: fixed PCA basis, learned basis from PCA, learned from random."""
    torch.manual_seed(0)
    if kind == "free-random":
        return perturb(random_network(torch.from_numpy(matrix.mean(0)).float(), 3, 7, 0.2), 1)
    basis = fit_basis([csr(matrix)], 6, seed=0)
    network = perturb(network_in_basis(basis, torch.linspace(0.9, 0.3, 6), 3, 7, 0.2, kind == "free-pca"), 2).double()
    if not network.is_free:  # orthonormal to float64, so that both precisions have the same truth
        network.components = torch.linalg.qr(network.components).Q.contiguous()
    return network


def data(scale: bool) -> np.ndarray:
    """30 x 50 log-normalised profiles, genes divided by their deviation or not; one profile is empty."""
    counts = counts_matrix()
    counts[7] = 0
    preprocess = fit_preprocess(profiles_of(counts), np.arange(30), scale=scale)
    totals = counts.sum(1)
    kept = [int(gene[1:]) for gene in preprocess.genes]
    return preprocess.apply(Expression(csr(counts[:, kept]), totals)).toarray().astype(np.float64)


def close(found: Tensor, expected: Tensor, tolerance: float, absolute: float = 0.0) -> bool:
    """Whether the norm of the difference is small relative to that of the expected tensor."""
    found, expected = found.detach().double(), expected.detach()
    return float((found - expected).norm()) <= tolerance * float(expected.norm()) + absolute


CASES = pairwise(
    list(LOSSES),
    ["none", "gene", "profile"],
    ["pca", "free-pca", "free-random"],
    [False, True],
    [torch.float32, torch.float64],
    is_allowed=lambda name, center, *_: center == (LOSSES[name].center or center),
)


@pytest.mark.parametrize(("name", "center", "kind", "scale", "dtype"), CASES)
def test_every_loss_and_gradient_equals_the_dense_one_in_both_bases(
    name: str, center: str, kind: str, scale: bool, dtype: torch.dtype
) -> None:
    """Every pair of loss, centring, basis, scaling of genes and precision.

    Pairs are enough: a loss depends on inner products alone, and `test_inner_products.py` compares these with dense
    ones for every centring, basis and precision.
    """
    matrix = data(scale)
    network = build(kind, matrix).double()
    twin = DenseTwin(network)
    sparse_net = DenseTwin(network).network.to(dtype)
    rows = sparse_rows(csr(matrix), transpose=True).to("cpu", dtype)
    by_center, latent = reconstruct(
        sparse_net,
        rows if network.is_free else sparse_net.scores(rows),
        rows if network.is_free else sparse_net.decoder().project(rows),
        center,
    )
    products = by_center[center]
    values = LOSSES[name].function(products, CONSTANTS)
    x = torch.from_numpy(matrix)
    dense_latent = twin.encode(x)
    targets, predicted = (centred(v, center, twin.network.mean) for v in (x, twin.predict(dense_latent)))
    known = targets.norm(dim=1) > 1e-9
    assert known.sum() == (30 if center == "gene" else 29)
    expected = DENSE_LOSSES[name](targets[known], predicted[known], CONSTANTS)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-9
    assert close(latent, dense_latent, tolerance)
    # the absolute part is for the empty profile, nearly perfect once centred by gene: 1 - c cancels in float32
    absolute = 0.1 * tolerance * float(expected.detach().mean())
    torch.testing.assert_close(values[known].double(), expected, rtol=tolerance, atol=absolute)
    loss = mean_loss(LOSSES[name].function, products, CONSTANTS)
    torch.testing.assert_close(loss.double(), expected.mean(), rtol=tolerance, atol=0)
    loss.backward()
    expected.mean().backward()
    gradients = twin.gradients()
    assert len(gradients) == len(list(network.parameters()))
    largest = max(float(g.norm()) for g in gradients.values())
    for parameter, p in sparse_net.named_parameters():
        assert p.grad is not None
        bound = 1e-4 if dtype == torch.float32 else 1e-8
        assert close(p.grad, gradients[parameter], bound, 1e-7 * largest), parameter


@pytest.mark.parametrize("name", LOSSES)
def test_perfect_reconstruction_has_loss_zero(name: str) -> None:
    x, _ = draw()
    center = LOSSES[name].center or "none"
    constants = LossSettings(norm_ratio=1.0, gamma=2.0)
    values = LOSSES[name].function(dense_products(x, x, center), constants)
    torch.testing.assert_close(values, torch.zeros(6, dtype=torch.float64), atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_beats_perfect_reconstruction(name: str) -> None:
    for seed in range(20):
        x, y = draw(seed=seed)
        near = x + 0.01 * y
        for predicted in (y, near, -x, 2 * x + 0.5 * y):
            products = dense_products(x, predicted, LOSSES[name].center or "none")
            assert (LOSSES[name].function(products, LossSettings()) > 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_scale_free_losses_are_those_that_do_not_see_a_doubled_prediction(name: str) -> None:
    x, y = draw()
    center = LOSSES[name].center or "none"
    single, double = (LOSSES[name].function(dense_products(x, k * y, center), LossSettings()) for k in (1, 2))
    assert LOSSES[name].is_scale_free == torch.allclose(single, double, rtol=1e-9, atol=0)


def test_pearson_does_not_see_a_shifted_prediction() -> None:
    x, y = draw()
    values = [LOSSES["pearson"].function(dense_products(x, v, "profile"), LossSettings()) for v in (y, 3 * y + 5)]
    torch.testing.assert_close(values[0], values[1])


@pytest.mark.parametrize("name", ["relative-mse", "cosine", "pearson", "magnitude", "scaled-cosine"])
def test_depth_changes_nothing_where_target_and_prediction_share_it(name: str) -> None:
    x, y = draw()
    center = LOSSES[name].center or "none"
    values = [
        LOSSES[name].function(dense_products(k * x, k * y, center), LossSettings(median_norm=1e-3)) for k in (1, 5)
    ]
    torch.testing.assert_close(values[0], values[1], rtol=1e-9, atol=0)


def test_squared_error_is_a_magnitude_part_and_a_direction_part() -> None:
    x, y = draw(200)
    products = dense_products(x, y)
    r, s = x.norm(dim=1), y.norm(dim=1)
    identity = (r - s) ** 2 + 2 * r * s * (1 - cosine_similarity(products))
    torch.testing.assert_close(squared_error(products), identity, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(identity, ((x - y) ** 2).sum(1), rtol=1e-12, atol=1e-12)


def test_relative_mse_is_a_magnitude_part_and_a_direction_part() -> None:
    x, y = draw(200)
    products = dense_products(x, y)
    ratio, c = y.norm(dim=1) / x.norm(dim=1), cosine_similarity(products)
    found = LOSSES["relative-mse"].function(products, LossSettings(median_norm=0))
    torch.testing.assert_close(found, (1 - ratio) ** 2 + 2 * ratio * (1 - c), rtol=1e-12, atol=1e-12)


def test_gradient_of_a_cosine_is_orthogonal_and_as_long_as_the_sine_over_the_norm() -> None:
    x, y = draw(50)
    y.requires_grad_()
    products = dense_products(x, y)
    c = cosine_similarity(products)
    c.sum().backward()
    g = y.grad
    assert g is not None
    with torch.no_grad():
        assert float((g * y).sum(1).abs().max()) < 1e-10
        sine = torch.sqrt(1 - c**2)
        torch.testing.assert_close(g.norm(dim=1), sine / y.norm(dim=1), rtol=1e-10, atol=1e-10)
        u, v = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
        torch.testing.assert_close(g, (u - c[:, None] * v) / y.norm(dim=1, keepdim=True), rtol=1e-10, atol=1e-10)


@given(st.floats(0.05, 3.1), st.floats(0.2, 5), st.floats(0.001, 2))
@settings(max_examples=50, deadline=None)
def test_one_joint_step_on_a_free_pair_changes_the_cosine_by_the_known_amount(
    angle: float, norm: float, rate: float
) -> None:
    x = torch.tensor([[norm, 0.0]], dtype=torch.float64, requires_grad=True)
    y = norm * torch.tensor([[np.cos(angle), np.sin(angle)]], dtype=torch.float64)
    y.requires_grad_()
    loss = LOSSES["cosine"].function(dense_products(x, y), LossSettings(median_norm=0)).sum()
    by_x, by_y = torch.autograd.grad(loss, (x, y))
    after = cosine_similarity(dense_products(x - rate * by_x, y - rate * by_y))
    a, c, s = rate / norm**2, np.cos(angle), np.sin(angle)
    assert float((after - c).detach()) == pytest.approx(2 * a * s**2 * (1 - a * c) / (1 + a**2 * s**2), abs=1e-10)


def gradient(name: str, x: Tensor, y: Tensor, constants: LossSettings) -> Tensor:
    y = y.clone().requires_grad_()
    LOSSES[name].function(dense_products(x, y, LOSSES[name].center or "none"), constants).sum().backward()
    assert y.grad is not None
    return y.grad


def test_gradients_equal_their_closed_forms() -> None:
    x, y = draw()
    exact = LossSettings(median_norm=0, beta=1.0)
    r, s = x.norm(dim=1, keepdim=True), y.norm(dim=1, keepdim=True)
    u, v = x / r, y / s
    c = (u * v).sum(1, keepdim=True)
    angular = -(u - c * v) / s
    a, b = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    p = (a * b).sum(1, keepdim=True) / (a.norm(dim=1, keepdim=True) * b.norm(dim=1, keepdim=True))
    expected = {
        "mse": 2 * (y - x) / 12,
        "relative-mse": 2 * (y - x) / r**2,
        "cosine": angular,
        "magnitude": angular + (s / r - 1) * v / r,
        "pearson": -(a / a.norm(dim=1, keepdim=True) - p * b / b.norm(dim=1, keepdim=True))
        / b.norm(dim=1, keepdim=True),
        "scaled-cosine": 2 * (1 - c) * angular,
        "combined": 0.5 * 2 * (y - x) / 12 + 0.5 * angular,
    }
    assert expected.keys() == LOSSES.keys()
    for name, value in expected.items():
        torch.testing.assert_close(gradient(name, x, y, exact), value, rtol=1e-10, atol=1e-10, msg=name)


def test_the_two_gradients_of_magnitude_are_orthogonal() -> None:
    x, y = draw()
    both, direction = (gradient("magnitude", x, y, LossSettings(median_norm=0, beta=b)) for b in (3.0, 0.0))
    torch.testing.assert_close(
        ((both - direction) * direction).sum(1), torch.zeros(6, dtype=torch.float64), atol=1e-12, rtol=0
    )
    assert (both - direction).norm() > 0.1


def test_gradient_of_pearson_sums_to_zero() -> None:
    x, y = draw()
    sums = gradient("pearson", x, y, LossSettings()).sum(1)
    torch.testing.assert_close(sums, torch.zeros(6, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_mean_profile_has_a_combined_loss_of_one(alpha: float) -> None:
    x = torch.from_numpy(dense_normalize(counts_matrix()))
    products = dense_products(x, x.mean(0).expand_as(x))
    by_error, by_direction = (float(LOSSES[n].function(products, LossSettings()).mean()) for n in ("mse", "cosine"))
    constants = LossSettings(alpha=alpha, mean_profile_mse=by_error, mean_profile_cosine=by_direction)
    assert float(mean_loss(LOSSES["combined"].function, products, constants)) == pytest.approx(1, abs=1e-9)


def test_weights_change_the_losses_that_are_said_to_have_them() -> None:
    x, y = draw()
    products = dense_products(x, y)

    def value(name: str, **weights: float) -> Tensor:
        return LOSSES[name].function(products, LossSettings(**weights))

    torch.testing.assert_close(value("combined", alpha=1.0), value("mse"))
    torch.testing.assert_close(value("combined", alpha=0.0), value("cosine"))
    torch.testing.assert_close(value("magnitude", beta=0.0), value("cosine"))
    torch.testing.assert_close(value("scaled-cosine", gamma=1.0), value("cosine"))
    torch.testing.assert_close(value("scaled-cosine", gamma=3.0), value("cosine") ** 3)


def test_magnitude_is_least_at_the_norm_ratio_asked_for() -> None:
    x, _ = draw()
    ratios = [0.6, 0.7, 0.8, 0.9, 1.0]
    values = [
        float(LOSSES["magnitude"].function(dense_products(x, k * x), LossSettings(norm_ratio=0.8)).mean())
        for k in ratios
    ]
    assert ratios[int(np.argmin(values))] == 0.8
    assert min(values) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_zero_targets_weigh_nothing_and_zero_predictions_stay_finite(name: str, dtype: torch.dtype) -> None:
    x, y = draw(5)
    x[[0, 1]] = 0
    y[[1, 2]] = 0
    center = LOSSES[name].center or "none"
    constants = LossSettings(median_norm=3.0)
    leaf = y.to(dtype, copy=True).requires_grad_()
    loss = mean_loss(LOSSES[name].function, dense_products(x.to(dtype), leaf, center), constants)
    loss.backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    assert (leaf.grad[:2] == 0).all()
    expected = LOSSES[name].function(dense_products(x[2:], y[2:], center), constants).mean()
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)
    assert float(leaf.grad.norm(dim=1).max()) <= 2 / (NORM_FLOOR * 3.0)  # bounded by the floor


@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_over_no_profile_with_a_direction_is_zero(name: str) -> None:
    nothing = torch.zeros(3)
    products = InnerProducts(nothing, nothing, torch.ones(3), 4)
    assert float(mean_loss(LOSSES[name].function, products, LossSettings())) == 0
    nobody = torch.zeros(0)
    assert float(mean_loss(LOSSES[name].function, InnerProducts(nobody, nobody, nobody, 4), LossSettings())) == 0


def test_cosine_without_floor_is_undefined_for_zero_and_with_it_is_zero() -> None:
    products = InnerProducts(torch.zeros(1), torch.ones(1), torch.zeros(1), 3)
    assert cosine_similarity(products).isnan().all()
    assert cosine_similarity(products, 1e-6).tolist() == [0]
    assert LOSSES["cosine"].function(products, LossSettings()).tolist() == [1]


@pytest.mark.parametrize("name", [*LOSSES, *ALIASES])
def test_every_name_and_alias_finds_its_loss(name: str) -> None:
    assert find_loss(name) is LOSSES[ALIASES.get(name, name)]


def test_the_alias_of_keras_has_its_gradient() -> None:
    x, y = draw()
    y.requires_grad_()
    keras = -torch.nn.functional.cosine_similarity(x, y)
    mine = find_loss("keras-cosine").function(dense_products(x, y), LossSettings(median_norm=0))
    torch.testing.assert_close(mine - 1, keras)
    one, other = (torch.autograd.grad(value.sum(), y)[0] for value in (keras, mine))
    torch.testing.assert_close(one, other)


def test_an_unknown_loss_is_answered_with_the_nearest() -> None:
    expected = "unknown loss 'cosin'; did you mean 'cosine'? Available: mse, relative-mse, cosine, pearson, combined"
    with pytest.raises(InputError, match=re.escape(expected)):
        find_loss("cosin")
