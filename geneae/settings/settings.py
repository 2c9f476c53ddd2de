"""Settings of a fit, in one frozen record. It imports no large library, so that `--help` answers quickly.

Each setting is declared once, here. Its check, its flag with the help text (`geneae.cli.flags`), its key in files
(`geneae.settings.toml`), the keyword of `geneae.Autoencoder`, and its key in the schema and the configuration of the
workflow (`workflows/generate.py`) are generated from this declaration.
"""

import os
from dataclasses import dataclass

from geneae.settings.declaration import COUNT, SEED, Limits, Setting, declared, described, setting
from geneae.settings.errors import InputError
from geneae.settings.families import IN_BATCH_NAMES, LOG_NAMES, LOSS_NAMES, OBJECTIVE_NAMES, VIEW_NAMES
from geneae.settings.loss_terms import learns_from_labels

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
POSITIVES = ("views", "neighbours")
MATRIX_STATES = ("auto", "counts", "normalised", "log", "scaled")
FEATURES = ("genes", "all")


@dataclass(frozen=True)
class Settings:
    """All choices about a fit. Impossible values are refused."""

    loss: str = setting(
        "mse",
        f"Reconstruction loss: {', '.join(LOSS_NAMES)}; losses that compare the profiles of a mini-batch: "
        f"{', '.join(IN_BATCH_NAMES)}; or a weighted sum, such as cosine+0.1*softmax. See "
        "`geneae.losses.reconstruction` and `geneae.losses.in_batch`.",
        family=(*LOSS_NAMES, *IN_BATCH_NAMES),
        metavar="NAME",
    )
    objective: str = setting(
        "reconstruction",
        f"Training objective: {', '.join(OBJECTIVE_NAMES)}; or reconstruction combined with one of the others, such as "
        "simclr+reconstruction. See `geneae.training.selfsupervised`.",
        family=OBJECTIVE_NAMES,
        metavar="NAME",
    )
    views: str = setting(
        "auto",
        f"Random changes that turn a profile into a view: {', '.join(VIEW_NAMES)}, each with or without an amount, "
        "such as thin:0.3+mask:0.2; auto: thin for counts (depths where the encoder starts at posterior scores), "
        "otherwise mask. See `geneae.data.augment`.",
        family=VIEW_NAMES,
        metavar="CHAIN",
    )
    positives: str = setting(
        "views",
        "What is to agree with a view of a profile: another view of it, or a view of a random one of its nearest "
        "neighbours in the latents at the start. Neighbours are sought among the training profiles.",
        choices=POSITIVES,
    )
    agreement: float = setting(
        0.1,
        "Weight of the view loss when it is combined with reconstruction, a factor. The reconstruction has weight 1.",
        limits=Limits(least=0),
    )
    label: str | None = setting(
        None,
        "Column of obs with labels for evaluating the latents; of all losses, only triplet learns from it. Triplet "
        "pulls profiles with equal values together; every other loss trains the autoencoder without the column.",
        metavar="KEY",
    )
    batch_key: str | None = setting(
        None,
        "Column of obs, such as the donor, for evaluating how well its values mix in the latents; needs scib-metrics. "
        "It is not used in training.",
        flag="batch",
        metavar="KEY",
    )
    attainable: bool = setting(
        False,
        "Also estimate what a best possible estimator would reach, to tell whether molecules, profiles or the model "
        "are too few. Takes minutes: two fits of a generative model of the counts. It is not used in training.",
    )
    n_latent: int | None = setting(
        None,
        "Number of latent dimensions.",
        limits=COUNT,
        flag="latent",
        none="32, or the most that the training profiles and genes allow",
    )
    hidden: int = setting(128, "Width of the hidden layers, in units.", limits=COUNT)
    basis: str = setting(
        "pca",
        "Gene basis: fixed PCA, or free (gene-sized matrices are learned). pca: principal components of the training "
        "profiles, around a small network that starts at (shrunken) PCA.",
        choices=BASES,
    )
    rank: int = setting(128, "Number of components of the PCA basis. At least `n_latent` are used.", limits=COUNT)
    init: str = setting("pca", "Initial weights of a free basis.", choices=STARTS)
    target: str = setting(
        "auto",
        "Prediction target: one random half of the molecules from the other half (split), or a profile from itself "
        "(self); auto: split for counts, otherwise self.",
        choices=TARGETS,
    )
    center: str = setting(
        "none",
        "Subtract gene or profile means from target and prediction before the loss. gene: the mean of each gene. "
        "profile: each profile's own mean over genes.",
        choices=CENTERS,
    )
    metric: str | None = setting(
        None,
        "Folder written by geneae metric: the loss compares profiles under that learned metric, which stays fixed. See "
        "`geneae.losses.fixed_metric`. Everything reported is computed without it, except the columns of the history "
        "that describe the loss: its value, its cosine and its gradient, and the norms and opposite halves that belong "
        "to them.",
        metavar="FOLDER",
    )
    alpha: float = setting(0.5, "Share of the squared error in the loss combined.", limits=Limits(least=0, most=1))
    beta: float = setting(1.0, "Weight of the magnitude term in the loss magnitude, a factor.", limits=Limits(least=0))
    gamma: float = setting(2.0, "Exponent of the loss scaled-cosine.", limits=Limits(least=1))
    margin: float | None = setting(
        None,
        "Margin of the losses cosine-embedding, ranking and triplet: a cosine, a difference of cosines and a distance "
        "between latents. A margin set by pair makes the loss of a perfect reconstruction zero.",
        limits=Limits(least=-1),
        none="set by pair of profiles; 0.2 for triplet",
    )
    negatives: str = setting(
        "mean",
        "How the loss ranking combines the other profiles of a mini-batch. mean: all of them. hardest: only the "
        "nearest one. annealed: from nearly the mean to nearly the hardest in the course of training.",
        choices=NEGATIVES,
    )
    temperature: float = setting(
        0.1,
        "Temperature of the loss softmax, and of annealed negatives at the end of training, a factor.",
        limits=Limits(above=0),
    )
    latent_norm: bool = setting(False, "Scale every latent to unit norm (needs --init random).")
    cut: float = setting(
        1.0,
        "Cut-initialisation: divide the initial weights by this factor.",
        limits=Limits(above=0, note="1 means no cut"),
    )
    cut_where: str = setting("all", "Part of the network whose initial weights are cut.", choices=CUT_PLACES)
    cut_bias: str = setting(
        "homogeneous",
        "Initial biases after a cut: directions are kept (homogeneous), zero, or divided like weights (scale).",
        choices=CUT_BIASES,
    )
    target_norm: float | None = setting(
        None,
        "Median norm of the reconstructions before training, in units of the space; the last layer is scaled to reach "
        "it. If only the encoder is cut, it is the median norm of the latents.",
        limits=Limits(above=0),
        none="not set",
    )
    grad_scale: float = setting(
        0.0,
        "Multiply the gradient of each reconstruction by the norm of the reconstruction to this power.",
        limits=Limits(least=0, most=2),
    )
    optimizer: str = setting(
        "adamw",
        "Optimizer: AdamW, or gradient descent without momentum (sgd) or with momentum 0.9 (sgd-momentum).",
        choices=OPTIMIZERS,
    )
    state: str = setting(
        "auto",
        "What the values are; auto: told by all of them. counts: counts, which are also recovered exactly from "
        "normalised values and logarithms of counts, and rounded where some are no whole numbers. normalised: not "
        "logged. log: logarithms. scaled: anything else. Values that are no counts are used as they are.",
        choices=MATRIX_STATES,
    )
    features: str = setting(
        "genes",
        "Leave out features that var['feature_types'] says are no genes, such as antibodies, or keep all.",
        choices=FEATURES,
    )
    n_top_genes: int | None = setting(
        None,
        "Number of highly variable genes to keep, by variance over the training profiles.",
        limits=COUNT,
        none="all genes detected in at least 3 training profiles",
    )
    scale: bool = setting(False, "Divide every gene by its standard deviation over the training profiles.")
    dropout: float = setting(
        0.25, "Fraction of hidden units that each training step drops.", limits=Limits(least=0, below=1)
    )
    n_splits: int | None = setting(
        None,
        "Number of count splits, which the epochs use in turn.",
        limits=COUNT,
        flag="splits",
        none="8, or 4 for at least 4,096 training profiles",
    )
    epochs: int = setting(60, "Maximum number of epochs; each uses every training profile once.", limits=COUNT)
    patience: int = setting(
        20, "Stop when this many epochs have lowered the validation loss by less than a ten-thousandth.", limits=COUNT
    )
    batch_size: int = setting(256, "Profiles per step, over all devices together.", limits=COUNT)
    balance: str | None = setting(
        None,
        "Column of obs, such as the donor, whose values are mixed evenly. Every mini-batch then has nearly the same "
        "share of each value as all training profiles.",
        metavar="KEY",
    )
    learning_rate: float = setting(
        2e-3,
        "Learning rate of the optimizer, a factor; falls linearly to zero over the second half of the epochs.",
        limits=Limits(above=0),
    )
    weight_decay: float = setting(
        0.05,
        "Decoupled weight decay, a factor. It applies to MLPs and randomly initialised matrices, not to linear "
        "paths that start at PCA.",
        limits=Limits(least=0),
    )
    validation: float = setting(
        0.1,
        "Fraction of the profiles in the validation split, which chooses the epoch.",
        limits=Limits(above=0, below=1),
    )
    test: float = setting(
        0.1,
        "Fraction of the profiles in the test split, used only for the final evaluation.",
        limits=Limits(least=0, below=1),
    )
    group: str | None = setting(
        None,
        "Column of obs, such as the donor; profiles with the same value stay in one split.",
        metavar="KEY",
    )
    stratify: str | None = setting(
        None, "Column of obs whose values keep their proportions in every split.", metavar="KEY"
    )
    seed: int = setting(0, "Seed of every random choice, an integer.", limits=SEED)
    split_seed: int | None = setting(
        None,
        "Seed of the split and of the count splits used for evaluation, an integer. It lets runs with different seeds "
        "share them.",
        limits=SEED,
        none="the same as seed",
    )
    device: str = setting(
        "auto", "Device for training; auto takes a GPU for --basis free, where one is quicker.", choices=DEVICES
    )
    precision: str = setting(
        "32", "Floating-point precision of the forward pass, 32-bit or bfloat16.", choices=PRECISIONS
    )
    devices: int = setting(
        1, "Number of devices on each node, with one process each; they share every mini-batch.", limits=COUNT
    )
    nodes: int = setting(
        1, "Number of nodes, each with the same number of devices; started by torchrun or SLURM.", limits=COUNT
    )

    @property
    def seed_of_split(self) -> int:
        """Seed of the split and of the count splits used for evaluation."""
        return self.seed if self.split_seed is None else self.split_seed

    @property
    def size(self) -> int:
        """Number of latents in a fit, which has chosen one where nobody did."""
        assert self.n_latent is not None
        return self.n_latent

    def __post_init__(self) -> None:
        if self.metric is not None:
            if not isinstance(self.metric, str | os.PathLike):
                raise InputError(
                    f"metric must be the folder of a learned metric; found {type(self.metric).__name__}. Write the "
                    "metric with save(folder), and give the folder."
                )
            object.__setattr__(self, "metric", os.fspath(self.metric))  # JSON knows no Path
        _check_all(self, SETTINGS)
        if self.basis == "pca" and self.init == "random":
            raise InputError(
                "--init random needs a learned basis; found --basis pca. Use --basis free with --init random."
            )
        if self.positives == "neighbours" and self.init == "random":
            raise InputError(
                "--positives neighbours needs latents that tell profiles apart at the start; found --init random. Use "
                "--init pca."
            )
        if self.latent_norm and self.init != "random":
            raise InputError("--latent-norm needs a random start; found --init pca. Use --basis free --init random.")
        if self.latent_norm and self.target_norm is not None and self.cut_where == "encoder":
            raise InputError("latents of unit norm cannot start at --target-norm. Use --cut-where decoder or all.")
        if learns_from_labels(self.loss) and self.label is None:
            raise InputError("the loss triplet needs labels; found none. Name a column with --label.")


