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
    VERBOSE,
    options,
)
from geneae.cli.help import Grouped
from geneae.cli.printing import noting, say_unless
from geneae.cli.steps import match
from geneae.settings.errors import InputError
from geneae.settings.text import sentences_of

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
@options(*MATRIX_OPTIONS, *VALUE_OPTIONS, STREAM, MIN_OVERLAP, DEPTH_RATIO, DEPTH_BY, OVERWRITE, VERBOSE, QUIET)
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
    verbose: bool,
    quiet: bool,
) -> None:
    """Evaluate MODEL and its baselines on the profiles of DATA.

    MODEL is a folder of geneae fit, or a zip of geneae share. Profiles of the fit are known by their values and names:
    training, validation, test and new profiles are reported separately. Writes a folder with a report and tables.
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
    from geneae.evaluation.headline import main_numbers
    from geneae.evaluation.reconstruction import verdict
    from geneae.folders.embedding import depth_groups
    from geneae.folders.manifest import REPORT
    from geneae.folders.model import load_model, read_split
    from geneae.folders.run import run_of_evaluation, write_tables
    from geneae.report import write_report

    loaded = load_model(Path(model))
    loaded.check_decoder()
    heard: list[str] = []  # the report says it, too
    say = noting(say_unless(quiet), heard)
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
    umap = _umap(loaded, profiles, expression, depths)
    check_unchanged(profiles)
    said = verdict(evaluation, present[-1])
    run = run_of_evaluation(loaded, evaluation, profiles, split, umap, heard, Path(output).name, command_line())
    with new_folder(Path(output), overwrite) as partial:
        tables = run.tables()
        write_tables(partial, {name: tables[name] for name in ("profiles", "metrics", "umap") if name in tables})
        write_report(partial / REPORT, [run], said)
    if verbose:
        settings = loaded.config["settings"]
        for table in (metrics_table(evaluation, present), *latent_tables(evaluation, settings, present)):
            say(*table.split("\n"))
    say(main_numbers(evaluation, present[-1]))
    say(said if verbose else sentences_of(said)[0])
    say(f"Report: {Path(output) / REPORT}, with all splits, baselines and metrics")


def _evaluated(
    model: "Model",
    profiles: "Profiles",
    expression: "Expression",
    split: "pd.Series",
    depths: "list[QueryDepth]",
    last: str,
) -> "Evaluation":
    """The evaluation of all profiles at their depths, and of those of the last split from fewer molecules.

    Profiles that the fit was judged by stand alone, as they did there: on the data of the fit they get the same random
    halves, and so the same numbers.
    """
    import numpy as np
    import pandas as pd

    from geneae.evaluation.depth import judge_depths
    from geneae.evaluation.reconstruction import evaluate
    from geneae.evaluation.records import JUDGED_BY_FIT, joined
    from geneae.models.query_depth import ratios_of

    ratios = ratios_of(depths, expression.n_profiles) if depths else None
    is_judged = split.isin(JUDGED_BY_FIT).to_numpy()
    parts = [rows for rows in (np.flatnonzero(is_judged), np.flatnonzero(~is_judged)) if len(rows)]
    evaluation = joined(
        [
            evaluate(
                model,
                expression.take(rows) if len(parts) > 1 else expression,
                profiles.names[rows],
                split.iloc[rows],
                fit_scales=False,
                ratios=None if ratios is None else ratios[rows],
            )
            for rows in parts
        ],
        parts,
    )
    if evaluation.metrics.empty:
        raise InputError(
            f"no profile of {profiles.source} has a value in the {len(model.preprocess.genes):,} genes of the model, "
            "so that there is nothing to evaluate. Name the matrix to read with --layer or --raw."
        )
    if len(depths) != 1:  # several depths have no common table of shares of their molecules
        return evaluation
    some = expression.take(np.flatnonzero(split == last))
    thinned = judge_depths(model.at(depths[0].ratio), some, last, int(model.config["seed"]))
    tables = [table for table in (evaluation.metrics, thinned) if len(table)]  # too few molecules give none
    return replace(evaluation, metrics=pd.concat(tables, ignore_index=True))


def _umap(
    model: "Model", profiles: "Profiles", expression: "Expression", depths: "list[QueryDepth]"
) -> "pd.DataFrame | None":
    """`umap.csv` of the profiles with latents; None for too few of them."""
    import numpy as np

    from geneae.evaluation.umap import LEAST_UMAP, umap_of
    from geneae.models.query_depth import ratios_of

    latent, is_blank = model.latent_and_blank(expression, ratios_of(depths, expression.n_profiles) if depths else None)
    rows = np.flatnonzero(~is_blank & np.isfinite(latent).all(1))
    if len(rows) < LEAST_UMAP:
        return None
    umap = umap_of(profiles.names[rows], latent[rows], int(model.config["seed"]))
    rows = rows[umap.pop("row")]
    return umap.assign(molecules=expression.totals[rows]) if model.preprocess.state == "counts" else umap
