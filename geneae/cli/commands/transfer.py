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
    PATH,
    QUIET,
    STREAM,
    TRANSFER_OPTIONS,
    VALUE_OPTIONS,
    options,
)
from geneae.cli.help import Grouped
from geneae.cli.printing import say_unless
from geneae.cli.steps import match
from geneae.settings.settings import TransferSettings


@click.command(cls=Grouped, example="transfer run reference.h5ad query.h5ad --label cell_type -o labelled.h5ad")
@click.argument("model", type=PATH)
@click.argument("reference", type=PATH)
@click.argument("query", type=PATH)
@click.option("--label", "key", metavar="KEY", required=True, help="Column of obs of REFERENCE that holds the labels.")
@click.option("-o", "--output", type=PATH, required=True, help="File to write: .h5ad, .csv or .parquet.")
@click.option("--key-added", metavar="KEY", help="Key of the latents in obsm of an .h5ad output.  [default: X_geneae]")
@options(
    *TRANSFER_OPTIONS, *MATRIX_OPTIONS, *VALUE_OPTIONS, STREAM, MIN_OVERLAP, DEPTH_RATIO, DEPTH_BY, OVERWRITE, QUIET
)
def command(
    model: str,
    reference: str,
    query: str,
    key: str,
    output: str,
    key_added: str | None,
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
    from geneae.data.labels import labels_in
    from geneae.data.reading import check_unchanged
    from geneae.data.source import Source
    from geneae.evaluation.rehearsal import labelled_reference
    from geneae.evaluation.transfer import next_step, sentences, transfer, verdict
    from geneae.folders.embedding import LATENTS, check_format, depth_groups, embed, replaced_sentence
    from geneae.folders.labels import LABEL_FORMATS, write_labels
    from geneae.folders.model import load_model, trained_on
    from geneae.folders.outputs import check_apart, check_new_file, new_file

    check_format(Path(output), False, key_added, LABEL_FORMATS)
    check_apart(Path(output), model, reference, query)
    check_new_file(Path(output), overwrite)
    loaded = load_model(Path(model))
    say = say_unless(quiet)
    choice = (layer, use_raw, stream, state, features, gene_names, modality)
    known, in_genes = match(loaded, Source(reference, *choice), min_overlap, say)
    labelled = labelled_reference(loaded, known, in_genes, key, trained_on(Path(model)))
    say(labelled.sentence())
    profiles, expression = match(loaded, Source(query, *choice), min_overlap, say)
    labelled, expression = labelled.without(expression.missing), expression.without(in_genes.missing)
    embedded = embed(loaded, profiles, expression, depth_ratio, depth_groups(profiles, depth_by, depth_ratio))
    say(*embedded.sentences())
    found = transfer(labelled, profiles.names, embedded.latent, embedded.depths, embedded.is_blank, settings)
    with new_file(Path(output), overwrite) as partial:
        replaced = write_labels(partial, query, embedded, found, key_added or LATENTS)
        check_unchanged(known, also_in_memory=True)
        check_unchanged(profiles, also_in_memory=True)
    judged = verdict(found, labels_in(profiles.obs, key)) if key in profiles.obs.columns else []
    noted = replaced_sentence(replaced, query)
    for line in filter(None, (labelled.shared_genes(), *sentences(found), *judged, noted, next_step(found))):
        say(line)
    say(f"Written to {output}: geneae_label, geneae_probability, geneae_distance, geneae_closest_label.")
