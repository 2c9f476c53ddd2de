"""Sparse batches have the products of the dense profiles, in every layout."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import csr, with_holes

import geneae.losses.sparse_rows
from geneae.losses.sparse_rows import RowStore, row_sums, sparse_product, sparse_rows


@pytest.mark.parametrize("shape", [(11, 4), (11, 1), (11,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparse_product_and_its_gradient_equal_the_dense_ones(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    dense = with_holes()
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype, requires_grad=True)
    twin = weight.detach().double().requires_grad_()
    found, expected = sparse_product(sparse_rows(csr(dense), transpose=True), weight), torch.from_numpy(dense) @ twin
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found.backward(upstream.to(dtype))
    expected.backward(upstream)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad.double(), twin.grad, rtol=1e-5, atol=1e-6)
    assert (weight.grad[[0, 5, 10]] == 0).all()  # genes that no profile of the batch has


@given(st.integers(0, 6), st.integers(1, 6), st.integers(1, 3), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_sparse_product_equals_dense_for_any_shape(n_profiles: int, n_genes: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dense = rng.poisson(0.4, size=(n_profiles, n_genes)).astype(float)
    weight = torch.from_numpy(rng.normal(size=(n_genes, n)))
    found = sparse_product(sparse_rows(csr(dense)), weight)
    torch.testing.assert_close(found, torch.from_numpy(dense) @ weight, rtol=1e-12, atol=1e-12)


def test_gradients_of_gradient_free_rows_ask_for_the_transpose() -> None:
    weight = torch.ones(11, 2, requires_grad=True)
    product = sparse_product(sparse_rows(csr(with_holes())), weight)
    with pytest.raises(
        ValueError, match=r"the gradient of a sparse product needs sparse_rows\(matrix, transpose=True\)"
    ):
        product.sum().backward()


def test_autograd_check_of_sparse_product() -> None:
    rows = sparse_rows(csr(with_holes()), transpose=True).to("cpu", torch.float64)
    weight = torch.randn(11, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: sparse_product(rows, w), (weight,))


def test_rows_share_the_memory_of_the_matrix_unless_it_is_read_only() -> None:
    matrix = csr(with_holes())
    assert sparse_rows(matrix).panels[0].values.data_ptr() == matrix.data.ctypes.data
    matrix.data.flags.writeable = False
    (panel,) = sparse_rows(matrix).panels
    assert panel.values.tolist() == matrix.data.tolist()
    assert panel.values.data_ptr() != matrix.data.ctypes.data


def test_rows_and_their_transpose_change_precision_together() -> None:
    rows = sparse_rows(csr(with_holes()), transpose=True).to("cpu", torch.float64)
    assert (rows.n_profiles, rows.n_genes) == (7, 11)
    (panel,) = rows.panels
    assert panel.transpose is not None
    assert (len(panel.transpose.indptr) - 1, panel.transpose.n_columns) == (11, 7)
    assert panel.values.dtype == panel.transpose.values.dtype == torch.float64
    assert rows.to("cpu").panels[0].values.dtype == torch.float64


def test_batches_of_a_store_have_the_products_of_the_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geneae.losses.sparse_rows, "PANEL", 4)
    dense = with_holes()
    dense[:, 3] = 1  # seen in every profile
    index = torch.tensor([5, 1, 6, 1])
    rows = RowStore(csr(dense)).take(index).to("cpu", torch.float64)
    assert len(rows.panels) == 3
    assert rows.frequent is not None
    assert 0 < len(rows.frequent.genes) < 11
    x, weight = torch.from_numpy(dense[index]), torch.randn(11, 2, dtype=torch.float64, requires_grad=True)
    found = sparse_product(rows, weight)
    torch.testing.assert_close(found, x @ weight)
    upstream = torch.randn(4, 2, dtype=torch.float64)
    found.backward(upstream)
    torch.testing.assert_close(weight.grad, x.T @ upstream)
    sums = row_sums(rows, weight[:, 0].detach())
    torch.testing.assert_close(sums.center, (x @ weight[:, 0]).detach())
    torch.testing.assert_close(sums.squared, (x * x).sum(1))
    torch.testing.assert_close(sums.total, x.sum(1))
