"""`geneae inspect`."""

import click

from geneae.cli.flags import MATRIX_OPTIONS, STREAM, options


@click.command()
@click.argument("data", type=click.Path())
@click.option(
    "--cosine",
    type=click.FloatRange(-1, 1),
    help="A cosine that somebody has reached, -1 to 1, to be put into its place.  [default: none]",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of split, bases and count splits, a whole number."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@options(*MATRIX_OPTIONS, STREAM)
def command(
    data: str, cosine: float | None, seed: int, as_json: bool, layer: str | None, use_raw: bool, stream: str
) -> None:
    """Say what cosine the profiles of DATA can give, before any training.

    Trivial cosines, PCA, the noise ceiling, and whether there is anything to learn per profile.
    """
    from dataclasses import asdict

    from geneae.cli.tables import inspection_table
    from geneae.data.source import Source
    from geneae.evaluation.inspection import inspect_profiles
    from geneae.folders.outputs import to_json

    profiles = Source(data, layer, use_raw, stream).read()
    inspection = inspect_profiles(profiles, seed, cosine)
    if as_json:
        click.echo(to_json(asdict(inspection)))
        return
    click.echo(profiles.describe())
    click.echo(inspection_table(inspection))
    click.echo(inspection.verdict)
