"""AnnData to write into: the given one, all of a file of AnnData, or the matrix that was read of any other file."""

import warnings
from dataclasses import replace
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import sparse_dataset, write_elem
from scipy import sparse

from geneae.data.backed import chunks
from geneae.data.containers import check_all
from geneae.data.gene_names import made_unique, named_by
from geneae.data.profiles import Profiles
from geneae.settings.errors import InputError, reason_of

CHUNK = 1024  # profiles written at a time


def as_anndata(profiles: Profiles) -> anndata.AnnData:
    """Profiles in memory as AnnData, without a copy of their values."""
    var = pd.DataFrame(index=profiles.genes) if profiles.var is None else profiles.var
    return anndata.AnnData(profiles.matrix, obs=profiles.obs.copy(), var=var.copy())


def target_of(adata: anndata.AnnData, copy: bool) -> anndata.AnnData:
    """The AnnData to write into: the given one or a copy, which is in memory even where the given one is backed."""
    if not copy:
        return adata
    return adata.to_memory() if adata.isbacked else adata.copy()


def write_rows(path: Path, profiles: Profiles) -> None:
    """Write an .h5ad of profiles whose matrix is read a chunk at a time."""
    n_profiles, n_genes = profiles.matrix.shape
    nothing = sparse.csr_matrix((np.empty(0, np.float32), [], np.zeros(n_profiles + 1, int)), (n_profiles, n_genes))
    as_anndata(replace(profiles, matrix=nothing)).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["X"]
        for rows, matrix in chunks(profiles.matrix, CHUNK):
            if rows.start == 0:
                write_elem(file, "X", matrix)
            else:
                sparse_dataset(file["X"]).append(matrix)


def genes_of(profiles: Profiles, var: pd.DataFrame) -> pd.Index:
    """Names that the genes of a file or an AnnData have among profiles that were read from it."""
    column = None if profiles.origin is None else profiles.origin.choice.gene_names
    if column is not None and column in var.columns:
        var = named_by(var, column, profiles.source)
    return made_unique(pd.Index(var.index.astype(str), dtype=object))[0]


def read_whole(data: str) -> anndata.AnnData:
    """Everything in a file, none of it from elsewhere."""
    if not Path(data).is_dir():
        with h5py.File(data, "r") as file:
            check_all(file, data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # everything that matters was reported when the profiles were read
            return anndata.read_zarr(data) if Path(data).is_dir() else anndata.read_h5ad(data)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # HDF5, zarr, codecs and anndata raise errors without a common class
        reason = reason_of(error)
        raise InputError(
            f"an .h5ad output is a copy of {data}, but not all of it can be read: {reason}. Write an output that ends "
            "in .csv, .parquet or .npy, or remove that part of the file."
        ) from error
