"""Evaluate MODEL and its baselines on the profiles of DATA."""

from pathlib import Path

import click

from geneae.cli.flags import MATRIX_OPTIONS, MIN_OVERLAP, OVERWRITE, QUIET, STREAM, options
from geneae.cli.steps import match, say_unless


@click.command()
@click.argument("model", type=click.Path())
@click.argument("data", type=click.Path())
@click.option("-o", "--output", type=click.Path(), required=True, help="Folder to write.")
@options(*MATRIX_OPTIONS, STREAM, MIN_OVERLAP, OVERWRITE, QUIET)
def command(
    model: str,
    data: str,
    output: str,
    layer: str | None,
    use_raw: bool,
    stream: str,
    min_overlap: float,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Evaluate MODEL and its baselines on the profiles of DATA.

    MODEL is a folder of geneae fit, or a zip of geneae share. If the model was fitted on DATA, training, validation
    and test profiles are reported separately.
    """
    from geneae.folders.outputs import check_writable, new_folder

    check_writable(Path(output), overwrite)
    from geneae.cli.tables import metrics_table
    from geneae.data.source import Source
    from geneae.evaluation.reconstruction import evaluate, verdict
    from geneae.folders.model import load_model, read_split
    from geneae.folders.run import own_profiles, write_tables

    loaded = load_model(Path(model))
    loaded.check_decoder()
    say = say_unless(quiet)
    profiles, expression = match(loaded, Source(data, layer, use_raw, stream), min_overlap, say)
    split = read_split(Path(model), loaded, profiles)
    evaluation = evaluate(loaded, expression, profiles.names, split, fit_scales=False)
    with new_folder(Path(output), overwrite) as partial:
        write_tables(partial, {"profiles": own_profiles(evaluation), "metrics": evaluation.metrics})
    present = tuple(name for name in ("train", "validation", "test", "all") if (split == name).any())
    say(metrics_table(evaluation, present))
    say(verdict(evaluation, present[-1]))
    say(f"Written to {output}: profiles.csv, metrics.csv.")
