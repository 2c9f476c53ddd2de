from collections.abc import Iterator
from typing import Any

import pytest

from geneae.settings.settings import Settings
from geneae.training.time_left import COSTS, TimeLeft

FITS: dict[str, tuple[float, bool, dict[str, Any], list[float], int, int]] = {
    "559 cells": (1.03, False, {}, [2.32, 0.44, 4.81, 0.68, 1.64], 28, 10),
    "700 cells": (0.17, False, {}, [1.21, 0.22, 3.69, 0.45, 1.51], 20, 0),
    "2,100 cells": (2.2, False, {}, [2.52, 0.68, 4.37, 1.42, 1.96], 25, 18),
    "2,700 cells": (2.3, False, {}, [2.61, 0.81, 4.35, 1.35, 2.14], 24, 8),
    "10,626 cells": (10.8, False, {}, [4.44, 3.72, 6.26, 4.87, 2.97], 60, 60),
    "free basis": (1.03, False, {"basis": "free", "init": "random"}, [1.32, 3.86, 0.03, 0.32, 1.39], 60, 55),
    "vicreg": (1.03, False, {"objective": "vicreg"}, [2.08, 0.5, 0.03, 0.01, 0.49], 20, 0),
}
"""Million values, whether streamed, settings, seconds of each stage as once measured, last and best epoch."""


class Clock:
    """Time that passes when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def guesses(name: str, speed: float) -> Iterator[tuple[float, float, float]]:
    """Share of a fit that is over, seconds that are left, and what is said to be left; 20 times in every stage."""
    millions, is_streamed, settings, seconds, last, best = FITS[name]
    clock = Clock()
    time_left = TimeLeft(Settings(**settings), millions, is_streamed, 1, clock)
    total = speed * sum(seconds)
    for stage, spent in zip(COSTS["estimator"], seconds, strict=True):
        time_left.begin(stage)
        start, steps = clock.now, last if stage == "training" else 20
        for step in range(steps + 1):
            clock.now = start + speed * spent * step / steps
            if stage == "training":
                time_left.note({"epoch": step, "validation_loss": -min(step, best)})
            yield clock.now / total, total - clock.now, time_left.left()


@pytest.mark.parametrize("speed", [0.6, 1.0, 1.5])
@pytest.mark.parametrize("name", FITS)
def test_the_time_left_of_measured_fits_is_right_within_a_factor_of_two_or_three_seconds(
    name: str, speed: float
) -> None:
    for share, left, said in guesses(name, speed):
        if share >= 0.1:
            assert left / 2 <= said <= 2 * left or abs(left - said) <= 3, (share, left, said)


def test_on_a_much_slower_machine_the_time_is_right_once_a_stage_is_over() -> None:
    for share, left, said in guesses("559 cells", 20):
        if 0.35 <= share <= 0.9:
            assert left / 2 <= said <= 2 * left, (share, left, said)


def test_permuted_controls_are_counted() -> None:
    alone, three = (TimeLeft(Settings(), 1.0, False, n_fits, Clock()) for n_fits in (1, 3))
    before = three.left() - alone.left()
    for each in (alone, three):
        each.begin("bases")
    assert three.left() - alone.left() == pytest.approx(before) == pytest.approx(alone.left() * 2, rel=0.2)
    for stage in ("training", "steps", "judging", "bases", "training", "steps", "judging", "bases"):
        three.begin(stage)
    assert three.left() == pytest.approx(alone.left())
