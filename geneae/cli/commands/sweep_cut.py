"""Compare cut-initialisation with other learning rates on DATA."""

from pathlib import Path
from typing import Any

import click

from geneae.cli.flags import (
    CUT,
    DATA,
    DECAY,
    FIT_OPTIONS,
    JOBS,
    MATRIX_OPTIONS,
    PATH,
    QUIET,
    RATE,
    SEEDS,
    options,
    several,
)
from geneae.cli.help import Grouped
from geneae.cli.printing import say_unless
from geneae.cli.steps import command_line, is_first, open_grid, run_tasks
from geneae.settings.errors import InputError
from geneae.settings.settings import Settings


@click.command(cls=Grouped, example="sweep-cut data.h5ad -o sweep --loss cosine --basis free --init random")
@DATA
@click.option("-o", "--output", type=PATH, required=True, help="Folder to write; it holds one folder for each run.")
@several("cut", "cuts", "Cut factors, such as 1/3.", "1/3, 1, 3, 9, 15", type=str, metavar="C")
@several(
    "learning_rate",
    "rates",
    "Learning rates, factors above 0; controls are matched to the first.",
    "0.002, then x 1/3, 3, 9, 27",
)
@several("weight_decay", "decays", "Weight decays, factors of at least 0.")
@SEEDS
@JOBS
@options(*(one for one in FIT_OPTIONS if one not in (CUT, RATE, DECAY)), *MATRIX_OPTIONS, QUIET)
def command(
    data: tuple[str, ...],
    output: str,
    cuts: tuple[str, ...],
    rates: tuple[float, ...],
    decays: tuple[float, ...],
    seeds: int,
    jobs: int,
    layer: str | None,
    use_raw: bool,
    gene_names: str | None,
    modality: str | None,
    quiet: bool,
    **fields: Any,
) -> None:
    """Compare cut-initialisation with other learning rates on DATA.

    Shows whether a cut does anything that another learning rate would not. Every cut c is run with every learning rate
    and weight decay; as controls, runs without a cut use the first rate times c and c^2. Cuts are compared at their
    best learning rate and weight decay by validation loss.
    """
    from geneae.data.source import Source
    from geneae.fitting.runs import Request
    from geneae.fitting.sweep import CONTROLS, Sweep, judge_sweep, sweep_tasks

    base = Settings(**fields)
    rate = base.learning_rate
    sweep = Sweep(
        tuple(_fraction(cut) for cut in cuts) or (1 / 3, 1.0, 3.0, 9.0, 15.0),
        rates or (rate, rate / 3, rate * 3, rate * 9, rate * 27),
        decays or (base.weight_decay,),
        seeds,
    )
    folder, say = Path(output), say_unless(quiet or not open_grid(base, jobs))
    tasks = sweep_tasks(base, sweep, folder)
    source = Source(data, layer, use_raw, "no", base.state, base.features, gene_names, modality)
    run_tasks(source, tasks, Request(command_line()), jobs, folder, say)
    if not is_first():
        return
    said = judge_sweep(tasks, sweep, folder)
    if not quiet:
        import pandas as pd

        table = pd.read_csv(folder / CONTROLS).to_string(index=False, float_format="{:.4f}".format)
        say(*table.split("\n"))
        say(
            "difference: mean validation cosine over the epochs minus that of the cut; deviation: its standard "
            "deviation between seeds"
        )
    say(said)
    say(f"Written to {folder}: the tables of the sweep, curves.png, and {folder / 'report.html'}.")


def _fraction(text: str) -> float:
    """A number such as 3, 0.5 or 1/3."""
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"a cut must be a number such as 3 or 1/3; found '{text}'.") from None
