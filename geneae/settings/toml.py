"""Flags of a fit as a TOML file: written into every run folder, and given back by `--config`."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from geneae.settings.errors import InputError, unknown
from geneae.settings.settings import RUN_OPTIONS, SETTINGS

FILE = "settings.toml"
HEAD = "# The flags of this fit; repeat it by: geneae fit DATA --config settings.toml"


def to_toml(flags: Mapping[str, Any]) -> str:
    """Flags, one a line; those that are None are left out, as on a command line."""
    return f"{HEAD}\n{tomli_w.dumps({flag: value for flag, value in flags.items() if value is not None})}"


def flags_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """By flag, what a fit was made with: its settings, the matrix that was read, and the column of its labels.

    Parameters
    ----------
    config
        What `config.json` of a model folder holds.
    """
    chosen = {SETTINGS[name].flag: value for name, value in config["settings"].items() if name in SETTINGS}
    location = str(config["data"]["location"])
    run: dict[str, Any] = {"color": config.get("color"), "use_raw": True if location == "raw" else None}
    if location.startswith("layers['"):
        run["layer"] = location.removeprefix("layers['").removesuffix("']")
    return chosen | {one.flag: run[name] for name, one in RUN_OPTIONS.items() if name in run}


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
