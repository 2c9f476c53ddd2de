"""Write what the workflow knows of the settings of a fit. Run it after a change to a setting, or a new loss or view.

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
GRID = ("loss", "cut", "seed")  # the grid is made of lists of them
SHARED = "split_seed"  # a seed, written by hand: with none each seed would have a split of its own
OF_DATA = ("layer", "use_raw", "color")  # keys of each data set
GIVEN = "epochs"  # not a comment, as YAML takes a key with nothing but comments below it for null
WIDTH, COLUMN = 120, 32  # of a line of the configuration, and where its explanations begin


def in_settings() -> list[Setting]:
    """What stands below the key `settings`: every other flag of `geneae fit` that is not about its output."""
    return [one for name, one in (SETTINGS | RUN_OPTIONS).items() if name not in (*GRID, SHARED, *OF_DATA)]


def pattern(one: Setting) -> str:
    """Regular expression of what may be composed of the names of a family."""
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
    """Limits in the words of JSON Schema."""
    found = {
        "minimum": limits.least,
        "exclusiveMinimum": limits.above,
        "maximum": limits.most,
        "exclusiveMaximum": limits.below,
    }
    return {word: int(bound) if bound == int(bound) else bound for word, bound in found.items() if math.isfinite(bound)}


def rule(one: Setting) -> dict[str, Any]:
    """What the schema asks of a value."""
    if one.choices:  # YAML takes 32 for a number and yes for true where there are no quotes
        words = [word for choice in one.choices for word in (yaml.safe_load(choice), choice)]
        return {"enum": [*dict.fromkeys(words), *([None] if one.default is None else [])]}
    if one.family:
        return {"type": "string", "pattern": pattern(one)}
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
    """A key of the configuration with its default, commented out, and what it says of itself."""
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
    """A file with its generated part as it has to be now."""
    by_hand, mark, _ = path.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise SystemExit(f"{path} has no line '{MARK.strip()}'. Put it where the generated part begins.")
    return by_hand + mark + GENERATED[path]()


if __name__ == "__main__":
    for file in GENERATED:
        file.write_text(renewed(file), encoding="utf-8")
        print(f"Written to {file}")
