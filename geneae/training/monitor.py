"""Norms, gradients and latents during training, and the collapses that they reveal."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from geneae.losses.in_batch import indifference
from geneae.losses.inner_products import InnerProducts
from geneae.losses.reconstruction import cosine_similarity, has_direction
from geneae.training.objectives import Reconstruction

NEAR_ANTIPODAL = -0.9  # cosine below which a prediction points away from its target
PERSISTENCE = 3  # consecutive epochs after which a collapse is reported
# collapses that end a training; a frozen cosine may still rise, and is reported if it lasts to the end
STOPPING = ("hinge",)
LEVEL_WIDTH, SPREAD = 0.05, 0.1  # collapsed hinge: distance of loss from level, spread of scores relative to the level
TOO_LONG, GRADIENT_FALL = 10.0, 0.1  # frozen cosine: norm relative to the target, gradient relative to the first
AT_MEAN = 0.005  # excess over the cosine of the mean profile up to which a cosine counts as equal to it

COLLAPSES = {
    "hinge": "Training stopped: the ranking loss has collapsed. All scores are equal, so the loss equals its margin. "
    "Use --loss softmax instead of a hinge, --negatives mean, fewer negatives (a smaller --batch-size), or a smaller "
    "initial norm (--target-norm); --latent-norm alone is not enough if biases can make all latents equal.",
    "frozen": "The cosine is frozen: reconstructions have become so long that the gradient, which is divided by their "
    "norm, has vanished, while the cosine is still that of the mean profile. Lower --learning-rate, start with a "
    "smaller norm (--target-norm), or use --grad-scale 2.",
}
"""Message for each collapse, with its remedies."""


def effective_rank(latent: Tensor) -> float:
    """exp of the entropy of the normalised eigenvalues of the covariance, 1 to n_latent (Roy and Vetterli 2007).

    NaN for fewer than two profiles, and for latents that are not finite, as before a loss runs away.
    """
    if len(latent) < 2 or not torch.isfinite(latent).all():
        return float("nan")
    eigenvalues = torch.linalg.eigvalsh(torch.cov(latent.double().T).reshape(latent.shape[1], -1)).clamp(min=0)
    return perplexity(eigenvalues)


def perplexity(amounts: Tensor) -> float:
    """exp of the entropy of the shares of `amounts`: the number of equal shares that have the same entropy."""
    share = amounts.double() / amounts.double().sum()
    return float(torch.exp(-torch.special.xlogy(share, share).sum()))


def gradient_norms(objective: Reconstruction, products: InnerProducts) -> Tensor:
    """(n_profiles,) norm of the gradient of each profile's loss with respect to its (centred) prediction.

    The gradient is a x + 2 b y + sum_j D_j x_j, where a, b and D are the derivatives with respect to <x, y>, |y|^2 and
    the <y, x_j> of a mini-batch; its norm follows from inner products alone. For the cosine loss it is
    sin(angle) / |y|. `grad_scale` is not applied. NaN if the loss uses other targets whose inner products are unknown.
    """
    products = _double(products)
    batch = products.batch
    with torch.enable_grad():
        leaves = [products.cross.requires_grad_(), products.predicted.requires_grad_()]
        leaves += [batch.cross.requires_grad_()] if batch is not None else []
        total = objective.by_profile(products).sum()
        if not total.requires_grad:
            return torch.zeros_like(products.target)
        found = torch.autograd.grad(total, leaves, allow_unused=True)
    own, radial, *rest = (torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True))
    cross, predicted = products.cross.detach(), products.predicted.detach()
    if batch is None:
        squared = own**2 * products.target + 4 * own * radial * cross + 4 * radial**2 * predicted
    else:
        if batch.targets is None:
            return torch.full_like(predicted, torch.nan)
        by_target = rest[0] + torch.diag(own)
        squared = ((by_target @ batch.targets) * by_target).sum(1) + 4 * radial**2 * predicted
        squared = squared + 4 * radial * (by_target * batch.cross.detach()).sum(1)
    return squared.clamp(min=0).sqrt()


def _double(products: InnerProducts) -> InnerProducts:
    """Detached copy in float64, which keeps the digits of differences between nearly equal squares."""
    cross, target, predicted = (
        tensor.detach().double().clone() for tensor in (products.cross, products.target, products.predicted)
    )
    batch = products.batch
    if batch is not None:
        targets = None if batch.targets is None else batch.targets.double()
        latent = batch.latent.detach().double()
        batch = replace(batch, cross=batch.cross.detach().double().clone(), targets=targets, latent=latent)
    return InnerProducts(cross, target, predicted, products.n_genes, batch)


@dataclass
class EpochStatistics:
    """Columns of the history about norms, gradients and latents, collected over mini-batches."""

    objective: Reconstruction
    """Objective whose centring and loss are used."""
    norms: list[Tensor] = field(default_factory=list)
    """Norms of the (centred) reconstructions."""
    latents: list[Tensor] = field(default_factory=list)
    """Latents of the profiles."""
    gradients: list[Tensor] = field(default_factory=list)
    """Norms of the gradients with respect to the reconstructions."""
    cosines: list[Tensor] = field(default_factory=list)
    """Cosines of (centred) reconstructions and targets; NaN for a target without a direction."""
    hinges: list[tuple[float, float, float]] = field(default_factory=list)
    """Results of `geneae.losses.in_batch.indifference`, one per mini-batch."""

    def add(self, products: InnerProducts, latent: Tensor) -> None:
        """Add a mini-batch, as the loss sees it."""
        has_norm = has_direction(products, self.objective.settings)
        self.norms.append(products.predicted.double().sqrt())
        self.latents.append(latent.float())
        self.gradients.append(gradient_norms(self.objective, products))
        found = torch.where(products.predicted > 0, cosine_similarity(products), 0.0)
        self.cosines.append(torch.where(has_norm, found, torch.nan))
        batch = products.batch
        if self.objective.loss.ranks and batch is not None and batch.targets is not None:
            self.hinges.append(indifference(products, self.objective.settings))

    def means(self, join: Callable[[list[Tensor]], Tensor] = torch.cat) -> dict[str, float]:
        """Columns of the history; `join` concatenates the numbers of all mini-batches and processes.

        Norms are medians, with their coefficient of variation. `gradient_norm` is the mean over profiles of the norm of
        the gradient with respect to the reconstruction, `gradient_times_norm` the mean of its product with the norm of
        the reconstruction: for the cosine loss, the mean sine of the angle. `opposite_halves` is the share of
        reconstructions with a cosine below 0 (1/2 for independent isotropic pairs in every dimension), `near_antipodal`
        the share below -0.9. `loss_cosine` has the centring of the loss; `masked_targets` counts targets without a
        direction. If the loss has a learned metric, it applies to lengths and cosines, except those of latents.
        """
        norms, gradients, cosines = (join(found) for found in (self.norms, self.gradients, self.cosines))
        columns = zip(*(latent.unbind(1) for latent in self.latents), strict=True)
        latents = torch.stack([join(list(column)) for column in columns], 1)
        known = ~cosines.isnan()
        lengths = latents.norm(dim=1).double()
        row = {
            "reconstruction_norm": float(norms.median()),
            "reconstruction_norm_cv": _variation(norms),
            "latent_norm": float(lengths.median()),
            "latent_norm_cv": _variation(lengths),
            "gradient_norm": float(gradients[known].mean()),
            "gradient_times_norm": float((gradients * norms)[known].mean()),
            "opposite_halves": float((cosines[known] < 0).double().mean()),
            "near_antipodal": float((cosines[known] < NEAR_ANTIPODAL).double().mean()),
            "effective_rank": effective_rank(latents),
            "loss_cosine": float(cosines[known].mean()),
            "masked_targets": float((~known).sum()),
        }
        if self.hinges:
            names = ("ranking_loss", "ranking_level", "score_deviation")
            row |= dict(zip(names, (sum(v) / len(v) for v in zip(*self.hinges, strict=True)), strict=True))
        return row


def _variation(norms: Tensor) -> float:
    """Standard deviation divided by the mean; 0 if all are zero."""
    mean = float(norms.mean())
    return float(norms.std(correction=0)) / mean if mean > 0 else 0.0


def relative_update(network: nn.Module, before: list[Tensor]) -> float:
    """Length of the change of all parameters, relative to their length before; NaN if that was 0."""
    with torch.no_grad():
        change = sum(float((new - old).square().sum()) for new, old in zip(network.parameters(), before, strict=True))
    length = sum(float(old.square().sum()) for old in before)
    return math.sqrt(change / length) if length > 0 else math.nan


def snapshot(network: nn.Module) -> list[Tensor]:
    """Copies of all parameters."""
    return [parameter.detach().clone() for parameter in network.parameters()]


def is_hinge_collapsed(loss: float, level: float, deviation: float) -> bool:
    """Whether a ranking loss has collapsed: it is near its level for equal scores, and the scores hardly vary.

    Parameters
    ----------
    loss
        Mean ranking loss.
    level
        Loss if all scores are equal: the margin.
    deviation
        Standard deviation of the scores.
    """
    return abs(loss - level) < LEVEL_WIDTH and deviation < SPREAD * level


def is_frozen(row: dict[str, float], first: dict[str, float], mean_profile_cosine: float) -> bool:
    """Whether a cosine has frozen: long predictions, a vanished gradient, and the cosine of the mean profile.

    A normal fit passes the mean profile at its beginning, too, but with predictions no longer than profiles.

    Parameters
    ----------
    row, first
        Rows of the history: the current one, and the first one.
    mean_profile_cosine
        Mean cosine between the mean training profile and the profiles, with the centring of the loss.
    """
    return (
        row["norm_ratio"] > TOO_LONG
        and row["gradient_norm"] < GRADIENT_FALL * first["gradient_norm"]
        and row["loss_cosine"] < mean_profile_cosine + AT_MEAN
    )


@dataclass
class CollapseMonitor:
    """Checks every epoch for a collapse that persists."""

    objective: Reconstruction
    """Objective of the training."""
    first: dict[str, float]
    """First row of the history, with which others are compared."""
    counts: dict[str, int] = field(default_factory=dict)
    """Number of latest consecutive epochs with each collapse."""

    def check(self, row: dict[str, float]) -> str | None:
        """Name in `COLLAPSES` of a collapse seen in the last three epochs or more; None without one."""
        seen = {
            "hinge": "ranking_loss" in row
            and is_hinge_collapsed(row["ranking_loss"], row["ranking_level"], row["score_deviation"]),
            "frozen": self.objective.loss.is_scale_free
            and is_frozen(row, self.first, 1 - self.objective.settings.mean_profile_cosine),
        }
        self.counts = {name: self.counts.get(name, 0) + 1 if is_seen else 0 for name, is_seen in seen.items()}
        return next((name for name, count in self.counts.items() if count >= PERSISTENCE), None)
