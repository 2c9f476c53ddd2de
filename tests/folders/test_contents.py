"""Files come back as they were written, or are refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from geneae import CosineMetric
from geneae.folders.contents import FolderContents
from geneae.folders.manifest import HEAD, SUMS, write_list
from geneae.folders.model import load_model
from geneae.folders.run import read_run
from geneae.models.network import Network
from geneae.settings.errors import InputError

CHANGED = "it was changed or damaged after geneae wrote it. Copy the complete folder again, or fit again."


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of a model folder, to be damaged."""
    return Path(shutil.copytree(model_folder, tmp_path / "run"))


def weights(network: Network) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()}


def test_three_bytes_overwritten_anywhere_are_refused_or_change_nothing(folder: Path) -> None:
    rng, expected = np.random.default_rng(0), weights(load_model(folder).network)
    names = ["model.safetensors"] * 20 + ["config.json", "genes.csv", SUMS] * 8
    said = []
    for name in names:
        content = (folder / name).read_bytes()
        place = int(rng.integers(0, len(content) - 3))
        (folder / name).write_bytes(content[:place] + rng.bytes(3) + content[place + 3 :])
        try:
            assert weights(load_model(folder).network) == expected
        except InputError as error:
            said.append(str(error))
        (folder / name).write_bytes(content)
    assert len(said) >= len(names) - 8
    assert [text for text in said if "\n" in text or str(folder) not in text] == []
    assert weights(load_model(folder).network) == expected


@pytest.mark.parametrize("name", ["metrics.csv", "profiles.csv", "history.csv", "split.csv", "genewise.csv"])
def test_a_run_whose_table_was_changed_is_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_text()
    (folder / name).write_text(content.replace("1", "2", 1))
    with pytest.raises(InputError) as error:
        read_run(folder)
    assert str(error.value) == f"{folder / name} does not have the checksum that {SUMS} lists for it: {CHANGED}"


def test_a_file_that_the_list_does_not_name_is_refused(folder: Path) -> None:
    write_list(folder, ["config.json", "model.safetensors"])
    with pytest.raises(InputError, match=rf"genes\.csv is not listed in {SUMS}: it was changed or damaged"):
        load_model(folder)


def test_a_metric_is_checked_too(metric_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(metric_folder, tmp_path / "metric"))
    content = bytearray((folder / "metric.safetensors").read_bytes())
    content[-2] ^= 1
    (folder / "metric.safetensors").write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"metric\.safetensors does not have the checksum that"):
        CosineMetric.load(folder)


def test_a_folder_without_a_list_and_one_unpacked_from_a_zip_can_be_read(folder: Path) -> None:
    marked = (folder / SUMS).read_text()
    (folder / SUMS).write_text(marked.removeprefix(f"{HEAD}\n"))
    assert load_model(folder).n_latent == 4
    content = (folder / "genes.csv").read_text()
    (folder / "genes.csv").write_text(content + " ")
    with pytest.raises(InputError, match=r"genes\.csv does not have the checksum that"):
        load_model(folder)
    (folder / "genes.csv").write_text(content)
    (folder / SUMS).unlink()
    assert load_model(folder).n_latent == 4


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (('"seed": 0', '"seed": 0, "seed": 0'), "the key 'seed' occurs twice"),
        (('"target_sum": 10000.0', '"target_sum": NaN'), "NaN is no number"),
        (('"target_sum": 10000.0', '"target_sum": -Infinity'), "-Infinity is no number"),
        (('"target_sum": 10000.0', '"target_sum": 1e400'), "the number 1e400 is too large"),
        (('"target_sum": 10000.0', '"target_sum": 3e38'), "config.json holds the number 3e+38"),
        (('"target_sum": 10000.0', '"target_sum": -1.0'), "target_sum must be a number above 0; found -1"),
    ],
)
def test_settings_that_are_no_plain_numbers_are_refused(folder: Path, change: tuple[str, str], reason: str) -> None:
    (folder / SUMS).unlink()
    text = (folder / "config.json").read_text()
    assert text.count(change[0]) >= 1
    (folder / "config.json").write_text(text.replace(*change, 1))
    with pytest.raises(InputError) as error:
        load_model(folder)
    assert reason in str(error.value)
    assert "Copy the complete folder again" in str(error.value)


def test_files_are_those_of_the_folder(folder: Path, tmp_path: Path) -> None:
    files = FolderContents(folder)
    assert set(files) == {path.name for path in folder.iterdir()}
    assert "config.json" in files
    assert "config" not in files
    assert files.json("config.json") == json.loads((folder / "config.json").read_text())
    assert list(FolderContents(tmp_path / "nothing")) == []
