"""How fast profiles can be read, and nothing else: in memory, and from a file by scDataset and by anndata's AnnLoader.

    python workflows/benchmarks/reading.py FILE.h5ad --batch-size 128 --batch-size 1024

Batches come in random order, as training needs them. Those in memory, of scDataset and "in order" stay sparse;
AnnLoader makes them dense, as it does by default. Each is read for some seconds.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import click
import h5py
import numpy as np
from anndata.experimental import AnnLoader
from anndata.io import sparse_dataset
from measuring import OUTPUT, Row, facts, rate_row, show
from scdataset import BlockShuffling, scDataset
from scipy import sparse

SECONDS = 4.0  # of each reader, and at least one batch
BLOCK = 64  # neighbours that scDataset reads together
FETCH = 16_384  # profiles that scDataset reads at a time, at most: 0.3 GB at 2,000 values each
ORDERED = 4096  # profiles at a time when read in order
TURNS = 2  # of each reader; the fill of the file cache comes before


class Rows:
    """Profiles of an .h5ad file by position, as CSR: what scDataset indexes."""

    def __init__(self, group: h5py.Group) -> None:
        self._matrix = sparse_dataset(group)

    def __len__(self) -> int:
        return int(self._matrix.shape[0])

    def __getitem__(self, rows: np.ndarray) -> sparse.csr_matrix:
        """Some of them, in increasing order; neighbours are read in one go."""
        wanted = np.zeros(len(self), dtype=bool)
        wanted[rows] = True
        return sparse.csr_matrix(self._matrix[wanted])


def in_memory(matrix: sparse.csr_matrix, batch_size: int) -> Iterator[sparse.csr_matrix]:
    """Random batches of a matrix that is in memory."""
    order = np.random.default_rng(0).permutation(matrix.shape[0])
    for start in range(0, len(order), batch_size):
        yield matrix[order[start : start + batch_size]]


def in_order(group: h5py.Group) -> Iterator[sparse.csr_matrix]:
    """Neighbouring profiles one after the other: as fast as a file can be read at all."""
    ends = group["indptr"][:]
    for start in range(0, len(ends) - 1, ORDERED):
        own = ends[start : start + ORDERED + 1]
        values, genes = (group[name][own[0] : own[-1]] for name in ("data", "indices"))
        yield sparse.csr_matrix((values, genes, own - own[0]), shape=(len(own) - 1, group.attrs["shape"][1]))


def by_scdataset(rows: Rows, batch_size: int) -> Iterator[sparse.csr_matrix]:
    """Batches shuffled by blocks."""
    factor = max(1, FETCH // batch_size)
    yield from scDataset(rows, BlockShuffling(BLOCK), batch_size, fetch_factor=factor, seed=0)


def by_annloader(path: Path, batch_size: int) -> Iterator[np.ndarray]:
    """Random dense batches of anndata's loader."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, but what people use
        adata = anndata.read_h5ad(path, backed="r")
        for batch in AnnLoader(adata, batch_size=batch_size, shuffle=True):
            yield batch.X
        adata.file.close()


def rate(batches: Iterator[sparse.csr_matrix | np.ndarray]) -> float:
    """Profiles per second over some seconds, or until the batches end."""
    start, seen, elapsed = time.perf_counter(), 0, 0.0
    for batch in batches:
        seen += batch.shape[0]
        elapsed = time.perf_counter() - start
        if elapsed > SECONDS:
            break
    return seen / elapsed


def reading_speed(path: Path, batch_size: int, setting: str) -> list[Row]:
    """Profiles per second by reader."""
    with h5py.File(path, "r") as file:
        group = file["X"]
        matrix = sparse.csr_matrix(sparse_dataset(group)[:ORDERED])  # whose batches cost what those of all would
        readers: dict[str, Callable[[], Iterator[sparse.csr_matrix | np.ndarray]]] = {
            "reading, in memory": lambda: in_memory(matrix, batch_size),
            "reading, from file in order": lambda: in_order(group),
            "reading, scDataset": lambda: by_scdataset(Rows(group), batch_size),
            "reading, AnnLoader (dense)": lambda: by_annloader(path, batch_size),
        }
        rate(in_order(group))
        return [rate_row(what, [rate(reader()) for _ in range(TURNS)], setting) for what, reader in readers.items()]


@click.command(context_settings={"show_default": True})
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--batch-size", "batch_sizes", multiple=True, default=[128, 1024])
@OUTPUT
def main(paths: tuple[Path, ...], batch_sizes: tuple[int, ...], output: Path | None) -> None:
    """Measure how fast the profiles of each of PATHS (.h5ad with CSR X) can be read."""
    rows = []
    for path in paths:
        for batch_size in batch_sizes:
            rows += reading_speed(path, batch_size, f"{path.name}, batch {batch_size:,}")
    show(rows, facts(), output)


if __name__ == "__main__":
    main()
