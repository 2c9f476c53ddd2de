"""Controls of other programs: mean profile, PCA, shrunken PCA, and the noise-whitened estimator."""

from dataclasses import dataclass

import numpy as np
import torch

from geneae.data.halves import Halves, as_expression
from geneae.data.preprocess import Expression, Preprocess, column_mean, normalize
from geneae.data.profiles import Profiles
from geneae.evaluation.predictors import WHITENED
from geneae.evaluation.programs import JudgedHalves, Predict
from geneae.fitting.bases import Bases, fit_bases
from geneae.fitting.checks import latents_of
from geneae.fitting.prepare import FitData
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.baselines import BASELINES, PCA_SIZES, pca
from geneae.settings.settings import Settings

REFERENCE = "shrunken_pca"
"""Control that all others are compared with."""


@dataclass(frozen=True, eq=False)
class Control:
    """Controls that are fitted to both halves of the training profiles."""

    bases: Bases
    """PCA of halves with Wiener factors, and the whitened estimator."""
    mean_of_given: np.ndarray
    """(n_genes,) mean of the given halves of training profiles in log1p_cp10k."""
    mean_of_held_out: np.ndarray
    """(n_genes,) mean of the held-out halves; at a fraction of a half, both are the mean of all halves."""
    n_latent: int
    """Number of components."""
    fraction: float
    """Share of the molecules in the given half."""

    def predictions(self, judged: JudgedHalves) -> dict[str, Predict]:
        """Predictions of the judged profiles by control, from the given half."""
        half = self.bases.baselines.half
        assert half is not None
        given = normalize(judged.given.rows, judged.given.totals)
        components = half.components.double().numpy()
        scores = given @ components - self.mean_of_given @ components
        sizes = {f"pca_{size}": pca(half.rank, size) for size in PCA_SIZES if size <= half.rank}
        linear = {name: kind.factors(self.bases.baselines, half.rank) for name, kind in BASELINES.items()} | sizes

        def shrunk(by: np.ndarray) -> Predict:
            return lambda some: (scores[some] * by) @ components.T + self.mean_of_held_out

        found = {name: shrunk(by.double().numpy()) for name, by in linear.items()}
        if self.bases.estimator is not None:
            ratios = [float(np.log(0.5 / share)) for share in (self.fraction, 1 - self.fraction)]
            at = self.bases.estimator.estimator.within().at(*ratios)
            posterior, decoder = at.scores(given, judged.given.totals), at.linear()
            hidden = at.hidden(posterior, judged.given.totals)

            def whitened(some: slice) -> np.ndarray:
                return np.asarray(decoder.expectation(hidden[some]).double().numpy())

            found[WHITENED] = whitened
        return found

    def representations(self, given: Expression) -> dict[str, np.ndarray]:
        """(n_profiles, n) latents of halves by control: scores of PCA and shrunken PCA, whitened posterior scores."""
        half, factors = self.bases.baselines.half, self.bases.baselines.factors
        assert half is not None
        assert factors is not None
        matrix = normalize(given.rows, given.totals)
        scores = half.scores(sparse_rows(matrix))[:, : self.n_latent]
        found = {"pca": scores.numpy(), REFERENCE: (scores * factors[: self.n_latent].float()).numpy()}
        if self.bases.estimator is not None:
            estimator = self.bases.estimator.estimator
            posterior = estimator.at(float(np.log(0.5 / self.fraction))).scores(matrix, given.totals)
            found[WHITENED] = (posterior / estimator.latent_unit).numpy()
        return found


def fit_control(halves: Halves, whole: Profiles, preprocess: Preprocess, n_latent: int | None) -> Control:
    """Fit the controls to the training profiles, of which they know both halves."""
    train = np.flatnonzero(halves.split == "train")
    n_latent = latents_of(n_latent, len(train), len(preprocess.genes))
    expression, _ = preprocess.match(whole)
    settings = Settings(n_latent=n_latent, seed=halves.settings.seed)
    data = FitData(
        profiles=whole,
        settings=settings,
        requested=settings,
        null=None,
        center="none",
        objective=None,
        has_decoder=True,
        is_split=True,
        views=[],
        split=halves.split,
        preprocess=preprocess,
        expression=expression,
        partner=None,
        metric=None,
        metric_facts=None,
    )
    with torch.no_grad():
        bases = fit_bases(data)
    parts = [as_expression(half, preprocess.genes, train) for half in (halves.given, halves.held_out)]
    means = [column_mean(normalize(part.rows, part.totals)) for part in parts]
    if halves.settings.fraction == 0.5:
        means = [(means[0] + means[1]) / 2] * 2
    return Control(bases, means[0], means[1], n_latent, halves.settings.fraction)
