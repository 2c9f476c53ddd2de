"""The record of profiles that were read: matrix, names, annotation, and what was found about the values."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from geneae.data.backed import BackedMatrix, chunks
from geneae.data.matrix_check import Fingerprint, Scan
from geneae.data.matrix_choice import MatrixChoice
from geneae.data.notes import Facts, notes_of
from geneae.data.states import STATES
from geneae.data.units import Unit
from geneae.settings.errors import InputError, listed, unknown
from geneae.settings.text import counted

CHUNK_ROWS = 1024  # rows of a sparse matrix in a file that are read at a time


@dataclass(frozen=True)
class Origin:
    """Where profiles were read, so that they can be read again."""

    paths: tuple[Path, ...]
    """Paths of the files or folders."""
    choice: MatrixChoice
    """The matrix that was read of each."""
    stamps: tuple[tuple[int, ...], ...]
    """Identity, size and time of each file as it was, from `stamp_of`."""

    @property
    def has_same_stamps(self) -> bool:
        """Whether every file still has the size and time of before."""
        return tuple(map(stamp_of, self.paths)) == self.stamps

    def __str__(self) -> str:
        """The paths, for a message."""
        return listed(self.paths)


def stamp_of(path: Path) -> tuple[int, ...]:
    """Device, number, size and time of a file; of a folder a digest of these of all its files. Empty without either."""
    try:
        if not path.is_dir():
            found = path.stat()
            return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
        files = sorted(path.rglob("*"))
        stats = [file.stat() for file in files if file.is_file()]
        return len(files), len(stats), hash(tuple((one.st_ino, one.st_size, one.st_mtime_ns) for one in stats))
    except OSError:
        return ()


@dataclass(frozen=True, eq=False)
class Profiles:
    """Expression profiles with names and annotation; the matrix is sparse in memory, or stays in its file."""

    matrix: sparse.csr_matrix | BackedMatrix
    """(n_profiles, n_genes) float32 CSR, sorted, without duplicates or stored zeros. Do not change it in place."""
    names: pd.Index
    """Profile names, unique."""
    genes: pd.Index
    """Gene names, unique."""
    obs: pd.DataFrame
    """Annotation of the profiles, indexed by name."""
    scan: Scan
    """Result of the pass over all values."""
    source: str
    """Path or paths, or `AnnData in memory`, `array in memory` or `table in memory`."""
    location: str
    """`X`, `layers['NAME']` or `raw`."""
    origin: Origin | None = None
    """Files that they were read from; None for profiles from memory, and for a selection."""
    var: pd.DataFrame | None = None
    """Annotation of the genes, indexed by name; None if there is none."""
    said: tuple[str, ...] = ()
    """Sentences on what was understood of the input and could be meant otherwise."""
    facts: Facts | None = None
    """What notes are made from; None for profiles that were not read, and for a selection."""

    @property
    def n_profiles(self) -> int:
        """Number of profiles."""
        return int(self.matrix.shape[0])

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return int(self.matrix.shape[1])

    @property
    def state(self) -> str:
        """Name in `geneae.data.states.STATES`, determined from every value or given."""
        return self.scan.state

    @property
    def evidence(self) -> str:
        """Evidence for the state, in words; empty for exact counts."""
        return "" if self.scan.finding is None else self.scan.finding.said

    @property
    def unit(self) -> Unit | None:
        """How the values come from counts, where they tell it; None for counts that were read as such."""
        return None if self.scan.finding is None else self.scan.finding.unit

    @cached_property
    def notes(self) -> dict[str, str]:
        """What somebody should know about these profiles, in sentences by name of `geneae.data.notes.NOTES`."""
        return {} if self.facts is None else notes_of(self.facts)

    @property
    def totals(self) -> np.ndarray:
        """(n_profiles,) sums over all genes: numbers of molecules, if the values are counts."""
        return self.scan.totals

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of shape, names and matrix: equal for equal profiles, however they are stored or read."""
        if self.scan.fingerprint is not None:
            return self.scan.fingerprint
        digest = Fingerprint(self.names, self.genes)
        for _, block in chunks(self.matrix, CHUNK_ROWS):
            digest.add(block)
        return digest.finish()

    @property
    def is_streamed(self) -> bool:
        """Whether the matrix stays in its file."""
        return isinstance(self.matrix, BackedMatrix)

    @property
    def density(self) -> float:
        """Share of non-zero values, 0 to 1."""
        return float(self.scan.lengths.sum(dtype=np.int64) / max(1, self.n_profiles * self.n_genes))

    @property
    def megabytes(self) -> float:
        """Memory of the matrix as float32 CSR, in 10^6 bytes."""
        return megabytes(int(self.scan.lengths.sum(dtype=np.int64)), self.n_profiles)

    def describe(self) -> str:
        """One line about source, kind of values, what will be done with them, size and depth."""
        parts = [
            f"{counted(self.n_profiles, 'profile')} x {counted(self.n_genes, 'gene')}",
            f"{100 * (1 - self.density):.1f} % zero",
            f"{self.megabytes:,.1f} MB" + " left in its file and read as needed" * self.is_streamed,
        ]
        if self.state == "counts":
            parts.append(f"median {counted(round(float(np.median(self.totals))), 'molecule')} per profile")
        said = f" ({self.evidence})" if self.evidence else ""
        return f"{self.source}, {self.location}: {STATES[self.state].use}{said}; {', '.join(parts)}"

    def take(self, rows: Any) -> "Profiles":
        """Selected profiles in memory, by positions (in that order) or mask; the state of all profiles is kept."""
        rows = np.asarray(rows)
        if rows.dtype == bool and len(rows) != self.n_profiles:
            raise InputError(f"a mask must have one value for each of {self.n_profiles} profiles; found {len(rows)}.")
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        matrix = self.matrix[rows]
        matrix = matrix.read() if isinstance(matrix, BackedMatrix) else matrix
        scan = replace(self.scan, lengths=self.scan.lengths[rows], totals=self.totals[rows], fingerprint=None)
        names, obs = self.names[rows], self.obs.iloc[rows]
        return Profiles(matrix, names, self.genes, obs, scan, self.source, self.location, var=self.var)

    def under(self, genes: pd.Index) -> "Profiles":
        """The same profiles with other names for their genes."""
        if genes is self.genes:
            return self
        var = None if self.var is None else self.var.set_axis(genes, axis=0)
        return replace(self, genes=genes, var=var)


def megabytes(n_values: int, n_profiles: int) -> float:
    """Memory of a float32 CSR matrix, in 10^6 bytes."""
    index = 4 if n_values < 2**31 else 8
    return ((4 + index) * n_values + index * (n_profiles + 1)) / 1e6


def complete_column(obs: pd.DataFrame, key: str) -> pd.Series:
    """A column of obs; a missing column or value is refused."""
    if key not in obs.columns:
        raise unknown("obs column", key, obs.columns)
    missing = obs[key].isna().to_numpy()
    if missing.any():
        raise InputError(
            f"obs column '{key}' must have a value for every profile; {missing.sum()} of {len(obs)} have none, first "
            f"'{obs.index[missing][0]}'. Fill them in or remove these profiles."
        )
    return obs[key]


def check_unique(names: pd.Index, what: str, remedy: str) -> None:
    repeated = names[names.duplicated()]
    if len(repeated):
        raise InputError(
            f"{what} names must be unique; {len(repeated)} of {len(names)} repeat an earlier one, first "
            f"{', '.join(repr(name) for name in repeated.unique()[:3])}. Make them unique with {remedy}."
        )
