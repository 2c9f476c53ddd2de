"""Whitened basis: noise, covariance between halves, and bases without some profiles, as dense float64 arrays."""

import numpy as np
import pytest
import torch
from dense_estimator import dense_covariance, dense_noise, largest, small_world, world_of
from reference import csr, with_holes

from geneae.models import whitening
from geneae.models.whitening import Halves, SparseBlock, Whitening, fit_whitened, floored, whitened_rank


def halves_of(first: np.ndarray, second: np.ndarray) -> Halves:
    return Halves(csr(first), csr(second))


def projector(columns: np.ndarray) -> np.ndarray:
    basis = np.linalg.qr(columns)[0]
    return np.asarray(basis @ basis.T)


def test_noise_is_half_the_mean_squared_difference_of_the_halves() -> None:
    first, second = with_holes(0), with_holes(1)
    found = halves_of(first, second)
    np.testing.assert_allclose(found.noise(), dense_noise(first, second), rtol=1e-12)
    np.testing.assert_allclose(found.mean(), (first + second).mean(0) / 2, rtol=1e-12)


def test_noise_is_that_of_the_simulation_whatever_the_signal() -> None:
    rng = np.random.default_rng(0)
    signal, deviation = 5 * rng.standard_normal((4000, 3)), np.array([0.1, 1.0, 3.0])
    first, second = (signal + deviation * rng.standard_normal(signal.shape) for _ in range(2))
    np.testing.assert_allclose(np.sqrt(halves_of(first, second).noise()), deviation, rtol=0.05)


def test_halves_that_are_the_same_have_no_noise() -> None:
    found = halves_of(with_holes(), with_holes())
    np.testing.assert_array_equal(found.noise(), np.zeros(11))
    np.testing.assert_array_equal(floored(found.noise()), np.ones(11))


def test_no_gene_is_without_noise_beside_others() -> None:
    np.testing.assert_allclose(floored(np.array([0.0, 1.0, 5.0])), [0.6, 1.3, 4.1])
    assert (floored(np.array([0.0, 1e-300])) > 0).all()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((32, 1000, 1000), 32), ((32, 40, 1000), 10), ((32, 1000, 40), 10), ((32, 5, 3), 1), ((32, 1, 1), 1)],
)
def test_rank_leaves_four_profiles_and_genes_to_a_component(sizes: tuple[int, int, int], expected: int) -> None:
    assert whitened_rank(*sizes) == expected


@pytest.mark.parametrize("chunk", [2, 1000])
def test_a_block_multiplies_from_both_sides(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whitening, "CHUNK", chunk)
    dense = with_holes()
    block, weight, by_profile = SparseBlock(csr(dense)), torch.randn(11, 3), torch.randn(7, 2)
    np.testing.assert_allclose(block.forth(weight), dense @ weight.numpy(), atol=1e-5)
    np.testing.assert_allclose(block.back(by_profile), dense.T @ by_profile.numpy(), atol=1e-5)


def test_a_block_without_profiles_gives_no_rows_and_zero_sums() -> None:
    block = SparseBlock(csr(np.zeros((0, 4))))
    assert block.forth(torch.ones(4, 2)).shape == (0, 2)
    assert torch.equal(block.back(torch.ones(0, 2)), torch.zeros(4, 2))


def test_components_are_the_largest_eigenvectors_of_the_covariance_between_halves() -> None:
    found = fit_whitened([small_world().halves], 4, 0).whitening
    first, second = small_world().dense
    mean, deviation = (first + second).mean(0) / 2, np.sqrt(floored(dense_noise(first, second)))
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(found.deviation, deviation, rtol=1e-5)
    expected = largest(dense_covariance(first, second, mean, deviation), 4)
    overlap = np.abs((found.components.double().numpy() * expected).sum(0))
    np.testing.assert_allclose(overlap[:2], 1, atol=1e-4)  # the others lie close together
    covariance = dense_covariance(first, second, mean, deviation)
    spread = np.diag(found.components.double().numpy().T @ covariance @ found.components.double().numpy())
    np.testing.assert_allclose(spread, np.linalg.eigvalsh(covariance)[::-1][:4], rtol=1e-2)


def test_components_are_orthonormal_sorted_and_of_known_sign() -> None:
    components = fit_whitened([small_world().halves], 4, 0).whitening.components.numpy()
    np.testing.assert_allclose(components.T @ components, np.eye(4), atol=1e-5)
    assert (components[np.abs(components).argmax(0), range(4)] > 0).all()


