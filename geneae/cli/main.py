"""The `geneae` command: finds its subcommands by their files, and reports errors and signals.

Each command imports what it needs when it runs, so that `--help` is fast.
"""

import contextlib
import signal
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from geneae import __version__
from geneae.cli import commands
from geneae.settings.errors import InputError, Interrupted

FOLDER = Path(commands.__file__).parent


class Commands(click.Group):
    """The commands in `geneae.cli.commands`, each imported when it is needed.

    Input errors print only their message and exit with code 2; SIGINT and SIGTERM print how to resume and exit with
    codes 130 and 143.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the files, with - instead of _."""
        return sorted(file.stem.replace("_", "-") for file in FOLDER.glob("[!_]*.py"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command in a file; None if there is no such file."""
        if cmd_name not in self.list_commands(ctx):
            return None
        found: click.Command = import_module(f"{commands.__name__}.{cmd_name.replace('-', '_')}").command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with the first lines of their files, so that none is imported."""
        lines = {name: _file(name).read_text(encoding="utf-8").split("\n", 1)[0] for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl([(name, line.strip('"')) for name, line in lines.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command and report input errors and signals."""
        try:
            with _stops_raise():
                return super().invoke(ctx)
        except InputError as error:
            _complain(f"Error: {error}")
            ctx.exit(2)
        except Interrupted as stop:
            name = signal.Signals(stop.number).name
            _complain(f"Stopped by {name}. {stop.message or 'Nothing was written.'}")
            ctx.exit(128 + stop.number)


def _file(name: str) -> Path:
    return FOLDER / f"{name.replace('-', '_')}.py"


def _complain(message: str) -> None:
    from geneae.cli.steps import is_first  # with all settings, which --help does not need

    if is_first():
        click.echo(message, err=True)


@contextlib.contextmanager
def _stops_raise() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise `Interrupted`, so that half-written files are removed."""

    def stop(number: int, _: object) -> None:
        raise Interrupted(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def main() -> None:
    """Train autoencoders on single-cell or bulk gene expression, and see how good their reconstructions really are.

    Every reconstruction is compared with PCA, the mean profile and, for counts, the noise ceiling.

    Start with:  geneae fit data.h5ad --loss cosine
    """
