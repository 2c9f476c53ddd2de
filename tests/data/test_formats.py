"""Every format gives the profiles of the .h5ad with the same counts, and damaged files of each give one sentence."""

import gzip
import os
import shutil
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
from commands import assert_refused, geneae, there
from conftest import QUICK, simulate
from reference import assert_same_profiles
from written import BY_ROWS, WRITERS, write_csv, write_h5ad, write_h5mu, write_loom, write_tenx_folder, write_tenx_h5

from geneae import Autoencoder, read_profiles, tl
from geneae.data.formats import FORMATS, ending_of, stem_of
from geneae.settings.errors import InputError


@pytest.fixture(scope="module")
def adata() -> anndata.AnnData:
    return simulate(80, 40)


@pytest.fixture(scope="module")
def model(adata: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fit of the counts, in a folder; not to be changed."""
    folder = tmp_path_factory.mktemp("model") / "run"
    Autoencoder(**QUICK).fit(adata).save(folder)
    return folder


@pytest.fixture(scope="module")
def latents(adata: anndata.AnnData, model: Path) -> np.ndarray:
    """Latents of the counts, from memory, at their estimated depth."""
    return Autoencoder.load(model).transform(adata, depth_ratio=None)


@pytest.mark.parametrize("stream", ["no", "yes"])
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_profiles(name: str, stream: str, adata: anndata.AnnData, tmp_path: Path) -> None:
    path, expected = WRITERS[name](adata, tmp_path), read_profiles(adata)
    if stream == "yes" and name not in BY_ROWS:
        with pytest.raises(InputError, match="only files that hold rows of numbers can be streamed"):
            read_profiles(path, stream="yes")
        return
    found = read_profiles(path, stream=stream)
    assert found.is_streamed == (stream == "yes")
    assert found.fingerprint == expected.fingerprint
    assert_same_profiles(found.take(np.arange(80)), expected.take(np.arange(80)))
    assert found.describe().startswith(f"{path}, X: counts: ")


@pytest.mark.parametrize("name", WRITERS)
def test_the_latents_of_every_format_are_those_of_the_h5ad(
    name: str, adata: anndata.AnnData, model: Path, latents: np.ndarray, tmp_path: Path
) -> None:
    path = WRITERS[name](adata, tmp_path)
    before = there(tmp_path)
    out = tmp_path / "out.npy"
    assert geneae("embed", model, path, "-o", out).exit_code == 0
    np.testing.assert_allclose(np.load(out), latents, atol=1e-4)
    assert there(tmp_path) - before == {"out.npy"}


@pytest.mark.parametrize(
    ("name", "stream"), [*((name, "no") for name in WRITERS), ("10x h5", "yes"), ("loom", "yes"), ("h5mu", "yes")]
)
def test_an_h5ad_of_latents_holds_the_matrix_that_was_read(
    name: str, stream: str, adata: anndata.AnnData, model: Path, latents: np.ndarray, tmp_path: Path
) -> None:
    path, out = WRITERS[name](adata, tmp_path), tmp_path / "out.h5ad"
    result = geneae("embed", model, path, "-o", out, "--reconstruct", "--stream", stream)
    assert result.exit_code == 0, result.output
    written = anndata.read_h5ad(out)
    np.testing.assert_allclose(written.obsm["X_geneae"], latents, atol=1e-4)
    assert (written.X != adata.X).nnz == 0
    assert list(written.obs_names) == list(adata.obs_names)
    assert list(written.var_names) == list(adata.var_names)
    assert np.isfinite(written.layers["geneae_reconstructed"]).any()


def test_the_ending_in_any_case_and_the_longest_one() -> None:
    assert ending_of(Path("a.b/DATA.Zarr.ZIP")) == ".zarr.zip"
    assert ending_of(Path("x.csv.gz")) == ".csv.gz"
    assert ending_of(Path("x.gz")) == ""
    assert [stem_of(Path(f"some/run.1{ending}")) for ending in FORMATS] == ["run.1"] * len(FORMATS)
    assert [stem_of(Path(name)) for name in ("folder", "data.h5", ".csv")] == ["folder", "data", ".csv"]


def test_the_content_of_hdf5_counts_and_not_its_ending(adata: anndata.AnnData, tmp_path: Path) -> None:
    for write, name in ((write_tenx_h5, "a.h5ad"), (write_h5ad, "b.h5"), (write_loom, "c"), (write_h5ad, "d.csv")):
        path = write(adata, tmp_path).rename(tmp_path / name)
        assert read_profiles(path).n_genes == 40


@pytest.mark.parametrize("data", ["https://example.org/a.h5ad", "s3://bucket/a.zarr", "file:///tmp/a.csv"])
def test_a_url_is_said_to_be_one(data: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^[a-z0-9]+:/.* is a URL, but geneae reads files of this machine. Download it"
    ):
        read_profiles(data)
    assert_refused(geneae("embed", model, data, "-o", tmp_path / "out.csv"), f"{data} is a URL, but geneae reads files")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data.csv")
    with pytest.raises(InputError, match=r"data\.csv is no file or folder, but a pipe or a device"):
        read_profiles(tmp_path / "data.csv")


DAMAGED = ["10x h5", "10x folder", "loom", "h5mu", "zip of a zarr", "tsv.gz, turned"]


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.97])
@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_was_cut_off_is_one_sentence(
    name: str, kept: float, adata: anndata.AnnData, model: Path, tmp_path: Path
) -> None:
    path = WRITERS[name](adata, tmp_path)
    cut = path / "matrix.mtx.gz" if path.is_dir() else path
    content = cut.read_bytes()
    cut.write_bytes(content[: int(kept * len(content))])
    assert_refused(geneae("embed", model, path, "-o", tmp_path / "out.csv"), f"{path}")


@pytest.mark.parametrize("place", ["matrix", "row_attrs/Gene", "col_attrs", "layers"])
def test_nothing_of_a_loom_is_read_elsewhere(place: str, adata: anndata.AnnData, tmp_path: Path) -> None:
    path = write_loom(adata, tmp_path)
    _lead_out(path, place)
    with pytest.raises(InputError):
        read_profiles(path)
    assert not (tmp_path / "read").exists()


@pytest.mark.parametrize("place", ["matrix/data", "matrix/features/name", "matrix/barcodes", "matrix"])
def test_nothing_of_a_10x_file_is_read_elsewhere(place: str, adata: anndata.AnnData, tmp_path: Path) -> None:
    path = write_tenx_h5(adata, tmp_path)
    _lead_out(path, place)
    with pytest.raises(InputError, match=r"is an external link|but AnnData has obs and var"):
        read_profiles(path)


@pytest.mark.parametrize("place", ["mod", "mod/rna", "mod/rna/X", "mod/rna/obs/kind"])
def test_nothing_of_mudata_is_read_elsewhere(place: str, adata: anndata.AnnData, tmp_path: Path) -> None:
    path = write_h5mu(adata, tmp_path)
    _lead_out(path, place)
    with pytest.raises(InputError, match="is an external link"):
        read_profiles(path)


def _lead_out(path: Path, place: str) -> None:
    """Put a link to another file, which holds the same, in the place of a part."""
    shutil.copy(path, path.with_name("other"))
    with h5py.File(path, "r+") as file:
        del file[place]
        file[place] = h5py.ExternalLink("other", f"/{place}")


def test_a_10x_folder_with_a_link_out_of_it_is_refused(adata: anndata.AnnData, tmp_path: Path) -> None:
    path = write_tenx_folder(adata, tmp_path)
    (path / "matrix.mtx.gz").rename(tmp_path / "matrix.mtx.gz")
    (path / "matrix.mtx.gz").symlink_to(tmp_path / "matrix.mtx.gz")
    with pytest.raises(InputError, match=r"matrix\.mtx\.gz is a link out of"):
        read_profiles(path)


def test_a_matrix_without_layers_has_none(adata: anndata.AnnData, tmp_path: Path) -> None:
    path = write_csv(adata, tmp_path)
    with pytest.raises(InputError, match=r"unknown layer 'counts'\. There are none\."):
        read_profiles(path, layer="counts")
    with pytest.raises(InputError, match=r"data\.csv has no raw"):
        read_profiles(path, use_raw=True)
    with pytest.raises(InputError, match=r"only MuData has modalities, and .*data\.csv is none"):
        read_profiles(path, modality="rna")


@pytest.mark.slow
def test_inspect_fit_evaluate_and_metric_read_them_too(adata: anndata.AnnData, model: Path, tmp_path: Path) -> None:
    path = write_tenx_h5(adata, tmp_path)
    assert geneae("inspect", path).output.startswith(f"{path}, X: counts")
    quick = ["--latent", 4, "--hidden", 16, "--rank", 12, "--epochs", 2, "--splits", 2]
    assert geneae("fit", path, "-o", tmp_path / "run", *quick).exit_code == 0
    assert geneae("evaluate", model, path, "-o", tmp_path / "judged").exit_code == 0
    loom = write_loom(adata, tmp_path)
    assert geneae("metric", loom, "--label", "kind", "-o", tmp_path / "metric", "--epochs", 2).exit_code == 0
    turned = WRITERS["tsv.gz, turned"](adata, tmp_path)
    result = geneae("compare", turned, "-o", tmp_path / "cmp", "--loss", "mse", "--seeds", 1, *quick)
    assert result.exit_code == 0, result.output


def test_tl_works_on_what_was_read_of_any_format(
    adata: anndata.AnnData, model: Path, latents: np.ndarray, tmp_path: Path
) -> None:
    read = tl.read(write_tenx_h5(adata, tmp_path))
    tl.embed(read, model)
    np.testing.assert_allclose(read.obsm["X_geneae"], latents, atol=1e-4)
    with pytest.warns(UserWarning, match="by their names the columns are genes"):
        assert (tl.read(write_csv(adata, tmp_path)).X != adata.X).nnz == 0


def test_a_packed_file_that_is_no_text_is_to_be_unpacked(counts_path: Path, tmp_path: Path) -> None:
    content = gzip.compress(counts_path.read_bytes())
    for name in ("data.h5ad.gz", "data.h5ad", "data.csv"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=r"is compressed with gzip, .* Unpack it with gunzip\.$"):
            read_profiles(tmp_path / name)
