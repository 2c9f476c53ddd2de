"""Train an autoencoder on the profiles of DATA, and evaluate it."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geneae.cli.ending import ending
from geneae.cli.flags import (
    COLOR,
    CONFIG,
    DATA,
    FIT_OPTIONS,
    LOG,
    MATRIX_OPTIONS,
    NULL,
    OVERWRITE,
    PATH,
    QUIET,
    STREAM,
    VERBOSE,
    options,
)
from geneae.cli.help import Grouped
from geneae.cli.printing import Say, say_unless
from geneae.cli.steps import command_line, is_first, say_what_is_read
from geneae.settings.errors import InputChanged, InputError, Interrupted
from geneae.settings.settings import Settings
from geneae.settings.text import counted, escaped, shell_line

if TYPE_CHECKING:
    from geneae.fitting.fit import Fitted

WORTH_SAYING = 1e-5  # least loss at a perfect reconstruction that is reported; smaller values are rounding


@click.command(cls=Grouped, example="fit data.h5ad --loss cosine -o run")
@DATA
@click.option("-o", "--output", type=PATH, help="Folder to write.  [default: name of DATA + _geneae]")
@COLOR
@NULL
@click.option(
    "--resume", is_flag=True, help="Resume an interrupted run; start if there is none; do nothing if it is complete."
)
@options(*FIT_OPTIONS, *MATRIX_OPTIONS, STREAM, CONFIG, LOG, OVERWRITE, VERBOSE, QUIET)
def command(
    data: tuple[str, ...],
    output: str | None,
    color: str | None,
    null: bool,
    resume: bool,
    layer: str | None,
    use_raw: bool,
    gene_names: str | None,
    modality: str | None,
    stream: str,
    log: str | None,
    overwrite: bool,
    verbose: bool,
    quiet: bool,
    **fields: Any,
) -> None:
    """Train an autoencoder on the profiles of DATA, and evaluate it.

    DATA is an .h5ad or .zarr, a 10x .h5 or matrix folder, a .csv or .tsv, .loom or .h5mu; several of them are read as
    one, in the genes that all have. Writes a folder with the model, the latents of all profiles for scanpy
    (latents.h5ad), the split, the history, one row per validation and test profile, a table of all metrics of the
    model and its baselines, and a report.
    """
    settings = Settings(**fields)
    if resume and overwrite:
        raise InputError("--resume resumes an existing run, but --overwrite replaces it. Give only one of them.")
    from geneae.data.source import Source
    from geneae.folders.outputs import Output, check_apart

    source = Source(data, layer, use_raw, stream, settings.state, settings.features, gene_names, modality)
    folder = Path(output) if output else Path(f"{source.stem}_geneae")
    check_apart(folder, *data, settings.metric)
    to = Output(folder, overwrite, resume)
    to.check()
    from geneae.fitting.checks import check_choices, check_used
    from geneae.training.logs import check_log, open_log

    check_choices(settings)
    check_used(settings)
    log_folder = folder.with_name(f"{folder.name}_log")
    check_log(log, log_folder, overwrite, resume)
    from geneae.fitting.runs import Request, fit_run, is_finished, writing_alone
    from geneae.training.devices import open_processes
    from geneae.training.progress import both, progress_bar, reading_shown
    from geneae.training.time_left import time_left_of

    if settings.devices * settings.nodes > 1:
        open_processes(settings)  # before anything is read, so that all processes read at the same time
    quiet = quiet or not is_first()
    say = say_unless(quiet)
    request = Request(command_line(), color or settings.label, null)
    with _resumable(folder):
        with reading_shown(quiet):
            profiles = source.read()
        say_what_is_read(profiles, say)
        if resume and is_finished(folder, settings, request, profiles.fingerprint):
            say(f"{folder} already holds this run, complete: nothing to do.")
            return
        with (
            writing_alone(folder),
            progress_bar(settings.epochs, quiet, time_left_of(profiles, settings, null)) as show,
            open_log(log if is_first() else None, log_folder) as note,
        ):
            fitted = fit_run(profiles, settings, to, request, both(show, note))
    if quiet:
        return
    say(_split_line(fitted))
    if verbose:
        _say_results(fitted, settings, null, say)
    say(*ending(fitted, folder, profiles.obs))


@contextlib.contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Let what stops a fit say how to go on with it."""
    try:
        yield
    except Interrupted as stop:
        raise Interrupted(stop.number, _how_to_resume(folder)) from None
    except InputChanged as error:
        raise InputChanged(f"{error}{_what_is_kept(folder)}") from error
    except Exception as error:
        error.add_note(_how_to_resume(folder))  # printed where the system, such as a full disk, is to blame
        raise


