"""Show what cosines to expect on DATA, before any training."""

from pathlib import Path

import click

from geneae.cli.flags import MATRIX_OPTIONS, PATH, STREAM, VALUE_OPTIONS, options
from geneae.cli.help import Grouped
from geneae.cli.printing import say


@click.command(cls=Grouped, example="inspect data.h5ad --cosine 0.4")
@click.argument("data", type=PATH)
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
    data: str,
    cosine: float | None,
    seed: int,
    as_json: bool,
    layer: str | None,
    use_raw: bool,
    stream: str,
    state: str,
    features: str,
) -> None:
    """Show what cosines to expect on DATA, before any training.

    Prints trivial cosines, PCA, the noise ceiling, and whether there is anything to learn about individual profiles.
    """
    from dataclasses import asdict

    from geneae.cli.tables import inspection_table
    from geneae.data.reading import check_unchanged, read_states
    from geneae.data.source import Source
    from geneae.evaluation.inspection import inspect_profiles
    from geneae.folders.outputs import to_json

    profiles = Source(data, layer, use_raw, stream, state, features).read()
    inspection = inspect_profiles(profiles, seed, cosine)
    matrices = read_states(Path(data))
    check_unchanged(profiles)
    if as_json:
        say(*to_json(asdict(inspection) | {"matrices": matrices}).split("\n"))
        return
    say(profiles.describe())
    for note in profiles.notes.values():
        say(f"Note: {note}")
    for place, state in (matrices if len(matrices) > 1 else {}).items():
        say(f"  {place}: {state}")
    say(*inspection_table(inspection).split("\n"))
    say(inspection.verdict)
