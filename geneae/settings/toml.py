"""Flags of a fit as a TOML file, which every run folder holds and `--config` reads."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from geneae.settings.errors import InputError, unknown
from geneae.settings.settings import RUN_OPTIONS, SETTINGS

FILE = "settings.toml"
HEAD = "# Flags of this fit; repeat it with: geneae fit DATA --config settings.toml"


def to_toml(flags: Mapping[str, Any]) -> str:
    """TOML text with one flag per line; flags that are None are left out, as on a command line."""
    return f"{HEAD}\n{tomli_w.dumps({flag: value for flag, value in flags.items() if value is not None})}"


def flags_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a fit by flag: its settings, the matrix that was read, and the column for `--color`.

    Parameters
    ----------
    config
        Content of `config.json` in a model folder.
    """
    chosen = {SETTINGS[name].flag: value for name, value in config["settings"].items() if name in SETTINGS}
    location = str(config["data"]["location"])
    run: dict[str, Any] = {"color": config.get("color"), "use_raw": True if location == "raw" else None}
    if location.startswith("layers['"):
        run["layer"] = location.removeprefix("layers['").removesuffix("']")
    return chosen | {one.flag: run[name] for name, one in RUN_OPTIONS.items() if name in run}


def read_flags(path: Path, flags: Iterable[str]) -> dict[str, Any]:
    """Values by flag from a TOML file; an unknown flag is refused.

    Parameters
    ----------
    path
        TOML file.
    flags
        Flags of the command, without leading dashes. The file may write underscores instead of hyphens.

    Returns
    -------
    Strings, as on a command line, or lists of strings, so that each flag checks them as it does there.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--config {path} cannot be read: {error.strerror}. Give a TOML file of flags.") from error
    except ValueError as error:
        raise InputError(f'--config {path} is not TOML ({error}). Write one flag per line: loss = "cosine".') from error
    flags, found = list(flags), {}
    for key, value in table.items():
        flag = key.replace("_", "-")
        if flag not in flags:
            raise unknown(f"flag in {path}:", key, flags)
        if isinstance(value, dict):
            raise InputError(f"{path}: {key} must be one value, or a list of values; found a table. Write {key} = ...")
        found[flag] = [str(one) for one in value] if isinstance(value, list) else str(value)
    return found