def test_a_direction_shared_by_halves_is_found_under_unequal_noise() -> None:
    rng = np.random.default_rng(0)
    direction, noise = rng.standard_normal(20), np.where(np.arange(20) < 3, 8.0, 0.4)
    signal = np.outer(rng.standard_normal(600), direction)
    first, second = (signal + noise * rng.standard_normal(signal.shape) for _ in range(2))
    found = fit_whitened([halves_of(first, second)], 1, 0).whitening
    wanted = direction / found.deviation.numpy()
    assert abs(found.components[:, 0].numpy() @ wanted) / np.linalg.norm(wanted) > 0.98
    # plain principal components see the noisy genes
    plain = np.linalg.svd(np.concatenate([first, second]), full_matrices=False)[2][0]
    assert abs(plain @ direction) / np.linalg.norm(direction) < 0.8


def test_the_basis_of_a_fold_comes_from_the_other_profiles() -> None:
    found = fit_whitened([small_world().halves], 2, 3)
    first, second = small_world().dense
    units = found.whitening.mean.double().numpy(), found.whitening.deviation.double().numpy()
    for number, components in enumerate(found.without):
        others = found.fold != number
        expected = largest(dense_covariance(first[others], second[others], *units), 2)
        np.testing.assert_allclose(projector(components.numpy()), projector(expected), atol=2e-3)
        left, _, right = np.linalg.svd(expected.T @ found.whitening.components.double().numpy())
        np.testing.assert_allclose(components, expected @ left @ right, atol=3e-3)


def test_it_does_not_see_how_genes_go_together_in_that_fold() -> None:
    first, second = small_world().dense
    found = fit_whitened([halves_of(first, second)], 2, 3)
    own = np.flatnonzero(found.fold == 1)
    order = np.random.default_rng(0).permuted(np.tile(own[:, None], (1, first.shape[1])), axis=0)
    first[own], second[own] = first[order, np.arange(24)], second[order, np.arange(24)]  # keeps means and noise
    other = fit_whitened([halves_of(first, second)], 2, 3)
    np.testing.assert_array_equal(other.fold, found.fold)
    distances = [
        np.abs(projector(one.numpy()) - projector(same.numpy())).max()
        for one, same in zip(found.without, other.without, strict=True)
    ]
    assert distances[1] < 1e-3
    assert min(distances[0], distances[2], distances[3]) > 1e-2


def test_folds_are_of_equal_size_and_follow_the_seed() -> None:
    halves = small_world().halves
    one, same, other = (fit_whitened([halves], 2, seed) for seed in (0, 0, 1))
    assert np.bincount(one.fold).tolist() == [20, 20, 20, 20]
    np.testing.assert_array_equal(one.fold, same.fold)
    assert (one.fold != other.fold).any()
    assert torch.equal(one.whitening.components, same.whitening.components)
    assert all(torch.equal(*pair) for pair in zip(one.without, same.without, strict=True))


@pytest.mark.parametrize("n_profiles", [1, 2, 3, 5])
def test_few_profiles_have_few_folds(n_profiles: int) -> None:
    counts = np.random.default_rng(0).poisson(20, (n_profiles, 3)) + 1.0
    found = fit_whitened([world_of(counts).halves], 1, 0)
    assert len(found.without) == max(1, n_profiles // 2)
    for tensor in (found.whitening.mean, found.whitening.deviation, found.whitening.components, *found.without):
        assert bool(tensor.isfinite().all())
    assert bool((found.whitening.deviation > 0).all())


def test_profiles_that_are_all_the_same_have_a_basis() -> None:
    found = fit_whitened([halves_of(np.ones((12, 8)), np.ones((12, 8)))], 2, 0)
    assert torch.equal(found.whitening.deviation, torch.ones(8))
    components = found.whitening.components
    torch.testing.assert_close(components.T @ components, torch.eye(2), atol=1e-5, rtol=0)


def test_a_score_changes_genes_by_its_direction_in_their_own_units() -> None:
    basis = Whitening(torch.zeros(3), torch.tensor([1.0, 2.0, 4.0]), torch.tensor([[1.0], [0.5], [0.25]]))
    assert basis.rank == 1
    torch.testing.assert_close(basis.decoder_weight, torch.ones(3, 1))


def test_the_covariance_is_the_mean_over_count_splits() -> None:
    first, second = small_world().dense
    other = np.random.default_rng(5).permutation(first.ravel()).reshape(first.shape)
    splits = [halves_of(first, second), halves_of(first, other)]
    found = fit_whitened(splits, 2, 0).whitening
    mean, deviation = found.mean.double().numpy(), found.deviation.double().numpy()
    np.testing.assert_allclose(mean, (first.mean(0) + second.mean(0)) / 2, rtol=1e-5)  # of the first split
    products = []
    for one in (second, other):
        a, b = (first - mean) / deviation, (one - mean) / deviation
        products.append((a.T @ b + b.T @ a) / (2 * len(a)))
    _, vectors = np.linalg.eigh(np.mean(products, axis=0))
    components = found.components.double().numpy()
    assert np.linalg.norm(vectors[:, -2:].T @ components) ** 2 == pytest.approx(2, abs=0.05)
