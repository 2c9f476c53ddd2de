"""Bases of the training profiles: PCA of whole profiles and of their halves."""

from dataclasses import dataclass

from scipy import sparse

from geneae.data.count_split import Splitter
from geneae.fitting.prepare import FitData
from geneae.models.baselines import PCA_SIZES, Baselines
from geneae.models.pca import fit_basis, fit_wiener
from geneae.training.batches import TRAINING_STREAM, draw_blocks, mismatch

SAMPLE_VALUES, SAMPLE_PROFILES = 2**23, 2**15  # of streamed training profiles that bases are fitted on
NEAR_ITERATIONS = 2  # of a basis that starts near its end


@dataclass(frozen=True, eq=False)
class Bases:
    """Bases, and the profiles that they were fitted on."""

    baselines: Baselines
    """PCA, and with counts PCA of halves and Wiener factors."""
    blocks: list[sparse.csr_matrix]
    """Training profiles, or the halves of their first count split, preprocessed; of streamed ones a sample."""
    n_profiles: int
    """Training profiles that took part."""


def fit_bases(data: FitData) -> Bases:
    """Fit the bases of a fit's baselines, one of which the network starts in."""
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
    # the basis of the network first; the other one starts there
    first, second = (halves, [whole]) if data.is_split else ([whole], halves)
    trained = fit_basis(first, large, settings.seed)
    judged = fit_basis(second, small, settings.seed, NEAR_ITERATIONS, trained.components)
    basis, half = (judged, trained) if data.is_split else (trained, judged)
    factors = fit_wiener(halves[0], halves[1], half.rank, settings.seed)
    blocks = halves if data.is_split else mismatch([whole], partner)
    return Bases(Baselines(basis, half, factors, settings.n_latent), blocks, n_profiles)
