"""Compare losses on DATA, or finished run folders."""

from pathlib import Path
from typing import Any

import click

from geneae.cli.flags import (
    COLOR,
    CONFIG,
    CUT,
    DATA,
    FIT_OPTIONS,
    JOBS,
    LATENT,
    LOSS,
    MATRIX_OPTIONS,
    OBJECTIVE,
    PATH,
    QUIET,
    SEEDS,
    options,
    several,
)
from geneae.cli.help import Grouped
from geneae.cli.printing import say_unless
from geneae.cli.steps import command_line, is_first, open_grid, refuse_others, run_tasks
from geneae.settings.settings import Settings


@click.command(cls=Grouped, example="compare data.h5ad --loss mse --loss cosine --seeds 5 -o cmp")
@DATA
@click.option("-o", "--output", type=PATH, required=True, help="Folder to write; it holds one folder for each run.")
@several("objective", "objectives", "Objectives to combine with the losses.")
@several("loss", "losses", "Losses to compare; the first is the reference.", "mse, cosine")
@several("cut", "cuts", "Cut factors to combine with the losses.")
@several("n_latent", "latents", "Lengths of the latent to combine with the losses, in numbers per profile.")
@SEEDS
@JOBS
@COLOR
@options(*(one for one in FIT_OPTIONS if one not in (OBJECTIVE, LOSS, LATENT, CUT)), *MATRIX_OPTIONS, CONFIG, QUIET)
def command(
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
    gene_names: str | None,
    modality: str | None,
    quiet: bool,
    **fields: Any,
) -> None:
    """Compare losses on DATA, or finished run folders.

    A folder of geneae judge is compared as one run of each program.

    Every configuration (an objective, a loss, a cut and a length of the latent) is run with the same seeds on one
    split. Each run is an ordinary run folder inside the output; finished runs are not run again. Differences are taken
    profile by profile against the first configuration, with --color also for each value of that column.
    """
    folder, say = Path(output), say_unless(quiet)
    if any((Path(data[0]) / name).is_file() for name in ("config.json", "judged.json")):
        from geneae.fitting.compare import compare_runs

        refuse_others("data", "output", "color", "quiet", why="finished runs are compared as they are")
        said = compare_runs([Path(run) for run in data], folder, color=color)
    else:
        base = Settings(**fields)
        color = color or base.label
        say = say_unless(quiet or not open_grid(base, jobs))
        from geneae.data.source import Source
        from geneae.fitting.checks import check_used
        from geneae.fitting.compare import compare_runs
        from geneae.fitting.grid import grid
        from geneae.fitting.runs import Request

        values: dict[str, list[Any]] = {
            "objective": list(objectives) or [base.objective],
            "loss": list(losses) or ([base.loss] if objectives else ["mse", "cosine"]),
            "cut": list(cuts) or [base.cut],
            "n_latent": list(latents) or [base.n_latent],
        }
        tasks = grid(base, values, seeds, folder)
        check_used(*(task.settings for task in tasks))
        if len({task.configuration for task in tasks}) == 1:
            say(
                f"Note: {tasks[0].configuration} is the only configuration, so that only its seeds are shown. Another "
                "--loss, --objective, --cut or --latent would be compared with it."
            )
        source = Source(data, layer, use_raw, "no", base.state, base.features, gene_names, modality)
        run_tasks(source, tasks, Request(command_line(), color), jobs, folder, say)
        if not is_first():
            return
        said = compare_runs(
            [task.folder for task in tasks], folder, {task.folder: task.configuration for task in tasks}, color
        )
    say(said)
    say(f"Written to {folder}: the tables of the comparison, and {folder / 'report.html'}.")
