import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import thinned

from geneae import Autoencoder, read_profiles
from geneae.data.profiles import Profiles
from geneae.folders.embedding import (
    FORMATS,
    FROM_LATENT,
    RECONSTRUCTED,
    Embedded,
    check_format,
    check_key,
    depth_groups,
    describe,
    embed,
    reconstructions,
    write_embedding,
)
from geneae.folders.model import load_model
from geneae.settings.errors import InputError


@pytest.mark.parametrize("name", ["out.txt", "out", "out.h5", "out.h5ad.gz", ".csv"])
def test_an_ending_that_cannot_be_written_is_refused(name: str) -> None:
    with pytest.raises(InputError) as error:
        check_format(Path(name), False, None)
    assert str(error.value) == f"the output must end in .h5ad, .csv, .parquet, .npy; found '{name}'."


@pytest.mark.parametrize("ending", FORMATS)
def test_a_reconstruction_needs_an_h5ad(ending: str) -> None:
    check_format(Path(f"out{ending}"), False, None)
    if ending == ".h5ad":
        check_format(Path("out.h5ad"), True, "X_mine")
    else:
        with pytest.raises(InputError) as error:
            check_format(Path(f"out{ending}"), True, None)
        assert (
            str(error.value)
            == f"a reconstruction is written as a layer and needs an output ending in .h5ad; found 'out{ending}'."
        )


KEYS = ["", " ", ".", "..", "/X", "a/b", "../X", "X\0", "X\n", "X\x1b[31m", "X\u202e", "X\udcff", None, 3]
"""Keys that HDF5 would read as a path, or that cannot be stored or shown."""


@pytest.mark.parametrize("key", KEYS, ids=ascii)
def test_a_key_that_would_be_a_path_is_refused(key: Any) -> None:
    with pytest.raises(
        InputError, match=r"^key_added must be a name without '/' and control characters, and not empty"
    ):
        check_key(key)


def test_other_keys_are_names(tmp_path: Path) -> None:
    """AnnData gives back an entry of each of these names."""
    keys = ["X_geneae", "latent 1", "μ", "...", ".x", "-o", "a=b", "x" * 300]
    for key in keys:
        check_key(key)
    adata = anndata.AnnData(np.ones((2, 1), np.float32), obsm={key: np.full((2, 1), len(key)) for key in keys})
    adata.write_h5ad(tmp_path / "keys.h5ad")
    found = anndata.read_h5ad(tmp_path / "keys.h5ad").obsm
    assert {key: int(found[key][0, 0]) for key in found} == {key: len(key) for key in keys}


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".npy"])
def test_a_key_is_refused_where_nothing_has_keys(ending: str) -> None:
    text = f"--key-added names an entry of obsm and needs an output ending in .h5ad; found 'out{ending}'. Leave it out"
    with pytest.raises(InputError, match=re.escape(text)):
        check_format(Path(f"out{ending}"), False, "X_mine")


def write(fitted: Autoencoder, data: Path, path: Path, key: str = "X_geneae", reconstruct: bool = False) -> np.ndarray:
    embedded = embedded_of(fitted, read_profiles(data))
    write_embedding(path, str(data), embedded, key, reconstruct)
    np.testing.assert_array_equal(embedded.latent, fitted.transform(data))  # as deep as the training profiles
    return embedded.latent


def embedded_of(fitted: Autoencoder, profiles: Profiles, ratio: float | None = None) -> Embedded:
    model = fitted.fitted()
    return embed(model, profiles, model.preprocess.match(profiles)[0], ratio)


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


def test_latents_that_are_not_finite_are_refused(model_folder: Path, counts_path: Path) -> None:
    """As of weights that no fit gives, in a folder without checksums."""
    model, profiles = load_model(model_folder), read_profiles(counts_path)
    model.network.core.encoder_linear.weight.data.fill_(3e38)
    text = r"latents must be finite numbers; those of \d+ of 240 profiles are not, first of 'cell"
    with pytest.raises(InputError, match=text):
        embed(model, profiles, model.preprocess.match(profiles)[0])


