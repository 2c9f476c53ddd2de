"""Reconstructions of other programs, made from one half of the molecules, against the other half.

Everything is compared in the space log1p_cp10k, on the profiles and genes that all reconstructions have, and every
number is computed by the same function for programs and controls. Controls may be fitted to both halves of training
profiles; nothing that is judged has seen the held-out half of a validation or test profile.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from geneae.data.augment import thin_to
from geneae.data.preprocess import Expression, normalize
from geneae.data.programs import SPACES
from geneae.evaluation.judge import MetricFacts
from geneae.evaluation.reconstruction import STATISTICS
from geneae.evaluation.records import COLUMNS, HELD_OUT, share_of_way
from geneae.losses.inner_products import InnerProducts
from geneae.losses.metrics import BY_GENE, METRICS, measure
from geneae.models.ceiling import cosine_of_halves, disattenuated_cosine, half_ceiling, has_molecules

CHUNK = 256  # profiles at a time: a dense block of 30,000 genes takes 60 MB
TARGET_SUM = 1e4
CENTRED, MSE_OF_HALF, BY_GENE_OF_HALF = "heldout_centred_cosine", "heldout_mse", "heldout_gene_correlation"

HALF_METRICS: dict[str, MetricFacts] = {
    CENTRED: MetricFacts("held-out centred cosine", "higher", is_by_profile=True, is_main=True, short="centred cosine"),
    MSE_OF_HALF: MetricFacts(
        "held-out MSE", "lower", BY_GENE, sees_length=True, is_by_profile=True, is_main=True, short="MSE"
    ),
    BY_GENE_OF_HALF: MetricFacts(
        "correlation of genes with the held-out half", "higher", is_main=True, short="correlation of genes"
    ),
}
"""Facts about metrics of reconstructions of a half that only this file reports."""

Predict = Callable[[slice], np.ndarray]
"""Function that gives the predictions of some of the judged profiles: (n, n_genes) float64 in log1p_cp10k."""


@dataclass(frozen=True, eq=False)
class JudgedHalves:
    """Both halves of the profiles that are judged, in the genes that are judged."""

    given: Expression
    """The half that programs have seen, with its own molecules as totals."""
    held_out: Expression
    """The other half, likewise."""
    names: pd.Index
    """Names of the profiles."""
    split: np.ndarray
    """(n_profiles,) `validation` or `test`."""
    genes: pd.Index
    """Genes in which everything is compared."""
    mean: np.ndarray
    """(n_genes,) mean of the held-out halves of training profiles in log1p_cp10k, for centring."""
    fraction: float
    """Share of the molecules in the given half."""
    seed: int
    """Seed of the thinning of the deeper half."""

    @property
    def target(self) -> sparse.csr_matrix:
        """(n_profiles, n_genes) held-out halves in log1p_cp10k, float64."""
        return normalize(self.held_out.rows, self.held_out.totals, TARGET_SUM).astype(np.float64)

    @property
    def is_known(self) -> np.ndarray:
        """(n_profiles,) whether both halves have enough molecules to be judged."""
        return has_molecules(self.given, self.held_out)

    def even(self) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """Given and held-out halves in log1p_cp10k at equal depth: the deeper one is thinned."""
        rng, given, held_out = np.random.default_rng(self.seed), self.given, self.held_out
        if self.fraction > 0.5:
            given = thin_to(given, (1 - self.fraction) / self.fraction, rng)
        if self.fraction < 0.5:
            held_out = thin_to(held_out, self.fraction / (1 - self.fraction), rng)
        first, second = (normalize(half.rows, half.totals, TARGET_SUM) for half in (given, held_out))
        return first, second

    def means(self, is_whole: bool = False) -> dict[str, np.ndarray]:
        """(n_genes,) means of the given half, or of undivided profiles, by space."""
        matrix, totals = self.given.rows, self.given.totals
        if is_whole:
            matrix, totals = matrix + self.held_out.rows, totals + self.held_out.totals
        matrix = sparse.csr_matrix(matrix)
        scaled = sparse.csr_matrix(matrix.multiply((TARGET_SUM / np.maximum(totals, 1.0))[:, None]))
        spaces = matrix, scaled, normalize(matrix, totals, TARGET_SUM)
        return {name: np.asarray(of.mean(0)).ravel() for name, of in zip(SPACES, spaces, strict=True)}


@dataclass(frozen=True, eq=False)
class OfHalf:
    """Numbers of one reconstruction against the held-out half."""

    profiles: pd.DataFrame
    """(n_profiles) rows with the columns `heldout_cosine`, `heldout_centred_cosine`, `heldout_mse`; NaN for profiles
    with too few molecules."""
    genes: dict[str, pd.DataFrame]
    """Columns gene, mean and correlation over the profiles of a split, by split; 0 for a constant prediction."""
    with_given: np.ndarray
    """(n_profiles,) cosine with the given half minus that with the held-out half, at equal depth."""


def score(predict: Predict, halves: JudgedHalves) -> OfHalf:
    """Compare predictions with the held-out half, profile by profile and gene by gene."""
    target, (given, held_out), known = halves.target, halves.even(), halves.is_known
    n_profiles, n_genes = target.shape
    mean, square = halves.mean, float(halves.mean @ halves.mean)
    cross, predicted, by_mean, lean = np.empty((4, n_profiles))
    sums = {name: _GeneSums(n_genes) for name in pd.unique(halves.split)}
    for start in range(0, n_profiles, CHUNK):
        some = slice(start, start + CHUNK)
        block = predict(some)
        cross[some] = _dot(target[some], block)
        predicted[some] = (block**2).sum(1)
        by_mean[some] = block @ mean
        with np.errstate(invalid="ignore", divide="ignore"):
            lean[some] = _cosine(given[some], block) - _cosine(held_out[some], block)
        for name, of in sums.items():
            rows = np.flatnonzero(known[some] & (halves.split[some] == name))
            of.add(target[some][rows], block[rows])
    squared, of_mean = np.asarray(target.power(2).sum(1)).ravel(), np.asarray(target @ mean).ravel()
    plain = _products(cross, squared, predicted, n_genes)
    centred = _products(
        cross - of_mean - by_mean + square, squared - 2 * of_mean + square, predicted - 2 * by_mean + square, n_genes
    )
    columns = {
        HELD_OUT: measure(METRICS["cosine"], plain),
        CENTRED: measure(METRICS["cosine"], centred),
        MSE_OF_HALF: measure(METRICS["mse"], plain),
    }
    profiles = pd.DataFrame({name: np.where(known, values.numpy(), np.nan) for name, values in columns.items()})
    genes = {name: of.table(halves.genes) for name, of in sums.items()}
    return OfHalf(profiles, genes, np.where(known, lean, np.nan))


def _dot(rows: sparse.csr_matrix, block: np.ndarray) -> np.ndarray:
    return np.asarray(rows.multiply(block).sum(1), dtype=np.float64).ravel()


def _cosine(rows: sparse.csr_matrix, block: np.ndarray) -> np.ndarray:
    """Cosine of rows; 0 for a prediction of zeros."""
    lengths = np.sqrt(np.asarray(rows.power(2).sum(1)).ravel() * (block**2).sum(1))
    found: np.ndarray = np.divide(_dot(rows, block), lengths, out=np.zeros(len(block)), where=lengths > 0)
    return found


def _products(cross: np.ndarray, target: np.ndarray, predicted: np.ndarray, n_genes: int) -> InnerProducts:
    of_target, of_predicted = (torch.from_numpy(np.maximum(part, 0)) for part in (target, predicted))
    return InnerProducts(torch.from_numpy(cross), of_target, of_predicted, n_genes)


class _GeneSums:
    """Sums over profiles from which correlations of genes follow."""

    def __init__(self, n_genes: int) -> None:
        self.n, self._sums = 0, np.zeros((5, n_genes))

    def add(self, target: sparse.csr_matrix, block: np.ndarray) -> None:
        """Include some profiles."""
        self.n += len(block)
        own = (target.sum(0), target.power(2).sum(0), target.multiply(block).sum(0))
        parts = (*(np.asarray(part, dtype=np.float64).ravel() for part in own), block.sum(0), (block**2).sum(0))
        self._sums += np.stack(parts)

    def table(self, genes: pd.Index) -> pd.DataFrame:
        """Columns gene, mean and correlation."""
        target, squared, cross, predicted, of_predicted = self._sums / max(1, self.n)
        of_target, variance = squared - target**2, of_predicted - predicted**2
        is_constant = variance <= 1e-12 * np.maximum(of_predicted, 1e-300)
        with np.errstate(invalid="ignore", divide="ignore"):
            correlation = (cross - target * predicted) / np.sqrt(of_target * variance)
        correlation[is_constant] = 0.0  # it tells no profiles apart
        correlation[of_target <= 0] = np.nan
        return pd.DataFrame({"gene": genes, "mean": target, "correlation": correlation})


def of_halves(halves: JudgedHalves) -> np.ndarray:
    """(n_profiles,) cosine between two halves at the depth of the held-out one, from which the ceiling follows.

    NaN for all where the held-out half is the deeper one, and for profiles with too few molecules.
    """
    if halves.fraction < 0.5:
        return np.full(len(halves.names), np.nan)
    given, held_out = halves.even()
    return np.where(halves.is_known, cosine_of_halves(given, held_out), np.nan)


def long_table(found: Mapping[str, OfHalf], halves: JudgedHalves, between: np.ndarray, seed: int) -> pd.DataFrame:
    """Rows of the long table for several reconstructions by name: means, skill, disattenuated cosine, ceiling.

    Parameters
    ----------
    found
        Numbers by model; `mean_profile` must be among them.
    halves
        The judged profiles.
    between
        Result of `of_halves`.
    seed
        Column of the table: the number of the division.
    """
    rows = []
    for split in map(str, pd.unique(halves.split)):
        inside = halves.split == split
        ceiling = half_ceiling(between[inside])
        trivial = _mean(found["mean_profile"].profiles[HELD_OUT][inside])
        n_known = int((inside & halves.is_known).sum())
        if not n_known:
            continue
        if not np.isnan(ceiling):
            rows.append(("model", seed, split, "ceiling", "mean", ceiling, n_known, "higher"))
        for name, of in found.items():
            for metric in of.profiles:
                better = "lower" if metric == MSE_OF_HALF else "higher"
                values = of.profiles[metric][inside].dropna().to_numpy()
                for statistic in ("mean", "median"):
                    number = STATISTICS[statistic](values)
                    rows.append((name, seed, split, str(metric), statistic, number, len(values), better))
            numbers = {BY_GENE_OF_HALF: gene_correlation(of.genes[split])}
            if not np.isnan(share_of_way(trivial, trivial, ceiling)):
                cosine = of.profiles[HELD_OUT][inside].to_numpy()
                numbers["skill"] = share_of_way(float(np.nanmean(cosine)), trivial, ceiling)
                numbers["disattenuated_cosine"] = disattenuated_cosine(cosine, between[inside])
            rows += [(name, seed, split, key, "mean", number, n_known, "higher") for key, number in numbers.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def _mean(values: pd.Series) -> float:
    return float(values.mean())


def gene_correlation(genes: pd.DataFrame) -> float:
    """Mean correlation over the half of the genes with higher mean expression; rare ones are almost all noise."""
    frequent = genes["mean"] >= genes["mean"].median()
    return float(genes.loc[frequent, "correlation"].mean())
