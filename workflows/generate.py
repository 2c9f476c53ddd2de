"""Generate the parts of the workflow's schema and configuration that list the settings of a fit.

Run it after changing a setting, or adding a loss or view.

    .venv/bin/python workflows/generate.py

Everything below the line `MARK` of the schema and of the configuration is made from the declarations in
`geneae/settings/settings.py`; what stands above it is written by hand.
"""

import json
import math
import textwrap
from pathlib import Path
from typing import Any

import yaml

from geneae.settings.declaration import Limits, Setting
from geneae.settings.settings import RUN_OPTIONS, SETTINGS

HERE = Path(__file__).parent
MARK = "# Generated from here on: renew it with .venv/bin/python workflows/generate.py\n"
GRID = ("loss", "cut", "seed")  # varied over the grid, as lists
SHARED = "split_seed"  # written by hand; without a shared value, each seed would have its own split
OF_DATA = ("layer", "use_raw", "gene_names", "modality", "color")  # keys of each data set
GIVEN = "epochs"  # not commented out, because YAML reads a key with only comments below it as null
WIDTH, COLUMN = 120, 32  # line width of the configuration, and column where explanations begin


def in_settings() -> list[Setting]:
    """Settings under the key `settings`: every other flag of `geneae fit` that does not concern its output."""
    return [one for name, one in (SETTINGS | RUN_OPTIONS).items() if name not in (*GRID, SHARED, *OF_DATA)]


def pattern(one: Setting) -> str:
    """Regular expression for values composed of the names of a family."""
    names = "|".join(one.family)
    if one.name == "loss":
        term = rf"([0-9.]+(e-?[0-9]+)?[*])?({names})"
        return f"^{term}([+]{term})*$"
    if one.name == "views":
        view = rf"({names})(:[0-9.]+)?"
        return f"^(auto|{view}([+]{view})*)$"
    first, *others = one.family  # objectives
    names = "|".join(others)
    return f"^({first}|({names})([+]{first})?|{first}[+]({names}))$"


def bounds(limits: Limits) -> dict[str, float]:
    """Limits as JSON Schema keywords."""
    found = {
        "minimum": limits.least,
        "exclusiveMinimum": limits.above,
        "maximum": limits.most,
        "exclusiveMaximum": limits.below,
    }
    return {word: int(bound) if bound == int(bound) else bound for word, bound in found.items() if math.isfinite(bound)}


def rule(one: Setting) -> dict[str, Any]:
    """JSON Schema rule for a value."""
    if one.choices:  # unquoted, YAML reads 32 as a number and yes as true
        words = [word for choice in one.choices for word in (yaml.safe_load(choice), choice)]
        return {"enum": [*dict.fromkeys(words), *([None] if one.default is None else [])]}
    if one.family:
        return {"description": one.sentence, "type": "string", "pattern": pattern(one)}
    kind = {str: "string", int: "integer", float: "number", bool: "boolean"}[one.kind]
    return {"type": [kind, "null"] if one.default is None else kind} | (bounds(one.limits) if one.limits else {})


def schema() -> str:
    """Rules for the keys of the configuration that are flags of `geneae fit`, as YAML."""
    known = SETTINGS | RUN_OPTIONS
    rules: dict[str, Any] = {known[name].flag: rule(known[name]) for name in (*GRID, *OF_DATA)}
    properties = {one.flag: rule(one) for one in in_settings()}
    rules["settings"] = {"type": "object", "additionalProperties": False, "properties": properties}
    return yaml.safe_dump({"$defs": rules}, sort_keys=False, default_flow_style=None, width=math.inf)


def explained(one: Setting) -> str:
    """Line of the configuration: key with its default, commented out, and description."""
    key = one.flag if yaml.safe_load(one.flag) == one.flag else json.dumps(one.flag)
    value = one.default if isinstance(one.default, str) else json.dumps(one.default)
    begin = f"  {key}: {value}" if one.name == GIVEN else f"  # {key}: {value}"
    text = one.sentence + (f" [{', '.join(one.choices)}]" if one.choices else "")
    text += f"; null: {one.none}" if one.none else ""
    first, *more = textwrap.wrap(text, WIDTH - COLUMN - 2, break_on_hyphens=False)
    return (
        "\n".join([f"{begin.ljust(COLUMN)}# {first}", *(f"  #{' ' * (COLUMN - 3)}#   {line}" for line in more)]) + "\n"
    )


def config() -> str:
    """The key `settings` of the configuration."""
    return "settings:\n" + "".join(map(explained, in_settings()))


GENERATED = {HERE / "schemas" / "config.schema.yaml": schema, HERE / "config" / "config.yaml": config}


def renewed(path: Path) -> str:
    """Text of a file with its generated part renewed."""
    by_hand, mark, _ = path.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise SystemExit(f"{path} has no line '{MARK.strip()}'. Put it where the generated part begins.")
    return by_hand + mark + GENERATED[path]()


if __name__ == "__main__":
    for file in GENERATED:
        file.write_text(renewed(file), encoding="utf-8")
        print(f"Written to {file}")
