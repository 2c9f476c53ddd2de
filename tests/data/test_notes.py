"""What is said of profiles before any number."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from geneae.data.notes import MOUSE, SYMBOLS, are_genes, kept_features, types_of_none
from geneae.data.reading import read_profiles

RNG = np.random.default_rng(0)


def notes(genes: list[str], names: list[str] | None = None, scale: float = 1.0) -> dict[str, str]:
    counts = RNG.poisson(1.0, (30 if names is None else len(names), len(genes))).astype(float)
    counts[:, 0] = np.rint(counts[:, 0] * scale)
    obs = pd.DataFrame(index=names or [f"cell{i}" for i in range(30)])
    return read_profiles(anndata.AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=genes))).notes


SOME = sorted(SYMBOLS)[:12]


def test_ordinary_profiles_need_no_note() -> None:
    assert notes([*SOME, *(f"g{i}" for i in range(20))]) == {}


def test_a_gene_with_most_counts_is_named() -> None:
    said = notes(["ERCC-1", *SOME], scale=50.0)["dominant_gene"]
    assert said.startswith("Gene ERCC-1 holds ")
    assert 60 < int(said.split("holds ")[1].split(" %")[0]) < 95


@pytest.mark.parametrize(
    "genes",
    [
        [*SOME, *(symbol.capitalize() for symbol in SOME)],
        [
            *SOME,
            *(symbol.capitalize() for symbol in SOME),
            *(f"LOC{i}" for i in range(2000)),
        ],  # unknown ones say nothing
        [f"GRCh38_{symbol}" for symbol in SOME] + [f"mm10___{symbol.capitalize()}" for symbol in SOME],
        [f"ENSG{i:011}" for i in range(12)] + [f"ENSMUSG{i:011}.4" for i in range(12)],
    ],
)
def test_genes_of_two_species_are_said(genes: list[str]) -> None:
    said = notes(genes)
    assert set(said) == {"mixed_species"}
    assert "tell of 2 species, human (12) and mouse (12)" in said["mixed_species"]


def test_a_matrix_on_its_side_is_suspected() -> None:
    said = notes([f"AAAC{i}-1" for i in range(15)], names=SOME)
    assert "names of profiles look like genes (" in said["transposed"]
    assert "transpose it (adata.T)" in said["transposed"]
    assert "transposed" not in notes(SOME, names=[*SOME])  # genes by genes


def test_names_of_genes_are_known_by_form_or_symbol() -> None:
    assert are_genes(pd.Index([f"ENSDARG{i:08}" for i in range(4)]))
    assert are_genes(pd.Index(sorted(MOUSE)[:5]))
    assert not are_genes(pd.Index([*sorted(MOUSE)[:4], *(f"cell{i}" for i in range(50))]))


def test_values_without_a_logarithm_are_said_with_the_way_out() -> None:
    counts = RNG.poisson(RNG.gamma(0.5, 4.0, (30, 40))).astype(float)
    found = read_profiles(1e4 * counts / counts.sum(1, keepdims=True)).notes["not_logged"]
    assert found.startswith("These values are not logged (whole numbers times a factor of each profile")
    assert "they can be recovered: --state counts" in found


def test_features_without_types_are_all_kept() -> None:
    assert kept_features(None) == (None, {})
    kept, left_out = kept_features(pd.Series(["gene expression", "Antibody Capture", "Gene Expression"]))
    assert kept is not None
    assert (list(kept), left_out) == ([0, 2], {"Antibody Capture": 1})


def test_other_words_for_genes_are_known() -> None:
    kept, left_out = kept_features(pd.Series(["GEX", "ADT", "rna ", "GEX"]))
    assert kept is not None
    assert (list(kept), left_out) == ([0, 2, 3], {"ADT": 1})


def test_features_that_are_all_of_other_types_are_kept_and_said() -> None:
    types = pd.Series(["Peaks", "ADT", "Peaks"])
    assert kept_features(types) == (None, {})
    assert types_of_none(types) == ("Peaks", "ADT")
    assert types_of_none(pd.Series(["Peaks", "Gene Expression"])) == types_of_none(None) == ()
    counts = sparse.csr_matrix(RNG.poisson(1.0, (30, 3)).astype(float))
    var = pd.DataFrame({"feature_types": types.to_numpy()}, index=["a", "b", "c"])
    said = read_profiles(anndata.AnnData(counts, var=var)).notes["kept_features"]
    assert said.startswith("No feature has a type of genes in var['feature_types'] (Peaks, ADT): all are kept")


def test_reads_of_no_gene_are_named() -> None:
    said = notes(["__no_feature", "N_unmapped", "N_cadherin", *SOME])["reads_of_no_gene"]
    assert said.startswith("__no_feature, N_unmapped count reads that belong to no gene")
