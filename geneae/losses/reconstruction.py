"""Reconstruction losses: one number per profile, computed from three inner products and nothing else.

Notation: x is the target, y the prediction, c their cosine and r = |y| / |x| the norm ratio. To add a loss, write its
function and its line in `LOSSES`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from geneae.losses.inner_products import InnerProducts

NORM_FLOOR = 1e-6  # in units of the median profile norm; bounds the gradient of a cosine near a zero prediction
COARSER = 1000.0  # factor on that floor for products in 16 bits, whose gradients must stay below 65,504

Needs = Literal["products", "pairs"]
"""Inner products that a loss takes: of each profile with its reconstruction, or also those of all pairs of a mini-batch
(`InnerProducts.batch`)."""


@dataclass(frozen=True)
class LossSettings:
    """Weights chosen by the user, and constants of the training profiles that give the terms their units."""

    alpha: float = 0.5
    """Share of the squared error in `combined`, 0 to 1."""
    beta: float = 1.0
    """Weight of the magnitude term in `magnitude`, at least 0."""
    gamma: float = 2.0
    """Power of `scaled-cosine`, at least 1."""
    mean_profile_mse: float = 1.0
    """`mse` of the mean training profile as a prediction: the unit of the first term of `combined`."""
    mean_profile_cosine: float = 1.0
    """`cosine` loss of the mean training profile as a prediction: the unit of the second term of `combined`."""
    median_norm: float = 1.0
    """Median norm of the training profiles."""
    norm_ratio: float = 1.0
    """Norm ratio that `magnitude` asks for. It is 1 where the target is the input itself; for noisy held-out molecules
    the best ratio is about the highest cosine that can be reached, so count splitting takes the noise ceiling."""
    margin: float | None = None
    """Margin of `cosine-embedding`, `ranking` and `triplet`; None: one for each pair (`triplet`: 0.2)."""
    negatives: str = "mean"
    """Negatives of `ranking`: `mean`, `annealed` or `hardest`."""
    temperature: float = 0.1
    """Temperature of `softmax`, and of `annealed` at the end of training; above 0."""


def cosine_similarity(products: InnerProducts, floor: float = 0.0) -> Tensor:
    """c = <x, y> / (|x| |y|), in [-1, 1] up to rounding; higher is better.

    A zero target or prediction gives NaN, or 0 if `floor` is positive: the smooth norm sqrt(|y|^2 + floor^2) keeps the
    gradient below 1 / floor.
    """
    square = floor * floor
    return products.cross * torch.rsqrt(products.target + square) * torch.rsqrt(products.predicted + square)


def squared_error(products: InnerProducts) -> Tensor:
    """|x - y|^2 summed over genes, at least 0. Cancels in float32 where the fit is nearly perfect."""
    return (products.target - 2 * products.cross + products.predicted).clamp(min=0)


def mse(products: InnerProducts, settings: LossSettings) -> Tensor:
    """|x - y|^2 / n_genes."""
    return squared_error(products) / products.n_genes


def relative_mse(products: InnerProducts, settings: LossSettings) -> Tensor:
    """|x - y|^2 / |x|^2 = (1 - r)^2 + 2 r (1 - c): every profile weighs the same, whatever its depth."""
    return squared_error(products) / (products.target + norm_floor(settings) ** 2)


def cosine(products: InnerProducts, settings: LossSettings) -> Tensor:
    """1 - c, in [0, 2]; independent of the length of y. Keras' -c has the same gradient."""
    return 1 - cosine_similarity(products, norm_floor(settings))


def combined(products: InnerProducts, settings: LossSettings) -> Tensor:
    """alpha mse / mse0 + (1 - alpha) (1 - c) / (1 - c0), with mse0 and c0 of the mean training profile as prediction.

    1 on average for the mean training profile, and 0 at best.
    """
    by_error = mse(products, settings) / settings.mean_profile_mse
    by_direction = cosine(products, settings) / settings.mean_profile_cosine
    return settings.alpha * by_error + (1 - settings.alpha) * by_direction


