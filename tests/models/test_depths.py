"""Depths: interpolation, the scale of log totals, and means and noise by depth, as dense float64 arrays."""

import math

import numpy as np
import pytest
import torch
from dense_estimator import AT, N_DEPTHS, dense_noise, interpolated
from reference import csr
from scipy import sparse

from geneae.data.augment import SHARES, WEIGHTS
from geneae.models.depths import (
    COMPLETE,
    DELTAS,
    MIN_MOLECULES,
    DepthCurves,
    DepthScale,
    Item,
    depth_scale,
    depth_weights,
    fit_curves,
)
from geneae.models.whitening import Whitened, Whitening, floored

N_PROFILES, N_GENES = 30, 7
BETWEEN = np.linspace(AT[0] - 1, AT[-1] + 1, 23)


def test_depths_are_log_ratios_of_the_molecules_of_a_half() -> None:
    np.testing.assert_allclose(DELTAS, AT)
    assert math.exp(-COMPLETE) == pytest.approx(2)  # a complete profile has twice as many
    assert DELTAS[1] == 0
    assert list(DELTAS) == sorted(DELTAS)


@pytest.mark.parametrize("delta", BETWEEN)
def test_depth_weights_are_shares_of_one_that_interpolate(delta: float) -> None:
    weights = depth_weights(delta).double().numpy()
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    used = np.flatnonzero(weights)
    assert used[-1] - used[0] <= 1
    assert weights @ AT == pytest.approx(np.clip(delta, AT[0], AT[-1]), abs=1e-6)
    table = np.random.default_rng(0).standard_normal((N_DEPTHS, 3))
    np.testing.assert_allclose(weights @ table, interpolated(table, delta), atol=1e-6)


def test_a_known_depth_has_its_own_value_and_outside_the_last_one_counts() -> None:
    identity = torch.eye(N_DEPTHS)
    assert all(torch.equal(depth_weights(delta), one) for delta, one in zip(DELTAS, identity, strict=True))
    assert torch.equal(depth_weights(-5.0), identity[0])
    assert torch.equal(depth_weights(50.0), identity[-1])


def test_a_depth_score_is_the_standardised_log_total_at_the_depth_of_a_half() -> None:
    totals = np.array([100.0, 300.0, 900.0])
    scale = depth_scale(totals)
    assert scale.mean == pytest.approx(math.log(300))
    assert scale.deviation == pytest.approx(math.log(3) * math.sqrt(2 / 3) + 0.05)
    expected = (np.log(totals) - scale.mean) / scale.deviation
    np.testing.assert_allclose(scale.scores(totals, 0.0), expected, rtol=1e-6)
    # a profile thinned to a tenth has the score that it had before
    np.testing.assert_allclose(scale.scores(totals / 10, math.log(10)), expected, rtol=1e-5)


def test_depth_scores_end_at_three_and_take_an_empty_profile() -> None:
    scale = DepthScale(5.0, 0.5)
    np.testing.assert_array_equal(scale.scores(np.array([0.0, 1.0, 1e9]), 0.0), [-3, -3, 3])
    np.testing.assert_allclose(DepthScale(0.5, 1.0).scores(np.array([0.0]), 0.0), [-0.5])


def test_totals_that_are_all_the_same_have_a_scale() -> None:
    assert depth_scale(np.full(4, 70.0)).deviation == pytest.approx(0.05)


def test_empty_droplets_among_training_profiles_do_not_change_the_scale() -> None:
    totals = np.array([100.0, 300.0, 900.0])
    with_empty = np.concatenate([totals, [0.0, 1.0, 7.5], np.full(200, 2.0)])
    assert depth_scale(with_empty) == depth_scale(totals)
    assert depth_scale(np.array([2.0, 2.0])).mean == pytest.approx(math.log(2))  # where there is nothing else


