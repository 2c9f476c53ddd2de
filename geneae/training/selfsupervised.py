"""Self-supervised learning from the agreement of two views of a profile: SimCLR, MoCo v2 and v3, SimSiam, BYOL, DINO,
Barlow Twins, VICReg.

Each method is a `SelfSupervised`: heads on the encoder, in some methods a teacher that follows it, and a loss. Sizes
suit profiles, not images: heads are as wide as the hidden layers, teachers follow faster, and queues hold at most half
of the profiles. Small crops and long warm-ups, which some of the papers use, are left out.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from geneae.losses.view_losses import (
    against_batch,
    against_queue,
    cross_correlation,
    distillation,
    negative_cosine,
    nt_xent,
    squared_distance,
    unit,
    variance_covariance,
)
from geneae.models.heads import Branch, Prototypes, cut_plainly, layers
from geneae.models.network import Network
from geneae.settings.errors import unknown
from geneae.training.view_batches import TwoViews

N_PROJECTED = 64  # length of a projection; the papers take 128 to 2,048 for images
N_PROTOTYPES = 256
MOMENTUM = 0.99  # momentum of teachers; the papers' 0.996 and 0.999 suit a hundred times as many steps
QUEUE = 1024  # maximum number of keys
CENTER_MOMENTUM = 0.9
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.04


@dataclass(frozen=True)
class Sizes:
    """Sizes that heads and queues depend on."""

    n_latent: int
    """Length of the latent."""
    hidden: int
    """Width of hidden layers."""
    n_profiles: int
    """Number of training profiles."""


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of two views, each (n_profiles, n): the input of a loss."""

    latent: tuple[Tensor, Tensor]
    """Latents of the encoder."""
    online: tuple[Tensor, Tensor]
    """Projections with a gradient, or predictions if there is a predictor."""
    target: tuple[Tensor, Tensor]
    """Projections without a gradient: those of the teacher, or the same projections if there is no teacher."""


