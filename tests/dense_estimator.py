"""The estimator written out in dense NumPy float64, and small worlds to compare on. Tests only."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
import torch
from reference import counts_matrix, csr, dense_normalize

from geneae.data.count_split import halves as count_halves
from geneae.data.preprocess import Expression, Preprocess
from geneae.fitting import estimator as fitting
from geneae.fitting import head as head_training
from geneae.fitting.estimator import CountedHalves, FittedEstimator, fit_estimator
from geneae.models import entry_head
from geneae.models.depths import DELTAS, DepthCurves, DepthScale
from geneae.models.entry_head import EntryHead
from geneae.models.estimator import STEPS, Estimator
from geneae.models.molecules import TypicalMolecules
from geneae.models.neighbours import Neighbours
from geneae.models.own_counts import OwnCounts
from geneae.models.posterior import Posterior
from geneae.models.whitening import Halves, Whitening

AT = [math.log(0.5 / share) for share in (1.0, 0.5, 0.3, 0.15, 0.07, 0.04)]
"""Depths at which numbers are known."""
N_DEPTHS = len(AT)
BETWEEN = (AT[0], -0.3, 0.0, 0.2, AT[3], 2.2, AT[-1], 4.0)
"""Depths at, between and outside those."""


@dataclass(frozen=True, eq=False)
class World:
    """Training profiles, their halves and normalisation."""

    whole: Expression
    counts: tuple[Expression, Expression]
    preprocess: Preprocess

    @property
    def halves(self) -> Halves:
        """Both halves, normalised."""
        return Halves(*(self.preprocess.apply(half) for half in self.counts))

    @property
    def dense(self) -> tuple[np.ndarray, np.ndarray]:
        """The same as dense float64 arrays."""
        halves = self.halves
        return halves.first.toarray().astype(float), halves.second.toarray().astype(float)

    @property
    def split(self) -> CountedHalves:
        """The first count split."""
        return CountedHalves(self.counts, self.halves)

    def draw(self, number: int) -> CountedHalves:
        """Another count split: here the same, so that several say what one says."""
        return self.split

    def fit(self, n_latent: int = 4, seed: int = 0) -> FittedEstimator:
        """The estimator of these profiles, whose head takes few steps."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(entry_head, "STEPS", 30)
            patch.setattr(entry_head, "BATCH", 256)
            patch.setattr(fitting, "BASIS_SPLITS", 1)
            patch.setattr(fitting, "GENE_SPLITS", 1)
            whole = self.preprocess.apply(self.whole)
            fitted = fit_estimator(self.split, self.draw, self.preprocess, whole, n_latent, seed)
            for number, name in enumerate(STEPS):
                fitted = fitted.with_step(name, STEPS[:number], seed)
            return fitted


def world_of(counts: np.ndarray, seed: int = 0) -> World:
    """Profiles with these counts, all of whose molecules are in the matrix."""
    genes = pd.Index([f"g{number}" for number in range(counts.shape[1])])
    whole = Expression(csr(counts), counts.sum(1).astype(float))
    halves = count_halves(whole, np.random.default_rng(seed))
    return World(whole, halves, Preprocess("counts", genes, np.ones(len(genes))))


@lru_cache
def small_world(n_profiles: int = 80, n_genes: int = 24, depth: float = 300.0) -> World:
    """Profiles of two programmes."""
    return world_of(counts_matrix(n_profiles, n_genes, 1, depth))


@lru_cache
def small_fit() -> FittedEstimator:
    """The estimator of `small_world`; not to be changed."""
    return small_world().fit()


def short_training(patch: pytest.MonkeyPatch, n_steps: int) -> None:
    """Let the head take few steps with the loss of a fit."""
    patch.setattr(head_training, "STEPS", n_steps)


