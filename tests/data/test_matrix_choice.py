"""The matrix that is asked for is read, or none."""

from pathlib import Path

import h5py
import pytest
from conftest import simulate
from written import write_h5mu

from geneae import read_profiles
from geneae.data.matrix_choice import MatrixChoice
from geneae.settings.errors import InputError


def test_the_location_is_that_of_the_choice_or_an_error() -> None:
    assert MatrixChoice().location("x") == "X"
    assert MatrixChoice(layer="a").location("x", ["a"]) == "layers['a']"
    assert MatrixChoice(use_raw=True).location("x", has_x=False, has_raw=True) == "raw"
    with pytest.raises(InputError, match="both layer 'a' and raw were requested"):
        MatrixChoice("a", True)
    with pytest.raises(
        InputError, match=r"x holds no values: no X, no layers, no raw\. Give the file with the expression values"
    ):
        MatrixChoice().location("x", has_x=False)


def test_a_modality_that_nobody_chose_is_said(tmp_path: Path) -> None:
    path = write_h5mu(simulate(30, 20), tmp_path)
    found = read_profiles(path)
    assert found.said == (f"{path}: read is the modality rna; --modality NAME reads another: prot.",)
    assert read_profiles(path, modality="rna").said == ()
    assert list(read_profiles(path, modality="prot").genes) == ["CD3", "CD19"]
    assert "rna:kind" not in found.obs.columns
    assert set(found.obs["tissue"]) == {"blood"}
    with pytest.raises(InputError, match="unknown modality 'rn'; did you mean 'rna'"):
        read_profiles(path, modality="rn")
    with h5py.File(path, "r+") as file:
        file.move("mod/rna", "mod/gex")
    with pytest.raises(InputError, match="MuData with the modalities gex, prot; one of them was expected"):
        read_profiles(path)
    with h5py.File(path, "r+") as file:
        del file["mod/prot"]
    assert read_profiles(path).said == ()


def test_mudata_in_memory_is_read_by_the_same_rules() -> None:
    class MuData:
        mod = {"rna": simulate(30, 20), "prot": simulate(30, 5)}  # noqa: RUF012

    found = read_profiles(MuData())
    assert (found.n_genes, found.source) == (20, "MuData in memory")
    assert "read is the modality rna" in found.said[0]
    assert read_profiles(MuData(), modality="prot").n_genes == 5
    with pytest.raises(InputError, match="only MuData has modalities, and AnnData in memory is none"):
        read_profiles(simulate(30, 20), modality="rna")