def magnitude(products: InnerProducts, settings: LossSettings) -> Tensor:
    """(1 - c) + beta/2 (1 - r / norm_ratio)^2: direction and magnitude, whose gradients are orthogonal."""
    square = norm_floor(settings) ** 2
    ratio = torch.sqrt((products.predicted + square) / (products.target + square))
    return cosine(products, settings) + settings.beta / 2 * (1 - ratio / settings.norm_ratio) ** 2


def scaled_cosine(products: InnerProducts, settings: LossSettings) -> Tensor:
    """(1 - c)^gamma: easy profiles weigh less (Hou et al., GraphMAE, 2022, arXiv 2205.10803)."""
    return cosine(products, settings).clamp(min=0) ** settings.gamma


def norm_floor(settings: LossSettings) -> float:
    """Norm at or below which a profile counts as having no direction."""
    return NORM_FLOOR * settings.median_norm


@dataclass(frozen=True)
class Loss:
    """A loss and how to use it."""

    function: Callable[[InnerProducts, LossSettings], Tensor]
    """One number per profile; lower is better."""
    is_scale_free: bool = False
    """Whether the loss ignores the length of the prediction, which must then be rescaled before a squared error."""
    center: str | None = None
    """Centring that the loss is defined with; None if the user chooses it."""
    needs: Needs = "products"
    """Inner products that the loss takes."""
    has_pair_margin: bool = False
    """Whether each pair has its own margin by default, which needs the inner products of the targets."""
    ranks: bool = False
    """Whether it has a hinge that can collapse until all scores are equal."""


LOSSES = {
    "mse": Loss(mse),
    "relative-mse": Loss(relative_mse),
    "cosine": Loss(cosine, is_scale_free=True),
    "pearson": Loss(cosine, is_scale_free=True, center="profile"),
    "combined": Loss(combined),
    "magnitude": Loss(magnitude),
    "scaled-cosine": Loss(scaled_cosine, is_scale_free=True),
}

ALIASES = {"keras-cosine": "cosine", "cosine-proximity": "cosine", "cosine_similarity": "cosine", "MSE": "mse"}
"""Other names in use. Keras' cosine proximity is -c: the same gradient as `cosine`, the optimum at -1 instead of 0."""


def has_direction(products: InnerProducts, settings: LossSettings) -> Tensor:
    """(n_profiles,) bool: whether the target is longer than the norm floor."""
    return products.target > norm_floor(settings) ** 2


def masked_loss(
    loss: Callable[[InnerProducts, LossSettings], Tensor], products: InnerProducts, settings: LossSettings
) -> tuple[Tensor, Tensor]:
    """(n_profiles,) losses, 0 for targets without a direction; and the mask of the targets that have one."""
    if products.cross.dtype in (torch.float16, torch.bfloat16):
        products, settings = _widened(products), replace(settings, median_norm=settings.median_norm * COARSER)
    has_norm = has_direction(products, settings)
    return torch.where(has_norm, loss(products, settings), 0.0), has_norm


def mean_loss(
    loss: Callable[[InnerProducts, LossSettings], Tensor], products: InnerProducts, settings: LossSettings
) -> Tensor:
    """Mean loss of the targets that have a direction; 0 if none has one."""
    values, has_norm = masked_loss(loss, products, settings)
    return values.sum() / has_norm.sum().clamp(min=1)


def _widened(products: InnerProducts) -> InnerProducts:
    """The same products in 32 bits: in 16 bits the norm floor is zero, and cosines near 1 are all the same."""
    batch = products.batch
    if batch is not None:
        targets = None if batch.targets is None else batch.targets.float()
        batch = replace(batch, cross=batch.cross.float(), targets=targets, latent=batch.latent.float())
    return InnerProducts(
        products.cross.float(), products.target.float(), products.predicted.float(), products.n_genes, batch
    )
