"""The verbs of a decoder agree with dense arrays and with each other."""

import pytest
import torch
from reference import counts_matrix, csr, dense_normalize, dense_products
from torch import Tensor

from geneae.losses.fixed_metric import FixedMetric
from geneae.losses.inner_products import TargetProducts
from geneae.losses.sparse_rows import SparseRows, sparse_rows
from geneae.models.decoders import LinearDecoder

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
