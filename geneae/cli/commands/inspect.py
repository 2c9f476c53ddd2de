"""Show what cosines to expect on DATA, before any training."""

import click

from geneae.cli.flags import DATA, MATRIX_OPTIONS, STREAM, options
from geneae.cli.printing import say


@click.command()
@DATA
@click.option(
    "--cosine",
    type=click.FloatRange(-1, 1),
    help="Cosine reported elsewhere, -1 to 1, to compare with these numbers.  [default: none]",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Seed of the split, the PCA bases and the count splits, an integer of at least 0.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object.")
@options(*MATRIX_OPTIONS, STREAM)
def command(
    data: tuple[str, ...],
    cosine: float | None,
    seed: int,
    as_json: bool,
    layer: str | None,
    use_raw: bool,
    stream: str,
    gene_names: str | None,
    modality: str | None,
) -> None:
    """Show what cosines to expect on DATA, before any training.

    Prints trivial cosines, PCA, the noise ceiling, and whether there is anything to learn about individual profiles.
    """
    from dataclasses import asdict

    from geneae.cli.tables import inspection_table
    from geneae.data.reading import check_unchanged
    from geneae.data.source import Source
    from geneae.evaluation.inspection import inspect_profiles
    from geneae.folders.outputs import to_json

    profiles = Source(data, layer, use_raw, stream, gene_names, modality).read()
    inspection = inspect_profiles(profiles, seed, cosine)
    check_unchanged(profiles)
    if as_json:
        say(*to_json(asdict(inspection)).split("\n"))
        return
    say(profiles.describe(), *profiles.said)
    say(*inspection_table(inspection).split("\n"))
    say(inspection.verdict)