def some_items(lowest: int = MIN_MOLECULES) -> list[Item]:
    """Two items of each share, of values that get smaller; every third input of the shallow ones is too small."""
    rng = np.random.default_rng(0)

    def values(share: float) -> sparse.csr_matrix:
        return csr(rng.poisson(1.5, (N_PROFILES, N_GENES)) * share)

    items = []
    for number, share in enumerate(SHARES):
        for half in range(2):
            totals = np.full(N_PROFILES, 100.0)
            if number:
                totals[half::3] = lowest - 1
            items.append(Item(values(1 + share), values(1.0), totals, number))
    return items


def test_the_weights_of_all_items_are_one_for_each_profile() -> None:
    items = some_items(lowest=100)
    assert sum(item.weight.sum() for item in items) == pytest.approx(N_PROFILES, rel=1e-6)
    by_share = [items[2 * number].weight[0] for number in range(len(SHARES))]
    np.testing.assert_allclose(np.array(by_share) / by_share[1], WEIGHTS, rtol=1e-6)
    assert [item.delta for item in items[::2]] == list(DELTAS[1:])


def test_inputs_with_few_molecules_have_no_weight() -> None:
    item = Item(csr(np.ones((3, 2))), csr(np.ones((3, 2))), np.array([0.0, MIN_MOLECULES - 0.5, MIN_MOLECULES]), 1)
    assert (item.weight > 0).tolist() == [False, False, True]


def basis() -> Whitened:
    own = Whitening(torch.linspace(0.1, 3, N_GENES), torch.linspace(0.5, 2, N_GENES), torch.eye(N_GENES)[:, :2])
    return Whitened(own, np.zeros(N_PROFILES, int), [own.components])


def test_curves_are_means_and_noise_of_the_inputs_of_each_depth() -> None:
    items, whitened, complete = some_items(), basis(), np.linspace(0.2, 4, N_GENES)
    found = fit_curves(whitened, items, complete)
    means = [complete, whitened.whitening.mean.numpy()]
    noises = [whitened.whitening.deviation.numpy()] * 2
    for one, other in zip(items[2::2], items[3::2], strict=True):
        first, second = one.inputs.toarray().astype(float), other.inputs.toarray().astype(float)
        known = [each.totals >= MIN_MOLECULES for each in (one, other)]
        means.append(np.concatenate([first[known[0]], second[known[1]]]).mean(0))
        both = known[0] & known[1]
        noise = dense_noise(first[both], second[both])
        noises.append(np.sqrt(0.7 * noise + 0.3 * noise.mean()))
    np.testing.assert_allclose(found.means, np.stack(means), rtol=1e-5)
    np.testing.assert_allclose(found.noises, np.stack(noises), rtol=1e-5)
    slopes = np.clip((np.stack(means) + 0.02) / (means[1] + 0.02), 0.02, 4)
    np.testing.assert_allclose(found.slopes, slopes, rtol=1e-5)
    np.testing.assert_allclose(found.slopes[1], 1)


def test_curves_are_finite_where_no_input_has_molecules_enough() -> None:
    items = [Item(item.inputs, item.targets, np.zeros(N_PROFILES), item.share) for item in some_items()]
    found = fit_curves(basis(), items, np.ones(N_GENES))
    for tensor in (found.means, found.noises, found.slopes):
        assert bool(tensor.isfinite().all())
    assert bool((found.noises > 0).all())
    torch.testing.assert_close(found.noises[2:], torch.full((4, N_GENES), floored(np.zeros(1)).item()))


def test_variances_are_interpolated_and_not_deviations() -> None:
    rows = torch.zeros(N_DEPTHS, 2)
    noises = torch.ones(N_DEPTHS, 2)
    noises[1], noises[2] = 1.0, 3.0
    curves = DepthCurves(rows, noises, rows)
    middle = (DELTAS[1] + DELTAS[2]) / 2
    np.testing.assert_allclose(curves.at(depth_weights(middle))[1], math.sqrt((1 + 9) / 2), rtol=1e-5)
