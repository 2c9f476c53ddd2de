"""Checks that settings suit each other and the profiles, before anything is computed."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from geneae.data.augment import parse_views
from geneae.data.permuted import NULLS
from geneae.data.profiles import Profiles
from geneae.data.states import STATES
from geneae.losses.names import find_loss
from geneae.models.pca import largest_rank
from geneae.settings.errors import InputError, unknown
from geneae.settings.settings import SETTINGS, Settings
from geneae.settings.text import counted, escaped
from geneae.training.selfsupervised import parse_objective

if TYPE_CHECKING:
    from geneae.fitting.cosine_metric import CosineMetric


def check_choices(settings: Settings) -> None:
    """Refuse settings that contradict each other, before any profile is read."""
    check_loss(settings)
    check_objective(settings)
    parse_views(settings.views, "counts")
    open_metric(settings)
    check_batch(settings)


def check_used(*several: Settings) -> None:
    """Refuse settings that none of several fits uses, because their objectives have no part for them."""
    ignored = [_ignored(settings) for settings in several]
    unused = [name for name in ignored[0] if all(name in names for names in ignored)]
    if unused:
        flags = [f"--{SETTINGS[name].flag} {vars(several[0])[name]}" for name in unused]
        raise InputError(
            f"objective {several[0].objective} does not use {' and '.join(flags)}. Leave "
            f"{'it' if len(flags) == 1 else 'them'} out, or choose another --objective."
        )


def _ignored(settings: Settings) -> list[str]:
    """Names of settings other than their defaults that the objective of a fit does not use."""
    name, is_reconstructed = parse_objective(settings.objective)
    unused = ["views"] if name is None else []
    unused += ["agreement"] if name is None or not is_reconstructed else []
    unused += [] if is_reconstructed else ["loss"]
    return [one for one in unused if vars(settings)[one] != SETTINGS[one].default]


def check_loss(settings: Settings) -> str:
    """Centring of the loss. Refuse an unknown loss, and a `center` other than the loss's own centring."""
    own = find_loss(settings.loss).center
    if own is not None and settings.center not in ("none", own):
        raise InputError(
            f"loss {settings.loss} always centres by {own}; found --center {settings.center}. Leave out --center."
        )
    return own or settings.center


def check_objective(settings: Settings) -> tuple[str | None, bool]:
    """Result of `parse_objective`. Refuse an unknown objective, or one that does not suit the other settings."""
    name, is_reconstructed = parse_objective(settings.objective)
    if name is not None and settings.batch_size < 2:
        raise InputError(
            f"objective {settings.objective} needs mini-batches of at least 2 profiles; found --batch-size "
            f"{settings.batch_size}. Use a larger one."
        )
    if name is not None and settings.devices * settings.nodes > 1:
        raise InputError(
            f"objective {settings.objective} trains on one device; found --devices {settings.devices} --nodes "
            f"{settings.nodes}. Leave them out."
        )
    if name is None and settings.positives != "views":
        raise InputError(
            f"--positives {settings.positives} needs an objective that learns from views; found --objective "
            f"{settings.objective}. Leave it out, or use --objective simclr, say."
        )
    if not is_reconstructed and settings.target == "split":
        raise InputError(
            f"--target split needs a reconstruction, but objective {settings.objective} trains no decoder. Leave it "
            f"out, or use --objective {settings.objective}+reconstruction."
        )
    if not is_reconstructed and settings.metric is not None:
        raise InputError(
            f"--metric needs a reconstruction loss, but objective {settings.objective} trains no decoder. Leave it "
            f"out, or use --objective {settings.objective}+reconstruction."
        )
    if name is not None and settings.target_norm is not None:
        raise InputError(
            f"--target-norm needs --objective reconstruction; found --objective {settings.objective}. Leave out one of "
            "them."
        )
    if name is not None and is_reconstructed and find_loss(settings.loss).needs == "pairs":
        raise InputError(
            f"loss {settings.loss} compares the profiles of a mini-batch, and so does objective {settings.objective}. "
            "Use another loss, or --objective reconstruction."
        )
    return name, is_reconstructed


