"""Normalisation, logarithm, gene choice and scaling: a frozen record, fitted once and applied again on new data."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from geneae.errors import InputError
from geneae.profiles import Profiles

MIN_PROFILES = 3  # a gene seen in fewer training profiles says nothing about the others
WHOLE = 0.05  # molecules that a recovered count may be away from a whole number; chance would give up to 0.5
MIN_OVERLAP = 0.5  # of the model's genes; below it most of what the model reads is missing


@dataclass(frozen=True, eq=False)
class Expression:
    """Profiles in the genes of a model, before normalisation."""

    matrix: sparse.csr_matrix
    """(n_profiles, n_genes): counts, or values as they were read."""
    totals: np.ndarray
    """(n_profiles,) molecules over all genes of the source, chosen or not."""

    @property
    def n_profiles(self) -> int:
        """Rows."""
        return int(self.matrix.shape[0])

    def take(self, rows: np.ndarray) -> "Expression":
        """Some of the profiles, by position."""
        return Expression(self.matrix[rows], self.totals[rows])


@dataclass(frozen=True, eq=False)
class Preprocess:
    """What is done to every profile before a network sees it."""

    state: str
    """Of the profiles it was fitted on: `counts` are normalised and log1p'd, all others used as they are."""
    genes: pd.Index
    """Genes of the model, in its order."""
    scale: np.ndarray
    """(n_genes,) deviation that each gene is divided by; ones where genes are not scaled."""
    target_sum: float = 1e4
    """Molecules per profile after normalisation."""

    @property
    def space(self) -> str:
        """Name of the space of the result: `log1p_cp10k`, `log_normalised` or `scaled`."""
        name = "log1p_cp10k" if self.state == "counts" else self.state
        return name if (self.scale == 1).all() else f"{name}, genes divided by their deviation"

    def match(self, profiles: Profiles, min_overlap: float = MIN_OVERLAP) -> tuple[Expression, int]:
        """The profiles in the genes of the model, aligned by name, and how many genes were found.

        Genes that are missing count as zero; below `min_overlap` (a share of the model's genes) they are refused.
        """
        if (profiles.state == "counts") != (self.state == "counts"):
            raise InputError(
                f"the model was fitted on {self.state.replace('_', '-')} values, but {profiles.source}, "
                f"{profiles.location} holds {profiles.state.replace('_', '-')} values. "
                "Name the matrix to read with --layer or --raw, or fit a model on this kind of values."
            )
        columns = profiles.genes.get_indexer(self.genes)
        n_matched = int((columns >= 0).sum())
        if n_matched < max(1, min_overlap * len(self.genes)):
            raise InputError(
                f"at least {100 * min_overlap:.0f} % of the model's {len(self.genes):,} genes must be in the data; "
                f"found {n_matched:,} of them among {profiles.n_genes:,} (model: {_first(self.genes)}; data: "
                f"{_first(profiles.genes)}). Rename the genes to the model's names, or lower --min-overlap."
            )
        return Expression(select_columns(profiles.matrix, columns), profiles.totals), n_matched

    def apply(self, expression: Expression) -> sparse.csr_matrix:
        """(n_profiles, n_genes) float32 in `space`; as sparse as what was given."""
        matrix = expression.matrix
        if self.state == "counts":
            matrix = normalize(matrix, expression.totals, self.target_sum)
        if (self.scale != 1).any():
            matrix = _with_values(matrix, matrix.data / self.scale.astype(np.float32)[matrix.indices])
        return matrix


def _first(names: pd.Index) -> str:
    return ", ".join(map(str, names[:3])) + (", ..." if len(names) > 3 else "")


def normalize(counts: sparse.csr_matrix, totals: np.ndarray, target_sum: float = 1e4) -> sparse.csr_matrix:
    """log1p(target_sum * counts / totals), float32.

    A random half of the molecules takes half the totals of the whole profile, so that two halves are comparable.
    """
    factor = np.divide(target_sum, totals, out=np.zeros_like(totals, dtype=np.float64), where=totals > 0)
    by_value = torch.from_numpy(np.repeat(factor.astype(np.float32), np.diff(counts.indptr)))
    values = by_value.mul_(torch.from_numpy(counts.data)).log1p_()  # on all cores, and vectorised unlike NumPy's
    return _with_values(counts, values.numpy())


def _with_values(matrix: sparse.csr_matrix, values: np.ndarray) -> sparse.csr_matrix:
    return sparse.csr_matrix((values, matrix.indices, matrix.indptr), shape=matrix.shape)


