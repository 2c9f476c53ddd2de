"""Draw the report of the folder RUN again, in the colours of a column."""

from pathlib import Path

import click

from geneae.cli.flags import COLOR, OVERWRITE, PATH, QUIET, options
from geneae.cli.help import Grouped
from geneae.cli.printing import say_unless
from geneae.settings.errors import InputError


@click.command(cls=Grouped, example="report run --color cell_type")
@click.argument("run", type=PATH)
@click.option(
    "-o", "--output", type=PATH, help="File to write, ending in .html.  [default: report.html of RUN, replaced]"
)
@options(COLOR, OVERWRITE, QUIET)
def command(run: str, output: str | None, color: str | None, overwrite: bool, quiet: bool) -> None:
    """Draw the report of the folder RUN again, in the colours of a column.

    RUN is a folder of geneae fit. Nothing is fitted, and the data are not needed: columns of obs are those of
    latents.h5ad in the folder.
    """
    from geneae.folders.manifest import REPORT
    from geneae.folders.outputs import check_apart, check_new_file, new_file, replaced_file
    from geneae.report.redraw import redraw_report

    own = Path(run) / REPORT
    path = own if output is None else Path(output)
    if path.suffix != ".html":
        raise InputError(f"the output must end in .html; found '{path.name}'.")
    is_own = path.name == own.name and path.parent.resolve() == own.parent.resolve()  # a link there may lead elsewhere
    if not is_own:
        check_apart(path, run)
        check_new_file(path, overwrite)
    html = redraw_report(Path(run), color)
    with replaced_file(Path(run), own.name) if is_own else new_file(path, overwrite) as partial:
        partial.write_text(html, encoding="utf-8")
    say_unless(quiet)(f"Written to {path}.")
