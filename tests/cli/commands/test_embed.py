"""`geneae embed`."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from commands import BAD_DEPTHS, Run, assert_refused, geneae, there, write
from conftest import N_PROFILES, QUICK, thinned
from scipy import sparse

from geneae import Autoencoder, read_profiles, tl
from geneae.folders.tables import read_table


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
    assert list(found.obsm) == ["X_mine", "X_mine_sd"]
    expression = fitted.model_.preprocess.match(read_profiles(counts_path))[0]
    expected = {
        "geneae_reconstructed": fitted.model_.reconstructed(expression),
        "geneae_latent_only": fitted.inverse_transform(found.obsm["X_mine"]),
    }
    assert set(filter(None, found.layers)) == set(expected)
    for name, values in expected.items():
        layer = found.to_df(name)
        np.testing.assert_allclose(layer[genes], values, rtol=1e-5, atol=1e-5)
        assert layer.drop(columns=genes).isna().all(axis=None)
    assert found.uns["geneae"]["space"] == "log1p_cp10k"
    assert found.uns["geneae"]["key_added"] == "X_mine"


def test_profiles_are_reconstructed_at_their_own_depth_where_that_is_asked_for(
    run: Run, counts_path: Path, fitted: Autoencoder, tmp_path: Path
) -> None:
    """Of profiles as deep as training profiles nothing changes; of shallower ones it is the mean that they have."""
    at_depth = ["--reconstruct", "--own-depth", "--depth-ratio"]
    found = {}
    for ratio in ("1", "4"):
        assert (
            geneae("embed", run.folder, counts_path, "-o", tmp_path / f"{ratio}.h5ad", *at_depth, ratio).exit_code == 0
        )
        found[ratio] = anndata.read_h5ad(tmp_path / f"{ratio}.h5ad")
        assert found[ratio].uns["geneae"]["reference_depth"].endswith("themselves, at most that of training profiles")
    genes, model = fitted.model_.preprocess.genes, fitted.model_
    expression = model.preprocess.match(read_profiles(counts_path))[0]
    layer = found["1"].to_df("geneae_reconstructed")[genes]
    np.testing.assert_allclose(layer, model.reconstructed(expression), rtol=1e-5, atol=1e-5)
    layer = found["4"].to_df("geneae_reconstructed")[genes]
    of_model = replace(model.at(4.0), own_depth=True).reconstructed(expression)
    np.testing.assert_allclose(layer, of_model, rtol=1e-5, atol=1e-5)
    assert np.abs(of_model - model.at(4.0).reconstructed(expression)).max() > 0.01
    adata = anndata.read_h5ad(counts_path)
    tl.reconstruct(adata, fitted, depth_ratio=4.0, own_depth=True)
    np.testing.assert_allclose(adata.to_df("geneae_reconstructed")[genes], of_model, rtol=1e-5, atol=1e-5)
    result = geneae("embed", run.folder, counts_path, "-o", tmp_path / "no.h5ad", "--own-depth")
    assert_refused(
        result, "--own-depth is for reconstructions; found no --reconstruct. Add it, or leave the other out."
    )


@pytest.mark.parametrize("stream", ["yes", "no"])
@pytest.mark.parametrize("key", ["/X", "../X", "", "."])
def test_a_key_never_leads_to_another_part_of_the_file(
    run: Run, counts_path: Path, key: str, stream: str, tmp_path: Path
) -> None:
    arguments = ["-o", tmp_path / "out.h5ad", "--key-added", key, "--stream", stream]
    result = geneae("embed", run.folder, counts_path, *arguments)
    assert_refused(
        result,
        f"--key-added must be a name without '/' and control characters, and not empty, '.' or '..'; found '{key}'. ",
    )
    assert there(tmp_path) == set()


def test_a_name_that_an_h5ad_cannot_hold_is_refused_there_and_kept_elsewhere(
    run: Run, counts: anndata.AnnData, tmp_path: Path
) -> None:
    counts.obs_names = ["a\0b", "c\rd", *counts.obs_names[2:]]
    data = tmp_path / "data.zarr"
    counts.write_zarr(data)
    result = geneae("embed", run.folder, data, "-o", tmp_path / "out.h5ad")
    assert_refused(result, f"{data} cannot be written as .h5ad: VLEN strings do not support embedded NULLs. Choose")
    for name in ("out.csv", "out.parquet"):
        assert geneae("embed", run.folder, data, "-o", tmp_path / name).exit_code == 0
    assert list(read_table((tmp_path / "out.csv").read_bytes())["profile"]) == list(counts.obs_names)
    assert list(pd.read_parquet(tmp_path / "out.parquet")["profile"]) == list(counts.obs_names)
    assert {path.name for path in tmp_path.iterdir()} == {"data.zarr", "out.csv", "out.parquet"}


def test_profiles_are_read_at_the_depth_that_is_said(
    run: Run, counts: anndata.AnnData, fitted: Autoencoder, tmp_path: Path
) -> None:
    data = write(tmp_path / "shallow.h5ad", thinned(counts, 0.2))
    molecules = (
        "These profiles have 1[0-9]{2} molecules \\(geometric mean\\), training profiles like them had [56][0-9]{2}: "
    )
    uncertain = {}
    for flags, said, ratio in (
        ([], f"{molecules}they are read at a depth ratio of (4.[5-9]|5.[0-4])[0-9]*\\. If you know better", None),
        (["--depth-ratio", "5"], "These profiles are read as having 1/5 of the molecules of the .*, as given\\.", 5.0),
        (["--depth-ratio", "1"], "These profiles are read as having as many molecules as the .*, as given\\.", 1.0),
    ):
        result = geneae("embed", run.folder, data, "-o", tmp_path / "out.h5ad", "--overwrite", *flags)
        assert result.exit_code == 0, result.output
        assert [bool(re.match(said, line)) for line in result.stdout.splitlines()].count(True) == 1
        found = anndata.read_h5ad(tmp_path / "out.h5ad")
        np.testing.assert_array_equal(found.obsm["X_geneae"], fitted.transform(data, depth_ratio=ratio))
        depth = found.uns["geneae"]["depth"]
        assert list(depth["is_given"]) == [ratio is not None]
        assert depth["ratio"][0] == pytest.approx(ratio or 5, rel=0.1)
        uncertain[ratio] = found.obsm["X_geneae_sd"]
    assert uncertain[5.0].mean() > 1.1 * uncertain[1.0].mean()  # shallower profiles are known less well
    as_deep = fitted.transform(data)
    assert np.abs(fitted.transform(data, depth_ratio=5) - as_deep).max() > 0.01


def test_each_value_of_a_column_has_its_depth(
    run: Run, counts: anndata.AnnData, fitted: Autoencoder, tmp_path: Path
) -> None:
    is_shallow = np.arange(N_PROFILES) % 3 == 0
    mixed = thinned(counts, np.where(is_shallow, 0.1, 1.0))
    mixed.obs["run"] = np.where(is_shallow, "late", "early")
    data = write(tmp_path / "mixed.h5ad", mixed)
    result = geneae("embed", run.folder, data, "-o", tmp_path / "out.npy", "--depth-by", "run")
    assert result.exit_code == 0, result.output
    late, early = (line for line in result.stdout.splitlines() if line.startswith("Profiles of "))
    assert re.match("Profiles of late have 6[0-9] molecules .* at a depth ratio of (9|10)[0-9.]*", late)
    assert early.startswith("Profiles of early are as deep as training profiles like them: ")
    found = np.load(tmp_path / "out.npy")
    for some in (is_shallow, ~is_shallow):
        alone = fitted.transform(mixed[some].copy(), depth_ratio=None)
        np.testing.assert_allclose(found[some], alone, rtol=1e-5, atol=1e-5)
    assert np.abs(found - fitted.transform(data)).max() > 0.01


@pytest.mark.parametrize("kind", BAD_DEPTHS)
def test_a_depth_that_there_cannot_be_is_refused(run: Run, counts_path: Path, kind: str, tmp_path: Path) -> None:
    flags, text = BAD_DEPTHS[kind]
    for command, name in (("embed", "out.csv"), ("evaluate", "judged")):
        assert_refused(geneae(command, run.folder, counts_path, "-o", tmp_path / name, *flags), text)
    assert there(tmp_path) == set()


def test_a_model_of_one_depth_takes_no_depth(counts: anndata.AnnData, tmp_path: Path) -> None:
    counts.X = counts.X.log1p()
    data = write(tmp_path / "logs.h5ad", counts)
    Autoencoder(**QUICK | {"epochs": 1}).fit(data).save(tmp_path / "model")
    for command, name in (("embed", "out.csv"), ("evaluate", "judged")):
        call = (command, tmp_path / "model", data, "-o", tmp_path / name)
        for flags in (["--depth-ratio", "10"], ["--depth-ratio", "1"], ["--depth-by", "donor"]):
            assert_refused(
                geneae(*call, *flags), "this model knows one depth only, because it was not fitted on counts"
            )
        result = geneae(*call)
        assert result.exit_code == 0, result.output
        assert "These profiles" not in result.stdout


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

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", fail)
    result = geneae("embed", run.folder, counts_path, "-o", tmp_path / "out.npy")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: the disk is full. Free some space")
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


def test_profiles_with_hardly_a_molecule_have_no_latents_and_a_line(
    run: Run, counts: anndata.AnnData, fitted: Autoencoder, tmp_path: Path
) -> None:
    dense = counts.X.toarray()
    dense[:3] = 0
    dense[1, :7], dense[2, :20] = 1, 1  # 20 molecules are read, at their own depth
    counts.X = sparse.csr_matrix(dense)
    data = write(tmp_path / "data.h5ad", counts)
    for stream in ("yes", "no"):
        output = tmp_path / f"{stream}.h5ad"
        result = geneae("embed", run.folder, data, "-o", output, "--reconstruct", "--stream", stream)
        assert (
            "2 profiles have fewer than 8 molecules in the genes of the model: their latents are NaN." in result.stdout
        )
        assert "1 with far fewer molecules than the others are read at their own depth." in result.stdout
        found = anndata.read_h5ad(output)
        for values in (*found.obsm.values(), found.layers["geneae_reconstructed"][:, :1]):
            assert np.isnan(values[:2]).all()
            assert np.isfinite(values[2:]).all()
        uncertain = found.obsm["X_geneae_sd"].mean(1)
        assert uncertain[2] > 1.5 * np.median(uncertain[3:])
    assert np.isnan(fitted.transform(data)[:2]).all()
    assert np.isfinite(fitted.transform(data)[2:]).all()


def test_two_depths_in_one_file_are_said(run: Run, counts: anndata.AnnData, tmp_path: Path) -> None:
    mixed = thinned(counts, np.where(np.arange(N_PROFILES) % 2 == 0, 0.1, 1.0))
    result = geneae("embed", run.folder, write(tmp_path / "mixed.h5ad", mixed), "-o", tmp_path / "out.npy")
    assert re.search(
        "50 % have about 1/(9|10)[0-9.]* of the molecules of the others. If a column of obs", result.stdout
    )


def test_an_impossible_ratio_is_refused_before_anything_is_read(run: Run, tmp_path: Path) -> None:
    result = geneae("embed", run.folder, tmp_path / "nowhere.h5ad", "-o", tmp_path / "out.csv", "--depth-ratio", "0")
    assert_refused(result, "--depth-ratio must be a number above 0; found 0. 10 means a tenth of")


def test_a_model_of_counts_that_knows_one_depth_says_so(counts_path: Path, tmp_path: Path) -> None:
    Autoencoder(**QUICK | {"epochs": 1, "target": "self"}).fit(counts_path).save(tmp_path / "model")
    result = geneae("embed", tmp_path / "model", counts_path, "-o", tmp_path / "out.npy")
    assert "This model knows one depth only: shallower or deeper profiles are read as if they were" in result.stdout


@pytest.mark.parametrize("stream", ["yes", "no"])
def test_entries_of_the_data_that_the_output_replaces_are_said(
    run: Run, counts: anndata.AnnData, stream: str, tmp_path: Path
) -> None:
    counts.obsm["X_geneae"] = np.ones((N_PROFILES, 2))
    counts.layers["geneae_reconstructed"] = counts.X
    data = write(tmp_path / "data.h5ad", counts)
    flags = ["--stream", stream, "-o", tmp_path / "out.h5ad", "--overwrite"]
    result = geneae("embed", run.folder, data, "--reconstruct", *flags)
    said = f"In the output obsm['X_geneae'], layers['geneae_reconstructed'] of {data} are replaced."
    assert said in result.stdout.splitlines()
    assert "replaced" not in geneae("embed", run.folder, data, "--key-added", "X_mine", *flags).stdout
