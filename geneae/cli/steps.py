"""Steps shared by several commands. They import what they need when they run, so that `--help` is fast."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from geneae.cli.printing import Say
from geneae.settings.errors import InputError, Interrupted, listed
from geneae.settings.settings import Settings
from geneae.settings.text import shell_line

if TYPE_CHECKING:
    from geneae.data.preprocess import Expression
    from geneae.data.profiles import Profiles
    from geneae.data.source import Source
    from geneae.fitting.grid import Task
    from geneae.fitting.runs import Request
    from geneae.models.model import Model

RESUME = "Run the same command again to resume:"


def command_line() -> str:
    """The running command, quoted for a shell."""
    return shell_line(["geneae", *sys.argv[1:]])


def refuse_others(*used: str, why: str) -> None:
    """Refuse flags that the running command was given and does not use.

    Parameters
    ----------
    used
        Names of the arguments that it uses.
    why
        Why it does not use the others, in words for the message.
    """
    ctx = click.get_current_context()
    given = [
        one.opts[-1]
        for one in ctx.command.params
        if one.name not in used and ctx.get_parameter_source(str(one.name)) not in (ParameterSource.DEFAULT, None)
    ]
    if given:
        raise InputError(f"{why}, without {listed(given)}. Leave out {'this flag' if len(given) == 1 else 'these'}.")


def is_first() -> bool:
    """Whether this is the one process that prints, of several that train together."""
    if "geneae.training.devices" not in sys.modules:  # importing it loads torch
        return True
    from geneae.training.devices import is_first

    return is_first()


def say_what_is_read(profiles: "Profiles", say: Say) -> None:
    """Print what was read, how it was understood, and what somebody should know about it."""
    say(profiles.describe(), *profiles.said)
    for note in profiles.notes.values():
        say(f"Note: {note}")


def match(model: "Model", source: "Source", min_overlap: float, say: Say) -> tuple["Profiles", "Expression"]:
    """Read profiles from the matrix that a model was fitted on, match them to its genes, and print what was found."""
    from geneae.data.gene_names import match_genes
    from geneae.models.model import reading_of

    state, features = reading_of(model)  # as they were said at the fit, where nobody says them now
    source = replace(
        source,
        state=state if source.state == "auto" else source.state,
        features=features if source.features == "genes" else source.features,
    )
    profiles = source.read_like(model.location, model.gene_names)
    say_what_is_read(profiles, say)
    if profiles.location != model.location:
        say(f"The model was fitted on {model.location}; {profiles.location} is read, as given.")
    elif model.location != "X":
        say(f"{model.location} is read, because the model was fitted on it; --layer or --raw names another matrix.")
    used = None if profiles.origin is None else profiles.origin.choice.gene_names
    if used is not None and source.gene_names is None:
        say(f"Genes are named by var column '{used}', as at the fit; --gene-names index names them by the index.")
    expression, _ = model.preprocess.match(profiles, min_overlap)
    say(match_genes(model.preprocess.genes, profiles.genes).sentence())
    for sentence in [] if expression.coverage is None else expression.coverage.sentences():
        say(sentence)
    return profiles, expression


def open_grid(base: Settings, jobs: int) -> bool:
    """Start the processes that share every fit of a grid; return whether this one writes and prints."""
    if base.devices * base.nodes == 1:
        return True
    if jobs > 1:
        raise InputError(
            f"--jobs {jobs} runs several fits at a time, but --devices or --nodes shares each fit between processes. "
            "Give only one of them."
        )
    from geneae.training.devices import open_processes

    open_processes(base)
    return is_first()


def run_tasks(source: "Source", tasks: "list[Task]", request: "Request", jobs: int, folder: Path, say: Say) -> None:
    """Run every task that has not been run yet, and print the progress."""
    from geneae.fitting.checks import check_choices
    from geneae.fitting.grid import run_grid
    from geneae.fitting.runs import writing_alone
    from geneae.folders.manifest import OF_GRIDS
    from geneae.folders.outputs import check_addable, check_apart

    for settings in dict.fromkeys(replace(task.settings, seed=0) for task in tasks):
        check_choices(settings)
    check_apart(folder, *source.paths, *(task.settings.metric for task in tasks))
    check_addable(folder, OF_GRIDS)
    seconds: list[float] = []
    done = run_grid(source, tasks, request, jobs)
    try:
        with writing_alone(folder):
            for number, (task, taken) in enumerate(done, start=1):
                seconds += [taken] if taken else []
                left = (len(tasks) - number) * (sum(seconds) / len(seconds) if seconds else 0) / jobs
                how = f"{taken:.0f} s" if taken else "already done"
                name = f"{task.configuration}, seed {task.settings.seed}"
                say(f"{number}/{len(tasks)}  {name}: {how}" + f"; about {left:.0f} s left" * (number < len(tasks)))
    except Interrupted as stop:
        raise Interrupted(stop.number, f"{RESUME}\n{request.command}") from None
    except Exception as error:
        error.add_note(f"{RESUME}\n{request.command}")  # printed where the system, such as a full disk, is to blame
        raise
