"""Learning-rate schedule of a training."""

import torch
from torch.optim.lr_scheduler import LambdaLR


def rate_factor(step: int, n_steps: int) -> float:
    """Factor of the learning rate: 1 in the first half of the steps, then falling linearly towards 0."""
    return min(1.0, 2 * (1 - step / n_steps))


def schedule(optimizer: torch.optim.Optimizer, n_steps: int, n_done: int = 0) -> LambdaLR:
    """Schedule that sets the learning rates of an optimiser by `rate_factor`, at once and at each `step()` of its own.

    Parameters
    ----------
    optimizer
        Optimiser whose groups hold the learning rates of the first step as `lr`, for `n_done` above 0 also as
        `initial_lr`.
    n_steps
        Number of steps of the training.
    n_done
        Number of completed steps.
    """
    return LambdaLR(optimizer, lambda step: rate_factor(step, n_steps), last_epoch=n_done - 1)
