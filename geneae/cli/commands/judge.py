"""Judge what other programs have made of the profiles in HALVES."""

from pathlib import Path

import click

from geneae.cli.flags import LATENT, OVERWRITE, PATH, QUIET, option, options
from geneae.cli.help import Grouped
from geneae.cli.printing import say_unless


@click.command(cls=Grouped, example="judge halves mine=reconstruction.h5ad -o judged")
@click.argument("halves", type=PATH)
@click.argument("made", nargs=-1, required=True, metavar="NAME=FILE[:layer=KEY|:obsm=KEY]...")
@click.option("-o", "--output", type=PATH, required=True, help="Folder to write.")
@click.option(
    "--space",
    "spaces",
    multiple=True,
    metavar="NAME=SPACE",
    help="Space of a reconstruction: counts, cp10k or log1p_cp10k.  [default: found out by its gene means]",
)
@click.option(
    "--min-overlap",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Refuse a reconstruction that has a smaller fraction of the genes, 0 to 1.",
)
@click.option(
    "--other-half",
    "others",
    multiple=True,
    metavar="NAME=FILE[...]",
    help="Latents of held_out.h5ad by the same program, fitted without it: do both halves have the same neighbours?  "
    "[default: none]",
)
@click.option("--skip-refused", is_flag=True, help="Leave out what would be refused, and say why.")
@options(option("label"), option("batch_key"), LATENT, OVERWRITE, QUIET)
def command(
    halves: str,
    made: tuple[str, ...],
    output: str,
    spaces: tuple[str, ...],
    min_overlap: float,
    others: tuple[str, ...],
    skip_refused: bool,
    label: str | None,
    batch_key: str | None,
    n_latent: int | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Judge what other programs have made of the profiles in HALVES.

    HALVES is a folder of geneae split. FILE is what a program has made of its input.h5ad: .h5ad or .zarr (X, a layer or
    an entry of obsm), .csv or .parquet with the names of the profiles in the first column, or .npy with names in text
    files beside it. Profiles and genes are matched by name. All are compared with the mean profile, PCA, shrunken PCA
    (the reference, with --latent components) and the noise ceiling; latents also with raw input and a random encoder,
    by --label, --batch and --other-half. With several divisions, HALVES is the folder of all, and FILE contains
    {repeat}.
    """
    from geneae.folders.outputs import check_apart, check_writable, new_folder

    check_apart(Path(output), halves)
    check_writable(Path(output), overwrite)
    from geneae.cli.steps import command_line
    from geneae.cli.tables import judged_table
    from geneae.data.programs import parse_made
    from geneae.fitting.judging import JudgeSettings, judge
    from geneae.fitting.programs import parse_spaces, read_repeats
    from geneae.folders.judged import write_judged
    from geneae.folders.manifest import REPORT
    from geneae.report import write_report

    say = say_unless(quiet)
    given, of_held_out = ([parse_made(text) for text in texts] for texts in (made, others))
    named = parse_spaces(spaces)
    settings = JudgeSettings(n_latent, label, batch_key, min_overlap, skip_refused)
    divisions, programs = read_repeats(Path(halves), given, of_held_out)
    judged = judge(divisions, programs, settings, named, command_line())
    with new_folder(Path(output), overwrite) as partial:
        write_judged(partial, judged.tables(), judged.record())
        write_report(partial / REPORT, judged.runs, judged.answer, judged.paired)
    say(*judged.said)
    say(*judged_table(judged.metrics, judged.split).split("\n"))
    say(judged.answer)
    say(f"Written to {output}: the tables, and {Path(output) / REPORT}.")
