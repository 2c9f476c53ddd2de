"""Pack the folder MODEL into one zip with checksums."""

from pathlib import Path

import click

from geneae.cli.flags import OVERWRITE, PATH, QUIET, options
from geneae.cli.help import Grouped
from geneae.cli.printing import say_unless


@click.command(cls=Grouped, example="share run --licence CC-BY-4.0 -o model.zip")
@click.argument("model", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="File to write, ending in .zip.")
@click.option("--licence", metavar="TEXT", help="Licence that the model card names.  [default: not stated]")
@options(OVERWRITE, QUIET)
def command(model: str, output: str, licence: str | None, overwrite: bool, quiet: bool) -> None:
    """Pack the folder MODEL into one zip with checksums.

    Others can use the zip as it is: geneae embed FILE.zip DATA. It contains the names of the profiles of the fit
    (profiles.csv, split.csv, umap.csv), but not latents.h5ad, in which all columns of their obs stand.
    """
    from geneae.folders.card import share_model
    from geneae.folders.outputs import check_apart, check_new_file

    check_apart(Path(output), model)
    check_new_file(Path(output), overwrite)
    names = share_model(Path(model), Path(output), licence, overwrite)
    megabytes = Path(output).stat().st_size / 1e6
    say_unless(quiet)(f"Written to {output}: {len(names)} files, {megabytes:.1f} MB.")
