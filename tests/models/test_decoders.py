"""The verbs of a decoder agree with dense arrays and with each other."""

import numpy as np
import pytest
import torch
from reference import counts_matrix, csr, dense_normalize, dense_products
from scipy import sparse
from torch import Tensor

from geneae.losses.fixed_metric import FixedMetric
from geneae.losses.inner_products import TargetProducts
from geneae.losses.sparse_rows import SparseRows, sparse_rows
from geneae.models.decoders import Corrected, EntryDecoder, LinearDecoder

N_PROFILES, N_GENES, N_HIDDEN = 12, 20, 4
CENTERS = ("none", "gene", "profile")
FIELDS = ("cross", "target", "predicted")


def world(is_learned: bool) -> tuple[LinearDecoder, SparseRows, Tensor, Tensor]:
    """A decoder, target profiles, the same dense, and hidden."""
    torch.manual_seed(0)
    dense = torch.from_numpy(dense_normalize(counts_matrix(N_PROFILES, N_GENES)))
    weight = torch.randn(N_GENES, N_HIDDEN, dtype=torch.float64, requires_grad=is_learned)
    offset = torch.randn(N_GENES, dtype=torch.float64, requires_grad=is_learned)
    rows = sparse_rows(csr(dense, float), transpose=True)
    return LinearDecoder(weight, offset, dense.mean(0)), rows, dense, torch.randn(N_PROFILES, N_HIDDEN).double()


@pytest.mark.parametrize("is_learned", [False, True])
def test_products_are_named_by_centring_and_those_of_the_expectation(is_learned: bool) -> None:
    decoder, rows, x, hidden = world(is_learned)
    ready, target = decoder.with_target(rows)
    found = ready.products(hidden, target, CENTERS)
    assert tuple(found) == CENTERS
    y = decoder.expectation(hidden)
    assert y.shape == (N_PROFILES, N_GENES)
    for center, products in found.items():
        expected = dense_products(x, y, center, decoder.center)
        for field in FIELDS:
            torch.testing.assert_close(getattr(products, field), getattr(expected, field), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("center", CENTERS)
def test_pairs_are_all_of_a_batch(center: str) -> None:
    decoder, rows, x, hidden = world(False)
    target = decoder.project(rows)
    cross, targets = decoder.pairs(hidden, target, center, x @ x.T)
    own = decoder.products(hidden, target, [center])[center]
    torch.testing.assert_close(cross.diagonal(), own.cross)
    assert targets is not None
    torch.testing.assert_close(targets.diagonal(), own.target)
    assert decoder.pairs(hidden, target, center, None)[1] is None


def test_one_pass_over_profiles_gives_the_gradient_of_a_dense_layer() -> None:
    decoder, rows, x, hidden = world(True)
    ready, target = decoder.with_target(rows)
    products = ready.products(hidden, target, ["none"])["none"]
    dense = dense_products(x, decoder.expectation(hidden))
    for one, other in ((products.cross, dense.cross), (products.predicted, dense.predicted)):
        parameters = (decoder.weight, decoder.offset)
        found, expected = (torch.autograd.grad(v.sum(), parameters, retain_graph=True) for v in (one, other))
        for gradient, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-9)


def test_products_at_hand_are_taken_as_they_are() -> None:
    decoder, rows, _, _ = world(False)
    target = decoder.project(rows)
    ready, same = decoder.with_target(target)
    assert ready is decoder
    assert same is target


def test_targets_are_mapped_where_there_is_a_metric() -> None:
    decoder, rows, x, _ = world(True)
    metric = FixedMetric(torch.randn(N_GENES, 3).double(), 0.1)
    for target in (decoder.project(rows, metric), decoder.with_target(rows, metric)[1]):
        assert isinstance(target, TargetProducts)
        torch.testing.assert_close(target.mapped, x @ metric.columns)
    assert decoder.project(rows).mapped is None


