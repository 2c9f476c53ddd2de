"""Neighbours: the mean of the nearest profiles of a reference, and the way to it, as dense float64 arrays."""

import numpy as np
import pytest
import torch
from dense_estimator import N_DEPTHS, dense_mean_of_nearest
from reference import csr

from geneae.data.augment import SHARES
from geneae.models import neighbours
from geneae.models.depths import Item, depth_weights
from geneae.models.neighbours import Neighbours, fit_neighbours, mean_of_nearest, number_of_neighbours
from geneae.models.posterior import Scored

N_PROFILES, RANK, N_FOLDS = 50, 3, 2


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("number", [1, 4, 100])
def test_means_are_those_of_sorted_distances(number: int) -> None:
    scores, reference, factors = draws(9, RANK), draws(30, RANK, seed=1), torch.tensor([1.0, 0.5, 0.1])
    expected = dense_mean_of_nearest(*(some.double().numpy() for some in (scores, reference, factors)), number)
    np.testing.assert_allclose(mean_of_nearest(scores, reference, factors, number), expected, atol=1e-6)


def test_all_profiles_are_neighbours_where_there_are_few() -> None:
    reference = draws(4, RANK)
    found = mean_of_nearest(draws(5, RANK, seed=1), reference, torch.ones(RANK), 15)
    torch.testing.assert_close(found, reference.mean(0).expand(5, -1))


def test_profiles_computed_together_do_not_change_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, reference, factors = draws(40, RANK), draws(300, RANK, seed=1), draws(RANK, seed=2).abs()
    together = mean_of_nearest(scores, reference, factors, 7)
    assert torch.equal(mean_of_nearest(scores[3:9], reference, factors, 7), together[3:9])
    assert torch.equal(mean_of_nearest(scores[[5]], reference, factors, 7), together[[5]])
    monkeypatch.setattr(neighbours, "CHUNK_DISTANCES", 1)
    assert torch.equal(mean_of_nearest(scores, reference, factors, 7), together)


def test_the_order_of_the_reference_does_not_matter() -> None:
    scores, reference, factors = draws(20, RANK), draws(60, RANK, seed=1), torch.ones(RANK)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    one, other = (mean_of_nearest(scores, some, factors, 5) for some in (reference, reference[order]))
    torch.testing.assert_close(one, other)


def test_no_profiles_have_no_neighbours() -> None:
    assert mean_of_nearest(torch.zeros(0, RANK), draws(5, RANK), torch.ones(RANK), 3).shape == (0, RANK)


@pytest.mark.parametrize("delta", [-0.5, 0.0, 0.9, 4.0])
def test_scores_are_drawn_a_share_of_the_way(delta: float) -> None:
    scores, reference = draws(9, RANK), draws(30, RANK, seed=1)
    pull = torch.linspace(0.1, 0.6, N_DEPTHS)
    near = Neighbours(reference, torch.full((RANK,), 0.7), pull, 4)
    weights = depth_weights(delta)
    way = float(weights @ pull)
    torch.testing.assert_close(near.drawn(scores, weights), (1 - way) * scores + way * near.means(scores))
    nothing = Neighbours(reference, near.factors, torch.zeros(N_DEPTHS), 4)
    assert torch.equal(nothing.drawn(scores, weights), scores)


@pytest.mark.parametrize(("n_profiles", "number"), [(1, 15), (750, 15), (1000, 20), (1500, 30), (10**6, 30)])
def test_one_in_fifty_is_a_neighbour_within_limits(n_profiles: int, number: int) -> None:
    assert number_of_neighbours(n_profiles) == number


