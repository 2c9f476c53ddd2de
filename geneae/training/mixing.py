"""Mixing: an order of profiles in which every mini-batch has the same share of each group."""

import torch
from torch import Tensor


def mixed_evenly(order: Tensor, groups: Tensor) -> Tensor:
    """The same indices in another order, in which the members of each group lie at equal distances.

    Any stretch of it then has nearly the same share of each group; within a group the order stays.

    Parameters
    ----------
    order
        (n,) indices in random order.
    groups
        (n,) group of each of them, numbered from 0.
    """
    by_group = torch.argsort(groups, stable=True)
    sizes = torch.bincount(groups)
    starts = sizes.cumsum(0) - sizes
    place = torch.empty(len(order), dtype=torch.float64)
    of = groups[by_group]
    place[by_group] = (torch.arange(len(order)) - starts[of] + 0.5).double() / sizes[of]
    return order[torch.argsort(place, stable=True)]