def _say_results(fitted: "Fitted", settings: Settings, null: bool, say: Say) -> None:
    """Print the results of a fit as the report has them: tables, conclusion, training and warnings."""
    from geneae.cli.tables import latent_tables, metrics_table, null_lines
    from geneae.evaluation.records import judged_split

    found, split = fitted.evaluation, judged_split(fitted.split)
    for table in filter(None, (metrics_table(found), *latent_tables(found, asdict(settings)))):
        say(*table.split("\n"))
    say(fitted.conclusion)
    if null:
        say(*null_lines(found, fitted.diagnostics, split).split("\n"))
    say(_training_line(fitted.model.config))
    for message in fitted.diagnostics.loc[fitted.diagnostics["fires"], "message"]:
        say(f"Note: {message}")


def _what_is_kept(folder: Path) -> str:
    from geneae.training.checkpoints import is_unfinished

    if not is_unfinished(folder):
        return ""
    return f" The training so far is saved in {folder}; --resume goes on with it on the data as they were."


def _how_to_resume(folder: Path) -> str:
    from geneae.training.checkpoints import is_unfinished

    if not is_unfinished(folder):
        return "Training had not started. Run the same command again."
    given = [word for word in sys.argv[1:] if word not in ("--overwrite", "--resume")]
    line = shell_line(["geneae", *given, "--resume"])
    return f"The training so far is saved in {escaped(folder)}. Resume it with:\n{line}"


def _split_line(fitted: "Fitted") -> str:
    """Sentence on the profiles and genes used, the profiles excluded, and the genes known to a metric of the loss."""
    counts = fitted.split.value_counts()
    line = ", ".join(f"{counts[name]:,} {name}" for name in ("train", "validation", "test") if name in counts)
    line = f"Split into {line} profiles; {counted(len(fitted.model.preprocess.genes), 'gene')}."
    excluded = fitted.split.index[fitted.split == "excluded"]
    if len(excluded):
        names = ", ".join(map(str, excluded[:3])) + (" and others" if len(excluded) > 3 else "")
        number = counted(len(excluded), "profile without any value was", "profiles without any value were")
        line += f" {number} excluded: {names}."
    metric = fitted.model.config["metric"]
    if metric is not None:
        line += (
            f" The learned metric of the loss knows {metric['n_matched']:,} of these genes "
            f"({100 * metric['n_matched'] / len(fitted.model.preprocess.genes):.1f} %); the numbers below do not "
            "use it."
        )
    return line


def _encoder_line(config: Mapping[str, Any]) -> str:
    """Sentence on the training of an encoder and the epoch used."""
    if not config["network"]["is_whitened"]:
        seconds = f"the fit took {config['seconds']:.1f} s"
        return f"Trained for {config['epochs_run']} epochs, of which the last is used; {seconds}."
    best = config["best_epoch"]
    line = (
        f"Best epoch by the neighbours that both halves of validation profiles have in common: {best} of "
        f"{config['epochs_run']}; the fit took {config['seconds']:.1f} s."
    )
    if best == 0 and config["settings"]["cut"] == 1:
        line += " No epoch was better than the start, the latents of the default fit, which are used."
    elif (config.get("latent_choice") or {}).get("is_start"):
        line += (
            " By these and the rank of the other half, its latents are not clearly better than those of the start, the "
            "default fit, which are exported."
        )
    return line


def _training_line(config: Mapping[str, Any]) -> str:
    """Sentence on the length of the training, the epoch used, and what they mean."""
    if config["settings"]["objective"] != "reconstruction":
        return _encoder_line(config)
    from geneae.evaluation.steps import loss_of_steps, steps_sentence

    steps = steps_sentence(config.get("steps") or [], loss_of_steps(config))
    linear = "PCA" if config["target"] == "self" else "shrunken PCA"
    best, start = config["best_epoch"], "the whitened linear prediction" if steps else linear
    line = f"Best epoch by validation: {best} of {config['epochs_run']}; the fit took {config['seconds']:.1f} s."
    if best == 0 and config["settings"]["init"] == "pca":
        line += f" No epoch was better than the start, {start}, so that the network is left out."
    if steps:
        line += f" {steps}"
    perfect = config["loss_at_perfection"]
    if perfect is not None and perfect > WORTH_SAYING:
        line += (
            f" The loss {config['settings']['loss']} is {perfect:.3g}, not 0, at a perfect reconstruction, because "
            "it also pushes similar profiles apart."
        )
    if best == config["settings"]["epochs"]:
        line += " It was still improving: more --epochs may help."
    return line