def test_an_h5ad_keeps_all_that_was_there(
    fitted: Autoencoder, counts_path: Path, counts: anndata.AnnData, tmp_path: Path
) -> None:
    write(fitted, counts_path, tmp_path / "out.h5ad", key="X_mine")
    found = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(found.X.toarray(), counts.X.toarray())
    pd.testing.assert_frame_equal(found.obs, counts.obs)
    assert list(found.var_names) == list(counts.var_names)
    assert (list(found.obsm), list(filter(None, found.layers))) == (["X_mine", "X_mine_sd"], [])
    described = describe(fitted.model_, "X_mine")
    assert {name: found.uns["geneae"][name] for name in described} == described
    depth = {name: list(values) for name, values in found.uns["geneae"]["depth"].items()}
    assert (depth["ratio"], depth["is_given"], depth["n_profiles"]) == ([1.0], [False], [counts.n_obs])
    assert depth["molecules"] == pytest.approx([np.exp(np.log(counts.X.toarray().sum(1)).mean())], rel=1e-5)


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
    genes, model = list(fitted.model_.preprocess.genes), fitted.fitted()
    expected = {
        RECONSTRUCTED: model.reconstructed(model.preprocess.match(read_profiles(data))[0]),
        FROM_LATENT: fitted.inverse_transform(latent),
    }
    assert set(filter(None, found.layers)) == set(expected)
    for name, wanted in expected.items():
        layer = pd.DataFrame(found.layers[name], columns=found.var_names)
        np.testing.assert_allclose(layer[genes], wanted, rtol=1e-5, atol=1e-5)
        assert layer.drop(columns=genes).isna().all(axis=None)
    assert "unknown" not in genes
    assert layer.to_numpy().dtype == np.float32
    uns = found.uns["geneae"]
    assert (uns["space"], uns["units"]) == ("log1p_cp10k", "log1p of molecules per 10,000")
    assert (uns["missing"], uns["loss"]) == ("NaN for genes that the model does not know", "cosine")
    assert uns["fitted_on"] == fitted.model_.config["data"]["fingerprint"]


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_own_counts_stand_in_one_of_two_layers(fitted: Autoencoder, counts: anndata.AnnData, share: float) -> None:
    """Also where profiles are shallower: both layers are as deep as the training profiles."""
    model, profiles = fitted.fitted(), read_profiles(thinned(counts, share))
    assert model.estimator is not None
    model = replace(model, estimator=model.estimator.only("neighbours", "own_counts"))
    expression = model.preprocess.match(profiles)[0]
    embedded = embed(model, profiles, expression, 1 / share)
    found = reconstructions(embedded, model.preprocess.genes)
    here = model.at(1 / share)
    np.testing.assert_allclose(found[RECONSTRUCTED], here.reconstructed(expression), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[FROM_LATENT], here.reconstruction(embedded.latent), rtol=1e-5, atol=1e-5)
    assert np.abs(found[RECONSTRUCTED] - found[FROM_LATENT]).mean() > 1e-3
    for values in found.values():
        np.testing.assert_allclose(values.mean(0), model.baselines.whole.mean, atol=0.35)


def test_the_units_of_other_values_are_theirs(counts: anndata.AnnData) -> None:
    counts.X = counts.X.log1p()
    model = Autoencoder(n_latent=2, hidden=4, epochs=1).fit(counts).model_
    assert describe(model, "X")["space"] == "log"
    assert describe(model, "X")["units"] == "those of the matrix that the model was fitted on"


