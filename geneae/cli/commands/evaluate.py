"""Evaluate MODEL and its baselines on the profiles of DATA."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from geneae.cli.flags import (
    DATA,
    DEPTH_BY,
    DEPTH_RATIO,
    MATRIX_OPTIONS,
    MIN_OVERLAP,
    OVERWRITE,
    PATH,
    QUIET,
    STREAM,
    VALUE_OPTIONS,
    options,
)
from geneae.cli.help import Grouped
from geneae.cli.printing import say_unless
from geneae.cli.steps import match
from geneae.settings.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from geneae.data.preprocess import Expression
    from geneae.data.profiles import Profiles
    from geneae.evaluation.records import Evaluation
    from geneae.models.model import Model
    from geneae.models.query_depth import QueryDepth


@click.command(cls=Grouped, example="evaluate run other.h5ad -o judged")
@click.argument("model", type=PATH)
@DATA
@click.option("-o", "--output", type=PATH, required=True, help="Folder to write.")
@options(*MATRIX_OPTIONS, *VALUE_OPTIONS, STREAM, MIN_OVERLAP, DEPTH_RATIO, DEPTH_BY, OVERWRITE, QUIET)
def command(
    model: str,
    data: tuple[str, ...],
    output: str,
    layer: str | None,
    use_raw: bool,
    gene_names: str | None,
    modality: str | None,
    state: str,
    features: str,
    stream: str,
    min_overlap: float,
    depth_ratio: float | None,
    depth_by: str | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Evaluate MODEL and its baselines on the profiles of DATA.

    MODEL is a folder of geneae fit, or a zip of geneae share. Profiles of the fit are known by their values and names:
    training, validation, test and new profiles are reported separately.
    """
    from geneae.cli.steps import command_line
    from geneae.folders.outputs import check_apart, check_writable, new_folder

    check_apart(Path(output), model, *data)
    check_writable(Path(output), overwrite)
    import pandas as pd

    from geneae.cli.tables import latent_tables, metrics_table
    from geneae.data.identity import ALL, NEW
    from geneae.data.reading import check_unchanged
    from geneae.data.source import Source
    from geneae.data.splits import SPLITS
    from geneae.evaluation.reconstruction import verdict
    from geneae.folders.embedding import depth_groups
    from geneae.folders.manifest import REPORT
    from geneae.folders.model import load_model, read_split
    from geneae.folders.run import run_of_evaluation, write_tables
    from geneae.report import write_report

    loaded = load_model(Path(model))
    loaded.check_decoder()
    say = say_unless(quiet)
    source = Source(data, layer, use_raw, stream, state, features, gene_names, modality)
    profiles, expression = match(loaded, source, min_overlap, say)
    if expression.missing is not None:
        say("Genes that the data lack are compared as zeros: every number below contains that.")
    known = read_split(Path(model), loaded, profiles)
    if known is None:
        say("The model does not tell which profiles it was fitted on: some of these may be among them.")
        split = pd.Series(ALL, index=profiles.names)
    else:
        split = known.split
        say(*known.sentences(SPLITS))
    depths = loaded.depths_of(expression, depth_ratio, depth_groups(profiles, depth_by, depth_ratio))
    for depth in depths:
        say(depth.sentence())
    present = tuple(name for name in (*SPLITS, NEW, ALL) if (split == name).any())
    evaluation = _evaluated(loaded, profiles, expression, split, depths, present[-1])
    check_unchanged(profiles)
    said = verdict(evaluation, present[-1])
    run = run_of_evaluation(loaded, evaluation, profiles, split, Path(output).name, command_line())
    with new_folder(Path(output), overwrite) as partial:
        write_tables(partial, {"profiles": run.profiles, "metrics": run.metrics})
        write_report(partial / REPORT, [run], said)
    for table in (metrics_table(evaluation, present), *latent_tables(evaluation, loaded.config["settings"], present)):
        say(*table.split("\n"))
    say(said)
    say(f"Written to {output}: profiles.csv, metrics.csv, {REPORT}.")


def _evaluated(
    model: "Model",
    profiles: "Profiles",
    expression: "Expression",
    split: "pd.Series",
    depths: "list[QueryDepth]",
    last: str,
) -> "Evaluation":
    """The evaluation of all profiles at their depths, and of those of the last split from fewer molecules."""
    import numpy as np
    import pandas as pd

    from geneae.evaluation.depth import judge_depths
    from geneae.evaluation.reconstruction import evaluate
    from geneae.models.query_depth import ratios_of

    ratios = ratios_of(depths, expression.n_profiles) if depths else None
    evaluation = evaluate(model, expression, profiles.names, split, fit_scales=False, ratios=ratios)
    if evaluation.metrics.empty:
        raise InputError(
            f"no profile of {profiles.source} has a value in the {len(model.preprocess.genes):,} genes of the model, "
            "so that there is nothing to evaluate. Name the matrix to read with --layer or --raw."
        )
    if len(depths) != 1:  # several depths have no common table of shares of their molecules
        return evaluation
    some = expression.take(np.flatnonzero(split == last))
    thinned = judge_depths(model.at(depths[0].ratio), some, last, int(model.config["split_seed"]))
    tables = [table for table in (evaluation.metrics, thinned) if len(table)]  # too few molecules give none
    return replace(evaluation, metrics=pd.concat(tables, ignore_index=True))