def test_orthonormal_columns_need_no_gram_and_give_the_same() -> None:
    _, rows, x, hidden = world(False)
    weight = torch.linalg.qr(torch.randn(N_GENES, N_HIDDEN).double()).Q
    plain, short = (LinearDecoder(weight, x.mean(0), x.mean(0), is_orthonormal) for is_orthonormal in (False, True))
    assert short.layer.gram is None
    one, other = (each.products(hidden, each.project(rows), ["gene"])["gene"] for each in (plain, short))
    for field in FIELDS:
        torch.testing.assert_close(getattr(one, field), getattr(other, field))


def corrected(hidden: Tensor, x: Tensor) -> Corrected:
    """Additions at the places of other profiles, one of which has none."""
    pattern = np.roll(x.numpy(), 1, axis=0) != 0
    pattern[3] = False
    values = np.random.default_rng(0).standard_normal(pattern.shape)
    return Corrected(hidden, csr(np.where(pattern, values, 0), float))


def test_products_with_corrected_genes_are_those_of_the_expectation() -> None:
    linear, rows, x, hidden = world(False)
    decoder, found = EntryDecoder(linear), corrected(hidden, x)
    assert found.corrections is not None
    y = decoder.expectation(found)
    torch.testing.assert_close(y, linear.expectation(hidden) + torch.from_numpy(found.corrections.toarray()))
    assert decoder.dtype == torch.float64
    products = decoder.products(found, decoder.project(rows), CENTERS)
    assert tuple(products) == CENTERS
    for center, known in products.items():
        expected = dense_products(x, y, center, linear.center)
        for field in FIELDS:
            torch.testing.assert_close(getattr(known, field), getattr(expected, field), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("nothing", [None, sparse.csr_matrix((N_PROFILES, N_GENES))], ids=["none", "no values"])
def test_without_corrections_it_is_the_linear_decoder(nothing: sparse.csr_matrix | None) -> None:
    linear, rows, _, hidden = world(False)
    decoder, found = EntryDecoder(linear), Corrected(hidden, nothing)
    torch.testing.assert_close(decoder.expectation(found), linear.expectation(hidden))
    target = decoder.project(rows)
    for center, known in decoder.products(found, target, CENTERS).items():
        expected = linear.products(hidden, target.products, [center])[center]
        for field in FIELDS:
            assert torch.equal(getattr(known, field), getattr(expected, field))


def test_corrections_that_make_the_target_leave_no_error() -> None:
    linear, rows, x, hidden = world(False)
    decoder = EntryDecoder(linear)
    found = Corrected(hidden, csr(x - linear.expectation(hidden), float))
    for products in decoder.products(found, decoder.project(rows), CENTERS).values():
        error = products.target + products.predicted - 2 * products.cross
        torch.testing.assert_close(error, torch.zeros_like(error), atol=1e-9, rtol=0)
        assert bool((products.predicted >= 0).all())


def test_corrections_in_float32_are_as_exact_as_they_can_be() -> None:
    linear, rows, x, hidden = world(False)
    single = LinearDecoder(linear.weight.float(), linear.offset.float(), linear.center.float())
    decoder, found = EntryDecoder(single), corrected(hidden, x)
    assert found.corrections is not None
    found = Corrected(hidden.float(), found.corrections.astype(np.float32))
    products = decoder.products(found, decoder.project(rows.to("cpu", torch.float32)), CENTERS)
    for center, known in products.items():
        expected = dense_products(x, decoder.expectation(found).double(), center, linear.center)
        for field in FIELDS:
            assert getattr(known, field).dtype == torch.float32
            torch.testing.assert_close(getattr(known, field).double(), getattr(expected, field), rtol=1e-5, atol=1e-3)


def test_targets_keep_the_map_of_a_metric() -> None:
    linear, rows, x, _ = world(False)
    metric = FixedMetric(torch.randn(N_GENES, 3).double(), 0.1)
    target = EntryDecoder(linear).project(rows, metric)
    torch.testing.assert_close(target.products.mapped, x @ metric.columns)
    np.testing.assert_array_equal(target.matrix.toarray(), x.numpy())
