"""What training profiles like these have: ridge regression, and the depth of a set as a fixed point."""

import math

import numpy as np
import pytest
import torch

from geneae.models.molecules import PENALTY, TypicalMolecules, depth_of_set, fit_molecules


def training(n_profiles: int = 400, rank: int = 3, seed: int = 0) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Scores, molecules, and the change of log molecules by score that made them."""
    rng = np.random.default_rng(seed)
    scores, by_score = rng.normal(1.0, 2.0, (n_profiles, rank)), np.array([0.3, 0.0, -0.2])[:rank]
    logs = 6 + scores @ by_score + rng.normal(0, 0.1, n_profiles)
    return torch.tensor(scores, dtype=torch.float32), np.exp(logs), by_score


def test_the_regression_is_that_of_the_normal_equations() -> None:
    scores, totals, _ = training()
    found = fit_molecules(scores, totals)
    x = scores.double().numpy()
    x, y = x - x.mean(0), np.log(totals) - np.log(totals).mean()
    penalty = PENALTY * (x**2).sum(0).mean()
    expected = np.linalg.solve(x.T @ x + penalty * np.eye(3), x.T @ y)
    np.testing.assert_allclose(found.weight, expected, rtol=1e-5, atol=1e-7)
    assert found.mean == pytest.approx(np.log(totals).mean())
    np.testing.assert_allclose(found.logs(scores).mean(), np.log(totals).mean(), rtol=1e-3)


def test_nothing_beyond_training_is_predicted() -> None:
    scores, totals, _ = training()
    found = fit_molecules(scores, totals)
    far = torch.tensor([[1e4, 0, 0], [-1e4, 0, 0]])
    np.testing.assert_allclose(np.exp(found.logs(far)), [totals.max(), totals.min()])


@pytest.mark.parametrize("times", [0.5, 1.0, 4.0, 10.0])
def test_a_set_of_small_cells_is_not_taken_for_a_shallow_one(times: float) -> None:
    """Half of the profiles of training are small; a query of the small ones alone is read at its true depth."""
    is_small = np.arange(200) % 2 == 0
    scores = torch.tensor(np.where(is_small, -5.0, 5.0)[:, None], dtype=torch.float32)
    totals = np.where(is_small, 300.0, 1200.0)
    typical = fit_molecules(scores, totals)
    small, read = totals[is_small] / times, []

    def scores_at(delta: float) -> torch.Tensor:
        read.append(delta)
        return scores[is_small]

    delta = depth_of_set(typical, small, scores_at).delta
    by_mean_alone = math.exp(typical.mean) / small.mean()
    assert by_mean_alone == pytest.approx(2 * times)
    # the ridge penalty shrinks the difference of both kinds to half
    assert math.exp(delta) == pytest.approx(math.sqrt(2) * times, rel=1e-3)
    assert read[0] == pytest.approx(math.log(by_mean_alone))


def test_without_a_relation_the_depth_is_that_of_the_means() -> None:
    typical = TypicalMolecules(torch.zeros(2), torch.zeros(2), math.log(500), (0.0, 10.0))
    totals = np.array([10.0, 1000.0])
    found = depth_of_set(typical, totals, lambda delta: torch.zeros(2, 2))
    assert math.exp(found.delta) == pytest.approx(5)
    np.testing.assert_allclose(np.exp(found.own), [50, 0.5])


def test_the_depth_is_a_fixed_point() -> None:
    """Profiles look larger the deeper they are read: log molecules 6 - delta / 2 gives delta = 6 - delta / 2 - 3."""
    typical = TypicalMolecules(torch.ones(1), torch.zeros(1), 6.0, (0.0, 10.0))
    totals = np.full(3, math.exp(3.0))
    delta = depth_of_set(typical, totals, lambda delta: torch.full((3, 1), -delta / 2)).delta
    assert delta == pytest.approx(2.0, abs=2e-3)


def test_profiles_without_any_difference_have_one_mean() -> None:
    found = fit_molecules(torch.zeros(4, 2), np.full(4, 100.0))
    assert found.logs(torch.ones(2, 2)).tolist() == pytest.approx([math.log(100)] * 2)


def test_empty_droplets_among_training_profiles_do_not_change_it() -> None:
    scores, totals, _ = training()
    found = fit_molecules(scores, totals)
    with_empty = fit_molecules(torch.cat([scores, torch.zeros(300, 3)]), np.concatenate([totals, np.full(300, 2.0)]))
    assert torch.equal(with_empty.weight, found.weight)
    assert (with_empty.mean, with_empty.limits) == (found.mean, found.limits)
