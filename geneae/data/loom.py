"""Loom files, by their specification 3.0 (Linnarsson lab): genes in the rows, cells in the columns of `matrix`."""

import h5py
import numpy as np
import pandas as pd

from geneae.data.containers import check_parts
from geneae.data.row_sources import ColumnSource
from geneae.settings.errors import InputError, listed

CELLS = ("CellID", "obs_names", "cell_id", "barcode", "barcodes", "Cell")
"""Attributes of columns that name the profiles, the first that there is."""
GENES = ("Gene", "var_names", "gene_name", "gene_symbol", "GeneName", "Accession", "gene_id")
"""Attributes of rows that name the genes, the first that there is."""


def is_loom(file: h5py.File) -> bool:
    """Whether an HDF5 file is laid out as loom."""
    is_own = isinstance(file.get("matrix", getlink=True), h5py.HardLink)
    return is_own and isinstance(file["matrix"], h5py.Dataset) and "row_attrs" in file and "col_attrs" in file


def loom_layers(file: h5py.File, source: str) -> list[str]:
    """Names of the layers."""
    check_parts(file, (("layers",),), source, is_shallow=True)
    return list(file["layers"]) if "layers" in file else []


def read_loom(file: h5py.File, layer: str | None, source: str) -> tuple[ColumnSource, pd.DataFrame, pd.DataFrame]:
    """The matrix or a layer of it, which stays in the file, and tables of profiles and genes.

    Attributes of more than one dimension, such as coordinates of a plot, are left out.
    """
    place = ("matrix",) if layer is None else ("layers", layer)
    check_parts(file, (place, ("row_attrs",), ("col_attrs",)), source)
    obs = _table(file["col_attrs"], CELLS, f"{source}: col_attrs")
    var = _table(file["row_attrs"], GENES, f"{source}: row_attrs")
    return ColumnSource(file["/".join(place)]), obs, var


def loom_matrices(file: h5py.File, source: str) -> dict[str, ColumnSource]:
    """The matrix and its layers by place, as `geneae.data.matrices.matrices_of` has those of AnnData."""
    layers = {f"layers['{name}']": file[f"layers/{name}"] for name in loom_layers(file, source)}
    return {place: ColumnSource(array) for place, array in ({"X": file["matrix"]} | layers).items()}


def _table(group: h5py.Group, names: tuple[str, ...], where: str) -> pd.DataFrame:
    columns = {}
    for key, array in group.items():
        if isinstance(array, h5py.Dataset) and array.ndim == 1:
            columns[key] = array.asstr()[:] if h5py.check_string_dtype(array.dtype) else array[:]
            if columns[key].dtype.kind == "S":
                columns[key] = np.char.decode(columns[key], "utf-8")
    name = next((name for name in names if name in columns), None)
    if name is None:
        raise InputError(f"{where} should hold one of {listed(names)} to name them; found {listed(columns)}. Add one.")
    return pd.DataFrame(columns, index=pd.Index(columns[name].astype(str), dtype=object)).drop(columns=name)
