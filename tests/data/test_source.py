"""Which matrix of new data a model reads."""

import re
from pathlib import Path

import anndata
import numpy as np
import pytest
from commands import assert_refused, geneae, write
from conftest import QUICK, simulate
from written import write_csv, write_h5ad, write_h5mu, write_zarr

from geneae import Autoencoder, read_profiles, tl
from geneae.data.source import Source, matrix_at, read_like
from geneae.settings.errors import InputError


def with_matrices() -> anndata.AnnData:
    """Three different matrices of counts: in X, a layer and raw."""
    adata = simulate(60, 40)
    adata.layers["it's ['odd']"] = simulate(60, 40, seed=1).X
    adata.raw = simulate(60, 40, seed=2)
    return adata


NAMED = {"X": {}, "layers['it's ['odd']']": {"layer": "it's ['odd']"}, "raw": {"use_raw": True}}


@pytest.mark.parametrize("location", NAMED)
def test_the_matrix_of_a_location_is_the_one_that_was_read_there(location: str) -> None:
    assert read_like("X", with_matrices(), **NAMED[location]).location == location  # type: ignore[arg-type]
    layer, use_raw = matrix_at(location)
    assert {"layer": layer, "use_raw": use_raw} == {"layer": None, "use_raw": False} | NAMED[location]
    assert read_like(location, with_matrices()).location == location


def test_a_named_matrix_comes_first_and_x_can_be_named() -> None:
    adata = with_matrices()
    assert read_like("raw", adata, layer="X").location == "X"
    assert read_like("raw", adata, layer="it's ['odd']").location == "layers['it's ['odd']']"
    assert read_like("X", adata, use_raw=True).location == "raw"
    adata.layers["X"] = adata.X * 2
    found = read_like("raw", adata, layer="X")
    assert (found.location, found.totals.sum()) == ("layers['X']", 2 * adata.X.sum())


def test_what_each_matrix_of_a_file_holds_is_told_in_any_format(tmp_path: Path) -> None:
    adata = simulate(60, 40)
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X.toarray())
    expected = {"X": "log values (log(x + 1) to base e of whole numbers)", "layers['counts']": "counts"}
    for write_it in (write_h5ad, write_zarr, write_h5mu):
        assert Source(str(write_it(adata, tmp_path))).states() == expected
    table = write_csv(adata, tmp_path)
    assert list(Source(str(table)).states()) == []  # a table has one matrix, which is described anyway
    assert Source((str(table), str(tmp_path / "data.h5ad"))).states() == {}


def test_arrays_have_one_matrix_only() -> None:
    assert read_like("raw", np.ones((3, 4))).location == "X"


@pytest.mark.parametrize("location", ["raw", "layers['counts']"])
def test_data_without_the_matrix_of_the_fit_are_refused(location: str, tmp_path: Path) -> None:
    adata = simulate(60, 40)
    path = write(tmp_path / "data.h5ad", adata)
    for data, source in ((adata, "the AnnData"), (path, path)):
        message = (
            f"the model was fitted on {location}, which {source} lacks. Name the matrix to read with --layer NAME, "
            "--layer X or --raw (in Python layer= and use_raw=)."
        )
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            read_like(location, data)


