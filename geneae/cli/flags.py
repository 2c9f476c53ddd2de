"""The flags of the commands: names, units, defaults and what they say of themselves in `--help`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from geneae.settings.settings import (
    BASES,
    CENTERS,
    CUT_BIASES,
    CUT_PLACES,
    DEVICES,
    LOSS_NAMES,
    NEGATIVE_NAMES,
    NEGATIVES,
    OBJECTIVE_NAMES,
    OPTIMIZERS,
    PRECISIONS,
    STARTS,
    STREAMS,
    TARGETS,
    VIEW_NAMES,
    Settings,
)

DEFAULTS = Settings()


def option(field: str, text: str, *flags: str, **kind: Any) -> Callable[[Any], Any]:
    """A flag for a field of `Settings`, with its default."""
    names = flags or (f"--{field.replace('_', '-')}",)
    default = getattr(DEFAULTS, field)
    if isinstance(default, int | float) and not isinstance(default, bool):
        kind.setdefault("type", type(default))
    return click.option(*names, field, default=default, help=text, show_default=default is not None, **kind)


def choice(options: tuple[str, ...]) -> dict[str, Any]:
    """The keywords that make an option one of several words."""
    return {"type": click.Choice(options)}


def complete_loss(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Losses for the shell to offer; another word is refused by our own error, which knows the nearest."""
    return [name for name in (*LOSS_NAMES, *NEGATIVE_NAMES) if name.startswith(begun)]


MATRIX_OPTIONS = (
    click.option("--layer", metavar="NAME", help="Layer to read.  [default: X]"),
    click.option("--raw", "use_raw", is_flag=True, help="Read raw in place of X."),
)
STREAM = click.option(
    "--stream",
    type=click.Choice(STREAMS),
    default="auto",
    show_default=True,
    help="Leave the matrix in its file and read rows as needed. auto: where a fit would take half the free memory.",
)
OBJECTIVE = option(
    "objective",
    f"What the encoder learns by: {', '.join(OBJECTIVE_NAMES)}; or one of the latter beside the first, such as "
    "simclr+reconstruction.",
    metavar="NAME",
)
LOSS = option(
    "loss",
    f"Loss of reconstruction: {', '.join(LOSS_NAMES)}; comparing the profiles of a batch: {', '.join(NEGATIVE_NAMES)}; "
    "or a sum: cosine+0.1*softmax.",
    metavar="NAME",
    shell_complete=complete_loss,
)
LATENT = option("n_latent", "Length of the latent, in numbers per profile.", "--latent")
CUT = option("cut", "Cut-initialisation: divide the initial weights by this factor.")
RATE = option(
    "learning_rate",
    "Learning rate of the optimizer, a factor above 0; falls to zero over the second half of the epochs.",
)
DECAY = option("weight_decay", "Decoupled weight decay, a factor of at least 0.")
FIT_OPTIONS = (
    OBJECTIVE,
    option(
        "views",
        f"How views differ from their profile: {', '.join(VIEW_NAMES)}, each with an amount or without, such as "
        "thin:0.3+mask:0.2. auto: thin for counts, else mask.",
        metavar="CHAIN",
    ),
    option("agreement", "Weight of the agreement of views beside a reconstruction, a factor of at least 0."),
    option(
        "label",
        "Column of obs that latents are judged by; of the losses only triplet learns by it.  [default: none]",
        metavar="KEY",
    ),
    option(
        "batch_key",
        "Column of obs, such as the donor, that latents are judged by how well they mix; needs scib-metrics."
        "  [default: none]",
        "--batch",
        metavar="KEY",
    ),
    LOSS,
    option("center", "Subtract from target and prediction before the loss: gene or profile means.", **choice(CENTERS)),
    option(
        "metric",
        "Folder of geneae metric: the loss compares profiles under that metric, which is not learned on; all that is "
        "reported stays plain.  [default: none]",
        metavar="FOLDER",
    ),
    option("alpha", "Share of the squared error in the loss combined, 0 to 1."),
    option("beta", "Weight of the magnitude term in the loss magnitude, a factor of at least 0."),
    option("gamma", "Power of the loss scaled-cosine, at least 1."),
    option(
        "margin",
        "Margin of cosine-embedding, ranking, triplet, a cosine of -1 to 1.  [default: by pair; triplet 0.2]",
        type=float,
    ),
    option("negatives", "How ranking sees other profiles.", **choice(NEGATIVES)),
    option("temperature", "Temperature of softmax, and of annealed negatives at the end, a factor above 0."),
    LATENT,
    option("hidden", "Width of the hidden layers, in units."),
    option("latent_norm", "Bring every latent to unit norm (needs --init random).", "--latent-norm/--no-latent-norm"),
    option("basis", "Gene basis: fixed PCA, or free (gene-sized matrices are learned).", **choice(BASES)),
    option("rank", "Size of the PCA basis, in components."),
    option("init", "Start of a free basis.", **choice(STARTS)),
    option(
        "target",
        "One random half of the molecules predicts the other (split), or a profile itself (self). auto: split for "
        "counts, else self.",
        **choice(TARGETS),
    ),
    CUT,
    option("cut_where", "Where to cut.", **choice(CUT_PLACES)),
    option(
        "cut_bias",
        "Cut biases such that directions stay (homogeneous), start them at zero, or divide them like weights (scale).",
        **choice(CUT_BIASES),
    ),
    option(
        "target_norm",
        "Median norm of reconstructions at the start, in units of the space, by scaling the last layer."
        "  [default: as it falls]",
        type=float,
    ),
    option("grad_scale", "Multiply the gradient of a reconstruction by its norm to this power, 0 to 2."),
    option("optimizer", "AdamW, or gradient descent without momentum, or with momentum 0.9.", **choice(OPTIMIZERS)),
    option("n_top_genes", "Keep so many genes of largest variance.  [default: all in 3 profiles or more]", type=int),
    option("scale", "Divide every gene by its deviation.", "--scale/--no-scale"),
    option("validation", "Fraction of the profiles that choose the epoch, 0 to 1."),
    option("test", "Fraction of the profiles that choose nothing and are judged, 0 to 1."),
    option("group", "Column of obs (a donor, say) whose profiles stay in one split.  [default: none]", metavar="KEY"),
    option(
        "stratify", "Column of obs whose values keep their proportions in every split.  [default: none]", metavar="KEY"
    ),
    option("epochs", "At most so many epochs; each takes every training profile once."),
    option("patience", "Stop after so many epochs without a better validation loss."),
    option("batch_size", "Profiles a step."),
    RATE,
    DECAY,
    option("dropout", "Fraction of the hidden units left out in every step, 0 to below 1."),
    option(
        "n_splits",
        "Count splits that training takes in turn.  [default: 8, or 4 from 4,096 training profiles on]",
        "--splits",
        type=int,
    ),
    option("seed", "Seed of everything random, a whole number of at least 0."),
    option("split_seed", "Seed of the split and the judging halves, a whole number.  [default: --seed]", type=int),
    option("device", "Where to train.", **choice(DEVICES)),
    option("precision", "Bits of the forward pass.", **choice(PRECISIONS)),
    option("devices", "Devices on each node that share every batch."),
    option("nodes", "Machines with so many devices; started by torchrun or SLURM."),
)