@dataclass(frozen=True)
class RunOptions:
    """Further choices about a run: which matrix is read and how, and extra outputs, which do not change the weights."""

    layer: str | None = setting(None, "Layer of AnnData to read, or X.", metavar="NAME", none="X, or that of the model")
    use_raw: bool = setting(False, "Read raw instead of X.", flag="raw")
    gene_names: str | None = setting(None, "Column of var that names the genes.", metavar="COLUMN", none="its index")
    modality: str | None = setting(None, "Modality of MuData to read.", metavar="NAME", none="the only one, or rna")
    color: str | None = setting(
        None, "Column of obs that colours the report.", metavar="KEY", none="that of --label, or clusters"
    )
    stream: str = setting(
        "auto",
        "Leave the matrix in its file and read rows as needed; auto: if a fit in memory would need more than half of "
        "the free memory.",
        choices=STREAMS,
    )
    null: bool = setting(
        False,
        "Also fit permuted controls, in which nothing can be learned, to tell poor data from a poor model. Takes three "
        "times as long.",
    )
    log: str | None = setting(None, "Write the history after every epoch into OUTPUT_log.", choices=LOG_NAMES)


@dataclass(frozen=True)
class MetricSettings:
    """All choices about a learned metric. Impossible values are refused."""

    n_components: int = setting(
        32,
        "Number of rows of the learned linear map, in components. At most the dimensions of the profiles are used.",
        limits=COUNT,
        flag="components",
    )
    rank: int = setting(64, "Number of principal components within which the map is learned.", limits=COUNT)
    epsilon: float = setting(
        0.01,
        "Share of the plain inner product in the metric; if it is small, a loss under the metric sees little outside "
        "the map. It is added after the map has been learned; above 0, only the zero profile has length zero.",
        limits=Limits(least=0, below=1),
    )
    temperature: float = setting(
        0.1,
        "Temperature of the neighbour probabilities, in units of a cosine. At low values only the nearest neighbours "
        "count.",
        limits=Limits(above=0),
    )
    epochs: int = setting(30, "Passes over the training profiles.", limits=COUNT)
    batch_size: int = setting(256, "Profiles per step.", limits=COUNT)
    learning_rate: float = setting(
        0.01,
        "Learning rate of Adam, a factor; falls linearly to zero over the second half of the epochs.",
        limits=Limits(above=0),
    )
    n_neighbors: int = setting(
        15,
        "Nearest profiles that vote for a label. They vote in the score and in the choice of the epoch.",
        limits=COUNT,
        flag="neighbors",
    )
    seed: int = setting(0, "Seed of every random choice, an integer.", limits=SEED)

    def __post_init__(self) -> None:
        _check_all(self, METRIC_SETTINGS)