def test_a_model_reads_the_layer_that_it_was_fitted_on(tmp_path: Path) -> None:
    adata = with_matrices()
    adata.layers["counts"] = adata.layers.pop("it's ['odd']")
    data = write(tmp_path / "data.h5ad", adata)
    model = Autoencoder(**QUICK | {"epochs": 1}).fit(data, layer="counts")
    model.save(tmp_path / "model")
    of_layer, of_x = model.transform(data, layer="counts"), model.transform(data, layer="X")
    assert np.abs(of_layer - of_x).max() > 0.1
    np.testing.assert_array_equal(model.transform(data), of_layer)
    np.testing.assert_array_equal(model.score_profiles(data), model.score_profiles(data, layer="counts"))
    for path in (model, tmp_path / "model"):
        tl.embed(adata, path)
        np.testing.assert_allclose(adata.obsm["X_geneae"], of_layer, atol=1e-5)
        assert adata.uns["geneae"]["matrix"] == "layers['counts']"
        tl.embed(adata, path, layer="X")
        np.testing.assert_allclose(adata.obsm["X_geneae"], of_x, atol=1e-5)
        assert adata.uns["geneae"]["matrix"] == "X"
    tl.score(adata, model)
    scores = adata.obs["geneae_cosine"].to_numpy()
    tl.score(adata, model, layer="counts")
    np.testing.assert_array_equal(adata.obs["geneae_cosine"], scores)

    call = ("embed", tmp_path / "model", data, "-o", tmp_path / "out.npy", "--overwrite")
    result = geneae(*call)
    assert "layers['counts'] is read, because the model was fitted on it; --layer or --raw names" in result.stdout
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), of_layer, atol=1e-5)
    result = geneae(*call, "--layer", "X")
    assert "The model was fitted on layers['counts']; X is read, as given." in result.stdout
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), of_x, atol=1e-5)
    other = write(tmp_path / "other.h5ad", simulate(60, 40))
    for command, output in (("embed", "new.csv"), ("evaluate", "judged")):
        result = geneae(command, tmp_path / "model", other, "-o", tmp_path / output)
        assert_refused(result, f"the model was fitted on layers['counts'], which {other} lacks. Name the matrix")
    assert (
        "Means over 48 train"
        in geneae("evaluate", tmp_path / "model", data, "-o", tmp_path / "judged", "--verbose").stdout
    )


def test_a_model_reads_the_features_that_it_was_fitted_on(tmp_path: Path) -> None:
    adata = simulate(60, 40)
    adata.var["feature_types"] = ["Gene Expression"] * 30 + ["Antibody Capture"] * 10
    data = write(tmp_path / "data.h5ad", adata)
    model = Autoencoder(**QUICK | {"epochs": 1}, features="all").fit(data)
    assert len(model.model_.preprocess.genes) == 40
    model.save(tmp_path / "model")
    tl.embed(adata, tmp_path / "model")
    np.testing.assert_allclose(adata.obsm["X_geneae"], model.transform(data), atol=1e-5)
    result = geneae("embed", tmp_path / "model", data, "-o", tmp_path / "latent.npy")
    assert "40 of the model's 40 genes are in the data (100.0 %)" in result.stdout
    np.testing.assert_allclose(np.load(tmp_path / "latent.npy"), model.transform(data), atol=1e-5)


def test_genes_are_named_as_at_the_fit(tmp_path: Path) -> None:
    """By the column of var that named them, where the data have it; else by the index."""
    symbols = simulate(80, 40)
    ensembl = symbols.copy()
    ensembl.var["symbol"] = ensembl.var_names
    ensembl.var_names = [f"ENSG{i:011}" for i in range(40)]
    path = write(tmp_path / "data.h5ad", ensembl)
    fitted = Autoencoder(**QUICK).fit(read_profiles(path, gene_names="symbol"))
    assert fitted.model_.gene_names == "symbol"
    expected = fitted.transform(symbols)
    np.testing.assert_array_equal(fitted.transform(path), expected)
    tl.embed(ensembl, fitted)
    np.testing.assert_array_equal(ensembl.obsm["X_geneae"], expected)
    fitted.save(tmp_path / "run")
    result = geneae("embed", tmp_path / "run", path, "-o", tmp_path / "out.npy")
    assert "Genes are named by var column 'symbol', as at the fit; --gene-names index names them" in result.stdout
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, rtol=1e-6)
    result = geneae("embed", tmp_path / "run", path, "-o", tmp_path / "other.npy", "--gene-names", "index")
    assert_refused(result, "found 0 of them among 40")
