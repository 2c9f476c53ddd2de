"""Gene universe: the genes whose molecules make up the totals of training profiles, and totals of other data."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from geneae.data.backed import BackedMatrix, chunks
from geneae.data.profiles import CHUNK_ROWS, Profiles
from geneae.settings.text import counted


@dataclass(frozen=True)
class Coverage:
    """How far the genes of some data are those of the universe of a model."""

    n_genes: int
    """Genes of the universe."""
    n_found: int
    """Genes of the universe that the data have."""
    share_found: float
    """Share of the molecules of training profiles that these held, 0 to 1."""
    n_outside: int
    """Genes of the data that are not in the universe."""
    share_outside: float
    """Share of the molecules of the data that these hold, 0 to 1."""

    def sentences(self) -> list[str]:
        """What totals are taken over, where it is not simply every gene of the data."""
        said = []
        if self.share_found < 1:
            said.append(
                f"The data have {self.n_found:,} of the {self.n_genes:,} genes of the training file, which held "
                f"{_percent(self.share_found)} of its molecules: the molecules of a profile in these genes, divided by "
                "that share, are taken as its total."
            )
        if self.share_outside > 0:
            others, are = counted(self.n_outside, "other gene"), "is" if self.n_outside == 1 else "are"
            said.append(
                f"Totals count the {self.n_genes:,} genes of the training file only: {others}, with "
                f"{_percent(self.share_outside)} of the molecules of the data, {are} left out."
            )
        return said


@dataclass(frozen=True, eq=False)
class Universe:
    """All genes of the matrix that a model was fitted on, selected or not."""

    genes: pd.Index
    """Names, unique, in the order of that matrix."""
    shares: np.ndarray
    """(n_genes,) share of all molecules of the training profiles, each at least 0; they sum to 1. Equal for values that
    are not counts, whose totals mean nothing."""

    def totals_of(self, profiles: Profiles) -> tuple[np.ndarray, Coverage]:
        """(n_profiles,) float64 totals of counts as training profiles had them, and what they are taken over.

        They are sums over the genes of the universe that the profiles have, divided by the share of the molecules of
        training profiles in these genes, so that counts per total mean the same as in training. Sums of data that have
        further genes take a pass over the matrix.
        """
        is_found = self.genes.isin(profiles.genes)
        is_inside = profiles.genes.isin(self.genes)
        share = min(1.0, float(self.shares[is_found].sum() / self.shares.sum())) if not is_found.all() else 1.0
        totals = profiles.totals if is_inside.all() else _sums_over(profiles, is_inside)
        of_all = float(profiles.totals.sum())
        coverage = Coverage(
            len(self.genes),
            int(is_found.sum()),
            share,
            int((~is_inside).sum()),
            max(0.0, 1 - float(totals.sum()) / of_all) if of_all > 0 else 0.0,
        )
        return (totals / share if 0 < share < 1 else totals), coverage


def _sums_over(profiles: Profiles, is_chosen: np.ndarray) -> np.ndarray:
    """(n_profiles,) float64 sums over some genes."""
    chosen = is_chosen.astype(np.float64)
    if not isinstance(profiles.matrix, BackedMatrix):
        return np.asarray(profiles.matrix @ chosen)
    sums = np.zeros(profiles.n_profiles)
    for rows, block in chunks(profiles.matrix, CHUNK_ROWS):
        sums[rows] = block @ chosen
    return sums


def _percent(share: float) -> str:
    """A share between 0 and 1 in per cent; neither 0 nor 100 where it is only near these."""
    if share > 0.9995:
        return "over 99.9 %"
    return f"{100 * share:.1f} %" if share >= 0.0005 else "under 0.1 %"
