"""Training of the head through inner products: these, their gradient, and what a training may change."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from dense_estimator import DenseEstimator, double, short_training, small_fit
from reference import dense_products
from torch import Tensor, nn

from geneae.data.augment import WEIGHTS
from geneae.fitting import head as training
from geneae.fitting.estimator import FittedEstimator
from geneae.fitting.head import HeadItem, _head_item, train_head
from geneae.losses.inner_products import InnerProducts
from geneae.losses.reconstruction import LOSSES, LossSettings
from geneae.models.depths import Item
from geneae.models.entry_head import EntryHead
from geneae.training.objectives import Reconstruction

CENTERS = ("none", "gene", "profile")


@pytest.fixture(scope="module")
def fitted() -> FittedEstimator:
    return small_fit()


def random_head(seed: int = 0) -> EntryHead:
    head = EntryHead(seed)
    last = head.layers[-1]
    assert isinstance(last, nn.Linear)
    nn.init.normal_(last.weight, std=0.5, generator=torch.Generator().manual_seed(seed))
    return head


def item_of(fitted: FittedEstimator, number: int, center: str) -> HeadItem:
    return _head_item(fitted, fitted.scored[number], fitted.entries[number], center, 0)


def dense(fitted: FittedEstimator, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of the profiles of an item in their order, fold by fold: targets, predictions without head, unit of the head,
    its input, and where the inputs are seen."""
    scored, parts = fitted.scored[number], []
    z, y = (some.toarray().astype(float) for some in (scored.item.inputs, scored.item.targets))
    for fold, components in enumerate(fitted.whitened.without):
        rows = np.flatnonzero((fitted.whitened.fold == fold) & (scored.item.weight > 0) & (z != 0).any(1))
        basis = replace(fitted.estimator.whitening, components=components)
        estimator = replace(fitted.estimator, whitening=basis, head=EntryHead())
        of_all = DenseEstimator(estimator.only("calibration", "own_counts", "entries"), scored.item.delta)
        scores, totals = scored.expected[rows].double().numpy(), scored.item.totals[rows]
        predicted = of_all.expectation(z[rows], totals, scores)
        p = scores @ of_all.components.T * fitted.estimator.calibration.double().numpy()
        features = of_all.features(z[rows], p, totals)
        unit = np.broadcast_to(of_all.deviation, predicted.shape)
        parts.append((y[rows], predicted, unit, features, z[rows] != 0))
    return tuple(torch.from_numpy(np.concatenate(some)) for some in zip(*parts, strict=True))  # type: ignore[return-value]


def dense_with_head(fitted: FittedEstimator, number: int, head: EntryHead, center: str, index: Tensor) -> InnerProducts:
    """Inner products of dense predictions with a head, in float64."""
    y, predicted, unit, features, seen = (some[index] for some in dense(fitted, number))
    predicted = predicted + torch.where(seen, unit * head(features.reshape(-1, 10)).reshape(seen.shape), 0.0)
    return dense_products(y, predicted, center, fitted.estimator.whitening.mean.double())


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("number", [0, 5])
def test_inner_products_with_a_head_are_those_of_dense_predictions(
    fitted: FittedEstimator, number: int, center: str
) -> None:
    item, head = item_of(fitted, number, center), random_head()
    index = torch.tensor([3, 0, 3, len(item.starts) - 2])
    for some in (EntryHead(), head):
        found = item.with_head(some, index)
        expected = dense_with_head(fitted, number, double(some), center, index)
        for field in ("cross", "target", "predicted"):
            values = getattr(found, field).detach().double(), getattr(expected, field).detach()
            torch.testing.assert_close(*values, rtol=1e-4, atol=1e-2)
        assert found.n_genes == 24
    assert item.share == pytest.approx(WEIGHTS[fitted.scored[number].item.share] / (2 * sum(WEIGHTS)))


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("loss", ["cosine", "mse"])
def test_the_gradient_is_that_of_dense_predictions_and_of_finite_differences(
    fitted: FittedEstimator, loss: str, center: str
) -> None:
    objective = Reconstruction(LOSSES[loss], center, LossSettings())
    item, head, index = item_of(fitted, 2, center), random_head(), torch.arange(20)
    found = torch.autograd.grad(objective(item.with_head(head, index)), list(head.parameters()))
    twin = double(head)
    expected = torch.autograd.grad(objective(dense_with_head(fitted, 2, twin, center, index)), list(twin.parameters()))
    size = max(float(gradient.abs().max()) for gradient in expected)
    for gradient, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient.double(), wanted, rtol=1e-2, atol=1e-3 * size)
    draws = torch.Generator().manual_seed(1)
    directions = [torch.randn(p.shape, generator=draws, dtype=torch.float64) for p in twin.parameters()]

    def moved(step: float) -> float:
        other = double(head)
        with torch.no_grad():
            for parameter, direction in zip(other.parameters(), directions, strict=True):
                parameter.add_(direction, alpha=step)
            return float(objective(dense_with_head(fitted, 2, other, center, index)))

    slope = sum(float((gradient.double() * d).sum()) for gradient, d in zip(found, directions, strict=True))
    assert slope == pytest.approx((moved(1e-5) - moved(-1e-5)) / 2e-5, rel=1e-2)


