"""What a training step minimises."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from geneae.losses.inner_products import InnerProducts, scale_gradient
from geneae.losses.reconstruction import Loss, LossSettings, masked_loss, mean_loss
from geneae.models.network import Network


class Objective(Protocol):
    """What the training loop asks of whatever a step minimises."""

    @property
    def chooses_epoch(self) -> bool:
        """Whether its validation loss chooses the epoch; else the last one is taken."""

    def begin(self, network: Network, n_steps: int, cut: float = 1.0) -> None:
        """Before the first of so many steps, when the network has been cut; what it learns itself is cut, too."""

    def learned(self) -> Sequence[nn.Parameter]:
        """Parameters beside those of the network."""

    def batch(self, pairs: Any, index: Tensor, progress: float) -> Any:
        """What a step takes, of the pairs or views of that index, when `progress`, 0 to 1, of the training is done."""

    def see(self, network: Network, batch: Any) -> Any:
        """What the loss is taken of, in the precision of the forward pass."""

    def __call__(self, seen: Any, /) -> Tensor:
        """The loss, a mean over profiles."""

    def n_counted(self, seen: Any) -> Tensor:
        """How many profiles that mean is over."""

    def after_step(self, network: Network, seen: Any) -> None:
        """What follows the network: teachers, queues."""

    def state(self) -> dict[str, Tensor]:
        """All of it that steps change, by name, for a checkpoint."""

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Go on from there, after `begin`."""


@dataclass(frozen=True)
class Reconstruction:
    """Mean reconstruction loss over profiles."""

    loss: Loss
    """One number per profile."""
    center: str
    """Centring of the inner products that the loss sees: `none`, `gene` or `profile`."""
    settings: LossSettings
    """Weights, and constants of the training profiles."""
    grad_scale: float = 0.0
    """Power of the norm of a prediction that its gradient is multiplied by."""
    chooses_epoch: ClassVar[bool] = True

    def begin(self, network: Network, n_steps: int, cut: float = 1.0) -> None:
        """Nothing: it learns nothing itself."""

    def learned(self) -> Sequence[nn.Parameter]:
        """None."""
        return ()

    def batch(self, pairs: Any, index: Tensor, progress: float) -> tuple[Any, ...]:
        """Inputs and targets, and, where the loss compares the profiles of a batch, what it needs to know of them."""
        if not self.loss.compares:
            return tuple(pairs.take(index))
        return (*pairs.take(index), pairs.others(index, progress))

    def see(self, network: Network, batch: tuple[Any, ...]) -> InnerProducts:
        """Inner products of the targets of a batch and their predictions."""
        inputs, target, *others = batch
        products: list[InnerProducts] = network(inputs, target, self.center, others=others[0] if others else None)[0]
        return products[0]

    def after_step(self, network: Network, seen: InnerProducts) -> None:
        """Nothing follows."""

    def state(self) -> dict[str, Tensor]:
        """Nothing: steps change the network alone."""
        return {}

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Nothing."""

    def by_profile(self, products: InnerProducts) -> Tensor:
        """(n_profiles,) losses; 0 where the target has no direction."""
        return masked_loss(self.loss.function, products, self.settings)[0]

    def __call__(self, products: InnerProducts) -> Tensor:
        """The mean over the profiles that have a direction."""
        return mean_loss(self.loss.function, scale_gradient(products, self.grad_scale), self.settings)

    def n_counted(self, products: InnerProducts) -> Tensor:
        """How many profiles that mean is over, to take it over the batches of several processes."""
        return masked_loss(self.loss.function, products, self.settings)[1].sum()
