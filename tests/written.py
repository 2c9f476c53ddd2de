"""The same counts in every format, by the writers of the format where tests have one, else by its specification."""

import gzip
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import zarr
from anndata.io import write_elem
from scipy import sparse
from scipy.io import mmwrite


def _values(adata: anndata.AnnData) -> sparse.csr_matrix:
    """Whole numbers as such, as programs that count write them; all other values as they are."""
    matrix = sparse.csr_matrix(adata.X)
    if matrix.dtype == bool:
        return matrix.astype(np.int32)
    if matrix.dtype.kind == "f" and np.isfinite(matrix.data).all() and (np.abs(matrix.data) < 2**31).all():
        whole = matrix.astype(np.int32)
        return whole if (whole.data == matrix.data).all() else matrix
    return matrix


def _table(adata: anndata.AnnData) -> pd.DataFrame:
    return pd.DataFrame(_values(adata).toarray(), index=adata.obs_names, columns=adata.var_names)


def _bytes(names: pd.Index) -> np.ndarray:
    return np.array([name.encode() for name in names])


def write_h5ad(adata: anndata.AnnData, folder: Path) -> Path:
    adata.write_h5ad(folder / "data.h5ad")
    return folder / "data.h5ad"


def write_zarr(adata: anndata.AnnData, folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata announces a change of the default zarr version
        adata.write_zarr(folder / "data.zarr")
    return folder / "data.zarr"


def write_zip(adata: anndata.AnnData, folder: Path) -> Path:
    """The folder, packed as `zip -r` and a file manager do."""
    written = write_zarr(adata, folder)
    shutil.make_archive(str(written), "zip", folder, written.name)
    shutil.rmtree(written)
    return folder / "data.zarr.zip"


def write_zip_store(adata: anndata.AnnData, folder: Path) -> Path:
    """Written by zarr itself, without a folder at the top."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above; and zarr writes attributes twice
        store = zarr.storage.ZipStore(folder / "store.zarr.zip", mode="w")
        adata.write_zarr(store)
        store.close()
    return folder / "store.zarr.zip"


def write_h5mu(adata: anndata.AnnData, folder: Path) -> Path:
    """As mudata.write_h5mu lays it out: AnnData below mod, and what all modalities share at the top."""
    proteins = anndata.AnnData(
        np.ones((adata.n_obs, 2), np.float32), obs=adata.obs[[]].copy(), var=pd.DataFrame(index=["CD3", "CD19"])
    )
    with h5py.File(folder / "data.h5mu", "w") as file:
        modalities = file.create_group("mod")
        for name, modality in (("rna", adata), ("prot", proteins)):
            write_elem(modalities, name, modality)
        shared = pd.DataFrame({"rna:kind": "no", "tissue": ["blood"] * adata.n_obs}, index=adata.obs_names)
        write_elem(file, "obs", shared)
    return folder / "data.h5mu"


def write_tenx_h5(adata: anndata.AnnData, folder: Path) -> Path:
    """As Cell Ranger 3 and later write it."""
    counts = _values(adata)
    with h5py.File(folder / "data.h5", "w") as file:
        group = file.create_group("matrix")
        _write_values(group, counts)
        features = group.create_group("features")
        features["id"] = np.array([f"ENSG{number:011}" for number in range(adata.n_vars)], "S")
        features["name"] = _bytes(adata.var_names)
        features["feature_type"] = np.array(["Gene Expression"] * adata.n_vars, "S")
        features["genome"] = np.array(["GRCh38"] * adata.n_vars, "S")
        features["_all_tag_keys"] = np.array(["genome"], "S")
        group["barcodes"] = _bytes(adata.obs_names)
    return folder / "data.h5"


def write_legacy_tenx_h5(adata: anndata.AnnData, folder: Path) -> Path:
    """As Cell Ranger 1 and 2 wrote it."""
    with h5py.File(folder / "legacy.h5", "w") as file:
        group = file.create_group("GRCh38")
        _write_values(group, _values(adata))
        group["genes"] = np.array([f"ENSG{number:011}" for number in range(adata.n_vars)], "S")
        group["gene_names"] = _bytes(adata.var_names)
        group["barcodes"] = _bytes(adata.obs_names)
    return folder / "legacy.h5"


def _write_values(group: h5py.Group, counts: sparse.csr_matrix) -> None:
    group["data"], group["indices"], group["indptr"] = counts.data, counts.indices, counts.indptr
    group["shape"] = np.array(counts.shape[::-1], np.int32)


def write_tenx_folder(adata: anndata.AnnData, folder: Path, packed: bool = True, before: str = "") -> Path:
    """`matrix.mtx.gz`, `barcodes.tsv.gz` and `features.tsv.gz`; unpacked, `genes.tsv` without types of features."""
    to = folder / ("filtered" if packed else "legacy")
    to.mkdir()
    ids = [f"ENSG{number:011}" for number in range(adata.n_vars)]
    features = pd.DataFrame({"id": ids, "name": adata.var_names, "type": "Gene Expression"})
    mmwrite(to / f"{before}matrix.mtx", _values(adata).T)
    if packed:
        content = (to / f"{before}matrix.mtx").read_bytes()
        (to / f"{before}matrix.mtx.gz").write_bytes(gzip.compress(content))
        (to / f"{before}matrix.mtx").unlink()
    ending = ".gz" if packed else ""
    listed = features if packed else features.drop(columns="type")
    listed.to_csv(to / f"{before}{'features' if packed else 'genes'}.tsv{ending}", sep="\t", header=False, index=False)
    pd.Series(adata.obs_names).to_csv(to / f"{before}barcodes.tsv{ending}", header=False, index=False)
    return to


def write_legacy_tenx_folder(adata: anndata.AnnData, folder: Path) -> Path:
    return write_tenx_folder(adata, folder, packed=False)


def write_loom(adata: anndata.AnnData, folder: Path) -> Path:
    """By the specification 3.0; `write_loom` of anndata needs loompy."""
    with h5py.File(folder / "data.loom", "w") as file:
        file["matrix"] = _values(adata).T.toarray()
        file.create_group("layers")
        file["attrs/LOOM_SPEC_VERSION"] = "3.0.0"
        file["row_attrs/Gene"] = list(adata.var_names)
        file["col_attrs/CellID"] = list(adata.obs_names)
        file["col_attrs/embedding"] = np.zeros((adata.n_obs, 2))
        for name in adata.obs.columns:
            file[f"col_attrs/{name}"] = [str(value) for value in adata.obs[name]]
    return folder / "data.loom"


def write_csv(adata: anndata.AnnData, folder: Path) -> Path:
    """Profiles in the rows."""
    _table(adata).to_csv(folder / "data.csv")
    return folder / "data.csv"


def write_tsv(adata: anndata.AnnData, folder: Path) -> Path:
    """Genes in the rows, compressed."""
    _table(adata).T.to_csv(folder / "data.tsv.gz", sep="\t")
    return folder / "data.tsv.gz"


WRITERS: dict[str, Callable[[anndata.AnnData, Path], Path]] = {
    "h5ad": write_h5ad,
    "zarr": write_zarr,
    "zip of a zarr": write_zip,
    "zip by zarr": write_zip_store,
    "h5mu": write_h5mu,
    "10x h5": write_tenx_h5,
    "10x h5 of Cell Ranger 2": write_legacy_tenx_h5,
    "10x folder": write_tenx_folder,
    "10x folder of Cell Ranger 2": write_legacy_tenx_folder,
    "loom": write_loom,
    "csv": write_csv,
    "tsv.gz, turned": write_tsv,
}
"""Functions that write an AnnData of counts into a folder, and return the path."""
BY_ROWS = ("h5ad", "zarr", "zip of a zarr", "zip by zarr", "h5mu", "10x h5", "10x h5 of Cell Ranger 2", "loom")
"""Formats that can be streamed."""
