import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from conftest import N_GENES, N_PROFILES, QUICK, simulate, thinned

import geneae
from geneae import Autoencoder, read_profiles, tl
from geneae.folders.embedding import describe
from geneae.settings.errors import InputError

SCORES = ["geneae_cosine", "geneae_mse", "geneae_norm_ratio", "geneae_heldout_cosine"]


def quick_fit(adata: anndata.AnnData, **options: object) -> Autoencoder:
    return tl.fit(adata, "cosine", **QUICK | {"epochs": 1} | options)


def test_a_fit_writes_what_it_found(counts: anndata.AnnData) -> None:
    model = tl.fit(counts, "cosine", **QUICK)
    expected = Autoencoder("cosine", **QUICK).fit(counts)
    assert model.get_params() == expected.get_params()
    np.testing.assert_array_equal(counts.obsm["X_geneae"], expected.transform(counts))
    assert list(counts.obs["geneae_split"]) == list(expected.split_)
    loadings = pd.DataFrame(counts.varm["geneae_loadings"], index=counts.var_names)
    known = expected.model_.preprocess.genes
    np.testing.assert_array_equal(loadings.loc[known], expected.loadings())
    assert loadings.drop(index=known).isna().all(axis=None)
    assert loadings.shape == (N_GENES, 4)
    uns = counts.uns["geneae"]
    assert (uns["version"], uns["loss"], uns["space"]) == (geneae.__version__, "cosine", "log1p_cp10k")
    assert uns["units"] == "log1p of molecules per 10,000"
    assert uns["settings"]["n_latent"] == 4
    assert None not in uns["settings"].values()
    assert list(filter(None, counts.layers)) == []


def test_a_key_that_would_be_a_path_is_refused_and_nothing_is_written(
    counts: anndata.AnnData, fitted: Autoencoder
) -> None:
    before = counts.copy()
    for write in (tl.embed, tl.reconstruct, tl.score):
        with pytest.raises(InputError, match=r"^key_added must be a name without '/'"):
            write(counts, fitted, key_added="a/../X")
    with pytest.raises(InputError, match=r"^key_added must be a name without '/'"):
        quick_fit(counts, key_added="..")
    assert list(counts.obs) == list(before.obs)
    assert [*counts.obsm, *counts.layers, *counts.uns] == [*before.obsm, *before.layers, *before.uns]


def test_arguments_of_a_wrong_type_are_refused_in_one_sentence(counts: anndata.AnnData, fitted: Autoencoder) -> None:
    for options, text in (
        ({"use_raw": "no"}, "raw must be True or False; found 'no' \\(str\\)"),
        ({"epochs": "5"}, "epochs must be a whole number; found '5' \\(str\\)"),
        ({"scale": "no"}, "scale must be True or False; found 'no' \\(str\\)"),
    ):
        with pytest.raises(InputError, match=f"^{text}"):
            quick_fit(counts, **options)
    with pytest.raises(InputError, match=r"^loss must be a text; found None\."):
        tl.fit(counts, None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^null must be True or False; found 'no' \(str\)"):
        Autoencoder(**QUICK).fit(counts, null="no")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"or the path of a model, was expected; found NoneType\."):
        tl.embed(counts, None)  # type: ignore[arg-type]
    assert list(counts.obsm) == []


def test_latents_reconstruction_and_scores_are_those_of_the_model(
    fitted: Autoencoder, model_folder: Path, counts: anndata.AnnData
) -> None:
    for model in (fitted, fitted.model_, model_folder, str(model_folder)):
        adata = counts.copy()
        assert tl.embed(adata, model) is None
        np.testing.assert_array_equal(adata.obsm["X_geneae"], fitted.transform(counts))
    assert tl.reconstruct(adata, fitted) is None
    genes, expression = fitted.model_.preprocess.genes, fitted.model_.preprocess.match(read_profiles(counts))[0]
    expected = {
        "geneae_reconstructed": fitted.model_.reconstructed(expression),
        "geneae_latent_only": fitted.inverse_transform(adata.obsm["X_geneae"]),
    }
    assert set(filter(None, adata.layers)) == set(expected)
    for name, values in expected.items():
        layer = adata.to_df(name)
        np.testing.assert_allclose(layer[genes], values, rtol=1e-5, atol=1e-5)
        assert layer.drop(columns=genes).isna().all(axis=None)
    assert tl.score(adata, fitted) is None
    scores = fitted.score_profiles(counts)
    for name in SCORES:
        np.testing.assert_array_equal(adata.obs[name], scores[name.removeprefix("geneae_")])
    depth = {name: list(values) for name, values in adata.uns["geneae"].pop("depth").items()}
    assert (depth["ratio"], depth["is_given"], depth["n_profiles"]) == ([1.0], [False], [N_PROFILES])
    said = adata.uns["geneae"].pop("reference_depth")
    assert said.startswith("reconstructions are expected values at the depth of the training profiles, 6")
    assert adata.uns["geneae"] == describe(fitted.model_, "X_geneae")


