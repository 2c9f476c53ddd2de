"""Annotation that cannot be read does not stand in the way of what can."""

from pathlib import Path

import h5py
import pytest
from commands import geneae
from conftest import simulate

from geneae import read_profiles
from geneae.settings.errors import InputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file in which a column of obs is of a kind that no version of anndata knows."""
    simulate(60, 30).write_h5ad(tmp_path / "data.h5ad")
    with h5py.File(tmp_path / "data.h5ad", "r+") as file:
        file["obs/kind"].attrs["encoding-type"] = "from-the-future"
        del file["obs/donor/codes"]
    return tmp_path / "data.h5ad"


def test_columns_that_cannot_be_read_are_left_out_and_named(path: Path, model_folder: Path, tmp_path: Path) -> None:
    adata = simulate(60, 30)
    found = read_profiles(path)
    assert found.fingerprint == read_profiles(adata).fingerprint
    assert list(found.obs.columns) == []
    assert found.said[0].startswith(f"{path}: obs columns that cannot be read are left out: ")
    assert "'donor' (" in found.said[0]
    assert "'kind' (" in found.said[0]
    result = geneae("embed", model_folder, path, "-o", tmp_path / "out.csv", "--min-overlap", "0")
    assert result.exit_code == 0, result.output
    assert "left out: 'donor'" in result.output


def test_names_that_cannot_be_read_are_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["obs/_index"]
    with pytest.raises(InputError, match="should be a complete AnnData file, but reading it failed"):
        read_profiles(path)
