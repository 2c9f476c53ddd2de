"""What a training step minimises."""

from dataclasses import dataclass

from torch import Tensor

from geneae.losses import Loss, LossSettings, masked_loss, mean_loss
from geneae.products import InnerProducts, scale_gradient


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

    def by_profile(self, products: InnerProducts) -> Tensor:
        """(n_profiles,) losses; 0 where the target has no direction."""
        return masked_loss(self.loss.function, products, self.settings)[0]

    def __call__(self, products: InnerProducts) -> Tensor:
        """The mean over the profiles that have a direction."""
        return mean_loss(self.loss.function, scale_gradient(products, self.grad_scale), self.settings)

    def n_counted(self, products: InnerProducts) -> Tensor:
        """How many profiles that mean is over, to take it over the batches of several processes."""
        return masked_loss(self.loss.function, products, self.settings)[1].sum()