def _use_file(ctx: click.Context, _: click.Parameter, path: str | None) -> None:
    """Take defaults from a file of flags, so that what stands on the command line wins."""
    if path is None:
        return
    from geneae.settings.toml import read_flags

    parameters = {flag.removeprefix("--"): one for one in ctx.command.params for flag in one.opts if flag[:2] == "--"}
    known = [flag for flag in parameters if flag not in ("config", "output")]
    found = {parameters[flag]: value for flag, value in read_flags(Path(path), known).items()}
    ctx.default_map = {
        one.name: [value] if one.multiple and isinstance(value, str) else value
        for one, value in found.items()
        if one.name
    }


CONFIG = click.option(
    "--config",
    type=click.Path(),
    is_eager=True,
    expose_value=False,
    callback=_use_file,
    metavar="FILE.toml",
    help="File of flags, such as settings.toml of a run folder; flags given here win.  [default: none]",
)
LOG = click.option(
    "--log",
    type=click.Choice(["csv", "tensorboard"]),
    help="Write the history of every epoch while training, into the folder OUTPUT_log.  [default: none]",
)
COLOR = click.option(
    "--color",
    metavar="KEY",
    help="Column of obs to tell profiles apart by in the report, with a UMAP.  [default: none]",
)
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace an output that is there.")
QUIET = click.option("--quiet", is_flag=True, help="Print errors only.")
MIN_OVERLAP = click.option(
    "--min-overlap",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Refuse data with a smaller share of the model's genes, 0 to 1.",
)


def options(*several: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options, shown in the order given."""

    def add(command: Any) -> Any:
        for one in reversed(several):
            command = one(command)
        return command

    return add
