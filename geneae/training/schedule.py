"""The learning rate over the steps of a training."""

import torch
from torch.optim.lr_scheduler import LambdaLR


def rate_factor(step: int, n_steps: int) -> float:
    """Factor of the learning rate: 1 in the first half of the steps, then falling linearly towards 0."""
    return min(1.0, 2 * (1 - step / n_steps))


def schedule(optimizer: torch.optim.Optimizer, n_steps: int, n_done: int = 0) -> LambdaLR:
    """Sets the rates of an optimiser by `rate_factor`, before the next step and after each `step()` of its own.

    Parameters
    ----------
    optimizer
        Its groups hold the rates of the first step, as `lr`; `n_done` above 0 wants them as `initial_lr`, too.
    n_steps
        Steps of the training.
    n_done
        Steps that are over.
    """
    return LambdaLR(optimizer, lambda step: rate_factor(step, n_steps), last_epoch=n_done - 1)
