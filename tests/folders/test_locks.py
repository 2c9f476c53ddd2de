import errno
import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from geneae import Autoencoder
from geneae.cli.main import main
from geneae.folders.locks import check_no_writer, has_other_writer, lock_of, only_writer
from geneae.folders.manifest import SUMS
from geneae.folders.outputs import check_parent, finish_swap, new_file, new_folder
from geneae.settings.errors import InputError

WRITER = """
import contextlib, sys
from pathlib import Path
from geneae.folders.locks import only_writer

with contextlib.ExitStack() as stack:
    for path in sys.argv[1:]:
        stack.enter_context(only_writer(Path(path)))
    print("locked", flush=True)
    sys.stdin.read()
"""
NAMES = ("run", "run.csv", "run.zip")
TAKEN = "is being written by another geneae process. Wait until it has finished, or choose another output."


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which has the locks of three outputs until it ends."""
    command = [sys.executable, "-c", WRITER, *(str(tmp_path / name) for name in NAMES)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_what_another_process_writes_is_refused_and_left_alone(
    writer: subprocess.Popen[str], fitted: Autoencoder, tmp_path: Path
) -> None:
    path, partial = tmp_path / "run", tmp_path / ".run.geneae-partial"
    partial.mkdir()
    assert has_other_writer(path)
    for refused in (only_writer(path), new_folder(path, overwrite=True), new_file(path, overwrite=True)):
        with pytest.raises(InputError, match=TAKEN), refused:
            pass
    with pytest.raises(InputError, match=TAKEN):
        check_no_writer(path)
    with pytest.raises(InputError, match=TAKEN):
        fitted.save(path, overwrite=True)
    finish_swap(path)
    assert partial.is_dir()
    with only_writer(tmp_path / "other"):
        check_no_writer(tmp_path / "other")


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("fit DATA", "run"),
        ("fit DATA --overwrite", "run"),
        ("fit DATA --resume", "run"),
        ("compare DATA", "run"),
        ("compare MODEL MODEL", "run"),
        ("sweep-cut DATA", "run"),
        ("evaluate MODEL DATA", "run"),
        ("metric DATA --label kind", "run"),
        ("embed MODEL DATA", "run.csv"),
        ("share MODEL", "run.zip"),
    ],
)
def test_commands_say_so_and_leave_nothing(
    command: str,
    name: str,
    writer: subprocess.Popen[str],
    counts_path: Path,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("geneae.fitting.compare.gather", lambda *_: [])  # one model twice is no grid
    places = {"DATA": str(counts_path), "MODEL": str(model_folder)}
    words = [places.get(word, word) for word in command.split()]
    said = CliRunner().invoke(main, [*words, "-o", str(tmp_path / name)])
    assert (said.exit_code, said.output) == (2, f"Error: the output {tmp_path / name} {TAKEN}\n")
    assert {path.name for path in tmp_path.iterdir()} == {f".{name}.geneae-lock" for name in NAMES}


def test_a_writer_that_was_killed_keeps_nobody_out(writer: subprocess.Popen[str], tmp_path: Path) -> None:
    path = tmp_path / "run"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert lock_of(path).is_file()
    check_no_writer(path)
    with new_folder(path) as partial:
        (partial / "metrics.csv").touch()
    assert path.is_dir()
    assert not lock_of(path).exists()


def test_a_process_may_lock_in_several_steps_and_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "run"
    with only_writer(path), only_writer(path):
        assert lock_of(path).is_file()
    assert list(tmp_path.iterdir()) == []  # folders that were made for the lock alone go with it
    with only_writer(path):
        path.touch()
    assert [file.name for file in path.parent.iterdir()] == ["run"]


def test_the_lock_is_that_of_what_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "run")
    assert lock_of(tmp_path / "link") == lock_of(tmp_path / "run")


def test_where_no_lock_can_be_made_the_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = pytest.raises(InputError, match=r"cannot be created: .*(Not a directory|File exists)")
    with refused, only_writer(tmp_path / "file" / "run"):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.EIO])
def test_where_the_file_system_knows_no_locks_outputs_are_written_all_the_same(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: int) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr("fcntl.flock", flock)
    path = tmp_path / "run"
    with only_writer(path), new_folder(path) as partial:
        assert not has_other_writer(path)
        (partial / "metrics.csv").touch()
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_a_lock_service_that_fails_while_a_run_is_written_does_not_fail_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: int) -> None:
        raise OSError(errno.ENOLCK, "no locks any more")

    with new_folder(tmp_path / "run") as partial:
        (partial / "metrics.csv").touch()
        monkeypatch.setattr("fcntl.flock", flock)
    assert [file.name for file in tmp_path.iterdir()] == ["run"]
    assert {file.name for file in (tmp_path / "run").iterdir()} == {"metrics.csv", SUMS}


def test_a_folder_in_which_nothing_can_be_made_has_no_other_writer() -> None:
    text = "the output /proc/run cannot be created"
    with pytest.raises(InputError, match=f"^{text}. Choose"), only_writer(Path("/proc/run")):
        pass
    with pytest.raises(InputError, match=f"^{text}: /proc is not a writable folder. Choose"):
        check_parent(Path("/proc/run"))


def test_a_file_that_its_writer_is_just_removing_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, left = tmp_path / "run", [1]
    real = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        if left.pop() if left else 0:
            lock_of(path).unlink()  # between being opened and being locked
        real(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", flock)
    with only_writer(path):
        assert lock_of(path).is_file()
    assert list(tmp_path.iterdir()) == []
