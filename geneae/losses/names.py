"""Lookup of losses by name, alias or weighted sum of names."""

from functools import partial

import torch
from torch import Tensor

from geneae.losses.in_batch import IN_BATCH_LOSSES
from geneae.losses.inner_products import InnerProducts
from geneae.losses.reconstruction import ALIASES, LOSSES, Loss, LossSettings
from geneae.settings.errors import unknown
from geneae.settings.loss_terms import loss_terms


def find_loss(name: str) -> Loss:
    """The loss with that name or alias, or a weighted sum such as `cosine+0.1*softmax`.

    A sum takes over the centring that one of its losses is defined with. The error for an unknown name suggests the
    nearest one.
    """
    known = LOSSES | IN_BATCH_LOSSES
    terms = [(weight, ALIASES.get(term, term)) for weight, term in loss_terms(name)]
    for _, term in terms:
        if term not in known:
            raise unknown("loss", term, known)
    if len(terms) == 1 and terms[0][0] == 1:
        return known[terms[0][1]]
    losses = [(weight, known[term]) for weight, term in terms]
    centers = {loss.center for _, loss in losses if loss.center}
    return Loss(
        partial(_sum, losses),
        is_scale_free=all(loss.is_scale_free for _, loss in losses),
        center=next(iter(centers), None),
        needs="pairs" if any(loss.needs == "pairs" for _, loss in losses) else "products",
        has_pair_margin=any(loss.has_pair_margin for _, loss in losses),
        ranks=any(loss.ranks for _, loss in losses),
    )


def _sum(losses: list[tuple[float, Loss]], products: InnerProducts, settings: LossSettings) -> Tensor:
    values = [weight * loss.function(products, settings) for weight, loss in losses]
    return torch.stack(values).sum(0)
