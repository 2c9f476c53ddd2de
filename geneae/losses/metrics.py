"""Metrics: one number per profile, computed from the same inner products as the losses."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from geneae.losses.inner_products import InnerProducts
from geneae.losses.reconstruction import LossSettings, cosine_similarity, mse, relative_mse


@dataclass(frozen=True)
class Metric:
    """A metric and how to read it; its inner products are in float64."""

    function: Callable[[InnerProducts], Tensor]
    """One number per profile; NaN where the profile has no direction."""
    title: str
    """Name in words."""
    better: str
    """`higher`, `lower`, or empty where neither is better."""
    unit: str = ""
    """Unit on the axis of a figure."""
    center: str = "none"
    """Centring of the inner products that the metric is computed from."""
    sees_length: bool = False
    """Whether it depends on the length of the reconstruction."""
    is_main: bool = False
    """Whether the first table of a report shows it."""
    in_full: str = ""
    """Title in a sentence that explains nothing else about it; empty where it equals `title`."""


def cosine(products: InnerProducts) -> Tensor:
    """Cosine of x and y, in [-1, 1]; 0 where the prediction is zero."""
    return torch.where(products.predicted > 0, cosine_similarity(products), 0.0).clamp(-1, 1)


def norm_ratio(products: InnerProducts) -> Tensor:
    """|y| / |x|; for a given direction, the squared error is smallest where this ratio equals the cosine."""
    return torch.sqrt(products.predicted / products.target)


def direction_error(products: InnerProducts) -> Tensor:
    """2 |x| |y| (1 - c) / n_genes; together with `magnitude_error` it adds up exactly to the MSE."""
    return 2 * (torch.sqrt(products.target * products.predicted) - products.cross).clamp(min=0) / products.n_genes


def magnitude_error(products: InnerProducts) -> Tensor:
    """(|x| - |y|)^2 / n_genes."""
    return (torch.sqrt(products.target) - torch.sqrt(products.predicted)) ** 2 / products.n_genes


def best_scale(products: InnerProducts) -> float:
    """Common factor of all predictions with the least squared error: sum <x, y> / sum |y|^2; 1 if all are zero."""
    total = float(products.predicted.sum())
    return float(products.cross.sum()) / total if total > 0 else 1.0


def rescaled_mse(products: InnerProducts, scale: float) -> Tensor:
    """MSE of `scale` times the prediction; the scale comes from validation profiles, never from the evaluated ones."""
    scaled = replace(products, cross=products.cross * scale, predicted=products.predicted * scale**2)
    return mse(scaled, EXACT)


EXACT = LossSettings(median_norm=0.0)  # a loss needs a norm floor to keep its gradient finite; a metric does not

BY_GENE = "mean over genes"

METRICS = {
    "cosine": Metric(cosine, "cosine", "higher", is_main=True),
    "centred_cosine": Metric(
        cosine,
        "centred cosine",
        "higher",
        center="gene",
        is_main=True,
        in_full="own-input centred cosine (no counts, so no held-out number)",
    ),
    "mse": Metric(partial(mse, settings=EXACT), "MSE", "lower", BY_GENE, sees_length=True, is_main=True),
    "relative_mse": Metric(partial(relative_mse, settings=EXACT), "relative MSE", "lower", sees_length=True),
    "norm_ratio": Metric(norm_ratio, "norm ratio", "", sees_length=True),
    "direction_error": Metric(direction_error, "direction error", "lower", BY_GENE, sees_length=True),
    "magnitude_error": Metric(magnitude_error, "magnitude error", "lower", BY_GENE, sees_length=True),
}


def measure(metric: Metric, products: InnerProducts) -> Tensor:
    """(n_profiles,) the metric, in [-1, 1] for a cosine.

    NaN for a profile that is zero after centring: it has no direction, and its small error is no success. A prediction
    of zeros has cosine 0.
    """
    return torch.where(products.target > 0, metric.function(products), torch.nan)
