"""Training of the entry head with the loss of a fit, through the inner products of profiles."""

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from geneae.fitting.estimator import FittedEstimator, share_of_item
from geneae.losses.inner_products import InnerProducts
from geneae.losses.sparse_rows import sparse_rows, to_tensor
from geneae.models.decoders import Corrected, EntryDecoder
from geneae.models.entry_head import N_FEATURES, EntryHead
from geneae.models.estimator import AtDepth
from geneae.models.own_counts import Entries, rows_of, values_at
from geneae.models.posterior import Scored
from geneae.training.objectives import Reconstruction

STEPS, BATCH = 100, 64  # most steps, and profiles in each; 400 at half the rate bring no more
PASSES, LEAST_STEPS = 20, 20  # how often each profile is seen at some depth, but for few and for very many profiles
LEARNING_RATE = 2e-3  # smaller than that of the first fit, from which it starts; falls linearly to zero
MOST_ENTRIES = 2**20  # seen values of all items together


@dataclass(frozen=True, eq=False)
class HeadItem:
    """Profiles of one depth: their predictions without head, and what the head sees."""

    products: InnerProducts
    """Inner products of the targets with the predictions without head, centred as in the loss."""
    starts: Tensor
    """(n_profiles + 1,) first entry of each profile."""
    features: Tensor
    """(n_entries, n_features) input of the head."""
    unit: Tensor
    """(n_entries,) change of the prediction per unit of the head."""
    target: Tensor
    """(n_entries,) centred value of the target."""
    predicted: Tensor
    """(n_entries,) centred prediction without head."""
    profile_mean: Tensor
    """(n_profiles,) subtracted from every addition for its share: 1 / n_genes where profiles are centred, else 0."""
    share: float
    """Share of the profiles of a step."""

    def with_head(self, head: EntryHead, index: Tensor) -> InnerProducts:
        """Inner products of some profiles, predicted with a head.

        With additions c at the entries: <x, y + c> = <x, y> + <x, c> and |y + c|^2 = |y|^2 + 2 <y, c> + |c|^2.
        """
        lengths = self.starts[index + 1] - self.starts[index]
        rows = torch.repeat_interleave(torch.arange(len(index)), lengths)
        first = torch.repeat_interleave(self.starts[index] - (lengths.cumsum(0) - lengths), lengths)
        entries = first + torch.arange(len(rows))
        added = self.unit[entries] * head(self.features[entries])
        nothing = torch.zeros(len(index))
        cross = nothing.index_add(0, rows, added * self.target[entries])
        by_start = nothing.index_add(0, rows, added * self.predicted[entries])
        square = nothing.index_add(0, rows, added.square())
        total = nothing.index_add(0, rows, added)
        square = square - total.square() * self.profile_mean[index]
        known = self.products
        predicted = known.predicted[index] + 2 * by_start + square
        return InnerProducts(known.cross[index] + cross, known.target[index], predicted.clamp(min=0), known.n_genes)


def _one_after_another(items: list[HeadItem]) -> HeadItem:
    """The profiles of all items in one, so that a step goes through the head once."""
    lengths = torch.cat([item.starts.diff() for item in items])
    starts = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    joined = {
        name: torch.cat([getattr(item, name) for item in items])
        for name in ("features", "unit", "target", "predicted", "profile_mean")
    }
    return HeadItem(_joined([item.products for item in items]), starts, **joined, share=sum(one.share for one in items))