def test_profiles_are_those_with_molecules_enough_and_as_many_as_there_is_room_for(
    fitted: FittedEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored, entries = fitted.scored[8], fitted.entries[8]
    n_known = int((scored.item.weight > 0).sum())
    assert 0 < n_known < 80
    whole = _head_item(fitted, scored, entries, "none", 0)
    assert len(whole.starts) - 1 == n_known
    known = scored.item.weight > 0
    assert len(whole.features) == np.diff(scored.item.inputs.indptr)[known].sum()
    monkeypatch.setattr(training, "MOST_ENTRIES", 1400)
    few = [_head_item(fitted, scored, entries, "none", seed) for seed in (0, 0, 1)]
    assert 0 < len(few[0].features) <= 1400 * few[0].share
    assert torch.equal(few[0].features, few[1].features)
    assert few[0].features.shape != few[2].features.shape or not torch.equal(few[0].features, few[2].features)


def mean_loss(fitted: FittedEstimator, head: EntryHead, objective: Reconstruction) -> float:
    """Over all items, weighted as in the training."""
    losses = []
    with torch.no_grad():
        for number in range(10):
            item = item_of(fitted, number, objective.center)
            losses.append(item.share * float(objective(item.with_head(head, torch.arange(len(item.starts) - 1)))))
    return math.fsum(losses)


def test_training_lowers_the_loss_at_all_depths_together(
    fitted: FittedEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_training(monkeypatch, 40)
    monkeypatch.setattr(training, "LEARNING_RATE", 0.01)
    objective = Reconstruction(LOSSES["cosine"], "gene", LossSettings())
    spoiled = replace(fitted, estimator=replace(fitted.estimator, head=random_head()))
    trained = train_head(spoiled, objective, 0)
    assert mean_loss(fitted, trained, objective) < 0.8 * mean_loss(fitted, spoiled.estimator.head, objective)
    assert not trained.training


def test_training_changes_a_copy_and_no_other_random_numbers(
    fitted: FittedEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_training(monkeypatch, 3)
    objective = Reconstruction(LOSSES["cosine"], "none", LossSettings())
    start = {name: tensor.clone() for name, tensor in fitted.estimator.head.state_dict().items()}
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = train_head(fitted, objective, 0).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    same, other = (train_head(fitted, objective, seed).state_dict() for seed in (0, 1))
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert all(torch.equal(tensor, start[name]) for name, tensor in fitted.estimator.head.state_dict().items())
    assert any(not torch.equal(tensor, start[name]) for name, tensor in one.items())


def test_without_profiles_the_head_stays_as_it_is(fitted: FittedEstimator) -> None:
    items = [Item(one.item.inputs, one.item.targets, np.zeros(80), one.item.share) for one in fitted.scored]
    nobody = replace(fitted, scored=[replace(one, item=item) for one, item in zip(fitted.scored, items, strict=True)])
    objective = Reconstruction(LOSSES["cosine"], "profile", LossSettings())
    found = train_head(nobody, objective, 0)
    assert found is not fitted.estimator.head
    head = fitted.estimator.head.state_dict()
    assert all(torch.equal(tensor, head[name]) for name, tensor in found.state_dict().items())
    assert len(item_of(nobody, 0, "profile").starts) == 1
