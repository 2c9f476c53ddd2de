"""Profiles in two halves: one that other programs see, and one that is held out to judge them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from geneae.data.backed import BackedMatrix, canonical, chunks, select_columns
from geneae.data.count_split import Splitter
from geneae.data.preprocess import Expression
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.data.splits import split_profiles
from geneae.settings.errors import InputError
from geneae.settings.halves import HalvesSettings

if TYPE_CHECKING:
    import anndata

CHUNK = 1024  # profiles divided at a time; a part of the seed, so that it is the same in memory and from a file
HALVES_STREAM = 41  # separates these random numbers from others of the same seed
SPLIT_COLUMN = "geneae_split"
"""Column of `obs` with the split of each profile."""
PROFILE_COLUMN, HALF_COLUMN = "geneae_profile", "geneae_half"
"""Columns of `obs` where both halves are profiles: the name of the profile, and `given` or `held_out`."""


@dataclass(frozen=True, eq=False)
class Halves:
    """Profiles whose molecules were divided at random: what other programs see, and what is held out."""

    given: Profiles
    """The molecules that other programs see."""
    held_out: Profiles
    """The other molecules of the same profiles, in the same order, of the same genes."""
    split: pd.Series
    """Split of each profile: `train`, `validation`, `test` or `excluded`."""
    settings: HalvesSettings
    """How the molecules were divided, and which profiles are set aside."""
    repeat: int
    """Number of the division, from 1; all divisions of the same settings have the same split."""
    source: str
    """Where the profiles were read."""
    location: str
    """Matrix that was read."""
    fingerprint: str
    """Fingerprint of the undivided profiles."""

    @property
    def input(self) -> "anndata.AnnData":
        """What other programs see: counts of the given half in `X`, the split in `obs`, the seed in `uns`."""
        import anndata

        obs = self.given.obs.assign(**{SPLIT_COLUMN: self.split.to_numpy()})
        return anndata.AnnData(
            self.given.matrix, obs, pd.DataFrame(index=self.given.genes), {"geneae": self.facts("given")}
        )

    @property
    def training(self) -> "anndata.AnnData":
        """Both halves of the training profiles, as separate profiles, for programs that learn from them."""
        import anndata

        rows = np.flatnonzero(self.split == "train")
        obs = pd.concat([obs_of_half(self.given.obs.iloc[rows], half) for half in ("given", "held_out")])
        matrix = sparse.vstack([_loaded(half, rows) for half in (self.given, self.held_out)], format="csr")
        return anndata.AnnData(matrix, obs, pd.DataFrame(index=self.given.genes), {"geneae": self.facts("both")})

    def facts(self, half: str) -> dict[str, str | int | float]:
        """What is told to other programs about a half: entries of `uns["geneae"]`."""
        return facts_of(half, self.settings, self.repeat, self.fingerprint)

    def whole(self) -> Profiles:
        """The undivided profiles, in memory."""
        import anndata

        every = np.arange(self.given.n_profiles)
        both = canonical(sparse.csr_matrix(_loaded(self.given, every) + _loaded(self.held_out, every)))
        adata = anndata.AnnData(both, self.given.obs, pd.DataFrame(index=self.given.genes))
        return replace(read_profiles(adata), source=self.source, location=self.location)


def facts_of(half: str, settings: HalvesSettings, repeat: int, fingerprint: str) -> dict[str, str | int | float]:
    """Entries of `uns["geneae"]` of a file of halves: `given`, `held_out` or `both`."""
    return {
        "half": half,
        "fraction": settings.fraction,
        "seed": settings.seed,
        "repeat": repeat,
        "fingerprint": fingerprint,
    }


def obs_of_half(obs: pd.DataFrame, half: str) -> pd.DataFrame:
    """Annotation of one half of profiles as profiles of their own, named `NAME/given` or `NAME/held_out`."""
    of = obs.copy()
    of[PROFILE_COLUMN], of[HALF_COLUMN], of[SPLIT_COLUMN] = obs.index.to_numpy(), half, "train"
    return of.set_axis([f"{name}/{half}" for name in obs.index], axis=0)


def divided(
    profiles: Profiles, settings: HalvesSettings, repeat: int = 1
) -> Iterator[tuple[slice, sparse.csr_matrix, sparse.csr_matrix]]:
    """Positions, the given half and the held-out half of 1,024 profiles at a time.

    Every molecule is given with probability `fraction`, independently of all others. The halves depend on seed and
    repeat, not on whether the profiles are in memory.
    """
    check_counts(profiles)
    for rows, matrix in chunks(profiles.matrix, CHUNK):
        rng = np.random.default_rng((settings.seed, HALVES_STREAM, repeat, rows.start))
        yield rows, *_divide(matrix, settings.fraction, rng)


def _divide(
    counts: sparse.csr_matrix, fraction: float, rng: np.random.Generator
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    if fraction == 0.5:  # many times faster than binomial draws
        return Splitter(counts).draw(rng)
    first = rng.binomial(counts.data.astype(np.int64), fraction).astype(counts.dtype)
    both = (
        sparse.csr_matrix((part, counts.indices, counts.indptr), counts.shape) for part in (first, counts.data - first)
    )
    one, other = map(canonical, both)
    return one, other


def check_counts(profiles: Profiles) -> None:
    """Refuse profiles that have no molecules to divide."""
    if profiles.state != "counts":
        raise InputError(
            f"molecules are divided, which needs counts; {profiles.source}, {profiles.location} holds "
            f"{profiles.state.replace('_', '-')} values. Name the counts with --layer or --raw."
        )


def split_of(profiles: Profiles, settings: HalvesSettings) -> pd.Series:
    """Split of each profile, that of a fit with the same settings; `excluded` without any molecule."""
    return split_profiles(
        profiles.obs,
        settings.validation,
        settings.test,
        settings.group,
        settings.stratify,
        settings.seed,
        profiles.scan.lengths == 0,
    )


def draw(profiles: Profiles, settings: HalvesSettings, repeat: int = 1) -> Halves:
    """Halves of profiles, in memory; `InputError` without counts."""
    import anndata

    split = split_of(profiles, settings)
    parts = list(divided(profiles, settings, repeat))
    obs, var = profiles.obs, pd.DataFrame(index=profiles.genes)
    blocks = [one for _, one, _ in parts], [other for _, _, other in parts]
    given, held_out = (read_profiles(anndata.AnnData(sparse.vstack(some, format="csr"), obs, var)) for some in blocks)
    return Halves(given, held_out, split, settings, repeat, profiles.source, profiles.location, profiles.fingerprint)


def as_expression(profiles: Profiles, genes: pd.Index, rows: np.ndarray) -> Expression:
    """Some profiles in memory, in these genes, with all of their molecules as totals."""
    return Expression(select_columns(_loaded(profiles, rows), profiles.genes.get_indexer(genes)), profiles.totals[rows])


def _loaded(profiles: Profiles, rows: np.ndarray) -> sparse.csr_matrix:
    """Some profiles in memory."""
    matrix = profiles.matrix[rows]
    return matrix.read() if isinstance(matrix, BackedMatrix) else matrix
