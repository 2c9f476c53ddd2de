"""Declaration of a setting: default, description and allowed values, written once and read by everything else."""

import math
import numbers
import textwrap
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, get_args

from geneae.settings.errors import InputError, unknown

T = TypeVar("T")

KINDS: dict[type, tuple[type, str]] = {
    str: (str, "a text"),
    bool: (bool, "True or False"),
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
}
"""What a setting of each kind accepts, and how that reads; numbers of NumPy are numbers, and a truth value is none."""


@dataclass(frozen=True)
class Limits:
    """Range of the numbers that a setting accepts; infinity and NaN are always refused."""

    least: float = -math.inf
    """Smallest allowed value."""
    most: float = math.inf
    """Largest allowed value."""
    above: float = -math.inf
    """Bound that every value must exceed."""
    below: float = math.inf
    """Bound that every value must stay below."""
    note: str = ""
    """Meaning of a special value of the range, such as `1 means no cut`; may be empty."""

    def hold(self, value: float) -> bool:
        """Whether a number is allowed."""
        return self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        """`at least 0 and below 1`; empty where every finite number is allowed."""
        if math.isfinite(self.least) and math.isfinite(self.most):
            return f"between {_shown(self.least)} and {_shown(self.most)}"
        bounds = {"at least": self.least, "at most": self.most, "above": self.above, "below": self.below}
        return " and ".join(f"{word} {_shown(bound)}" for word, bound in bounds.items() if math.isfinite(bound))


def _shown(bound: float) -> str:
    """A bound for a message: as 0.5 or 1e-06, and large whole numbers in full."""
    is_large_whole = math.isfinite(bound) and abs(bound) >= 1e6 and bound == int(bound)
    return f"{bound:,.0f}" if is_large_whole else f"{bound:g}"


COUNT = Limits(least=1)
"""Limits of a count, at least 1; help texts leave them out."""
SEED = Limits(least=0, most=2**32 - 1)
"""Limits of a seed: those of NumPy and scikit-learn, which have the least of all libraries."""


@dataclass(frozen=True)
class Setting:
    """One setting, with all the information that flags, files and errors give about it."""

    name: str
    """Name of the field and of the keyword in Python."""
    kind: type
    """`str`, `int`, `float` or `bool`."""
    default: Any
    """Default value; None only if the setting accepts None."""
    text: str
    """Description; `--help` and configuration files show its first sentence, the API reference shows all of it."""
    flag: str
    """Name of the flag and of the key in files, without leading dashes."""
    limits: Limits | None
    """Range of a number; None for every other kind."""
    choices: tuple[str, ...]
    """Allowed words; empty if the setting is no choice among words."""
    family: tuple[str, ...]
    """Names that a value can be composed of, such as a sum of losses or a chain of views."""
    metavar: str | None
    """Placeholder of the value in `--help`."""
    none: str
    """Meaning of None, in words; may be empty."""

    def check(self, value: Any) -> Any:
        """The value as plain `str`, `int`, `float` or `bool`.

        Raise `InputError` for a value of another kind, one that is not among the choices, or one outside the limits.
        """
        if value is None and self.default is None:
            return None
        if self.choices and value not in self.choices:
            raise unknown(self.flag, value, self.choices)
        self._check_kind(value)
        if self.limits is not None and not self.limits.hold(value):
            finite = "finite and " if math.isinf(value) else ""
            note = f" ({self.limits.note})" if self.limits.note else ""
            raise InputError(f"{self.flag} must be {finite}{self.limits}{note}; found {_shown(value)}.")
        return self.kind(value)

    def _check_kind(self, value: Any) -> None:
        accepted, words = KINDS[self.kind]
        is_truth = isinstance(value, bool) or type(value).__name__ in (
            "bool",
            "bool_",
        )  # NumPy's, which is not imported
        if is_truth if self.kind is bool else isinstance(value, accepted) and not is_truth:
            return
        found = "None" if value is None else f"{value!r:.40} ({type(value).__name__})"
        none = " or None" if self.default is None else ""
        raise InputError(f"{self.flag} must be {words}{none}; found {found}. Give for example {self._example!r}.")

    @property
    def _example(self) -> Any:
        """A value of the right kind."""
        if self.default is not None:
            return self.default
        return {str: "name", bool: True, int: 1, float: 0.5}[self.kind]

    @property
    def sentence(self) -> str:
        """The first sentence, with the limits and without its full stop."""
        first = self.text.split(". ")[0].removesuffix(".")
        if self.limits is None or (self.kind is int and self.limits == COUNT):
            return first
        said = "; ".join(filter(None, (str(self.limits), self.limits.note)))
        return f"{first} ({said})" if said else first

    @property
    def description(self) -> str:
        """All sentences, with the limits and the meaning of None."""
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
    """A dataclass field that declares a setting, see `Setting`; `flag` is given only if it differs from the name."""
    known = {"text": text, "limits": limits, "choices": choices, "family": family}
    return field(default=default, metadata=known | {"flag": flag, "metavar": metavar, "none": none})


def declared(record: type) -> dict[str, Setting]:
    """Settings that a record declares, by name and in their order."""
    found = {}
    for one in fields(record):
        kinds = [kind for kind in get_args(one.type) or (one.type,) if kind is not type(None)]
        known = dict(one.metadata) | {"flag": one.metadata["flag"] or one.name.replace("_", "-")}
        found[one.name] = Setting(name=one.name, kind=kinds[0], default=one.default, **known)
    return found


def described(settings: dict[str, Setting]) -> str:
    """Section of a docstring that describes each setting, in numpydoc style."""
    lines = ["Attributes", "----------"]
    for one in settings.values():
        kind = f"{{{', '.join(map(repr, one.choices))}}}" if one.choices else one.kind.__name__
        optional = " or None" if one.default is None else ""
        lines.append(f"{one.name} : {kind}{optional}, default {one.default!r}")
        lines += textwrap.wrap(one.description, 112, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)
