"""The flags of the commands: names, units, defaults and help texts.

Flags of a fit are made from the declarations in `geneae.settings.settings`.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import click

from geneae.settings.declaration import Setting
from geneae.settings.errors import InputError
from geneae.settings.halves import HALVES_SETTINGS
from geneae.settings.settings import METRIC_SETTINGS, RUN_OPTIONS, SETTINGS, TRANSFER_SETTINGS


class NamedPath(click.Path):
    """A path of a file or folder; an empty text, which would be the current folder, is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path as it was given."""
        if not str(value).strip():
            name = (
                "a path"
                if param is None
                else param.human_readable_name
                if "-" not in param.opts[-1]
                else param.opts[-1]
            )
            raise InputError(
                f"{name} must name a file or folder; found an empty text. Check the variables of your script."
            )
        return super().convert(value, param, ctx)


PATH = NamedPath()
DATA = click.argument("data", nargs=-1, required=True, type=PATH)
"""The input of a command: a file, or several that are read as one."""


@cache
def option(name: str) -> Callable[[Any], Any]:
    """The flag of a field of `Settings` or `RunOptions`, with its default."""
    return _flag(SETTINGS[name] if name in SETTINGS else RUN_OPTIONS[name], is_switch=name in SETTINGS)


def _flag(one: Setting, is_switch: bool = False) -> Callable[[Any], Any]:
    """The flag of a setting; a switch also has a flag that turns it off."""
    text = f"{one.sentence}."
    if one.default is None:
        text += f"  [default: {one.none or 'none'}]"
    if one.kind is bool:
        if is_switch:  # --config may change the default; the command line overrides both values
            return click.option(
                f"--{one.flag}/--no-{one.flag}", one.name, default=one.default, show_default=True, help=text
            )
        return click.option(f"--{one.flag}", one.name, is_flag=True, help=text)
    shown = one.default is not None
    return click.option(f"--{one.flag}", one.name, default=one.default, show_default=shown, help=text, **_values(one))


def several(name: str, many: str, text: str, default: str = "", **kind: Any) -> Callable[[Any], Any]:
    """The flag of a field of `Settings` that may be given several times.

    Parameters
    ----------
    name
        Name of the field.
    many
        Name of the argument that receives the tuple of values.
    text
        Help text.
    default
        Default as shown in the help; that of the field if empty.
    kind
        Keywords of `click.option` that differ from those of the field.
    """
    one = SETTINGS[name]
    number = one.default is not None and one.kind in (int, float)
    shown = default or (f"{one.default:g}" if number else one.default or one.none)
    text = f"{text}  [default: {shown}]"
    return click.option(f"--{one.flag}", many, multiple=True, help=text, **_values(one) | kind)


def _values(one: Setting) -> dict[str, Any]:
    """Keywords of `click.option` for the values of a flag."""
    kind = click.Choice(one.choices) if one.choices else one.kind
    return {"type": kind, "metavar": one.metavar, "shell_complete": _completion(one.family) if one.family else None}


def _completion(names: tuple[str, ...]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Names that the shell offers; our own error refuses other names and suggests the nearest one."""
    return lambda _, __, begun: [name for name in names if name.startswith(begun)]


FIT_OPTIONS = tuple(map(option, SETTINGS))
OBJECTIVE, LOSS, LATENT, CUT = map(option, ("objective", "loss", "n_latent", "cut"))
RATE, DECAY = map(option, ("learning_rate", "weight_decay"))
METRIC_OPTIONS = tuple(_flag(METRIC_SETTINGS[name]) for name in ("n_components", "epsilon", "epochs", "n_neighbors"))
HALVES_OPTIONS = tuple(map(_flag, HALVES_SETTINGS.values()))
TRANSFER_OPTIONS = tuple(map(_flag, TRANSFER_SETTINGS.values()))
MATRIX_OPTIONS = tuple(map(option, ("layer", "use_raw", "gene_names", "modality")))
VALUE_OPTIONS = (option("state"), option("features"))
COLOR, STREAM, NULL, LOG = map(option, ("color", "stream", "null", "log"))


def _use_file(ctx: click.Context, _: click.Parameter, path: str | None) -> None:
    """Take defaults from a file of flags, so that flags on the command line override them."""
    if path is None:
        return
    from geneae.settings.toml import read_flags

    parameters = {flag.removeprefix("--"): one for one in ctx.command.params for flag in one.opts if flag[:2] == "--"}
    known = [flag for flag in parameters if flag not in ("config", "output")]
    found = {parameters[flag]: value for flag, value in read_flags(Path(path), known).items()}
    ctx.default_map = {
        one.name: [value] if one.multiple and isinstance(value, str) else value
        for one, value in found.items()
        if one.name
    }


CONFIG = click.option(
    "--config",
    type=PATH,
    is_eager=True,
    expose_value=False,
    callback=_use_file,
    metavar="FILE.toml",
    help="File of flags, such as settings.toml of a run folder; the command line overrides it.  [default: none]",
)
SEEDS = click.option(
    "--seeds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Runs of each configuration, with consecutive seeds.",
)
JOBS = click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Runs at a time.")
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace an existing output.")
VERBOSE = click.option("--verbose", is_flag=True, help="Print the tables and sentences of the report, too.")
QUIET = click.option("--quiet", is_flag=True, help="Print errors only.")
MIN_OVERLAP = click.option(
    "--min-overlap",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Refuse data that contain a smaller fraction of the model's genes, 0 to 1.",
)


def _check_ratio(_: click.Context, __: click.Parameter, ratio: float | None) -> float | None:
    """Refuse an impossible ratio before anything is read."""
    if ratio is not None and not 0 < ratio < float("inf"):
        raise InputError(
            f"--depth-ratio must be a number above 0; found {ratio:g}. 10 means a tenth of the molecules of the "
            "training profiles."
        )
    return ratio


DEPTH_RATIO = click.option(
    "--depth-ratio",
    type=float,
    callback=_check_ratio,
    metavar="NUMBER",
    help="Molecules of the training profiles divided by those of DATA, such as 10 for a tenth.  [default: estimated]",
)
DEPTH_BY = click.option(
    "--depth-by",
    metavar="KEY",
    help="Column of obs, such as the run; the depth is estimated for each of its values.  [default: none]",
)


def options(*several: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Decorator that adds several options, shown in the order given."""

    def add(command: Any) -> Any:
        for one in reversed(several):
            command = one(command)
        return command

    return add
