"""Files of 10x are what the readers of scanpy make of them."""

import warnings
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
import scanpy as sc
from conftest import simulate
from written import write_legacy_tenx_h5, write_tenx_folder, write_tenx_h5

from geneae import read_profiles
from geneae.settings.errors import InputError


@pytest.fixture(scope="module")
def adata() -> anndata.AnnData:
    """Counts, with one symbol that two genes share."""
    adata = simulate(30, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.var_names = ["gene0", *adata.var_names[:-1]]
    return adata


def assert_as_scanpy(path: Path, expected: anndata.AnnData) -> None:
    """The same names, values and columns of var; repeated symbols are unique in both."""
    expected.var_names_make_unique()
    found = read_profiles(path)
    assert found.var is not None
    assert (list(found.names), list(found.genes)) == (list(expected.obs_names), list(expected.var_names))
    assert (found.matrix != expected.X).nnz == 0
    assert set(found.var.columns) == set(expected.var.columns)
    for column in expected.var.columns:
        assert list(found.var[column].astype(str)) == list(expected.var[column].astype(str))
    assert found.genes[1] == "gene0-1"
    assert "first 'gene0' as 'gene0-1'" in found.said[-1]


@pytest.mark.filterwarnings("ignore:Variable names are not unique:UserWarning")
@pytest.mark.parametrize("write", [write_tenx_h5, write_legacy_tenx_h5])
def test_an_h5_is_read_as_scanpy_reads_it(write: object, adata: anndata.AnnData, tmp_path: Path) -> None:
    path = write(adata, tmp_path)  # type: ignore[operator]
    assert_as_scanpy(path, sc.read_10x_h5(path))


@pytest.mark.parametrize("packed", [True, False])
def test_a_folder_is_read_as_scanpy_reads_it(packed: bool, adata: anndata.AnnData, tmp_path: Path) -> None:
    path = write_tenx_folder(adata, tmp_path, packed, before="run1_")
    assert_as_scanpy(path, sc.read_10x_mtx(path, prefix="run1_"))
    assert_as_scanpy(path / f"run1_matrix.mtx{'.gz' if packed else ''}", sc.read_10x_mtx(path, prefix="run1_"))


def test_features_of_every_type_are_there_with_their_types(adata: anndata.AnnData, tmp_path: Path) -> None:
    path = write_tenx_h5(adata, tmp_path)
    with h5py.File(path, "r+") as file:
        del file["matrix/features/feature_type"]
        file["matrix/features/feature_type"] = np.array(["Gene Expression"] * 18 + ["Antibody Capture"] * 2, "S")
        file.create_group("matrix/features/target_sets")
    found, genes = read_profiles(path, features="all"), read_profiles(path)
    assert found.var is not None
    assert genes.var is not None
    assert found.var["feature_types"].value_counts().to_dict() == {"Gene Expression": 18, "Antibody Capture": 2}
    assert list(genes.genes) == list(genes.var.index) == list(found.genes[:18])
    assert "2 of type Antibody Capture" in genes.notes["left_out_features"]


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_profiles(path)
    return str(caught.value)


def test_a_folder_that_is_not_whole_is_one_sentence(adata: anndata.AnnData, tmp_path: Path) -> None:
    path = write_tenx_folder(adata, tmp_path)
    (path / "more_matrix.mtx.gz").write_bytes((path / "matrix.mtx.gz").read_bytes())
    assert "holds several matrices: matrix.mtx.gz, more_matrix.mtx.gz. Give the path of one of them." in refused(path)
    assert "needs the names of its profiles in more_barcodes.tsv (plain or .gz)" in refused(path / "more_matrix.mtx.gz")
    (path / "more_matrix.mtx.gz").unlink()
    barcodes = (path / "barcodes.tsv.gz").rename(path / "kept")
    assert "needs the names of its profiles in barcodes.tsv (plain or .gz) beside it; found features.tsv.gz" in refused(
        path
    )
    (path / "barcodes.tsv").write_text("a\nb\n")
    assert "a row for each of 20 features and a column for each of 2 barcodes; found 20 x 30" in refused(path)
    (path / "barcodes.tsv").write_text("")
    assert "a column for each of 0 barcodes; found 20 x 30" in refused(path)
    assert barcodes.exists()


def test_a_dense_mtx_is_read(adata: anndata.AnnData, tmp_path: Path) -> None:
    folder = write_tenx_folder(adata, tmp_path, packed=False)
    values = adata.X.toarray().astype(int)
    lines = ["%%MatrixMarket matrix array integer general", f"{adata.n_vars} {adata.n_obs}", *map(str, values.ravel())]
    (folder / "matrix.mtx").write_text("\n".join(lines) + "\n")
    np.testing.assert_array_equal(read_profiles(folder).matrix.toarray(), values)


def test_a_matrix_that_claims_more_than_it_holds_is_refused(adata: anndata.AnnData, tmp_path: Path) -> None:
    path = write_tenx_folder(adata, tmp_path, packed=False)
    head = "%%MatrixMarket matrix coordinate integer general\n20 30 900000000\n1 1 1\n"
    (path / "matrix.mtx").write_text(head)
    assert "claims 900,000,000 entries, which it is too small to hold" in refused(path)
    (path / "matrix.mtx").write_text(head.replace("900000000", "2"))
    assert "should be a 10x matrix folder, but reading it failed: " in refused(path)


def test_an_h5_that_is_not_whole_is_one_sentence(adata: anndata.AnnData, tmp_path: Path) -> None:
    path = write_tenx_h5(adata, tmp_path)
    with h5py.File(path, "r+") as file:
        file["matrix/indptr"][1] = 10**6
    assert "pointers must rise from 0 to the number of values" in refused(path)
    with h5py.File(path, "r+") as file:
        del file["matrix/indices"]
    assert "matrix of a 10x file should hold data, indices, indptr, shape, barcodes; it lacks indices." in refused(path)
    legacy = write_legacy_tenx_h5(adata, tmp_path)
    with h5py.File(legacy, "r+") as file:
        file.copy("GRCh38", "mm10")
    assert "holds a matrix for each of the genomes GRCh38, mm10; one was expected" in refused(legacy)
