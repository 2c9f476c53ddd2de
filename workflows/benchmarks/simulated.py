"""Simulated counts: in memory, or as an .h5ad file written by blocks, of any size in little memory.

    python workflows/benchmarks/simulated.py 100000 20000 FILE.h5ad

Log-normal gene means and depths, low-rank structure, about `density` of the values not zero. Every block has random
numbers of its own, so that the number of threads changes nothing.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import h5py
import numpy as np
from scipy import optimize, sparse

FACTORS = 12  # rank of the simulated structure
CHUNK = 250  # profiles simulated at a time: 40 MB of rates at 20,000 genes
AT_ONCE = 8  # blocks waiting to be written
STORED = 2**20  # values in a chunk of the file


def simulate(n_profiles: int, n_genes: int, density: float, seed: int, threads: int = 2) -> Iterator[sparse.csr_matrix]:
    """Poisson counts, float32 CSR, in blocks of 250 profiles; never dense as a whole.

    Parameters
    ----------
    n_profiles, n_genes
        Size.
    density
        Share of values that are not zero, 0 to 1; met on average.
    seed
        Of everything.
    threads
        Blocks drawn at a time.
    """
    rng = np.random.default_rng(seed)
    by_gene = rng.normal(0, 2, n_genes).astype(np.float32)
    loadings = rng.normal(0, 0.6 / FACTORS**0.5, (FACTORS, n_genes)).astype(np.float32)

    def rates(block: int) -> tuple[np.ndarray, np.random.Generator]:
        own = np.random.default_rng((seed, block))
        size = min(CHUNK, n_profiles - block * CHUNK)
        factors = own.standard_normal((size, FACTORS), dtype=np.float32)
        depth = own.normal(0, 0.35, (size, 1)).astype(np.float32)
        return np.exp(factors @ loadings + by_gene + depth), own

    first = rates(0)[0]
    level = np.float32(
        np.exp(optimize.brentq(lambda at: float(-np.expm1(-first * np.exp(at)).mean()) - density, -20, 20))
    )

    def draw(block: int) -> sparse.csr_matrix:
        expected, own = rates(block)
        return sparse.csr_matrix(own.poisson(expected * level).astype(np.float32))

    blocks = range(-(-n_profiles // CHUNK))
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(blocks), AT_ONCE):
            yield from pool.map(draw, blocks[start : start + AT_ONCE])


def write_simulated(
    path: Path, n_profiles: int, n_genes: int, density: float = 0.1, seed: int = 0, compression: str | None = None
) -> None:
    """An .h5ad of simulated counts, CSR, appended block by block; a file that is there already is kept.

    It takes its name when it is whole, so that a write that was interrupted is done again.
    """
    if path.exists():
        return
    partial = path.with_suffix(".partial")
    with h5py.File(partial, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name, letter, number in (("obs", "p", n_profiles), ("var", "g", n_genes)):
            _write_names(file, name, [f"{letter}{at}" for at in range(number)])
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": (n_profiles, n_genes)})
        arrays = {
            name: group.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(STORED,), compression=compression)
            for name, dtype in (("data", "f4"), ("indices", "i4"))
        }
        ends = [np.zeros(1, np.int64)]
        for block in simulate(n_profiles, n_genes, density, seed):
            begin = int(ends[-1][-1])
            ends.append(begin + block.indptr[1:].astype(np.int64))
            for name, array in arrays.items():
                array.resize((begin + block.nnz,))
                array[begin:] = getattr(block, name)
        group.create_dataset("indptr", data=np.concatenate(ends))
    partial.replace(path)


def _write_names(file: h5py.File, group_name: str, names: list[str]) -> None:
    """An annotation without columns, as anndata stores it."""
    group = file.create_group(group_name)
    group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
    group.attrs["column-order"] = np.array([], dtype=h5py.string_dtype())
    index = group.create_dataset("_index", data=names, dtype=h5py.string_dtype())
    index.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})


@click.command(context_settings={"show_default": True})
@click.argument("profiles", type=click.IntRange(1))
@click.argument("genes", type=click.IntRange(1))
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--density", default=0.10, help="Share of values that are not zero.")
@click.option("--seed", default=0)
@click.option("--compression", type=click.Choice(["gzip"]), help="Of the file; none without it.")
def main(profiles: int, genes: int, path: Path, density: float, seed: int, compression: str | None) -> None:
    """Write simulated counts of PROFILES x GENES to PATH, unless it is there."""
    write_simulated(path, profiles, genes, density, seed, compression)


if __name__ == "__main__":
    main()
