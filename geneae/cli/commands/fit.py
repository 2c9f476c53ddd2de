"""`geneae fit`."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geneae.cli.flags import COLOR, CONFIG, FIT_OPTIONS, LOG, MATRIX_OPTIONS, NULL, OVERWRITE, QUIET, STREAM, options
from geneae.cli.steps import Say, command_line, is_first, say_unless
from geneae.settings.errors import InputError, Interrupted
from geneae.settings.settings import Settings

if TYPE_CHECKING:
    from geneae.fitting.fit import Fitted

WORTH_SAYING = 1e-5  # of a loss at a perfect reconstruction; below it is rounding


@click.command()
@click.argument("data", type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="Folder to write.  [default: name of DATA + _geneae]")
@COLOR
@NULL
@click.option("--resume", is_flag=True, help="Go on with a run that was stopped or killed; leave a finished one.")
@options(*FIT_OPTIONS, *MATRIX_OPTIONS, STREAM, CONFIG, LOG, OVERWRITE, QUIET)
def command(
    data: str,
    output: str | None,
    color: str | None,
    null: bool,
    resume: bool,
    layer: str | None,
    use_raw: bool,
    stream: str,
    log: str | None,
    overwrite: bool,
    quiet: bool,
    **fields: Any,
) -> None:
    """Train an autoencoder on the profiles of DATA (.h5ad or .zarr) and judge it.

    Writes a folder with the model, the split, the history, a row per validation and test profile, and a table of all
    metrics of the model and its baselines.
    """
    settings = Settings(**fields)
    if resume and overwrite:
        raise InputError("--resume goes on with what is there, and --overwrite replaces it. Give one of them.")
    from geneae.folders.outputs import Output

    folder = Path(output) if output else Path(f"{Path(data).stem}_geneae")
    to = Output(folder, overwrite, resume)
    to.check()
    from geneae.fitting.checks import check_choices
    from geneae.training.progress import check_log

    check_choices(settings)
    log_folder = folder.with_name(f"{folder.name}_log")
    check_log(log, log_folder, overwrite, resume)
    from geneae.data.source import Source
    from geneae.fitting.runs import Request, fit_run, is_finished, writing_alone
    from geneae.training.devices import open_processes
    from geneae.training.progress import both, open_log, progress_bar

    if settings.devices * settings.nodes > 1:
        open_processes(settings)  # before anything is read, so that all processes read at the same time
    quiet = quiet or not is_first()
    say = say_unless(quiet)
    profiles = Source(data, layer, use_raw, stream).read()
    say(profiles.describe())
    request = Request(command_line(), color, null)
    if resume and is_finished(folder, settings, request, profiles.fingerprint):
        say(f"{folder} holds this run and is whole: nothing is left to do.")
        return
    try:
        with (
            writing_alone(folder),
            progress_bar(settings.epochs, quiet) as show,
            open_log(log if is_first() else None, log_folder) as note,
        ):
            fitted = fit_run(profiles, settings, to, request, both(show, note))
    except Interrupted as stop:
        raise Interrupted(stop.number, _how_to_go_on(folder)) from None
    if quiet:
        return
    _say_results(fitted, settings, null, say)
    say(f"Written to {folder}: the model, its tables, and {folder / 'report.html'}.")


def _say_results(fitted: "Fitted", settings: Settings, null: bool, say: Say) -> None:
    """What came of a fit: its split, tables, conclusion, training and what is wrong with it."""
    from geneae.cli.tables import latent_tables, metrics_table, null_lines
    from geneae.fitting.runs import judged_split

    found, split = fitted.evaluation, judged_split(settings)
    say(_split_line(fitted))
    for table in filter(None, (metrics_table(found), *latent_tables(found, asdict(settings)))):
        say(table)
    say(fitted.conclusion)
    if null:
        say(null_lines(found, fitted.diagnostics, split))
    say(_training_line(fitted.model.config))
    for message in fitted.diagnostics.loc[fitted.diagnostics["fires"], "message"]:
        say(f"Note: {message}")


def _how_to_go_on(folder: Path) -> str:
    from geneae.training.checkpoints import is_unfinished

    if not is_unfinished(folder):
        return "Training had not begun: run the same command again."
    given = [word for word in sys.argv[1:] if word not in ("--overwrite", "--resume")]
    return f"What was trained is in {folder}. Go on with:\n{shlex.join(['geneae', *given, '--resume'])}"


def _split_line(fitted: "Fitted") -> str:
    """How many profiles and genes were used, which profiles were not, and how many genes a metric of the loss has."""
    counts = fitted.split.value_counts()
    line = ", ".join(f"{counts[name]:,} {name}" for name in ("train", "validation", "test") if name in counts)
    line = f"Split into {line} profiles; {len(fitted.model.preprocess.genes):,} genes."
    excluded = fitted.split.index[fitted.split == "excluded"]
    if len(excluded):
        names = ", ".join(map(str, excluded[:3])) + (" and others" if len(excluded) > 3 else "")
        line += f" {len(excluded):,} profiles without any value were kept out: {names}."
    metric = fitted.model.config["metric"]
    if metric is not None:
        line += (
            f" The metric of the loss has {metric['n_matched']:,} of these genes "
            f"({100 * metric['n_matched'] / len(fitted.model.preprocess.genes):.1f} %); what follows is plain."
        )
    return line


def _training_line(config: Mapping[str, Any]) -> str:
    """How long it was trained, which epoch was taken, and what that says."""
    if config["settings"]["objective"] != "reconstruction":
        return f"Trained for {config['epochs_run']} epochs, {config['seconds']:.1f} s in all; the last one is taken."
    best, start = config["best_epoch"], "PCA" if config["target"] == "self" else "shrunken PCA"
    line = f"Best epoch by validation: {best} of {config['epochs_run']}; {config['seconds']:.1f} s in all."
    if best == 0 and config["settings"]["init"] == "pca":
        line += f" No epoch was better than the start, {start}, which was kept."
    perfect = config["loss_at_perfection"]
    if perfect is not None and perfect > WORTH_SAYING:
        line += (
            f" At a perfect reconstruction the loss {config['settings']['loss']} is {perfect:.3g}, not 0: it asks for "
            "more than that."
        )
    if best == config["settings"]["epochs"]:
        line += " It was still improving: more --epochs may help."
    return line
