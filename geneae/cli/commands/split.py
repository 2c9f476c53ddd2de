"""Hold out half of the molecules of DATA, to judge other programs by."""

from pathlib import Path
from typing import Any

import click

from geneae.cli.flags import DATA, HALVES_OPTIONS, MATRIX_OPTIONS, OVERWRITE, PATH, QUIET, STREAM, options
from geneae.cli.help import Grouped
from geneae.cli.printing import say_unless


@click.command(cls=Grouped, example="split data.h5ad -o halves")
@DATA
@click.option("-o", "--output", type=PATH, required=True, help="Folder to write.")
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Times that the molecules are divided, an integer; several give folders repeat_1, repeat_2, ...",
)
@options(*HALVES_OPTIONS, *MATRIX_OPTIONS, STREAM, OVERWRITE, QUIET)
def command(
    data: tuple[str, ...],
    output: str,
    repeats: int,
    layer: str | None,
    use_raw: bool,
    gene_names: str | None,
    modality: str | None,
    stream: str,
    overwrite: bool,
    quiet: bool,
    **fields: Any,
) -> None:
    """Hold out half of the molecules of DATA, to judge other programs by.

    Other programs get input.h5ad (one random half of the molecules of every profile) and, if they are trained,
    train.h5ad (both halves of the training profiles, as separate profiles). geneae judge compares what they make of it
    with held_out.h5ad, which they must not see.
    """
    from geneae.settings.halves import HalvesSettings

    settings = HalvesSettings(**fields)
    from geneae.folders.outputs import check_apart, check_writable, new_folder

    folders = _folders(Path(output), repeats)
    for folder in folders:
        check_apart(folder, *data)
        check_writable(folder, overwrite)
    from geneae.cli.steps import command_line, say_what_is_read
    from geneae.data.halves import check_counts, split_of
    from geneae.data.reading import check_unchanged
    from geneae.data.source import Source
    from geneae.folders.halves import write_halves

    say = say_unless(quiet)
    profiles = Source(data, layer, use_raw, stream, gene_names=gene_names, modality=modality).read()
    check_counts(profiles)
    say_what_is_read(profiles, say)
    sizes = split_of(profiles, settings).value_counts()
    for repeat, folder in enumerate(folders, start=1):
        with new_folder(folder, overwrite) as partial:
            write_halves(partial, profiles, settings, repeat, command_line())
            check_unchanged(profiles)
    said = ", ".join(f"{sizes.get(name, 0):,} {name}" for name in ("train", "validation", "test"))
    say(f"Split into {said} profiles; {100 * settings.fraction:g} % of their molecules are given.")
    say(
        f"Written to {', '.join(map(str, folders))}: input.h5ad for other programs, train.h5ad for those that are "
        "trained; held_out.h5ad is kept from them."
    )


def _folders(output: Path, repeats: int) -> list[Path]:
    return [output] if repeats == 1 else [output / f"repeat_{repeat}" for repeat in range(1, repeats + 1)]
