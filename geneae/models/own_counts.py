"""Own counts: what the count of a gene in a profile says about that gene beyond the components.

All sums over profiles follow from sparse products: with the prediction p = S v of a gene and its value z, the sums of
z p and p^2 over profiles are (z' S) v and v' (S' S) v. Sums over the profiles in which a gene is not seen are those
over all profiles minus those over its non-zero values.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from geneae.losses.sparse_rows import to_tensor
from geneae.models.depths import DELTAS, DepthCurves
from geneae.models.pooled import pooled_ridge
from geneae.models.posterior import Scored
from geneae.models.whitening import SparseBlock, Whitened

GROUPS = 2  # groups of profiles in each fold, whose spread gives the standard errors of the shares
RARE = 5  # the variance of a share is raised by this over the number of profiles in which its gene is seen
TREND_BINS, TREND_GENES = 30, 50  # bins of the trend of shares over the mean of a gene; at least so many genes in each
SHARE_RANGE = (-0.05, 0.98)  # of a difference that a profile's own count may account for
POOLING = 0.05  # ridge towards pooled coefficients, per profile, in addition to the diagonal of the gene's own sums
LEAST_SEEN = 8  # training profiles in which a gene must be seen to have coefficients of its own
CHUNK_ENTRIES = 2**12  # non-zero values whose predictions are computed at a time, so that they stay in the cache
SCRATCH = 2**19  # places of profiles x genes at which values are looked up at a time, likewise
ZERO_TERMS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 0, 1), (1, 0, 1), (0, 0, 2), (1, 0, 2), (0, 1, 1))
"""Terms of the residual where a gene is not seen: powers of prediction p, depth score e and depth delta."""


@dataclass(frozen=True)
class OwnCounts:
    """Share of the difference between a gene's value and its prediction that is real, at every depth; and the residual
    where a gene is not seen. Everything is in whitened units."""

    shares: Tensor
    """(n_depths, n_genes) float32 shares, in the order of `DELTAS`."""
    alone: Tensor
    """(n_depths, n_genes) float32 shares where the prediction is the mean profile: a control of how much is copying."""
    zeros: Tensor
    """(n_terms, n_genes) float32 coefficients of `ZERO_TERMS`."""

    def at_zero(self, delta: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(n_genes,) coefficients of 1, p, e and e p at a depth."""
        delta = float(np.clip(delta, 0.0, DELTAS[-1]))
        found = [torch.zeros_like(self.zeros[0]) for _ in range(4)]
        for (of_p, of_e, of_delta), row in zip(ZERO_TERMS, self.zeros, strict=True):
            found[2 * of_e + of_p] = found[2 * of_e + of_p] + row * delta**of_delta
        return found[0], found[1], found[2], found[3]


def predictions_at(rows: Tensor, genes: Tensor, scores: Tensor, components: Tensor) -> Tensor:
    """(n_entries,) scores[row] . components[gene] of single entries, without an array of profiles x genes."""
    parts = [
        (scores[some] * components[genes[start : start + CHUNK_ENTRIES]]).sum(1)
        for start in range(0, len(rows), CHUNK_ENTRIES)
        for some in (rows[start : start + CHUNK_ENTRIES],)
    ]
    return torch.cat(parts) if parts else scores.new_zeros(0)


def rows_of(matrix: sparse.csr_matrix) -> Tensor:
    """(n_values,) row of each stored value."""
    lengths = torch.from_numpy(np.diff(matrix.indptr).astype(np.int64))
    return torch.repeat_interleave(torch.arange(matrix.shape[0]), lengths)


