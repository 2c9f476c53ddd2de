"""Normalisation, logarithm, gene selection and scaling: a frozen record, fitted once and applied again to new data."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scipy.special import binom

from geneae.data.backed import BackedMatrix, chunks, select_columns
from geneae.data.gene_names import best_column, renamed
from geneae.data.profiles import Profiles
from geneae.data.states import STATES
from geneae.data.units import counts_of
from geneae.data.universe import Coverage, Universe
from geneae.settings.errors import InputError

MIN_PROFILES = 3  # a gene detected in fewer training profiles carries no information about other profiles
CHUNK = 1024  # profiles of a file processed at a time
TARGET_SUM = 1e4  # molecules per profile after normalisation, as scanpy's tutorials have it
SAMPLE_STREAM = 13  # separates the sample of profiles from other random numbers of the same seed
MOST_SUMMED = 256  # molecules of a gene up to which all outcomes of thinning are summed; few values are larger
MIN_OVERLAP = 0.5  # share of the model's genes; below it most of the model's input is missing


@dataclass(frozen=True, eq=False)
class Expression:
    """Profiles in the genes of a model, before normalisation."""

    matrix: sparse.csr_matrix | BackedMatrix
    """(n_profiles, n_genes) counts, or values as they were read."""
    totals: np.ndarray
    """(n_profiles,) molecules, for counts: sums over the gene universe of the model, see `geneae.data.universe`; else
    sums over all genes of the source."""
    missing: np.ndarray | None = None
    """(n_genes,) whether the source lacks a gene, so that its zeros were not measured; None where it lacks none."""
    coverage: Coverage | None = None
    """How far the genes of the source are those of the universe; None where totals are sums over all of its genes."""

    @property
    def n_profiles(self) -> int:
        """Number of profiles."""
        return int(self.matrix.shape[0])

    @property
    def n_values(self) -> int:
        """Number of non-zero values; for profiles in a file, over all of its genes."""
        return int(self.matrix.nnz)

    @property
    def is_streamed(self) -> bool:
        """Whether the profiles stay in their file."""
        return isinstance(self.matrix, BackedMatrix)

    @property
    def rows(self) -> sparse.csr_matrix:
        """The matrix in memory; profiles in a file must first be read with `load` or `chunks`."""
        assert not isinstance(self.matrix, BackedMatrix)
        return self.matrix

    def take(self, rows: np.ndarray | slice) -> "Expression":
        """Selected profiles, by position; those in a file stay there."""
        return replace(self, matrix=self.matrix[rows], totals=self.totals[rows])

    def without(self, missing: np.ndarray | None) -> "Expression":
        """The same profiles as if these genes, too, had not been measured; totals stay."""
        if missing is None or (self.missing is not None and not (missing & ~self.missing).any()):
            return self
        gone = missing if self.missing is None else missing | self.missing
        columns = np.where(gone, -1, np.arange(len(gone)))
        matrix = self.matrix
        chosen = matrix.select(columns) if isinstance(matrix, BackedMatrix) else select_columns(matrix, columns)
        return replace(self, matrix=chosen, missing=gone)

    def load(self) -> "Expression":
        """The same profiles in memory."""
        return replace(self, matrix=self.matrix.read()) if isinstance(self.matrix, BackedMatrix) else self

    def chunks(self, size: int) -> Iterator[tuple[slice, "Expression"]]:
        """Positions and profiles in memory, at most `size` at a time."""
        for rows, matrix in chunks(self.matrix, size):
            yield rows, replace(self, matrix=matrix, totals=self.totals[rows])

    def sample(self, n_values: int, n_profiles: int, seed: int) -> "Expression":
        """Random profiles in memory: at most `n_profiles`, with about `n_values` values; all, if there are no more.

        Profiles that are in memory already are returned unchanged.
        """
        if not self.is_streamed:
            return self
        most = int(n_values / max(1.0, self.n_values / max(1, self.n_profiles)))
        most = max(1, min(self.n_profiles, n_profiles, most))
        rows = np.random.default_rng((seed, SAMPLE_STREAM)).choice(self.n_profiles, most, replace=False)
        return self.take(np.sort(rows)).load()


@dataclass(frozen=True, eq=False)
class Preprocess:
    """Preprocessing of every profile before it enters a network."""

    state: str
    """State of the profiles it was fitted on: `counts` are normalised and log1p'd, other values used as they are."""
    genes: pd.Index
    """Genes of the model, in the order of its columns."""
    scale: np.ndarray
    """(n_genes,) standard deviation by which each gene is divided; all ones if genes are not scaled."""
    target_sum: float = TARGET_SUM
    """Molecules per profile after normalisation."""
    universe: Universe | None = None
    """All genes of the training file, over which totals of counts are taken; None: totals are over all genes."""

    @property
    def space(self) -> str:
        """Space of the result: `log1p_cp10k`, `normalised`, `log` or `scaled`, with a note if genes are scaled."""
        name = "log1p_cp10k" if self.state == "counts" else self.state
        return name if (self.scale == 1).all() else f"{name}, genes divided by their deviation"

    def match(self, profiles: Profiles, min_overlap: float = MIN_OVERLAP) -> tuple[Expression, int]:
        """Profiles in the genes of the model, aligned by name, and the number of its genes that were found.

        Missing genes are set to zero, and totals of counts are those of `Universe.totals_of`. Raises `InputError` if
        the share of the model's genes found is below `min_overlap`, or if only one of model and profiles is of counts.
        """
        if (profiles.state == "counts") != (self.state == "counts"):
            evidence = f" ({profiles.evidence})" if profiles.evidence else ""
            raise InputError(
                f"the model was fitted on {STATES[self.state].noun}, but {profiles.source}, {profiles.location} holds "
                f"{STATES[profiles.state].noun}{evidence}. Name the matrix to read with --layer or --raw, say what its "
                "values are with --state, or fit a model on this kind of values."
            )
        profiles = profiles.under(renamed(profiles.genes, self.genes if self.universe is None else self.universe.genes))
        columns = profiles.genes.get_indexer(self.genes)
        n_matched = int((columns >= 0).sum())
        if n_matched < max(1, min_overlap * len(self.genes)):
            raise InputError(
                f"at least {100 * min_overlap:.0f} % of the model's {len(self.genes):,} genes must be in the data; "
                f"found {n_matched:,} of them among {profiles.n_genes:,} (model: {first_names(self.genes)}; data: "
                f"{first_names(profiles.genes)}).{best_column(self.genes, profiles.var)} Rename the genes to the "
                "model's names, or lower --min-overlap."
            )
        matrix = profiles.matrix
        chosen = matrix.select(columns) if isinstance(matrix, BackedMatrix) else select_columns(matrix, columns)
        missing = columns < 0 if n_matched < len(self.genes) else None
        if self.universe is None or self.state != "counts":
            return Expression(chosen, profiles.totals, missing), n_matched
        totals, coverage = self.universe.totals_of(profiles)
        return Expression(chosen, totals, missing, coverage), n_matched

    def apply(self, expression: Expression, share: float = 1.0) -> sparse.csr_matrix:
        """(n_profiles, n_genes) float32 values in `space`, as sparse as the input, which must be in memory.

        A share below 1 gives the values of counts that are expected with this share of the molecules, see
        `normalize_thinned`.
        """
        matrix = expression.rows
        if self.state == "counts" and share < 1:
            matrix = normalize_thinned(matrix, expression.totals, share, self.target_sum)
        elif self.state == "counts":
            matrix = normalize(matrix, expression.totals, self.target_sum)
        if (self.scale != 1).any():
            matrix = _with_values(matrix, matrix.data / self.scale.astype(np.float32)[matrix.indices])
        return matrix


