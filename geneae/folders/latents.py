"""The latents of the profiles of a fit as AnnData without values: `latents.h5ad` of a run folder."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem, write_elem

from geneae.data.containers import check_all
from geneae.folders.contents import FolderContents
from geneae.folders.embedding import LATENTS, SLACK, Embedded, check_space
from geneae.folders.manifest import LATENTS_FILE
from geneae.settings.errors import InputError, listed, reason_of, unknown

SPLIT_ADDED, MOLECULES_ADDED, CLUSTER_ADDED = "geneae_split", "geneae_molecules", "geneae_cluster"
ADDED = (SPLIT_ADDED, MOLECULES_ADDED, CLUSTER_ADDED)
"""Columns that are added to `obs`."""
UMAP = "X_umap"


@dataclass(frozen=True, eq=False)
class Latents:
    """What `latents.h5ad` holds: a row for each profile of a fit of which something can be said."""

    obs: pd.DataFrame
    """Annotation of the profiles, with the columns that geneae adds."""
    obsm: dict[str, np.ndarray]
    """Latents, their deviations if they are known, and the UMAP if it has all of the profiles."""
    uns: dict[str, Any]
    """Description of the model under `geneae`."""


def latents_of(
    embedded: Embedded, split: pd.Series, molecules: np.ndarray | None = None, umap: pd.DataFrame | None = None
) -> Latents:
    """Latents of the profiles of a fit, without those that have none, which scanpy would refuse.

    Parameters
    ----------
    embedded
        The profiles of the fit.
    split
        Split of each profile.
    molecules
        (n_profiles,) molecules of each profile; None where the values are no counts.
    umap
        Result of `geneae.evaluation.umap.umap_of` of these profiles; left out where it lacks some of them.
    """
    rows = np.flatnonzero(~embedded.is_blank)
    obs = embedded.profiles.obs.iloc[rows].copy()
    obs[SPLIT_ADDED] = pd.Categorical(split.to_numpy()[rows])
    if molecules is not None:
        obs[MOLECULES_ADDED] = molecules[rows]
    obsm = {key: values[rows] for key, values in embedded.in_obsm(LATENTS).items()}
    if umap is not None and len(umap) == len(rows):
        obs[CLUSTER_ADDED] = pd.Categorical(umap["cluster"])
        obsm[UMAP] = umap[["umap_1", "umap_2"]].to_numpy()
    return Latents(obs, obsm, {"geneae": embedded.describe(LATENTS)})


def write_latents(path: Path, latents: Latents) -> str:
    """Write `latents.h5ad`; returns a sentence on what could not be written, empty where that is nothing.

    Columns are written as anndata does: texts as categories, missing values as such. A column that no .h5ad can hold,
    such as one of numbers and texts, is left out; so is the file, where not even names of profiles can be written.
    """
    names = [name for name in latents.obs.columns if _is_name(name)]
    try:
        _write(path, latents, latents.obs[names])
    except Exception as error:
        _check_system(error)
        names = [name for name in names if _can_be_written(latents.obs[name])]
        try:
            _write(path, latents, latents.obs[names])
        except Exception as last:
            _check_system(last)
            path.unlink(missing_ok=True)
            return f"{LATENTS_FILE} could not be written ({reason_of(last)}): give profiles and columns other names."
    left_out = [name for name in latents.obs.columns if name not in names]
    return f"An .h5ad cannot hold obs {listed(map(repr, left_out))}, left out of {LATENTS_FILE}." if left_out else ""


def color_of_umap(path: Path, color: str | None) -> str | None:
    """Column of a `latents.h5ad` to colour its UMAP by: the one given if there, else clusters; None without a UMAP."""
    with h5py.File(path, "r") as file:
        if UMAP not in file["obsm"]:
            return None
        return color if color is not None and color in file["obs"] else CLUSTER_ADDED


def _write(path: Path, latents: Latents, obs: pd.DataFrame) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of texts that become categories, and of names in formats to come
        adata = anndata.AnnData(obs=obs.copy(), obsm=latents.obsm, uns=latents.uns)
        check_space(path, SLACK + int(1.05 * adata.__sizeof__()))
        adata.write_h5ad(path)


def _is_name(name: Any) -> bool:
    """Whether a column can have this name in an .h5ad, and be read again."""
    return isinstance(name, str) and name not in ("", ".", "..", "_index") and "/" not in name


def _can_be_written(column: pd.Series) -> bool:
    """Whether anndata can write a column, tried in memory."""
    try:
        obs = pd.DataFrame({column.name: column.array}, index=[str(row) for row in range(len(column))])
        with warnings.catch_warnings(), h5py.File("column", "w", driver="core", backing_store=False) as file:
            warnings.simplefilter("ignore")
            alone = anndata.AnnData(obs=obs)
            alone.strings_to_categoricals()
            write_elem(file, "obs", alone.obs)
    except Exception as error:
        _check_system(error)
        return False
    return True


def _check_system(error: Exception) -> None:
    """Raise an error that is not about what is written: a full disk, or too little memory."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
        raise error


def read_column(folder: Path, name: str) -> pd.Series:
    """A column of the `obs` of `latents.h5ad` in a run folder, by profile; an unknown one is refused."""
    files = FolderContents(folder)
    if LATENTS_FILE not in files:
        raise InputError(
            f"{folder} has no {LATENTS_FILE}, whose columns could be shown: it is a run of an older version, or one of "
            "several runs of a comparison. Fit again with --color, or leave --color out."
        )
    path = files.checked(LATENTS_FILE)
    try:
        obs = _obs_of(path)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # HDF5 and anndata raise errors without a common class
        raise InputError(
            f"obs of {path} cannot be read ({reason_of(error)}). Copy the complete folder again, or fit again."
        ) from error
    if name not in obs.columns:
        raise unknown("obs column", name, obs.columns)
    column: pd.Series = obs[name].set_axis(obs.index.astype(str))
    return column


def _obs_of(path: Path) -> pd.DataFrame:
    with h5py.File(path, "r") as file:
        check_all(file, str(path))
        obs = read_elem(file["obs"])
    if not isinstance(obs, pd.DataFrame):
        raise TypeError(f"it is no table, but of type {type(obs).__name__}")
    if not obs.index.is_unique:
        raise ValueError("profiles occur twice")
    return obs
