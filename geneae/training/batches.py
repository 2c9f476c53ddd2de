"""Inputs and targets: a profile is its own target, or one half of its molecules predicts the other half."""

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from geneae.data.augment import SHARES, WEIGHTS, thin_to
from geneae.data.count_split import Splitter, draw_halves, with_own_totals
from geneae.data.preprocess import Expression, Preprocess
from geneae.losses.device_rows import ProfileStore
from geneae.losses.fixed_metric import FixedMetric
from geneae.losses.inner_products import InnerProducts, TargetProducts, gram_of
from geneae.losses.reconstruction import LossSettings, cosine, mean_loss, mse
from geneae.losses.sparse_rows import SparseRows, row_sums, sparse_rows
from geneae.models.ceiling import cosine_of_halves, half_ceiling
from geneae.models.decoders import LinearDecoder
from geneae.models.depths import DELTAS
from geneae.models.estimator import Estimator
from geneae.models.network import Network

CHUNK = 2048  # profiles projected at a time
CACHE_BYTES = 2**31  # memory for count splits kept between epochs; others are drawn again from their seed

# keep the count splits of training and validation different, whatever the seed
TRAINING_STREAM, VALIDATION_STREAM = 0, 1


@dataclass(frozen=True)
class Batch:
    """Mini-batch: the inputs and targets of some profiles."""

    inputs: Tensor | SparseRows
    """(n_profiles, n_scores) scores in a fixed basis, sparse profiles in a free one."""
    target: TargetProducts | SparseRows
    """Inner products with the decoder in a fixed basis, sparse profiles in a free one."""
    gram: Tensor | None = None
    """(n_profiles, n_profiles) inner products of the targets with each other, if the loss needs them."""
    labels: Tensor | None = None
    """(n_profiles,) int64 label codes, if the loss uses labels; below 0 for profiles without a label."""
    progress: float = 1.0
    """Completed share of the training, 0 to 1."""

    def to(self, device: torch.device | str) -> "Batch":
        """The same mini-batch on another device."""
        gram, labels = (None if tensor is None else tensor.to(device) for tensor in (self.gram, self.labels))
        return Batch(self.inputs.to(device), self.target.to(device), gram, labels, self.progress)


@dataclass(frozen=True, eq=False)
class PairNeeds:
    """Needs of a loss in addition to inputs and targets."""

    gram: bool = False
    """Whether inner products of targets with each other are needed. They require the profiles themselves, because a
    basis with fewer dimensions than genes loses them."""
    labels: Tensor | None = None
    """(n_profiles,) int64 label codes, below 0 for profiles without a label."""
    metric: FixedMetric | None = None
    """Learned metric whose map of the targets is needed."""


NO_NEEDS = PairNeeds()


class Pairs:
    """Inputs and targets: each profile predicts itself, or each half of its molecules predicts the other half.

    In a fixed basis, training needs only a few numbers per profile, which are computed once; in a free basis, the
    profiles themselves are kept, sparse.

    Parameters
    ----------
    network
        Network whose basis the pairs are made for.
    blocks
        The profiles, or their two halves; in a fixed basis alternatively what is kept of them.
    needs
        Further needs of the loss.
    inputs
        In a fixed basis, (n_pairs, n_scores) scores to use instead of those of the blocks: of thinned halves, say.
    """

    def __init__(
        self,
        network: Network,
        blocks: "list[sparse.csr_matrix] | Projected",
        needs: PairNeeds = NO_NEEDS,
        inputs: Tensor | None = None,
    ) -> None:
        self._projection: TargetProducts | None = None
        self._store: ProfileStore | None = None
        self._labels = needs.labels
        self._matrix: sparse.csr_matrix | None = None
        if isinstance(blocks, Projected):
            projected: Projected | None = blocks
            n_halves = blocks.n_halves
        else:
            n_halves = len(blocks)
            projected = None if network.is_free else project_blocks(network, blocks, needs.metric, inputs)
            if needs.gram:
                self._matrix = _stack(blocks)
        if projected is not None:
            self._projection, self._scores = projected.targets, projected.inputs
            self.n_pairs = len(self._scores)
        else:
            assert isinstance(blocks, list)
            matrix = _stack(blocks) if self._matrix is None else self._matrix
            self._store = ProfileStore(matrix, lambda: network.mean.device)
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
        """(n_profiles,) indices of the pairs of an epoch: every profile once, in random order, with either half as
        input at random."""
        profiles = torch.randperm(self.n_profiles, generator=generator)
        if not self._swap:
            return profiles
        return profiles + self._swap * torch.randint(0, 2, profiles.shape, generator=generator)

    def take(self, index: Tensor, progress: float = 1.0) -> Batch:
        """Mini-batch of some pairs; `progress` is the completed share of the training."""
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


