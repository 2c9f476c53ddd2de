"""The estimator of a fit: closed forms on halves of the training profiles, thinned to several depths."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy import sparse

from geneae.data.augment import SHARES, WEIGHTS, thin_to
from geneae.data.count_split import with_own_totals
from geneae.data.preprocess import Expression, Preprocess, column_mean
from geneae.losses.sparse_rows import sparse_product, sparse_rows
from geneae.models.calibration import fit_calibration
from geneae.models.depths import Item, depth_scale, fit_curves
from geneae.models.entry_head import EntryHead, EntrySample, fit_head, sample_size
from geneae.models.estimator import STEPS, Estimator
from geneae.models.molecules import fit_molecules
from geneae.models.neighbours import fit_neighbours
from geneae.models.own_counts import Entries, entries_of, fit_own_counts, no_own_counts, with_zeros
from geneae.models.posterior import Scored, fit_posterior, raw_weight
from geneae.models.whitening import Halves, Whitened, fit_whitened, whitened_rank

THINNING_STREAM = 3  # separates thinned halves from other random numbers of the same seed
MOST_VALUES = 2**22  # non-zero values of the profiles from which numbers of genes are estimated
MOST_PROFILES = 8192  # of these profiles
BASIS_VALUES = 2**23  # non-zero values of all count splits from which the basis is estimated, where there are several
BASIS_SPLITS, GENE_SPLITS = 4, 2  # most count splits for the basis, and for numbers of genes; more hardly help
SAMPLE_ENTRIES = 2**20  # entries from which the head learns


@dataclass(frozen=True, eq=False)
class FittedEstimator:
    """An estimator, and the training items from which its steps can be fitted again and its head trained further."""

    estimator: Estimator
    """Estimator; steps after `neighbours` change nothing until `with_step` fits them."""
    whitened: Whitened
    """Its bases for the profiles of the items."""
    scored: list[Scored]
    """Items with scores that were predicted by components without the fold of each profile, drawn to neighbours unless
    that step is left out."""
    undrawn: list[Scored]
    """The same without the step `neighbours`."""
    n_seen: np.ndarray
    """(n_genes,) training profiles in which each gene is seen."""
    entries: list[Entries] = field(default_factory=list)
    """Non-zero values of the items, once the step `entries` is fitted."""

    def with_step(self, name: str, kept: Collection[str], seed: int) -> "FittedEstimator":
        """The same with a step fitted on those before it that are kept; called for one step after the other."""
        known = self.estimator
        if name == "calibration":
            scored = self.scored if "neighbours" in kept else self.undrawn
            calibration = fit_calibration(self.whitened, scored)
            return replace(self, estimator=replace(known, calibration=calibration), scored=scored)
        if name == "own_counts":
            basis, fold = self._basis(kept), self.whitened.fold
            own_counts = fit_own_counts(basis, known.curves, self.scored, fold, self.n_seen)
            return replace(self, estimator=replace(known, own_counts=own_counts))
        return self._with_entries(kept, seed) if name == "entries" else self

    def _basis(self, kept: Collection[str]) -> Whitened:
        """The bases, times calibration slopes if that step is kept."""
        return self.whitened.calibrated(self.estimator.calibration) if "calibration" in kept else self.whitened

    def _with_entries(self, kept: Collection[str], seed: int) -> "FittedEstimator":
        """The residual where genes are not seen, and the head where they are."""
        known, whitened = self.estimator.only(*kept, *STEPS[-2:]), self._basis(kept)
        entries = [entries_of(whitened, one, whitened.fold) for one in self.scored]
        own_counts = with_zeros(known.own_counts, whitened, known.curves, self.scored, entries, self.n_seen)
        estimator = replace(known, own_counts=own_counts)
        shares = [share_of_item(one, len(self.scored)) for one in self.scored]
        parts = zip(self.scored, entries, shares, strict=True)
        head = fit_head([_entry_sample(estimator, *part, seed + number) for number, part in enumerate(parts)], seed)
        return replace(self, estimator=replace(estimator, head=head), entries=entries)


@dataclass(frozen=True, eq=False)
class CountedHalves:
    """Both halves of the training profiles, from one count split."""

    counts: tuple[Expression, Expression]
    """Their molecules."""
    halves: Halves
    """The same, normalised."""


def number_of_splits(n_values: int) -> tuple[int, int]:
    """Count splits from which basis and numbers of genes are estimated: several only where profiles are few.

    Parameters
    ----------
    n_values
        Non-zero values of both halves.
    """
    of_basis, of_genes = BASIS_VALUES // max(1, n_values), MOST_VALUES // max(1, n_values)
    return int(np.clip(of_basis, 1, BASIS_SPLITS)), int(np.clip(of_genes, 1, GENE_SPLITS))


def fit_estimator(
    first: CountedHalves,
    draw: Callable[[int], CountedHalves],
    preprocess: Preprocess,
    whole: sparse.csr_matrix,
    n_latent: int,
    seed: int,
) -> FittedEstimator:
    """Fit the estimator to training profiles.

    Parameters
    ----------
    first
        The first count split; in a permuted control, with second halves of other profiles.
    draw
        Function that gives the count split of another number, from 1, likewise.
    preprocess
        Normalisation.
    whole
        (n_profiles, n_genes) the complete profiles, normalised.
    n_latent
        Size of the latent.
    seed
        Seed of every random choice.
    """
    halves, (n_profiles, n_genes) = first.halves, whole.shape
    n_basis, n_splits = number_of_splits(halves.first.nnz + halves.second.nnz)
    splits = [first, *(draw(number) for number in range(1, max(n_basis, n_splits)))]
    rank = whitened_rank(n_latent, n_profiles, n_genes)
    whitened = fit_whitened([split.halves for split in splits[:n_basis]], rank, seed)
    chosen = _chosen(halves, seed)
    fold = whitened.fold[chosen]
    sample = Whitened(whitened.whitening, fold, whitened.without)
    several = enumerate(splits[:n_splits])
    items = [item for number, split in several for item in _items(split, preprocess, chosen, seed, number)]
    scale = depth_scale(np.concatenate([half.totals for half in first.counts]))
    curves = fit_curves(sample, items, column_mean(whole))
    posterior, undrawn = fit_posterior(sample, curves, scale, items)
    of_half = [one for one in undrawn if not one.item.share]
    molecules = fit_molecules(
        torch.cat([one.expected for one in of_half]), np.concatenate([one.item.totals for one in of_half])
    )
    raw, by_fold = _references(whitened, halves)
    neighbours, scored = fit_neighbours(raw, posterior.factors[0], undrawn, by_fold, fold, seed)
    n_seen = np.bincount(whole.indices, minlength=n_genes)
    steps = neighbours, torch.ones(n_genes), no_own_counts(n_genes), EntryHead(seed)
    estimator = Estimator(whitened.whitening, curves, scale, posterior, *steps, molecules)
    return FittedEstimator(estimator, sample, scored, undrawn, n_seen)


def _chosen(halves: Halves, seed: int) -> np.ndarray:
    """Positions of the profiles from which numbers of genes are estimated: all, unless they are many."""
    n_profiles, n_values = halves.first.shape[0], halves.first.nnz + halves.second.nnz
    most = min(MOST_PROFILES, int(MOST_VALUES * n_profiles / max(1, n_values)))
    if n_profiles <= most:
        return np.arange(n_profiles)
    return np.sort(np.random.default_rng((seed, THINNING_STREAM)).choice(n_profiles, most, replace=False))


def _items(split: CountedHalves, preprocess: Preprocess, chosen: np.ndarray, seed: int, number: int) -> Iterator[Item]:
    """Inputs of every share from either half, with the untouched other half as target."""
    whole = [split.halves.first[chosen], split.halves.second[chosen]]
    given = split.counts[0].take(chosen), split.counts[1].take(chosen)
    own = with_own_totals(given)
    for share, of_all in enumerate(SHARES):
        for side, half in enumerate(given):
            if not share:
                yield Item(whole[side], whole[1 - side], half.totals, share)
                continue
            rng = np.random.default_rng((seed, THINNING_STREAM, share, side, number))
            thinned = thin_to(own[side], of_all / SHARES[0], rng)
            yield Item(preprocess.apply(thinned), whole[1 - side], thinned.totals, share)


def _references(whitened: Whitened, halves: Halves) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Raw scores of all training profiles, means over both halves; and those of the profiles outside each fold, in the
    basis without it."""

    def raw(components: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        weight, offset = raw_weight(components, whitened.whitening.mean, whitened.whitening.deviation)
        both = [sparse_product(sparse_rows(half[rows]), weight) for half in (halves.first, halves.second)]
        return (both[0] + both[1]) / 2 - offset

    everyone = np.arange(len(whitened.fold))
    by_fold = [
        raw(components, np.flatnonzero(whitened.fold != number) if len(whitened.without) > 1 else everyone)
        for number, components in enumerate(whitened.without)
    ]
    return raw(whitened.whitening.components, everyone), by_fold


def share_of_item(scored: Scored, n_items: int) -> float:
    """Share of an item in what is learned from all of `n_items`, which have the same number of each depth."""
    return WEIGHTS[scored.item.share] / sum(WEIGHTS) * len(SHARES) / n_items


def _entry_sample(estimator: Estimator, scored: Scored, entries: Entries, share: float, seed: int) -> EntrySample:
    """Random seen values of an item, with the residuals that the head is to predict."""
    item, depth = scored.item, scored.item.share + 1
    known = torch.nonzero(torch.from_numpy(item.weight > 0)[entries.rows])[:, 0]
    size = sample_size(len(known), share, SAMPLE_ENTRIES)
    generator = torch.Generator().manual_seed(seed)
    index = known[torch.randperm(len(known), generator=generator)[:size]]
    rows, genes, values = entries.rows[index], entries.genes[index], entries.values[index]
    p, basis = entries.predictions[index], estimator.whitening
    unit = basis.deviation[genes]
    features = estimator.at(item.delta).features(p, rows, genes, values, item.totals)
    difference = (values - estimator.curves.means[depth][genes]) / unit - estimator.curves.slopes[depth][genes] * p
    target = (entries.targets[index] - basis.mean[genes]) / unit - p
    residual = target - estimator.own_counts.shares[depth][genes] * difference
    weight = unit.square() / basis.deviation.square().mean()
    return EntrySample(features, residual, weight, share)
