"""Only what geneae wrote is replaced or removed; what somebody else has put beside it stays."""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import killed_steps
import pytest
from commands import FLAGS, assert_refused, geneae
from conftest import write_checkpoint

from geneae import Autoencoder
from geneae.folders.contents import FolderContents
from geneae.folders.locks import MOST_NAME
from geneae.folders.manifest import SHAREABLE, SUMS, owned
from geneae.folders.model import load_model
from geneae.folders.outputs import (
    Output,
    check_apart,
    check_writable,
    finish_swap,
    new_file,
    new_files,
    new_folder,
    replaced_file,
)
from geneae.settings.errors import InputError

THESIS = "years of work"


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of a model folder with a file and a folder of the user beside ours."""
    folder = Path(shutil.copytree(model_folder, tmp_path / "run"))
    (folder / "thesis.txt").write_text(THESIS)
    (folder / "figures").mkdir()
    (folder / "figures" / "plot.png").write_text(THESIS)
    return folder


def has_theirs(folder: Path) -> bool:
    paths = (folder / "thesis.txt", folder / "figures" / "plot.png")
    return all(path.is_file() and path.read_text() == THESIS for path in paths)


@pytest.mark.parametrize("is_earlier", [False, True])
def test_a_file_of_the_user_beside_ours_stays(fitted: Autoencoder, folder: Path, is_earlier: bool) -> None:
    if is_earlier:
        (folder / SUMS).unlink()
    ours = owned(folder)
    (folder / "history.csv").write_text("old")
    fitted.save(folder, overwrite=True)
    assert has_theirs(folder)
    assert owned(folder) == ours | {SUMS}
    assert (folder / "history.csv").read_text() != "old"
    assert [path.name for path in folder.parent.iterdir()] == ["run"]


def test_files_of_a_user_beside_a_checkpoint_of_another_program_are_not_ours(
    fitted: Autoencoder, counts_path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "checkpoint-500.safetensors").write_text("of another program")
    (folder / "thesis.txt").write_text(THESIS)
    text = f"{folder} already exists and was not written by geneae. Choose another name for the output."
    for flags in ([], ["--resume"], ["--overwrite"]):
        assert_refused(geneae("fit", counts_path, "-o", folder, *FLAGS, *flags), text)
    for overwrite in (False, True):
        with pytest.raises(InputError, match="was not written by geneae"):
            fitted.save(folder, overwrite=overwrite)
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-500.safetensors", "thesis.txt"]


def test_a_checkpoint_of_another_program_is_not_replaced_by_one_of_ours(counts_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_text("of another program")
    for resume in (False, True):
        with pytest.raises(InputError, match=r"cannot be read as one: it is damaged, or of another program\. Move it"):
            Autoencoder(n_latent=2, epochs=1).fit(counts_path, checkpoint=tmp_path, resume=resume)
    assert path.read_text() == "of another program"


def test_a_checkpoint_is_replaced_and_what_lies_beside_it_stays(fitted: Autoencoder, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    write_checkpoint(folder / "checkpoint.safetensors")
    (folder / "thesis.txt").write_text(THESIS)
    fitted.save(folder)
    assert (folder / "thesis.txt").read_text() == THESIS
    assert not (folder / "checkpoint.safetensors").exists()
    assert load_model(folder).n_latent == 4


def test_a_file_of_the_user_is_not_replaced_by_one_of_the_same_name(
    fitted: Autoencoder, counts_path: Path, folder: Path
) -> None:
    (folder / "umap.csv").write_text(THESIS)
    text = f"{folder} holds umap.csv, which geneae did not write and would replace. Move it away, or choose another"
    assert_refused(geneae("fit", counts_path, "-o", folder, "--overwrite", *FLAGS), text)
    with pytest.raises(InputError, match=r"holds umap\.csv"), new_folder(folder, overwrite=True) as partial:
        (partial / "umap.csv").write_text("ours")
    fitted.save(folder, overwrite=True)  # it has no such table
    assert (folder / "umap.csv").read_text() == THESIS


def test_the_tables_of_a_comparison_replace_nothing_of_the_user(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geneae.fitting.compare.write_report", lambda path, *_: path.write_text("<html></html>"))
    folder = tmp_path / "cmp"
    folder.mkdir()
    (folder / "metrics.csv").write_text(THESIS)
    text = f"{folder} holds metrics.csv, which geneae did not write and would replace. Move it away, or choose another"
    assert_refused(geneae("compare", model_folder, "-o", folder), text)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"metrics.csv": THESIS}
    (folder / "metrics.csv").rename(folder / "mine.csv")
    for _ in range(2):
        assert geneae("compare", model_folder, "-o", folder).exit_code == 0
        assert owned(folder) == {"metrics.csv", "seeds.csv", "report.html", SUMS}
        assert (folder / "mine.csv").read_text() == THESIS
    for data in (model_folder, "none.h5ad"):
        text = "a model or a metric, whose tables would be replaced"
        copy = Path(shutil.copytree(model_folder, tmp_path / f"copy{data == 'none.h5ad'}"))
        assert_refused(geneae("compare", data, "-o", copy), text)


def test_a_folder_of_the_user_under_the_name_of_a_run_is_refused_before_anything_is_trained(
    counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geneae.fitting.grid._fit_task", lambda *_: pytest.fail("it was trained"))
    folder = tmp_path / "cmp" / "mse-seed0"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text(THESIS)
    result = geneae("compare", counts_path, "--loss", "mse", "--seeds", "1", "-o", tmp_path / "cmp", *FLAGS)
    assert result.exit_code == 2
    assert f"{folder} already exists and was not written by geneae." in result.stderr
    assert [str(path.relative_to(folder)) for path in folder.rglob("*")] == ["thesis.txt"]


def test_what_cannot_be_moved_to_the_new_folder_is_named_and_not_lost(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def replace(old: Path, new: Path) -> None:
        if Path(old).name == "thesis.txt":
            raise PermissionError(13, "Permission denied")
        real(old, new)

    monkeypatch.setattr("os.replace", replace)
    text = r"\.run\.geneae-old/thesis\.txt, which geneae did not write, could not be moved there \(Permission denied\)"
    with pytest.raises(InputError, match=text), new_folder(folder, overwrite=True) as partial:
        (partial / "metrics.csv").write_text("new")
    monkeypatch.undo()
    assert (folder.parent / ".run.geneae-old" / "thesis.txt").read_text() == THESIS
    finish_swap(folder)
    assert has_theirs(folder)


def test_added_files_join_the_list_of_those_before(tmp_path: Path) -> None:
    for names in (("a.csv", "b.csv"), ("b.csv", "c.csv")):
        with new_files(tmp_path / "cmp") as partial:
            for name in names:
                (partial / name).write_text(names[0])
    folder = tmp_path / "cmp"
    assert owned(folder) == {"a.csv", "b.csv", "c.csv", SUMS}
    assert (folder / "b.csv").read_text() == "b.csv"
    assert [path.name for path in tmp_path.iterdir()] == ["cmp"]


SAME = {
    "evaluate into its model": "evaluate MODEL DATA -o MODEL --overwrite",
    "evaluate into a link to it": "evaluate MODEL DATA -o LINK --overwrite",
    "fit onto its data": "fit DATA -o DATA",
    "embed onto its data": "embed MODEL DATA -o DATA --overwrite",
    "embed onto a table of its model": "embed MODEL DATA -o MODEL/profiles.csv --overwrite",
    "share into its model": "share MODEL -o MODEL/model.safetensors --overwrite",
    "metric into its model": "metric DATA --label kind --model MODEL -o MODEL --overwrite",
    "compare into one of its runs": "compare MODEL -o MODEL",
    "fit into its metric": "fit DATA --metric METRIC -o METRIC --overwrite",
    "fit inside its zarr": "fit ZARR -o ZARR/run",
}


@pytest.mark.parametrize("case", SAME)
def test_an_output_that_is_an_input_or_a_part_of_one_is_refused(
    case: str, model_folder: Path, metric_folder: Path, counts_path: Path, tmp_path: Path
) -> None:
    places = {
        "MODEL": Path(shutil.copytree(model_folder, tmp_path / "model")),
        "METRIC": Path(shutil.copytree(metric_folder, tmp_path / "metric")),
        "DATA": Path(shutil.copy(counts_path, tmp_path / "data.h5ad")),
        "ZARR": tmp_path / "data.zarr",
        "LINK": tmp_path / "link",
    }
    places["LINK"].symlink_to(places["MODEL"])
    places["ZARR"].mkdir()
    (places["ZARR"] / "zarr.json").write_text("{}")
    words = SAME[case]
    for name, place in places.items():
        words = words.replace(name, str(place))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = geneae(*words.split())
    assert result.exit_code == 2, result.output
    assert " the input " in result.stderr, result.stderr
    assert "which would be replaced. Choose another output." in result.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_outputs_beside_inputs_are_allowed(folder: Path, counts_path: Path) -> None:
    check_apart(folder / "latent.csv", folder, counts_path)
    check_apart(folder / "judged", folder, counts_path)
    check_apart(folder.parent, folder, None, "none.h5ad")
    with pytest.raises(InputError, match=r"is a part of the input .*run, which would be replaced\. Choose another"):
        check_apart(folder / "genes.csv", folder)


@pytest.mark.parametrize("moment", range(6))
def test_a_killed_swap_loses_nothing_of_the_user(moment: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies before any replacement or removal of a swap leaves a folder that the next one makes whole."""
    ours = owned(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX, which another test may have loaded, warns of every fork
        process = os.fork()
    if not process:
        left = [moment]

        def dying(real: Callable[..., None]) -> Callable[..., None]:
            def act(*arguments: object, **keywords: object) -> None:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                real(*arguments, **keywords)

            return act

        os.replace = dying(os.replace)
        Path.unlink = dying(Path.unlink)  # type: ignore[method-assign]
        with new_folder(folder, overwrite=True) as partial:
            (partial / "metrics.csv").write_text("new")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    finish_swap(folder)
    assert has_theirs(folder)
    assert owned(folder) in (ours, {"metrics.csv", SUMS})
    left_behind = {path.name for path in folder.parent.iterdir()}
    assert left_behind - {".run.geneae-lock"} == {"run"}


def test_a_folder_of_the_user_under_a_temporary_name_is_left_alone(tmp_path: Path) -> None:
    partial = tmp_path / ".run.geneae-partial"
    partial.mkdir()
    (partial / "thesis.txt").write_text(THESIS)
    finish_swap(tmp_path / "run")
    with pytest.raises(InputError, match="is in the way of the output"), new_folder(tmp_path / "run"):
        pass
    assert (partial / "thesis.txt").read_text() == THESIS


def test_a_hidden_file_of_the_user_is_not_the_temporary_one(tmp_path: Path) -> None:
    theirs = tmp_path / ".latent.partial.csv"
    theirs.write_text(THESIS)
    with new_file(tmp_path / "latent.csv") as partial:
        partial.write_text("new")
    assert theirs.read_text() == THESIS


@pytest.mark.parametrize("length", [MOST_NAME, MOST_NAME + 1, 245, 300])
def test_names_that_leave_no_room_for_temporary_ones_are_refused(length: int, tmp_path: Path) -> None:
    path = tmp_path / ("é" * (length // 2) + "x" * (length % 2))
    if length > MOST_NAME:
        for use in (check_writable, new_file, new_folder, new_files):
            with pytest.raises(InputError, match=f"must have at most {MOST_NAME} bytes, because temporary"):
                Output(path).check() if use is check_writable else use(path).__enter__()
        return
    for opened in (new_folder(path), new_file(path.with_name(path.name[:-3] + ".csv"))):
        with opened as partial:
            (partial / "metrics.csv" if partial.is_dir() else partial).write_text("x")


@pytest.mark.parametrize("name", ["model.zip", "model.H5AD", "report.html"])
def test_a_new_folder_is_not_named_like_a_file(fitted: Autoencoder, name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"is a folder, and {name} is the name of a file\. Choose a name without"):
        Output(tmp_path / name).check()
    with pytest.raises(InputError, match="is the name of a file"):
        fitted.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    fitted.save(tmp_path / "release.v1")
    (tmp_path / "release.v1").rename(tmp_path / name)  # one that is there already is written again
    fitted.save(tmp_path / name, overwrite=True)
    assert load_model(tmp_path / name).n_latent == 4


def test_a_link_to_a_folder_that_is_yet_to_come_leads_there(fitted: Autoencoder, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "scratch" / "run")
    fitted.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert load_model(tmp_path / "scratch" / "run").n_latent == 4


def test_a_link_that_leads_to_itself_is_refused(counts_path: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    result = geneae("fit", counts_path, "-o", tmp_path / "loop")
    text = "cannot be created: it is a link that leads to itself. Choose another output."
    assert_refused(result, f"the output {tmp_path / 'loop'} {text}")


@pytest.mark.parametrize("step", range(4))
def test_a_folder_is_whole_wherever_the_replacing_of_a_file_is_killed(
    step: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with replaced_file(folder, "report.html") as partial:
        partial.write_text("old")
    before = {path.name for path in folder.iterdir()}
    left, real = [step], {"replace": os.replace, "unlink": Path.unlink}

    def killed(name: str) -> Callable[..., Any]:
        def act(*arguments: Any, **options: Any) -> Any:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return real[name](*arguments, **options)

        return act

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed("replace"))
        patch.setattr(Path, "unlink", killed("unlink"))
        with contextlib.suppress(KeyboardInterrupt), replaced_file(folder, "report.html") as partial:
            partial.write_text("new")
    FolderContents(folder).check(SHAREABLE)  # nothing in it has another checksum than the listed one
    assert before - {path.name for path in folder.iterdir()} <= {"report.html"}
    with replaced_file(folder, "report.html") as partial:
        partial.write_text("again")
    FolderContents(folder).check(SHAREABLE)
    assert (folder / "report.html").read_text() == "again"
    assert {path.name for path in folder.iterdir()} == before


@pytest.mark.parametrize(("step", "has_list"), [(0, True), (1, True), (2, True), (0, False), (1, False)])
def test_a_file_that_cannot_be_replaced_stays(
    step: int, has_list: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with replaced_file(folder, "report.html") as partial:
        partial.write_text("old")
    if not has_list:
        (folder / SUMS).unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    left, real = [step], os.replace

    def replace(old: Path, new: Path) -> None:
        left[0] -= 1
        if left[0] == -1:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(old, new)

    monkeypatch.setattr("os.replace", replace)
    with pytest.raises(OSError, match="cross-device"), replaced_file(folder, "report.html") as partial:
        partial.write_text("new")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert list(folder.parent.iterdir()) == [folder]


def test_the_top_folder_of_a_disk_is_refused_before_any_work_is_done(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be renamed, and nothing beside it can be renamed into it."""
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path) == folder)
    files = {path.name for path in folder.iterdir()}
    text = f"{folder} is the top folder of a disk or volume, which cannot be replaced as a whole. Give a path in it"
    for arguments in (["fit", "none.h5ad", "-o", folder, "--overwrite"], ["report", folder]):
        assert_refused(geneae(*arguments), text)
    with pytest.raises(InputError, match="is the top folder of a disk"), new_files(folder) as partial:
        (partial / "seeds.csv").write_text("new")
    assert {path.name for path in folder.iterdir()} == files


@pytest.mark.parametrize("use", ["replaced_file", "new_files", "new_folder"])
def test_a_process_that_is_killed_at_any_step_blocks_no_later_one(use: str, folder: Path) -> None:
    """In a process of its own, because one with the threads of other tests should not be divided."""
    (folder / "config.json").unlink()  # tables can be added to what is no model
    quiet = ["-W", "ignore:This process:DeprecationWarning"]  # Python 3.12 warns of threads, which NumPy has
    command = [sys.executable, *quiet, killed_steps.__file__, use, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 5
    assert has_theirs(folder)
