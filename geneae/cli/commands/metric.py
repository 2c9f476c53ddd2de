"""Learn a cosine similarity from labels of the profiles in DATA."""

from pathlib import Path
from typing import Any

import click

from geneae.cli.flags import (
    DATA,
    MATRIX_OPTIONS,
    METRIC_OPTIONS,
    OVERWRITE,
    PATH,
    QUIET,
    VALUE_OPTIONS,
    option,
    options,
)
from geneae.cli.help import Grouped
from geneae.cli.printing import say_unless
from geneae.cli.steps import say_what_is_read
from geneae.settings.settings import MetricSettings


@click.command(cls=Grouped, example="metric data.h5ad --label cell_type -o metric")
@DATA
@click.option(
    "--label", "key", metavar="KEY", required=True, help="Column of obs; profiles with equal values become similar."
)
@click.option("-o", "--output", type=PATH, help="Folder to write.  [default: name of DATA + _metric]")
@click.option(
    "--model",
    type=PATH,
    metavar="FOLDER",
    help="Learn the metric on the latents of this model.  [default: on genes]",
)
@options(*METRIC_OPTIONS, option("validation"))
@click.option(
    "--test",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.2,
    show_default=True,
    help="Fraction of the profiles used only to evaluate the metric.",
)
@options(
    option("group"),
    option("seed"),
    *MATRIX_OPTIONS,
    *VALUE_OPTIONS,
    OVERWRITE,
    QUIET,
)
def command(
    data: tuple[str, ...],
    key: str,
    output: str | None,
    model: str | None,
    validation: float,
    test: float,
    group: str | None,
    seed: int,
    layer: str | None,
    use_raw: bool,
    gene_names: str | None,
    modality: str | None,
    state: str,
    features: str,
    overwrite: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Learn a cosine similarity from labels of the profiles in DATA.

    Profiles with the same label become similar. Compares the k-NN accuracy of the learned metric, the plain cosine and
    PCA on profiles that took no part in the learning. Writes a folder for `geneae.CosineMetric.load`.
    """
    MetricSettings(**settings, seed=seed)  # refuses impossible values before anything is read
    from geneae.data.source import Source

    source = Source(data, layer, use_raw, "no", state, features, gene_names, modality)
    folder = Path(output) if output else Path(f"{source.stem}_metric")
    from geneae.folders.outputs import check_apart, check_writable

    check_apart(folder, *data, model)
    check_writable(folder, overwrite)
    say = say_unless(quiet)
    from geneae.cli.tables import accuracy_table
    from geneae.fitting.cosine_metric import CosineMetric
    from geneae.fitting.metric_comparison import answer, judge_metric
    from geneae.folders.model import load_model

    loaded = None if model is None else load_model(Path(model))
    profiles = source.read() if loaded is None else source.read_like(loaded.location, loaded.gene_names)
    say_what_is_read(profiles, say)
    learner = CosineMetric(**settings, seed=seed)
    judged = judge_metric(learner, profiles, key, validation, test, group, loaded)
    say(judged.describe())
    say(*accuracy_table(judged.table).split("\n"))
    say(answer(judged))
    learner.save(folder, overwrite=overwrite, tables=judged.tables())
    say(f"Written to {folder}: the metric, split.csv, profiles.csv, metrics.csv.")
