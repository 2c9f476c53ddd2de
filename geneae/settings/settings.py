"""Settings of a fit, in one frozen record. Nothing heavy is loaded, so that `--help` can read it.

Each setting is declared once, here. Made of that are its check, its flag with its help (`geneae.cli.flags`), its key in
files (`geneae.settings.toml`), the keyword of `geneae.Autoencoder`, and its key in the schema and the configuration of
the workflow (`workflows/generate.py`).
"""

import math
import os
from dataclasses import dataclass

from geneae.settings.declaration import COUNT, Limits, declared, described, setting
from geneae.settings.errors import InputError
from geneae.settings.families import IN_BATCH_NAMES, LOSS_NAMES, OBJECTIVE_NAMES, VIEW_NAMES

BASES = ("pca", "free")
STARTS = ("pca", "random")
TARGETS = ("auto", "split", "self")
CENTERS = ("none", "gene", "profile")
CUT_PLACES = ("encoder", "decoder", "all")
CUT_BIASES = ("homogeneous", "zero", "scale")
NEGATIVES = ("mean", "annealed", "hardest")
OPTIMIZERS = ("adamw", "sgd", "sgd-momentum")
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("32", "bf16")
STREAMS = ("auto", "yes", "no")
LOGS = ("csv", "tensorboard")


