"""Settings of a fit, in one frozen record. Nothing heavy is loaded, so that `--help` can read it."""

import math
import os
from dataclasses import dataclass

from geneae.settings.errors import InputError, unknown

LOSS_NAMES = ("mse", "relative-mse", "cosine", "pearson", "combined", "magnitude", "scaled-cosine")
OBJECTIVE_NAMES = ("reconstruction", "simclr", "moco-v2", "moco-v3", "simsiam", "byol", "dino")
VIEW_NAMES = ("thin", "mask", "noise", "crossover", "swap")
NEGATIVE_NAMES = ("cosine-embedding", "ranking", "softmax", "triplet")
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


@dataclass(frozen=True)
class Settings:
    """What a user can choose about a fit. Impossible values are refused."""

    loss: str = "mse"
    """Name of a loss in `geneae.losses`, or a weighted sum: `cosine+0.1*softmax`."""
    objective: str = "reconstruction"
    """`reconstruction`, a name in `geneae.training.selfsupervised.OBJECTIVES`, or such a name joined with it by `+`."""
    views: str = "auto"
    """Names in `geneae.data.augment.VIEWS`, each with `:amount` or without, joined by `+`. `auto`: `thin` for counts,
    else `mask`."""
    agreement: float = 0.1
    """Weight of the agreement of views beside a reconstruction, at least 0."""
    label: str | None = None
    """Column of `obs` that latents are judged by. It takes no part in training, but for the loss `triplet`, which draws
    equal values together."""
    batch_key: str | None = None
    """Column of `obs`, such as the donor, whose values latents are judged by how well they mix. It takes no part in
    training. Needs scib-metrics."""
    n_latent: int = 32
    """Length of the latent."""
    hidden: int = 128
    """Width of the hidden layers."""
    basis: str = "pca"
    """`pca`: a fixed PCA basis of the training profiles around a small network that starts at (shrunken) PCA. `free`:
    the gene-sized matrices are learned."""
    rank: int = 128
    """Components of the PCA basis; at least `n_latent` are taken."""
    init: str = "pca"
    """Start of a free basis: `pca` or `random`."""
    target: str = "auto"
    """`split`: a random half of each profile's molecules predicts the other half. `self`: a profile reconstructs
    itself. `auto`: split for counts, else self."""
    center: str = "none"
    """What the loss subtracts from target and prediction: `none`; `gene`, the gene means; `profile`, each profile's own
    mean over genes."""
    metric: str | None = None
    """Folder of `geneae metric`: the reconstruction loss takes its inner products under that metric, which stays as it
    is (see `geneae.losses.fixed_metric`). Everything that is reported stays plain but what the history says of the
    loss: its value, its cosine and its gradient, and the norms and opposite halves that go with these. None: plain."""
    alpha: float = 0.5
    """Share of the squared error in the loss `combined`, 0 to 1."""
    beta: float = 1.0
    """Weight of the magnitude term in the loss `magnitude`, at least 0."""
    gamma: float = 2.0
    """Power of the loss `scaled-cosine`, at least 1."""
    margin: float | None = None
    """Of the losses `cosine-embedding`, `ranking` and `triplet`. None: for each pair of profiles what makes a perfect
    reconstruction perfect, and 0.2 for `triplet`."""
    negatives: str = "mean"
    """How the loss `ranking` sees the other profiles: `mean`; `hardest`, the nearest one alone; `annealed`, from nearly
    the mean to nearly the hardest as training goes on."""
    temperature: float = 0.1
    """Of the loss `softmax`, and at the end of `annealed`; above 0."""
    latent_norm: bool = False
    """Divide every latent by its norm; needs a random start."""
    cut: float = 1.0
    """Cut-initialisation: initial weights are divided by it; 1 means none."""
    cut_where: str = "all"
    """`encoder`, `decoder` or `all`."""
    cut_bias: str = "homogeneous"
    """`homogeneous`: biases are cut such that every direction stays; `zero`: they start at zero; `scale`: they are
    divided like the weights."""
    target_norm: float | None = None
    """Median norm of the reconstructions at the start (of the latents, where only the encoder is cut)."""
    grad_scale: float = 0.0
    """The gradient of each reconstruction is multiplied by its norm to this power, 0 to 2."""
    optimizer: str = "adamw"
    """`adamw`; `sgd`, gradient descent without momentum; or `sgd-momentum`, with momentum 0.9."""
    n_top_genes: int | None = None
    """Keep the genes of largest variance; None keeps all that are seen in at least three training profiles."""
    scale: bool = False
    """Divide every gene by its deviation."""
    dropout: float = 0.25
    """In the hidden layers, 0 to below 1."""
    n_splits: int | None = None
    """Count splits that training takes in turn; None takes 8, or 4 from 4,096 training profiles on."""
    epochs: int = 60
    """At most; each takes every training profile once."""
    patience: int = 20
    """Epochs without a better validation loss after which training stops."""
    batch_size: int = 256
    """Profiles a step, on all devices together."""
    learning_rate: float = 2e-3
    """Of the optimizer; falls linearly to zero over the second half of the epochs."""
    weight_decay: float = 0.05
    """Decoupled; on MLPs and random matrices, not on linear paths that start at PCA."""
    validation: float = 0.1
    """Fraction of the profiles that choose the epoch."""
    test: float = 0.1
    """Fraction of the profiles that choose nothing and are judged at the end; may be 0."""
    group: str | None = None
    """Column of `obs` whose equal values (a donor's profiles, say) stay in one split."""
    stratify: str | None = None
    """Column of `obs` whose values keep their proportions in every split."""
    seed: int = 0
    """Of everything random."""
    split_seed: int | None = None
    """Of the split and of the halves that profiles are judged on, so that runs of several seeds can share them; None
    takes `seed`."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `mps`."""
    precision: str = "32"
    """`32` or `bf16`."""
    devices: int = 1
    """Devices on each node, a process each, that share every batch."""
    nodes: int = 1
    """Machines that have so many."""

    def __post_init__(self) -> None:
        for name, options in (
            ("basis", BASES),
            ("init", STARTS),
            ("target", TARGETS),
            ("center", CENTERS),
            ("cut_where", CUT_PLACES),
            ("cut_bias", CUT_BIASES),
            ("negatives", NEGATIVES),
            ("optimizer", OPTIMIZERS),
            ("device", DEVICES),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in options:
                raise unknown(name.replace("_", "-"), getattr(self, name), options)
        if self.metric is not None:
            if not isinstance(self.metric, str | os.PathLike):
                raise InputError(
                    f"metric must be the folder of a metric; found {type(self.metric).__name__}. Write it with "
                    "save(folder), and give the folder."
                )
            object.__setattr__(self, "metric", os.fspath(self.metric))  # JSON knows no Path
        whole = ["n_latent", "hidden", "rank", "epochs", "patience", "batch_size", "devices", "nodes"]
        whole += [name for name in ("n_splits", "n_top_genes") if getattr(self, name) is not None]
        for name in whole:
            _check(name, getattr(self, name), "at least 1", getattr(self, name) >= 1)
        _check("seed", self.seed, "at least 0", self.seed >= 0)
        _check("alpha", self.alpha, "between 0 and 1", 0 <= self.alpha <= 1)
        _check("agreement", self.agreement, "at least 0", self.agreement >= 0)
        _check("beta", self.beta, "at least 0", self.beta >= 0)
        _check("gamma", self.gamma, "at least 1", self.gamma >= 1)
        _check("cut", self.cut, "above 0 (1 means no cut)", self.cut > 0)
        if self.target_norm is not None:
            _check("target_norm", self.target_norm, "above 0", 0 < self.target_norm < math.inf)
        _check("grad_scale", self.grad_scale, "between 0 and 2", 0 <= self.grad_scale <= 2)
        _check("temperature", self.temperature, "above 0", self.temperature > 0)
        _check("dropout", self.dropout, "at least 0 and below 1", 0 <= self.dropout < 1)
        _check("learning_rate", self.learning_rate, "above 0", self.learning_rate > 0)
        _check("weight_decay", self.weight_decay, "at least 0", self.weight_decay >= 0)
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


def _check(name: str, value: float, expected: str, is_sound: bool) -> None:
    if not is_sound:
        raise InputError(f"{name.replace('_', '-')} must be {expected}; found {value:g}.")
