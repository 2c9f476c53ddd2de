"""What a network reads and what it is to predict: a profile itself, or one half of its molecules the other."""

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from geneae.data.count_split import Splitter, draw_halves
from geneae.data.preprocess import Expression, Preprocess
from geneae.losses.fixed_metric import FixedMetric
from geneae.losses.inner_products import InnerProducts, TargetProducts, gram_of
from geneae.losses.reconstruction import LossSettings, cosine, mean_loss, mse
from geneae.losses.sparse_rows import RowStore, SparseRows, row_sums, sparse_rows
from geneae.models.ceiling import cosine_of_halves, half_ceiling
from geneae.models.decoders import LinearDecoder
from geneae.models.network import Network

CHUNK = 2048  # profiles projected at a time
CACHE_BYTES = 2**31  # of count splits kept between epochs; others are drawn again from their seed

TRAINING_STREAM, VALIDATION_STREAM = 0, 1  # keep the count splits of both apart, whatever the seed


@dataclass(frozen=True)
class Batch:
    """Some profiles: what a network reads of them, and what it is to predict."""

    inputs: Tensor | SparseRows
    """(n_profiles, n_scores) scores in a fixed basis, profiles in a free one."""
    target: TargetProducts | SparseRows
    """Products with the decoder in a fixed basis, profiles in a free one."""
    gram: Tensor | None = None
    """(n_profiles, n_profiles) inner products of the targets, for a loss that asks for them."""
    labels: Tensor | None = None
    """(n_profiles,) int64 for a loss that learns by them, the same for the same label; below 0 for none."""
    progress: float = 1.0
    """Share of the training that is over, 0 to 1."""

    def to(self, device: torch.device | str) -> "Batch":
        """The same elsewhere."""
        gram, labels = (None if tensor is None else tensor.to(device) for tensor in (self.gram, self.labels))
        return Batch(self.inputs.to(device), self.target.to(device), gram, labels, self.progress)


@dataclass(frozen=True, eq=False)
class PairNeeds:
    """What a loss asks of pairs beyond inputs and targets."""

    gram: bool = False
    """The inner products of targets with each other: they need the profiles themselves, as no basis of fewer
    dimensions than genes holds them."""
    labels: Tensor | None = None
    """(n_profiles,) int64, below 0 for none."""
    metric: FixedMetric | None = None
    """The map of targets under a metric."""


NO_NEEDS = PairNeeds()


class Pairs:
    """Inputs and targets: each row its own target, or each half of a profile the other half.

    In a fixed basis everything that training needs of a profile is a handful of numbers, projected once; in a free
    basis the profiles themselves are kept, sparse.

    Parameters
    ----------
    network
        For which basis they are made.
    blocks
        The profiles, or their two halves; in a fixed basis also their products with the decoder, half after half, with
        the number of halves.
    needs
        What the loss asks for.
    """

    def __init__(
        self,
        network: Network,
        blocks: list[sparse.csr_matrix] | tuple[TargetProducts, int],
        needs: PairNeeds = NO_NEEDS,
    ) -> None:
        self._projection: TargetProducts | None = None
        self._store: RowStore | None = None
        self._labels = needs.labels
        self._matrix: sparse.csr_matrix | None = None
        if isinstance(blocks, tuple):
            self._projection, n_halves = blocks
        else:
            n_halves = len(blocks)
            if not network.is_free:
                self._projection = project_blocks(network, blocks, needs.metric)
            if needs.gram:
                self._matrix = _stack(blocks)
        if self._projection is not None:
            self._scores = network.scores_of(self._projection)
            self.n_pairs = len(self._scores)
        else:
            assert isinstance(blocks, list)
            matrix = _stack(blocks) if self._matrix is None else self._matrix
            self._store = RowStore(matrix)
            rows = sparse_rows(matrix)
            self._sums = row_sums(rows, network.mean.cpu())
            if needs.metric is not None:
                self._sums = replace(self._sums, mapped=needs.metric.project(rows).cpu())
            self.n_pairs = int(matrix.shape[0])
        self.n_profiles = self.n_pairs // n_halves
        self._swap = self.n_profiles if n_halves == 2 else 0

    def __len__(self) -> int:
        return self.n_pairs

    def order(self, generator: torch.Generator) -> Tensor:
        """(n_profiles,) pairs of an epoch: every profile once, in random order; which half is the input is drawn."""
        profiles = torch.randperm(self.n_profiles, generator=generator)
        if not self._swap:
            return profiles
        return profiles + self._swap * torch.randint(0, 2, profiles.shape, generator=generator)

    def take(self, index: Tensor, progress: float = 1.0) -> Batch:
        """Some pairs, when that share of the training is over."""
        partner = (index + self._swap) % self.n_pairs
        gram = None if self._matrix is None else gram_of(self._matrix[partner.numpy()])
        labels = None if self._labels is None else self._labels[index % self.n_profiles]
        if self._projection is not None:
            device = self._scores.device
            inputs, target = self._scores[index.to(device)], self._projection.take(partner.to(device))
            return Batch(inputs, target, gram, labels, progress)
        assert self._store is not None
        rows = self._store.take(index)
        wanted = replace(self._store.take(partner) if self._swap else rows, sums=self._sums.take(partner))
        return Batch(rows, wanted, gram, labels, progress)


def _stack(blocks: list[sparse.csr_matrix]) -> sparse.csr_matrix:
    return blocks[0] if len(blocks) == 1 else sparse.vstack(blocks, format="csr")