def test_reconstructions_in_chunks_are_those_of_all(
    fitted: Autoencoder, counts_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = embedded_of(fitted, read_profiles(counts_path))
    genes = fitted.model_.preprocess.genes
    whole = reconstructions(embedded, genes[::-1])
    monkeypatch.setattr("geneae.folders.embedding.CHUNK", 7)
    for name, found in reconstructions(embedded, genes[::-1]).items():
        np.testing.assert_allclose(found, whole[name], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        whole[FROM_LATENT][:, ::-1], fitted.inverse_transform(embedded.latent), rtol=1e-5, atol=1e-5
    )


def test_profiles_are_read_at_their_own_depth(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    whole = read_profiles(counts)
    shallow = read_profiles(thinned(counts, 0.2))
    estimated, as_deep = embedded_of(fitted, shallow), embedded_of(fitted, shallow, ratio=1.0)
    (depth,) = estimated.depths
    assert depth.ratio == pytest.approx(5, rel=0.1)
    own = embedded_of(fitted, whole).latent
    assert np.abs(estimated.latent - own).mean() < np.abs(as_deep.latent - own).mean()


def test_each_group_has_its_own_depth(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    counts.obs["run"] = np.where(np.arange(counts.n_obs) % 2, "deep", "shallow")
    shares = np.where(counts.obs["run"] == "deep", 1.0, 0.25)
    profiles, model = read_profiles(thinned(counts, shares)), fitted.fitted()
    expression = model.preprocess.match(profiles)[0]
    found = embed(model, profiles, expression, groups=depth_groups(profiles, "run", None))
    ratios = {depth.group: depth.ratio for depth in found.depths}
    assert ratios["deep"] == 1
    assert ratios["shallow"] == pytest.approx(4, rel=0.15)
    deep = np.flatnonzero(counts.obs["run"] == "deep")
    np.testing.assert_allclose(found.latent[deep], model.latent(expression.take(deep)), rtol=1e-5, atol=1e-5)


def test_columns_of_depth_are_checked(counts: anndata.AnnData) -> None:
    profiles = read_profiles(counts)
    assert depth_groups(profiles, None, 3.0) is None
    with pytest.raises(InputError, match="obs column"):
        depth_groups(profiles, "nothing", None)
    with pytest.raises(InputError) as error:
        depth_groups(profiles, "nothing", 3.0)
    assert str(error.value) == (
        "--depth-by estimates a depth for each value of a column, but --depth-ratio 3 gives one for all. Give only one "
        "of them."
    )


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
    for stream in ("yes", "no"):
        embedded = embedded_of(fitted, read_profiles(counts_path, stream=stream))
        write_embedding(tmp_path / f"{stream}.h5ad", str(counts_path), embedded, "X_new", True)
    found, wanted = (anndata.read_h5ad(tmp_path / f"{stream}.h5ad") for stream in ("yes", "no"))
    np.testing.assert_allclose(found.obsm["X_new"], wanted.obsm["X_new"], rtol=1e-4, atol=1e-5)
    for name in (RECONSTRUCTED, FROM_LATENT):
        np.testing.assert_allclose(found.layers[name], wanted.layers[name], rtol=1e-4, atol=1e-4)
    assert found.uns["geneae"].keys() == wanted.uns["geneae"].keys()
    assert (found.X != wanted.X).nnz == 0
    pd.testing.assert_frame_equal(found.obs, wanted.obs)


def test_a_reconstruction_finds_its_genes_by_the_column_that_names_them(
    fitted: Autoencoder, counts: anndata.AnnData, counts_path: Path, tmp_path: Path
) -> None:
    """In the order of the file, whose own names the model does not know."""
    counts.var["symbol"] = counts.var_names
    counts.var_names = [f"ENSG{number:011}" for number in range(counts.n_vars)]
    counts.write_h5ad(tmp_path / "named.h5ad")
    expected = reconstructions(embedded_of(fitted, read_profiles(counts_path)), pd.Index(counts.var["symbol"]))
    for stream in ("no", "yes"):
        profiles = read_profiles(tmp_path / "named.h5ad", stream=stream, gene_names="symbol")
        write_embedding(tmp_path / "out.h5ad", str(tmp_path / "named.h5ad"), embedded_of(fitted, profiles), "X", True)
        found = anndata.read_h5ad(tmp_path / "out.h5ad")
        assert list(found.var_names) == list(counts.var_names)
        np.testing.assert_allclose(found.layers[RECONSTRUCTED], expected[RECONSTRUCTED], atol=1e-5)
