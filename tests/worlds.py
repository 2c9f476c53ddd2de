"""A world whose rates are known, with the halves of its profiles: the right answer of every judge."""

from dataclasses import dataclass

import anndata
import numpy as np
import pandas as pd
from scipy import sparse, stats

from geneae import read_profiles
from geneae.data.halves import Halves, draw
from geneae.settings.halves import HalvesSettings


@dataclass(frozen=True, eq=False)
class World:
    """Halves of Poisson counts, and what they were drawn from."""

    halves: Halves
    """Halves of the molecules."""
    shares: np.ndarray
    """(n_profiles, n_genes) share of each gene in the molecules of a profile."""
    expected: np.ndarray
    """(n_profiles, n_genes) expected log1p_cp10k of a half with the molecules of the given one."""

    def frame(self, values: np.ndarray) -> pd.DataFrame:
        """Values with the names of profiles and genes."""
        return pd.DataFrame(values, self.halves.given.names, self.halves.given.genes)

    @property
    def given(self) -> np.ndarray:
        """(n_profiles, n_genes) the given half in log1p_cp10k."""
        return log1p_cp10k(self.halves.given.matrix.toarray())

    @property
    def held_out(self) -> np.ndarray:
        """(n_profiles, n_genes) the held-out half in log1p_cp10k."""
        return log1p_cp10k(self.halves.held_out.matrix.toarray())


def log1p_cp10k(counts: np.ndarray) -> np.ndarray:
    """log1p of molecules per 10,000."""
    counts = counts.astype(float)
    return np.log1p(1e4 * counts / counts.sum(1, keepdims=True))


def expected_log1p(expected: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """E log1p(10,000 x / total) of Poisson counts, as a sum over counts."""
    found = np.zeros_like(expected)
    for count in range(1, int(expected.max() + 12 * np.sqrt(expected.max()) + 12)):
        found += stats.poisson.pmf(count, expected) * np.log1p(1e4 * count / totals)[:, None]
    return found


def make_world(n_profiles: int = 260, n_genes: int = 120, depth: float = 1500.0, fraction: float = 0.5) -> World:
    """Poisson counts of mixtures of four programmes, at depths that differ."""
    rng = np.random.default_rng(5)
    programmes = rng.gamma(0.5, 1.0, size=(4, n_genes)) + 0.05
    programmes /= programmes.sum(1, keepdims=True)
    shares = rng.dirichlet(np.full(4, 0.5), size=n_profiles) @ programmes
    totals = depth * rng.lognormal(0.0, 0.3, n_profiles)
    counts = rng.poisson(shares * totals[:, None]).astype(np.float32)
    obs = pd.DataFrame({"kind": [f"k{i % 2}" for i in range(n_profiles)]}, [f"cell{i}" for i in range(n_profiles)])
    adata = anndata.AnnData(sparse.csr_matrix(counts), obs, pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)]))
    halves = draw(read_profiles(adata), HalvesSettings(fraction=fraction, validation=0.2, test=0.3))
    own = halves.given.totals
    return World(halves, shares, expected_log1p(shares * own[:, None], own))