def queries(n_profiles: int, n_genes: int, seed: int = 0, depth: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    """Normalised profiles, one of them with a single molecule, and their totals."""
    counts = counts_matrix(n_profiles, n_genes, seed, depth)
    counts[0] = 0
    counts[0, 0] = 1
    return dense_normalize(counts).astype(np.float32), counts.sum(1)


def random_estimator(n_genes: int = 13, rank: int = 3, n_reference: int = 40, seed: int = 0) -> Estimator:
    """An estimator of random numbers, with a head that is not zero."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, size: float = 1.0) -> torch.Tensor:
        return torch.tensor(size * rng.standard_normal(shape), dtype=torch.float32)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.tensor(rng.uniform(low, high, shape), dtype=torch.float32)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = EntryHead()
        torch.nn.init.normal_(head.layers[-1].weight, std=0.5)
    components = torch.linalg.qr(normal(n_genes, rank)).Q.contiguous()
    factors = uniform(0.2, 1.0, N_DEPTHS, rank)
    return Estimator(
        Whitening(uniform(0.2, 2.0, n_genes), uniform(0.5, 1.5, n_genes), components),
        DepthCurves(*(uniform(0.1, 2.0, N_DEPTHS, n_genes) for _ in range(3))),
        DepthScale(3.5, 0.4),
        Posterior(
            factors,
            normal(3 * rank + 4, rank, size=0.1),
            uniform(0.5, 2.0, rank),
            uniform(0.5, 2.0, rank),
            uniform(0.0, 1.0, N_DEPTHS, rank),
        ),
        Neighbours(normal(n_reference, rank), factors[0], uniform(0.1, 0.6, N_DEPTHS), 5),
        uniform(0.3, 1.2, n_genes),
        OwnCounts(
            uniform(-0.05, 0.9, N_DEPTHS, n_genes),
            uniform(0.0, 0.9, N_DEPTHS, n_genes),
            normal(9, n_genes, size=0.1),
        ),
        head.eval(),
        TypicalMolecules(normal(rank, size=0.1), normal(rank, size=0.1), 3.5, (2.0, 5.0)),
    )


def interpolated(table: torch.Tensor | np.ndarray, delta: float) -> np.ndarray:
    """Column by column between the depths of its rows; constant outside."""
    table = np.asarray(table, dtype=float)
    return np.array([np.interp(delta, AT, column) for column in table.reshape(N_DEPTHS, -1).T])


def dense_noise(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Half the mean squared difference."""
    return np.array([((first[:, j] - second[:, j]) ** 2).mean() / 2 for j in range(first.shape[1])])


def dense_covariance(first: np.ndarray, second: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Symmetric covariance between whitened halves."""
    one, other = (first - mean) / deviation, (second - mean) / deviation
    return (one.T @ other + other.T @ one) / (2 * len(one))


def largest(covariance: np.ndarray, rank: int) -> np.ndarray:
    """Eigenvectors of the largest eigenvalues, as columns."""
    return np.linalg.eigh(covariance)[1][:, ::-1][:, :rank]


def dense_map_features(x: np.ndarray, e: np.ndarray, delta: float) -> np.ndarray:
    """Profile by profile: what the map between depths sees."""
    rows = []
    for scores, depth_score in zip(x, e, strict=True):
        constants = [delta, delta**2, depth_score * delta, depth_score**2 * delta]
        rows.append([*(scores * delta), *(scores * delta**2), *(scores * depth_score * delta), *constants])
    return np.array(rows)


class DenseEstimator:
    """An estimator at one depth, for dense profiles."""

    def __init__(self, estimator: Estimator, delta: float) -> None:
        self.of, self.delta = estimator, delta
        basis, curves = estimator.whitening, estimator.curves
        self.mean, self.deviation, self.components = (
            tensor.double().numpy() for tensor in (basis.mean, basis.deviation, basis.components)
        )
        self.input_mean, self.slope = interpolated(curves.means, delta), interpolated(curves.slopes, delta)
        self.input_noise = np.sqrt(interpolated(curves.noises.double() ** 2, delta))
        self.share = interpolated(estimator.own_counts.shares, delta)
        self.within = min(max(delta, 0.0), DELTAS[-1])

    def depth_scores(self, totals: np.ndarray) -> np.ndarray:
        """Standardised log totals of as many molecules at the depth of a half, within -3 and 3."""
        scale = self.of.scale
        return np.clip((np.log(np.maximum(totals, 1)) + self.delta - scale.mean) / scale.deviation, -3, 3)

    def scores(self, z: np.ndarray, totals: np.ndarray) -> np.ndarray:
        """Posterior scores."""
        posterior = self.of.posterior
        raw = ((z - self.input_mean) / self.input_noise) @ self.components
        scores = raw * interpolated(posterior.factors, self.delta)
        if self.delta > 0:
            x = raw / posterior.deviation.double().numpy()
            features = dense_map_features(x, self.depth_scores(totals), self.within)
            scores = scores + features @ posterior.weight.double().numpy()
        return scores

    def drawn(self, scores: np.ndarray) -> np.ndarray:
        """Scores on the way to the mean of their neighbours."""
        near = self.of.neighbours
        pull = interpolated(near.pull, self.delta)[0]
        means = dense_mean_of_nearest(
            scores, near.reference.double().numpy(), near.factors.double().numpy(), near.number
        )
        return scores + pull * (means - scores)

    def zero_formula(self, p: np.ndarray, e: np.ndarray) -> np.ndarray:
        """Residual where a gene is not seen."""
        w, d = self.of.own_counts.zeros.double().numpy(), self.within
        e = e[:, None]
        terms = [1, p, e, e * p, d, d * p, d**2, d**2 * p, e * d]
        return sum(row * term for row, term in zip(w, terms, strict=True)) + np.zeros_like(p)

    def features(self, z: np.ndarray, p: np.ndarray, totals: np.ndarray) -> np.ndarray:
        """(n_profiles, n_genes, 10) input of the head."""

        def standard(values: np.ndarray) -> np.ndarray:
            return (values - values.mean()) / max(values.std(), 1e-6)

        spread = self.of.own_counts.shares.double().numpy().std() + 1e-6
        nothing = np.zeros_like(p)
        return np.stack(
            [
                np.clip(p, -8, 8),
                np.clip(0.3 * (z - self.input_mean) / self.deviation, -2.5, 2.5),
                0.3 * z,
                0.3 * np.clip(self.mean + self.deviation * p, -1, 9),
                nothing + self.within,
                nothing + standard(np.log(self.mean + 1e-6)),
                nothing + standard(np.log(self.deviation)),
                nothing + self.share / spread,
                0.3 * (z - np.log1p(1e4 / np.maximum(totals, 1))[:, None]),
                nothing + self.depth_scores(totals)[:, None],
            ],
            2,
        )

    def expectation(self, z: np.ndarray, totals: np.ndarray, scores: np.ndarray | None = None) -> np.ndarray:
        """Predictions of every gene, from given scores or those of the profiles."""
        kept = self.of.kept
        scores = self.scores(z, totals) if scores is None else scores
        scores = self.drawn(scores) if "neighbours" in kept else scores
        p = scores @ self.components.T
        if "calibration" in kept:
            p = p * self.of.calibration.double().numpy()
        found = p
        if "own_counts" in kept:
            found = p + self.share * ((z - self.input_mean) / self.deviation - self.slope * p)
            if "entries" in kept:
                features = torch.from_numpy(self.features(z, p, totals)).reshape(-1, 10)
                with torch.no_grad():
                    head = double(self.of.head)(features).reshape(p.shape).numpy()
                found = found + np.where(z != 0, head, self.zero_formula(p, self.depth_scores(totals)))
        return self.mean + self.deviation * found


def double(head: EntryHead) -> EntryHead:
    """The same head in float64."""
    copy = EntryHead()
    copy.load_state_dict(head.state_dict())
    return copy.double()


def dense_mean_of_nearest(scores: np.ndarray, reference: np.ndarray, factors: np.ndarray, number: int) -> np.ndarray:
    """Mean raw score of the nearest profiles of a reference, one profile after the other."""
    means = []
    for one in scores:
        distances = ((reference * factors - one) ** 2).sum(1)
        means.append(reference[np.argsort(distances, kind="stable")[:number]].mean(0))
    return np.array(means).reshape(scores.shape)


def dense_pooled_ridge(gram: np.ndarray, right: np.ndarray, mean: np.ndarray, pooling: float) -> np.ndarray:
    """Gene by gene: ridge towards coefficients that are pooled over genes of a similar mean."""
    order, places, pooled, n_terms = np.argsort(mean, kind="stable"), [], [], right.shape[1]
    for genes in np.array_split(order, min(8 if len(mean) < 1000 else 20, len(mean))):
        own = gram[genes].sum(0)
        ridge = (0.002 * np.trace(own) / n_terms + 1) * np.eye(n_terms)
        pooled.append(np.linalg.solve(own + ridge, right[genes].sum(0)))
        places.append(np.log(mean[genes] + 1e-9).mean())
    rows = []
    for gene in range(len(mean)):
        start = [np.interp(np.log(mean[gene] + 1e-9), places, column) for column in np.array(pooled).T]
        ridge = np.diag(gram[gene].diagonal() + pooling)
        rows.append(np.linalg.solve(gram[gene] + ridge, right[gene] + ridge @ start))
    return np.array(rows)
