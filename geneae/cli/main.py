"""The `geneae` command: finds its subcommands by their files, and reports errors and signals.

Each command imports what it needs when it runs, so that `--help` is fast.
"""

import atexit
import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from geneae import __version__
from geneae.cli import commands
from geneae.cli.printing import complain, open_closed_streams, outlets
from geneae.settings.errors import InputError, Interrupted, listened
from geneae.settings.faults import fault_of, loading_fault, refusal_of
from geneae.settings.text import escaped

FOLDER = Path(commands.__file__).parent
COLLECTED_AFTER = 5_000  # new objects; Python's 700 have it look through all loaded modules again and again


class Commands(click.Group):
    """The commands in `geneae.cli.commands`, each imported when it is needed.

    Input errors print only their message and exit with code 2, and so do paths that the system refuses; a full disk and
    other errors of the system print one sentence and exit with code 1; SIGINT, SIGTERM and SIGHUP print how to resume
    and exit with codes 130, 143 and 129. A closed pipe at standard output is no error: the command completes its work.
    """

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command line; an output that cannot be printed is reported when everything else is done.

        The command line of the process itself, when nothing is passed, ends the process.
        """
        if args or options:
            return self._run(*args, **options)
        open_closed_streams()
        gc.set_threshold(COLLECTED_AFTER, *gc.get_threshold()[1:])
        try:
            return self._run()
        except SystemExit as end:
            _leave(end.code)
            raise

    def _run(self, *args: Any, **options: Any) -> Any:
        with outlets() as unprinted:
            try:
                return super().main(*args, **options)
            except SystemExit as end:
                if end.code or (fault := unprinted()) is None:
                    raise
                complain(f"Error: standard output could not be written: {fault_of(fault) or refusal_of(fault)}")
                raise SystemExit(1) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the files, with - instead of _."""
        names = os.listdir(FOLDER)  # `glob` would pass over an error
        return sorted(name[:-3].replace("_", "-") for name in names if name.endswith(".py") and name[0] != "_")

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
        """Run a command and report signals, input errors and errors of the system."""
        if not set(ctx.args) & set(ctx.help_option_names) and (fault := loading_fault()) is not None:
            complain(f"Error: {fault}")
            raise click.exceptions.Exit(1)
        with _said_once():
            try:
                with _stops_raise():
                    return super().invoke(ctx)
            except Interrupted as stop:
                name = signal.Signals(stop.number).name
                said, code = [f"Stopped by {name}. {stop.message or 'Nothing was written.'}"], 128 + stop.number
            except click.UsageError as error:
                raise click.UsageError(escaped(error.format_message()), error.ctx) from None
            except Exception as error:
                said, code = _report(error)
            gc.collect()  # closes files that the error has kept open, while nothing more is said about them
        _complain(*said)
        raise click.exceptions.Exit(code)


def _leave(code: Any) -> None:
    """End the process without taking apart all that it has loaded, which takes a second; what was registered for the
    end is done. Does nothing while other threads run, or where the output cannot be flushed."""
    if threading.active_count() > 1 or not isinstance(code, int | None):
        return
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def _report(error: Exception) -> tuple[list[str], int]:
    """Lines about an error, and the exit code; an error that is neither of the input nor of the system is raised."""
    if (fault := fault_of(error)) is not None:
        return [f"Error: {fault}", *getattr(error, "__notes__", ())], 1
    if isinstance(error, InputError | OSError):
        return [f"Error: {error if isinstance(error, InputError) else refusal_of(error)}"], 2
    if isinstance(error, UnicodeEncodeError) and error.encoding.startswith("utf"):
        return [f"Error: the name '{error.object:.200}' is not UTF-8 text, as is needed here. Rename it."], 2
    raise error


@contextlib.contextmanager
def _said_once() -> Iterator[None]:
    """Keep libraries from printing a traceback for every file that they cannot close on a full disk, and threads for
    what they cannot load with too little memory."""
    before = sys.excepthook, sys.unraisablehook
    of_threads = threading.excepthook
    threading.excepthook = lambda found: None if fault_of(found.exc_value) else of_threads(found)
    sys.excepthook = lambda kind, error, trace: None if fault_of(error) else before[0](kind, error, trace)
    sys.unraisablehook = lambda found: None if fault_of(found.exc_value) else before[1](found)
    try:
        yield
    finally:
        sys.excepthook, sys.unraisablehook = before
        threading.excepthook = of_threads


def _file(name: str) -> Path:
    return FOLDER / f"{name.replace('-', '_')}.py"


def _complain(*lines: str) -> None:
    try:
        from geneae.cli.steps import is_first  # with all settings, which --help does not need

        is_told = is_first()
    except (ImportError, MemoryError):  # too little memory to ask: better said twice than not at all
        is_told = True
    if is_told:
        complain("\n".join(lines))


@contextlib.contextmanager
def _stops_raise() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP raise `Interrupted`, so that half-written files are removed."""

    def stop(number: int, _: object) -> None:
        raise Interrupted(number)

    before = {number: signal.signal(number, stop) for number in listened()}
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
