"""Which choices of a fit go together, and with which profiles; said before anything is computed."""

from importlib.util import find_spec

from geneae.data.permuted import NULLS
from geneae.data.profiles import Profiles
from geneae.fitting.cosine_metric import CosineMetric
from geneae.losses.names import find_loss
from geneae.models.pca import largest_rank
from geneae.settings.errors import InputError, unknown
from geneae.settings.settings import Settings
from geneae.training.selfsupervised import parse_objective


def check_choices(settings: Settings) -> None:
    """Refuse what can be refused before any profile is read."""
    check_loss(settings)
    check_objective(settings)
    open_metric(settings)
    check_batch(settings)


def check_loss(settings: Settings) -> str:
    """The centring that the loss will have; an unknown loss, or one with a centring of its own, is refused."""
    own = find_loss(settings.loss).center
    if own is not None and settings.center not in ("none", own):
        raise InputError(f"loss {settings.loss} is centred by {own} itself; leave out --center {settings.center}.")
    return own or settings.center


def check_objective(settings: Settings) -> tuple[str | None, bool]:
    """What `parse_objective` gives; an unknown objective, or one that the other settings do not suit, is refused."""
    name, is_reconstructed = parse_objective(settings.objective)
    if name is not None and settings.batch_size < 2:
        raise InputError(f"objective {settings.objective} needs steps of at least 2 profiles; found --batch-size 1.")
    if name is not None and settings.devices * settings.nodes > 1:
        raise InputError(f"objective {settings.objective} trains on one device; found {settings.devices} a node.")
    if not is_reconstructed and settings.target == "split":
        raise InputError(
            f"--target split is of reconstruction; objective {settings.objective} has none. Leave it out, or use "
            f"--objective {settings.objective}+reconstruction."
        )
    if not is_reconstructed and settings.metric is not None:
        raise InputError(
            f"--metric is of the reconstruction loss; objective {settings.objective} has none. Leave it out, or use "
            f"--objective {settings.objective}+reconstruction."
        )
    if name is not None and settings.target_norm is not None:
        raise InputError(
            f"--target-norm is of reconstructions alone; leave it out with --objective {settings.objective}."
        )
    if name is not None and is_reconstructed and find_loss(settings.loss).needs == "pairs":
        raise InputError(
            f"loss {settings.loss} compares the profiles of a batch, as objective {settings.objective} does already. "
            "Take another loss, or --objective reconstruction."
        )
    return name, is_reconstructed


def open_metric(settings: Settings) -> CosineMetric | None:
    """The metric of the loss, where there is one; a folder without one, or one that knows no genes, is refused."""
    if settings.metric is None:
        return None
    metric = CosineMetric.load(settings.metric)
    if metric.preprocess_ is None:
        raise InputError(
            f"the metric of a loss must be one on genes; {settings.metric} was learned on an array, or on the latents "
            "of a model. Learn it by geneae metric without --model, or on AnnData."
        )
    return metric


def check_batch(settings: Settings) -> None:
    """Refuse batches where the package that judges their mixing is not installed."""
    if settings.batch_key is not None and find_spec("scib_metrics") is None:
        raise InputError(
            "--batch judges latents by scib-metrics, which is not installed. Install it with: pip install "
            "'geneae[scib]', or leave it out."
        )


def check_profiles(
    profiles: Profiles, settings: Settings, name: str | None, is_reconstructed: bool, null: str | None
) -> None:
    """Refuse what these profiles, or an objective of that name, cannot give."""
    if null is not None and null not in NULLS:
        raise unknown("null", null, NULLS)
    if null is not None and profiles.is_streamed:
        raise InputError("a null permutes all profiles and needs them in memory. Use --stream no, or leave out --null.")
    if profiles.is_streamed and name is not None:
        raise InputError(
            f"objective {settings.objective} draws views of profiles in memory, but these stay in their file. Use "
            "--stream no if they fit into memory, or --objective reconstruction."
        )
    for flag, key in (("--label", settings.label), ("--batch", settings.batch_key)):
        if profiles.is_streamed and key is not None:
            raise InputError(
                f"{flag} judges profiles in memory, but these stay in their file. Use --stream no if they fit into "
                "memory, or leave it out."
            )
    if null is not None and not is_reconstructed:
        raise InputError(f"nulls are of reconstruction; objective {settings.objective} has none. Leave out --null.")


def is_split_target(profiles: Profiles, target: str) -> bool:
    """Whether one half of the molecules is to predict the other; refused where there are none to divide."""
    if target == "split" and profiles.state != "counts":
        raise InputError(
            f"--target split divides molecules and needs counts; {profiles.source}, {profiles.location} holds "
            f"{profiles.state.replace('_', '-')} values. Name the counts with --layer, or use --target self."
        )
    return target == "split" or (target == "auto" and profiles.state == "counts")


def check_sizes(n_latent: int, n_train: int, n_genes: int) -> None:
    """Refuse a latent that has more numbers than the training profiles have directions."""
    largest = largest_rank(n_train, n_genes)
    if n_latent > largest:
        raise InputError(
            f"the latent must be at most {largest}, as there are {n_train} training profiles and {n_genes} genes; "
            f"found {n_latent}. Ask for a smaller latent."
        )
