"""Profiles of a real data set, many times over with molecules drawn anew: a file of any size in little memory.

    python workflows/benchmarks/resampled.py DATA.h5ad 1000000 20000 FILE.h5ad

Every profile is one of DATA in turn, of which each value becomes a Poisson number around it, and its neighbours in the
same block are other profiles; genes are those of DATA, filled up with genes that nobody has. `.h5ad`, or `.zarr` in
shards.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anndata
import click
import h5py
import numpy as np
import pandas as pd
import zarr
from anndata.io import write_elem
from scipy import sparse

BLOCK = 10_000  # profiles drawn at a time
STORED = 2**20  # values in a chunk of an .h5ad, and in a shard's chunk
SHARD = 2**24  # values in a shard


def resampled(counts: sparse.csr_matrix, n_profiles: int, seed: int) -> Iterator[sparse.csr_matrix]:
    """Counts, float32 CSR, in blocks; the same for the same seed.

    Parameters
    ----------
    counts
        (n_known, n_genes) counts of real profiles.
    n_profiles
        Number of profiles to draw.
    seed
        Of the molecules and the order.
    """
    for start in range(0, n_profiles, BLOCK):
        rng = np.random.default_rng((seed, start))
        rows = rng.integers(0, counts.shape[0], min(BLOCK, n_profiles - start))
        block = counts[rows].astype(np.float32)
        block.data = rng.poisson(block.data).astype(np.float32)
        block.eliminate_zeros()
        yield block


def real_counts(path: Path, n_genes: int) -> sparse.csr_matrix:
    """(n_profiles, n_genes) counts of an .h5ad: its genes with most molecules, or all and columns of zeros."""
    counts = sparse.csr_matrix(anndata.read_h5ad(path).X)
    most = np.sort(np.argsort(-np.asarray(counts.sum(0)).ravel(), kind="stable")[:n_genes])
    chosen = counts[:, most]
    return sparse.csr_matrix((chosen.data, chosen.indices, chosen.indptr), shape=(counts.shape[0], n_genes))


def write_resampled(path: Path, data: Path, n_profiles: int, n_genes: int, seed: int = 0) -> None:
    """An .h5ad or a sharded .zarr of resampled profiles; one that is there already is kept."""
    if path.exists():
        return
    partial = path.with_name(f"{path.stem}_partial{path.suffix}")
    blocks = resampled(real_counts(data, n_genes), n_profiles, seed)
    with h5py.File(partial, "w") if path.suffix == ".h5ad" else nullcontext(zarr.open_group(partial, mode="w")) as root:
        root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name, letter, number in (("obs", "p", n_profiles), ("var", "g", n_genes)):
            _write(root, name, pd.DataFrame(index=[f"{letter}{at}" for at in range(number)]))
        group = root.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [n_profiles, n_genes]})
        arrays = {name: _growing(group, name, dtype) for name, dtype in (("data", "f4"), ("indices", "i4"))}
        ends = [np.zeros(1, np.int64)]
        for block in blocks:
            begin = int(ends[-1][-1])
            ends.append(begin + block.indptr[1:].astype(np.int64))
            for name, array in arrays.items():
                array.resize((begin + block.nnz,))
                array[begin:] = getattr(block, name)
        _write(group, "indptr", np.concatenate(ends))
    partial.replace(path)


def _write(group: Any, name: str, value: Any) -> None:
    with anndata.settings.override(auto_shard_zarr_v3=False):  # without it, a warning about what will be the default
        write_elem(group, name, value)


def _growing(group: Any, name: str, dtype: str) -> Any:
    if isinstance(group, h5py.Group):
        return group.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(STORED,))
    return group.create_array(name, shape=(0,), dtype=dtype, chunks=(STORED,), shards=(SHARD,))


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.argument("profiles", type=click.IntRange(1))
@click.argument("genes", type=click.IntRange(1))
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True)
def main(data: Path, profiles: int, genes: int, path: Path, seed: int) -> None:
    """Write PROFILES x GENES of DATA, resampled, to PATH, unless it is there."""
    write_resampled(path, data, profiles, genes, seed)


if __name__ == "__main__":
    main()