def first_names(names: pd.Index) -> str:
    """The first three names, for a message."""
    return ", ".join(map(str, names[:3])) + (", ..." if len(names) > 3 else "")


def normalize(counts: sparse.csr_matrix, totals: np.ndarray, target_sum: float = TARGET_SUM) -> sparse.csr_matrix:
    """log1p(target_sum * counts / totals), float32; zeros where the total is 0.

    For a random half of the molecules pass half the totals of the complete profile, so that two halves are comparable.
    """
    factor = np.divide(target_sum, totals, out=np.zeros_like(totals, dtype=np.float64), where=totals > 0)
    by_value = torch.from_numpy(np.repeat(factor.astype(np.float32), np.diff(counts.indptr)))
    values = by_value.mul_(torch.from_numpy(counts.data)).log1p_()  # on all cores, and vectorised unlike NumPy's
    return _with_values(counts, values.numpy())


def normalize_thinned(
    counts: sparse.csr_matrix, totals: np.ndarray, share: float, target_sum: float = 1e4
) -> sparse.csr_matrix:
    """Mean of log1p(target_sum * kept / (share * totals)) over kept ~ Binomial(counts, share), float32.

    The logarithm makes the mean of shallow profiles differ from the values of deep ones, so that a model of the first
    reads the second as it would read their molecules thinned to its depth. Counts up to 256 are summed over, larger
    ones take the variance to second order.
    """
    factor = np.divide(target_sum, share * totals, out=np.zeros(len(totals)), where=totals > 0)
    by_value = np.repeat(factor, np.diff(counts.indptr))
    found = counts.data.astype(np.int64)
    mean = by_value * found * share
    values = np.log1p(mean) - by_value * mean * (1 - share) / (2 * (1 + mean) ** 2)
    few = np.flatnonzero(found <= MOST_SUMMED)
    few = few[np.argsort(-found[few], kind="stable")]  # those with the most molecules first
    several, unit, summed = found[few], by_value[few], np.zeros(len(few))
    molecules = np.arange(MOST_SUMMED + 1)
    for kept in range(1, int(several.max(initial=0)) + 1):
        some = slice(int(np.searchsorted(-several, -kept, side="right")))
        chance = binom(molecules, kept) * share**kept * (1 - share) ** np.maximum(molecules - kept, 0)
        summed[some] += chance[several[some]] * np.log1p(unit[some] * kept)
    values[few] = summed
    return _with_values(counts, values.astype(np.float32))