@dataclass(frozen=True, eq=False)
class Projected:
    """What training in a fixed basis keeps of profiles, all first halves before all second halves."""

    inputs: Tensor
    """(n_pairs, n_scores) scores."""
    targets: TargetProducts
    """Inner products with the decoder."""
    n_halves: int
    """Number of halves, 1 without splitting."""


@torch.no_grad()
def project_blocks(
    network: Network,
    blocks: list[sparse.csr_matrix],
    metric: FixedMetric | None = None,
    inputs: Tensor | None = None,
) -> Projected:
    """Scores and inner products with the decoder of a fixed basis, block after block.

    Parameters
    ----------
    network
        Network with a fixed basis.
    blocks
        Profiles, or their halves.
    metric
        Learned metric of the loss, if any.
    inputs
        (n_pairs, n_scores) scores to keep instead of those of the blocks.
    """
    device, decoder = network.mean.device, network.decoder()
    chunks = [
        sparse_rows(block[start : start + CHUNK]).to(device)
        for block in blocks
        for start in range(0, block.shape[0], CHUNK)
    ]
    parts = [decoder.project(rows, metric) for rows in chunks]
    targets = TargetProducts(*map(torch.cat, zip(*(part.tensors() for part in parts), strict=True)))
    if inputs is not None:
        scores = inputs.to(device)
    elif network.is_whitened:
        scores = torch.cat([network.scores(rows) for rows in chunks])
    else:
        scores = network.scores_of(targets)
    return Projected(scores, targets, len(blocks))


class ThinnedInputs:
    """Scores of halves thinned to random shares of their molecules, as inputs of a network on posterior scores.

    Every profile gets one share in each count split, with the weights of `geneae.models.depths.WEIGHTS`.

    Parameters
    ----------
    estimator
        Estimator that gives posterior scores at every depth.
    preprocess
        Normalisation.
    unit
        (n_scores,) unit of the scores of the network.
    """

    def __init__(self, estimator: Estimator, preprocess: Preprocess, unit: Tensor) -> None:
        self._estimator, self._preprocess, self._unit = estimator, preprocess, unit.cpu()

    def __call__(self, halves: tuple[Expression, Expression], rng: np.random.Generator) -> Tensor:
        """(n_pairs, n_scores) scores of the first halves, then of the second ones."""
        n_profiles = halves[0].n_profiles
        share = rng.choice(len(SHARES), n_profiles, p=np.array(WEIGHTS) / sum(WEIGHTS))
        scores = torch.empty(2 * n_profiles, len(self._unit))
        own = with_own_totals(halves)
        for number, half in enumerate(halves):
            for index, of_all in enumerate(SHARES):
                rows = np.flatnonzero(share == index)
                thinned = half.take(rows)
                if index:
                    thinned = thin_to(own[number].take(rows), of_all / SHARES[0], rng)
                found = self._estimator.at(DELTAS[index + 1]).scores(self._preprocess.apply(thinned), thinned.totals)
                scores[torch.from_numpy(rows + number * n_profiles)] = found / self._unit
        return scores


def draw_blocks(
    expression: Expression, preprocess: Preprocess, splitter: Splitter | None, seed: tuple[int, ...]
) -> list[sparse.csr_matrix]:
    """Two random halves of the profiles, or without a splitter the profiles themselves; preprocessed."""
    if splitter is None:
        return [preprocess.apply(expression)]
    return [preprocess.apply(half) for half in draw_halves(splitter, expression.totals, np.random.default_rng(seed))]


