"""`geneae split`."""

from pathlib import Path

import anndata
import numpy as np
import pytest
from commands import assert_refused, geneae, there, write
from conftest import simulate

FILES = {"SHA256SUMS", "halves.json", "held_out.h5ad", "input.h5ad", "split.csv", "train.h5ad"}


def test_a_folder_of_halves_is_written_and_said(counts_path: Path, tmp_path: Path) -> None:
    result = geneae("split", counts_path, "-o", tmp_path / "halves", "--group", "donor", "--seed", "4")
    assert result.exit_code == 0, result.output
    assert there(tmp_path / "halves") == FILES
    assert "50 % of their molecules are given." in result.stdout
    assert "held_out.h5ad is kept from them." in result.stdout
    seen = anndata.read_h5ad(tmp_path / "halves" / "input.h5ad")
    of_donor = seen.obs.groupby("donor", observed=True)["geneae_split"].nunique()
    assert set(of_donor) == {1}
    assert set(seen.obs["geneae_split"]) == {"train", "validation", "test"}


def test_several_divisions_are_folders_that_share_a_split(counts_path: Path, tmp_path: Path) -> None:
    result = geneae("split", counts_path, "-o", tmp_path / "halves", "--repeats", "2", "--fraction", "0.8", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    assert there(tmp_path / "halves") == {
        *(f"repeat_{n}" for n in (1, 2)),
        *(f"repeat_{n}/{name}" for n in (1, 2) for name in FILES),
    }
    one, other = (anndata.read_h5ad(tmp_path / "halves" / f"repeat_{n}" / "input.h5ad") for n in (1, 2))
    assert list(one.obs["geneae_split"]) == list(other.obs["geneae_split"])
    assert abs(one.X - other.X).max() > 0
    assert one.X.sum() / anndata.read_h5ad(counts_path).X.sum() == pytest.approx(0.8, abs=0.01)


def test_what_cannot_be_split_is_refused_and_nothing_is_written(counts_path: Path, tmp_path: Path) -> None:
    adata = simulate()
    adata.X = np.log1p(adata.X.toarray())
    data = write(tmp_path / "log.h5ad", adata)
    cases = [
        ([data, "-o", tmp_path / "new"], "molecules are divided, which needs counts;"),
        ([counts_path, "-o", tmp_path / "new", "--fraction", "1"], "fraction must be "),
        (
            [counts_path, "-o", tmp_path / "new", "--group", "doner"],
            "unknown obs column 'doner'; did you mean 'donor'?",
        ),
    ]
    for arguments, said in cases:
        assert_refused(geneae("split", *arguments, "--quiet"), said)
    assert there(tmp_path) == {"log.h5ad"}


def test_an_existing_folder_is_kept_unless_asked(counts_path: Path, tmp_path: Path) -> None:
    arguments = ("split", counts_path, "-o", tmp_path / "halves", "--quiet")
    assert geneae(*arguments).exit_code == 0
    assert_refused(geneae(*arguments), "already exists.")
    assert geneae(*arguments, "--overwrite").exit_code == 0