def _check_all(record: object, settings: dict[str, Setting]) -> None:
    """Refuse impossible values of a record, and store the others as plain Python values, which JSON knows."""
    for name, value in list(vars(record).items()):
        object.__setattr__(record, name, settings[name].check(value))


@dataclass(frozen=True)
class TransferSettings:
    """All choices about the transfer of labels. Impossible values are refused."""

    n_neighbors: int = setting(
        20, "Nearest reference profiles that vote for a label, by cosine.", limits=COUNT, flag="neighbors"
    )
    refuse: float = setting(
        0.05,
        "Fraction of profiles like the reference that may be refused as unlike it. With more of them, more of what "
        "really is unlike the reference is refused, too.",
        limits=Limits(least=0, below=1, note="0 refuses none"),
    )
    seed: int = setting(0, "Seed of every random choice, an integer.", limits=SEED)

    def __post_init__(self) -> None:
        _check_all(self, TRANSFER_SETTINGS)


SETTINGS = declared(Settings)
RUN_OPTIONS = declared(RunOptions)
METRIC_SETTINGS = declared(MetricSettings)
TRANSFER_SETTINGS = declared(TransferSettings)
Settings.__doc__ = f"{Settings.__doc__}\n\n{described(SETTINGS)}"
RunOptions.__doc__ = f"{RunOptions.__doc__}\n\n{described(RUN_OPTIONS)}"
MetricSettings.__doc__ = f"{MetricSettings.__doc__}\n\n{described(METRIC_SETTINGS)}"
TransferSettings.__doc__ = f"{TransferSettings.__doc__}\n\n{described(TRANSFER_SETTINGS)}"
