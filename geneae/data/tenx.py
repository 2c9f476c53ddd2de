"""Matrices of 10x Genomics: `.h5` files of Cell Ranger and folders with a `.mtx`, plain or compressed."""

import os
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
from scipy import sparse
from scipy.io import mminfo, mmread

from geneae.data.containers import CURE, MOST_EXPANSION, check_all, check_pointers
from geneae.data.memory import check_fits
from geneae.data.row_sources import SparseRowSource
from geneae.settings.errors import InputError, listed

MATRIX, BARCODES, FEATURES = "matrix.mtx", "barcodes.tsv", ("features.tsv", "genes.tsv")
LEAST_ENTRY = {"coordinate": 4, "array": 2}  # characters of an entry of a .mtx: "1 1" or "1", and the end of its line


def tenx_group(file: h5py.File) -> str | None:
    """Name of the group of a 10x matrix: `matrix`, or a genome in files of Cell Ranger 1 and 2; None without one.

    A file with several genomes is refused.
    """
    own = [name for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)]
    groups = [
        name
        for name in own
        if isinstance(file[name], h5py.Group) and file[name].get("barcodes", getlink=True) is not None
    ]
    if len(groups) > 1:
        raise InputError(
            f"{file.filename} holds a matrix for each of the genomes {listed(groups)}; one was expected. Write one of "
            "them to a file of its own, for example with scanpy.read_10x_h5(FILE, genome=GENOME).write_h5ad(NEW)."
        )
    return groups[0] if groups else None


def read_tenx_h5(file: h5py.File, name: str, source: str) -> tuple[SparseRowSource, pd.DataFrame, pd.DataFrame]:
    """Matrix, which stays in the file, table of barcodes, and table of genes with `gene_ids` and `feature_types`.

    The columns of `var` are those of `scanpy.read_10x_h5`; features of every type are there.
    """
    group = file[name]
    check_all(group, source)
    needed = ("data", "indices", "indptr", "shape", "barcodes")
    if missing := [key for key in needed if key not in group]:
        raise InputError(
            f"{source}: {name} of a 10x file should hold {listed(needed)}; it lacks {listed(missing)}. {CURE}"
        )
    n_genes, n_profiles = (int(length) for length in group["shape"][:2])
    where = f"{source}, {name}"
    pointers = check_pointers(group["data"], group["indices"], group["indptr"], n_profiles, "profiles", where)
    var = _features(group["features"]) if "features" in group else _legacy_genes(group)
    matrix = SparseRowSource(group["data"], group["indices"], pointers, n_genes)
    return matrix, pd.DataFrame(index=_text(group["barcodes"])), var


def _text(array: Any) -> "pd.Index[str]":
    names: list[str] = list(array.asstr()[:] if array.dtype.kind in "OS" else array[:].astype(str))
    return pd.Index(names, dtype=object)


def _features(group: h5py.Group) -> pd.DataFrame:
    """Genes by symbol; `id` and `feature_type` are called `gene_ids` and `feature_types`, as in scanpy."""
    names = {"id": "gene_ids", "feature_type": "feature_types"}
    lists = {key: array for key, array in group.items() if isinstance(array, h5py.Dataset) and key != "_all_tag_keys"}
    index = _text(lists.pop("name"))
    columns = {names.get(key, key): _text(array) for key, array in lists.items() if array.shape == index.shape}
    return pd.DataFrame(columns, index=index)


def _legacy_genes(group: h5py.Group) -> pd.DataFrame:
    return pd.DataFrame({"gene_ids": _text(group["genes"])}, index=_text(group["gene_names"]))


def is_tenx_folder(path: Path) -> bool:
    """Whether a folder holds a `.mtx`, plain or compressed."""
    return any(name.removesuffix(".gz").endswith(".mtx") for name in os.listdir(path))


def read_tenx_folder(path: Path) -> tuple[sparse.csr_matrix, pd.DataFrame, pd.DataFrame]:
    """Matrix, table of barcodes, and table of genes of a folder, or of a `.mtx` with its two lists beside it.

    The lists are `barcodes.tsv` and `features.tsv`, or `genes.tsv` of Cell Ranger 1 and 2, each plain or with `.gz`;
    what stands before `matrix.mtx` in its name stands before theirs, too.
    """
    folder = path if path.is_dir() else path.parent
    matrix = _only_matrix(path) if path.is_dir() else path
    before = matrix.name.removesuffix(".gz").removesuffix(MATRIX)
    if not matrix.name.removesuffix(".gz").endswith(MATRIX):
        before = ""
    barcodes = _read_list(folder, matrix, [before + BARCODES])
    features = _read_list(folder, matrix, [before + name for name in FEATURES])
    n_rows, n_columns, n_entries, layout, *_ = mminfo(matrix)
    if (n_rows, n_columns) != (len(features), len(barcodes)):
        raise InputError(
            f"{matrix} should have a row for each of {len(features):,} features and a column for each of "
            f"{len(barcodes):,} barcodes; found {n_rows:,} x {n_columns:,}. Put the three files of one run together."
        )
    if n_entries * LEAST_ENTRY[layout] > matrix.stat().st_size * (MOST_EXPANSION if matrix.suffix == ".gz" else 1):
        raise InputError(f"{matrix} claims {n_entries:,} entries, which it is too small to hold. {CURE}")
    check_fits(matrix, n_entries, n_columns)
    var = pd.DataFrame({"gene_ids": features[0].to_numpy()}, index=features[min(1, features.shape[1] - 1)].to_numpy())
    if features.shape[1] > 2:
        var["feature_types"] = features[2].to_numpy()
    return sparse.csr_matrix(mmread(matrix).T), pd.DataFrame(index=barcodes[0].to_numpy()), var


def _only_matrix(folder: Path) -> Path:
    found = sorted(name for name in os.listdir(folder) if name.removesuffix(".gz").endswith(".mtx"))
    if len(found) > 1:
        raise InputError(f"{folder} holds several matrices: {listed(found)}. Give the path of one of them.")
    return folder / found[0]


def _read_list(folder: Path, matrix: Path, names: list[str]) -> pd.DataFrame:
    """The first of several files, plain or compressed, as a table of text without a head."""
    found = [folder / f"{name}{ending}" for name in names for ending in ("", ".gz")]
    path = next((path for path in found if path.is_file()), None)
    if path is None:
        raise InputError(
            f"{matrix} needs the names of its {'profiles' if BARCODES in names[0] else 'genes'} in {listed(names)} "
            f"(plain or .gz) beside it; found {listed(sorted(os.listdir(folder)))}. Put the files of one run together."
        )
    try:
        return pd.read_csv(path, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=3)
    except pd.errors.EmptyDataError:
        return pd.DataFrame({0: pd.Series([], dtype=str)})
