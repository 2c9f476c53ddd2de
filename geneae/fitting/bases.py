"""Bases of the training profiles: PCA of complete profiles and of their halves, and the estimator."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from geneae.data.count_split import Splitter, draw_halves
from geneae.data.preprocess import Expression
from geneae.fitting.estimator import CountedHalves, FittedEstimator, fit_estimator
from geneae.fitting.prepare import FitData
from geneae.models.baselines import PCA_SIZES, Baselines
from geneae.models.pca import fit_basis, fit_wiener
from geneae.models.whitening import Halves
from geneae.training.batches import TRAINING_STREAM, draw_blocks, mismatch

SAMPLE_VALUES, SAMPLE_PROFILES = 2**23, 2**15  # limits of the sample of streamed training profiles
NEAR_ITERATIONS = 2  # for a basis that starts near its solution


@dataclass(frozen=True, eq=False)
class Bases:
    """Bases, and the profiles that they were fitted on."""

    baselines: Baselines
    """PCA and, with counts, PCA of halves and Wiener factors."""
    blocks: list[sparse.csr_matrix]
    """Preprocessed training profiles, or the halves of their first count split; a sample if they are streamed."""
    n_profiles: int
    """Number of training profiles that the bases were fitted on."""
    estimator: FittedEstimator | None = None
    """Estimator that the network starts from; None if it starts from PCA."""


def fit_bases(data: FitData) -> Bases:
    """Fit the bases of the baselines; the network starts in one of them."""
    settings, preprocess = data.settings, data.preprocess
    sample = data.train.sample(SAMPLE_VALUES, SAMPLE_PROFILES, settings.seed)
    partner, n_profiles = data.partners("train"), sample.n_profiles
    whole = preprocess.apply(sample)
    small, large = max(settings.size, *PCA_SIZES), max(settings.rank, settings.size)
    if preprocess.state != "counts" or not (data.has_decoder or data.has_estimator):
        basis = fit_basis([whole], large, settings.seed)
        return Bases(Baselines(basis, None, None, settings.size), mismatch([whole], partner), n_profiles)
    splitter = Splitter(sample.rows)
    if data.has_estimator:
        return _with_estimator(data, sample, splitter, whole, small)
    halves = mismatch(draw_blocks(sample, preprocess, splitter, (settings.seed, TRAINING_STREAM, 0)), partner)
    # the basis of the network is fitted first; the other one starts from it
    first, second = (halves, [whole]) if data.is_split else ([whole], halves)
    trained = fit_basis(first, large, settings.seed)
    judged = fit_basis(second, small, settings.seed, NEAR_ITERATIONS, trained.components)
    basis, half = (judged, trained) if data.is_split else (trained, judged)
    factors = fit_wiener(halves[0], halves[1], half.rank, settings.seed)
    blocks = halves if data.is_split else mismatch([whole], partner)
    return Bases(Baselines(basis, half, factors, settings.size), blocks, n_profiles)


def _with_estimator(
    data: FitData, sample: Expression, splitter: Splitter, whole: sparse.csr_matrix, rank: int
) -> Bases:
    """The estimator, and PCA of the sizes that are compared with it."""
    seed, partner = data.settings.seed, data.partners("train")

    def draw(number: int) -> CountedHalves:
        rng = np.random.default_rng((seed, TRAINING_STREAM, number))
        first, second = draw_halves(splitter, sample.totals, rng)
        halves = mismatch([data.preprocess.apply(half) for half in (first, second)], partner)
        return CountedHalves((first, second if partner is None else second.take(partner)), Halves(*halves))

    first = draw(0)
    estimator = fit_estimator(first, draw, data.preprocess, whole, data.settings.size, seed)
    own, halves = estimator.estimator.whitening, [first.halves.first, first.halves.second]
    if not data.has_decoder:
        basis = fit_basis([whole], rank, seed, NEAR_ITERATIONS, own.components)
        return Bases(Baselines(basis, None, None, data.settings.size), halves, whole.shape[0], estimator)
    half = replace(fit_basis(halves, rank, seed, NEAR_ITERATIONS, own.components), mean=own.mean)  # stored once
    basis = fit_basis([whole], rank, seed, NEAR_ITERATIONS, half.components)
    factors = fit_wiener(halves[0], halves[1], half.rank, seed)
    return Bases(Baselines(basis, half, factors, data.settings.size), halves, whole.shape[0], estimator)
