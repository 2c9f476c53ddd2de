import numpy as np
import pytest
import torch
from reference import csr
from scipy import sparse
from sklearn.decomposition import PCA

from geneae.losses.sparse_rows import sparse_rows
from geneae.models.pca import Basis, fit_basis, fit_wiener, largest_rank, score_moments, wiener_factors


def signal(n_profiles: int = 80, n_genes: int = 40, rank: int = 5, noise: float = 0.3, seed: int = 0) -> np.ndarray:
    """Profiles of `rank` programmes of clearly different variance, around a gene mean, with noise."""
    rng = np.random.default_rng(seed)
    programmes = np.linalg.qr(rng.normal(size=(n_genes, rank)))[0]
    scores = rng.normal(size=(n_profiles, rank)) * np.linspace(12, 4, rank)
    return 3 + scores @ programmes.T + noise * rng.normal(size=(n_profiles, n_genes))


def project_onto(components: torch.Tensor | np.ndarray) -> np.ndarray:
    c = np.asarray(components, dtype=np.float64)
    return c @ c.T


@pytest.mark.parametrize("rank", [1, 3, 5, 39])
def test_basis_is_the_pca_of_the_dense_matrix(rank: int) -> None:
    x = signal()
    basis, exact = fit_basis([csr(x)], rank, seed=0), PCA(rank, svd_solver="full").fit(x)
    assert basis.rank == rank
    np.testing.assert_allclose(project_onto(basis.components), project_onto(exact.components_.T), atol=2e-4)
    np.testing.assert_allclose(basis.deviation.numpy() ** 2, exact.explained_variance_ * 79 / 80, rtol=1e-4)
    np.testing.assert_allclose(basis.mean.numpy(), exact.mean_, rtol=1e-5)
    own = np.abs(basis.scores(sparse_rows(csr(x))).numpy())
    np.testing.assert_allclose(own[:, 0], np.abs(exact.transform(x)[:, 0]), atol=1e-3)


def test_components_are_orthonormal_and_fall_in_variance() -> None:
    basis = fit_basis([csr(signal())], 20, seed=0)
    np.testing.assert_allclose(basis.components.T @ basis.components, np.eye(20), atol=1e-5)
    assert (basis.deviation.diff() <= 0).all()
    assert (basis.components.gather(0, basis.components.abs().argmax(0, keepdim=True)) > 0).all()
    assert basis.components.is_contiguous()


def test_scores_have_the_deviation_of_the_basis_and_mean_zero() -> None:
    x = signal()
    basis = fit_basis([csr(x)], 5, seed=0)
    scores = basis.scores(sparse_rows(csr(x)))
    np.testing.assert_allclose(scores.mean(0), np.zeros(5), atol=1e-4)
    np.testing.assert_allclose(scores.std(0, correction=0), basis.deviation, rtol=1e-4)


def test_blocks_count_as_stacked() -> None:
    x = signal()
    parts = fit_basis([csr(x[:30]), csr(x[30:])], 5, seed=0)
    whole = fit_basis([csr(x)], 5, seed=0)
    for name in ("components", "mean", "deviation"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-4)


def test_a_basis_of_many_profiles_matches_the_best_low_rank_error() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.3, 2.0, size=(4, 200))[rng.integers(0, 4, 400)])
    x = np.log1p(counts)
    basis, exact = fit_basis([csr(x)], 20, seed=0), PCA(20, svd_solver="full").fit(x)
    around = x - x.mean(0)
    kept = np.sum((around @ basis.components.numpy()) ** 2)
    assert kept == pytest.approx(exact.explained_variance_.sum() * 399, rel=5e-3)  # noise of a flat spectrum is hardest
    assert kept <= exact.explained_variance_.sum() * 399 * (1 + 1e-5)


def test_same_seed_same_basis_bit_for_bit_and_any_seed_nearly() -> None:
    x = csr(signal())
    one, two, other = (fit_basis([x], 5, seed) for seed in (3, 3, 4))
    assert torch.equal(one.components, two.components)
    assert torch.equal(one.deviation, two.deviation)
    assert not torch.equal(one.components, other.components)
    np.testing.assert_allclose(one.components, other.components, atol=1e-4)


def test_the_callers_random_numbers_stay_as_they_were() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    fit_basis([csr(signal())], 3, seed=0)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(("shape", "largest"), [((6, 40), 5), ((40, 6), 6), ((1, 9), 1)])
def test_the_rank_is_cut_to_what_profiles_and_genes_allow(shape: tuple[int, int], largest: int) -> None:
    assert largest_rank(*shape) == largest
    basis = fit_basis([csr(np.random.default_rng(0).random(shape))], 100, seed=0)
    assert basis.rank == largest
    assert basis.components.isfinite().all()


def test_profiles_without_variance_have_a_finite_basis_of_deviation_zero() -> None:
    basis = fit_basis([csr(np.ones((10, 6)))], 3, seed=0)
    np.testing.assert_allclose(basis.deviation, np.zeros(3), atol=1e-5)
    np.testing.assert_allclose(basis.components.T @ basis.components, np.eye(3), atol=1e-5)