def project_blocks(
    network: Network, blocks: list[sparse.csr_matrix], metric: FixedMetric | None = None
) -> TargetProducts:
    """Products of the profiles of all blocks with a decoder in a fixed basis, block after block."""
    device, decoder = network.mean.device, network.decoder()
    parts = [
        decoder.project(sparse_rows(block[start : start + CHUNK]).to(device), metric)
        for block in blocks
        for start in range(0, block.shape[0], CHUNK)
    ]
    return TargetProducts(*map(torch.cat, zip(*(part.tensors() for part in parts), strict=True)))


def draw_blocks(
    expression: Expression, preprocess: Preprocess, splitter: Splitter | None, seed: tuple[int, ...]
) -> list[sparse.csr_matrix]:
    """Two random halves of the profiles by their splitter, or without one the profiles themselves; normalised."""
    if splitter is None:
        return [preprocess.apply(expression)]
    return [preprocess.apply(half) for half in draw_halves(splitter, expression.totals, np.random.default_rng(seed))]


def mismatch(blocks: list[sparse.csr_matrix], partner: np.ndarray | None) -> list[sparse.csr_matrix]:
    """Two blocks whose rows belong together, of which the second belongs to the partners; all as it is without any.

    Parameters
    ----------
    blocks
        The profiles, or their two halves.
    partner
        (n_profiles,) row by row.
    """
    return blocks if partner is None else [blocks[0], blocks[-1][partner]]


@dataclass(frozen=True)
class CountSplits:
    """How often molecules are divided anew, and by which seed."""

    is_split: bool
    """Whether halves predict halves; else every profile is its own target."""
    number: int
    """Count splits that the epochs take in turn, where there are any."""
    seed: int
    """Seed that the count splits are drawn from."""

    @property
    def in_turn(self) -> int:
        """Sets of pairs that the epochs take in turn: one for each count split, or the profiles as they are."""
        return self.number if self.is_split else 1


class PairSource:
    """Pairs of every epoch: some count splits in turn, which train as well as a fresh one each time.

    Parameters
    ----------
    network
        For which basis they are made.
    expression, preprocess
        The training profiles.
    splits
        How their molecules are divided.
    first
        The blocks of the first split, where they were drawn before.
    partner
        (n_profiles,) profile whose target each is given, see `mismatch`; its own without it.
    needs
        What the loss asks for.
    """

    def __init__(
        self,
        network: Network,
        expression: Expression,
        preprocess: Preprocess,
        splits: CountSplits,
        first: list[sparse.csr_matrix] | None = None,
        partner: np.ndarray | None = None,
        needs: PairNeeds = NO_NEEDS,
    ) -> None:
        self.n_splits = splits.in_turn
        n_mapped = 0 if needs.metric is None else needs.metric.n_components
        bytes_each = 8 * expression.n_profiles * (n_mapped + (0 if network.is_free else len(network.deviation)))
        bytes_each += 8 * expression.n_values * (2 * network.is_free + needs.gram)
        splitter = Splitter(expression.rows) if splits.is_split else None

        def draw(split: int) -> Pairs:
            if split == 0 and first is not None:
                return Pairs(network, first, needs)
            blocks = draw_blocks(expression, preprocess, splitter, (splits.seed, TRAINING_STREAM, split))
            return Pairs(network, mismatch(blocks, partner), needs)

        self._draw = lru_cache(maxsize=max(1, CACHE_BYTES // max(1, bytes_each)))(draw)

    def epoch(self, epoch: int) -> Pairs:
        """Pairs of an epoch, counted from 1; drawn when first asked for."""
        return self._draw((epoch - 1) % self.n_splits)


def loss_constants(
    blocks: list[sparse.csr_matrix],
    mean: Tensor,
    center: str,
    settings: LossSettings,
    metric: FixedMetric | None = None,
) -> LossSettings:
    """Fill in what the training profiles say: the mean profile's errors, the median norm, the norm ratio to ask for.

    Parameters
    ----------
    blocks
        Training profiles, or their two halves, as the network sees them.
    mean
        Their gene mean.
    center
        Centring of the loss.
    settings
        Weights of the user; a `norm_ratio` other than 1 is kept.
    metric
        Of the loss; lengths, errors and cosines are those under it.
    """
    metric = None if metric is None else deepcopy(metric).to("cpu", torch.float64)
    products = [_mean_profile_products(block, mean, center, metric) for block in blocks]
    median_norm = float(torch.cat([p.target for p in products]).sqrt().median())
    constants = LossSettings(median_norm=median_norm)
    by_error = float(np.mean([float(mean_loss(mse, p, constants)) for p in products]))
    by_direction = float(np.mean([float(mean_loss(cosine, p, constants)) for p in products]))
    norm_ratio = settings.norm_ratio
    if len(blocks) == 2 and norm_ratio == 1:
        of_halves = cosine_of_halves(blocks[0], blocks[1], mean.double().numpy(), center, metric)
        norm_ratio = half_ceiling(of_halves) or 1.0
    return replace(
        settings,
        mean_profile_mse=by_error or 1.0,
        mean_profile_cosine=by_direction or 1.0,
        median_norm=median_norm or 1.0,
        norm_ratio=norm_ratio,
    )


def _mean_profile_products(
    block: sparse.csr_matrix, mean: Tensor, center: str, metric: FixedMetric | None
) -> InnerProducts:
    nothing, hidden = (torch.zeros(n, 1, dtype=torch.float64) for n in (len(mean), block.shape[0]))
    mean = mean.double()
    rows = sparse_rows(block).to("cpu", torch.float64)
    decoder = LinearDecoder(nothing, mean, mean)
    target = decoder.project(rows, metric)
    plain = decoder.products(hidden, target, [center])[center]
    return plain if metric is None else decoder.under(metric, plain, hidden, target, center)