def test_profiles_are_read_at_the_depth_of_their_group(
    fitted: Autoencoder, counts: anndata.AnnData, tmp_path: Path
) -> None:
    is_shallow = np.arange(N_PROFILES) % 2 == 0
    mixed = thinned(counts, np.where(is_shallow, 0.2, 1.0))
    mixed.obs["run"] = np.where(is_shallow, "late", "early")
    tl.embed(mixed, fitted, depth_by="run")
    depth = mixed.uns["geneae"]["depth"]
    assert list(depth["group"]) == ["late", "early"]
    np.testing.assert_allclose(depth["ratio"], [5, 1], rtol=0.1)
    tl.reconstruct(mixed, fitted, depth_by="run")
    tl.score(mixed, fitted, depth_by="run")
    for some in (is_shallow, ~is_shallow):
        part = anndata.AnnData(mixed.X[some], obs=mixed.obs.loc[some, ["run"]], var=mixed.var)
        for change in (tl.embed, tl.reconstruct, tl.score):
            change(part, fitted)
        np.testing.assert_allclose(part.obsm["X_geneae"], mixed.obsm["X_geneae"][some], rtol=1e-5, atol=1e-5)
        for name in ("geneae_reconstructed", "geneae_latent_only"):
            np.testing.assert_allclose(part.layers[name], mixed.layers[name][some], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(part.obs["geneae_mse"], mixed.obs.loc[some, "geneae_mse"], rtol=1e-4)
    mixed.write_h5ad(tmp_path / "out.h5ad")
    assert list(anndata.read_h5ad(tmp_path / "out.h5ad").uns["geneae"]["depth"]["group"]) == ["late", "early"]


def test_a_ratio_is_taken_as_given_and_refused_where_it_means_nothing(
    fitted: Autoencoder, counts: anndata.AnnData
) -> None:
    for change in (tl.embed, tl.reconstruct, tl.score):
        found = change(counts, fitted, depth_ratio=7, copy=True)
        assert found is not None
        assert (list(found.uns["geneae"]["depth"]["ratio"]), list(found.uns["geneae"]["depth"]["is_given"])) == (
            [7],
            [True],
        )
        for options in ({"depth_ratio": 0}, {"depth_by": "doner"}, {"depth_by": "donor", "depth_ratio": 2}):
            with pytest.raises(InputError, match=r"must be a number above 0|unknown obs column|Give only one of them"):
                change(counts, fitted, **options)
    of_logs = counts.copy()
    of_logs.X = counts.X.log1p()
    model = quick_fit(of_logs)
    before = dict(of_logs.uns["geneae"])
    for change in (tl.embed, tl.reconstruct, tl.score):
        for options in ({"depth_ratio": 2}, {"depth_by": "donor"}):
            with pytest.raises(InputError, match="this model knows one depth only"):
                change(of_logs, model, **options)
        change(of_logs, model)
    assert of_logs.uns["geneae"] == before
    assert (list(counts.obsm), list(filter(None, counts.layers)), dict(counts.uns)) == ([], [], {})


def query_of(counts: anndata.AnnData, share: float) -> anndata.AnnData:
    """The same profiles with fewer molecules, under other names."""
    adata = thinned(counts, share)
    adata.obs_names = [f"other{number}" for number in range(adata.n_obs)]
    return adata


def test_labels_are_transferred_from_a_reference(
    fitted: Autoencoder, model_folder: Path, counts: anndata.AnnData, tmp_path: Path
) -> None:
    for share in (1.0, 0.1):
        adata = query_of(counts, share)
        expected = tl.embed(adata, fitted, copy=True)
        assert tl.transfer(adata, counts, fitted, label="kind") is None
        assert expected is not None
        np.testing.assert_array_equal(adata.obsm["X_geneae"], expected.obsm["X_geneae"])
        is_given = adata.obs["geneae_label"].notna()
        assert is_given.mean() > 0.85
        assert (adata.obs["geneae_closest_label"].astype(str) == adata.obs["kind"].astype(str)).mean() > 0.75
        assert adata.obs["geneae_probability"].between(0.2, 1).all()
        limit = adata.uns["geneae"]["transfer"]["distance_limit"][0]
        np.testing.assert_array_equal(is_given, adata.obs["geneae_distance"] <= limit)
        of_folder = tl.transfer(adata, counts, model_folder, label="kind", copy=True)
        assert of_folder is not None
        pd.testing.assert_frame_equal(of_folder.obs, adata.obs)
    assert list(counts.obs) == ["donor", "kind"]  # the reference is left alone
    assert (list(counts.obsm), dict(counts.uns)) == ([], {})
    adata.write_h5ad(tmp_path / "out.h5ad")
    pd.testing.assert_frame_equal(anndata.read_h5ad(tmp_path / "out.h5ad").obs, adata.obs)


def test_a_transfer_takes_its_limit_from_profiles_that_the_model_has_not_seen(
    fitted: Autoencoder, counts: anndata.AnnData
) -> None:
    more = anndata.concat([counts, query_of(counts, 0.9)])  # as many new ones as the model knows
    adata = query_of(counts, 0.8)
    adata.obs_names = [f"new {name}" for name in adata.obs_names]
    limits = {}
    for name, model in (("knows its split", fitted), ("does not", fitted.model_)):
        found = tl.transfer(adata, more, model, label="kind", copy=True)
        assert found is not None
        limits[name] = found.uns["geneae"]["transfer"]["distance_limit"][0]
    assert limits["knows its split"] != limits["does not"]


def test_a_transfer_that_cannot_be_done_writes_nothing(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    adata = query_of(counts, 1.0)
    for options, text in (
        ({"label": "kinds"}, "unknown obs column 'kinds'; did you mean 'kind'?"),
        ({"label": "kind", "n_neighbors": 0}, "neighbors must be at least 1; found 0"),
        ({"label": "kind", "refuse": -0.1}, "refuse must be at least 0 and below 1"),
        ({"label": "kind", "depth_ratio": 0}, "must be a number above 0"),
    ):
        with pytest.raises(InputError, match=text):
            tl.transfer(adata, counts, fitted, **options)
    with pytest.raises(InputError, match="AnnData was expected; found ndarray"):
        tl.transfer(adata, np.ones((3, 3)), fitted, label="kind")
    assert (list(adata.obs), list(adata.obsm), dict(adata.uns)) == (["donor", "kind"], [], {})


def test_keys_are_those_asked_for(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    tl.embed(counts, fitted, key_added="X_mine")
    tl.reconstruct(counts, fitted, key_added="smooth")
    tl.score(counts, fitted, key_added="mine")
    assert (list(counts.obsm), list(filter(None, counts.layers))) == (
        ["X_mine", "X_mine_sd"],
        ["smooth", "geneae_latent_only"],
    )
    assert {"mine_cosine", "mine_mse", "mine_norm_ratio", "mine_heldout_cosine"} <= set(counts.obs)
    assert counts.uns["geneae"]["key_added"] == "X_mine"
    other = simulate(60, 30)
    quick_fit(other, key_added="X_other")
    assert list(other.obsm) == ["X_other", "X_other_sd"]


def test_a_copy_leaves_the_original_alone(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    for change in (tl.embed, tl.reconstruct, tl.score):
        found = change(counts, fitted, copy=True)
        assert found is not None
        assert "geneae" in found.uns
    model, found = tl.fit(counts, "cosine", copy=True, **QUICK)
    np.testing.assert_array_equal(found.obsm["X_geneae"], model.transform(counts))
    assert (list(counts.obsm), list(filter(None, counts.layers)), list(counts.varm), dict(counts.uns)) == (
        [],
        [],
        [],
        {},
    )
    assert list(counts.obs) == ["donor", "kind"]


def test_a_layer_and_raw_are_read_where_they_are_asked_for(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    expected = fitted.transform(counts)
    moved = anndata.AnnData(counts.X.log1p(), obs=counts.obs, var=counts.var, layers={"counts": counts.X})
    moved.raw = counts
    for where in ({"layer": "counts"}, {"use_raw": True}):
        adata = moved[:, :40].copy() if "use_raw" in where else moved.copy()
        tl.embed(adata, fitted, **where)
        tl.reconstruct(adata, fitted, **where)
        tl.score(adata, fitted, **where)
        np.testing.assert_array_equal(adata.obsm["X_geneae"], expected)
        assert adata.layers["geneae_reconstructed"].shape == adata.shape
        np.testing.assert_array_equal(adata.obs["geneae_cosine"], fitted.score_profiles(counts)["cosine"])
        model = quick_fit(adata, **where)
        np.testing.assert_array_equal(adata.obsm["X_geneae"], quick_fit(counts).transform(counts))
        assert ("geneae_loadings" in adata.varm) == ("layer" in where)
    with pytest.raises(InputError, match="the model was fitted on counts, but AnnData in memory, X holds log"):
        tl.embed(moved, model, layer="X")
    assert list(moved.obsm) == []


def test_it_survives_being_written_and_read(counts: anndata.AnnData, tmp_path: Path) -> None:
    model = quick_fit(counts)
    tl.reconstruct(counts, model)
    tl.score(counts, model)
    counts.write_h5ad(tmp_path / "out.h5ad")
    found = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(found.obsm["X_geneae"], counts.obsm["X_geneae"])
    np.testing.assert_array_equal(found.varm["geneae_loadings"], counts.varm["geneae_loadings"])
    np.testing.assert_array_equal(found.layers["geneae_reconstructed"], counts.layers["geneae_reconstructed"])
    pd.testing.assert_frame_equal(found.obs, counts.obs)
    assert found.uns["geneae"] == counts.uns["geneae"]


def test_backed_data_are_read_and_written_into(
    fitted: Autoencoder, counts: anndata.AnnData, counts_path: Path, tmp_path: Path
) -> None:
    backed = anndata.read_h5ad(counts_path, backed="r")
    model = quick_fit(backed)
    tl.score(backed, model)
    tl.reconstruct(backed, model)
    np.testing.assert_array_equal(backed.obsm["X_geneae"], quick_fit(counts).transform(counts))
    assert "geneae_cosine" in backed.obs
    backed.copy(tmp_path / "out.h5ad")
    assert anndata.read_h5ad(tmp_path / "out.h5ad").obsm["X_geneae"].shape == (N_PROFILES, 4)
    in_memory = tl.embed(backed, fitted, copy=True)
    assert in_memory is not None
    assert not in_memory.isbacked
    np.testing.assert_array_equal(in_memory.obsm["X_geneae"], fitted.transform(counts))
    backed.file.close()


def test_neighbours_are_found_in_the_latents(counts: anndata.AnnData) -> None:
    quick_fit(counts)
    sc.pp.neighbors(counts, n_neighbors=5, use_rep="X_geneae", method="gauss")  # the default compiles for seconds
    assert counts.uns["neighbors"]["params"]["use_rep"] == "X_geneae"
    assert counts.obsp["distances"].shape == (N_PROFILES, N_PROFILES)


def test_a_fit_that_fails_writes_nothing(counts: anndata.AnnData) -> None:
    with pytest.raises(InputError, match=r"^n_latent must be at most"):
        tl.fit(counts, n_latent=500)
    assert (list(counts.obsm), list(counts.varm), dict(counts.uns), list(counts.obs)) == ([], [], {}, ["donor", "kind"])


def test_what_is_no_anndata_is_refused(fitted: Autoencoder) -> None:
    for use in (lambda data: tl.fit(data), *(lambda data, f=f: f(data, fitted) for f in (tl.embed, tl.reconstruct))):
        with pytest.raises(InputError) as error:
            use(np.ones((3, 3)))
        assert str(error.value) == ("AnnData was expected; found ndarray. Read one with geneae.tl.read(path).")


def test_each_epoch_is_told(counts: anndata.AnnData) -> None:
    seen: list[float] = []
    tl.fit(counts, on_epoch=lambda row: seen.append(row["epoch"]), progress=False, **QUICK)
    assert seen == [0, 1, 2, 3]


def test_importing_geneae_alone_does_not_load_it() -> None:
    code = "import sys, geneae; print('torch' in sys.modules); geneae.tl.fit; geneae.pl; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\nTrue\n"
