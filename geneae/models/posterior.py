"""Posterior scores: what a profile of any depth says about the scores of its other half."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from geneae.losses.sparse_rows import sparse_product, sparse_rows
from geneae.models.depths import DELTAS, DepthCurves, DepthScale, Item
from geneae.models.whitening import Whitened

PENALTIES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
"""Ridge penalties tried for the map between depths, in units of the mean of its diagonal."""
POWERS = (1.0, 0.75, 0.5, 0.25, 0.0)
"""Powers of the molecules tried for the uncertainty of a profile within its set."""
CONSTANTS = 4  # features of the map that do not depend on scores


@dataclass(frozen=True)
class Posterior:
    """Linear map from raw scores at a depth to the expected scores of a half, around Wiener factors.

    At the depth of a half, and for complete profiles, the map is the factors alone. With the depth delta and the depth
    score e, it adds a linear function of delta x, delta^2 x, e delta x, delta, delta^2, e delta and e^2 delta, where x
    are the raw scores in units of their deviation.
    """

    factors: Tensor
    """(n_depths, rank) float32 factors at every depth, in the order of `DELTAS`; at least 0."""
    weight: Tensor
    """(3 rank + 4, rank) float32 weights of these features."""
    deviation: Tensor
    """(rank,) float32 deviation of raw scores."""
    signal: Tensor
    """(rank,) float32 variance of the scores that profiles would have without noise."""
    unexplained: Tensor
    """(n_depths, rank) float32 share of this variance that posterior scores leave open, from 0 to 1."""

    power: float = 1.0
    """Power of the molecules of a profile with which its noise falls within a set, from 0 to 1."""

    def uncertainty(self, relative: Tensor, weights: Tensor, shown: Tensor | None = None) -> Tensor:
        """(n_profiles, rank) standard deviation of the noise-free scores around posterior scores.

        Under a normal model with signal variance c and noise variance n / r**power, where r are the molecules of a
        profile relative to the typical ones of its depth, the variance is c n / (c r**power + n); n is such that it is
        right at r = 1. The power is 1 if profiles differ in depth alone; where cells with more molecules also vary
        more, which is common, it is smaller.

        Where genes were not measured, the variance grows by the ratio of the errors of the estimate from the others to
        those from all genes, under the same model.

        Parameters
        ----------
        relative
            (n_profiles,) molecules relative to the geometric mean of training profiles at this depth.
        weights
            `depth_weights` of the depth.
        shown
            (rank, rank) what the measured genes show of the scores, see `shown_by`; None: all genes were measured.
        """
        left, depth = weights @ self.unexplained, relative[:, None] ** self.power
        variance = self.signal * _left(depth, left)
        if shown is None:
            return variance.sqrt()
        fixed, noise = _errors(self.signal, left, shown)
        fixed_of_all, noise_of_all = _errors(self.signal, left, torch.eye(len(left), dtype=torch.float64))
        more = (fixed + noise / depth) / (fixed_of_all + noise_of_all / depth).clamp(min=1e-12)
        return (variance * more).sqrt()

    def expected(self, raw: Tensor, depth_scores: Tensor, delta: float, weights: Tensor) -> Tensor:
        """(n_profiles, rank) posterior scores.

        Parameters
        ----------
        raw
            (n_profiles, rank) raw scores, see `raw_weight`.
        depth_scores
            (n_profiles,) standardised log totals, see `DepthScale`.
        delta, weights
            Depth, and its `depth_weights`.
        """
        scores = raw * (weights @ self.factors).to(raw.dtype)
        if delta <= 0:
            return scores
        return scores + self._features(raw, depth_scores, min(delta, DELTAS[-1])) @ self.weight.to(raw.dtype)

    def _features(self, raw: Tensor, depth_scores: Tensor, delta: float) -> Tensor:
        return map_features(raw / self.deviation.to(raw.dtype), depth_scores.to(raw.dtype), delta)


def _left(relative: Tensor, typical: Tensor) -> Tensor:
    """Share of the variance that is left open at r times the molecules, from the share that typical profiles leave."""
    return typical / (relative * (1 - typical) + typical).clamp(min=1e-12)


def _errors(signal: Tensor, left: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
    """(rank,) variance of the errors of posterior scores: the part of what genes do not show and of shrinkage, and that
    of noise, for profiles with the typical molecules of a depth.

    Scores s of variance c, measured with noise of variance n in every direction, are estimated by F A (M s + e): M is
    what the measured genes show, e their noise, of covariance N^1/2 M N^1/2 with N = diag(n), A the ridge regression of
    `raw_from_some`, and F the factors c / (c + n). The error is (F A M - 1) s + F A e.
    """
    c, left = signal.double(), left.double().clamp(max=1 - 1e-9)
    n, factor = c * left / (1 - left), (1 - left)[:, None]
    read = factor * _ridge_of(shown)
    kept = read @ shown - torch.eye(len(c), dtype=torch.float64)
    half = n.sqrt()[:, None] * _root(shown)
    return (kept.square() @ c).float(), (read @ half).square().sum(1).float()


def _root(shown: Tensor) -> Tensor:
    """(rank, rank) symmetric root of a matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(shown)
    root: Tensor = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return root


