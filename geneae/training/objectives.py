"""What a training step minimises."""

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
    """What the training loop asks of whatever a step minimises."""

    @property
    def chooses_epoch(self) -> bool:
        """Whether its validation loss chooses the epoch; else the last one is taken."""

    def to(self, device: torch.device) -> Any:
        """Move what it holds to where the network is."""

    def begin(self, network: Network, n_steps: int, cut: float = 1.0) -> None:
        """Before the first of so many steps, when the network has been cut; what it learns itself is cut, too."""

    def learned(self) -> Sequence[nn.Parameter]:
        """Parameters beside those of the network."""

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
class Reconstructed:
    """What is known of the reconstructions of a batch."""

    latent: Tensor
    """(n_profiles, n_latent)"""
    for_loss: InnerProducts
    """With the centring of the loss, under its metric, and of all pairs, as the loss asks for."""
    plain: dict[str, InnerProducts]
    """Without metric and pairs, by centring."""


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
    metric: FixedMetric | None = None
    """Metric that profiles are compared under; None for plain inner products. The pairs are made with the same one."""
    chooses_epoch: ClassVar[bool] = True

    def to(self, device: torch.device) -> "Reconstruction":
        """The metric goes to where the network is."""
        if self.metric is not None:
            self.metric.to(device)
        return self

    def begin(self, network: Network, n_steps: int, cut: float = 1.0) -> None:
        """Nothing: it learns nothing itself."""

    def learned(self) -> Sequence[nn.Parameter]:
        """None."""
        return ()

    def see(self, network: Network, batch: Batch) -> InnerProducts:
        """Inner products of the targets of a batch and their predictions."""
        return self.reconstruct(network, batch).for_loss

    def reconstruct(self, network: Network, batch: Batch, centers: tuple[str, ...] = ()) -> Reconstructed:
        """What the loss sees of a batch, and plain inner products with other centrings."""
        found = network(batch.inputs)
        with torch.autocast(found.hidden.device.type, enabled=False):  # sums over genes need 32 bits
            decoder, target = network.decoder().facing(batch.target, self.metric)
            hidden = found.hidden.to(target.squared.dtype)
            plain = decoder.products(hidden, target, dict.fromkeys((self.center, *centers)))
            for_loss = plain[self.center]
            if self.loss.needs == "pairs":
                cross, targets = decoder.pairs(hidden, target, self.center, batch.gram)
                context = BatchContext(cross, targets, found.latent.to(hidden.dtype), batch.labels, batch.progress)
                for_loss = replace(for_loss, batch=context)
            if self.metric is not None:
                for_loss = decoder.under(self.metric, for_loss, hidden, target, self.center)
        return Reconstructed(found.latent, for_loss, plain)

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


@dataclass(frozen=True)
class JointlySeen:
    """What a joint loss is taken of."""

    views: Embeddings
    """Embeddings of two views."""
    products: InnerProducts
    """Inner products of profiles and their reconstructions."""


@dataclass(frozen=True)
class Joint:
    """Agreement of views and reconstruction, through one encoder."""

    views: SelfSupervised
    """Objective of the views."""
    reconstruction: Reconstruction
    """Objective of the reconstruction: of profiles, or of halves by halves."""
    weight: float
    """Weight of the agreement; that of the reconstruction is 1."""
    chooses_epoch: ClassVar[bool] = False

    def to(self, device: torch.device) -> "Joint":
        """Both go to where the network is."""
        self.views.to(device)
        self.reconstruction.to(device)
        return self

    def begin(self, network: Network, n_steps: int, cut: float = 1.0) -> None:
        """Before the first step."""
        self.views.begin(network, n_steps, cut)

    def learned(self) -> list[nn.Parameter]:
        """Parameters beside those of the network."""
        return self.views.learned()

    def see(self, network: Network, batch: JointBatch) -> JointlySeen:
        """Views embedded, and the other profiles of the batch reconstructed."""
        return JointlySeen(self.views.see(network, batch.views), self.reconstruction.see(network, batch.pairs))

    def __call__(self, seen: JointlySeen) -> Tensor:
        """The sum of both means."""
        total: Tensor = self.weight * self.views(seen.views) + self.reconstruction(seen.products)
        return total

    def n_counted(self, seen: JointlySeen) -> Tensor:
        """How many profiles the reconstruction is a mean over."""
        return self.reconstruction.n_counted(seen.products)

    def after_step(self, network: Network, seen: JointlySeen) -> None:
        """Teachers and queues follow."""
        self.views.after_step(network, seen.views)

    def state(self) -> dict[str, Tensor]:
        """That of the views."""
        return self.views.state()

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Go on from there, after `begin`."""
        self.views.set_state(state)
