"""Matrix and annotation of AnnData: in memory, or in the groups of an HDF5 file or a zarr."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import anndata
import pandas as pd
from anndata.io import read_elem

from geneae.data.containers import check_parts
from geneae.data.matrices import is_array, is_stored, is_there, matrices_of, opened
from geneae.data.matrix_choice import Found, MatrixChoice
from geneae.settings.errors import InputError, listed, reason_of


def found_in_anndata(adata: anndata.AnnData, choice: MatrixChoice, source: str) -> Found:
    """The matrix that was asked for of an AnnData, in memory or backed."""
    choice.check_no_modality(source)
    layers = _layers_of(adata)
    layer, use_raw = choice.layer_among(layers), choice.use_raw
    x = adata.X if layer is None and not use_raw else None  # a copy if this is a view: made once, and only if needed
    location = choice.location(source, layers, x is not None, adata.raw is not None)
    matrix = adata.layers[layer] if layer is not None else adata.raw.X if use_raw else x
    if not (is_array(matrix) or is_stored(matrix)):
        kind = f"{type(matrix).__module__}.{type(matrix).__name__}"
        raise InputError(f"{source}, {location} must be in memory or in a file; found {kind}. Use adata.to_memory().")
    var = (adata.raw if use_raw else adata).var
    return Found(matrix, adata.obs, var, location, matrices=lambda: _matrices_in_memory(adata, location, matrix))


def _matrices_in_memory(adata: anndata.AnnData, location: str, matrix: Any) -> dict[str, Any]:
    """Matrices of an AnnData by place, as `geneae.data.matrices.matrices_of` has them of a file."""
    is_x_left = location != "X" and not adata.isbacked and adata.X is not None  # a backed one may lack it
    found = {"X": adata.X} if is_x_left else {}
    found |= {} if adata.raw is None else {"raw": adata.raw.X}
    return found | {f"layers['{name}']": adata.layers[name] for name in _layers_of(adata)} | {location: matrix}


def _layers_of(adata: anndata.AnnData) -> list[str]:
    """Names of the layers; from anndata 0.13 on, X is among them as None."""
    return [name for name in adata.layers if name is not None]


def found_in_group(root: Any, choice: MatrixChoice, source: str) -> Found:
    """The matrix that was asked for of the root of an HDF5 file or a zarr, of AnnData or MuData."""
    if "mod" in root:
        check_parts(root, (("mod",),), source, is_shallow=True)
        name, said = choice.modality_of(source, root["mod"])
        check_parts(root, (("mod", name),), source, is_shallow=True)
        found = _found_in(root[f"mod/{name}"], choice, source)
        obs = _with_shared(found.obs, root, name, source)
        return replace(found, obs=obs, said=said + found.said)
    choice.check_no_modality(source)
    return _found_in(root, choice, source)


def _found_in(group: Any, choice: MatrixChoice, source: str) -> Found:
    if "obs" not in group or "var" not in group:
        raise InputError(
            f"{source} holds {listed(group)}, but AnnData has obs and var. Give a file of a kind that geneae reads "
            "(docs/reference/data.md), or convert it with a reader of scanpy or anndata and .write_h5ad('data.h5ad')."
        )
    layers = list(group["layers"]) if "layers" in group else []
    has_raw = is_there(group, "raw") and "X" in group["raw"]
    location = choice.location(source, layers, is_there(group, "X"), has_raw)
    layer, of_genes = choice.layer_among(layers), ("raw", "var") if choice.use_raw else ("var",)
    place = ("layers", layer) if layer is not None else ("raw", "X") if choice.use_raw else ("X",)
    check_parts(group, (place, ("obs",), of_genes), source)
    matrix = opened(group["/".join(place)])
    obs, lost = read_frame(group["obs"], "obs", source)
    var, lost_too = read_frame(group["/".join(of_genes)], "var", source)
    return Found(matrix, obs, var, location, lost + lost_too, lambda: matrices_of(group))


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