def map_features(scores: Tensor, depth_scores: Tensor, delta: float) -> Tensor:
    """(n_profiles, 3 rank + 4) features of the map between depths; zero at the depth of a half."""
    e, one = depth_scores[:, None], torch.ones(len(scores), 1, dtype=scores.dtype)
    parts = [scores * delta, scores * delta**2, scores * e * delta]
    return torch.cat([*parts, one * delta, one * delta**2, e * delta, e.square() * delta], 1)


def raw_weight(components: Tensor, mean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """(n_genes, rank) weight and (rank,) offset of the raw scores of profiles: ((z - mean) / noise) components."""
    weight = components / noise[:, None]
    return weight, mean @ weight


LEAST_SEEN = 0.1
"""Added to what the measured genes show of every direction, so that one that they hardly show is not blown up. Of 0,
.01, .1, .3 and 1, latents of cells without a tenth, 30 % or half of their genes were nearest to the complete at .1."""


def raw_from_some(raw: Tensor, components: Tensor, mean: Tensor, weight: Tensor, missing: np.ndarray) -> Tensor:
    """(n_profiles, rank) raw scores from the genes that were measured.

    Genes that were not measured are taken out of the offset, and ridge regression on the rows of the components of the
    others gives the scores that these show.

    Parameters
    ----------
    raw
        (n_profiles, rank) raw scores with a zero for every missing gene.
    components
        (n_genes, rank) orthonormal directions.
    mean, weight
        (n_genes,) mean of the inputs, and (n_genes, rank) weight from `raw_weight`.
    missing
        (n_genes,) whether a gene was not measured.
    """
    gone = torch.from_numpy(np.flatnonzero(missing))
    known = raw + mean[gone] @ weight[gone]
    found: Tensor = known.double() @ _ridge_of(shown_by(components, missing))
    return found.to(raw.dtype)


def shown_by(components: Tensor, missing: np.ndarray) -> Tensor:
    """(rank, rank) float64 products of the components over the genes that were measured: the identity if all were."""
    gone = components[torch.from_numpy(np.flatnonzero(missing))].double()
    return torch.eye(components.shape[1], dtype=torch.float64) - gone.T @ gone


def _ridge_of(shown: Tensor) -> Tensor:
    """(rank, rank) map from what the measured genes show to scores; symmetric."""
    identity = torch.eye(len(shown), dtype=torch.float64)
    found: Tensor = torch.linalg.solve(shown + LEAST_SEEN * identity, (1 + LEAST_SEEN) * identity)
    return found


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of one item, each profile in the basis of the folds without it."""

    item: Item
    """The profiles."""
    depth_scores: Tensor
    """(n_profiles,) standardised log totals."""
    expected: Tensor
    """(n_profiles, rank) posterior scores of the inputs, by components without the fold of each profile."""
    targets: Tensor
    """(n_profiles, rank) raw scores of the targets."""

    @property
    def weight(self) -> Tensor:
        """(n_profiles,) weights in fits over depths."""
        return torch.from_numpy(self.item.weight)


def fit_posterior(
    whitened: Whitened, curves: DepthCurves, scale: DepthScale, items: list[Item]
) -> tuple[Posterior, list[Scored]]:
    """Factors by depth and the map between depths, by ridge regression on the scores of the other half.

    The penalty is the one that predicts profiles of other folds best.

    Returns
    -------
    The posterior, and the scores of every item, predicted without the fold of each profile.
    """
    fold = whitened.fold
    raw = [_raw(whitened, curves, item) for item in items]
    targets = [_targets(whitened, item) for item in items]
    weights = [torch.from_numpy(item.weight)[:, None] for item in items]
    factors = _factors(items, raw, targets, weights)
    total = sum(float(weight.sum()) for weight in weights)
    squares = torch.stack([(weight * some.square()).sum(0) for weight, some in zip(weights, raw, strict=True)]).sum(0)
    deviation = (squares / max(total, 1e-9)).sqrt() + 1e-9
    starts = [some * factors[item.share + 1] for item, some in zip(items, raw, strict=True)]
    depth_scores = [torch.from_numpy(scale.scores(item.totals, item.delta)) for item in items]
    shallow = [number for number, item in enumerate(items) if item.share]  # others have no features
    n_features, n_folds = 3 * raw[0].shape[1] + CONSTANTS, len(whitened.without)
    grams = torch.zeros(n_folds, n_features, n_features, dtype=torch.float64)
    rights = torch.zeros(n_folds, n_features, raw[0].shape[1], dtype=torch.float64)
    for number in shallow:
        features = map_features(raw[number] / deviation, depth_scores[number], items[number].delta)
        for index in range(n_folds):
            some = torch.from_numpy(np.flatnonzero(fold == index))
            by_weight = (features[some] * weights[number][some]).double()
            grams[index] += by_weight.T @ features[some].double()
            rights[index] += by_weight.T @ (targets[number] - starts[number])[some].double()
    by_fold, weight = _ridge(grams, rights)
    scored = []
    for number, item in enumerate(items):
        expected = starts[number]
        if item.share:
            features = map_features(raw[number] / deviation, depth_scores[number], item.delta)
            expected = expected + _by_fold(features, by_fold, fold)
        scored.append(Scored(item, depth_scores[number], expected, targets[number]))
    signal, unexplained = _left_open(scored, raw)
    power = _power(scored, raw, signal * unexplained[1], unexplained[1], scale.deviation)
    return Posterior(factors, weight, deviation, signal, unexplained, power), scored


def _power(scored: list[Scored], raw: list[Tensor], variance: Tensor, left: Tensor, deviation: float) -> float:
    """Power in `POWERS` that fits the errors of halves best, by the quasi-likelihood of gamma distributed squares.

    The squared error of a profile is that against its other half, minus the noise of that half, which is half the
    squared difference of both.
    """
    halves = [(one, of) for one, of in zip(scored, raw, strict=True) if not one.item.share]
    error, relative, weight = [], [], []
    for one, of in halves:
        square = (one.targets - one.expected).square() - (one.targets - of).square() / 2
        error.append(square.double().sum(1))
        relative.append((one.depth_scores.double() * deviation).exp())
        weight.append(one.weight.double())
    errors, molecules, weights = torch.cat(error), torch.cat(relative), torch.cat(weight)

    def misfit(power: float) -> float:
        expected = (variance / left.clamp(min=1e-12) * _left(molecules[:, None] ** power, left)).sum(1).clamp(min=1e-12)
        size = (weights * errors / expected).sum() / weights.sum().clamp(min=1e-9)
        if size <= 0:
            return float("inf")
        return float((weights * ((size * expected).log() + errors / (size * expected))).sum())

    return min(POWERS, key=misfit)


def _left_open(scored: list[Scored], raw: list[Tensor]) -> tuple[Tensor, Tensor]:
    """(rank,) variance of noise-free scores, and (n_depths, rank) the share that posterior scores leave open.

    Noise of a half and of its other half are independent, so that means of products of a score with the target are
    those with the noise-free score: for raw scores its variance, for posterior scores the part that they explain. What
    a half leaves open gives the noise, which is half as large in complete profiles.
    """

    def product(share: int, scores: list[Tensor]) -> Tensor:
        some = [(one, of) for one, of in zip(scored, scores, strict=True) if one.item.share == share]
        total = sum(float(one.weight.sum()) for one, _ in some)
        summed = torch.stack([(one.weight[:, None] * of * one.targets).double().sum(0) for one, of in some]).sum(0)
        return summed / max(total, 1e-9)

    signal = product(0, raw).clamp(min=1e-9)
    expected = [one.expected for one in scored]
    left = torch.stack([1 - product(share, expected) / signal for share in range(len(DELTAS) - 1)])
    left = left.clamp(0, 1).cummax(0).values
    complete = left[0] / (2 - left[0])
    return signal.float(), torch.cat([complete[None], left]).float()


def _ridge(grams: Tensor, rights: Tensor) -> tuple[Tensor, Tensor]:
    """(n_folds, n_features, rank) weights without each fold, and the weights of all, with the best penalty.

    The squared error of each fold follows from its moments: no prediction has to be computed.
    """
    gram, right = grams.sum(0), rights.sum(0)
    identity = torch.eye(len(gram), dtype=gram.dtype)
    unit = float(gram.trace()) / len(gram)
    if not unit:
        nothing = torch.zeros_like(right)
        return nothing.expand(len(grams), -1, -1).float(), nothing.float()

    def without_each(penalty: float) -> Tensor:
        found: Tensor = torch.linalg.solve(gram - grams + penalty * unit * identity, right - rights)
        return found

    def error(weights: Tensor) -> float:
        explained = 2 * (weights * rights).sum() - (weights * (grams @ weights)).sum()
        return -float(explained)

    best = min(PENALTIES, key=lambda penalty: error(without_each(penalty)))
    whole: Tensor = torch.linalg.solve(gram + best * unit * identity, right)
    return without_each(best).float(), whole.float().contiguous()  # as they are when they are read from a file


def _factors(items: list[Item], raw: list[Tensor], targets: list[Tensor], weights: list[Tensor]) -> Tensor:
    """(n_depths, rank) slopes of targets on raw scores at each share, at least 0; first, those of complete profiles.

    A complete profile has half the noise variance of a half: with the factor f of a half, f / (f + (1 - f) / 2).
    """
    rank, found = raw[0].shape[1], []
    for share in range(len(DELTAS) - 1):
        common, square = torch.zeros(rank, dtype=torch.float64), torch.zeros(rank, dtype=torch.float64)
        for item, some, wanted, weight in zip(items, raw, targets, weights, strict=True):
            if item.share == share:
                common += (weight * some * wanted).double().sum(0)
                square += (weight * some.square()).double().sum(0)
        found.append((common / square.clamp(min=1e-9)).clamp(min=0))
    half = found[0].clamp(max=1)
    complete = half / (half + (1 - half) / 2 + 1e-9)
    return torch.stack([complete, half, *found[1:]]).float()


def _raw(whitened: Whitened, curves: DepthCurves, item: Item) -> Tensor:
    """Raw scores of the inputs of an item, each profile in the basis without its fold."""
    mean, noise = curves.means[item.share + 1], curves.noises[item.share + 1]
    return _scores(item.inputs, mean, noise, whitened)


def _targets(whitened: Whitened, item: Item) -> Tensor:
    """Raw scores of the targets of an item, likewise."""
    return _scores(item.targets, whitened.whitening.mean, whitened.whitening.deviation, whitened)


def _scores(matrix: sparse.csr_matrix, mean: Tensor, noise: Tensor, whitened: Whitened) -> Tensor:
    scores = torch.empty(matrix.shape[0], whitened.whitening.rank)
    for number, components in enumerate(whitened.without):
        some = np.flatnonzero(whitened.fold == number)
        weight, offset = raw_weight(components, mean, noise)
        scores[torch.from_numpy(some)] = sparse_product(sparse_rows(matrix[some]), weight) - offset
    return scores


def _by_fold(features: Tensor, weights: Tensor, fold: np.ndarray) -> Tensor:
    """(n_profiles, rank) features times the weights that belong to the fold of each profile."""
    product = features.new_empty(len(features), weights.shape[2])
    for number, weight in enumerate(weights):
        some = torch.from_numpy(np.flatnonzero(fold == number))
        product[some] = features[some] @ weight
    return product