def select_columns(matrix: sparse.csr_matrix, columns: np.ndarray) -> sparse.csr_matrix:
    """Column j of the result is column `columns[j]` of `matrix`; -1 makes it zero."""
    found = np.flatnonzero(columns >= 0)
    chosen = matrix[:, columns[found]]
    to = found.astype(chosen.indices.dtype)[chosen.indices]
    chosen = sparse.csr_matrix((chosen.data, to, chosen.indptr), shape=(matrix.shape[0], len(columns)))
    chosen.sort_indices()
    return chosen


def fit_preprocess(
    profiles: Profiles,
    train: np.ndarray,
    n_top_genes: int | None = None,
    scale: bool = False,
) -> Preprocess:
    """Choose genes, and their scale, on training profiles alone.

    Parameters
    ----------
    profiles
        All profiles.
    train
        Positions of the training profiles.
    n_top_genes
        Keep so many genes of largest variance in the space the network sees (after log1p, for counts): the variance
        of a gene is its share of the squared error of the mean profile. None keeps every gene that is seen in at
        least three training profiles.
    scale
        Divide every gene by its deviation.
    """
    if n_top_genes is not None and n_top_genes < 1:
        raise InputError(f"at least one gene must be kept; n_top_genes is {n_top_genes}.")
    matrix = profiles.matrix[train]
    seen = np.bincount(matrix.indices, minlength=profiles.n_genes)
    kept = np.flatnonzero(seen >= min(MIN_PROFILES, len(train)))
    if not len(kept):
        raise InputError(
            f"no gene is seen in at least {MIN_PROFILES} of {len(train)} training profiles of {profiles.source}, "
            f"{profiles.location}. Check that this is the right matrix."
        )
    is_choice = n_top_genes is not None and n_top_genes < len(kept)
    if not is_choice and not scale:
        return Preprocess(profiles.state, profiles.genes[kept], np.ones(len(kept)))
    if profiles.state == "counts":
        matrix = normalize(matrix, profiles.totals[train])
    variance = column_variance(matrix)
    if is_choice:
        kept = np.sort(kept[np.argsort(-variance[kept], kind="stable")[:n_top_genes]])
    deviation = np.sqrt(variance[kept])
    divisor = np.where(deviation > 0, deviation, 1.0) if scale else np.ones(len(kept))
    return Preprocess(profiles.state, profiles.genes[kept], divisor)


def column_mean(matrix: sparse.csr_matrix) -> np.ndarray:
    """(n_genes,) means, summed in float64."""
    return _column_sum(matrix) / max(1, matrix.shape[0])


def column_variance(matrix: sparse.csr_matrix) -> np.ndarray:
    """(n_genes,) population variances, in float64, at least 0."""
    squares = _column_sum(_with_values(matrix, np.square(matrix.data, dtype=np.float64)))
    variance: np.ndarray = np.maximum(squares / max(1, matrix.shape[0]) - column_mean(matrix) ** 2, 0)
    return variance


def _column_sum(matrix: sparse.csr_matrix) -> np.ndarray:
    return np.asarray(matrix.sum(axis=0, dtype=np.float64)).ravel()


def recover_counts(profiles: Profiles) -> tuple[Expression | None, str]:
    """Counts behind log1p(10,000 counts / total) values, where they are exactly recoverable, and what was found.

    The smallest value of a profile is taken for one molecule; then every value of every profile must be a whole number
    of molecules, up to rounding. Totals follow from the unit, so that genes left out are still counted.

    Returns
    -------
    The counts, or None; and a sentence that says why.
    """
    if profiles.state != "log_normalised":
        return None, f"values are {profiles.state.replace('_', '-')}, not log-normalised counts"
    matrix = profiles.matrix
    if np.diff(matrix.indptr).min() == 0:
        return None, "some profiles have no value"
    values = np.expm1(matrix.data.astype(np.float64))
    unit = np.minimum.reduceat(values, matrix.indptr[:-1])
    lengths = np.diff(matrix.indptr)
    for _ in range(2):  # the first guess of the unit has the rounding of a single value, the second that of all
        whole = np.rint(values / np.repeat(unit, lengths))
        unit = np.add.reduceat(values * whole, matrix.indptr[:-1]) / np.add.reduceat(whole**2, matrix.indptr[:-1])
    n_odd = int((np.abs(values / np.repeat(unit, lengths) - whole) > WHOLE).sum())
    if n_odd:
        return None, f"{n_odd:,} of {len(values):,} values are no whole number of molecules after expm1"
    found = _with_values(matrix, whole.astype(np.float32))
    return Expression(
        found, 1e4 / unit
    ), "counts recovered exactly: every value is log1p of a whole number of molecules"