def _with_values(matrix: sparse.csr_matrix, values: np.ndarray) -> sparse.csr_matrix:
    return sparse.csr_matrix((values, matrix.indices, matrix.indptr), shape=matrix.shape)


def fit_preprocess(
    profiles: Profiles,
    train: np.ndarray,
    n_top_genes: int | None = None,
    scale: bool = False,
) -> Preprocess:
    """Select genes, and their scale, from training profiles only.

    Parameters
    ----------
    profiles
        All profiles.
    train
        Positions of the training profiles.
    n_top_genes
        Number of highly variable genes to keep, by variance in the space that the network sees (after log1p, for
        counts): the variance of a gene is its share of the squared error of the mean profile. None keeps every gene
        detected in at least three training profiles.
    scale
        Divide every gene by its standard deviation over training profiles.
    """
    if n_top_genes is not None and n_top_genes < 1:
        raise InputError(f"at least one gene must be kept; n_top_genes is {n_top_genes}.")
    is_counts, needs_variance = profiles.state == "counts", n_top_genes is not None or scale
    seen, moments = np.zeros(profiles.n_genes, np.int64), ColumnMoments(profiles.n_genes)
    molecules = np.zeros(profiles.n_genes)
    for rows, matrix in chunks(profiles.matrix[train], len(train) if not profiles.is_streamed else CHUNK):
        seen += np.bincount(matrix.indices, minlength=profiles.n_genes)
        molecules += _column_sum(matrix)
        if needs_variance:
            moments.add(normalize(matrix, profiles.totals[train][rows]) if is_counts else matrix)
    kept = np.flatnonzero(seen >= min(MIN_PROFILES, len(train)))
    if not len(kept):
        raise InputError(
            f"no gene is seen in at least {MIN_PROFILES} of {len(train)} training profiles of {profiles.source}, "
            f"{profiles.location}. Check that this is the right matrix."
        )
    shares = molecules / molecules.sum() if is_counts else np.full(profiles.n_genes, 1 / profiles.n_genes)
    universe = Universe(profiles.genes, shares)
    is_choice = n_top_genes is not None and n_top_genes < len(kept)
    if not is_choice and not scale:
        return Preprocess(profiles.state, profiles.genes[kept], np.ones(len(kept)), universe=universe)
    variance = moments.variance()
    if is_choice:
        kept = np.sort(kept[np.argsort(-variance[kept], kind="stable")[:n_top_genes]])
    deviation = np.sqrt(variance[kept])
    divisor = np.where(deviation > 0, deviation, 1.0) if scale else np.ones(len(kept))
    return Preprocess(profiles.state, profiles.genes[kept], divisor, universe=universe)


