"""Folders of halves: written in pieces and read back as they were; anything else is refused."""

import json
from pathlib import Path

import anndata
import pytest
from conftest import simulate

from geneae import read_profiles
from geneae.data.halves import draw
from geneae.data.profiles import Profiles
from geneae.folders.halves import OF_HALVES, read_halves, write_halves
from geneae.settings.errors import InputError
from geneae.settings.halves import HalvesSettings

SETTINGS = HalvesSettings(test=0.2, seed=2)


@pytest.fixture(scope="module")
def many() -> Profiles:
    """More profiles than are written at a time."""
    return read_profiles(simulate(1100, 30, depth=80.0))


@pytest.fixture
def folder(many: Profiles, tmp_path: Path) -> Path:
    """Their halves."""
    write_halves(tmp_path, many, SETTINGS, 1)
    return tmp_path


def test_what_is_written_in_pieces_is_what_is_drawn_in_memory(many: Profiles, folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == set(OF_HALVES)
    read, drawn = read_halves(folder), draw(many, SETTINGS)
    assert abs(read.given.matrix - drawn.given.matrix).max() == 0
    assert abs(read.held_out.matrix - drawn.held_out.matrix).max() == 0
    assert list(read.split) == list(drawn.split)
    assert (read.settings, read.repeat, read.fingerprint) == (SETTINGS, 1, many.fingerprint)
    assert read.whole().fingerprint == many.fingerprint
    for name, expected in (("input.h5ad", drawn.input), ("train.h5ad", drawn.training)):
        found = anndata.read_h5ad(folder / name)[expected.obs_names]
        assert abs(found.X - expected.X).max() == 0
        assert found.uns["geneae"] == expected.uns["geneae"]
        assert (found.obs.astype(str) == expected.obs.astype(str)).to_numpy().all()


def test_input_holds_nothing_of_the_held_out_half(many: Profiles, folder: Path) -> None:
    given, held_out = (anndata.read_h5ad(folder / name).X for name in ("input.h5ad", "held_out.h5ad"))
    assert given.sum() + held_out.sum() == many.totals.sum()
    train = anndata.read_h5ad(folder / "train.h5ad")
    split = read_halves(folder).split
    assert set(split[train.obs["geneae_profile"]]) == {"train"}


def test_streamed_profiles_give_the_same_files(tmp_path: Path) -> None:
    path = tmp_path / "data.h5ad"
    simulate(1100, 30, depth=80.0).write_h5ad(path)
    for stream in ("yes", "no"):
        (tmp_path / stream).mkdir()
        write_halves(tmp_path / stream, read_profiles(path, stream=stream), SETTINGS, 1)
    for name in ("input.h5ad", "train.h5ad", "held_out.h5ad"):
        one, other = (anndata.read_h5ad(tmp_path / stream / name) for stream in ("yes", "no"))
        assert abs(one.X - other.X).max() == 0
        assert list(one.obs_names) == list(other.obs_names)


def test_other_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing is not a folder of geneae split, which has halves\.json\."):
        read_halves(tmp_path / "nothing")
    above = tmp_path / "above"
    (above / "repeat_1").mkdir(parents=True)
    with pytest.raises(InputError, match="It holds repeat_1: give one of these"):
        read_halves(above)
    record = json.loads((folder / "halves.json").read_text())
    (folder / "halves.json").write_text(json.dumps(record | {"format": 9}))
    with pytest.raises(InputError, match=r"halves\.json is of another version of geneae\. Split the data again"):
        read_halves(folder)


def test_files_of_other_profiles_are_refused(folder: Path) -> None:
    adata = anndata.read_h5ad(folder / "held_out.h5ad")
    adata[1:].copy().write_h5ad(folder / "held_out.h5ad")
    with pytest.raises(InputError, match="hold different profiles"):
        read_halves(folder)
