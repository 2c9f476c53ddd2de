"""The data set in data/ is what data/README.md says it is."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy import sparse

DATA = Path(__file__).parents[1] / "data"
IMMUNE = DATA / "immune_559.h5ad"


@pytest.fixture(scope="module")
def immune() -> anndata.AnnData:
    return anndata.read_h5ad(IMMUNE)


def test_shape_is_the_promised_one(immune):
    assert immune.shape == (559, 32_786)
    assert immune.X.nnz == 1_027_859


def test_values_are_counts(immune):
    assert sparse.isspmatrix_csr(immune.X)
    assert immune.X.dtype == np.float32
    counts = immune.X.data
    assert counts.min() == 1
    assert counts.max() == 1_448
    np.testing.assert_array_equal(counts, np.rint(counts))


def test_names_are_unique(immune):
    assert immune.obs_names.is_unique
    assert immune.var_names.is_unique
    assert immune.obs_names[0] == "Cell_1"
    assert "MALAT1" in immune.var_names


def test_molecules_are_the_ones_in_the_readme(immune):
    molecules = np.asarray(immune.X.sum(axis=1)).ravel()
    assert (molecules.min(), np.median(molecules), molecules.max()) == (945, 3_829, 39_886)
    assert np.count_nonzero(immune.X.sum(axis=0)) == 9_810


def test_readme_has_the_checksum_and_the_size():
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    found = re.search(r"\| `immune_559\.h5ad` \| `([0-9a-f]{64})` \|", readme)
    assert found is not None
    assert found.group(1) == hashlib.sha256(IMMUNE.read_bytes()).hexdigest()
    assert IMMUNE.stat().st_size < 4_000_000


def test_script_and_readme_name_the_same_checksums():
    script = (DATA / "make_immune.py").read_text(encoding="utf-8")
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    checksums = re.findall(r'_SHA256 = "([0-9a-f]{64})"', script)
    assert len(checksums) == 2
    assert [checksum for checksum in checksums if f"`{checksum}`" not in readme] == []
