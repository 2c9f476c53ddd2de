"""How a setting is declared: once, with its default, its text and its values; all that asks for it is made of that."""

import math
import textwrap
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, get_args

from geneae.settings.errors import InputError, unknown

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """The numbers that a setting may be; infinity and NaN are never among them."""

    least: float = -math.inf
    """Smallest value that is allowed."""
    most: float = math.inf
    """Largest value that is allowed."""
    above: float = -math.inf
    """Bound that every value has to exceed."""
    below: float = math.inf
    """Bound that every value has to stay under."""
    note: str = ""
    """What a value of the range means, where that needs saying."""

    def hold(self, value: float) -> bool:
        """Whether a number is allowed."""
        return self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        """`at least 0 and below 1`; empty where every finite number is allowed."""
        if math.isfinite(self.least) and math.isfinite(self.most):
            return f"between {self.least:g} and {self.most:g}"
        bounds = {"at least": self.least, "at most": self.most, "above": self.above, "below": self.below}
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound))


COUNT = Limits(least=1)
"""A whole number of things, of which there has to be one; goes without saying in help texts."""


@dataclass(frozen=True)
class Setting:
    """One thing that a user can choose, and everything that flags, files and errors say about it."""

    name: str
    """Name of the field, which is the keyword in Python."""
    kind: type
    """`str`, `int`, `float` or `bool`."""
    default: Any
    """Value where the user does not choose; None only where None is a choice."""
    text: str
    """Sentences; the first one stands in `--help` and in configuration files, the others in the API reference alone."""
    flag: str
    """Name of the flag and of the key in files, without dashes."""
    limits: Limits | None
    """Range of a number."""
    choices: tuple[str, ...]
    """Words of which one is chosen."""
    family: tuple[str, ...]
    """Names that a word is composed of: a sum of losses, a chain of views."""
    metavar: str | None
    """Stands for the value in `--help`."""
    none: str
    """What None means, in words; empty where it means nothing of the kind."""

    def check(self, value: Any) -> None:
        """Refuse a value that is not among the choices, or outside the limits."""
        if value is None and self.default is None:
            return
        called = self.name.replace("_", "-")
        if self.choices and value not in self.choices:
            raise unknown(called, value, self.choices)
        if self.limits is not None and not self.limits.hold(value):
            finite = "finite and " if math.isinf(value) else ""
            note = f" ({self.limits.note})" if self.limits.note else ""
            raise InputError(f"{called} must be {finite}{self.limits}{note}; found {value:g}.")

    @property
    def sentence(self) -> str:
        """The first sentence with the limits, without its full stop."""
        first = self.text.split(". ")[0].removesuffix(".")
        if self.limits is None or (self.kind is int and self.limits == COUNT):
            return first
        said = "; ".join(filter(None, (str(self.limits), self.limits.note)))
        return f"{first} ({said})" if said else first

    @property
    def description(self) -> str:
        """All sentences with the limits, and what None means."""
        rest = self.text.partition(". ")[2]
        parts = [f"{self.sentence}.", rest, f"None: {self.none}." if self.none else ""]
        return " ".join(filter(None, parts))


def setting(
    default: T,
    text: str,
    *,
    limits: Limits | None = None,
    choices: tuple[str, ...] = (),
    family: tuple[str, ...] = (),
    flag: str | None = None,
    metavar: str | None = None,
    none: str = "",
) -> T:
    """A field of a record of settings, with what `Setting` says about it; `flag` where it differs from the name."""
    known = {"text": text, "limits": limits, "choices": choices, "family": family}
    return field(default=default, metadata=known | {"flag": flag, "metavar": metavar, "none": none})


def declared(record: type) -> dict[str, Setting]:
    """By name, the settings that a record declares, in their order."""
    found = {}
    for one in fields(record):
        kinds = [kind for kind in get_args(one.type) or (one.type,) if kind is not type(None)]
        known = dict(one.metadata) | {"flag": one.metadata["flag"] or one.name.replace("_", "-")}
        found[one.name] = Setting(name=one.name, kind=kinds[0], default=one.default, **known)
    return found


def described(settings: dict[str, Setting]) -> str:
    """The section of a docstring that describes each setting, in the manner of numpydoc."""
    lines = ["Attributes", "----------"]
    for one in settings.values():
        kind = f"{{{', '.join(map(repr, one.choices))}}}" if one.choices else one.kind.__name__
        optional = " or None" if one.default is None else ""
        lines.append(f"{one.name} : {kind}{optional}, default {one.default!r}")
        lines += textwrap.wrap(one.description, 112, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)
