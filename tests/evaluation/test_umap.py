"""Clusters with a known answer, and the profiles of a UMAP."""

import numpy as np
import pandas as pd
import pytest

from geneae.evaluation import umap
from geneae.evaluation.umap import LEAST_UMAP, by_size, umap_of


def test_clusters_are_numbered_by_their_size() -> None:
    assert by_size(np.repeat([7, 3, 5], [4, 9, 6])) == ["2"] * 4 + ["0"] * 9 + ["1"] * 6
    assert by_size(np.array([2, 0, 2, 0])) == ["0", "1", "0", "1"]


def test_of_many_profiles_some_are_drawn_and_groups_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(umap, "MOST_UMAP", 80)
    group = np.arange(120) % 2
    latent = np.random.default_rng(0).normal(size=(120, 3)) + 50.0 * group[:, None]
    names = pd.Index([f"cell{number}" for number in range(120)])
    table = umap_of(names, latent.astype(np.float32), seed=1)
    assert len(table) == 80
    assert list(table["profile"]) == list(names[table["row"]])
    of_group = table.groupby(group[table["row"]])
    assert not set(of_group.get_group(0)["cluster"]) & set(of_group.get_group(1)["cluster"])
    pd.testing.assert_frame_equal(table, umap_of(names, latent.astype(np.float32), seed=1))
    equal = umap_of(names[:LEAST_UMAP], np.ones((LEAST_UMAP, 1), np.float32), seed=0)  # latents that have collapsed
    assert np.isfinite(equal[["umap_1", "umap_2"]].to_numpy()).all()
