import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from geneae import Autoencoder, read_profiles
from geneae.folders.embedding import FORMATS, check_format, describe, reconstruction, write_embedding
from geneae.settings.errors import InputError


@pytest.mark.parametrize("name", ["out.txt", "out", "out.h5", "out.h5ad.gz", ".csv"])
def test_an_ending_that_cannot_be_written_is_refused(name: str) -> None:
    with pytest.raises(InputError) as error:
        check_format(Path(name), reconstruct=False)
    assert str(error.value) == f"the output must end in .h5ad, .csv, .parquet, .npy; found '{name}'."


@pytest.mark.parametrize("ending", FORMATS)
def test_a_reconstruction_needs_an_h5ad(ending: str) -> None:
    check_format(Path(f"out{ending}"), reconstruct=False)
    if ending == ".h5ad":
        check_format(Path("out.h5ad"), reconstruct=True)
    else:
        with pytest.raises(InputError) as error:
            check_format(Path(f"out{ending}"), reconstruct=True)
        assert (
            str(error.value)
            == f"a reconstruction is written as a layer and needs an output ending in .h5ad; found 'out{ending}'."
        )


def write(fitted: Autoencoder, data: Path, path: Path, key: str = "X_geneae", reconstruct: bool = False) -> np.ndarray:
    latent = fitted.transform(data)
    write_embedding(path, str(data), fitted.model_, read_profiles(data), latent, key, reconstruct)
    return latent


def read(path: Path) -> tuple[np.ndarray, list[str] | None]:
    """Latents and names, as another program would read them."""
    if path.suffix == ".npy":
        return np.load(path), None
    if path.suffix == ".h5ad":
        adata = anndata.read_h5ad(path)
        return adata.obsm["X_geneae"], list(adata.obs_names)
    table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    assert list(table.columns) == ["profile", "latent_0", "latent_1", "latent_2", "latent_3"]
    return table.drop(columns="profile").to_numpy(), list(table["profile"])


@pytest.mark.parametrize("ending", FORMATS)
def test_what_is_read_back_are_the_latents(
    fitted: Autoencoder, counts_path: Path, counts: anndata.AnnData, ending: str, tmp_path: Path
) -> None:
    latent = write(fitted, counts_path, tmp_path / f"out{ending}")
    found, names = read(tmp_path / f"out{ending}")
    if ending == ".csv":  # as many digits as float32 needs
        np.testing.assert_allclose(found, latent, rtol=1e-6)
    else:
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, latent)
    assert names is None or names == list(counts.obs_names)


def test_an_h5ad_keeps_all_that_was_there(
    fitted: Autoencoder, counts_path: Path, counts: anndata.AnnData, tmp_path: Path
) -> None:
    write(fitted, counts_path, tmp_path / "out.h5ad", key="X_mine")
    found = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(found.X.toarray(), counts.X.toarray())
    pd.testing.assert_frame_equal(found.obs, counts.obs)
    assert list(found.var_names) == list(counts.var_names)
    assert (list(found.obsm), list(found.layers)) == (["X_mine"], [])
    assert dict(found.uns["geneae"]) == describe(fitted.model_, "X_mine")


def test_a_reconstruction_is_a_layer_with_its_space_and_units(
    fitted: Autoencoder, counts: anndata.AnnData, tmp_path: Path
) -> None:
    data = tmp_path / "data.h5ad"
    wider = anndata.AnnData(
        np.hstack([counts.X.toarray()[:, ::-1], np.ones((counts.n_obs, 1), np.float32)]),
        obs=counts.obs,
        var=pd.DataFrame(index=[*counts.var_names[::-1], "unknown"]),
    )
    wider.write_h5ad(data)
    latent = write(fitted, data, tmp_path / "out.h5ad", reconstruct=True)
    found = anndata.read_h5ad(tmp_path / "out.h5ad")
    layer = pd.DataFrame(found.layers["geneae_reconstructed"], columns=found.var_names)
    genes = list(fitted.model_.preprocess.genes)
    np.testing.assert_array_equal(layer[genes], fitted.inverse_transform(latent))
    assert layer.drop(columns=genes).isna().all(axis=None)
    assert "unknown" not in genes
    assert layer.to_numpy().dtype == np.float32
    uns = found.uns["geneae"]
    assert (uns["space"], uns["units"]) == ("log1p_cp10k", "log1p of molecules per 10,000")
    assert (uns["missing"], uns["loss"]) == ("NaN for genes that the model does not know", "cosine")
    assert uns["fitted_on"] == fitted.model_.config["data"]["fingerprint"]


def test_the_units_of_other_values_are_theirs(counts: anndata.AnnData) -> None:
    counts.X = counts.X.log1p()
    model = Autoencoder(n_latent=2, hidden=4, epochs=1).fit(counts).model_
    assert describe(model, "X")["space"] == "log_normalised"
    assert describe(model, "X")["units"] == "those of the matrix that the model was fitted on"


def test_a_reconstruction_in_chunks_is_that_of_all(fitted: Autoencoder) -> None:
    latent = np.random.default_rng(0).normal(size=(2500, 4)).astype(np.float32)
    genes = fitted.model_.preprocess.genes
    found = reconstruction(fitted.model_, latent, genes[::-1])
    np.testing.assert_allclose(found[:, ::-1], fitted.inverse_transform(latent), rtol=1e-5, atol=1e-5)


def test_a_zarr_becomes_an_h5ad(fitted: Autoencoder, counts: anndata.AnnData, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata announces a change of the default zarr version
        counts.write_zarr(tmp_path / "data.zarr")
    latent = write(fitted, tmp_path / "data.zarr", tmp_path / "out.h5ad")
    found, names = read(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(found, latent)
    assert names == list(counts.obs_names)


def test_a_copy_of_a_streamed_file_holds_what_a_whole_one_holds(
    fitted: Autoencoder, counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geneae.folders.embedding.CHUNK", 100)
    latent = fitted.transform(counts_path)
    for stream in ("yes", "no"):
        profiles = read_profiles(counts_path, stream=stream)
        write_embedding(tmp_path / f"{stream}.h5ad", str(counts_path), fitted.model_, profiles, latent, "X_new", True)
    found, wanted = (anndata.read_h5ad(tmp_path / f"{stream}.h5ad") for stream in ("yes", "no"))
    np.testing.assert_array_equal(found.obsm["X_new"], wanted.obsm["X_new"])
    np.testing.assert_allclose(found.layers["geneae_reconstructed"], wanted.layers["geneae_reconstructed"], rtol=1e-5)
    assert found.uns["geneae"].keys() == wanted.uns["geneae"].keys()
    assert (found.X != wanted.X).nnz == 0
    pd.testing.assert_frame_equal(found.obs, wanted.obs)
