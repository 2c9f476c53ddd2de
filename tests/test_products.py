import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import counts_matrix, csr, dense_products
from torch import Tensor

import geneae.products
from geneae.products import (
    InnerProducts,
    Projection,
    RowStore,
    SparseRows,
    inner_products,
    known_tensors,
    linear_output,
    project,
    row_sums,
    sparse_product,
    sparse_rows,
)

CENTERS = ("none", "gene", "profile")


def with_holes(seed: int = 0) -> np.ndarray:
    """7 x 11 values with an empty first, middle and last profile and genes seen in none."""
    dense = np.random.default_rng(seed).poisson(0.8, size=(7, 11)).astype(float)
    dense[[0, 3, 6]] = 0
    dense[:, [0, 5, 10]] = 0
    return dense


def last_layer(n_genes: int, n: int, orthonormal: bool, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    draws = torch.Generator().manual_seed(1)
    weight = torch.randn(n_genes, n, generator=draws, dtype=torch.float64)
    if orthonormal:
        weight = torch.linalg.qr(weight).Q
    offset, center = torch.randn(2, n_genes, generator=draws, dtype=torch.float64)
    return weight.to(dtype), offset.to(dtype), center.abs().to(dtype)


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
    monkeypatch.setattr(geneae.products, "PANEL", 4)
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


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("orthonormal", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
def test_inner_products_equal_those_of_dense_vectors(
    center: str, orthonormal: bool, dtype: torch.dtype, tolerance: float
) -> None:
    dense = counts_matrix(9, 20)
    dense[4] = 0
    weight, offset, mean = last_layer(20, 3, orthonormal, dtype)
    hidden = torch.randn(9, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(dtype)
    target = project(sparse_rows(csr(dense)), weight, offset, mean)
    found = inner_products(target, linear_output(weight, offset, mean, orthonormal), hidden, center)
    predicted = hidden.double() @ weight.double().T + offset.double()
    expected = dense_products(torch.from_numpy(dense), predicted, center, mean.double())
    assert found.n_genes == 20
    size = float(expected.target.max())
    for name in ("cross", "target", "predicted"):
        torch.testing.assert_close(
            getattr(found, name).double(), getattr(expected, name), rtol=tolerance, atol=tolerance * size
        )


@pytest.mark.parametrize("center", CENTERS)
def test_inner_products_have_the_gradients_of_dense_vectors(center: str) -> None:
    dense = counts_matrix(9, 20)
    leaves = [
        *last_layer(20, 3, orthonormal=False)[:2],
        torch.randn(9, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64),
    ]
    mean = torch.from_numpy(dense.mean(0))
    mine = [leaf.clone().requires_grad_() for leaf in leaves]
    twins = [leaf.clone().requires_grad_() for leaf in leaves]
    rows = sparse_rows(csr(dense), transpose=True)
    found = inner_products(
        project(rows, mine[0], mine[1], mean), linear_output(mine[0], mine[1], mean), mine[2], center
    )
    expected = dense_products(torch.from_numpy(dense), twins[2] @ twins[0].T + twins[1], center, mean)
    for these in (found, expected):
        (these.cross.sin() + these.predicted.sqrt()).sum().backward()
    for one, other in zip(mine, twins, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-8, atol=1e-9)


def test_norms_are_never_negative_where_rounding_would_make_them_so() -> None:
    weight, offset, _ = last_layer(20, 3, orthonormal=False, dtype=torch.float32)
    offset = 1e4 * offset.abs()
    rows = sparse_rows(csr(offset.repeat(4, 1)))
    output = linear_output(weight, offset, offset)
    products = inner_products(project(rows, weight, offset, offset), output, torch.zeros(4, 3), "gene")
    assert (products.target >= 0).all()
    assert (products.predicted >= 0).all()


def test_an_unknown_centring_is_refused() -> None:
    weight, offset, mean = last_layer(20, 3, orthonormal=False)
    target = project(sparse_rows(csr(counts_matrix(2, 20))), weight, offset, mean)
    with pytest.raises(ValueError, match="center must be one of none, gene, profile; found 'cell'"):
        inner_products(target, linear_output(weight, offset, mean), torch.zeros(2, 3, dtype=torch.float64), "cell")


def test_project_equals_dense_products_and_takes_a_shared_vector_once() -> None:
    dense = with_holes()
    weight, offset, mean = last_layer(11, 3, orthonormal=False)
    rows, x = sparse_rows(csr(dense)), torch.from_numpy(dense)
    expected = {"weight": x @ weight, "offset": x @ offset, "center": x @ mean, "squared": (x * x).sum(1)}
    found = project(rows, weight, offset, mean)
    for name, value in {**expected, "total": x.sum(1)}.items():
        torch.testing.assert_close(getattr(found, name), value, rtol=1e-6, atol=1e-6)
    shared = project(rows, weight, offset, offset)
    assert shared.center is shared.offset
    torch.testing.assert_close(shared.offset, found.offset)


def test_profiles_without_any_value_have_projections_of_zero() -> None:
    weight, offset, mean = last_layer(11, 3, orthonormal=False)
    found = project(sparse_rows(csr(np.zeros((4, 11)))), weight, offset, mean)
    for value in known_tensors(found):
        assert value.shape[0] == 4
        assert (value == 0).all()


def test_taking_projections_takes_profiles() -> None:
    dense = with_holes()
    layer = last_layer(11, 3, orthonormal=False)
    index = torch.tensor([5, 1, 1])
    whole, some = (project(sparse_rows(csr(x)), *layer) for x in (dense, dense[[5, 1, 1]]))
    for name in Projection.__dataclass_fields__:
        torch.testing.assert_close(getattr(whole.take(index).to("cpu"), name), getattr(some, name))


def test_row_order_permutes_and_gene_order_changes_nothing() -> None:
    dense = with_holes()
    weight, offset, mean = last_layer(11, 3, orthonormal=False)
    genes = np.random.default_rng(0).permutation(11)
    hidden = torch.randn(7, 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64)

    def products(x: np.ndarray, order: np.ndarray, h: Tensor) -> InnerProducts:
        w, b, m = weight[order], offset[order], mean[order]
        rows: SparseRows = sparse_rows(csr(x[:, order]))
        return inner_products(project(rows, w, b, m), linear_output(w, b, m), h, "gene")

    plain = products(dense, np.arange(11), hidden)
    shuffled = products(dense[::-1].copy(), genes, hidden.flip(0))
    for name in ("cross", "target", "predicted"):
        torch.testing.assert_close(getattr(shuffled, name), getattr(plain, name).flip(0))