def open_metric(settings: Settings) -> "CosineMetric | None":
    """Learned metric of the loss, or None. Refuse a folder without one, and a metric that was not learned on genes."""
    if settings.metric is None:
        return None
    if escaped(settings.metric) != settings.metric:
        raise InputError(
            f"the name of --metric {settings.metric} must be UTF-8 text without control characters, because "
            "settings.toml holds it. Rename the folder."
        )
    from geneae.fitting.cosine_metric import CosineMetric  # with scikit-learn, which is slow to load

    metric = CosineMetric.load(settings.metric)
    if metric.preprocess_ is None:
        raise InputError(
            f"--metric needs a metric learned on genes; {settings.metric} was learned on an array, or on the latents "
            "of a model. Learn one with geneae metric without --model, or on an AnnData."
        )
    return metric


def check_batch(settings: Settings) -> None:
    """Refuse `--batch` if scib-metrics is not installed."""
    if settings.batch_key is not None and find_spec("scib_metrics") is None:
        raise InputError(
            "--batch needs scib-metrics, which is not installed. Install it with: pip install scib-metrics, or leave "
            "out --batch."
        )


def check_profiles(
    profiles: Profiles, settings: Settings, name: str | None, is_reconstructed: bool, null: str | None
) -> None:
    """Refuse settings and permuted controls that do not suit these profiles or the objective."""
    if null is not None and null not in NULLS:
        raise unknown("null", null, NULLS)
    if null is not None and profiles.is_streamed:
        raise InputError(
            "--null permutes all profiles in memory, but these stay in their file. Use --stream no if they fit into "
            "memory, or leave out --null."
        )
    if profiles.is_streamed and name is not None:
        raise InputError(
            f"objective {settings.objective} draws views of profiles in memory, but these stay in their file. Use "
            "--stream no if they fit into memory, or --objective reconstruction."
        )
    for flag, key in (("--label", settings.label), ("--batch", settings.batch_key)):
        if profiles.is_streamed and key is not None:
            raise InputError(
                f"{flag} evaluates profiles in memory, but these stay in their file. Use --stream no if they fit into "
                f"memory, or leave out {flag}."
            )
    if settings.balance is not None and profiles.is_streamed:
        raise InputError(
            "--balance mixes profiles in memory, but these stay in their file. Use --stream no if they fit into "
            "memory, or leave out --balance."
        )
    if settings.balance is not None and settings.balance not in profiles.obs.columns:
        raise unknown("obs column", settings.balance, profiles.obs.columns)
    if null is not None and not is_reconstructed:
        raise InputError(
            f"--null needs a reconstruction, but objective {settings.objective} trains no decoder. Leave out --null."
        )


def is_split_target(profiles: Profiles, target: str) -> bool:
    """Whether one half of the molecules is to predict the other. Refuse `split` for values other than counts."""
    if target == "split" and profiles.state != "counts":
        raise InputError(
            f"--target split divides molecules and needs counts; {profiles.source}, {profiles.location} holds "
            f"{STATES[profiles.state].noun}. Name the counts with --layer or --raw, or use --target self."
        )
    return target == "split" or (target == "auto" and profiles.state == "counts")


MOST_LATENTS = 32
"""Number of latents where nobody names one and the data allow as many."""


def latents_of(n_latent: int | None, n_train: int, n_genes: int) -> int:
    """Number of latents of a fit: the given one, or 32, or the most that the training profiles span.

    A given number that is larger than they span is refused.
    """
    largest = largest_rank(n_train, n_genes)
    if n_latent is None:
        return min(MOST_LATENTS, largest)
    if n_latent > largest:
        raise InputError(
            f"--latent must be at most {largest} with {counted(n_train, 'training profile')} and "
            f"{counted(n_genes, 'gene')}; found {n_latent}. Use a smaller one."
        )
    return n_latent
