"""Show what cosines to expect on DATA, before any training."""

import click

from geneae.cli.flags import DATA, MATRIX_OPTIONS, STREAM, VALUE_OPTIONS, options
from geneae.cli.help import Grouped
from geneae.cli.printing import say
from geneae.cli.steps import say_what_is_read
from geneae.settings.text import sentences_of


@click.command(cls=Grouped, example="inspect data.h5ad --cosine 0.4")
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
@options(*MATRIX_OPTIONS, *VALUE_OPTIONS, STREAM)
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
    state: str,
    features: str,
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

    source = Source(data, layer, use_raw, stream, state, features, gene_names, modality)
    profiles = source.read()
    inspection = inspect_profiles(profiles, seed, cosine)
    matrices = source.states()
    check_unchanged(profiles)
    if as_json:
        say(*to_json(asdict(inspection) | {"matrices": matrices}).split("\n"))
        return
    say_what_is_read(profiles, say)
    for place, held in (matrices if len(matrices) > 1 else {}).items():
        say(f"  {place}: {held}")
    say(*inspection_table(inspection).split("\n"))
    say(*sentences_of(inspection.verdict))  # a line each; the answer about --cosine is the last
