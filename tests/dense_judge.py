"""Held-out cosines of a fit and its baselines, written out in dense NumPy float64. Tests only."""

import numpy as np
import torch
from reference import DenseEstimator, DenseTwin

from geneae.data.count_split import halves
from geneae.data.preprocess import Expression
from geneae.evaluation.halves import EVALUATION_STREAM, REPEATS
from geneae.models.ceiling import MIN_MOLECULES
from geneae.models.model import Model

STEPS = ["step_network", "step_neighbours", "step_own_counts"]
"""Those for halves alone."""


def dense_predictions(model: Model, x: np.ndarray, totals: np.ndarray, is_half: bool) -> dict[str, np.ndarray]:
    """(n_profiles, n_genes) predictions of a model with a decoder and of its baselines, written down plainly."""
    bases = model.baselines
    assert bases.half is not None
    assert bases.factors is not None
    mean = (bases.half if is_half else bases.whole).mean.double().numpy()
    if model.estimator is None:
        twin = DenseTwin(model.network)
        shift = mean - model.network.mean.double().numpy()
        predicted = {"model": twin.predict(twin.encode(torch.from_numpy(x - shift))).detach().numpy() + shift}
    else:
        predicted = estimated_predictions(DenseEstimator(model, is_half), x, totals)
        predicted = {name: one for name, one in predicted.items() if is_half or name not in STEPS}
    predicted["mean_profile"] = np.tile(mean, (len(x), 1))

    def linear(components: torch.Tensor, factors: np.ndarray) -> np.ndarray:
        loadings = components.double().numpy()[:, : len(factors)]
        return np.asarray(mean + (x - mean) @ loadings * factors @ loadings.T)

    basis = bases.half if is_half else bases.whole
    predicted["pca"] = linear(basis.components, np.ones(bases.size))
    predicted["shrunken_pca"] = linear(bases.half.components, bases.factors.double().numpy()[: bases.size])
    if is_half:
        for size in (4, 8, 16, 32):
            if size <= basis.rank:
                predicted[f"pca_{size}"] = linear(basis.components, np.ones(size))
    return predicted


def estimated_predictions(dense: DenseEstimator, x: np.ndarray, totals: np.ndarray) -> dict[str, np.ndarray]:
    """All predictions of a model with an estimator."""
    return {
        "model": dense.predict(x, totals),
        "model_latent_only": dense.predict(x, totals, ["neighbours", "calibration"]),
        "whitened": dense.predict(x, totals, [], has_network=False),
        "step_network": dense.predict(x, totals, []),
        "step_neighbours": dense.predict(x, totals, ["neighbours"]),
        "step_own_counts": dense.predict(x, totals, ["neighbours", "calibration", "own_counts"]),
        "own_count": dense.own_count(x),
    }


def cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n_profiles,) cosines of rows."""
    with np.errstate(invalid="ignore"):
        return np.asarray((x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1))


def dense_held_out(model: Model, expression: Expression, partner: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Mean cosine over splits and directions by prediction, and between the halves; NaN where a half has fewer than 20
    molecules."""
    rng = np.random.default_rng((model.config["split_seed"], EVALUATION_STREAM))
    found: dict[str, list[np.ndarray]] = {}
    partner = np.arange(expression.n_profiles) if partner is None else partner
    for _ in range(REPEATS):
        pair = halves(expression, rng)
        totals = [half.totals for half in pair]
        seen = [half.matrix.toarray().sum(1) for half in pair]
        enough = np.min(seen, axis=0) >= MIN_MOLECULES
        x = [model.preprocess.apply(half).toarray().astype(np.float64) for half in pair]
        found.setdefault("halves", []).append(np.where(enough, cosine(*x), np.nan))
        for (given, wanted), of_given in zip((x, x[::-1]), totals, strict=True):
            for name, predicted in dense_predictions(model, given, of_given, is_half=True).items():
                both = enough & enough[partner]
                found.setdefault(name, []).append(np.where(both, cosine(wanted[partner], predicted), np.nan))
    return {name: np.mean(cosines, axis=0) for name, cosines in found.items()}
