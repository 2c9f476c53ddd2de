"""Loom files by their specification."""

from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
from conftest import simulate
from written import write_loom

from geneae import read_profiles
from geneae.data.source import Source
from geneae.settings.errors import InputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_loom(simulate(30, 20), tmp_path)


def test_attributes_are_annotation_and_layers_are_read_by_name(path: Path) -> None:
    adata = simulate(30, 20)
    with h5py.File(path, "r+") as file:
        file["layers/spliced"] = file["matrix"][:] * 2
        file["row_attrs/Accession"] = np.array([f"ENSG{number:011}" for number in range(20)], "S")
    found = read_profiles(path, layer="spliced")
    np.testing.assert_array_equal(found.matrix.toarray(), 2 * adata.X.toarray())
    assert found.location == "layers['spliced']"
    assert list(found.obs["kind"]) == list(adata.obs["kind"])
    assert "embedding" not in found.obs.columns
    assert read_profiles(path, gene_names="Accession").genes[0] == "ENSG00000000000"
    with pytest.raises(InputError, match="unknown layer 'splice'; did you mean 'spliced'"):
        read_profiles(path, layer="splice")


def test_counts_beside_a_matrix_of_logarithms_are_named(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        counts = file["matrix"][:]
        file["layers/counts"] = counts
        del file["matrix"]
        file["matrix"] = np.log1p(1e4 * counts / counts.sum(0)).astype(np.float32)
    found = read_profiles(path)
    assert found.state == "log"
    assert found.notes["counts_at_hand"].startswith("layers['counts'] holds counts: --layer counts, from which")
    assert list(Source(str(path)).states()) == ["X", "layers['counts']"]


def test_without_names_it_is_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.move("row_attrs/Gene", "row_attrs/Whatever")
    with pytest.raises(InputError, match=r"row_attrs should hold one of Gene, var_names, .* found Whatever"):
        read_profiles(path)


def test_it_is_what_loompy_writes(tmp_path: Path) -> None:
    pytest.importorskip("loompy", reason="the writer of loom files is not installed")
    adata: anndata.AnnData = simulate(30, 20)
    adata.write_loom(tmp_path / "real.loom")
    found = read_profiles(tmp_path / "real.loom")
    assert found.fingerprint == read_profiles(adata).fingerprint
    assert list(found.obs["kind"]) == list(adata.obs["kind"])
