"""`geneae evaluate`."""

from pathlib import Path

import numpy as np
import pandas as pd
from commands import Run, geneae, there, write
from conftest import simulate


def test_evaluate_tells_the_splits_of_the_training_data_apart(run: Run, counts_path: Path, tmp_path: Path) -> None:
    result = geneae("evaluate", run.folder, counts_path, "-o", tmp_path / "judged")
    assert result.exit_code == 0, result.output
    assert there(tmp_path / "judged") == {"metrics.csv", "profiles.csv"}
    assert "Means over 192 train / 24 validation / 24 test profiles;" in result.stdout
    assert "On 24 test profiles, evaluated against the other half" in result.stdout
    profiles = pd.read_csv(tmp_path / "judged" / "profiles.csv")
    assert dict(profiles["split"].value_counts()) == {"train": 192, "validation": 24, "test": 24}
    known = pd.read_csv(run.folder / "profiles.csv").set_index("profile")
    again = profiles.set_index("profile").loc[known.index]
    np.testing.assert_allclose(again["cosine"], known["cosine"], rtol=1e-9)
    assert list(again["split"]) == list(known["split"])


def test_evaluate_calls_other_profiles_all(run: Run, tmp_path: Path) -> None:
    data = write(tmp_path / "other.h5ad", simulate(50, seed=8))
    result = geneae("evaluate", run.folder, data, "-o", tmp_path / "judged")
    assert result.exit_code == 0, result.output
    assert "Means over 50 all profiles;" in result.stdout
    assert "On all 50 profiles, evaluated against" in result.stdout
    metrics = pd.read_csv(tmp_path / "judged" / "metrics.csv")
    assert set(metrics["split"]) == {"all"}
    assert {"model", "mean_profile", "pca", "shrunken_pca"} <= set(metrics["model"])
    assert set(metrics["n_profiles"]) == {50}