@dataclass(frozen=True)
class Settings:
    """What a user can choose about a fit. Impossible values are refused."""

    loss: str = setting(
        "mse",
        f"Loss of reconstruction: {', '.join(LOSS_NAMES)}; comparing the profiles of a batch: "
        f"{', '.join(IN_BATCH_NAMES)}; or a weighted sum: cosine+0.1*softmax. See `geneae.losses`.",
        family=(*LOSS_NAMES, *IN_BATCH_NAMES),
        metavar="NAME",
    )
    objective: str = setting(
        "reconstruction",
        f"What the encoder learns by: {', '.join(OBJECTIVE_NAMES)}; or reconstruction and one of the others, as in "
        "simclr+reconstruction. See `geneae.training.selfsupervised`.",
        family=OBJECTIVE_NAMES,
        metavar="NAME",
    )
    views: str = setting(
        "auto",
        f"How views differ from their profile: {', '.join(VIEW_NAMES)}, each with an amount or without, such as "
        "thin:0.3+mask:0.2; auto: thin for counts, else mask. See `geneae.data.augment`.",
        family=VIEW_NAMES,
        metavar="CHAIN",
    )
    agreement: float = setting(
        0.1, "Weight of the agreement of views alongside a reconstruction, a factor.", limits=Limits(least=0)
    )
    label: str | None = setting(
        None,
        "Column of obs that latents are judged by; of the losses only triplet learns by it. That loss draws profiles "
        "with equal values together; no other training sees the column.",
        metavar="KEY",
    )
    batch_key: str | None = setting(
        None,
        "Column of obs, such as the donor, that latents are judged by how well they mix; needs scib-metrics. It takes "
        "no part in training.",
        flag="batch",
        metavar="KEY",
    )
    n_latent: int = setting(32, "Length of the latent, in numbers per profile.", limits=COUNT, flag="latent")
    hidden: int = setting(128, "Width of the hidden layers, in units.", limits=COUNT)
    basis: str = setting(
        "pca",
        "Gene basis: fixed PCA, or free (gene-sized matrices are learned). pca: a basis of the training profiles "
        "around a small network that starts at (shrunken) PCA.",
        choices=BASES,
    )
    rank: int = setting(128, "Size of the PCA basis, in components. At least `n_latent` are taken.", limits=COUNT)
    init: str = setting("pca", "Start of a free basis.", choices=STARTS)
    target: str = setting(
        "auto",
        "What is predicted: one random half of the molecules by the other (split), or a profile by itself (self); "
        "auto: split for counts, else self.",
        choices=TARGETS,
    )
    center: str = setting(
        "none",
        "Subtract from target and prediction before the loss: gene or profile means. gene: the mean of each gene. "
        "profile: each profile's own mean over genes.",
        choices=CENTERS,
    )
    metric: str | None = setting(
        None,
        "Folder of geneae metric: the loss compares profiles under that metric, which is not learned on; all that is "
        "reported stays plain. See `geneae.losses.fixed_metric`. What is reported is plain but for what the history "
        "says of the loss: its value, its cosine and its gradient, and the norms and opposite halves that go with "
        "these.",
        metavar="FOLDER",
    )
    alpha: float = setting(0.5, "Share of the squared error in the loss combined.", limits=Limits(least=0, most=1))
    beta: float = setting(1.0, "Weight of the magnitude term in the loss magnitude, a factor.", limits=Limits(least=0))
    gamma: float = setting(2.0, "Power of the loss scaled-cosine.", limits=Limits(least=1))
    margin: float | None = setting(
        None,
        "Margin of cosine-embedding, ranking and triplet: a cosine, a difference of cosines, a distance of latents. "
        "By pair: what makes a perfect reconstruction perfect.",
        limits=Limits(least=-1),
        none="by pair; triplet 0.2",
    )
    negatives: str = setting(
        "mean",
        "How ranking sees other profiles. mean: all of them. hardest: the nearest one alone. annealed: from nearly the "
        "mean to nearly the hardest as training goes on.",
        choices=NEGATIVES,
    )
    temperature: float = setting(
        0.1,
        "Temperature of softmax, and of annealed negatives at the end, a factor.",
        limits=Limits(above=0),
    )
    latent_norm: bool = setting(False, "Bring every latent to unit norm (needs --init random).")
    cut: float = setting(
        1.0,
        "Cut-initialisation: divide the initial weights by this factor.",
        limits=Limits(above=0, note="1 means no cut"),
    )
    cut_where: str = setting("all", "Where to cut.", choices=CUT_PLACES)
    cut_bias: str = setting(
        "homogeneous",
        "Cut biases such that directions stay (homogeneous), start them at zero, or divide them like weights (scale).",
        choices=CUT_BIASES,
    )
    target_norm: float | None = setting(
        None,
        "Median norm of reconstructions at the start, in units of the space, by scaling the last layer. Where only the "
        "encoder is cut: of the latents.",
        limits=Limits(above=0),
        none="as it falls",
    )
    grad_scale: float = setting(
        0.0, "Multiply the gradient of a reconstruction by its norm to this power.", limits=Limits(least=0, most=2)
    )
    optimizer: str = setting(
        "adamw", "AdamW, or gradient descent without momentum, or with momentum 0.9.", choices=OPTIMIZERS
    )
    n_top_genes: int | None = setting(
        None, "Keep so many genes of largest variance.", limits=COUNT, none="all in 3 training profiles or more"
    )
    scale: bool = setting(False, "Divide every gene by its deviation.")
    dropout: float = setting(
        0.25, "Fraction of the hidden units left out in every step.", limits=Limits(least=0, below=1)
    )
    n_splits: int | None = setting(
        None,
        "Count splits that training takes in turn.",
        limits=COUNT,
        flag="splits",
        none="8, or 4 from 4,096 training profiles on",
    )
    epochs: int = setting(60, "At most so many epochs; each takes every training profile once.", limits=COUNT)
    patience: int = setting(20, "Stop after so many epochs without a better validation loss.", limits=COUNT)
    batch_size: int = setting(256, "Profiles a step, on all devices together.", limits=COUNT)
    learning_rate: float = setting(
        2e-3,
        "Learning rate of the optimizer, a factor; falls linearly to zero over the second half of the epochs.",
        limits=Limits(above=0),
    )
    weight_decay: float = setting(
        0.05,
        "Decoupled weight decay, a factor. On MLPs and random matrices, not on linear paths that start at PCA.",
        limits=Limits(least=0),
    )
    validation: float = setting(0.1, "Fraction of the profiles that choose the epoch.", limits=Limits(above=0, below=1))
    test: float = setting(
        0.1, "Fraction of the profiles that choose nothing and are judged at the end.", limits=Limits(least=0, below=1)
    )
    group: str | None = setting(None, "Column of obs (a donor, say) whose profiles stay in one split.", metavar="KEY")
    stratify: str | None = setting(
        None, "Column of obs whose values keep their proportions in every split.", metavar="KEY"
    )
    seed: int = setting(0, "Seed of everything random, a whole number.", limits=Limits(least=0))
    split_seed: int | None = setting(
        None,
        "Seed of the split and the judging halves, a whole number. Runs of several seeds can share them by it.",
        limits=Limits(least=0),
        none="the same as seed",
    )
    device: str = setting("auto", "Where to train; auto takes a GPU where there is one.", choices=DEVICES)
    precision: str = setting("32", "Bits of the forward pass.", choices=PRECISIONS)
    devices: int = setting(1, "Devices on each node, a process each, that share every batch.", limits=COUNT)
    nodes: int = setting(1, "Machines with so many devices; started by torchrun or SLURM.", limits=COUNT)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            SETTINGS[name].check(value)
        if self.metric is not None:
            if not isinstance(self.metric, str | os.PathLike):
                raise InputError(
                    f"metric must be the folder of a metric; found {type(self.metric).__name__}. Write it with "
                    "save(folder), and give the folder."
                )
            object.__setattr__(self, "metric", os.fspath(self.metric))  # JSON knows no Path
        if self.basis == "pca" and self.init == "random":
            raise InputError("a random start needs a basis that is learned. Use --basis free with --init random.")
        if self.latent_norm and self.init != "random":
            raise InputError("latents of unit norm cannot start at PCA. Use --basis free --init random.")
        if self.latent_norm and self.target_norm is not None and self.cut_where == "encoder":
            raise InputError("latents of unit norm have no other norm to start at. Use --cut-where decoder or all.")
        terms = loss_terms(self.loss)
        if any(name == "triplet" for _, name in terms) and self.label is None:
            raise InputError(
                "the loss triplet compares profiles of equal and unequal label. Name a column with --label."
            )


