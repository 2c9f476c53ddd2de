"""Which profiles are the same: keys of their values, and the profiles of a fit among others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from geneae.data.backed import BackedMatrix, chunks, row_digests, select_columns
from geneae.data.gene_names import match_genes
from geneae.data.profiles import CHUNK_ROWS, Profiles
from geneae.settings.text import counted

LEAST_VALUES = 10  # non-zero values; profiles of fewer may be equal by chance
NEW, ALL = "new", "all"
"""Split of profiles that took no part in a fit: among some that did, and where none did."""


def profile_keys(profiles: Profiles, genes: pd.Index) -> np.ndarray:
    """(n_profiles,) uint64 keys of the values of profiles in some genes: equal for equal values.

    The upper half is the digest of `geneae.data.backed.row_digests`, the lower half the number of non-zero values.
    Genes that the profiles lack are zeros, and other genes do not matter. Keys of all genes of streamed profiles cost
    nothing; those of others a pass over the matrix.
    """
    is_all = profiles.genes.equals(genes)
    digests = profiles.matrix.digests if is_all and isinstance(profiles.matrix, BackedMatrix) else None
    if digests is not None:
        return _joined(digests, profiles.scan.lengths)
    columns = match_genes(genes, profiles.genes).columns
    keys = np.zeros(profiles.n_profiles, np.uint64)
    for rows, block in chunks(profiles.matrix, CHUNK_ROWS):
        chosen = block if is_all else select_columns(block, columns)
        keys[rows] = _joined(row_digests(chosen), np.diff(chosen.indptr))
    return keys


def _joined(digests: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    found: np.ndarray = (digests.astype(np.uint64) << np.uint64(32)) | lengths.astype(np.uint64)
    return found


def _n_values(keys: np.ndarray) -> np.ndarray:
    """(n_profiles,) numbers of non-zero values."""
    found: np.ndarray = keys & np.uint64(2**32 - 1)
    return found


def n_copies(keys: np.ndarray, is_training: np.ndarray, is_judged: np.ndarray) -> int:
    """Number of judged profiles that have exactly the values of a training profile, and enough of them for that to be
    no chance."""
    copies = np.isin(keys[is_judged], keys[is_training]) & (_n_values(keys[is_judged]) >= LEAST_VALUES)
    return int(copies.sum())


@dataclass(frozen=True, eq=False)
class FitProfiles:
    """Profiles of a fit, as its folder records them."""

    names: pd.Index
    """Names, unique."""
    split: np.ndarray
    """(n_profiles,) split of each."""
    keys: np.ndarray | None
    """(n_profiles,) keys from `profile_keys` in the genes of the training file; None in folders of older versions."""


@dataclass(frozen=True, eq=False)
class Recognised:
    """Profiles of a fit among others."""

    split: pd.Series
    """Split of each profile in the fit; `new` for others, or `all` where none is of the fit."""
    n_other: int = 0
    """Profiles that have the name of one of the fit and other values: they are new."""
    n_renamed: int = 0
    """Profiles with the values of one of the fit under another name."""
    n_by_name: int = 0
    """Profiles that are known by their names alone, because their values cannot be compared."""

    def sentences(self, order: Sequence[str]) -> list[str]:
        """How many profiles are of the fit, by splits in this order, and how that is known."""
        sizes = self.split.value_counts()
        known = [name for name in order if name in sizes.index]
        if not known:
            said = ["None of these profiles is known to be of the fit."]
        else:
            parts = [f"{sizes[name]:,} {name}" for name in known]
            listed = " and ".join([*filter(None, [", ".join(parts[:-1])]), parts[-1]])
            new = counted(sizes.get(NEW, 0), "profile is new", "profiles are new")
            said = [f"Of the fit are {listed} profiles; {new}."]
        if self.n_other:
            said.append(
                counted(
                    self.n_other,
                    "profile has the name of one of the fit and other values: it counts as new.",
                    "profiles have names of the fit and other values: they count as new.",
                )
            )
        if self.n_renamed:
            said.append(
                counted(
                    self.n_renamed,
                    "profile has the values of one of the fit under another name: it counts as that one.",
                    "profiles have values of the fit under other names: they count as those.",
                )
            )
        if self.n_by_name:
            said.append(
                counted(
                    self.n_by_name,
                    "profile is taken for one of the fit by its name alone.",
                    "profiles are taken for those of the fit by their names alone.",
                )
            )
        return said


def recognise(known: FitProfiles, names: pd.Index, keys: np.ndarray | None, is_complete: bool) -> Recognised:
    """Find the profiles of a fit among others.

    Parameters
    ----------
    known
        Profiles of the fit.
    names
        Names of the others, unique.
    keys
        (n_profiles,) their keys in the genes of the training file; None: they are compared by name.
    is_complete
        Whether they have all of these genes; otherwise equal profiles may have different keys, and names decide.
    """
    place = known.names.get_indexer(names)
    by_name = place >= 0
    is_other = is_renamed = np.zeros(len(names), bool)
    n_by_name = int(by_name.sum())
    if keys is not None and known.keys is not None:
        is_same = by_name & (known.keys[place] == keys)
        order = np.argsort(known.split != "train", kind="stable")  # of copies in several splits, that in training
        firsts, at = np.unique(known.keys[order], return_index=True)
        found = pd.Index(firsts).get_indexer(pd.Index(keys))
        is_renamed = ~is_same & (found >= 0) & (_n_values(keys) >= LEAST_VALUES)
        place = np.where(is_renamed, order[at][found], place)
        is_other = by_name & ~is_same & ~is_renamed if is_complete else is_other
        n_by_name = int((by_name & ~is_same & ~is_renamed & ~is_other).sum())
    is_known = (by_name & ~is_other) | is_renamed
    split = np.where(is_known, known.split[place], NEW if is_known.any() else ALL)
    series = pd.Series(split, index=names, name="split", dtype=object)
    return Recognised(series, int(is_other.sum()), int(is_renamed.sum()), n_by_name)
