"""Entry head: a small network, shared by all profiles and genes, that corrects the prediction of single seen values."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

WIDTH = 32  # units of both hidden layers
MOST_CORRECTION = 4.0  # in noise deviations of the gene
N_FEATURES = 10
STEPS, BATCH = 1000, 2048  # most steps of the first fit, and entries in each, drawn with replacement
PASSES, LEAST_STEPS = 3, 100  # how often each entry is seen, typically, but for few and for very many entries
LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 5e-3, 1e-3, 100
TARGET_SUM = 1e4  # molecules per profile after normalisation


class EntryHead(nn.Module):
    """Correction of the prediction of a seen value, in noise deviations of its gene; 0 at first, and within -4 and 4.

    Parameters
    ----------
    seed
        Seed of the first two layers; other random numbers do not change.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)  # seeding torch itself would also seed every GPU
        first, second, last = (
            _linear(*sizes, generator) for sizes in ((N_FEATURES, WIDTH), (WIDTH, WIDTH), (WIDTH, 1))
        )
        self.layers = nn.Sequential(first, nn.GELU(), second, nn.GELU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def is_zero(self) -> bool:
        """Whether every correction is 0, as at first."""
        return not any(bool(parameter.any()) for parameter in self.layers[-1].parameters())

    def forward(self, features: Tensor) -> Tensor:
        """(n_entries,) corrections from (n_entries, n_features)."""
        corrections: Tensor = self.layers(features)[:, 0].clamp(-MOST_CORRECTION, MOST_CORRECTION)
        return corrections


def _linear(n_inputs: int, n_outputs: int, generator: torch.Generator) -> nn.Linear:
    """A layer that starts as torch's own do, with random numbers of a generator."""
    with torch.random.fork_rng(devices=()):  # skip_init, which draws nothing, takes half a second to load
        layer = nn.Linear(n_inputs, n_outputs)
    bound = n_inputs**-0.5
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return layer


@dataclass(frozen=True)
class GeneFeatures:
    """What the head sees of a gene, apart from its value; each (n_genes,)."""

    level: Tensor
    """Standardised log mean."""
    noise: Tensor
    """Standardised log noise deviation."""


def gene_features(mean: Tensor, deviation: Tensor) -> GeneFeatures:
    """Features of genes from their means and noise deviations."""
    return GeneFeatures(_standardised((mean + 1e-6).log()), _standardised(deviation.log()))


def _standardised(values: Tensor) -> Tensor:
    return (values - values.mean()) / values.std(correction=0).clamp(min=1e-6)


def entry_features(
    predictions: Tensor,
    differences: Tensor,
    values: Tensor,
    expected: Tensor,
    of_genes: tuple[Tensor, Tensor, Tensor],
    delta: float,
    of_profiles: tuple[Tensor, Tensor],
) -> Tensor:
    """(n_entries, n_features) float32 input of the head.

    Parameters
    ----------
    predictions
        (n_entries,) predictions of the gene from the scores, in noise deviations.
    differences
        Differences of the value from the mean of the gene at this depth, in noise deviations of a half.
    values
        Normalised values.
    expected
        Predictions in the units of the values.
    of_genes
        For each entry: level and noise of its gene (`GeneFeatures`), and its share of own counts in units of their
        spread over genes.
    delta
        Depth of the profiles.
    of_profiles
        For each entry: the value of a single molecule, log1p(10,000 / molecules), and the depth score of its profile.
    """
    level, noise, share = of_genes
    single, depth_score = of_profiles
    return torch.stack(
        [
            predictions.clamp(-8, 8),
            (0.3 * differences).clamp(-2.5, 2.5),
            0.3 * values,
            (0.3 * expected).clamp(-0.3, 2.7),
            torch.full_like(values, delta),
            level,
            noise,
            share,
            0.3 * (values - single),
            depth_score,
        ],
        1,
    )


@dataclass(frozen=True)
class EntrySample:
    """Entries from which a head learns, of one depth."""

    features: Tensor
    """(n_entries, n_features)"""
    targets: Tensor
    """(n_entries,) residuals of the prediction without head, in noise deviations."""
    weights: Tensor
    """(n_entries,) weights of squared residuals."""
    share: float
    """Share of the entries of a step that come from this depth."""


def fit_head(samples: list[EntrySample], seed: int) -> EntryHead:
    """Head of least weighted squared error on random entries: the start of its training by the loss of a fit."""
    head = EntryHead(seed)
    generator = torch.Generator().manual_seed(seed)
    samples = [sample for sample in samples if len(sample.targets)]
    if not samples:
        return head.eval()
    total, n_entries = sum(sample.share for sample in samples), sum(len(sample.targets) for sample in samples)
    n_steps, size = head_steps(n_entries), min(BATCH, n_entries)
    n_each = [max(1, round(size * sample.share / total)) for sample in samples]
    starts = np.cumsum([0, *(len(sample.targets) for sample in samples)])
    features, targets, weights = (
        torch.cat([getattr(sample, name) for sample in samples]) for name in ("features", "targets", "weights")
    )
    optimizer = torch.optim.AdamW(head.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    for step in range(n_steps):
        rate = LEARNING_RATE * min(1.0, (step + 1) / WARM_UP, 2 * (1 - step / n_steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        drawn = [
            torch.randint(int(start), int(end), (n,), generator=generator)
            for start, end, n in zip(starts[:-1], starts[1:], n_each, strict=True)
        ]
        index = torch.cat(drawn)
        loss = (weights[index] * (head(features[index]) - targets[index]).square()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head.eval()


def head_steps(n_entries: int) -> int:
    """Steps of the first fit: some passes over the entries, within limits."""
    return int(np.clip(PASSES * n_entries // BATCH, LEAST_STEPS, STEPS))


def sample_size(n_entries: int, share: float, most: int) -> int:
    """Entries to keep of one item, so that all items together keep at most `most`."""
    return int(min(n_entries, np.ceil(most * share)))