@dataclass(frozen=True)
class RunOptions:
    """What else a user can choose about a run: what is read, what is made beside the fit; no weight changes by it."""

    layer: str | None = setting(None, "Layer to read.", metavar="NAME", none="X")
    use_raw: bool = setting(False, "Read raw in place of X.", flag="raw")
    color: str | None = setting(
        None, "Column of obs to tell profiles apart by in the report, with a UMAP.", metavar="KEY"
    )
    stream: str = setting(
        "auto",
        "Leave the matrix in its file and read rows as needed; auto: where a fit would take half the free memory.",
        choices=STREAMS,
    )
    null: bool = setting(
        False,
        "Fit what has nothing to learn in it too, to tell poor data from a poor model. Takes three times as long.",
    )
    log: str | None = setting(
        None, "Write the history of every epoch while training, into the folder OUTPUT_log.", choices=LOGS
    )


SETTINGS = declared(Settings)
RUN_OPTIONS = declared(RunOptions)
Settings.__doc__ = f"{Settings.__doc__}\n\n{described(SETTINGS)}"
RunOptions.__doc__ = f"{RunOptions.__doc__}\n\n{described(RUN_OPTIONS)}"


def part_of_labels(loss: str, metric: str | None) -> str:
    """Whether labels `took no part in training`, in words; those that a metric was learned from may be any."""
    if metric is not None:
        return "may have taken part in training, by the metric of the loss"
    return "took part in training, by the loss triplet" if "triplet" in loss else "took no part in training"


def loss_terms(loss: str) -> list[tuple[float, str]]:
    """Weights and names of a sum such as `cosine+0.1*softmax`."""
    terms = []
    for term in loss.split("+"):
        weight, star, name = term.rpartition("*")
        try:
            terms.append((float(weight) if star else 1.0, name.strip()))
        except ValueError:
            raise InputError(
                f"the weight of a loss must be a number, as in cosine+0.1*softmax; found '{weight}' in '{loss}'."
            ) from None
        if not 0 < terms[-1][0] < math.inf:
            raise InputError(f"the weight of a loss must be above 0; found {terms[-1][0]:g} in '{loss}'.")
    return terms