def some_scored(toward: float = 0.4) -> tuple[list[Scored], torch.Tensor, list[torch.Tensor], np.ndarray]:
    """Items whose targets lie between scores and neighbours, the raw scores, those without each fold, and folds."""
    fold = np.arange(N_PROFILES) % N_FOLDS
    raw = draws(N_PROFILES, RANK, seed=1)
    by_fold = [raw[torch.from_numpy(fold != number)] + 0.1 for number in range(N_FOLDS)]
    scored = []
    for share in range(len(SHARES)):
        for half in range(2):
            scores = draws(N_PROFILES, RANK, seed=10 + 2 * share + half)
            mean = means_without_own_fold(scores, by_fold, fold)
            targets = scores + (toward + 0.05 * share) * (mean - scores) + 0.2 * draws(N_PROFILES, RANK, seed=99)
            totals = np.where(np.arange(N_PROFILES) < 5, 1.0, 100.0)
            item = Item(csr(np.zeros((N_PROFILES, 2))), csr(np.zeros((N_PROFILES, 2))), totals, share)
            scored.append(Scored(item, torch.zeros(N_PROFILES), scores, targets))
    return scored, raw, by_fold, fold


def means_without_own_fold(scores: torch.Tensor, by_fold: list[torch.Tensor], fold: np.ndarray) -> torch.Tensor:
    rows = [
        dense_mean_of_nearest(one[None].double().numpy(), by_fold[own].double().numpy(), FACTORS.double().numpy(), 15)[
            0
        ]
        for one, own in zip(scores, fold, strict=True)
    ]
    return torch.tensor(np.array(rows), dtype=torch.float32)


FACTORS = torch.tensor([0.9, 0.7, 0.4])


def test_the_way_is_the_one_of_least_error_by_depth_to_neighbours_of_other_folds() -> None:
    scored, raw, by_fold, fold = some_scored()
    found, moved = fit_neighbours(raw, FACTORS, scored, by_fold, fold, 0)
    ways = []
    for share in range(len(SHARES)):
        some = [one for one in scored if one.item.share == share]
        weight = np.concatenate([one.item.weight for one in some])[:, None].astype(float)
        scores, targets = (
            torch.cat([getattr(one, name) for one in some]).double().numpy() for name in ("expected", "targets")
        )
        mean = torch.cat([means_without_own_fold(one.expected, by_fold, fold) for one in some]).double().numpy()
        root = np.sqrt(weight)
        ways.append(np.linalg.lstsq((root * (mean - scores)).reshape(-1, 1), (root * (targets - scores)).ravel())[0][0])
    np.testing.assert_allclose(found.pull[1:], ways, rtol=1e-4)
    assert float(found.pull[0]) == pytest.approx(ways[0] / (ways[0] + 2 * (1 - ways[0])), rel=1e-4)
    assert torch.equal(found.reference, raw)
    assert torch.equal(found.factors, FACTORS)
    assert found.number == 15
    for before, after in zip(scored, moved, strict=True):
        mean = means_without_own_fold(before.expected, by_fold, fold)
        expected = before.expected + ways[before.item.share] * (mean - before.expected)
        torch.testing.assert_close(after.expected, expected.float(), atol=1e-4, rtol=1e-4)
        assert torch.equal(after.targets, before.targets)


@pytest.mark.parametrize(("toward", "expected"), [(-1.0, 0.0), (1.5, 0.9)])
def test_the_way_is_within_limits(toward: float, expected: float) -> None:
    scored, raw, by_fold, fold = some_scored(toward)
    found, _ = fit_neighbours(raw, FACTORS, scored, by_fold, fold, 0)
    torch.testing.assert_close(found.pull[1:], torch.full((5,), expected))
    assert (float(found.pull[0]) == 0) == (expected == 0)


def test_inputs_without_weight_have_no_say() -> None:
    scored, raw, by_fold, fold = some_scored()
    for one in scored:
        one.targets[:5] += 1000
    with_them, _ = fit_neighbours(raw, FACTORS, scored, by_fold, fold, 0)
    for one in scored:
        one.targets[:5] -= 1000
    torch.testing.assert_close(with_them.pull, fit_neighbours(raw, FACTORS, scored, by_fold, fold, 0)[0].pull)


def test_a_reference_of_many_is_a_random_part_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MOST_REFERENCE", 20)
    scored, raw, by_fold, fold = some_scored()
    one, same, other = (fit_neighbours(raw, FACTORS, scored, by_fold, fold, seed)[0].reference for seed in (0, 0, 1))
    assert one.shape == (20, RANK)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert all(bool((raw == row).all(1).any()) for row in one)
