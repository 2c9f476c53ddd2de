"""Settings of halves: how the molecules are divided, and which profiles are set aside. Declared as those of a fit."""

from dataclasses import dataclass
from typing import Any

from geneae.settings.declaration import Limits, declared, described, setting
from geneae.settings.settings import SETTINGS


def _as_in_fit(name: str) -> Any:
    """A field that is declared as the setting of this name of a fit."""
    one = SETTINGS[name]
    return setting(one.default, one.text, limits=one.limits, metavar=one.metavar, none=one.none, flag=one.flag)


@dataclass(frozen=True)
class HalvesSettings:
    """All choices about halves. Impossible values are refused."""

    fraction: float = setting(
        0.5,
        "Share of the molecules of a profile that other programs see. The rest is held out.",
        limits=Limits(least=0.05, most=0.95),
    )
    validation: float = _as_in_fit("validation")
    test: float = _as_in_fit("test")
    group: str | None = _as_in_fit("group")
    stratify: str | None = _as_in_fit("stratify")
    seed: int = _as_in_fit("seed")

    def __post_init__(self) -> None:
        for name, value in list(vars(self).items()):
            object.__setattr__(self, name, HALVES_SETTINGS[name].check(value))


HALVES_SETTINGS = declared(HalvesSettings)
HalvesSettings.__doc__ = f"{HalvesSettings.__doc__}\n\n{described(HALVES_SETTINGS)}"
