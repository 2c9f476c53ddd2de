"""Compute the latents of the profiles in DATA with MODEL."""

from pathlib import Path

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
from geneae.settings.text import counted


@click.command(cls=Grouped, example="embed run other.h5ad -o latent.h5ad")
@click.argument("model", type=PATH)
@DATA
@click.option("-o", "--output", type=PATH, required=True, help="File to write: .h5ad, .csv, .parquet or .npy.")
@click.option("--key-added", metavar="KEY", help="Key of the latents in obsm of an .h5ad output.  [default: X_geneae]")
@click.option(
    "--reconstruct",
    is_flag=True,
    help="Add layers['geneae_reconstructed'], and ['geneae_latent_only'] without own counts, to an .h5ad output.",
)
@click.option(
    "--own-depth", is_flag=True, help="Reconstruct profiles at their own depth, not at that of training profiles."
)
@options(*MATRIX_OPTIONS, *VALUE_OPTIONS, STREAM, MIN_OVERLAP, DEPTH_RATIO, DEPTH_BY, OVERWRITE, QUIET)
def command(
    model: str,
    data: tuple[str, ...],
    output: str,
    key_added: str | None,
    reconstruct: bool,
    own_depth: bool,
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
    """Compute the latents of the profiles in DATA with MODEL.

    MODEL is a folder of geneae fit, or a zip of geneae share. An .h5ad output is a copy of DATA with the latents in
    obsm, ready for scanpy, and for a model of counts their posterior deviations beside them (X_geneae_sd); .csv and
    .parquet have one row per profile; .npy is the bare array. A model of counts reads shallower profiles at their own
    depth, which it estimates and names.
    """
    from dataclasses import replace

    from geneae.data.reading import check_unchanged
    from geneae.data.source import Source
    from geneae.folders.embedding import (
        LATENTS,
        check_format,
        depth_groups,
        embed,
        replaced_sentence,
        write_embedding,
    )
    from geneae.folders.model import load_model
    from geneae.folders.outputs import check_apart, check_new_file, new_file

    check_format(Path(output), reconstruct, key_added)
    check_apart(Path(output), model, *data)
    check_new_file(Path(output), overwrite)
    loaded = replace(load_model(Path(model)), own_depth=own_depth)
    if own_depth and not reconstruct:
        raise InputError("--own-depth is for reconstructions; found no --reconstruct. Add it, or leave the other out.")
    if reconstruct:
        loaded.check_decoder()
    say = say_unless(quiet)
    source = Source(data, layer, use_raw, stream, state, features, gene_names, modality)
    profiles, expression = match(loaded, source, min_overlap, say)
    embedded = embed(loaded, profiles, expression, depth_ratio, depth_groups(profiles, depth_by, depth_ratio))
    say(*embedded.sentences())
    with new_file(Path(output), overwrite) as partial:
        replaced = write_embedding(partial, data, embedded, key_added or LATENTS, reconstruct)
        check_unchanged(profiles, also_in_memory=True)
    say(*filter(None, [replaced_sentence(replaced, profiles.source)]))
    n_profiles, n_latent = embedded.latent.shape
    say(f"Written to {output}: {counted(n_profiles, 'profile')} x {counted(n_latent, 'latent')}.")
