"""Losses that measure the agreement between embeddings of two views: one number per profile, from vectors alone.

All but `distillation` depend on the directions of the vectors only, so that the gradient is orthogonal to the vector
and falls with its length. Zero vectors have direction zero.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def unit(vectors: Tensor) -> Tensor:
    """(n, d) unit vectors in at least 32 bits, whatever the precision of the input; zero vectors stay zero."""
    vectors = vectors if vectors.dtype == torch.float64 else vectors.float()
    return F.normalize(vectors, dim=1)


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
