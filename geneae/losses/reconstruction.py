"""Reconstruction losses: one number per profile, a function of three inner products and nothing else.

Notation: x target, y predicted, c their cosine, r = |y| / |x| the norm ratio. To add a loss, write its function and
its line in `LOSSES`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from geneae.losses.inner_products import InnerProducts

NORM_FLOOR = 1e-6  # in units of the median profile norm; it bounds the gradient of a cosine near a zero prediction
COARSER = 1000.0  # times that floor where products come in 16 bits, whose gradients must stay below 65,504


Needs = Literal["products", "pairs"]
"""What a loss is a function of."""


@dataclass(frozen=True)
class LossSettings:
    """Weights of the user, and the constants of the training profiles that give the terms their units."""

    alpha: float = 0.5
    """Share of the squared error in `combined`, 0 to 1."""
    beta: float = 1.0
    """Weight of the magnitude term in `magnitude`, at least 0."""
    gamma: float = 2.0
    """Power of `scaled-cosine`, at least 1."""
    mean_profile_mse: float = 1.0
    """`mse` of the mean training profile as a prediction: the unit of the first term of `combined`."""
    mean_profile_cosine: float = 1.0
    """`cosine` loss of the mean training profile: the unit of the second."""
    median_norm: float = 1.0
    """Median norm of the training profiles."""
    norm_ratio: float = 1.0
    """Norm ratio that `magnitude` asks for. 1 against own input; against noisy held-out molecules the best one is
    about the cosine that can be reached, so that a fit on count splits takes the noise ceiling."""
    margin: float | None = None
    """Of `cosine-embedding`, `ranking`, `triplet`; None: by pair."""
    negatives: str = "mean"
    """Of `ranking`: `mean`, `annealed`, `hardest`."""
    temperature: float = 0.1
    """Of `softmax`, and of `annealed` at the end; above 0."""


def cosine_similarity(products: InnerProducts, floor: float = 0.0) -> Tensor:
    """c = <x, y> / (|x| |y|), in [-1, 1] up to rounding; higher is better.

    A zero target or prediction gives NaN, or 0 where `floor` is positive: the smooth norm sqrt(|y|^2 + floor^2) keeps
    its gradient below 1 / floor.
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
    """1 - c, in [0, 2]. Blind to the length of y. With the sign of Keras, -c, the gradient is the same."""
    return 1 - cosine_similarity(products, norm_floor(settings))


def combined(products: InnerProducts, settings: LossSettings) -> Tensor:
    """alpha mse / mse0 + (1 - alpha) (1 - c) / (1 - c0), where 0 is the mean training profile: 1 for it, 0 at best."""
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
    """Norm below which a profile has no direction."""
    return NORM_FLOOR * settings.median_norm


@dataclass(frozen=True)
class Loss:
    """A loss and how it is to be used."""

    function: Callable[[InnerProducts, LossSettings], Tensor]
    """One number per profile, lower is better, lowest at a perfect reconstruction."""
    is_scale_free: bool = False
    """Whether the length of the prediction goes unseen, so that a squared error needs rescaling first."""
    center: str | None = None
    """The centring that the loss is defined with; None where the user chooses."""
    needs: Needs = "products"
    """The inner products of each profile with its reconstruction, or those of all pairs of a batch, too
    (`InnerProducts.batch`)."""
    has_pair_margin: bool = False
    """Whether its margin is by default that of the pair, which takes the inner products of the targets."""
    ranks: bool = False
    """Whether it has a hinge that can collapse to "every score equal"."""


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
"""Other names in use. Keras' cosine proximity is -cosine: the same gradient, the optimum at -1 instead of 0."""


def has_direction(products: InnerProducts, settings: LossSettings) -> Tensor:
    """(n_profiles,) whether a target is more than zeros."""
    return products.target > norm_floor(settings) ** 2


def masked_loss(
    loss: Callable[[InnerProducts, LossSettings], Tensor], products: InnerProducts, settings: LossSettings
) -> tuple[Tensor, Tensor]:
    """(n_profiles,) losses, 0 for targets without a direction; and the mask of those that have one."""
    if products.cross.dtype in (torch.float16, torch.bfloat16):
        products, settings = _widened(products), replace(settings, median_norm=settings.median_norm * COARSER)
    has_norm = has_direction(products, settings)
    return torch.where(has_norm, loss(products, settings), 0.0), has_norm


def mean_loss(
    loss: Callable[[InnerProducts, LossSettings], Tensor], products: InnerProducts, settings: LossSettings
) -> Tensor:
    """Mean over the profiles that have a direction; zero targets weigh nothing, and the mean of none is 0."""
    values, has_norm = masked_loss(loss, products, settings)
    return values.sum() / has_norm.sum().clamp(min=1)


def _widened(products: InnerProducts) -> InnerProducts:
    """In 32 bits: in 16 bits the floor of a norm is zero, and cosines near 1 are all the same."""
    batch = products.batch
    if batch is not None:
        targets = None if batch.targets is None else batch.targets.float()
        batch = replace(batch, cross=batch.cross.float(), targets=targets, latent=batch.latent.float())
    return InnerProducts(
        products.cross.float(), products.target.float(), products.predicted.float(), products.n_genes, batch
    )
