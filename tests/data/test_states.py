"""What a matrix holds, of matrices whose making is known."""

import re
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import simulate
from scipy import sparse

from geneae.data.reading import read_profiles
from geneae.settings.errors import InputError

ADATA = simulate(60, 100, depth=900.0)
COUNTS = sparse.csr_matrix(ADATA.X).astype(float)
DENSE = COUNTS.toarray()
TOTALS = DENSE.sum(1, keepdims=True)
Z = (DENSE - DENSE.mean(0)) / np.maximum(DENSE.std(0), 1e-9)


def with_value(value: float) -> np.ndarray:
    changed = DENSE.copy()
    changed[5, np.argmax(changed[5])] = value
    return changed


STATES: dict[str, tuple[np.ndarray, str, str]] = {
    "counts": (DENSE, "counts", ""),
    "rounding of float64": (DENSE * (1 + 1e-12), "counts", ""),
    "a small number added": (DENSE + 1e-6, "counts", "rounded to whole numbers, from which they differ by at most "),
    "binary": ((DENSE > 0).astype(float), "counts", "all values are 1: which genes were seen, not how many molecules"),
    "drawn to one depth": (np.random.default_rng(0).multinomial(500, np.full(100, 0.01), 60), "counts", ""),
    "one fraction": (with_value(1.5), "normalised", "1 of 5,646 values is not whole, all others are"),
    "ambient removed": (np.clip(DENSE - 0.13, 0, None), "normalised", "values up to "),
    "halved": (DENSE * 0.5, "normalised", "whole numbers times 0.5"),
    "doubled": (DENSE * 2, "normalised", "all are multiples of 2: no numbers of molecules"),
    "normalised": (
        1e4 * DENSE / TOTALS,
        "normalised",
        "whole numbers times a factor of each profile, which sum to 10,000",
    ),
    "rounded CPM": (np.rint(1e6 * DENSE / TOTALS), "normalised", "rounded, and every profile sums to about 1,000,000"),
    "rounded CP10k": (np.rint(1e4 * DENSE / TOTALS), "normalised", "rounded, and every profile sums to about 9,999"),
    "intensities": (np.random.default_rng(0).lognormal(5, 2, (60, 40)), "normalised", "no logarithm was taken"),
    "log1p": (np.log1p(1e4 * DENSE / TOTALS), "log", "log(x + 1) to base e of whole numbers times a factor of each"),
    "log2 of CPM": (
        np.log2(1e6 * DENSE / TOTALS + 0.5),
        "log",
        "log(x + 0.5) to base 2 of whole numbers times a factor",
    ),
    "log intensities": (np.random.default_rng(0).normal(8, 1, (60, 40)), "log", "taken for logarithms"),
    "z-scores": (Z, "scaled", "values are negative"),
}


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_the_state_is_told_from_the_values(kind: str, form: Callable[[np.ndarray], object]) -> None:
    values, state, said = STATES[kind]
    found = read_profiles(form(values))
    assert found.state == state
    assert said in found.evidence if said else not found.evidence


@pytest.mark.parametrize("kind", ["halved", "doubled", "normalised", "log1p", "log2 of CPM", "one fraction"])
def test_counts_by_hand_are_the_counts(kind: str) -> None:
    found = read_profiles(STATES[kind][0], state="counts")
    expected = np.rint(STATES[kind][0]) if kind == "one fraction" else DENSE
    np.testing.assert_array_equal(found.matrix.toarray(), expected)
    assert found.state == "counts"
    np.testing.assert_array_equal(found.totals, expected.sum(1))


def test_a_state_is_taken_by_the_word_where_the_values_allow_it() -> None:
    assert read_profiles(DENSE, state="normalised").state == "normalised"
    assert read_profiles(STATES["rounded CPM"][0], state="counts").state == "counts"
    assert read_profiles(np.rint(Z), state="scaled").state == "scaled"
    assert read_profiles(STATES["log intensities"][0], state="log").evidence.startswith("values from 0 to")


NEGATIVE = {
    "one": (with_value(-9.0), "of 5,646 whole numbers 1 is below zero (-9)"),
    "all": (-DENSE, "whole numbers all are below zero (-"),
    "overflow": ((DENSE * 40).astype(np.int8), "below zero (-"),
    "whole z-scores": (np.rint(Z), "below zero (-1"),
}


@pytest.mark.parametrize("kind", NEGATIVE)
def test_negative_counts_are_refused_with_the_values_and_what_to_do(kind: str) -> None:
    values, said = NEGATIVE[kind]
    with pytest.raises(InputError, match="counts cannot be negative") as caught:
        read_profiles(values)
    assert said in str(caught.value)
    assert "An integer type too small for the counts, a subtraction, or rounded z-scores" in str(caught.value)
    assert str(caught.value).endswith("with --state scaled.")


