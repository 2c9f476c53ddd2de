"""Mini-batches that a device makes dense are the profiles, and have their products."""

import numpy as np
import pytest
import torch
from conftest import QUICK, simulate
from reference import csr, with_holes

import geneae.losses.device_rows
from geneae.data.reading import read_profiles
from geneae.fitting.fit import fit
from geneae.losses.device_rows import DeviceStore, device_store
from geneae.losses.sparse_rows import RowStore, row_sums, sparse_product
from geneae.settings.settings import Settings

CPU = torch.device("cpu")
PLENTY = 2**30  # bytes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("index", [[5, 1, 6, 1], [0], [2, 2], []])
def test_a_mini_batch_is_its_profiles(index: list[int], dtype: type) -> None:
    dense = with_holes().astype(dtype)
    rows = DeviceStore(csr(dense).astype(dtype), CPU, PLENTY).take(torch.tensor(index, dtype=torch.int64))
    assert (rows.n_profiles, rows.n_genes) == (len(index), dense.shape[1])
    assert rows.frequent is not None
    np.testing.assert_array_equal(rows.frequent.values.numpy(), dense[index])


def test_its_products_gradients_and_sums_are_those_of_sparse_batches() -> None:
    matrix, index = csr(with_holes()), torch.tensor([5, 1, 6, 1])
    found, expected = (
        store.take(index).to("cpu", torch.float64) for store in (DeviceStore(matrix, CPU, PLENTY), RowStore(matrix))
    )
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(matrix.shape[1], 3, generator=generator, dtype=torch.float64)
    one, two = (weight.clone().requires_grad_() for _ in range(2))
    products = sparse_product(found, one), sparse_product(expected, two)
    torch.testing.assert_close(*products)
    for product in products:
        (product**2).sum().backward()
    torch.testing.assert_close(one.grad, two.grad)
    center = weight[:, 0]
    for of_found, of_expected in zip(
        row_sums(found, center).tensors(), row_sums(expected, center).tensors(), strict=True
    ):
        torch.testing.assert_close(of_found, of_expected)


def test_autocast_rounds_neither_product() -> None:
    matrix = csr(with_holes())
    rows = DeviceStore(matrix, CPU, PLENTY).take(torch.arange(matrix.shape[0]))
    weight = torch.randn(matrix.shape[1], 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    plain = sparse_product(rows, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = sparse_product(rows, weight)
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, plain)


def test_the_free_memory_says_how_many_rows_are_taken_at_most() -> None:
    matrix = csr(with_holes())  # 11 genes
    assert DeviceStore(matrix, CPU, 16 * 4 * 11 * 5).most_rows == 5
    assert device_store(matrix, CPU) is None


@pytest.mark.parametrize("free_bytes", [PLENTY, 16 * 4 * 120 * 40])  # all batches, only those of validation not
def test_a_fit_by_dense_batches_is_that_by_sparse_ones(free_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    profiles = read_profiles(simulate())
    settings = Settings(**QUICK | {"batch_size": 32}, basis="free", init="random", device="cpu")
    expected = fit(profiles, settings)
    taken: list[int] = []
    take = DeviceStore.take

    def counted(store: DeviceStore, rows: torch.Tensor) -> object:
        taken.append(len(rows))
        assert len(rows) <= store.most_rows
        return take(store, rows)

    monkeypatch.setattr(DeviceStore, "take", counted)
    monkeypatch.setattr(
        geneae.losses.device_rows, "device_store", lambda matrix, _: DeviceStore(matrix, CPU, free_bytes)
    )
    found = fit(profiles, settings)
    assert taken
    losses = ["train_loss", "validation_loss"]
    np.testing.assert_allclose(found.history[losses], expected.history[losses], rtol=1e-3)
