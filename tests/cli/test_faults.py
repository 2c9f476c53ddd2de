"""Errors of the system while a command runs: one sentence, exit code 1, and nothing half-written."""

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from commands import FLAGS, Run, geneae, there


@contextlib.contextmanager
def limited(kind: int, number: int) -> Iterator[None]:
    """A limit of this process, in its own units, inside this context."""
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


def assert_stopped(result: Result, text: str) -> None:
    """One sentence on standard error, perhaps with the command that resumes, and exit code 1."""
    assert result.exit_code == 1, (result.output, result.exception)
    assert result.stderr.startswith(f"Error: {text}"), result.stderr
    assert "Traceback" not in result.output


COMMANDS = {
    "embed .h5ad": ("embed", "out.h5ad", []),
    "embed .csv": ("embed", "out.csv", []),
    "embed .parquet": ("embed", "out.parquet", []),
    "embed .npy": ("embed", "out.npy", []),
    "embed from the file": ("embed", "out.h5ad", ["--stream", "yes", "--reconstruct"]),
    "evaluate": ("evaluate", "judged", []),
    "share": ("share", "out.zip", []),
    "metric": ("metric", "metric", ["--label", "kind", "--epochs", "2"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_that_grows_too_large_is_one_sentence_and_leaves_nothing(
    run: Run, counts_path: Path, name: str, tmp_path: Path
) -> None:
    command, output, flags = COMMANDS[name]
    given = {"share": [run.folder], "metric": [counts_path]}.get(command, [run.folder, counts_path])
    with limited(resource.RLIMIT_FSIZE, 600):
        result = geneae(command, *given, "-o", tmp_path / output, *flags)
    assert_stopped(result, "")
    assert result.stderr.count("\n") == 1
    assert there(tmp_path) == set()


@pytest.mark.parametrize("size", [600, 9_000, 30_000, 120_000])
def test_a_fit_that_cannot_write_is_one_sentence_and_goes_on_later(
    run: Run, counts_path: Path, size: int, tmp_path: Path
) -> None:
    arguments = ["fit", counts_path, "--loss", "cosine", "-o", tmp_path / "run", *FLAGS]
    with limited(resource.RLIMIT_FSIZE, size):
        result = geneae(*arguments)
    if result.exit_code:
        assert_stopped(result, "a file would be larger than is allowed. Raise the limit (ulimit -f), or write")
        assert there(tmp_path) in (set(), {"run", "run/checkpoint.safetensors"})
    assert geneae(*arguments, "--resume").exit_code == 0
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (run.folder / "metrics.csv").read_bytes()


def test_too_many_open_files_are_one_sentence(run: Run, counts_path: Path, tmp_path: Path) -> None:
    spare = os.open(os.devnull, os.O_RDONLY)
    os.close(spare)
    with limited(resource.RLIMIT_NOFILE, spare):
        result = geneae("embed", run.folder, counts_path, "-o", tmp_path / "out.csv")
    assert_stopped(result, "too many files are open")
    assert "Raise the limit (ulimit -n), or run fewer jobs at a time.\n" in result.stderr
    assert there(tmp_path) == set()


LOADING = "there is not enough memory: loading needs "


@pytest.mark.parametrize("megabytes", [300, 700, 800, 1000])
def test_too_little_address_space_is_said_before_libraries_that_would_abort_or_never_end_are_loaded(
    run: Run, counts_path: Path, megabytes: int
) -> None:
    def started(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from geneae.cli.main import main; main()", *map(str, words)]
        limit = ["sh", "-c", f'ulimit -v {megabytes * 1000}; exec "$@"', "sh"]
        return subprocess.run([*limit, *command], capture_output=True, text=True, timeout=60)

    for words in (("inspect", counts_path), ("report", run.folder), ("fit", counts_path)):
        ended = started(*words)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr.startswith(f"Error: {LOADING}")
        assert ended.stderr.count("\n") == 1
    assert started("fit", "--help").returncode == 0
