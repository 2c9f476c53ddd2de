"""Losses that measure the agreement between embeddings of two views: one number per profile, from vectors alone.

Most depend on the directions of the vectors only, so that the gradient is orthogonal to the vector and falls with its
length; zero vectors have direction zero. `distillation` depends on logits, `cross_correlation` and
`variance_covariance` on the components of the vectors over a mini-batch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

VARIANCE_FLOOR = 1e-4  # added to variances before their root, as in the authors' code of VICReg
INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0  # weights of the three terms of VICReg, from its paper


def unit(vectors: Tensor) -> Tensor:
    """(n, d) unit vectors in at least 32 bits, whatever the precision of the input; zero vectors stay zero."""
    return F.normalize(_in_full(vectors), dim=1)


def negative_cosine(predicted: Tensor, target: Tensor) -> Tensor:
    """(n,) -cos, in [-1, 1], the loss of SimSiam. Gradient in `predicted`: -(t - cos p) / |predicted|, unit p and t."""
    return -(unit(predicted) * unit(target)).sum(1)


def squared_distance(predicted: Tensor, target: Tensor) -> Tensor:
    """(n,) |p - t|^2 = 2 - 2 cos, in [0, 4], the loss of BYOL."""
    return 2 + 2 * negative_cosine(predicted, target)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """(n,) normalised-temperature cross entropy, the loss of SimCLR (Chen et al. 2020, arXiv 2002.05709).

    For each view, minus the log of its partner's share in the sum of exp(cos / temperature) over the partner and the
    2n - 2 views of other profiles; the mean of the two views of a profile. At least 0, and log(2n - 1) where all views
    agree equally.
    """
    n_profiles = len(first)
    vectors = torch.cat([unit(first), unit(second)])
    logits = vectors @ vectors.T / temperature
    logits = logits.masked_fill(torch.eye(2 * n_profiles, dtype=torch.bool, device=logits.device), -math.inf)
    partner = torch.arange(2 * n_profiles, device=logits.device).roll(n_profiles)
    return F.cross_entropy(logits, partner, reduction="none").reshape(2, n_profiles).mean(0)


def against_queue(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """(n,) cross entropy of finding the own key among those of a queue: MoCo v2 (He et al. 2020, arXiv 1911.05722).

    Parameters
    ----------
    query, key
        (n, d); `key` should carry no gradient.
    queue
        (n_queue, d) keys of earlier profiles.
    temperature
        Temperature of the softmax.
    """
    query, key = unit(query), unit(key)
    own = (query * key).sum(1, keepdim=True)
    logits = torch.cat([own, query @ unit(queue).T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.int64, device=query.device), reduction="none")


def against_batch(query: Tensor, key: Tensor, temperature: float) -> Tensor:
    """(n,) cross entropy of finding the own key among those of the mini-batch, times 2 temperature: the loss of MoCo v3
    (Chen, Xie and He 2021, arXiv 2104.02057)."""
    logits = unit(query) @ unit(key).T / temperature
    own = torch.arange(len(query), device=logits.device)
    return F.cross_entropy(logits, own, reduction="none") * 2 * temperature


def distillation(
    student: Tensor, teacher: Tensor, center: Tensor, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """(n,) cross entropy of the student's softmax with the teacher's, which is centred and sharpened: the loss of DINO
    (Caron et al. 2021, arXiv 2104.14294).

    Parameters
    ----------
    student, teacher
        (n, n_prototypes) logits.
    center
        (n_prototypes,) running mean of the teacher's logits; without it, one prototype would win for all profiles.
    student_temperature, teacher_temperature
        Temperatures of the two softmaxes.
    """
    wanted = torch.softmax((teacher - center) / teacher_temperature, dim=1)
    return F.cross_entropy(student / student_temperature, wanted, reduction="none")


def cross_correlation(first: Tensor, second: Tensor, redundancy: float) -> Tensor:
    """(n,) shares of sum_k (1 - c_kk)^2 + redundancy * sum_{k != l} c_kl^2, whose mean is that sum: the loss of Barlow
    Twins (Zbontar et al. 2021, arXiv 2103.03230).

    c_kl is the correlation over the mini-batch between component k of the first view and l of the second. At least 0 in
    the mean, and 0 where each component agrees with itself alone. Scales and shifts of components do not count; a
    component without variance has correlation 0.

    Parameters
    ----------
    first, second
        (n, d) embeddings of two views.
    redundancy
        Weight of the correlations between different components.
    """
    first, second = (_standardised(vectors) for vectors in (first, second))
    correlation = first.T @ second / len(first)
    of_same = 1 - correlation.diagonal()
    of_others = redundancy * (correlation - torch.diag(correlation.diagonal()))
    agreement: Tensor = ((1 - first * second) * of_same).sum(1)
    return agreement + ((first @ of_others) * second).sum(1)


def variance_covariance(first: Tensor, second: Tensor) -> Tensor:
    """(n,) shares of 25 s + 25 v + c, whose mean is that sum: the loss of VICReg (Bardes, Ponce and LeCun 2022, arXiv
    2105.04906).

    s is the mean squared difference of the views over profiles and components; v the mean of max(0, 1 - deviation) over
    the components of both views; c the sum over both views of the squared covariances between different components, by
    the number of components. As in the authors' code, s is a mean over components, too. At least 0, and 0 where equal
    views have components of deviation 1 that are not correlated. A shift of both views does not count. The components
    of a single profile do not vary.

    Parameters
    ----------
    first, second
        (n, d) embeddings of two views.
    """
    first, second = (_in_full(vectors) for vectors in (first, second))
    n_free = max(1, len(first) - 1)
    losses = INVARIANCE * (first - second).square().mean(1)
    for vectors in (first, second):
        centred = vectors - vectors.mean(0)
        deviation = (centred.square().sum(0) / n_free + VARIANCE_FLOOR).sqrt()
        covariance = centred.T @ centred / n_free
        of_others = covariance - torch.diag(covariance.diagonal())
        by_profile = ((centred @ of_others) * centred).mean(1) * len(vectors) / n_free
        losses = losses + VARIANCE * torch.relu(1 - deviation).mean() / 2 + COVARIANCE * by_profile
    return losses


def _in_full(vectors: Tensor) -> Tensor:
    return vectors if vectors.dtype == torch.float64 else vectors.float()


def _standardised(vectors: Tensor) -> Tensor:
    """(n, d) components with mean 0 and deviation 1 over the mini-batch; 0 where they do not vary."""
    centred = _in_full(vectors)
    centred = centred - centred.mean(0)
    return F.normalize(centred, dim=0) * math.sqrt(len(vectors))
