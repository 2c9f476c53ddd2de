"""A file that changes while it is in use is noticed, whatever the command and however it changes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
from commands import FLAGS, assert_refused, geneae
from conftest import simulate
from scipy import sparse

from geneae import read_profiles
from geneae.data.backed import BackedMatrix, canonical, read_rows, row_digests
from geneae.data.reading import check_unchanged, stamp_of
from geneae.folders import copies
from geneae.settings.errors import InputChanged
from geneae.training.checkpoints import Checkpoint, is_unfinished

FREE = ["--basis", "free", "--init", "random", "--stream", "yes", *FLAGS, "--batch-size", "16"]


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    """Other values in place; size, number and all else of the file stay."""
    with h5py.File(path) as file:
        chunk = file["X/data"].id.get_chunk_info(0)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        values = np.frombuffer(raw.read(chunk.size), np.float32)
        raw.seek(chunk.byte_offset)
        raw.write(values[::-1].tobytes())


def zero(path: Path) -> None:
    """The last tenth of the file in zeros, as after a copy that was cut off."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size * 9 // 10)
        file.write(bytes(path.stat().st_size - file.tell()))


def replace(path: Path) -> None:
    """Another file takes the name; what was opened stays as it was."""
    simulate(400, 60, seed=9).write_h5ad(path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


CHANGES: dict[str, Callable[[Path], None]] = {f.__name__: f for f in (truncate, overwrite, zero, replace)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """400 profiles x 60 genes in a file."""
    simulate(400, 60).write_h5ad(tmp_path / "data.h5ad")
    return tmp_path / "data.h5ad"


def after_reads(number: int, change: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a change before a reading, counted from the first one after all profiles have been looked at."""
    real, left = BackedMatrix._read, [number]

    def read(self: BackedMatrix, start: int, stop: int) -> sparse.csr_matrix:
        left[0] -= 1
        if left[0] == -1:
            change()
        return real(self, start, stop)

    monkeypatch.setattr(BackedMatrix, "_read", read)


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_streamed_fit_ends_with_one_sentence_and_keeps_its_checkpoint(
    change: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = Checkpoint.is_due, [6]

    def is_due(self: Checkpoint) -> bool:
        left[0] -= 1
        if not left[0]:
            shutil.copy(path, tmp_path / "before.h5ad")
            CHANGES[change](path)
        return real(self)

    monkeypatch.setattr(Checkpoint, "is_due", is_due)
    result = geneae("fit", path, "-o", tmp_path / "run", *FREE)
    assert_refused(result, " changed while it was in use: ")
    assert f" The training so far is saved in {tmp_path / 'run'}; --resume goes on with it" in result.stderr
    assert is_unfinished(tmp_path / "run")
    monkeypatch.undo()
    shutil.copy(tmp_path / "before.h5ad", path)
    assert geneae("fit", path, "-o", tmp_path / "run", *FREE, "--resume").exit_code == 0


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("command", ["embed", "evaluate", "inspect"])
def test_a_change_at_any_reading_is_noticed_and_nothing_is_written(
    command: str, change: str, path: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / ("out.csv" if command == "embed" else "out")
    arguments: list[object] = [command, path, "--stream", "yes"]
    if command != "inspect":
        arguments = [command, model_folder, path, "--stream", "yes", "--min-overlap", "0", "-o", output]
    after_reads(0, lambda: CHANGES[change](path), monkeypatch)
    result = geneae(*arguments)
    assert result.exit_code == 2, result.output
    assert " changed while it was in use: " in result.stderr
    assert "Traceback" not in result.output
    assert not output.exists()


def test_a_file_in_memory_that_changes_before_its_copy_is_noticed(
    path: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = copies.read_whole

    def read(data: str) -> anndata.AnnData:
        replace(path)
        return real(data)

    monkeypatch.setattr(copies, "read_whole", read)
    result = geneae("embed", model_folder, path, "-o", tmp_path / "out.h5ad", "--min-overlap", "0")
    assert_refused(result, "its content is not what it was when it was first read. Run again with a file that stays")
    assert not (tmp_path / "out.h5ad").exists()


def test_the_same_content_at_another_time_is_no_change(path: Path) -> None:
    profiles = read_profiles(path, stream="yes")
    before = stamp_of(path)
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").rename(path)
    assert stamp_of(path) != before
    check_unchanged(profiles)
    replace(path)
    with pytest.raises(InputChanged, match="its content is not what it was when it was first read"):
        check_unchanged(profiles)
    check_unchanged(read_profiles(path))


def test_a_zarr_that_loses_a_chunk_is_noticed(tmp_path: Path) -> None:
    """zarr reads a chunk that is not there as zeros, without a word."""
    path = tmp_path / "data.zarr"
    simulate(400, 60).write_zarr(path)
    profiles = read_profiles(path, stream="yes")
    stamp = stamp_of(path)
    chunk = max((file for file in (path / "X" / "data").rglob("*") if file.is_file()), key=lambda f: f.stat().st_size)
    chunk.unlink()
    assert stamp_of(path) != stamp
    with pytest.raises(InputChanged, match="is not what it was when it was first read"):
        profiles.take(np.arange(400))


def test_a_digest_is_that_of_the_row_alone_and_sees_every_small_change() -> None:
    matrix = canonical(sparse.csr_matrix(simulate(200, 50).X))
    whole = row_digests(matrix)
    assert whole.dtype == np.uint32
    np.testing.assert_array_equal(row_digests(matrix[[7, 3]]), whole[[7, 3]])
    dense, rng = matrix.toarray(), np.random.default_rng(0)
    for _ in range(300):
        row, (one, other) = int(rng.integers(200)), rng.choice(50, 2, replace=False)
        changed = dense[row].copy()
        changed[one] += 1 if rng.random() < 0.5 else 0
        changed[[one, other]] = changed[[other, one]]
        found = row_digests(canonical(sparse.csr_matrix(changed[None])))[0]
        assert (found == whole[row]) == bool((changed == dense[row]).all())
    assert row_digests(canonical(sparse.csr_matrix(np.zeros((2, 50), np.float32)))).tolist() == [0, 0]


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint8"])
@pytest.mark.parametrize("form", ["csr", "dense"])
def test_whatever_the_type_of_the_file_its_rows_are_found_again(dtype: str, form: str, tmp_path: Path) -> None:
    """Values that round, duplicates that add up and numbers too small for float32 are no changes."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 3, (90, 20)) * (rng.random((90, 20)) * 1e-3 if dtype[0] == "f" else 1)
    values[4, 5] = 1e-60 if dtype == "float64" else 1
    matrix = values.astype(dtype) if form == "dense" else sparse.csr_matrix(values.astype(dtype))
    anndata.AnnData(matrix).write_h5ad(tmp_path / "data.h5ad")
    if form == "csr":
        with h5py.File(tmp_path / "data.h5ad", "r+") as file:
            file["X/indices"][1] = file["X/indices"][0]  # a gene twice in one profile
    profiles = read_profiles(tmp_path / "data.h5ad", stream="yes")
    again = profiles.take(np.arange(90))
    assert again.fingerprint == profiles.fingerprint == read_profiles(tmp_path / "data.h5ad").fingerprint
    assert read_rows(profiles.matrix._source, 0, 3).dtype == np.float32  # type: ignore[union-attr]
