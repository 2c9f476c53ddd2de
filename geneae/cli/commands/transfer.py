"""Label the profiles of QUERY by their nearest profiles in REFERENCE."""

from pathlib import Path
from typing import Any

import click

from geneae.cli.flags import (
    DEPTH_BY,
    DEPTH_RATIO,
    MATRIX_OPTIONS,
    MIN_OVERLAP,
    OVERWRITE,
    QUIET,
    STREAM,
    TRANSFER_OPTIONS,
    options,
)
from geneae.cli.steps import match, say_unless
from geneae.settings.settings import TransferSettings


@click.command()
@click.argument("model", type=click.Path())
@click.argument("reference", type=click.Path())
@click.argument("query", type=click.Path())
@click.option("--label", "key", metavar="KEY", required=True, help="Column of obs of REFERENCE that holds the labels.")
@click.option("-o", "--output", type=click.Path(), required=True, help="File to write: .h5ad, .csv or .parquet.")
@click.option(
    "--key-added", default="X_geneae", show_default=True, help="Key of the latents in obsm of an .h5ad output."
)
@options(*TRANSFER_OPTIONS, *MATRIX_OPTIONS, STREAM, MIN_OVERLAP, DEPTH_RATIO, DEPTH_BY, OVERWRITE, QUIET)
def command(
    model: str,
    reference: str,
    query: str,
    key: str,
    output: str,
    key_added: str,
    layer: str | None,
    use_raw: bool,
    stream: str,
    min_overlap: float,
    depth_ratio: float | None,
    depth_by: str | None,
    overwrite: bool,
    quiet: bool,
    **choices: Any,
) -> None:
    """Label the profiles of QUERY by their nearest profiles in REFERENCE.

    Both are embedded by MODEL, a folder of geneae fit or a zip of geneae share, each at its own depth; --depth-ratio
    and --depth-by are about QUERY. Writes geneae_label (empty for profiles that are unlike the reference),
    geneae_probability, geneae_distance and geneae_closest_label (with a label for the refused, too). Probabilities and
    refusals are learned from reference profiles that are thinned to the depth of the query. What the reference lacks
    is found best by a MODEL that was fitted on the query, too, which takes no labels.
    """
    settings = TransferSettings(**choices)  # refuses impossible values before anything is read
    from geneae.data.source import Source
    from geneae.evaluation.rehearsal import labelled_reference, labels_of
    from geneae.evaluation.transfer import next_step, sentences, transfer, verdict
    from geneae.folders.embedding import check_format, depth_groups, embed
    from geneae.folders.labels import LABEL_FORMATS, write_labels
    from geneae.folders.model import load_model, trained_on
    from geneae.folders.outputs import check_new_file, new_file

    check_format(Path(output), False, LABEL_FORMATS)
    check_new_file(Path(output), overwrite)
    loaded = load_model(Path(model))
    say = say_unless(quiet)
    known, in_genes = match(loaded, Source(reference, layer, use_raw, stream), min_overlap, say)
    labelled = labelled_reference(loaded, known, in_genes, key, trained_on(Path(model)))
    say(labelled.sentence())
    profiles, expression = match(loaded, Source(query, layer, use_raw, stream), min_overlap, say)
    embedded = embed(loaded, profiles, expression, depth_ratio, depth_groups(profiles, depth_by, depth_ratio))
    for depth in embedded.depths:
        say(depth.sentence())
    is_empty = profiles.scan.lengths == 0
    found = transfer(labelled, profiles.names, embedded.latent, embedded.depths, is_empty, settings)
    with new_file(Path(output), overwrite) as partial:
        write_labels(partial, query, embedded, found, key_added)
    judged = verdict(found, labels_of(profiles, key)) if key in profiles.obs.columns else []
    for line in filter(None, (*sentences(found), *judged, next_step(found))):
        say(line)
    say(f"Written to {output}: geneae_label, geneae_probability, geneae_distance, geneae_closest_label.")
