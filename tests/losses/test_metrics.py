import numpy as np
import pytest
import torch
from reference import counts_matrix, csr, dense_normalize, dense_products

from geneae.losses.inner_products import InnerProducts, inner_products, linear_output, project
from geneae.losses.metrics import METRICS, best_scale, measure, rescaled_mse
from geneae.losses.sparse_rows import sparse_rows


def arrays(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, predictions and gene means; nothing is zero."""
    rng = np.random.default_rng(seed)
    x = dense_normalize(counts_matrix(20, 30, seed))
    return x, np.abs(x + rng.normal(size=x.shape)), x.mean(0)


def products(x: np.ndarray, y: np.ndarray, center: str = "none", mean: np.ndarray | None = None) -> InnerProducts:
    shift = None if mean is None else torch.from_numpy(mean)
    return dense_products(torch.from_numpy(x), torch.from_numpy(y), center, shift)


def slow(name: str, x: np.ndarray, y: np.ndarray, mean: np.ndarray) -> float:
    """A metric of one profile, as in a textbook."""
    r, s = np.sqrt(sum(x**2)), np.sqrt(sum(y**2))
    c = sum(x * y) / (r * s)
    a, b = x - mean, y - mean
    return float(
        {
            "cosine": c,
            "centred_cosine": sum(a * b) / np.sqrt(sum(a**2) * sum(b**2)),
            "mse": np.mean((x - y) ** 2),
            "relative_mse": sum((x - y) ** 2) / sum(x**2),
            "norm_ratio": s / r,
            "direction_error": 2 * r * s * (1 - c) / len(x),
            "magnitude_error": (r - s) ** 2 / len(x),
        }[name]
    )


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_equals_its_slow_definition(name: str) -> None:
    x, y, mean = arrays()
    found = measure(METRICS[name], products(x, y, METRICS[name].center, mean)).numpy()
    np.testing.assert_allclose(found, [slow(name, *pair, mean) for pair in zip(x, y, strict=True)], rtol=1e-10)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_equals_its_slow_definition_on_sparse_profiles(name: str) -> None:
    x, _, mean = arrays()
    x = x.astype(np.float32).astype(np.float64)  # as it is stored
    draws = torch.Generator().manual_seed(0)
    weight = torch.randn(30, 3, generator=draws, dtype=torch.float64)
    hidden = torch.randn(20, 3, generator=draws, dtype=torch.float64)
    offset = torch.from_numpy(mean)
    target = project(sparse_rows(csr(x)).to("cpu", torch.float64), weight, offset, offset)
    values = inner_products(target, linear_output(weight, offset, offset), hidden, METRICS[name].center)
    y = (hidden @ weight.T + offset).numpy()
    found = measure(METRICS[name], values).numpy()
    np.testing.assert_allclose(found, [slow(name, *pair, mean) for pair in zip(x, y, strict=True)], rtol=1e-6)


def test_direction_and_magnitude_add_up_to_the_mse() -> None:
    x, y, _ = arrays()
    for predicted in (y, x, 0 * x, -y):
        p = products(x, predicted)
        parts = [METRICS[name].function(p) for name in ("direction_error", "magnitude_error")]
        torch.testing.assert_close(parts[0] + parts[1], METRICS["mse"].function(p), rtol=1e-12, atol=1e-12)


def test_mse_is_least_where_the_norm_ratio_is_the_cosine() -> None:
    x, y, _ = arrays()
    c = measure(METRICS["cosine"], products(x, y)).numpy()
    best = y * (c * np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1))[:, None]
    least = measure(METRICS["mse"], products(x, best))
    np.testing.assert_allclose(measure(METRICS["norm_ratio"], products(x, best)), c, rtol=1e-10)
    for factor in (0.99, 1.01):
        assert (measure(METRICS["mse"], products(x, factor * best)) > least).all()


@pytest.mark.parametrize("center", ["none", "gene", "profile"])
def test_best_scale_is_the_least_squares_factor(center: str) -> None:
    x, y, mean = arrays()
    p = products(x, y, center, mean)
    a, b = x, y
    if center == "gene":
        a, b = x - mean, y - mean
    if center == "profile":
        a, b = (v - v.mean(1, keepdims=True) for v in (x, y))
    expected = np.linalg.lstsq(b.reshape(-1, 1), a.ravel(), rcond=None)[0][0]
    assert best_scale(p) == pytest.approx(expected, rel=1e-10)
    np.testing.assert_allclose(rescaled_mse(p, expected), ((a - expected * b) ** 2).mean(1), rtol=1e-9)


def test_scaling_by_one_changes_nothing_and_zero_predictions_have_scale_one() -> None:
    x, y, _ = arrays()
    torch.testing.assert_close(rescaled_mse(products(x, y), 1.0), measure(METRICS["mse"], products(x, y)))
    assert best_scale(products(x, 0 * y)) == 1
    assert best_scale(products(x, 4 * x)) == pytest.approx(0.25)


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].center == "none"])
def test_a_zero_profile_has_no_number_and_changes_no_other(name: str) -> None:
    x, y, _ = arrays()
    expected = measure(METRICS[name], products(x, y))
    x[3] = 0
    found = measure(METRICS[name], products(x, y))
    assert found.isnan().nonzero().ravel().tolist() == [3]
    keep = torch.arange(20) != 3
    torch.testing.assert_close(found[keep], expected[keep])


def test_a_profile_that_equals_the_gene_mean_has_no_centred_cosine() -> None:
    x, y, mean = arrays()
    x[3] = mean
    found = measure(METRICS["centred_cosine"], products(x, y, "gene", mean))
    assert found.isnan().nonzero().ravel().tolist() == [3]


def test_a_zero_prediction_has_cosine_zero_and_all_of_the_error() -> None:
    x, y, _ = arrays()
    y[3] = 0
    p = products(x, y)
    assert float(measure(METRICS["cosine"], p)[3]) == 0
    assert float(measure(METRICS["norm_ratio"], p)[3]) == 0
    assert float(measure(METRICS["relative_mse"], p)[3]) == 1
    assert float(measure(METRICS["direction_error"], p)[3]) == 0
    assert float(measure(METRICS["magnitude_error"], p)[3]) == float(measure(METRICS["mse"], p)[3])


def test_a_perfect_reconstruction_is_best_by_every_metric() -> None:
    x, _, mean = arrays()
    best = {"higher": 1.0, "lower": 0.0, "": 1.0}
    for metric in METRICS.values():
        found = measure(metric, products(x, x, metric.center, mean))
        np.testing.assert_allclose(found, best[metric.better], atol=1e-12)


def test_cosines_never_leave_their_range() -> None:
    x = np.random.default_rng(0).normal(size=(500, 7))
    for sign in (1, -1):
        found = measure(METRICS["cosine"], products(x, sign * 3 * x))
        assert float(found.abs().max()) <= 1
        np.testing.assert_allclose(found, sign, rtol=1e-12)


def test_the_mean_profile_has_centred_cosine_zero_and_a_cosine_far_above() -> None:
    x, _, mean = arrays()
    y = np.tile(mean, (20, 1))
    assert (measure(METRICS["centred_cosine"], products(x, y, "gene", mean)) == 0).all()
    assert float(measure(METRICS["cosine"], products(x, y)).mean()) > 0.5
