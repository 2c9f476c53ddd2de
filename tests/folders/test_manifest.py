"""What geneae wrote is known by a list and by contents, never by names alone."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import write_checkpoint
from safetensors.torch import save_file

from geneae.folders.manifest import (
    HEAD,
    OF_GRIDS,
    OF_RUNS,
    SHAREABLE,
    SUMS,
    checksum,
    edited,
    foreign,
    is_marked,
    listed_sums,
    owned,
    read_list,
    remove_owned,
    write_list,
)
from geneae.folders.outputs import Output
from geneae.settings.errors import InputError


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of a model folder with a file and a folder of the user beside ours."""
    folder = Path(shutil.copytree(model_folder, tmp_path / "run"))
    (folder / "thesis.txt").write_text("years of work")
    (folder / "figures").mkdir()
    (folder / "figures" / "metrics.csv").write_text("mine")
    return folder


def test_a_list_is_one_that_sha256sum_checks(model_folder: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", SUMS], cwd=model_folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    names = {path.name for path in model_folder.iterdir()} - {SUMS}
    assert {line.removesuffix(": OK") for line in done.stdout.splitlines()} == names
    assert read_list(model_folder) == {name: checksum(model_folder / name) for name in names}


def test_what_is_listed_is_ours_and_the_rest_is_not(folder: Path, model_folder: Path) -> None:
    assert is_marked(folder)
    assert owned(folder) == {path.name for path in model_folder.iterdir()}
    assert foreign(folder) == {"thesis.txt", "figures"}
    (folder / SUMS).write_text(f"{HEAD}\n{'0' * 64}  figures\n{'0' * 64}  ../other\n{'0' * 64}  gone.csv\n")
    assert owned(folder) == {SUMS}  # a folder is never removed, nor anything outside


def test_lines_that_somebody_adds_to_a_list_make_nothing_ours(folder: Path, model_folder: Path) -> None:
    with (folder / SUMS).open("a") as file:
        file.write(f"{checksum(folder / 'thesis.txt')}  thesis.txt\n")
    assert owned(folder) == {path.name for path in model_folder.iterdir()}
    remove_owned(folder)
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_a_text_that_somebody_has_changed_is_no_longer_ours(folder: Path) -> None:
    assert edited(folder) == set()
    before = owned(folder)
    for name in ("README.md", "settings.toml"):
        with (folder / name).open("a") as file:
            file.write("my notes")
    (folder / "metrics.csv").write_text("damaged")  # a table is still ours: nobody writes by hand there
    assert edited(folder) == {"README.md", "settings.toml"}
    assert owned(folder) == before - {"README.md", "settings.toml"}
    message = (
        f"{folder} holds README.md, settings.toml, which somebody has changed since geneae wrote it, and which "
        "would be replaced. Give it another name, or choose another output."
    )
    for check in (Output(folder, overwrite=True), Output(folder, resume=True)):
        with pytest.raises(InputError) as error:
            check.check()
        assert str(error.value) == message
    for name in ("README.md", "settings.toml"):
        (folder / name).rename(folder / f"my {name}")
    Output(folder, overwrite=True).check()


def test_the_list_of_another_program_marks_nothing(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / SUMS).write_text(f"{'0' * 64}  thesis.txt\n")
    assert not is_marked(tmp_path)
    assert owned(tmp_path) == set()
    assert read_list(tmp_path) is None


def test_folders_of_earlier_versions_are_known_by_what_is_in_them(folder: Path) -> None:
    (folder / SUMS).unlink()
    assert foreign(folder) == {"thesis.txt", "figures"}
    config = json.loads((folder / "config.json").read_text())
    for other in ("{}", "[]", "{", json.dumps({"format": 1, "versions": {"bert": "1"}}), json.dumps(config)[:100]):
        (folder / "config.json").write_text(other)
        assert owned(folder) == {"metrics.csv", "profiles.csv"}  # as of an evaluation
    (folder / "metrics.csv").write_text("metric,value\ncosine,1\n")
    assert owned(folder) == set()
    (folder / "metrics.csv").write_text("run,arm,model\n")
    assert owned(folder) == {"metrics.csv", "report.html"} & {path.name for path in folder.iterdir()}


def test_a_checkpoint_is_known_by_its_header(tmp_path: Path) -> None:
    for name in ("checkpoint-500.safetensors", "checkpoint.safetensors"):
        save_file({"weight": torch.ones(3)}, tmp_path / name)
    assert owned(tmp_path) == set()
    write_checkpoint(tmp_path / "checkpoint-500.safetensors")
    assert owned(tmp_path) == set()
    path = write_checkpoint(tmp_path / "checkpoint.safetensors")
    assert owned(tmp_path) == {"checkpoint.safetensors"}
    path.write_bytes(path.read_bytes()[:-4])  # cut short, but still ours
    assert owned(tmp_path) == {"checkpoint.safetensors"}


def test_only_what_is_ours_is_removed(folder: Path, tmp_path: Path) -> None:
    (folder / "linked.csv").symlink_to(folder / "thesis.txt")
    write_list(folder, {*(read_list(folder) or {}), "linked.csv"})
    remove_owned(folder)
    left = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert left == {"thesis.txt", "figures", "figures/metrics.csv"}
    assert (folder / "thesis.txt").read_text() == "years of work"
    write_list(tmp_path)
    remove_owned(tmp_path / "run")
    assert folder.is_dir()


def test_a_damaged_list_is_refused(folder: Path) -> None:
    path = folder / SUMS
    path.write_text(path.read_text().replace("  metrics.csv", " metrics.csv"))
    with pytest.raises(InputError, match=r"SHA256SUMS should be a list of checksums, but it is damaged\. Copy the"):
        read_list(folder)
    assert listed_sums(b"x\n" + b"0" * 64 + b"  a\n") == ({"a": "0" * 64}, 1)


def test_the_names_are_those_that_are_written(model_folder: Path) -> None:
    assert {path.name for path in model_folder.iterdir()} <= {*SHAREABLE, SUMS}
    assert {*OF_RUNS} - {*SHAREABLE} == {"latents.h5ad"}
    assert len(set(OF_GRIDS)) == len(OF_GRIDS)