class SelfSupervised(nn.Module, ABC):
    """Heads, teacher and loss of one method."""

    chooses_epoch = False
    """False: a loss of agreement says little about an encoder, and labels are not used. The last epoch is taken, unless
    there is a `geneae.training.choice.Choice`."""

    def __init__(
        self,
        projector: nn.Module,
        predictor: nn.Module | None = None,
        momentum: tuple[float, float] | None = None,
        shift: Tensor | None = None,
    ) -> None:
        """Heads; the momentum of a teacher at start and end, with half a cosine in between; and the (n_genes,)
        difference of the gene mean of the views from that of the network."""
        super().__init__()
        self.projector = projector
        self.predictor = predictor
        self.register_buffer("shift", shift)
        self.shift: Tensor | None
        self._momentum = momentum
        self._teacher: AveragedModel | None = None
        self._step, self._n_steps = 0, 1

    @abstractmethod
    def by_profile(self, seen: Embeddings) -> Tensor:
        """(n_profiles,) losses."""

    def begin(self, network: Network, n_steps: int, cut: float = 1.0) -> None:
        """Cut the heads, and make the teacher a copy of the encoder; call this before the first step."""
        self.to(network.mean.device)
        self._step, self._n_steps = 0, n_steps
        cut_plainly(self, cut)
        if self._momentum is not None:
            branch = Branch(network, self.projector)
            self._teacher = AveragedModel(branch, multi_avg_fn=get_ema_multi_avg_fn(self._momentum[0]))
            self._teacher.requires_grad_(False)
            self._teacher.update_parameters(branch)  # the first call copies, later ones average
            self._teacher.train()  # the copied encoder may have been in evaluation mode

    def state(self) -> dict[str, Tensor]:
        """Heads, teacher, queue or centre, and the number of completed steps."""
        return self.state_dict()

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Restore such a state, after `begin`."""
        self.load_state_dict(state)

    def get_extra_state(self) -> Tensor:
        """Number of completed steps, which torch saves and loads with the weights."""
        return torch.tensor(self._step)

    def set_extra_state(self, state: Tensor) -> None:
        """Set the number of completed steps."""
        self._step = int(state)

    def learned(self) -> list[nn.Parameter]:
        """Trainable parameters of the heads, without those of the teacher, which follow."""
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("_teacher")]

    def see(self, network: Network, batch: TwoViews) -> Embeddings:
        """Embed two views of the same profiles."""
        views = batch.first, batch.second
        latent = tuple(network.encode(network.read(view, self.shift)) for view in views)
        projected = tuple(self.projector(each) for each in latent)
        online = projected if self.predictor is None else tuple(self.predictor(each) for each in projected)
        if self._teacher is None:
            target = tuple(each.detach() for each in projected)
        else:
            with torch.no_grad():
                target = tuple(self._teacher(view, self.shift) for view in views)
        return Embeddings(*((one, other) for one, other in (latent, online, target)))

    def __call__(self, seen: Embeddings) -> Tensor:
        """Mean loss over profiles."""
        return self.by_profile(seen).mean()

    def n_counted(self, seen: Embeddings) -> Tensor:
        """Number of profiles in that mean: all of the mini-batch."""
        return torch.tensor(len(seen.latent[0]))

    def after_step(self, network: Network, seen: Embeddings) -> None:
        """Let the teacher follow, with a momentum that rises to its final value."""
        self._step += 1
        if self._teacher is not None and self._momentum is not None:
            momentum = cosine_ramp(*self._momentum, self._step / self._n_steps)
            self._teacher.multi_avg_fn = get_ema_multi_avg_fn(momentum)
            self._teacher.update_parameters(Branch(network, self.projector))

    def normalized(self, seen: Embeddings) -> tuple[Tensor, Tensor]:
        """Vectors of the first view that the loss normalises, and the vectors with which they are to agree."""
        return seen.online[0], seen.target[1]

    @torch.no_grad()
    def validate(self, network: Network, batches: list[TwoViews]) -> tuple[Tensor, dict[str, float]]:
        """(n_profiles,) losses of validation views, and columns of the history.

        Returns
        -------
        The losses; and `view_cosine`, mean cosine of the two views; `opposite_halves`, share of cosines below 0;
        `embedding_norm`, median length before normalisation; `effective_gradient`, mean of sin / length, the norm of
        the gradient of a cosine; `latent_norm`, median length of the latents; `latent_spread`, standard deviation of
        the directions of latents relative to random directions, 0 if all are equal.
        """
        network.eval()
        self.eval()
        losses, vectors, targets, latents = [], [], [], []
        for batch in batches:
            seen = self.see(network, batch.to(network.mean.device))
            losses.append(self.by_profile(seen))
            vector, target = self.normalized(seen)
            vectors.append(vector.double())
            targets.append(target.double())
            latents.append(seen.latent[0])
        self.train()
        vector, latent = torch.cat(vectors), torch.cat(latents)
        cosine = (unit(vector) * unit(torch.cat(targets))).sum(1)
        norm = vector.norm(dim=1)
        sine = (1 - cosine.square()).clamp(min=0).sqrt()
        spread = unit(latent).std(0, correction=0).mean() * math.sqrt(latent.shape[1])
        return torch.cat(losses).double().cpu(), {
            "view_cosine": float(cosine.mean()),
            "opposite_halves": float((cosine < 0).double().mean()),
            "embedding_norm": float(norm.median()),
            "effective_gradient": float((sine / norm.clamp(min=1e-12)).mean()),
            "latent_norm": float(latent.norm(dim=1).median()),
            "latent_spread": float(spread),
        }


def cosine_ramp(start: float, end: float, progress: float) -> float:
    """Value between `start` and `end`, along half a cosine, at a progress from 0 to 1."""
    return end - (end - start) * (math.cos(math.pi * min(1.0, progress)) + 1) / 2


class SimCLR(SelfSupervised):
    """Each view against all other views of the mini-batch."""

    temperature = 0.5

    def __init__(self, sizes: Sizes, shift: Tensor | None = None) -> None:
        super().__init__(layers((sizes.n_latent, sizes.hidden, N_PROJECTED), is_normalized=False), shift=shift)

    def by_profile(self, seen: Embeddings) -> Tensor:
        """(n_profiles,) `nt_xent`."""
        return nt_xent(*seen.online, self.temperature)

    def normalized(self, seen: Embeddings) -> tuple[Tensor, Tensor]:
        """Projections of both views, both with a gradient."""
        return seen.online


class MoCoV2(SelfSupervised):
    """Each view against the teacher's key of the other view and a queue of earlier keys."""

    temperature = 0.2

    def __init__(self, sizes: Sizes, shift: Tensor | None = None) -> None:
        projector = layers((sizes.n_latent, sizes.hidden, N_PROJECTED), is_normalized=False)
        super().__init__(projector, momentum=(MOMENTUM, MOMENTUM), shift=shift)
        # a profile with its own earlier keys in the queue would be pushed away from itself
        size = max(1, min(QUEUE, sizes.n_profiles // 2))
        self.register_buffer("queue", unit(torch.randn(size, N_PROJECTED)))
        self.queue: Tensor

    def by_profile(self, seen: Embeddings) -> Tensor:
        """(n_profiles,) mean of `against_queue` over both directions."""
        first, second = (
            against_queue(query, key, self.queue, self.temperature)
            for query, key in zip(seen.online, seen.target[::-1], strict=True)
        )
        return (first + second) / 2

    def after_step(self, network: Network, seen: Embeddings) -> None:
        """Let the newest keys replace the oldest."""
        super().after_step(network, seen)
        self.queue = torch.cat([unit(seen.target[1]), self.queue])[: len(self.queue)]


class MoCoV3(SelfSupervised):
    """Predictions of each view against the teacher's keys of the other view in the mini-batch."""

    temperature = 0.2

    def __init__(self, sizes: Sizes, shift: Tensor | None = None) -> None:
        projector = layers((sizes.n_latent, sizes.hidden, sizes.hidden, N_PROJECTED), True, is_last_normalized=True)
        predictor = layers((N_PROJECTED, sizes.hidden, N_PROJECTED), True, is_last_normalized=True)
        super().__init__(projector, predictor, (MOMENTUM, 1.0), shift)

    def by_profile(self, seen: Embeddings) -> Tensor:
        """(n_profiles,) sum of `against_batch` over both directions."""
        first, second = (
            against_batch(query, key, self.temperature)
            for query, key in zip(seen.online, seen.target[::-1], strict=True)
        )
        return first + second


class SimSiam(SelfSupervised):
    """Predictions of each view towards the projections of the other, which get no gradient.

    Without the stop-gradient and the predictor, all profiles would soon have the same embedding (Chen and He 2021,
    arXiv 2011.10566).
    """

    def __init__(self, sizes: Sizes, shift: Tensor | None = None) -> None:
        projector = layers((sizes.n_latent, sizes.hidden, sizes.hidden, N_PROJECTED), True, is_last_normalized=True)
        predictor = layers((N_PROJECTED, N_PROJECTED // 4, N_PROJECTED), is_normalized=True)
        super().__init__(projector, predictor, shift=shift)

    def by_profile(self, seen: Embeddings) -> Tensor:
        """(n_profiles,) mean of `negative_cosine` over both directions."""
        first, second = map(negative_cosine, seen.online, seen.target[::-1])
        return (first + second) / 2


class BYOL(SelfSupervised):
    """Predictions of each view towards the teacher's projections of the other.

    Grill et al. 2020, arXiv 2006.07733.
    """

    def __init__(self, sizes: Sizes, shift: Tensor | None = None) -> None:
        projector = layers((sizes.n_latent, sizes.hidden, N_PROJECTED), is_normalized=True)
        predictor = layers((N_PROJECTED, sizes.hidden, N_PROJECTED), is_normalized=True)
        super().__init__(projector, predictor, (MOMENTUM, 1.0), shift)

    def by_profile(self, seen: Embeddings) -> Tensor:
        """(n_profiles,) sum of `squared_distance` over both directions."""
        first, second = map(squared_distance, seen.online, seen.target[::-1])
        return first + second


class DINO(SelfSupervised):
    """The student's soft prototypes of each view towards the teacher's of the other.

    The head has BatchNorm, which is optional in the authors' code. Without it, the biases of the head may outweigh a
    short latent, so that different profiles start with nearly the same embedding. Centring then removes nearly all of
    the teacher's logits, and the student learns to prefer no prototype: a collapse.
    """

    def __init__(self, sizes: Sizes, shift: Tensor | None = None) -> None:
        embedding = layers((sizes.n_latent, sizes.hidden, sizes.hidden, N_PROJECTED), is_normalized=True)
        super().__init__(Prototypes(embedding, N_PROJECTED, N_PROTOTYPES), momentum=(MOMENTUM, 1.0), shift=shift)
        self.register_buffer("center", torch.zeros(N_PROTOTYPES))
        self.center: Tensor

    def by_profile(self, seen: Embeddings) -> Tensor:
        """(n_profiles,) mean of `distillation` over both directions."""
        first, second = (
            distillation(student.float(), teacher.float(), self.center, STUDENT_TEMPERATURE, TEACHER_TEMPERATURE)
            for student, teacher in zip(seen.online, seen.target[::-1], strict=True)
        )
        return (first + second) / 2

    def after_step(self, network: Network, seen: Embeddings) -> None:
        """Let the centre follow the mean logits of the teacher."""
        super().after_step(network, seen)
        self.center = self.center.lerp(torch.cat(seen.target).float().mean(0), 1 - CENTER_MOMENTUM)

    def normalized(self, seen: Embeddings) -> tuple[Tensor, Tensor]:
        """Embeddings before the prototypes."""
        first, second = (self.projector.get_submodule("embedding")(latent) for latent in seen.latent)
        return first, second


class Barlow(SelfSupervised):
    """The correlations between the components of both views towards the identity: Barlow Twins.

    There are no negatives: a profile of the same kind is not pushed away.
    """

    redundancy = 1 / N_PROJECTED  # weight of a pair of components, so that all pairs weigh as much as the diagonal

    def __init__(self, sizes: Sizes, shift: Tensor | None = None) -> None:
        super().__init__(layers((sizes.n_latent, sizes.hidden, sizes.hidden, N_PROJECTED), True), shift=shift)

    def by_profile(self, seen: Embeddings) -> Tensor:
        """(n_profiles,) `cross_correlation`."""
        return cross_correlation(*seen.online, self.redundancy)

    def normalized(self, seen: Embeddings) -> tuple[Tensor, Tensor]:
        """Projections of both views, both with a gradient."""
        return seen.online


class VICReg(SelfSupervised):
    """Both views alike, with components that vary and are not correlated.

    There are no negatives: a profile of the same kind is not pushed away.
    """

    def __init__(self, sizes: Sizes, shift: Tensor | None = None) -> None:
        super().__init__(layers((sizes.n_latent, sizes.hidden, sizes.hidden, N_PROJECTED), True), shift=shift)

    def by_profile(self, seen: Embeddings) -> Tensor:
        """(n_profiles,) `variance_covariance`."""
        return variance_covariance(*seen.online)

    def normalized(self, seen: Embeddings) -> tuple[Tensor, Tensor]:
        """Projections of both views, both with a gradient."""
        return seen.online


RECONSTRUCTION = "reconstruction"
OBJECTIVES: dict[str, Callable[[Sizes, Tensor | None], SelfSupervised]] = {
    "simclr": SimCLR,
    "moco-v2": MoCoV2,
    "moco-v3": MoCoV3,
    "simsiam": SimSiam,
    "byol": BYOL,
    "dino": DINO,
    "barlow": Barlow,
    "vicreg": VICReg,
}


def parse_objective(text: str) -> tuple[str | None, bool]:
    """Name in `OBJECTIVES`, or None; and whether reconstruction is included. `simclr+reconstruction` has both."""
    parts = text.split("+")
    views = [part for part in parts if part != RECONSTRUCTION]
    if len(set(parts)) < len(parts) or len(views) > 1 or not set(views) <= set(OBJECTIVES):
        joint = [f"{name}+{RECONSTRUCTION}" for name in OBJECTIVES]
        raise unknown("objective", text, (RECONSTRUCTION, *OBJECTIVES, *joint))
    return (views[0] if views else None), RECONSTRUCTION in parts
