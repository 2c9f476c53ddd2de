"""`geneae embed`."""

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from commands import Run, assert_refused, geneae, there, write
from conftest import N_PROFILES
from scipy import sparse

from geneae import Autoencoder


@pytest.mark.parametrize("name", ["out.h5ad", "out.csv", "out.parquet", "out.npy"])
def test_embed_writes_the_latents_in_each_format(
    run: Run, counts_path: Path, fitted: Autoencoder, name: str, tmp_path: Path
) -> None:
    result = geneae("embed", run.folder, counts_path, "-o", tmp_path / name)
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith(f"Written to {tmp_path / name}: 240 profiles x 4 latents.\n")
    path = tmp_path / name
    found = {
        ".h5ad": lambda: anndata.read_h5ad(path).obsm["X_geneae"],
        ".csv": lambda: pd.read_csv(path, index_col="profile").to_numpy(),
        ".parquet": lambda: pd.read_parquet(path).set_index("profile").to_numpy(),
        ".npy": lambda: np.load(path),
    }[path.suffix]()
    np.testing.assert_allclose(found, fitted.transform(counts_path), rtol=1e-6)
    assert there(tmp_path) == {name}


def test_embed_adds_key_and_reconstruction(run: Run, counts_path: Path, fitted: Autoencoder, tmp_path: Path) -> None:
    arguments = ["-o", tmp_path / "out.h5ad", "--key-added", "X_mine", "--reconstruct"]
    assert geneae("embed", run.folder, counts_path, *arguments).exit_code == 0
    found = anndata.read_h5ad(tmp_path / "out.h5ad")
    genes = fitted.model_.preprocess.genes
    assert list(found.obsm) == ["X_mine"]
    layer = found.to_df("geneae_reconstructed")
    np.testing.assert_array_equal(layer[genes], fitted.inverse_transform(found.obsm["X_mine"]))
    assert layer.drop(columns=genes).isna().all(axis=None)
    assert found.uns["geneae"]["space"] == "log1p_cp10k"
    assert found.uns["geneae"]["key_added"] == "X_mine"


@pytest.mark.parametrize(
    ("name", "flags", "text"),
    [
        ("out.txt", [], "the output must end in .h5ad, .csv, .parquet, .npy; found 'out.txt'."),
        ("out.csv", ["--reconstruct"], "is written as a layer and needs an output ending in .h5ad; found 'out.csv'."),
        ("there.csv", [], "there.csv already exists. Choose another name, or add --overwrite to replace a file."),
    ],
)
def test_an_output_that_embed_cannot_write_is_refused(
    run: Run, counts_path: Path, name: str, flags: list[str], text: str, tmp_path: Path
) -> None:
    (tmp_path / "there.csv").write_text("years of work")
    assert_refused(geneae("embed", run.folder, counts_path, "-o", tmp_path / name, *flags), text)
    assert there(tmp_path) == {"there.csv"}
    assert (tmp_path / "there.csv").read_text() == "years of work"


def test_a_failure_while_embedding_leaves_nothing(
    run: Run, counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "save", fail)
    result = geneae("embed", run.folder, counts_path, "-o", tmp_path / "out.npy")
    assert result.exit_code == 1
    assert isinstance(result.exception, OSError)
    assert there(tmp_path) == set()


def test_sparse_columns_and_dense_files_give_the_same_run(counts: anndata.AnnData, run: Run, tmp_path: Path) -> None:
    latents = []
    for name, form in (("csc", sparse.csc_matrix), ("dense", lambda x: x.toarray())):
        changed = counts.copy()
        changed.X = form(counts.X)
        data = write(tmp_path / f"{name}.h5ad", changed)
        assert geneae("embed", run.folder, data, "-o", tmp_path / f"{name}.npy").exit_code == 0
        latents.append(np.load(tmp_path / f"{name}.npy"))
    np.testing.assert_array_equal(*latents)
    assert latents[0].shape == (N_PROFILES, 4)
