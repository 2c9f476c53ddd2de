"""Losses that compare each profile with the others of its mini-batch: one number per profile, from cosines.

Notation: s_ij is the cosine of prediction i and target j, t_ij the cosine of targets i and j. The other profiles of a
mini-batch are the negatives. No labelled pairs are needed: the label y of a pair is +1 for a prediction and its own
target, -1 for a prediction and the target of another profile. To add a loss, write its function and its line in
`IN_BATCH_LOSSES`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from geneae.losses.inner_products import InnerProducts
from geneae.losses.reconstruction import Loss, LossSettings, has_direction, norm_floor
from geneae.settings.errors import InputError

FAR = -1e4  # score of a pair that must not count: finite, so that its gradient is zero and not undefined
TRIPLET_MARGIN = 0.2  # proposed for unit vectors (Schroff, Kalenichenko and Philbin 2015, arXiv 1503.03832)


@dataclass(frozen=True)
class Cosines:
    """Input of a loss with negatives: cosines, latents and labels of a mini-batch."""

    scores: Tensor
    """(n_profiles, n_profiles) s_ij"""
    targets: Tensor | None
    """(n_profiles, n_profiles) t_ij; None where they are not known."""
    is_negative: Tensor
    """(n_profiles, n_profiles) bool: whether j is a profile other than i and has a direction."""
    latent: Tensor
    """(n_profiles, n_latent)"""
    labels: Tensor | None
    """(n_profiles,), see `BatchContext`."""
    progress: float
    """Completed share of the training, 0 to 1."""

    @property
    def own(self) -> Tensor:
        """(n_profiles,) s_ii"""
        return self.scores.diagonal()

    def known_targets(self) -> Tensor:
        """t_ij, from which the margin of each pair is computed."""
        if self.targets is None:
            raise ValueError("a margin for each pair needs the inner products of the targets (BatchContext.targets)")
        return self.targets


def cosines(products: InnerProducts, settings: LossSettings) -> Cosines:
    """All cosines of a mini-batch, with the smooth norms of `geneae.losses.reconstruction.cosine_similarity`."""
    if products.batch is None:
        raise ValueError("a loss with negatives needs the inner products of all pairs (InnerProducts.batch)")
    batch, square = products.batch, norm_floor(settings) ** 2
    by_target, by_predicted = (torch.rsqrt(n + square) for n in (products.target, products.predicted))
    targets = None if batch.targets is None else batch.targets * by_target[:, None] * by_target
    is_other = ~torch.eye(len(by_target), dtype=torch.bool, device=by_target.device)
    scores = batch.cross * by_predicted[:, None] * by_target
    is_negative = is_other & has_direction(products, settings)
    return Cosines(scores, targets, is_negative, batch.latent, batch.labels, batch.progress)


def hinge(
    own: Tensor, scores: Tensor, margin: Tensor | float, is_negative: Tensor, negatives: str, temperature: float = 0.1
) -> Tensor:
    """(n,) mean, maximum or soft maximum of max(0, margin + s_ij - s_ii) over the negatives j.

    Parameters
    ----------
    own, scores
        (n,) and (n, n_negatives); any real numbers.
    margin
        Amount by which the own score must exceed the others: one number, or (n, n_negatives).
    is_negative
        (n, n_negatives) bool: whether a score counts.
    negatives
        `mean`; `hardest`, the maximum; or `annealed`, T log mean exp(. / T), which is close to the mean for a large T
        and to the maximum for a small one.
    temperature
        T of `annealed`.
    """
    excess = margin + scores - own[:, None]
    if negatives == "mean":
        return _mean(torch.relu(excess), is_negative)
    excess = excess.masked_fill(~is_negative, FAR)
    if negatives == "hardest":
        return torch.relu(excess.amax(1))
    number = is_negative.sum(1).clamp(min=1).to(excess.dtype).log()
    return torch.relu(temperature * (torch.logsumexp(excess / temperature, 1) - number))


def contrast(own: Tensor, scores: Tensor, is_negative: Tensor, temperature: float) -> Tensor:
    """(n,) minus the log of the own score's share in a softmax over it and the negatives; at least 0."""
    logits = torch.cat([own[:, None], scores.masked_fill(~is_negative, FAR)], 1) / temperature
    return torch.logsumexp(logits, 1) - logits[:, 0]


def cosine_embedding(batch: Cosines, settings: LossSettings) -> Tensor:
    """1 - s_ii + mean over j of max(0, s_ij - margin): torch's CosineEmbeddingLoss, with y = 1 for the own target only.

    By default the margin of a pair is t_ij, so that the loss is zero at a perfect reconstruction; with a fixed margin
    it is not, because profiles resemble each other.
    """
    margin = batch.known_targets() if settings.margin is None else settings.margin
    return 1 - batch.own + _mean(torch.relu(batch.scores - margin), batch.is_negative)


def ranking(batch: Cosines, settings: LossSettings) -> Tensor:
    """Max-margin: the own target must score above the others by a margin, by default 1 - t_ij; see `hinge`.

    With the hardest of many negatives and a fixed margin, training can collapse: all scores become equal, and the loss
    equals the margin.
    """
    margin = 1 - batch.known_targets() if settings.margin is None else settings.margin
    temperature = _annealed(settings, batch.progress)
    return hinge(batch.own, batch.scores, margin, batch.is_negative, settings.negatives, temperature)