def draw_pairs(
    expression: Expression,
    preprocess: Preprocess,
    splitter: Splitter | None,
    seed: tuple[int, ...],
    thinned: ThinnedInputs | None,
) -> tuple[list[sparse.csr_matrix], Tensor | None]:
    """`draw_blocks`, and the scores of thinned halves as their inputs, or None without."""
    if thinned is None or splitter is None:
        return draw_blocks(expression, preprocess, splitter, seed), None
    rng = np.random.default_rng(seed)
    halves = draw_halves(splitter, expression.totals, rng)
    return [preprocess.apply(half) for half in halves], thinned(halves, rng)


def mismatch(blocks: list[sparse.csr_matrix], partner: np.ndarray | None) -> list[sparse.csr_matrix]:
    """Inputs and targets, in which each profile gets the target of its partner; without partners the same blocks.

    Parameters
    ----------
    blocks
        The profiles, or their two halves.
    partner
        (n_profiles,) row of the partner of each profile.
    """
    return blocks if partner is None else [blocks[0], blocks[-1][partner]]


@dataclass(frozen=True)
class CountSplits:
    """Number and seed of the count splits of a training."""

    is_split: bool
    """Whether halves predict halves; otherwise every profile is its own target."""
    number: int
    """Number of count splits that the epochs use in turn; ignored without splitting."""
    seed: int
    """Seed of the count splits."""

    @property
    def in_turn(self) -> int:
        """Number of sets of pairs that the epochs use in turn: one per count split, or 1 without splitting."""
        return self.number if self.is_split else 1


class PairSource:
    """Pairs of every epoch. The epochs use a few count splits in turn, which train as well as a new one each time.

    Parameters
    ----------
    network
        Network whose basis the pairs are made for.
    expression, preprocess
        Training profiles and their preprocessing.
    splits
        Count splits of their molecules.
    first
        Blocks of the first split, if they were drawn before.
    partner
        (n_profiles,) profile whose target each profile gets, see `mismatch`; None for its own.
    needs
        Further needs of the loss.
    thinned
        Scores of thinned halves as inputs; None for those of the halves.
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
        thinned: ThinnedInputs | None = None,
    ) -> None:
        self.n_splits = splits.in_turn
        n_mapped = 0 if needs.metric is None else needs.metric.n_components
        bytes_each = 8 * expression.n_profiles * (n_mapped + (0 if network.is_free else len(network.deviation)))
        bytes_each += 8 * expression.n_values * (2 * network.is_free + needs.gram)
        splitter = Splitter(expression.rows) if splits.is_split else None

        def draw(split: int) -> Pairs:
            if split == 0 and first is not None and thinned is None:
                return Pairs(network, first, needs)
            seed = (splits.seed, TRAINING_STREAM, split)
            blocks, inputs = draw_pairs(expression, preprocess, splitter, seed, thinned)
            return Pairs(network, mismatch(blocks, partner), needs, inputs)

        self._draw = lru_cache(maxsize=max(1, CACHE_BYTES // max(1, bytes_each)))(draw)

    def epoch(self, epoch: int) -> Pairs:
        """Pairs of an epoch, counted from 1; drawn when first needed."""
        return self._draw((epoch - 1) % self.n_splits)


def loss_constants(
    blocks: list[sparse.csr_matrix],
    mean: Tensor,
    center: str,
    settings: LossSettings,
    metric: FixedMetric | None = None,
) -> LossSettings:
    """Fill in the constants of the training profiles: errors of the mean profile, median norm, target norm ratio.

    Parameters
    ----------
    blocks
        Training profiles, or their two halves, as the network sees them.
    mean
        Their gene mean.
    center
        Centring of the loss.
    settings
        Weights set by the user; a `norm_ratio` other than 1 is kept.
    metric
        Learned metric of the loss, under which norms, errors and cosines are then computed.
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
    return plain if metric is None else decoder.products_under(metric, plain, hidden, target, center)
