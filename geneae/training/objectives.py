"""Objectives: what a training step minimises."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from geneae.losses.fixed_metric import FixedMetric
from geneae.losses.inner_products import BatchContext, InnerProducts, scale_gradient
from geneae.losses.reconstruction import Loss, LossSettings, masked_loss, mean_loss
from geneae.models.network import Network
from geneae.training.batches import Batch
from geneae.training.selfsupervised import Embeddings, SelfSupervised
from geneae.training.view_batches import JointBatch


class Objective(Protocol):
    """Interface between the training loop and an objective."""

    @property
    def chooses_epoch(self) -> bool:
        """Whether its validation loss chooses the epoch; otherwise the last one is taken."""

    def to(self, device: torch.device) -> Any:
        """Move its tensors to the device of the network."""

    def begin(self, network: Network, n_steps: int, cut: float = 1.0) -> None:
        """Prepare for `n_steps` steps, after the network has been cut; its own parameters are divided by `cut`."""

    def learned(self) -> Sequence[nn.Parameter]:
        """Trainable parameters in addition to those of the network."""

    def see(self, network: Network, batch: Any) -> Any:
        """Input of the loss, computed from a mini-batch in the precision of the forward pass."""

    def __call__(self, seen: Any, /) -> Tensor:
        """Loss, a mean over profiles."""

    def n_counted(self, seen: Any) -> Tensor:
        """Number of profiles in that mean."""

    def after_step(self, network: Network, seen: Any) -> None:
        """Update what follows the network: teachers, queues."""

    def state(self) -> dict[str, Tensor]:
        """All tensors that steps change, by name, for a checkpoint."""

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Restore such a state, after `begin`."""


@dataclass(frozen=True)
class Reconstructed:
    """Latents and reconstructions of a mini-batch, the latter as inner products."""

    latent: Tensor
    """(n_profiles, n_latent)"""
    for_loss: InnerProducts
    """Inner products with the centring and the learned metric of the loss, and those of all pairs if it needs them."""
    plain: dict[str, InnerProducts]
    """Inner products without learned metric and pairs, by centring."""


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
    """Power of the norm of a prediction by which its gradient is multiplied."""
    metric: FixedMetric | None = None
    """Learned metric of the loss; None for plain inner products. The pairs must be made with the same one."""
    chooses_epoch: ClassVar[bool] = True

    def to(self, device: torch.device) -> "Reconstruction":
        """Move the learned metric to the device of the network."""
        if self.metric is not None:
            self.metric.to(device)
        return self

    def begin(self, network: Network, n_steps: int, cut: float = 1.0) -> None:
        """No effect, because it has no parameters of its own."""

    def learned(self) -> Sequence[nn.Parameter]:
        """Empty, because it has no parameters of its own."""
        return ()

    def see(self, network: Network, batch: Batch) -> InnerProducts:
        """Inner products of the predictions and targets of a mini-batch, for the loss."""
        return self.reconstruct(network, batch).for_loss

    def reconstruct(self, network: Network, batch: Batch, centers: tuple[str, ...] = ()) -> Reconstructed:
        """Latents and inner products of a mini-batch, plain ones also with other centrings."""
        found = network(batch.inputs)
        with torch.autocast(found.hidden.device.type, enabled=False):  # sums over genes need float32
            decoder, target = network.decoder().with_target(batch.target, self.metric)
            hidden = found.hidden.to(target.squared.dtype)
            plain = decoder.products(hidden, target, dict.fromkeys((self.center, *centers)))
            for_loss = plain[self.center]
            if self.loss.needs == "pairs":
                cross, targets = decoder.pairs(hidden, target, self.center, batch.gram)
                context = BatchContext(cross, targets, found.latent.to(hidden.dtype), batch.labels, batch.progress)
                for_loss = replace(for_loss, batch=context)
            if self.metric is not None:
                for_loss = decoder.products_under(self.metric, for_loss, hidden, target, self.center)
        return Reconstructed(found.latent, for_loss, plain)

    def after_step(self, network: Network, seen: InnerProducts) -> None:
        """No effect, because nothing follows the network."""

    def state(self) -> dict[str, Tensor]:
        """Empty, because steps change only the network."""
        return {}

    def set_state(self, state: dict[str, Tensor]) -> None:
        """No effect, because there is no state."""

    def by_profile(self, products: InnerProducts) -> Tensor:
        """(n_profiles,) losses; 0 for a target without a direction."""
        return masked_loss(self.loss.function, products, self.settings)[0]

    def __call__(self, products: InnerProducts) -> Tensor:
        """Mean over the profiles whose target has a direction."""
        return mean_loss(self.loss.function, scale_gradient(products, self.grad_scale), self.settings)

    def n_counted(self, products: InnerProducts) -> Tensor:
        """Number of profiles in that mean, the weight of a process when several train together."""
        return masked_loss(self.loss.function, products, self.settings)[1].sum()


@dataclass(frozen=True)
class JointlySeen:
    """Input of a joint loss."""

    views: Embeddings
    """Embeddings of two views."""
    products: InnerProducts
    """Inner products of profiles and their reconstructions."""


@dataclass(frozen=True)
class Joint:
    """Agreement of views plus reconstruction, with a shared encoder."""

    views: SelfSupervised
    """Objective of the views."""
    reconstruction: Reconstruction
    """Objective of the reconstruction: of profiles, or of halves by halves."""
    weight: float
    """Weight of the agreement of views; the reconstruction has weight 1."""
    chooses_epoch: ClassVar[bool] = False

    def to(self, device: torch.device) -> "Joint":
        """Move both objectives to the device of the network."""
        self.views.to(device)
        self.reconstruction.to(device)
        return self

    def begin(self, network: Network, n_steps: int, cut: float = 1.0) -> None:
        """Prepare the objective of the views; the reconstruction needs no preparation."""
        self.views.begin(network, n_steps, cut)

    def learned(self) -> list[nn.Parameter]:
        """Parameters of the objective of the views."""
        return self.views.learned()

    def see(self, network: Network, batch: JointBatch) -> JointlySeen:
        """Embed the views and reconstruct the profiles of a mini-batch."""
        return JointlySeen(self.views.see(network, batch.views), self.reconstruction.see(network, batch.pairs))

    def __call__(self, seen: JointlySeen) -> Tensor:
        """Weighted sum of both means."""
        total: Tensor = self.weight * self.views(seen.views) + self.reconstruction(seen.products)
        return total

    def n_counted(self, seen: JointlySeen) -> Tensor:
        """Number of profiles in the mean of the reconstruction."""
        return self.reconstruction.n_counted(seen.products)

    def after_step(self, network: Network, seen: JointlySeen) -> None:
        """Update teachers and queues."""
        self.views.after_step(network, seen.views)

    def state(self) -> dict[str, Tensor]:
        """State of the objective of the views."""
        return self.views.state()

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Restore such a state, after `begin`."""
        self.views.set_state(state)