def values_at(matrix: sparse.csr_matrix, pattern: sparse.csr_matrix) -> Tensor:
    """(n_values,) values of a matrix at the stored places of another; 0 where it has none."""
    n_profiles, n_genes = matrix.shape
    at_once = max(1, SCRATCH // max(1, n_genes))
    values = to_tensor(matrix.data)
    found, scratch = values.new_empty(pattern.nnz), values.new_zeros(min(at_once, n_profiles) * n_genes)
    for start in range(0, n_profiles, at_once):
        stop = min(start + at_once, n_profiles)
        (known, own), (wanted, others) = (_places(one, start, stop) for one in (matrix, pattern))
        scratch[known] = values[own]
        torch.index_select(scratch, 0, wanted, out=found[others])
        scratch[known] = 0
    return found


def _places(matrix: sparse.csr_matrix, start: int, stop: int) -> tuple[Tensor, slice]:
    """Position of each stored value of some rows, row by row in a dense block of them; and where the values are."""
    own = slice(int(matrix.indptr[start]), int(matrix.indptr[stop]))
    lengths = torch.from_numpy(np.diff(matrix.indptr[start : stop + 1]).astype(np.int64))
    begin = torch.repeat_interleave(torch.arange(stop - start) * matrix.shape[1], lengths)
    return begin + to_tensor(matrix.indices[own]), own


@dataclass(frozen=True, eq=False)
class Entries:
    """Non-zero values of the inputs of an item, and what is known at their places."""

    rows: Tensor
    """(n_values,) profile."""
    genes: Tensor
    """(n_values,) gene."""
    values: Tensor
    """(n_values,) normalised input."""
    targets: Tensor
    """(n_values,) normalised value of the other half."""
    predictions: Tensor
    """(n_values,) prediction of the other half from the scores, whitened."""


def entries_of(whitened: Whitened, scored: Scored, fold: np.ndarray) -> Entries:
    """Entries of an item, each profile predicted in the basis without its fold."""
    item = scored.item
    rows, genes = rows_of(item.inputs), to_tensor(item.inputs.indices).long()
    predictions = torch.empty(len(rows))
    by_entry = torch.from_numpy(fold)[rows]
    for number, components in enumerate(whitened.without):
        own = torch.nonzero(by_entry == number)[:, 0]
        predictions[own] = predictions_at(rows[own], genes[own], scored.expected, components)
    return Entries(rows, genes, to_tensor(item.inputs.data), values_at(item.targets, item.inputs), predictions)


def no_own_counts(n_genes: int) -> OwnCounts:
    """Those of genes whose counts say nothing."""
    return OwnCounts(*(torch.zeros(len(of), n_genes) for of in (DELTAS, DELTAS, ZERO_TERMS)))


def fit_own_counts(
    whitened: Whitened,
    curves: DepthCurves,
    scored: list[Scored],
    fold: np.ndarray,
    n_seen: np.ndarray,
) -> OwnCounts:
    """Shares by depth, shrunk to their trend over genes; the residual where a gene is not seen is 0, see `with_zeros`.

    Parameters
    ----------
    whitened, curves
        Basis, and means and noise by depth.
    scored
        Items with their scores.
    fold
        (n_profiles,) fold of each profile of the items.
    n_seen
        (n_genes,) training profiles in which each gene is seen.
    """
    shares, alone = _shares(whitened, curves, scored, fold, n_seen)
    return OwnCounts(shares, alone, torch.zeros(len(ZERO_TERMS), len(n_seen)))


def with_zeros(
    own_counts: OwnCounts,
    whitened: Whitened,
    curves: DepthCurves,
    scored: list[Scored],
    entries: list[Entries],
    n_seen: np.ndarray,
) -> OwnCounts:
    """The same shares, with coefficients of the residual where a gene is not seen.

    Parameters are those of `fit_own_counts`, and the non-zero values of the items; `whitened` knows their folds.
    """
    zeros = _fit_zeros(whitened, curves, scored, entries, whitened.fold, n_seen, own_counts.shares)
    return replace(own_counts, zeros=zeros)


def _shares(
    whitened: Whitened, curves: DepthCurves, scored: list[Scored], fold: np.ndarray, n_seen: np.ndarray
) -> tuple[Tensor, Tensor]:
    """(n_depths, n_genes) shares of own counts beyond the predictions from the scores, and beyond the mean profile."""
    found, alone, mean = [], [], whitened.whitening.mean.numpy().astype(np.float64)
    for share in range(len(DELTAS) - 1):
        some = [one for one in scored if one.item.share == share]
        sums = _ShareSums(whitened, some, curves.means[share + 1], curves.slopes[share + 1], fold).by_group()
        found.append(_shrunken_shares(sums[0], sums[1], mean, n_seen))
        alone.append(_shrunken_shares(sums[2], sums[3], mean, n_seen))
    return _with_complete(found), _with_complete(alone)


def _with_complete(by_share: list[np.ndarray]) -> Tensor:
    """(n_depths, n_genes) shares at every depth: a complete profile has half the noise variance of a half."""
    half = by_share[0]
    complete = np.where(half > 0, half / (half + (1 - half) / 2), half)
    return torch.tensor(np.stack([complete, *by_share]), dtype=torch.float32)


class _ShareSums:
    """Sums over profiles of (input - slope p) (target - p) and (input - slope p)^2, by gene and group of profiles; and
    the same with p = 0."""

    def __init__(self, whitened: Whitened, scored: list[Scored], mean: Tensor, slope: Tensor, fold: np.ndarray) -> None:
        self._whitened, self._scored, self._fold = whitened, scored, fold
        deviation = whitened.whitening.deviation
        self._unit = deviation.double()
        self._input_mean, self._slope = (mean / deviation).double(), slope.double()
        self._target_mean = (whitened.whitening.mean / deviation).double()

    def by_group(self) -> np.ndarray:
        """(4, n_groups, n_genes) sums of these products, over both halves."""
        n_folds = len(self._whitened.without)
        group = np.empty(len(self._fold), np.int64)
        for number in range(n_folds):
            own = np.flatnonzero(self._fold == number)
            group[own] = number * GROUPS + np.arange(len(own)) % GROUPS
        sums = []
        for number in range(n_folds):
            for part in range(GROUPS):
                rows = np.flatnonzero(group == number * GROUPS + part)
                if len(rows):
                    parts = [self._of(one, rows, self._whitened.without[number]) for one in self._scored]
                    sums.append(torch.stack(parts).sum(0).numpy())
        return np.stack(sums, 1)

    def _of(self, scored: Scored, rows: np.ndarray, components: Tensor) -> Tensor:
        index = torch.from_numpy(rows)
        scores, weight = scored.expected[index], scored.weight[index][:, None]
        inputs, targets = scored.item.inputs[rows], scored.item.targets[rows]
        weighted = torch.cat([weight, weight * scores], 1)
        unit, basis = self._unit, components.double()
        one, other = (_gene_sums(matrix, weighted) / unit[:, None] for matrix in (inputs, targets))
        total, by_score = one[:, 0], (one[:, 1:] * basis).sum(1)
        other_total, other_by_score = other[:, 0], (other[:, 1:] * basis).sum(1)
        by_value = scored.item.weight[rows].repeat(np.diff(inputs.indptr))
        both = _weighted_sum(inputs, by_value * values_at(targets, inputs).numpy()) / unit**2
        squares = _weighted_sum(inputs, by_value * inputs.data) / unit**2
        scores, weight = scores.double(), weight.double()
        p = basis @ (weight * scores).sum(0)
        pp = ((basis @ ((weight * scores).T @ scores)) * basis).sum(1)
        n, mean, wanted, slope = weight.sum(), self._input_mean, self._target_mean, self._slope
        alone = both - wanted * total - mean * other_total + n * mean * wanted
        square_alone = squares + n * mean**2 - 2 * mean * total
        common = alone - by_score + mean * p - slope * (other_by_score - wanted * p - pp)
        square = square_alone + slope**2 * pp - 2 * slope * by_score + 2 * slope * mean * p
        return torch.stack([common, square.clamp(min=0), alone, square_alone.clamp(min=0)])


def _gene_sums(matrix: sparse.csr_matrix, by_profile: Tensor) -> Tensor:
    """(n_genes, n) float64 sums over profiles of values times numbers of the profiles."""
    return torch.from_numpy(np.asarray(matrix.T @ by_profile.double().numpy()))


def _weighted_sum(matrix: sparse.csr_matrix, weights: np.ndarray) -> Tensor:
    """(n_genes,) float64 sums over profiles of values times weights of the values."""
    return torch.from_numpy(np.bincount(matrix.indices, matrix.data * weights, matrix.shape[1]))


def _shrunken_shares(common: np.ndarray, square: np.ndarray, mean: np.ndarray, n_seen: np.ndarray) -> np.ndarray:
    """(n_genes,) ratios of sums over groups, shrunk by empirical Bayes to their trend over the mean of a gene.

    Parameters
    ----------
    common, square
        (n_groups, n_genes) numerators and denominators.
    mean, n_seen
        (n_genes,) mean of each gene, and profiles in which it is seen.
    """
    n_groups, total = len(common), np.maximum(square.sum(0), 1e-9)
    share = common.sum(0) / total
    spread = n_groups / max(1, n_groups - 1) * ((common - share * square) ** 2).sum(0)
    error = spread / total**2 * (1 + RARE / np.maximum(n_seen, 1))
    order = np.argsort(mean, kind="stable")
    places, centres, variances = [], [], []
    for genes in np.array_split(order, min(TREND_BINS, max(3, len(mean) // TREND_GENES))):
        if not len(genes):
            continue
        weight = 1 / (error[genes] + np.median(error[genes]) + 1e-12)
        middle = float((weight * share[genes]).sum() / weight.sum())
        excess = (weight * ((share[genes] - middle) ** 2 - error[genes])).sum() / weight.sum()
        places.append(float(np.log(mean[genes] + 1e-9).mean()))
        centres.append(middle)
        variances.append(max(float(excess), 1e-6))
    at = np.log(mean + 1e-9)
    centre, variance = np.interp(at, places, centres), np.exp(np.interp(at, places, np.log(variances)))
    shrunken: np.ndarray = ((variance * share + error * centre) / (variance + error)).clip(*SHARE_RANGE)
    return shrunken


def _fit_zeros(
    whitened: Whitened,
    curves: DepthCurves,
    scored: list[Scored],
    entries: list[Entries],
    fold: np.ndarray,
    n_seen: np.ndarray,
    shares: Tensor,
) -> Tensor:
    """(n_terms, n_genes) ridge coefficients of the residual over all places where a gene is not seen."""
    n_genes, n_terms = len(n_seen), len(ZERO_TERMS)
    total = sum(float(one.weight.sum()) for one in scored)
    scale = 2 * len(fold) / total if total else 0.0
    gram = torch.zeros(n_genes, n_terms, n_terms, dtype=torch.float64)
    right = torch.zeros(n_genes, n_terms, dtype=torch.float64)
    for one, own in zip(scored, entries, strict=True):
        depth, delta = one.item.share + 1, one.item.delta
        powers, cross = _sums_over_zeros(whitened, one, own, fold)
        unit = whitened.whitening.deviation.double()
        share, slope = shares[depth].double(), curves.slopes[depth].double()
        level = share * curves.means[depth].double() / unit - whitened.whitening.mean.double() / unit
        tilt = share * slope - 1
        for k, (p_k, e_k, d_k) in enumerate(ZERO_TERMS):
            here = cross[p_k][e_k] + level * powers[p_k][e_k] + tilt * powers[p_k + 1][e_k]
            right[:, k] += scale * delta**d_k * here
            for m, (p_m, e_m, d_m) in enumerate(ZERO_TERMS):
                gram[:, k, m] += scale * delta ** (d_k + d_m) * powers[p_k + p_m][e_k + e_m]
    coefficients = pooled_ridge(gram, right, whitened.whitening.mean.numpy(), POOLING * len(fold))
    coefficients[torch.from_numpy(n_seen < LEAST_SEEN)] = 0
    return coefficients.T.float().contiguous()


def _sums_over_zeros(
    whitened: Whitened, scored: Scored, entries: Entries, fold: np.ndarray
) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Sums over the profiles in which a gene is not seen: of p^a e^b, and of p^a e^b times the target in noise units.

    Indexed by a and b; a up to 2 and b up to 2, with the target both up to 1.
    """
    item, unit = scored.item, whitened.whitening.deviation.double()
    n_genes = len(unit)
    weights = scored.weight.double()[:, None] * scored.depth_scores.double()[:, None] ** torch.arange(3)
    powers = [torch.zeros(n_genes, 3, dtype=torch.float64) for _ in range(3)]
    cross = [torch.zeros(n_genes, 2, dtype=torch.float64) for _ in range(2)]
    for number, components in enumerate(whitened.without):
        rows = np.flatnonzero(fold == number)
        index, basis = torch.from_numpy(rows), components.double()
        scores = scored.expected[index].double()
        powers[0] += weights[index].sum(0)
        powers[1] += basis @ (scores.T @ weights[index])
        for b in range(3):
            powers[2][:, b] += ((basis @ ((weights[index, b : b + 1] * scores).T @ scores)) * basis).sum(1)
        block = SparseBlock(item.targets[rows])
        cross[0] += block.back(weights[index, :2].float()).double()
        for b in range(2):
            by_score = block.back((weights[index, b : b + 1] * scores).float()).double()
            cross[1][:, b] += (by_score * basis).sum(1)
    pattern = item.inputs
    by_entry = [torch.ones_like(entries.predictions), entries.predictions, entries.predictions.square()]
    for a, values in enumerate(by_entry):
        powers[a] -= _gene_sums(_with(pattern, values), weights)
    for a in range(2):
        cross[a] -= _gene_sums(_with(pattern, by_entry[a] * entries.targets), weights[:, :2])
    cross = [some / unit[:, None] for some in cross]
    return [list(some.T) for some in powers], [list(some.T) for some in cross]


def _with(pattern: sparse.csr_matrix, values: Tensor) -> sparse.csr_matrix:
    return sparse.csr_matrix((values.numpy(), pattern.indices, pattern.indptr), shape=pattern.shape)