def softmax(batch: Cosines, settings: LossSettings) -> Tensor:
    """-log softmax_j (s_ij / temperature) of the own target (InfoNCE, van den Oord et al. 2018, arXiv 1807.03748).

    Not zero at a perfect reconstruction, because profiles of the same kind are each other's negatives.
    """
    return contrast(batch.own, batch.scores, batch.is_negative, settings.temperature)


def triplet(batch: Cosines, settings: LossSettings) -> Tensor:
    """Mean over an anchor's semi-hard triplets of max(0, d(anchor, same) - d(anchor, other) + margin) between latents.

    d is Euclidean; "same" and "other" refer to the label. Semi-hard: the other is farther away than the same, but by
    less than the margin (Schroff et al. 2015). Triplets are mined by pytorch-metric-learning. 0 for profiles without a
    triplet or a label.
    """
    try:
        from pytorch_metric_learning.distances import LpDistance
        from pytorch_metric_learning.miners import TripletMarginMiner
    except ImportError:
        raise InputError(
            "the loss triplet needs pytorch-metric-learning, which is not installed. "
            "Install it with: pip install pytorch-metric-learning"
        ) from None
    labels = batch.labels
    if labels is None:
        raise ValueError("the loss triplet needs the labels of a batch (BatchContext.labels)")
    margin = TRIPLET_MARGIN if settings.margin is None else settings.margin
    known = torch.nonzero(labels >= 0)[:, 0]
    miner = TripletMarginMiner(margin, "semihard", distance=LpDistance(normalize_embeddings=False))
    anchor, same, other = (known[index] for index in miner(batch.latent[known].detach(), labels[known]))
    first, *others = (_rows(batch.latent, index) for index in (anchor, same, other))
    near, far = ((first - second).norm(dim=1) for second in others)
    total = _sums(torch.relu(near - far + margin), anchor, len(labels))
    return total / torch.bincount(anchor, minlength=len(labels)).clamp(min=1)


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Rows of a matrix, with a gradient whose sums have a fixed order: on a CPU that of `index_select`, where several
    threads sum that of plain indexing in any order; on CUDA that of plain indexing, which is sorted first."""
    return values[index] if values.is_cuda else values.index_select(0, index)


def _sums(values: Tensor, index: Tensor, n_sums: int) -> Tensor:
    """(n_sums,) sums of the values with the same index, in a fixed order, see `_rows`."""
    sums = values.new_zeros(n_sums)
    return sums.index_put((index,), values, accumulate=True) if values.is_cuda else sums.index_add(0, index, values)


def _mean(values: Tensor, is_negative: Tensor) -> Tensor:
    return (values * is_negative).sum(1) / is_negative.sum(1).clamp(min=1)


def _annealed(settings: LossSettings, progress: float) -> float:
    """Temperature between 1, where a soft maximum of cosines is nearly their mean, and that of the settings."""
    return float(settings.temperature**progress)


def _comparing(
    function: Callable[[Cosines, LossSettings], Tensor],
    has_pair_margin: bool = False,
    ranks: bool = False,
) -> Loss:
    return Loss(
        lambda products, settings: function(cosines(products, settings), settings),
        is_scale_free=True,
        needs="pairs",
        has_pair_margin=has_pair_margin,
        ranks=ranks,
    )


IN_BATCH_LOSSES = {
    "cosine-embedding": _comparing(cosine_embedding, has_pair_margin=True),
    "ranking": _comparing(ranking, has_pair_margin=True, ranks=True),
    "softmax": _comparing(softmax),
    "triplet": _comparing(triplet),
}


def at_perfection(loss: Loss, products: InnerProducts, settings: LossSettings) -> float:
    """Mean of a cosine loss at a perfect reconstruction; above 0 if even that does not satisfy the loss.

    NaN where no profile has a direction.

    Parameters
    ----------
    loss
        Loss to evaluate.
    products
        Inner products of a mini-batch, including those among its targets; its predictions do not matter.
    settings
        Settings of the loss.
    """
    assert products.batch is not None
    assert products.batch.targets is not None
    batch = replace(products.batch, cross=products.batch.targets)
    perfect = replace(products, cross=products.target, predicted=products.target, batch=batch)
    has_norm = has_direction(products, settings)
    return float(loss.function(perfect, settings)[has_norm].mean()) if bool(has_norm.any()) else math.nan


def indifference(products: InnerProducts, settings: LossSettings) -> tuple[float, float, float]:
    """Mean of the loss `ranking`, its value if all scores were equal, and the standard deviation of the scores."""
    batch = cosines(products, settings)
    equal = replace(batch, scores=torch.zeros_like(batch.scores))
    counts = batch.is_negative | torch.eye(len(batch.own), dtype=torch.bool, device=batch.own.device)
    found, level = (float(ranking(of, settings).mean()) for of in (batch, equal))
    return found, level, float(batch.scores[counts].std())
