"""The `geneae` command. What a command needs is loaded when it runs, so that `--help` answers at once."""

import contextlib
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from geneae import __version__
from geneae.cli.flags import (
    COLOR,
    CONFIG,
    CUT,
    DECAY,
    FIT_OPTIONS,
    LATENT,
    LOG,
    LOSS,
    MATRIX_OPTIONS,
    MIN_OVERLAP,
    NULL,
    OBJECTIVE,
    OVERWRITE,
    QUIET,
    RATE,
    STREAM,
    option,
    options,
    several,
)
from geneae.settings.errors import InputError, Interrupted
from geneae.settings.settings import Settings

WORTH_SAYING = 1e-5  # of a loss at a perfect reconstruction; below it is rounding


class InputErrors(click.Group):
    """A group of commands that answers input errors with their message alone and exit code 2.

    SIGINT and SIGTERM end with how to go on, and 130 and 143.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            with _stops_raise():
                return super().invoke(ctx)
        except InputError as error:
            _say(not _is_first())(f"Error: {error}", err=True)
            ctx.exit(2)
        except Interrupted as stop:
            name = signal.Signals(stop.number).name
            _say(not _is_first())(f"Stopped by {name}. {stop.message or 'Nothing was written.'}", err=True)
            ctx.exit(128 + stop.number)


@contextlib.contextmanager
def _stops_raise() -> Iterator[None]:
    """SIGINT and SIGTERM raise `Interrupted` inside, so that what is half-written is removed."""

    def stop(number: int, _: object) -> None:
        raise Interrupted(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_first() -> bool:
    """Whether this is the process that speaks, of several that train together."""
    if "geneae.training.devices" not in sys.modules:  # which loads torch
        return True
    from geneae.training.devices import is_first

    return is_first()


@click.group(cls=InputErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def main() -> None:
    """Autoencoders of gene-expression profiles, judged against PCA, the mean profile and the noise ceiling.

    Start with:  geneae fit data.h5ad --loss cosine
    """


@main.command()
@click.argument("data", type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="Folder to write.  [default: name of DATA + _geneae]")
@COLOR
@NULL
@click.option("--resume", is_flag=True, help="Go on with a run that was stopped or killed; leave a finished one.")
@options(*FIT_OPTIONS, *MATRIX_OPTIONS, STREAM, CONFIG, LOG, OVERWRITE, QUIET)
def fit(
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
    folder = Path(output) if output else Path(f"{Path(data).stem}_geneae")
    if resume and overwrite:
        raise InputError("--resume goes on with what is there, and --overwrite replaces it. Give one of them.")
    from geneae.folders.outputs import check_writable, finish_swap

    finish_swap(folder)
    check_writable(folder, overwrite, resume)
    from geneae.fitting.checks import check_choices
    from geneae.training.progress import both, check_log, open_log, progress_bar

    check_choices(settings)
    log_folder = folder.with_name(f"{folder.name}_log")
    check_log(log, log_folder, overwrite, resume)
    from geneae.data.reading import read_profiles
    from geneae.fitting.grid import Task, is_finished
    from geneae.fitting.runs import fit_run, writing_alone
    from geneae.training.devices import is_first, open_processes

    if settings.devices * settings.nodes > 1:
        open_processes(settings)  # before anything is read, so that all processes read at the same time
    quiet = quiet or not is_first()
    say = _say(quiet)
    profiles = read_profiles(data, layer, use_raw, stream)
    say(profiles.describe())
    if resume and is_finished(Task("", settings, folder), profiles.fingerprint, color, null):
        say(f"{folder} holds this run and is whole: nothing is left to do.")
        return
    noted = log if is_first() else None
    try:
        with (
            writing_alone(folder),
            progress_bar(settings.epochs, quiet) as show,
            open_log(noted, log_folder) as note,
        ):
            on_epoch = both(show, note)
            model = fit_run(
                profiles, settings, folder, _command(), overwrite, color, null, on_epoch=on_epoch, resume=resume
            )
    except Interrupted as stop:
        raise Interrupted(stop.number, _how_to_go_on(folder)) from None
    if quiet:
        return
    _say_results(model, settings, null, say)
    say(f"Written to {folder}: the model, its tables, and {folder / 'report.html'}.")


def _say_results(model: Any, settings: Settings, null: bool, say: Callable[[str], None]) -> None:
    """What came of a fit: its split, tables, conclusion, training and what is wrong with it."""
    from geneae.cli.tables import latent_tables, metrics_table, null_lines
    from geneae.fitting.runs import judged_split

    found, split = model.evaluation_, judged_split(settings)
    say(_split_line(model))
    for table in filter(None, (metrics_table(found), *latent_tables(found, asdict(settings)))):
        say(table)
    say(model.conclusion_)
    if null:
        say(null_lines(found, model.diagnostics_, split))
    say(_training_line(model))
    for message in model.diagnostics_.loc[model.diagnostics_["fires"], "message"]:
        say(f"Note: {message}")


def _how_to_go_on(folder: Path) -> str:
    from geneae.training.checkpoints import is_unfinished

    if not is_unfinished(folder):
        return "Training had not begun: run the same command again."
    given = [word for word in sys.argv[1:] if word not in ("--overwrite", "--resume")]
    return f"What was trained is in {folder}. Go on with:\n{shlex.join(['geneae', *given, '--resume'])}"


def _command() -> str:
    return shlex.join(["geneae", *sys.argv[1:]])


def _say(is_quiet: bool) -> Callable[..., None]:
    return (lambda *_, **__: None) if is_quiet else click.echo


def _split_line(model: Any) -> str:
    """How many profiles and genes were used, which profiles were not, and how many genes a metric of the loss has."""
    counts = model.split_.value_counts()
    line = ", ".join(f"{counts[name]:,} {name}" for name in ("train", "validation", "test") if name in counts)
    line = f"Split into {line} profiles; {len(model.model_.preprocess.genes):,} genes."
    excluded = model.split_.index[model.split_ == "excluded"]
    if len(excluded):
        names = ", ".join(map(str, excluded[:3])) + (" and others" if len(excluded) > 3 else "")
        line += f" {len(excluded):,} profiles without any value were kept out: {names}."
    metric = model.model_.config["metric"]
    if metric is not None:
        line += (
            f" The metric of the loss has {metric['n_matched']:,} of these genes "
            f"({100 * metric['n_matched'] / len(model.model_.preprocess.genes):.1f} %); what follows is plain."
        )
    return line


def _training_line(model: Any) -> str:
    config = model.model_.config
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


@main.command()
@click.argument("model", type=click.Path())
@click.argument("data", type=click.Path())
@click.option("-o", "--output", type=click.Path(), required=True, help="Folder to write.")
@options(*MATRIX_OPTIONS, STREAM, MIN_OVERLAP, OVERWRITE, QUIET)
def evaluate(
    model: str,
    data: str,
    output: str,
    layer: str | None,
    use_raw: bool,
    stream: str,
    min_overlap: float,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Judge the MODEL (folder, or zip of geneae share) and its baselines on the profiles of DATA.

    Profiles that the model was fitted on are told apart from others where DATA is what it was fitted on.
    """
    from geneae.folders.outputs import check_writable, new_folder

    check_writable(Path(output), overwrite)
    from geneae.cli.tables import metrics_table
    from geneae.evaluation.reconstruction import evaluate as judge
    from geneae.evaluation.reconstruction import verdict
    from geneae.evaluation.records import write_evaluation
    from geneae.folders.model import load_model, read_split

    loaded = load_model(Path(model))
    loaded.check_decoder()
    profiles, expression = _match(loaded, data, layer, use_raw, stream, min_overlap, _say(quiet))
    split = read_split(Path(model), loaded, profiles)
    evaluation = judge(loaded, expression, profiles.names, split, fit_scales=False)
    with new_folder(Path(output), overwrite) as partial:
        write_evaluation(evaluation, partial)
    if not quiet:
        present = tuple(name for name in ("train", "validation", "test", "all") if (split == name).any())
        click.echo(metrics_table(evaluation, present))
        click.echo(verdict(evaluation, present[-1]))
        click.echo(f"Written to {output}: profiles.csv, metrics.csv.")


