"""Batches of two views: which profiles, drawn from what, and the same again where that is asked for."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import simulate
from dense_estimator import DenseEstimator, random_estimator
from torch import Tensor

from geneae.data.augment import View, Viewer
from geneae.data.preprocess import Expression, Preprocess, fit_preprocess
from geneae.data.reading import read_profiles
from geneae.losses.sparse_rows import SparseRows, sparse_product
from geneae.models.estimator import Estimator
from geneae.models.network import Network, random_network
from geneae.training.batches import CountSplits, PairSource
from geneae.training.view_batches import (
    DEPTH_STEP,
    LEAST,
    JointSource,
    Partners,
    ScoredSource,
    ScoreReader,
    TwoViews,
    ViewSource,
    validation_views,
)

N_PROFILES, BATCH = 100, 30
Made = tuple[Network, Expression, Preprocess]


@pytest.fixture(scope="module")
def made() -> Made:
    """A plain encoder of the genes of 100 profiles."""
    profiles = read_profiles(simulate(N_PROFILES, 40, depth=60.0))
    preprocess = fit_preprocess(profiles, np.arange(N_PROFILES))
    expression, _ = preprocess.match(profiles)
    return random_network(torch.zeros(len(preprocess.genes)), 3, 8, dropout=0.0), expression, preprocess


def viewer_of(made: Made, chain: list[tuple[str, float]]) -> Viewer:
    return Viewer(chain, made[2], np.ones(len(made[2].genes)))


def source_of(made: Made, seed: int = 0, batch_size: int = BATCH) -> ViewSource:
    return ViewSource(made[0], made[1], viewer_of(made, [("thin", 0.3)]), batch_size, seed)


def dense(rows: Tensor | SparseRows) -> np.ndarray:
    assert isinstance(rows, SparseRows)
    found: np.ndarray = sparse_product(rows, torch.eye(rows.n_genes)).numpy()
    return found


def both(views: TwoViews) -> tuple[np.ndarray, np.ndarray]:
    return dense(views.first), dense(views.second)


def order_of(source: ViewSource, seed: int = 0) -> Tensor:
    return source.epoch(1).order(torch.Generator().manual_seed(seed))


def test_two_views_of_the_profiles_that_were_asked_for_differ(made: Made) -> None:
    index = torch.tensor([7, 3, 50])
    first, second = both(source_of(made).epoch(1).take(index))
    whole = made[1].rows.toarray()[index.numpy()]
    for view in (first, second):
        assert view.shape == whole.shape
        assert (whole[view > 0] > 0).all()  # thinning takes molecules away and adds none
        assert 0 < (view > 0).sum() < (whole > 0).sum()
    assert not np.array_equal(first, second)


def test_views_that_change_nothing_are_the_profiles(made: Made) -> None:
    source = ViewSource(made[0], made[1], viewer_of(made, [("mask", 0.0)]), BATCH, 0)
    index = torch.tensor([9, 0, 31])
    expected = made[2].apply(made[1].take(index.numpy())).toarray()
    for view in both(source.epoch(1).take(index)):
        np.testing.assert_allclose(view, expected)


def test_seed_and_epoch_and_batch_decide_the_views_and_nothing_else(made: Made) -> None:
    batches = order_of(source_of(made)).split(BATCH)
    pairs, again = source_of(made).epoch(2), source_of(made).epoch(2)
    expected = [both(pairs.take(index)) for index in batches]
    np.random.default_rng(5).random()
    for index, views in reversed(list(zip(batches, expected, strict=True))):  # whatever was drawn before
        np.testing.assert_array_equal(both(again.take(index)), views)
    others = source_of(made).epoch(3), source_of(made, seed=1).epoch(2)
    assert not any(np.array_equal(both(other.take(batches[0]))[0], expected[0][0]) for other in others)


def test_an_order_has_every_profile_once(made: Made) -> None:
    order = order_of(source_of(made, batch_size=20))
    assert sorted(order.tolist()) == list(range(N_PROFILES))
    assert not torch.equal(order, order_of(source_of(made, batch_size=20), seed=1))
    assert torch.equal(order, order_of(source_of(made, batch_size=20)))


@pytest.mark.parametrize(
    ("batch_size", "n_kept"), [(100 - LEAST, 100), (101 - LEAST, 101 - LEAST), (99, 99), (200, 100)]
)
def test_a_last_batch_is_left_out_where_it_is_too_small(made: Made, batch_size: int, n_kept: int) -> None:
    order = order_of(source_of(made, batch_size=batch_size))
    assert len(order) == len(set(order.tolist())) == n_kept


@pytest.mark.parametrize("is_split", [True, False])
def test_joint_batches_are_of_the_same_profiles(made: Made, is_split: bool) -> None:
    network, expression, preprocess = made
    joint = JointSource(source_of(made), PairSource(network, expression, preprocess, CountSplits(is_split, 2, 0)))
    batches = joint.epoch(1)
    order = batches.order(torch.Generator().manual_seed(0))
    assert sorted((order % N_PROFILES).tolist()) == sorted(set((order % N_PROFILES).tolist()))
    assert len(order) == N_PROFILES - N_PROFILES % BATCH  # the rest, 10, is below the least
    batch = batches.take(order[:BATCH], 0.5)
    np.testing.assert_array_equal(both(batch.views), both(source_of(made).epoch(1).take(order[:BATCH] % N_PROFILES)))
    whole = expression.rows.toarray()[order[:BATCH].numpy() % N_PROFILES]
    assert batch.inputs is batch.pairs.inputs
    assert batch.pairs.progress == 0.5
    for rows in (batch.pairs.inputs, batch.pairs.target):
        assert (whole[dense(rows) > 0] > 0).all()
        assert bool((dense(rows) > 0).any(axis=1).all())


def test_validation_views_are_of_all_profiles_in_order_and_always_the_same(made: Made) -> None:
    viewer = viewer_of(made, [("mask", 0.0)])
    batches = validation_views(viewer, made[1], BATCH, seed=0)
    assert [batch.first.n_profiles for batch in batches] == [25, 25, 25, 25]  # of nearly equal size, at most 30
    whole = made[2].apply(made[1]).toarray()
    for side in zip(*map(both, batches), strict=True):
        np.testing.assert_allclose(np.concatenate(side), whole)
    viewer = viewer_of(made, [("thin", 0.3)])
    first, again, other = (validation_views(viewer, made[1], BATCH, seed) for seed in (0, 0, 1))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(both(one), both(two))
    assert not np.array_equal(both(first[0]), both(other[0]))
    assert not any(np.array_equal(both(one)[0][0], both(two)[0][0]) for one, two in pairwise(first))


@pytest.fixture(scope="module")
def scored(made: Made) -> tuple[ScoreReader, Estimator]:
    estimator = random_estimator(len(made[2].genes))
    return ScoreReader(estimator, torch.tensor([0.5, 1.0, 3.0])), estimator


def test_scores_of_views_are_read_at_the_depth_of_each_profile(
    made: Made, scored: tuple[ScoreReader, Estimator]
) -> None:
    reader, estimator = scored
    for chain in ([("depths", 0.04)], [("mask", 0.4)], [("depths", 0.04), ("mask", 0.4)]):
        view, _ = viewer_of(made, chain).draw(made[1], np.random.default_rng(0))
        found = reader(view)
        for row in range(0, N_PROFILES, 7):
            delta = float(np.log(0.5 / view.shares[row]))
            dense_scores = DenseEstimator(estimator, delta).scores(view.matrix[[row]].toarray(), view.totals[[row]])
            np.testing.assert_allclose(found[row], dense_scores[0] / [0.5, 1.0, 3.0], rtol=1e-3, atol=1e-3)


def test_depths_between_those_of_training_are_rounded_to_a_factor_of_at_most_1_05(made: Made) -> None:
    seen: list[tuple[float, np.ndarray]] = []

    class Seen:
        def at(self, delta: float) -> "Seen":
            self.delta = delta
            return self

        def scores(self, matrix: object, totals: np.ndarray) -> Tensor:
            seen.append((self.delta, totals))
            return torch.zeros(len(totals), 3)

    shares = np.geomspace(0.02, 1.0, N_PROFILES)
    matrix = made[2].apply(made[1])
    ScoreReader(Seen(), torch.ones(3))(View(matrix, shares, shares))  # type: ignore[arg-type]
    assert len(seen) < N_PROFILES / 2
    for delta, of_group in seen:
        np.testing.assert_allclose(0.5 * np.exp(-delta) / of_group, 1, atol=np.exp(DEPTH_STEP / 2) - 0.999)
    assert sorted(np.concatenate([of_group for _, of_group in seen])) == sorted(shares)


def test_scored_epochs_take_a_few_draws_in_turn(made: Made, scored: tuple[ScoreReader, Estimator]) -> None:
    viewer, index = viewer_of(made, [("depths", 0.04)]), torch.tensor([9, 0, 31])
    source, again = (ScoredSource(scored[0], made[1], viewer, BATCH, 2, seed=0) for _ in range(2))
    batches = [source.epoch(epoch).take(index) for epoch in (1, 2, 3)]
    for one, other in ((batches[0], batches[2]), (batches[1], again.epoch(2).take(index))):
        assert torch.equal(numbers(one.first), numbers(other.first))
        assert torch.equal(numbers(one.second), numbers(other.second))
    assert not torch.equal(numbers(batches[0].first), numbers(batches[1].first))
    assert not torch.equal(numbers(batches[0].first), numbers(batches[0].second))
    whole = source.epoch(1).take(torch.arange(N_PROFILES))
    assert torch.equal(numbers(whole.first)[index], numbers(batches[0].first))
    order = source.epoch(1).order(torch.Generator().manual_seed(0))
    assert torch.equal(order, order_of(source_of(made)))  # as of views that are drawn by mini-batch


def numbers(scores: Tensor | SparseRows) -> Tensor:
    assert isinstance(scores, Tensor)
    return scores


def test_validation_scores_are_those_of_validation_views(made: Made, scored: tuple[ScoreReader, Estimator]) -> None:
    viewer = viewer_of(made, [("mask", 0.0)])
    batches = validation_views(viewer, made[1], BATCH, 0, scored[0])
    plain = View(made[2].apply(made[1]), made[1].totals, np.ones(N_PROFILES))
    for side in (0, 1):
        found = torch.cat([numbers((batch.first, batch.second)[side]) for batch in batches])
        torch.testing.assert_close(found, scored[0](plain))


def test_second_views_are_of_partners_where_there_are_any(made: Made, scored: tuple[ScoreReader, Estimator]) -> None:
    neighbours = torch.stack([torch.arange(N_PROFILES).roll(-1), torch.arange(N_PROFILES).roll(-2)], 1)
    viewer, index = viewer_of(made, [("mask", 0.0)]), torch.tensor([9, 0, 31, 99])
    plain = View(made[2].apply(made[1]), made[1].totals, np.ones(N_PROFILES))
    drawn = []
    for epoch in (1, 2, 3):
        source = ViewSource(made[0], made[1], viewer, BATCH, 0, Partners(neighbours))
        first, second = both(source.epoch(epoch).take(index))
        np.testing.assert_allclose(first, plain.matrix.toarray()[index])
        steps = [
            next(
                step
                for step in (1, 2)
                if np.allclose(second[row], plain.matrix.toarray()[(int(index[row]) + step) % 100])
            )
            for row in range(len(index))
        ]
        drawn += steps
        batch = ScoredSource(scored[0], made[1], viewer, BATCH, 3, 0, Partners(neighbours)).epoch(epoch).take(index)
        expected = scored[0](plain)
        torch.testing.assert_close(numbers(batch.first), expected[index])
        for row, profile in enumerate(index.tolist()):
            gaps = [
                float((numbers(batch.second)[row] - expected[(profile + step) % 100]).abs().max()) for step in (1, 2)
            ]
            assert min(gaps) < 1e-4
    assert set(drawn) == {1, 2}  # at random
