"""Rows in a file are the rows in memory."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
from anndata.io import sparse_dataset
from scipy import sparse

from geneae.data.backed import SPAN, BackedMatrix, ahead, canonical, chunks, read_rows, select_columns


@pytest.fixture
def matrix() -> sparse.csr_matrix:
    """300 x 40, a fifth of it not zero; one row is empty."""
    matrix = sparse.random(300, 40, 0.2, format="csr", rng=np.random.default_rng(0), dtype=np.float32)
    matrix.data[:] = np.random.default_rng(1).integers(1, 9, matrix.nnz)
    matrix.data[matrix.indptr[7] : matrix.indptr[8]] = 0
    matrix.eliminate_zeros()
    return canonical(sparse.csr_matrix(matrix))


@pytest.fixture
def backed(matrix: sparse.csr_matrix, tmp_path: Path) -> BackedMatrix:
    """The same in a file."""
    anndata.AnnData(matrix).write_h5ad(tmp_path / "x.h5ad")
    source = sparse_dataset(h5py.File(tmp_path / "x.h5ad")["X"])
    return BackedMatrix(source, np.arange(300), np.diff(matrix.indptr))


def same(one: sparse.csr_matrix, other: sparse.csr_matrix) -> bool:
    return bool(one.shape == other.shape and one.has_canonical_format and (one != other).nnz == 0)


def test_all_rows_come_back(matrix: sparse.csr_matrix, backed: BackedMatrix) -> None:
    assert same(backed.read(), matrix)
    assert backed.shape == matrix.shape
    assert backed.nnz == matrix.nnz


@pytest.mark.parametrize(
    "rows",
    [[3], [5, 2, 290, 7], [0, 0, 2], [4, 9, 4, 4], list(range(0, 300, 11)), list(range(299, -1, -1)), slice(4, 50)],
    ids=str,
)
def test_some_rows_come_in_the_order_asked_for(
    rows: Any, matrix: sparse.csr_matrix, backed: BackedMatrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geneae.data.backed.SPAN", 64)
    assert same(backed[rows].read(), canonical(matrix[rows]))
    assert (backed[rows].lengths == np.diff(matrix[rows].indptr)).all()


def test_columns_are_chosen_once_for_many_rows_far_apart(
    matrix: sparse.csr_matrix, backed: BackedMatrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geneae.data.backed.SPAN", 16)
    monkeypatch.setattr("geneae.data.backed.GAP", 0)
    chosen: list[int] = []

    def count(block: sparse.csr_matrix, columns: np.ndarray) -> sparse.csr_matrix:
        chosen.append(block.shape[0])
        return select_columns(block, columns)

    monkeypatch.setattr("geneae.data.backed.select_columns", count)
    rows, columns = np.arange(0, 300, 12), np.array([3, 39, 0])
    assert same(backed[rows].select(columns).read(), canonical(matrix[rows][:, columns]))
    assert sum(chosen) == len(rows)
    assert len(chosen) == 2


def test_a_choice_of_a_choice(matrix: sparse.csr_matrix, backed: BackedMatrix) -> None:
    first, second = np.arange(10, 200, 3), np.array([40, 0, 7])
    assert same(backed[first][second].read(), matrix[first][second])


def test_columns_are_those_of_select_columns(matrix: sparse.csr_matrix, backed: BackedMatrix) -> None:
    columns = np.array([5, -1, 0, 39])
    assert same(backed.select(columns)[[9, 1]].read(), select_columns(matrix[[9, 1]], columns))
    again = np.array([3, -1, 0])
    dense = matrix.toarray()[:, columns * (columns >= 0)] * (columns >= 0)
    dense = dense[:, again * (again >= 0)] * (again >= 0)
    assert same(backed.select(columns).select(again).read(), canonical(sparse.csr_matrix(dense)))


def test_far_rows_are_read_apart(
    matrix: sparse.csr_matrix, backed: BackedMatrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where fewer unwanted values lie between two rows than a new read is worth, they are read with them."""
    monkeypatch.setattr("geneae.data.backed.GAP", matrix[6:100].nnz - 1)
    seen: list[tuple[int, int]] = []

    def watch(source: Any, start: int, stop: int) -> sparse.csr_matrix:
        seen.append((start, stop))
        return read_rows(source, start, stop)

    monkeypatch.setattr("geneae.data.backed.read_rows", watch)
    backed[[0, 3, 5, 100, 101, 299]].read()
    assert seen == [(0, 6), (100, 102), (299, 300)]
    monkeypatch.setattr("geneae.data.backed.GAP", matrix[6:100].nnz)
    backed[[0, 3, 5, 100]].read()
    assert seen[3:] == [(0, 101)]
    assert SPAN >= 1024


@pytest.mark.parametrize("size", [1, 7, 300, 1000])
def test_chunks_are_all_rows_once(size: int, matrix: sparse.csr_matrix, backed: BackedMatrix) -> None:
    for source in (matrix, backed):
        found = list(chunks(source, size))
        assert same(canonical(sparse.vstack([rows for _, rows in found], format="csr")), matrix)
        assert [place.start for place, _ in found] == list(range(0, 300, size))


def test_no_rows_give_no_chunks(backed: BackedMatrix) -> None:
    assert list(chunks(backed[[]], 5)) == []


def test_a_dense_matrix_of_half_precision_in_a_file(tmp_path: Path) -> None:
    dense = np.array([[0, 1.5, 2], [0, 0, 0], [3, 0, 0]], np.float16)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        source = file.create_dataset("x", data=dense)
        backed = BackedMatrix(source, np.arange(3), (dense != 0).sum(1))
        assert (backed[[2, 0]].read().toarray() == dense[[2, 0]]).all()


def test_items_made_ahead_are_the_same_and_an_error_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("the sixth")

    seen = []
    with pytest.raises(ValueError, match="the sixth"):
        seen.extend(ahead(items()))
    coming = ahead(items())
    assert [next(coming) for _ in range(5)] == list(range(5))
    assert list(ahead(iter(()))) == []


def test_what_is_left_unfinished_waits_for_no_thread() -> None:
    """Garbage is collected anywhere, also where Python holds the lock that the end of a thread takes: a deadlock."""
    may_go_on = Event()

    def items() -> Iterator[int]:
        yield 0
        may_go_on.wait()

    coming = ahead(items())
    assert next(coming) == 0
    closing = Thread(target=coming.close, daemon=True)  # type: ignore[attr-defined]
    closing.start()
    closing.join(timeout=20)
    waits = closing.is_alive()
    may_go_on.set()
    assert not waits


def test_the_next_item_is_made_while_one_is_worked_on() -> None:
    is_made = Event()

    def items() -> Iterator[int]:
        yield 0
        is_made.set()
        yield 1

    seen = []
    for item in ahead(items()):
        assert item or is_made.wait(timeout=60)
        seen.append(item)
    assert seen == [0, 1]