def _match(
    model: Any,
    data: str,
    layer: str | None,
    use_raw: bool,
    stream: str,
    min_overlap: float,
    say: Callable[[str], None],
) -> tuple[Any, Any]:
    """Profiles, and the same in the genes of the model; says what was found."""
    from geneae.data.reading import read_profiles

    profiles = read_profiles(data, layer, use_raw, stream)
    say(profiles.describe())
    expression, n_matched = model.preprocess.match(profiles, min_overlap)
    n_genes = len(model.preprocess.genes)
    say(f"{n_matched:,} of the model's {n_genes:,} genes are in the data ({100 * n_matched / n_genes:.1f} %).")
    return profiles, expression


@main.command()
@click.argument("model", type=click.Path())
@click.argument("data", type=click.Path())
@click.option("-o", "--output", type=click.Path(), required=True, help="File to write: .h5ad, .csv, .parquet or .npy.")
@click.option("--key-added", default="X_geneae", show_default=True, help="Key of the latent in obsm of an .h5ad.")
@click.option("--reconstruct", is_flag=True, help="Add layers['geneae_reconstructed'] to an .h5ad.")
@options(*MATRIX_OPTIONS, STREAM, MIN_OVERLAP, OVERWRITE, QUIET)
def embed(
    model: str,
    data: str,
    output: str,
    key_added: str,
    reconstruct: bool,
    layer: str | None,
    use_raw: bool,
    stream: str,
    min_overlap: float,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Write the latents of the profiles of DATA by the MODEL (folder, or zip of geneae share).

    An .h5ad is DATA with the latent in obsm, ready for scanpy; .csv and .parquet have a row per profile; .npy is the
    bare array.
    """
    from geneae.folders.embedding import check_format, write_embedding
    from geneae.folders.model import load_model
    from geneae.folders.outputs import check_new_file, new_file

    check_format(Path(output), reconstruct)
    check_new_file(Path(output), overwrite)
    loaded = load_model(Path(model))
    if reconstruct:
        loaded.check_decoder()
    profiles, expression = _match(loaded, data, layer, use_raw, stream, min_overlap, _say(quiet))
    latent = loaded.latent(expression)
    with new_file(Path(output), overwrite) as partial:
        write_embedding(partial, data, loaded, profiles, latent, key_added, reconstruct)
    _say(quiet)(f"Written to {output}: {latent.shape[0]:,} profiles x {latent.shape[1]} latents.")


@main.command()
@click.argument("model", type=click.Path())
@click.option("-o", "--output", type=click.Path(), required=True, help="File to write, ending in .zip.")
@click.option("--licence", metavar="TEXT", help="Licence that the model card names.  [default: not stated]")
@options(OVERWRITE, QUIET)
def share(model: str, output: str, licence: str | None, overwrite: bool, quiet: bool) -> None:
    """Pack the MODEL folder into one zip with checksums, for others to load.

    The zip is read as it is: geneae embed FILE.zip DATA. It names the profiles of the fit (profiles.csv, split.csv).
    """
    from geneae.folders.card import share_model
    from geneae.folders.outputs import check_new_file

    check_new_file(Path(output), overwrite)
    names = share_model(Path(model), Path(output), licence, overwrite)
    megabytes = Path(output).stat().st_size / 1e6
    _say(quiet)(f"Written to {output}: {len(names)} files, {megabytes:.1f} MB.")


@main.command()
@click.argument("data", type=click.Path())
@click.option(
    "--cosine",
    type=click.FloatRange(-1, 1),
    help="A cosine that somebody has reached, -1 to 1, to be put into its place.  [default: none]",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of split, bases and count splits, a whole number."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@options(*MATRIX_OPTIONS, STREAM)
def inspect(
    data: str, cosine: float | None, seed: int, as_json: bool, layer: str | None, use_raw: bool, stream: str
) -> None:
    """Say what cosine the profiles of DATA can give, before any training.

    Trivial cosines, PCA, the noise ceiling, and whether there is anything to learn per profile.
    """
    from dataclasses import asdict

    from geneae.cli.tables import inspection_table
    from geneae.data.reading import read_profiles
    from geneae.evaluation.inspection import inspect_profiles
    from geneae.folders.outputs import to_json

    profiles = read_profiles(data, layer, use_raw, stream)
    inspection = inspect_profiles(profiles, seed, cosine)
    if as_json:
        click.echo(to_json(asdict(inspection)))
        return
    click.echo(profiles.describe())
    click.echo(inspection_table(inspection))
    click.echo(inspection.verdict)


@main.command()
@click.argument("data", nargs=-1, required=True, type=click.Path())
@click.option(
    "-o", "--output", type=click.Path(), required=True, help="Folder to write, with a run folder inside each."
)
@several("objective", "objectives", "Objectives to combine with the losses.")
@several("loss", "losses", "An arm for each; the first is the reference.", "mse, cosine")
@several("cut", "cuts", "Cut factors to combine with the losses.")
@several("n_latent", "latents", "Lengths of the latent to combine with them, in numbers per profile.")
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True, help="Runs of each arm.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Runs at a time.")
@COLOR
@options(*(one for one in FIT_OPTIONS if one not in (OBJECTIVE, LOSS, LATENT, CUT)), *MATRIX_OPTIONS, CONFIG, QUIET)
def compare(
    data: tuple[str, ...],
    output: str,
    objectives: tuple[str, ...],
    losses: tuple[str, ...],
    cuts: tuple[float, ...],
    latents: tuple[int, ...],
    seeds: int,
    jobs: int,
    color: str | None,
    layer: str | None,
    use_raw: bool,
    quiet: bool,
    **fields: Any,
) -> None:
    """Compare losses on DATA, or finished run folders with each other.

    Every arm (an objective, a loss, a cut, a latent) is run with the same seeds on one split, each run an ordinary
    folder inside the output; what is there already is not run again. Differences are taken profile by profile against
    the first arm, and with --color by its values, too.
    """
    folder, say = Path(output), _say(quiet)
    if (Path(data[0]) / "config.json").is_file():
        from geneae.fitting.compare import compare_runs

        said = compare_runs([Path(run) for run in data], folder, color=color)
    else:
        if len(data) > 1:
            raise InputError(f"one data file, or several run folders, can be compared; found {', '.join(data)}.")
        base = Settings(**fields)
        say = _say(quiet or not _open_ranks(base, jobs))
        choices: dict[str, list[Any]] = {
            "objective": list(objectives) or [base.objective],
            "loss": list(losses) or ([base.loss] if objectives else ["mse", "cosine"]),
            "cut": list(cuts) or [base.cut],
            "n_latent": list(latents) or [base.n_latent],
        }
        said = _run_grid(data[0], layer, use_raw, base, choices, seeds, jobs, color, folder, say)
    say(said)
    say(f"Written to {folder}: metrics.csv, paired.csv and {folder / 'report.html'}.")


def _run_grid(
    data: str,
    layer: str | None,
    use_raw: bool,
    base: Settings,
    choices: dict[str, list[Any]],
    seeds: int,
    jobs: int,
    color: str | None,
    folder: Path,
    say: Callable[[str], None],
) -> str:
    """Run every arm and seed, saying how far it is, and compare them."""
    from geneae.fitting.compare import compare_runs
    from geneae.fitting.grid import grid
    from geneae.fitting.runs import Source

    tasks = grid(base, choices, seeds, folder)
    _run_tasks(Source(data, layer, use_raw), tasks, jobs, color, folder, say)
    if not _is_first():
        return ""
    return compare_runs([task.folder for task in tasks], folder, {task.folder: task.arm for task in tasks}, color)


def _open_ranks(base: Settings, jobs: int) -> bool:
    """Start the processes that share every fit of a grid, and say whether this is the one that writes and speaks."""
    if base.devices * base.nodes == 1:
        return True
    if jobs > 1:
        raise InputError(
            f"--jobs {jobs} runs several fits at a time, and --devices or --nodes has several processes share each. "
            "Give one of them."
        )
    from geneae.training.devices import is_first, open_processes

    open_processes(base)
    return is_first()


def _run_tasks(
    source: Any, tasks: list[Any], jobs: int, color: str | None, folder: Path, say: Callable[[str], None]
) -> None:
    """Run every task that has not been run, saying how far it is."""
    from geneae.fitting.checks import check_choices
    from geneae.fitting.grid import run_grid
    from geneae.fitting.runs import writing_alone
    from geneae.folders.outputs import check_parent

    for choices in dict.fromkeys(replace(task.settings, seed=0) for task in tasks):
        check_choices(choices)
    check_parent(folder)
    seconds: list[float] = []
    done = run_grid(source, tasks, _command(), jobs, color)
    try:
        with writing_alone(folder):
            for number, (task, taken) in enumerate(done, start=1):
                seconds += [taken] if taken else []
                left = (len(tasks) - number) * (sum(seconds) / len(seconds) if seconds else 0) / jobs
                how = f"{taken:.0f} s" if taken else "there already"
                say(f"{number}/{len(tasks)}  {task.arm}, seed {task.settings.seed}: {how}; about {left:.0f} s left")
    except Interrupted as stop:
        raise Interrupted(stop.number, f"Run the same command again to go on:\n{_command()}") from None


@main.command(name="sweep-cut")
@click.argument("data", type=click.Path())
@click.option(
    "-o", "--output", type=click.Path(), required=True, help="Folder to write, with a run folder inside each."
)
@several("cut", "cuts", "Cut constants, 1/3 say.", "1/3, 1, 3, 9, 15", type=str, metavar="C")
@several(
    "learning_rate",
    "rates",
    "Learning rates, factors above 0; controls are matched to the first.",
    "0.002, then x 1/3, 3, 9, 27",
)
@several("weight_decay", "decays", "Weight decays, factors of at least 0.")
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True, help="Runs of each arm.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Runs at a time.")
@options(*(one for one in FIT_OPTIONS if one not in (CUT, RATE, DECAY)), *MATRIX_OPTIONS, QUIET)
def sweep_cut(
    data: str,
    output: str,
    cuts: tuple[str, ...],
    rates: tuple[float, ...],
    decays: tuple[float, ...],
    seeds: int,
    jobs: int,
    layer: str | None,
    use_raw: bool,
    quiet: bool,
    **fields: Any,
) -> None:
    """Ask whether cut-initialisation does anything on DATA that another learning rate would not.

    Every cut is run with every learning rate and weight decay; no cut, too, with the first rate times c and c^2. Each
    cut is judged at its best rate by validation.
    """
    from geneae.fitting.runs import Source
    from geneae.fitting.sweep import CONTROLS, Sweep, judge_sweep, sweep_tasks

    base = Settings(**fields)
    rate = base.learning_rate
    sweep = Sweep(
        tuple(_fraction(cut) for cut in cuts) or (1 / 3, 1.0, 3.0, 9.0, 15.0),
        rates or (rate, rate / 3, rate * 3, rate * 9, rate * 27),
        decays or (base.weight_decay,),
        seeds,
    )
    folder, say = Path(output), _say(quiet or not _open_ranks(base, jobs))
    tasks = sweep_tasks(base, sweep, folder)
    _run_tasks(Source(data, layer, use_raw), tasks, jobs, None, folder, say)
    if not _is_first():
        return
    said = judge_sweep(tasks, sweep, folder)
    if not quiet:
        import pandas as pd

        click.echo(pd.read_csv(folder / CONTROLS).to_string(index=False, float_format="{:.4f}".format))
        click.echo(
            "difference: in mean validation cosine over the epochs, from the cut; deviation: of it between seeds"
        )
    say(said)
    say(f"Written to {folder}: runs.csv, arms.csv, controls.csv, paired.csv, curves.png and {folder / 'report.html'}.")


def _fraction(text: str) -> float:
    """A number such as 3, 0.5 or 1/3."""
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"a cut must be a number such as 3 or 1/3; found '{text}'.") from None


@main.command()
@click.argument("data", type=click.Path())
@click.option("--label", "key", metavar="KEY", required=True, help="Column of obs whose equal values are to agree.")
@click.option("-o", "--output", type=click.Path(), help="Folder to write.  [default: name of DATA + _metric]")
@click.option(
    "--model", type=click.Path(), metavar="FOLDER", help="Learn it on the latents of this model.  [default: on genes]"
)
@click.option(
    "--components", type=click.IntRange(1), default=32, show_default=True, help="Rows of the map, in components."
)
@click.option(
    "--epsilon",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.01,
    show_default=True,
    help="Share of the plain inner product in the metric, 0 to below 1; a loss under it sees little beside the map if "
    "it is small.",
)
@click.option("--epochs", type=click.IntRange(1), default=30, show_default=True, help="Passes over the profiles.")
@click.option(
    "--neighbors", type=click.IntRange(1), default=15, show_default=True, help="Profiles that vote for a label."
)
@option("validation")
@click.option(
    "--test",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.2,
    show_default=True,
    help="Fraction of the profiles that choose nothing and are judged.",
)
@options(
    option("group"),
    option("seed"),
    *MATRIX_OPTIONS,
    OVERWRITE,
    QUIET,
)
def metric(
    data: str,
    key: str,
    output: str | None,
    model: str | None,
    components: int,
    epsilon: float,
    epochs: int,
    neighbors: int,
    validation: float,
    test: float,
    group: str | None,
    seed: int,
    layer: str | None,
    use_raw: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Learn a cosine under which profiles of DATA with the same label agree.

    Compares the label that the nearest training profiles vote for, by the learned metric, the plain cosine and PCA, on
    profiles that took no part. Writes a folder for `geneae.CosineMetric.load`.
    """
    folder = Path(output) if output else Path(f"{Path(data).stem}_metric")
    from geneae.folders.outputs import check_writable

    check_writable(folder, overwrite)
    say = _say(quiet)
    from geneae.cli.tables import accuracy_table
    from geneae.data.reading import read_profiles
    from geneae.fitting.cosine_metric import CosineMetric
    from geneae.fitting.metric_comparison import answer, judge_metric
    from geneae.folders.model import load_model

    loaded = None if model is None else load_model(Path(model))
    profiles = read_profiles(data, layer, use_raw)
    say(profiles.describe())
    learner = CosineMetric(components, epsilon=epsilon, epochs=epochs, n_neighbors=neighbors, seed=seed)
    judged = judge_metric(learner, profiles, key, validation, test, group, loaded)
    say(judged.describe())
    say(accuracy_table(judged.table))
    say(answer(judged))
    learner.save(folder, overwrite=overwrite, tables=judged.tables())
    say(f"Written to {folder}: the metric, split.csv, profiles.csv, metrics.csv.")
