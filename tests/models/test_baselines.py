import numpy as np
import pytest
import torch
from reference import counts_matrix, csr, dense_normalize, dense_products
from sklearn.decomposition import PCA
from torch import Tensor

from geneae.losses.inner_products import InnerProducts
from geneae.losses.metrics import METRICS, measure
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.baselines import PCA_SIZES, Baselines, Frame, frame, mean_profile, pca, shrunken_pca
from geneae.models.pca import Basis, fit_basis

RANK = 9
FACTORS = torch.linspace(0.95, 0.1, RANK)


def profiles(seed: int = 0) -> np.ndarray:
    return dense_normalize(counts_matrix(40, 25, seed, depth=200)).astype(np.float32).astype(np.float64)


def exact_basis(x: np.ndarray, rank: int = RANK) -> Basis:
    """PCA without the rounding of a randomised fit."""
    fitted = PCA(rank, svd_solver="full").fit(x)
    tensors = (fitted.components_.T.copy(), fitted.mean_, np.sqrt(fitted.explained_variance_))
    return Basis(*(torch.from_numpy(t) for t in tensors))


def predict(at: Frame, factors: Tensor, x: np.ndarray) -> tuple[Tensor, InnerProducts]:
    """Dense predictions, and the inner products with x that the package makes of them."""
    decoder = at.decoder()
    target = decoder.project(sparse_rows(csr(x)))
    hidden = at.predict(target, factors)
    return at.mean + hidden @ at.components.T, decoder.products(hidden, target, ["none"])["none"]


def test_factors_say_what_is_kept() -> None:
    assert mean_profile(3).tolist() == [0, 0, 0]
    assert pca(4, 2).tolist() == [1, 1, 0, 0]
    assert pca(2, 5).tolist() == [1, 1]
    assert shrunken_pca(torch.tensor([0.5, 0.25, 0.125]), 2).tolist() == [0.5, 0.25, 0]
    assert {f.dtype for f in (mean_profile(3), pca(4, 2), shrunken_pca(FACTORS, 2))} == {torch.float64}


@pytest.mark.parametrize("size", [1, 4, RANK])
def test_pca_equals_that_of_scikit_learn_on_new_profiles(size: int) -> None:
    x, new = profiles(), profiles(1)
    fitted = PCA(size, svd_solver="full").fit(x)
    expected = fitted.inverse_transform(fitted.transform(new))
    basis = exact_basis(x)
    found, products = predict(frame(basis, basis.mean), pca(RANK, size), new)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    dense = dense_products(torch.from_numpy(new), torch.from_numpy(expected))
    torch.testing.assert_close(
        measure(METRICS["cosine"], products), measure(METRICS["cosine"], dense), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(measure(METRICS["mse"], products), measure(METRICS["mse"], dense), rtol=1e-5, atol=0)


def test_pca_in_a_randomised_basis_equals_that_of_scikit_learn() -> None:
    x = profiles()
    basis = fit_basis([csr(x)], 24, seed=0)
    fitted = PCA(24, svd_solver="full").fit(x)
    found, _ = predict(frame(basis, basis.mean), pca(24, 24), x)
    np.testing.assert_allclose(found, fitted.inverse_transform(fitted.transform(x)), atol=2e-3)


def test_shrunken_pca_and_mean_profile_equal_their_dense_formulas() -> None:
    x, new = profiles(), profiles(1)
    basis = exact_basis(x)
    v, mean = basis.components.numpy(), x.mean(0)
    at = frame(basis, basis.mean)
    for factors, kept in (
        (shrunken_pca(FACTORS, 5), np.where(np.arange(RANK) < 5, FACTORS.double().numpy(), 0)),
        (mean_profile(RANK), np.zeros(RANK)),
    ):
        expected = mean + (new - mean) @ v @ np.diag(kept) @ v.T
        found, products = predict(at, factors, new)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        dense = dense_products(torch.from_numpy(new), torch.from_numpy(expected))
        for name in ("cross", "target", "predicted"):
            torch.testing.assert_close(getattr(products, name), getattr(dense, name), rtol=1e-6, atol=0)


def test_around_another_mean_a_basis_keeps_its_components_and_predicts_that_mean() -> None:
    basis = exact_basis(profiles())
    other = basis.mean + 1.5
    at = frame(basis, other)
    found, _ = predict(at, pca(RANK, 4), csr(other[None].numpy()).toarray())
    np.testing.assert_allclose(found[0], other, atol=1e-5)
    assert torch.equal(at.components, basis.components)
    assert frame(basis, other, torch.float32).components.dtype == torch.float32


def test_without_counts_there_is_neither_shrinkage_nor_a_held_out_half() -> None:
    whole = exact_basis(profiles())
    baselines = Baselines(whole, None, None, 4)
    assert baselines.held_out() == {}
    own = baselines.own_input()
    assert list(own) == ["mean_profile", "pca"]
    assert own["pca"][1].tolist() == [1] * 4 + [0] * 5
    assert torch.equal(own["pca"][0].mean, whole.mean)


def test_with_counts_shrunken_pca_works_around_the_mean_of_the_profiles_in_question() -> None:
    whole, half = exact_basis(profiles()), exact_basis(profiles(2))
    baselines = Baselines(whole, half, FACTORS, 4)
    own, held_out = baselines.own_input(), baselines.held_out()
    assert list(own) == ["mean_profile", "pca", "shrunken_pca"]
    at, factors = own["shrunken_pca"]
    assert torch.equal(at.mean, whole.mean)
    assert torch.equal(at.components, half.components)
    np.testing.assert_allclose(factors, [*FACTORS[:4], 0, 0, 0, 0, 0])
    assert list(held_out) == ["mean_profile", "pca", "shrunken_pca", "pca_4", "pca_8"]  # 16 and 32 exceed the rank
    assert PCA_SIZES == (4, 8, 16, 32)
    for name, (at, factors) in held_out.items():
        assert torch.equal(at.mean, half.mean), name
        assert torch.equal(at.components, half.components), name
        assert factors.shape == (RANK,)
    assert int(held_out["pca_8"][1].sum()) == 8
    assert float(held_out["mean_profile"][1].sum()) == 0
