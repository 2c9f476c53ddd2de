import numpy as np
import pytest
import torch
from reference import counts_matrix, csr, dense_products, with_holes
from torch import Tensor

from geneae.losses.inner_products import InnerProducts, TargetProducts, inner_products, linear_output, project
from geneae.losses.sparse_rows import SparseRows, sparse_rows

CENTERS = ("none", "gene", "profile")


def last_layer(n_genes: int, n: int, orthonormal: bool, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    draws = torch.Generator().manual_seed(1)
    weight = torch.randn(n_genes, n, generator=draws, dtype=torch.float64)
    if orthonormal:
        weight = torch.linalg.qr(weight).Q
    offset, center = torch.randn(2, n_genes, generator=draws, dtype=torch.float64)
    return weight.to(dtype), offset.to(dtype), center.abs().to(dtype)


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
    values = list(found.tensors())
    assert len(values) >= 3
    for value in values:
        assert value.shape[0] == 4
        assert (value == 0).all()


def test_taking_projections_takes_profiles() -> None:
    dense = with_holes()
    layer = last_layer(11, 3, orthonormal=False)
    index = torch.tensor([5, 1, 1])
    whole, some = (project(sparse_rows(csr(x)), *layer) for x in (dense, dense[[5, 1, 1]]))
    for name in TargetProducts.__dataclass_fields__:
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
