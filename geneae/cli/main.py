"""The `geneae` command: it finds its commands by their files, and answers errors and signals.

What a command needs is loaded when it runs, so that `--help` answers at once.
"""

import contextlib
import pkgutil
import signal
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import click

from geneae import __version__
from geneae.cli import commands
from geneae.cli.steps import is_first
from geneae.settings.errors import InputError, Interrupted


class Commands(click.Group):
    """The commands of `geneae.cli.commands`, each loaded when it is asked for.

    Input errors are answered with their message alone and exit code 2; SIGINT and SIGTERM end with how to go on, and
    130 and 143.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the files, with - for _."""
        return sorted(found.name.replace("_", "-") for found in pkgutil.iter_modules(commands.__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a file; None where there is no such file."""
        if cmd_name not in self.list_commands(ctx):
            return None
        found: click.Command = import_module(f"{commands.__name__}.{cmd_name.replace('-', '_')}").command
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
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


def _complain(message: str) -> None:
    if is_first():
        click.echo(message, err=True)


@contextlib.contextmanager
def _stops_raise() -> Iterator[None]:
    """SIGINT and SIGTERM raise `Interrupted` inside, so that what is half-written is removed."""

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
    """Autoencoders of gene-expression profiles, judged against PCA, the mean profile and the noise ceiling.

    Start with:  geneae fit data.h5ad --loss cosine
    """