class ColumnMoments:
    """Means and variances of genes over profiles that are added block by block; in float64."""

    def __init__(self, n_genes: int) -> None:
        self.n_profiles, self._sum, self._squares = 0, np.zeros(n_genes), np.zeros(n_genes)

    def add(self, matrix: sparse.csr_matrix) -> None:
        """Include the next profiles."""
        self.n_profiles += matrix.shape[0]
        self._sum += _column_sum(matrix)
        self._squares += _column_sum(_with_values(matrix, np.square(matrix.data, dtype=np.float64)))

    def mean(self) -> np.ndarray:
        """(n_genes,) means."""
        return self._sum / max(1, self.n_profiles)

    def variance(self) -> np.ndarray:
        """(n_genes,) population variances, at least 0."""
        variance: np.ndarray = np.maximum(self._squares / max(1, self.n_profiles) - self.mean() ** 2, 0)
        return variance


def column_mean(matrix: sparse.csr_matrix) -> np.ndarray:
    """(n_genes,) means, summed in float64."""
    return _column_sum(matrix) / max(1, matrix.shape[0])


def column_variance(matrix: sparse.csr_matrix) -> np.ndarray:
    """(n_genes,) population variances, in float64, at least 0."""
    moments = ColumnMoments(matrix.shape[1])
    moments.add(matrix)
    return moments.variance()


def _column_sum(matrix: sparse.csr_matrix) -> np.ndarray:
    return np.asarray(matrix.sum(axis=0, dtype=np.float64)).ravel()


def recover_counts(profiles: Profiles) -> tuple[Expression | None, str]:
    """Counts behind values that are none, if these prove them, and the reason if not.

    Every value of every profile must be a whole multiple of the unit of its profile, see `geneae.data.units`. Totals
    are such that normalisation gives every value before its logarithm again; they count genes that were removed if the
    values were normalised to 10,000, and are proportional to such numbers otherwise.

    Returns
    -------
    The counts, or None; and a sentence with the result or the reason.
    """
    finding = profiles.scan.finding
    if finding is None or finding.unit is None or not finding.unit.is_proven:
        return None, f"{STATES[profiles.state].noun} that are not a whole number of molecules in any unit"
    if profiles.is_streamed:
        profiles = profiles.take(np.arange(profiles.n_profiles))
    matrix = profiles.matrix
    assert not isinstance(matrix, BackedMatrix)
    found, units, n_odd = counts_of(matrix, finding.unit)
    if found is None:
        are = "is" if n_odd == 1 else "are"
        return None, f"{n_odd:,} of {matrix.nnz:,} values {are} not a whole number of molecules ({finding.said})"
    totals = np.nan_to_num(TARGET_SUM / units)
    return Expression(found, totals), f"counts recovered exactly: every value is {finding.said}"
