"""How long a fit will still take, from the costs of its stages and from what it has taken so far."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from geneae.data.permuted import NULLS
from geneae.data.profiles import Profiles
from geneae.settings.settings import Settings

OVERDUE = 0.2  # what is left of a stage that takes longer than expected, as a share of what it has taken
MOST_SAMPLED = 8.4  # million values that steps are chosen by, and that the bases of streamed profiles are fitted on


@dataclass(frozen=True)
class Cost:
    """Seconds of a stage, or of an epoch of training, on two cores."""

    fixed: float
    per_million: float
    """Seconds per million values of the profiles."""

    def of(self, millions: float) -> float:
        """Seconds for so many million values."""
        return self.fixed + self.per_million * millions


NONE = Cost(0.02, 0.0)
REPORT = Cost(1.5, 0.14)
COSTS: dict[str, dict[str, Cost]] = {
    "estimator": {
        "bases": Cost(1.6, 0.27),
        "training": Cost(0.01, 0.005),
        "steps": Cost(3.6, 0.3),
        "judging": Cost(0.45, 0.41),
        "report": REPORT,
    },
    "network": {
        "bases": Cost(0.8, 0.3),
        "training": Cost(0.012, 0.06),
        "steps": NONE,
        "judging": Cost(0.15, 0.1),
        "report": REPORT,
    },
    "encoder": {
        "bases": Cost(2.0, 0.35),
        "training": Cost(0.01, 0.01),
        "steps": NONE,
        "judging": NONE,
        "report": Cost(0.45, 0.0),
    },
}
"""Costs by kind of fit and stage, as measured on data sets of 0.2 to 20 million values; that a machine is faster or
slower is seen when a stage takes less or more."""
STREAMED = {"training": 2.0, "judging": 1.5}
"""Factors of the costs of streamed profiles."""


def time_left_of(profiles: Profiles, settings: Settings, null: bool = False) -> "TimeLeft":
    """That of a fit of these profiles, with the permuted controls if there are any."""
    return TimeLeft(settings, profiles.matrix.nnz / 1e6, profiles.is_streamed, 1 + len(NULLS) * null)


class TimeLeft:
    """Seconds until a fit ends, by the stages of `geneae.settings.stages` and the rows of the history.

    Parameters
    ----------
    settings
        Settings of the fit.
    millions
        Million values of the profiles.
    is_streamed
        Whether profiles are streamed.
    n_fits
        Number of fits, with permuted controls.
    clock
        Function that returns seconds.
    """

    def __init__(
        self,
        settings: Settings,
        millions: float,
        is_streamed: bool = False,
        n_fits: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._n_left, self._settings = clock, n_fits, settings
        self._stage, self._since = "", clock()
        self._spent = self._predicted = 0.0
        self._first_epoch, self._epoch, self._best, self._lowest = 0.0, 0, 0, float("inf")
        sampled = min(millions, MOST_SAMPLED)
        values = {"bases": sampled if is_streamed else millions, "steps": sampled}
        kind = "network" if settings.basis == "free" else "estimator"
        kind = kind if settings.objective == "reconstruction" else "encoder"
        self._costs = {
            stage: cost.of(values.get(stage, millions)) * (STREAMED.get(stage, 1.0) if is_streamed else 1.0)
            for stage, cost in COSTS[kind].items()
        }

    def begin(self, stage: str) -> None:
        """A stage begins, and the one before it is over."""
        if self._stage in self._costs:
            self._spent += self._clock() - self._since
            self._predicted += self._whole(self._stage)
        if stage == "bases":  # of this fit, or of the next one
            self._n_left -= 1
        self._stage, self._since = stage, self._clock()
        self._epoch, self._best, self._lowest = 0, 0, float("inf")

    def note(self, row: dict[str, float]) -> None:
        """An epoch is over."""
        self._epoch = int(row["epoch"])
        if self._epoch == 0:
            self._first_epoch = self._clock()
        if row["validation_loss"] < self._lowest:
            self._lowest, self._best = row["validation_loss"], self._epoch

    def left(self) -> float:
        """Seconds until the end; never negative."""
        if self._stage not in self._costs:
            return self._speed(0.0) * self._of_fits()
        elapsed = self._clock() - self._since
        speed = self._speed(elapsed)
        stages = list(self._costs)
        later = sum(self._whole(stage) for stage in stages[stages.index(self._stage) + 1 :])
        if self._stage == "training" and self._epoch > 0:
            per_epoch = (self._clock() - self._first_epoch) / self._epoch
            now = per_epoch * (self._last_epoch() - self._epoch)
        else:
            now = max(speed * self._whole(self._stage) - elapsed, OVERDUE * elapsed)
        return now + speed * (later + self._of_fits())

    def _speed(self, elapsed: float) -> float:
        """Seconds that this machine takes for a second of the costs."""
        running = self._whole(self._stage) if self._stage in self._costs else 0.0
        if self._spent == 0:
            return max(1.0, elapsed / running) if running else 1.0
        known = self._spent / self._predicted
        return max(known, (self._spent + elapsed) / (self._predicted + running))

    def _of_fits(self) -> float:
        """Cost of the fits that follow, which have no report."""
        return self._n_left * sum(self._whole(stage) for stage in self._costs if stage != "report")

    def _whole(self, stage: str) -> float:
        """Cost of a whole stage."""
        return self._costs[stage] * (self._last_epoch() if stage == "training" else 1)

    def _last_epoch(self) -> float:
        """The epoch that a training will end with: after the patience, or in between while it improves."""
        epochs, soon = self._settings.epochs, min(self._settings.epochs, self._best + self._settings.patience)
        is_improving = self._best == self._epoch
        return float((soon * epochs) ** 0.5 if is_improving else max(soon, self._epoch))
