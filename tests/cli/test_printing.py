"""What is printed, on outputs of every kind."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TextIO

import pytest
from commands import FILES, FLAGS, there

from geneae.cli.main import main
from geneae.cli.printing import complain, outlets, say


def status(*arguments: object) -> int:
    """Exit code of the command in this process, with the streams as they are."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(end.value.code or 0)


def unread_pipe() -> TextIO:
    """A pipe whose reader has gone, as after `| head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w")


def full_disk() -> TextIO:
    return open("/dev/full", "w")


OUTPUTS = {"closed pipe": (unread_pipe, 0), "full disk": (full_disk, 1)}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_a_run_is_complete_even_if_nobody_reads_what_it_prints(
    kind: str, counts_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, code = OUTPUTS[kind]
    with make() as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert status("fit", counts_path, "-o", tmp_path / "run", *FLAGS) == code
        monkeypatch.undo()
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    said = "Error: standard output could not be written: the disk is full. Free some space" if code else ""
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["fit", "--help"]])
def test_help_that_cannot_be_printed_is_no_traceback(
    kind: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, code = OUTPUTS[kind]
    with make() as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert status(*arguments) == code


def test_an_error_that_cannot_be_printed_keeps_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with full_disk() as output:
        monkeypatch.setattr(sys, "stderr", output)
        assert status("fit", tmp_path / "none.h5ad") == 2


def test_signs_that_an_encoding_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "latin-1"))
    with outlets() as unprinted:
        say("cosine ↑ of run\udcff")
        assert unprinted() is None
    assert written.getvalue() == rb"cosine \u2191 of run\udcff" + b"\n"


def test_control_characters_are_escaped_on_both_outputs(capsys: pytest.CaptureFixture[str]) -> None:
    say("first", "a name\nof two lines\x1b[2J")
    complain("left\u202e\nright")
    assert capsys.readouterr() == ("first\na name\\nof two lines\\x1b[2J\n", "left\\u202e\nright\n")


def test_control_characters_in_what_was_typed_are_escaped(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments in (["fitt\x1b[2J"], ["fit", tmp_path, "--basis", "p\x1b[2J"], ["fit", f"{tmp_path}/\x1b[2J.h5ad"]):
        assert status(*arguments) == 2
        said = capsys.readouterr().err
        assert "\x1b" not in said
        assert r"\x1b[2J" in said
    assert there(tmp_path) == set()


CLOSED = {"output": ">&-", "errors": "2>&-", "both": ">&- 2>&-", "all": "<&- >&- 2>&-"}
NEXT_NUMBER = """
import sys
from geneae.cli.printing import open_closed_streams

open_closed_streams()
print("nobody reads this"), print("nor this", file=sys.stderr)
with open(sys.argv[1], "wb") as file:
    file.write(str(file.fileno() > 2).encode())
"""


@pytest.mark.parametrize("closed", CLOSED)
def test_streams_that_are_closed_are_no_traceback_and_no_file_takes_their_place(closed: str, tmp_path: Path) -> None:
    line = f'exec "$@" {CLOSED[closed]}'
    for words, code in ((["--version"], 0), (["--nothing"], 2)):
        command = [sys.executable, "-m", "geneae.cli", *words]
        done = subprocess.run(["sh", "-c", line, "sh", *command], capture_output=True, text=True)
        assert done.returncode == code
        assert "Traceback" not in done.stderr
    command = [sys.executable, "-c", NEXT_NUMBER, str(tmp_path / "file")]
    done = subprocess.run(["sh", "-c", line, "sh", *command], capture_output=True, text=True, check=True)
    assert (tmp_path / "file").read_text() == "True"
