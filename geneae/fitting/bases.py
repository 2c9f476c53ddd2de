"""Bases of the training profiles: PCA of complete profiles and of their halves."""

from dataclasses import dataclass

from scipy import sparse

from geneae.data.count_split import Splitter
from geneae.fitting.prepare import FitData
from geneae.models.baselines import PCA_SIZES, Baselines
from geneae.models.pca import fit_basis, fit_wiener
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


def fit_bases(data: FitData) -> Bases:
    """Fit the bases of the baselines; the network starts in one of them."""
    settings, preprocess = data.settings, data.preprocess
    sample = data.train.sample(SAMPLE_VALUES, SAMPLE_PROFILES, settings.seed)
    partner, n_profiles = data.partners("train"), sample.n_profiles
    whole = preprocess.apply(sample)
    small, large = max(settings.n_latent, *PCA_SIZES), max(settings.rank, settings.n_latent)
    if preprocess.state != "counts" or not data.has_decoder:
        basis = fit_basis([whole], large, settings.seed)
        return Bases(Baselines(basis, None, None, settings.n_latent), mismatch([whole], partner), n_profiles)
    splitter = Splitter(sample.rows)
    halves = mismatch(draw_blocks(sample, preprocess, splitter, (settings.seed, TRAINING_STREAM, 0)), partner)
    # the basis of the network is fitted first; the other one starts from it
    first, second = (halves, [whole]) if data.is_split else ([whole], halves)
    trained = fit_basis(first, large, settings.seed)
    judged = fit_basis(second, small, settings.seed, NEAR_ITERATIONS, trained.components)
    basis, half = (judged, trained) if data.is_split else (trained, judged)
    factors = fit_wiener(halves[0], halves[1], half.rank, settings.seed)
    blocks = halves if data.is_split else mismatch([whole], partner)
    return Bases(Baselines(basis, half, factors, settings.n_latent), blocks, n_profiles)
