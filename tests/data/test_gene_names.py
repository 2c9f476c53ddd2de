"""Names of genes are told from those of cells, and match with and without versions."""

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import simulate
from reference import FIVE, five_profiles

from geneae import Autoencoder, read_profiles
from geneae.data.gene_names import are_genes_in_rows, made_unique, match_genes, named_by, share_of_genes
from geneae.settings.errors import InputError

HUMAN = ["MIR1302-10", "FAM138A", "OR4F5", "RP11-34P13.7", "AL627309.1", "NOC2L", "HES4", "ISG15", "RPL22", "MT-CO1"]


def test_genes_are_told_from_cells_and_samples() -> None:
    barcodes = pd.Index([f"{code}-1" for code in ("AAACATACAACCAC", "AAACATTGAGCTAC", "AAACATTGATCAGC")])
    samples = pd.Index(["GSM1234", "GSM1235", "GSM1236"])
    for genes in (pd.Index(HUMAN), pd.Index(["ENSMUSG00000064351.1"] * 3), pd.Index(["1007_s_at", "1053_at"])):
        for others in (barcodes, samples):
            assert are_genes_in_rows(genes, others, "") is True
            assert are_genes_in_rows(others, genes, "") is False
    assert share_of_genes(barcodes) == share_of_genes(samples) == 0
    assert are_genes_in_rows(samples, samples, "") is None


def test_repeated_names_are_those_of_anndata() -> None:
    adata = five_profiles()
    adata.var_names = ["A", "A", "A-1", "A"]
    found, said = made_unique(pd.Index(["A", "A", "A-1", "A"], dtype=object))
    with pytest.warns(UserWarning, match="Suffix used"):
        adata.var_names_make_unique()
    assert list(found) == list(adata.var_names) == ["A", "A-2", "A-1", "A-3"]
    assert said == "2 of 4 gene names repeat an earlier one and were made unique as scanpy does, first 'A' as 'A-2'."
    assert made_unique(pd.Index(["A", "B"]))[1] is None


def indexes(*names: list[str]) -> list[pd.Index]:
    return [pd.Index(some, dtype=object) for some in names]


@pytest.mark.parametrize(
    ("wanted", "found", "columns", "is_cut"),
    [
        (["A", "B"], ["B", "C", "A"], [2, 0], False),
        (["ENSG00000000003.15", "ENSG00000000005"], ["ENSG00000000005.6", "ENSG00000000003.1"], [1, 0], True),
        (["ENSG00000000003.15", "X"], ["ENSG00000000003.15", "ENSG00000000003"], [0, -1], False),
        (["ENSG00000000003"], ["ENSG00000000003.1", "ENSG00000000003.2"], [-1], False),  # which of the two?
        (["ENSG00000000003.1", "ENSG00000000003.2"], ["ENSG00000000003.3"], [-1, -1], False),
        (["TP53.1"], ["TP53"], [-1], False),  # no Ensembl name
    ],
)
def test_versions_are_cut_only_where_that_makes_names_match(
    wanted: list[str], found: list[str], columns: list[int], is_cut: bool
) -> None:
    match = match_genes(*indexes(wanted, found))
    assert (match.columns.tolist(), match.is_cut) == (columns, is_cut)
    assert ("without their versions" in match.sentence()) == is_cut


def ensembl(adata: anndata.AnnData, version: str) -> anndata.AnnData:
    """The same with Ensembl names of a version, and its own as a column."""
    adata = adata.copy()
    adata.var["symbol"] = adata.var_names
    adata.var["n_cells"] = 3
    adata.var_names = [f"ENSG{number:011}{version}" for number in range(adata.n_vars)]
    return adata


@pytest.fixture(scope="module")
def fitted() -> Autoencoder:
    settings = {"n_latent": 3, "hidden": 8, "rank": 8, "epochs": 1, "n_splits": 1}
    return Autoencoder(**settings).fit(ensembl(simulate(80, 30), ".7"))


def test_a_model_reads_names_of_another_version(fitted: Autoencoder) -> None:
    adata = simulate(80, 30)
    np.testing.assert_array_equal(fitted.transform(ensembl(adata, "")), fitted.transform(ensembl(adata, ".7")))


def test_a_mismatch_counts_the_matches_in_every_column_of_var(fitted: Autoencoder) -> None:
    adata = ensembl(simulate(80, 30), ".9")
    adata.var["gene_ids"] = adata.var_names
    adata.var["half"] = [name if number < 10 else name.lower() for number, name in enumerate(adata.var_names)]
    adata.var_names = adata.var.pop("symbol")
    with pytest.raises(InputError) as caught:
        fitted.transform(adata)
    n_genes = len(fitted.model_.preprocess.genes)
    assert f"In columns of var there are: gene_ids {n_genes}, half " in str(caught.value)
    assert "Name genes by the best of them: gene_names='gene_ids'." in str(caught.value)
    named = read_profiles(adata, gene_names="gene_ids")
    np.testing.assert_array_equal(fitted.transform(named), fitted.transform(ensembl(simulate(80, 30), ".7")))


def test_the_index_is_named_where_it_is_the_best(fitted: Autoencoder) -> None:
    profiles = read_profiles(ensembl(simulate(80, 30), ".7"), gene_names="symbol")
    with pytest.raises(InputError, match=r"Name genes by the best of them: gene_names='index'\."):
        fitted.transform(profiles)
    assert fitted.transform(read_profiles(ensembl(simulate(80, 30), ".7"), gene_names="index")).shape == (80, 3)


def test_genes_go_by_a_column_of_var() -> None:
    adata = five_profiles()
    adata.var["symbol"] = pd.Categorical(["A", "B", "C", "D"])
    found = read_profiles(adata, gene_names="symbol")
    assert list(found.genes) == ["A", "B", "C", "D"]
    assert found.var is not None
    assert list(found.var["index"]) == list(adata.var_names)
    np.testing.assert_array_equal(found.matrix.toarray(), FIVE)
    adata.var["gaps"] = ["A", None, "C", "D"]
    for column, said in (
        ("symbl", "unknown var column 'symbl'; did you mean 'symbol'"),
        ("gaps", "var column 'gaps' must name every gene; 1 of 4 have no name, first 'gene1'"),
    ):
        with pytest.raises(InputError, match=said):
            read_profiles(adata, gene_names=column)
    with pytest.raises(InputError, match="only AnnData has var"):
        read_profiles(FIVE, gene_names="symbol")
    assert named_by(adata.var, None, "x") is named_by(adata.var, "index", "x") is adata.var
