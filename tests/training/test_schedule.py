import pytest
import torch

from geneae.training.schedule import rate_factor, schedule


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 1.0), (25, 1.0), (50, 1.0), (60, 0.8), (75, 0.5), (99, 0.02), (100, 0.0)]
)
def test_the_rate_stays_for_half_of_the_steps_and_then_falls_to_zero(step: int, factor: float) -> None:
    assert rate_factor(step, 100) == pytest.approx(factor, abs=1e-12)


def optimizer_of(*rates: float) -> torch.optim.Optimizer:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": rate, "initial_lr": rate} for rate in rates]
    return torch.optim.SGD(groups)


def rates_of(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def test_every_group_follows_with_its_own_rate() -> None:
    optimizer = optimizer_of(0.3, 0.02)
    rates = schedule(optimizer, 8)
    for step in range(8):
        assert rates_of(optimizer) == [0.3 * rate_factor(step, 8), 0.02 * rate_factor(step, 8)]
        optimizer.step()
        rates.step()


@pytest.mark.parametrize("n_done", [0, 1, 6])
def test_a_resumed_schedule_has_the_very_rates_of_one_that_was_left_alone(n_done: int) -> None:
    optimizer = optimizer_of(0.3, 0.02)
    rates = schedule(optimizer, 8, n_done)
    for step in range(n_done, 8):
        assert rates_of(optimizer) == [0.3 * rate_factor(step, 8), 0.02 * rate_factor(step, 8)]
        optimizer.step()
        rates.step()
