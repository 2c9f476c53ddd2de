"""Latents in files that other tools read: AnnData, CSV, Parquet, NumPy."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem, write_elem

from geneae.data.profiles import Profiles
from geneae.models.model import Model, latent_names
from geneae.settings.errors import InputError

FORMATS = (".h5ad", ".csv", ".parquet", ".npy")
RECONSTRUCTED = "geneae_reconstructed"
CHUNK = 1024  # profiles reconstructed at a time


def check_format(path: Path, reconstruct: bool) -> None:
    """Refuse an output with an unknown ending, or one that cannot hold a reconstruction if one is asked for."""
    if path.suffix not in FORMATS:
        raise InputError(f"the output must end in {', '.join(FORMATS)}; found '{path.name}'.")
    if reconstruct and path.suffix != ".h5ad":
        raise InputError(
            f"a reconstruction is written as a layer and needs an output ending in .h5ad; found '{path.name}'."
        )


def write_embedding(
    path: Path, data: str, model: Model, profiles: Profiles, latent: np.ndarray, key_added: str, reconstruct: bool
) -> None:
    """Write latents in the format that the ending of `path` names.

    Parameters
    ----------
    path
        `.h5ad`, `.csv`, `.parquet` or `.npy`.
    data
        The file that the profiles come from; an `.h5ad` output is a copy of it.
    model, profiles, latent
        The model, the profiles, and their (n_profiles, n_latent) latents.
    key_added
        Key of the latents in `obsm`.
    reconstruct
        Add the dense reconstruction as a layer, with NaN for genes that the model does not know.
    """
    if path.suffix == ".npy":
        np.save(path, latent, allow_pickle=False)
        return
    table = pd.DataFrame(latent, index=profiles.names, columns=latent_names(latent.shape[1]))
    if path.suffix == ".csv":
        table.to_csv(path, index_label="profile")
    elif path.suffix == ".parquet":
        table.rename_axis("profile").reset_index().to_parquet(path, index=False)
    elif profiles.is_streamed and Path(data).is_file():
        _add_to_copy(path, Path(data), model, latent, key_added, reconstruct)
    else:
        adata = _read(data)
        adata.obsm[key_added] = latent
        adata.uns["geneae"] = describe(model, key_added)
        if reconstruct:
            adata.layers[RECONSTRUCTED] = reconstruction(model, latent, pd.Index(adata.var_names.astype(str)))
        adata.write_h5ad(path)


def _add_to_copy(path: Path, data: Path, model: Model, latent: np.ndarray, key_added: str, reconstruct: bool) -> None:
    """Write an .h5ad that does not fit into memory: copy the file on disk, then add the latents to the copy."""
    shutil.copyfile(data, path)
    with h5py.File(path, "r+") as file:
        write_elem(file, f"obsm/{key_added}", latent)
        write_elem(file, "uns/geneae", describe(model, key_added))
        if not reconstruct:
            return
        genes = pd.Index(read_elem(file["var"]).index.astype(str))
        shape, chunk = (len(latent), len(genes)), (min(CHUNK, len(latent)), len(genes))
        name = f"layers/{RECONSTRUCTED}"
        if name in file:
            del file[name]
        layer = file.create_dataset(name, shape, np.float32, chunks=chunk)
        layer.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        for start in range(0, len(latent), CHUNK):
            layer[start : start + CHUNK] = reconstruction(model, latent[start : start + CHUNK], genes)


def _read(data: str) -> anndata.AnnData:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # everything that matters was reported when the profiles were read
        return anndata.read_zarr(data) if Path(data).is_dir() else anndata.read_h5ad(data)


def describe(model: Model, key_added: str) -> dict[str, Any]:
    """Contents of `uns["geneae"]`: key of the latents, origin of the model, space of a reconstruction.

    Settings that are None are left out, because an .h5ad cannot store None everywhere.
    """
    config = model.config
    return {
        "version": config["versions"]["geneae"],
        "key_added": key_added,
        "objective": config["settings"].get("objective", "reconstruction"),
        "loss": config["settings"]["loss"],
        "center": config["center"],
        "settings": {name: value for name, value in config["settings"].items() if value is not None},
        "space": model.preprocess.space,
        "units": f"log1p of molecules per {model.preprocess.target_sum:,.0f}"
        if model.preprocess.state == "counts"
        else "those of the matrix that the model was fitted on",
        "missing": "NaN for genes that the model does not know",
        "fitted_on": config["data"]["fingerprint"],
    }


def reconstruction(model: Model, latent: np.ndarray, genes: pd.Index) -> np.ndarray:
    """Dense float32 (n_profiles, n_genes) reconstruction in the order of `genes`; NaN for unknown genes."""
    columns = model.preprocess.genes.get_indexer(genes)
    result = np.full((len(latent), len(genes)), np.nan, np.float32)
    for rows in np.array_split(np.arange(len(latent)), max(1, len(latent) // CHUNK)):
        result[np.ix_(rows, np.flatnonzero(columns >= 0))] = model.reconstruction(latent[rows])[
            :, columns[columns >= 0]
        ]
    return result