def train_head(fitted: FittedEstimator, objective: Reconstruction, seed: int) -> EntryHead:
    """The head of an estimator, trained further on mini-batches of profiles of all depths with the loss of the fit."""
    head = copy.deepcopy(fitted.estimator.head).train()
    items = [
        _head_item(fitted, one, own, objective.center, seed + number)
        for number, (one, own) in enumerate(zip(fitted.scored, fitted.entries, strict=True))
    ]
    items = [item for item in items if len(item.features)]
    if not items:
        return head.eval()
    total = sum(item.share for item in items)
    n_each = [max(1, round(BATCH * item.share / total)) for item in items]
    n_steps = int(np.clip(PASSES * max(len(item.starts) - 1 for item in items) // BATCH, LEAST_STEPS, STEPS))
    generator = torch.Generator().manual_seed(seed)
    sizes = [len(item.starts) - 1 for item in items]
    everything, first = _one_after_another(items), np.cumsum([0, *sizes])
    optimizer = torch.optim.AdamW(head.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    for step in range(n_steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - step / n_steps)
        drawn = [
            torch.randint(int(begin), int(begin) + size, (n,), generator=generator)
            for begin, size, n in zip(first[:-1], sizes, n_each, strict=True)
        ]
        loss = objective(everything.with_head(head, torch.cat(drawn)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head.eval()


def _joined(parts: list[InnerProducts]) -> InnerProducts:
    cross, target, predicted = (
        torch.cat([getattr(one, name) for one in parts]) for name in ("cross", "target", "predicted")
    )
    return InnerProducts(cross, target, predicted, parts[0].n_genes)


def _head_item(fitted: FittedEstimator, scored: Scored, entries: Entries, center: str, seed: int) -> HeadItem:
    """The profiles of an item from which the head learns: random ones, as many as there is room for."""
    share = share_of_item(scored, len(fitted.scored))
    matrix = scored.item.inputs
    order = np.random.default_rng(seed).permutation(np.flatnonzero(scored.item.weight > 0))
    lengths = np.diff(matrix.indptr)[order].cumsum()
    chosen = np.sort(order[: max(1, int(np.searchsorted(lengths, MOST_ENTRIES * share)))])
    chosen = chosen[np.diff(matrix.indptr)[chosen] > 0]
    by_fold = [chosen[fitted.whitened.fold[chosen] == number] for number in range(len(fitted.whitened.without))]
    parts = [_of_fold(fitted, scored, rows, number, center) for number, rows in enumerate(by_fold) if len(rows)]
    if not parts:
        nothing = torch.zeros(0)
        empty = InnerProducts(nothing, nothing, nothing, matrix.shape[1])
        first, features = torch.zeros(1, dtype=torch.long), torch.zeros(0, N_FEATURES)
        return HeadItem(empty, first, features, nothing, nothing, nothing, nothing, share)
    return replace(_one_after_another(parts), share=share)


@torch.no_grad()
def _of_fold(fitted: FittedEstimator, scored: Scored, rows: np.ndarray, number: int, center: str) -> HeadItem:
    """Some profiles of one fold, predicted in the basis without it."""
    item, basis = scored.item, replace(fitted.estimator.whitening, components=fitted.whitened.without[number])
    estimator = replace(fitted.estimator, whitening=basis, head=EntryHead())
    at, index = estimator.at(item.delta), torch.from_numpy(rows)
    matrix, totals, scores = item.inputs[rows], item.totals[rows], scored.expected[index]
    wanted = item.targets[rows]
    decoder = EntryDecoder(at.linear())
    found = Corrected(at.hidden(scores, totals), at.corrections(scores, matrix, totals))
    products = decoder.products(found, decoder.project(sparse_rows(wanted)), [center])[center]
    return _entries_with(at, products, matrix, totals, scores, wanted, center)


def _entries_with(
    at: AtDepth,
    products: InnerProducts,
    matrix: sparse.csr_matrix,
    totals: np.ndarray,
    scores: Tensor,
    wanted: sparse.csr_matrix,
    center: str,
) -> HeadItem:
    basis, n_genes = at.estimator.whitening, matrix.shape[1]
    places, genes, values = rows_of(matrix), to_tensor(matrix.indices).long(), to_tensor(matrix.data)
    p = at.predictions(places, genes, scores)
    target, predicted = values_at(wanted, matrix), at.seen_without_head(p, genes, values)
    profile_mean = torch.zeros(len(totals))
    if center == "gene":
        target, predicted = target - basis.mean[genes], predicted - basis.mean[genes]
    elif center == "profile":
        decoder = at.linear()
        sums = at.hidden(scores, totals) @ decoder.layer.weight_sum + decoder.layer.offset_sum
        added = at.corrections(scores, matrix, totals)
        if added is not None:
            sums = sums + torch.from_numpy(np.asarray(added.sum(1), dtype=np.float32).ravel())
        of_target = torch.from_numpy(np.asarray(wanted.sum(1), dtype=np.float32).ravel())
        target, predicted = target - of_target[places] / n_genes, predicted - sums[places] / n_genes
        profile_mean = torch.full((len(totals),), 1 / n_genes)
    starts = to_tensor(matrix.indptr).long()
    features = at.features(p, places, genes, values, totals)
    return HeadItem(products, starts, features, basis.deviation[genes], target, predicted, profile_mean, 0.0)
