"""Flags of a fit as a TOML file: written into every run folder, and given back by `--config`."""

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from geneae.settings.errors import InputError, unknown
from geneae.settings.settings import Settings

FILE = "settings.toml"
SHORT = {"batch_key": "batch", "n_latent": "latent", "n_splits": "splits", "use_raw": "raw"}
"""Flags that are not called as their field."""


def flag_of(field: str) -> str:
    """The flag of a field of `Settings`, without its dashes: `n_latent` is `latent`, `batch_size` is `batch-size`."""
    return SHORT.get(field, field.replace("_", "-"))


def to_toml(flags: Mapping[str, Any]) -> str:
    """Flags, one a line; those that are None are left out, as on a command line."""
    lines = [f"{flag} = {_value(value)}" for flag, value in flags.items() if value is not None]
    head = "# The flags of this fit; repeat it by: geneae fit DATA --config settings.toml"
    return "\n".join([head, *lines]) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace(
            "\x7f", "\\u007f"
        )  # a string of JSON is one of TOML, but DEL
    return repr(value)


def flags_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """By flag, what a fit was made with: its settings, the matrix that was read, and the column of its labels.

    Parameters
    ----------
    config
        What `config.json` of a model folder holds.
    """
    known = Settings.__dataclass_fields__
    flags = {flag_of(name): value for name, value in config["settings"].items() if name in known}
    location = str(config["data"]["location"])
    if location.startswith("layers['"):
        flags["layer"] = location.removeprefix("layers['").removesuffix("']")
    if location == "raw":
        flags["raw"] = True
    return flags | {"color": config.get("color")}


def read_flags(path: Path, flags: Iterable[str]) -> dict[str, Any]:
    """Values by flag from a TOML file; a flag that there is not is refused.

    Parameters
    ----------
    path
        Of the file.
    flags
        Those of the command, without dashes. An underscore in the file is as good as a hyphen.

    Returns
    -------
    Texts, as on a command line, or lists of them, so that each flag checks them as it does there.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--config {path} cannot be read: {error.strerror}. Give a TOML file of flags.") from error
    except ValueError as error:
        raise InputError(f'--config {path} is not TOML ({error}). Write one flag a line: loss = "cosine".') from error
    flags, found = list(flags), {}
    for key, value in table.items():
        flag = key.replace("_", "-")
        if flag not in flags:
            raise unknown(f"flag in {path}:", key, flags)
        if isinstance(value, dict):
            raise InputError(f"{path}: {key} must be one value, or a list of them; found a table. Write {key} = ...")
        found[flag] = [str(one) for one in value] if isinstance(value, list) else str(value)
    return found
