"""Matrices side by side in one AnnData: what each of them holds, by its first profiles."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.abc import CSCDataset, CSRDataset
from anndata.io import sparse_dataset
from scipy import sparse

from geneae.data.backed import canonical, stored_rows, supported
from geneae.data.matrix_check import CHUNK, Values
from geneae.data.profiles import Profiles
from geneae.data.row_sources import is_row_source
from geneae.data.states import Finding, find_state
from geneae.settings.errors import InputError

FLAGS = {"X": "--layer X", "raw": "--raw"}
"""Flags that read a matrix which is no layer."""
LOOKED_AT = 512  # profiles of another matrix that tell what it holds


def is_there(group: Any, key: str) -> bool:
    return key in group and group[key].attrs.get("encoding-type") != "null"


def is_stored(matrix: Any) -> bool:
    """Whether a matrix is in a file: sparse as written by anndata, dense in HDF5 or zarr, or of another layout."""
    is_known = isinstance(matrix, CSRDataset | CSCDataset | h5py.Dataset) or is_row_source(matrix)
    return is_known or type(matrix).__module__.startswith("zarr.")


def is_array(data: Any) -> bool:
    """Whether this is a matrix in memory."""
    return sparse.issparse(data) or (isinstance(data, np.ndarray) and not isinstance(data, np.ma.MaskedArray))


def opened(node: Any) -> Any:
    """A matrix in a file, of which nothing is read yet."""
    return node if hasattr(node, "shape") else sparse_dataset(node)


def in_memory(matrix: Any) -> Any:
    """A sparse matrix in a file, in memory, in types that SciPy computes with."""
    if matrix.dtype.isnative and matrix.dtype != np.float16:
        return matrix.to_memory()
    values, indices, pointers = (matrix.group[name][:] for name in ("data", "indices", "indptr"))
    form = sparse.csc_matrix if isinstance(matrix, CSCDataset) else sparse.csr_matrix
    return form((supported(values), indices, pointers), shape=matrix.shape)


def matrices_of(group: Any) -> dict[str, Any]:
    """Matrices of an open file by place: `X`, `raw`, `layers['NAME']`; groups that hold something else are left out."""
    found = {"X": group["X"]} if is_there(group, "X") else {}
    if is_there(group, "raw") and "X" in group["raw"]:
        found["raw"] = group["raw/X"]
    layers = group["layers"] if "layers" in group else {}  # noqa: SIM401 - a group of zarr has no get
    found |= {f"layers['{name}']": layers[name] for name in layers}
    return {place: opened(node) for place, node in found.items() if hasattr(node, "shape") or "shape" in node.attrs}


def with_places(profiles: Profiles, matrices: Mapping[str, Any]) -> Profiles:
    """The same profiles, which are no counts, with a note where other matrices of their source hold some, or values
    from which counts can be recovered if these profiles have none."""
    places, others = [], []
    for place, matrix in matrices.items():
        if place != profiles.location and (found := look_at(matrix)) is not None:
            flag = FLAGS.get(place) or f"--layer {place[8:-2]}"
            if found.state == "counts":
                places.append(f"{place} holds counts: {flag}")
            elif found.has_counts:
                others.append(f"{place} holds values from which counts can be recovered: {flag} --state counts")
    if not places and not (profiles.scan.finding is not None and profiles.scan.finding.has_counts):
        places = others
    if not places or profiles.facts is None:
        return profiles
    return replace(profiles, facts=replace(profiles.facts, elsewhere=tuple(places)))


def look_at(matrix: Any) -> Finding | None:
    """What the first profiles of a matrix hold, or the first values of one that is stored by genes; None if they cannot
    be read or are no numbers."""
    try:
        if isinstance(matrix, CSCDataset):
            rows = sparse.csr_matrix(np.asarray(matrix.group["data"][:CHUNK])[None, :])
        else:
            rows = sparse.csr_matrix(stored_rows(_sliced(matrix), 0, min(LOOKED_AT, matrix.shape[0])))
        values = Values()
        values.add(canonical(rows))
        return find_state(values.evidence(), "")
    except (InputError, OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _sliced(matrix: Any) -> Any:
    """A matrix of which rows can be taken by a slice."""
    is_sparse = sparse.issparse(matrix)  # a separate name, because mypy would narrow the type to one without methods
    return matrix.tocsr() if is_sparse and matrix.format not in ("csr", "csc") else matrix


def as_array(table: Any) -> Any:
    """Values of a DataFrame; the missing value of pandas becomes NaN."""
    for name, dtype in table.dtypes.items():
        if not pd.api.types.is_numeric_dtype(dtype):
            raise InputError(f"every column of a table must be a gene with numbers; column '{name}' holds {dtype}.")
    if table.shape[1] and all(isinstance(dtype, pd.SparseDtype) and dtype.fill_value == 0 for dtype in table.dtypes):
        return table.sparse.to_coo()
    same = len(set(table.dtypes)) == 1 and isinstance(table.dtypes.iloc[0], np.dtype)
    return table.to_numpy() if same else table.to_numpy(dtype=np.float64, na_value=np.nan)