@pytest.mark.parametrize(
    ("kind", "state", "message"),
    [
        ("log intensities", "counts", "--state counts needs whole numbers, or values from which they can be recovered"),
        ("z-scores", "counts", "counts cannot be negative"),
        ("z-scores", "normalised", "normalised values without a logarithm cannot be negative"),
        ("counts", "molecules", "unknown state 'molecules'"),
    ],
)
def test_a_word_that_the_values_refute_is_refused(kind: str, state: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        read_profiles(STATES[kind][0], state=state)


def test_a_late_value_that_does_not_fit_is_found() -> None:
    """The unit is found on the first profiles, the counts are recovered from all of them."""
    many = simulate(700, 60)
    values = np.log1p(1e4 * many.X.toarray() / np.maximum(many.X.sum(1), 1))
    values = np.asarray(values)
    values[650, np.argmax(values[650])] *= 1.01
    with pytest.raises(InputError, match=r"--state counts needs values .* 1 of [\d,]+ values are not a whole number"):
        read_profiles(values, state="counts")


def test_late_profiles_of_another_kind_are_not_taken_for_that_of_the_first() -> None:
    many = simulate(700, 60)
    counts = np.asarray(many.X.toarray(), float)
    logs = np.log1p(1e4 * counts / np.maximum(counts.sum(1, keepdims=True), 1))
    counts[0, 0] = 60  # more than a logarithm is
    late = np.arange(700)[:, None] >= 600
    found = read_profiles(np.where(late, logs, counts))
    assert found.state == "normalised"
    assert re.fullmatch(r"[\d,]+ of [\d,]+ values are not whole, all others are", found.evidence)
    assert "can be recovered" not in found.notes["not_logged"]
    found = read_profiles(np.where(late, 100 * counts, logs))
    assert found.state == "log"
    assert found.notes["doubted_counts"].startswith("The first profiles are logarithms, but other values go up to ")
    assert "counts_at_hand" not in found.notes


def test_other_matrices_with_counts_are_named() -> None:
    adata = anndata.AnnData(COUNTS.log1p(), obs=ADATA.obs, var=ADATA.var, layers={"counts": COUNTS.copy()})
    assert read_profiles(adata).notes["counts_at_hand"].startswith("layers['counts'] holds counts: --layer counts")
    adata.raw = anndata.AnnData(COUNTS, obs=ADATA.obs, var=ADATA.var)
    del adata.layers["counts"]
    assert read_profiles(adata).notes["counts_at_hand"].startswith("raw holds counts: --raw")
    assert read_profiles(adata, use_raw=True).notes == {}


def test_a_layer_that_is_no_matrix_does_not_block_another(tmp_path: Path) -> None:
    anndata.AnnData(COUNTS.log1p(), obs=ADATA.obs, var=ADATA.var, layers={"counts": COUNTS}).write_h5ad(
        tmp_path / "a.h5ad"
    )
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        file.move("layers/counts", "layers/a/counts")
        file["layers/counts"] = file["layers/a/counts"]
    assert read_profiles(tmp_path / "a.h5ad").notes["counts_at_hand"].startswith("layers['counts'] holds counts")


def test_values_that_give_counts_are_named_beside_values_that_give_none() -> None:
    """As scanpy leaves them: X scaled, raw with logarithms."""
    adata = anndata.AnnData(Z, obs=ADATA.obs, var=ADATA.var)
    adata.raw = anndata.AnnData(sparse.csr_matrix(STATES["log1p"][0]), obs=ADATA.obs, var=ADATA.var)
    said = read_profiles(adata).notes["counts_at_hand"]
    assert said.startswith(
        "raw holds values from which counts can be recovered: --raw --state counts, from which a fit"
    )
    np.testing.assert_array_equal(read_profiles(adata, use_raw=True, state="counts").matrix.toarray(), DENSE)


def test_counts_by_hand_against_the_evidence_are_doubted() -> None:
    found = read_profiles(STATES["rounded CP10k"][0], state="counts")
    assert found.notes["doubted_counts"].startswith(
        "--state counts was given, but values are rounded, and every profile sums to about 9,999"
    )
    assert "doubted_counts" not in read_profiles(DENSE, state="counts").notes


def test_features_of_other_types_are_left_out_and_named() -> None:
    types = pd.DataFrame({"feature_types": ["Gene Expression"] * 70 + ["Antibody Capture"] * 30}, ADATA.var_names)
    adata = anndata.AnnData(COUNTS, obs=ADATA.obs, var=types)
    found, plain = read_profiles(adata), read_profiles(ADATA[:, :70].copy())
    assert found.fingerprint == plain.fingerprint
    np.testing.assert_array_equal(found.totals, plain.totals)
    assert "30 of type Antibody Capture in var['feature_types'] were left out" in found.notes["left_out_features"]
    every = read_profiles(adata, features="all")
    assert every.fingerprint == read_profiles(ADATA).fingerprint
    assert every.notes == {}
    adata.var["feature_types"] = "Peaks"  # no genes at all: nothing to prefer
    assert read_profiles(adata).n_genes == 100
