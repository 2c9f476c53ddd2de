"""Ranges of rows are those of the whole matrix, whatever the layout."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from reference import FIVE
from scipy import sparse

from geneae.data.backed import BackedMatrix
from geneae.data.row_sources import ColumnSource, JoinedSource, SparseRowSource, is_row_source


@pytest.mark.parametrize("kind", ["sparse", "columns", "joined"])
def test_every_range_is_that_of_the_matrix(kind: str, tmp_path: Path) -> None:
    csr = sparse.csr_matrix(FIVE)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["data"], file["indices"], file["turned"] = csr.data, csr.indices, FIVE.T
        lengths = np.diff(csr.indptr)
        source = {
            "sparse": SparseRowSource(file["data"], file["indices"], csr.indptr.astype(np.int64), 4),
            "columns": ColumnSource(file["turned"]),
            "joined": JoinedSource(
                [BackedMatrix(csr, np.arange(2), lengths), BackedMatrix(csr, np.array([2, 3, 4]), lengths)]
            ),
        }[kind]
        assert is_row_source(source)
        assert source.shape == (5, 4)
        for start in range(5):
            for stop in range(start + 1, 6):
                np.testing.assert_array_equal(sparse.csr_matrix(source[start:stop]).toarray(), FIVE[start:stop])
    assert not is_row_source(csr)
