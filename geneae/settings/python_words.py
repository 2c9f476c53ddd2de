"""Messages in the words of Python: `use_raw=True` in place of `--raw`."""

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from geneae.settings.declaration import Setting
from geneae.settings.errors import InputError
from geneae.settings.settings import METRIC_SETTINGS, RUN_OPTIONS, SETTINGS, TRANSFER_SETTINGS

P = ParamSpec("P")
T = TypeVar("T")

BY_FLAG: dict[str, Setting] = {
    one.flag: one for several in (TRANSFER_SETTINGS, METRIC_SETTINGS, RUN_OPTIONS, SETTINGS) for one in several.values()
}
"""Settings by flag; where several records have a flag, that of a fit."""
PLACEHOLDERS = ("KEY", "NAME", "FOLDER", "NUMBER")
LINKS = ("or", "and", "reads")
"""Words that follow a flag and are no name of a layer."""
SWITCHES = ("overwrite", "resume")
"""Flags without a value that are no settings."""
NAMED = ("layer", "gene-names", "modality")
"""Flags whose values are names in data."""


def in_python(message: str) -> str:
    """A message with keywords in place of flags, and with their values as Python writes them."""
    return re.sub(r"--([a-z][a-z-]*[a-z])(?: ([\w.+:*-]*\w))?", _keyword, message)


def _keyword(found: re.Match[str]) -> str:
    flag, word = found[1], found[2]
    one = BY_FLAG.get(flag)
    name = flag.replace("-", "_") if one is None else one.name
    if flag in SWITCHES or (one is not None and one.kind is bool):
        return f"{name}=True" + (f" {word}" if word else "")
    if word is None:
        return name
    if word in PLACEHOLDERS:
        return f"{name}={word}"
    if re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", word):
        return f"{name}={word}"
    is_value = one is not None and (word in one.choices or word.split("+")[0] in one.family)
    if is_value or (flag in NAMED and word not in LINKS):
        return f"{name}={word!r}"
    return f"{name} {word}"


def speaks_python(function: Callable[P, T]) -> Callable[P, T]:
    """The same function; its input errors name keywords, where those of the command line name flags."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except InputError as error:
            error.args = (in_python(str(error)), *error.args[1:])
            raise

    return call
