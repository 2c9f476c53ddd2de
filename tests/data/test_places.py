from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from scipy import sparse

from geneae.data.places import FEWEST_LOOKED_AT, LOOKED_AT, MOST_VALUES, differing, stride_of
from geneae.data.reading import read_profiles

N, G = 400, 120


def counts(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    depth = rng.lognormal(0, 0.5, (N, 1))
    return rng.poisson(depth * rng.gamma(0.5, 4.0, G)).astype(float)


def normalised(x: np.ndarray, target: float = 1e4) -> np.ndarray:
    return target * x / np.maximum(x.sum(1, keepdims=True), 1)


KINDS: dict[str, Any] = {
    "counts": lambda x: x,
    "logs of counts": np.log1p,
    "CP10k": normalised,
    "log CP10k": lambda x: np.log1p(normalised(x)),
    "log CP2k": lambda x: np.log1p(normalised(x, 2e3)),
    "log2 CPM": lambda x: np.log2(1 + normalised(x, 1e6)),
    "rounded CP10k": lambda x: np.rint(normalised(x)),
}
"""Kinds of values that exclude each other."""


def said_of(matrix: np.ndarray, path: Path | None = None) -> str:
    """Doubts about a matrix, in memory or read from a file."""
    adata = anndata.AnnData(sparse.csr_matrix(matrix.astype(np.float32)))
    if path is None:
        return " ".join(read_profiles(adata).notes.values())
    adata.write_h5ad(path)
    return " ".join(read_profiles(path, stream="yes").notes.values())


@pytest.mark.parametrize("kind", KINDS)
def test_profiles_of_one_kind_are_no_mixture_in_whatever_order(kind: str) -> None:
    x = counts()
    for order in (np.arange(N), np.argsort(x.sum(1)), np.argsort(-x[:, 0])):
        assert "different kinds" not in said_of(KINDS[kind](x)[order])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_first", [True, False])
def test_profiles_of_two_kinds_after_each_other_are(kind: str, is_first: bool, tmp_path: Path) -> None:
    others = [other for other in KINDS if other != kind]
    x = counts()
    for other in others:
        one, two = (kind, other) if is_first else (other, kind)
        matrix = np.vstack([KINDS[one](x)[: N // 2], KINDS[two](x)[N // 2 :]])
        said = said_of(matrix)
        assert "Profiles of different kinds are in one matrix: the first are " in said, (one, two)
    assert said_of(matrix, tmp_path / "a.h5ad") == said


def test_counts_of_a_mixture_are_not_offered() -> None:
    x = counts()
    matrix = np.vstack([KINDS["log CP10k"](x)[: N // 2], KINDS["log2 CPM"](x)[N // 2 :]])
    assert read_profiles(anndata.AnnData(sparse.csr_matrix(KINDS["log CP10k"](x)))).unit is not None
    assert read_profiles(anndata.AnnData(sparse.csr_matrix(matrix))).unit is None


def test_what_is_not_known_contradicts_nothing() -> None:
    rng = np.random.default_rng(0)
    odd = sparse.csr_matrix(rng.uniform(0, 5, (N // 4, G)))
    whole = sparse.csr_matrix(counts()[: N // 4])
    totals, lengths = np.full(N, 7.0) + rng.uniform(0, 9, N), np.full(N, G)
    assert differing([whole, odd, odd, odd], totals, lengths) is None
    assert differing([odd] * 4, totals, lengths) is None
    assert differing([whole[:5], *[sparse.csr_matrix(np.log1p(whole.toarray()))] * 3], totals, lengths) is None


@pytest.mark.parametrize(("n_profiles", "n_values"), [(100, 50), (10_000, 50), (10_000, 1e5), (10**6, 2_000)])
def test_many_profiles_are_looked_at_and_few_where_they_are_long(n_profiles: int, n_values: float) -> None:
    found = len(range(0, n_profiles, stride_of(n_profiles, n_values)))
    least = min(n_profiles, FEWEST_LOOKED_AT)
    assert least <= found <= 2 * LOOKED_AT
    assert found * n_values <= 2 * MOST_VALUES or found <= 2 * least