def factors_of(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return wiener_factors(*score_moments(first, second))


def test_wiener_factors_of_orthogonal_signal_and_noise_are_exact() -> None:
    common = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
    noise = torch.tensor([[1.0, -1.0, 1.0, -1.0], [1.0, -1.0, -1.0, 1.0]], dtype=torch.float64)
    strength = torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64)
    first, second = (5 + torch.outer(common, strength) + 2 * one[:, None] for one in noise)
    np.testing.assert_allclose(factors_of(first, second), [9 / 13, 1 / 5, 0], rtol=1e-12, atol=1e-12)


def test_wiener_factors_are_the_shared_share_of_variance() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(size=(20_000, 3)) * [2.0, 1.0, 0.5]
    first, second = (torch.from_numpy(common + rng.normal(size=common.shape)) for _ in range(2))
    np.testing.assert_allclose(factors_of(first, second), [4 / 5, 1 / 2, 1 / 5], atol=0.03)


def test_wiener_factors_stay_between_zero_and_one() -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert factors_of(x, -x).tolist() == [0, 0, 0]
    np.testing.assert_allclose(factors_of(x, x), np.ones(3), atol=1e-6)
    assert factors_of(x, x).max() <= 1
    assert factors_of(torch.ones(5, 2), torch.ones(5, 2)).tolist() == [0, 0]  # no variance


def test_a_factor_is_the_best_linear_guess_of_the_other_half() -> None:
    rng = np.random.default_rng(1)
    common = rng.normal(size=(5000, 1))
    first, second = (torch.from_numpy(common + 0.7 * rng.normal(size=common.shape)) for _ in range(2))
    w = float(factors_of(first, second))
    errors = [
        float(((second - k * first) ** 2).mean() + ((first - k * second) ** 2).mean()) for k in (w - 0.05, w, w + 0.05)
    ]
    assert errors[1] == min(errors)


def noisy_halves(noise: float, n_profiles: int = 400, n_genes: int = 30) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Halves that share two programmes of deviation 3 and 1.5, and nothing else."""
    rng = np.random.default_rng(0)
    programmes = np.linalg.qr(rng.normal(size=(n_genes, 2)))[0]
    common = (rng.normal(size=(n_profiles, 2)) * [3.0, 1.5]) @ programmes.T
    first, second = (csr(common + noise * rng.normal(size=common.shape)) for _ in range(2))
    return first, second


def test_cross_fitted_factors_find_signal_over_signal_plus_noise() -> None:
    factors = fit_wiener(*noisy_halves(0.5), rank=6, seed=0)
    np.testing.assert_allclose(factors[:2], [9 / 9.25, 2.25 / 2.5], atol=0.03)
    assert (factors[2:] < 0.1).all()
    assert ((factors >= 0) & (factors <= 1)).all()


def test_cross_fitted_factors_of_pure_noise_are_near_zero() -> None:
    rng = np.random.default_rng(0)
    rates = rng.gamma(0.5, 2.0, size=30)
    first, second = (csr(np.log1p(rng.poisson(rates, size=(500, 30)))) for _ in range(2))
    factors = fit_wiener(first, second, rank=8, seed=0)
    assert float(factors.max()) < 0.12
    assert float(factors.mean()) < 0.05


def test_factors_come_from_profiles_that_took_no_part_in_the_basis() -> None:
    rng = np.random.default_rng(0)
    common = 0.5 * rng.normal(size=(40, 500))  # a fifth of the variance, in every direction alike
    first, second = (csr(common + rng.normal(size=common.shape)) for _ in range(2))
    basis = fit_basis([first, second], 10, seed=0)
    own = factors_of(*(basis.scores(sparse_rows(half)) for half in (first, second)))
    assert float(own.mean()) > 0.6  # each component points at a few of the profiles, noise included
    assert float(fit_wiener(first, second, rank=10, seed=0).mean()) == pytest.approx(0.2, abs=0.08)


def test_cross_fitted_factors_depend_on_the_seed_alone() -> None:
    one, two, other = (fit_wiener(*noisy_halves(0.5), rank=4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert other == pytest.approx(one, abs=0.05)


def test_components_that_a_fold_is_too_small_for_have_factor_zero() -> None:
    first, second = noisy_halves(0.5, n_profiles=6)
    factors = fit_wiener(first, second, rank=20, seed=0)
    assert factors.shape == (20,)
    assert (factors[7:] == 0).all()  # folds of 4 profiles have 8 halves, so rank 7 at most
    assert float(factors[0]) > 0
    assert fit_wiener(first[:3], second[:3], rank=4, seed=0).tolist() == [0, 0, 0, 0]


def test_a_basis_knows_its_rank() -> None:
    assert Basis(torch.eye(5, 3), torch.zeros(5), torch.ones(3)).rank == 3


def test_two_iterations_from_near_components_are_as_good_as_four_from_anywhere() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.3, 2.0, size=(4, 200))[rng.integers(0, 4, 400)])
    half = rng.binomial(counts, 0.5)
    x, near = np.log1p(counts), fit_basis([csr(np.log1p(half))], 40, seed=0)
    kept = [
        float(fit_basis([csr(x)], 20, seed=0, **options).deviation.square().sum())
        for options in ({}, {"iterations": 2, "start": near.components})
    ]
    assert kept[1] == pytest.approx(kept[0], rel=2e-3)
