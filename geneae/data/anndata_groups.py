"""Matrix and annotation of AnnData: in memory, or in the groups of an HDF5 file or a zarr."""

from collections.abc import Mapping
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.abc import CSCDataset, CSRDataset
from anndata.io import read_elem, sparse_dataset
from scipy import sparse

from geneae.data.containers import check_parts
from geneae.data.matrix_choice import Found, MatrixChoice
from geneae.data.row_sources import is_row_source
from geneae.settings.errors import InputError, listed, reason_of


def found_in_anndata(adata: anndata.AnnData, choice: MatrixChoice, source: str) -> Found:
    """The matrix that was asked for of an AnnData, in memory or backed."""
    choice.check_no_modality(source)
    layer, use_raw = choice.layer_among(adata.layers), choice.use_raw
    x = adata.X if layer is None and not use_raw else None  # a copy if this is a view: made once, and only if needed
    location = choice.location(source, adata.layers, x is not None, adata.raw is not None)
    matrix = adata.layers[layer] if layer is not None else adata.raw.X if use_raw else x
    if not (is_array(matrix) or is_stored(matrix)):
        kind = f"{type(matrix).__module__}.{type(matrix).__name__}"
        raise InputError(f"{source}, {location} must be in memory or in a file; found {kind}. Use adata.to_memory().")
    return Found(matrix, adata.obs, (adata.raw if use_raw else adata).var, location)


def is_array(data: Any) -> bool:
    """Whether this is a matrix in memory."""
    return sparse.issparse(data) or (isinstance(data, np.ndarray) and not isinstance(data, np.ma.MaskedArray))


def is_stored(matrix: Any) -> bool:
    """Whether a matrix is in a file: sparse as written by anndata, dense in HDF5 or zarr, or of another layout."""
    is_known = isinstance(matrix, CSRDataset | CSCDataset | h5py.Dataset) or is_row_source(matrix)
    return is_known or type(matrix).__module__.startswith("zarr.")


def found_in_group(root: Any, choice: MatrixChoice, source: str) -> Found:
    """The matrix that was asked for of the root of an HDF5 file or a zarr, of AnnData or MuData."""
    if "mod" in root:
        check_parts(root, (("mod",),), source, is_shallow=True)
        name, said = choice.modality_of(source, root["mod"])
        check_parts(root, (("mod", name),), source, is_shallow=True)
        found = _found_in(root[f"mod/{name}"], choice, source)
        obs = _with_shared(found.obs, root, name, source)
        return Found(found.matrix, obs, found.var, found.location, said + found.said)
    choice.check_no_modality(source)
    return _found_in(root, choice, source)


def _found_in(group: Any, choice: MatrixChoice, source: str) -> Found:
    if "obs" not in group or "var" not in group:
        raise InputError(
            f"{source} holds {listed(group)}, but AnnData has obs and var. Give a file of a kind that geneae reads "
            "(docs/data.md), or convert it with a reader of scanpy or anndata and .write_h5ad('data.h5ad')."
        )
    layers = list(group["layers"]) if "layers" in group else []
    has_raw = _is_there(group, "raw") and "X" in group["raw"]
    location = choice.location(source, layers, _is_there(group, "X"), has_raw)
    layer, of_genes = choice.layer_among(layers), ("raw", "var") if choice.use_raw else ("var",)
    place = ("layers", layer) if layer is not None else ("raw", "X") if choice.use_raw else ("X",)
    check_parts(group, (place, ("obs",), of_genes), source)
    node = group["/".join(place)]
    matrix = node if hasattr(node, "shape") else sparse_dataset(node)  # not read yet
    obs, lost = read_frame(group["obs"], "obs", source)
    var, lost_too = read_frame(group["/".join(of_genes)], "var", source)
    return Found(matrix, obs, var, location, lost + lost_too)


def _is_there(group: Any, key: str) -> bool:
    return key in group and group[key].attrs.get("encoding-type") != "null"


def _with_shared(obs: pd.DataFrame, root: Any, name: str, source: str) -> pd.DataFrame:
    """Annotation of a modality with the columns that MuData has for all of them."""
    if "obs" not in root or not obs.index.is_unique:
        return obs
    check_parts(root, (("obs",),), source)
    shared, _ = read_frame(root["obs"], "obs", source)
    prefixes = tuple(f"{one}:" for one in root["mod"])
    new = [column for column in shared.columns if column not in obs.columns and not str(column).startswith(prefixes)]
    return obs.join(shared.loc[~shared.index.duplicated(), new]) if new else obs


def read_frame(group: Any, kind: str, source: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The table obs or var of a file, and notes on columns that cannot be read, which it then lacks."""
    try:
        return read_elem(group), ()
    except MemoryError:
        raise
    except Exception as error:  # HDF5, zarr, codecs and anndata raise errors without a common class
        attributes: Mapping[str, Any] = group.attrs if hasattr(group, "attrs") else {}
        if "column-order" not in attributes or "_index" not in attributes:
            raise
        index = read_elem(group[attributes["_index"]])  # without names nothing can be read
        columns, lost = {}, {}
        for name in attributes["column-order"]:
            try:
                columns[name] = pd.Series(read_elem(group[name]), index=index)
            except MemoryError:
                raise
            except Exception as failed:
                lost[name] = reason_of(failed)
        if not lost:
            raise error
        reasons = "; ".join(f"'{name}' ({reason.rstrip('.')})" for name, reason in lost.items())
        note = f"{source}: {kind} columns that cannot be read are left out: {reasons}."
        return pd.DataFrame(columns, index=index), (note,)
