"""What the scripts of all peers share: the half that they are given, and the file that geneae judges."""

import argparse
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

TARGET_SUM = 1e4  # molecules per profile after normalisation


def arguments(*others: str) -> argparse.Namespace:
    """`input`, `train`, `output`, `seed` and `batch` of a peer, and flags of its own; `linear` is a switch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("input", type=Path, help="input.h5ad of geneae split.")
    parser.add_argument("train", type=Path, help="train.h5ad of geneae split, for peers that are trained.")
    parser.add_argument("output", type=Path, help=".h5ad to write: layer reconstruction, obsm latent.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", help="Column of obs with batches.")
    for flag in others:
        parser.add_argument(flag, action="store_true") if flag == "--linear" else parser.add_argument(flag)
    return parser.parse_args()


def read(path: Path) -> anndata.AnnData:
    """Counts of profiles in the genes that at least three of them have."""
    adata = anndata.read_h5ad(path)
    adata.X = sparse.csr_matrix(adata.X)
    return adata[:, np.asarray((adata.X > 0).sum(0)).ravel() >= 3].copy()


def log_normalised(counts: sparse.csr_matrix, totals: np.ndarray | None = None) -> sparse.csr_matrix:
    """log1p of molecules per 10,000, float32."""
    totals = np.asarray(counts.sum(1)).ravel() if totals is None else totals
    values = sparse.csr_matrix(sparse.diags(TARGET_SUM / np.maximum(totals, 1)) @ counts, dtype=np.float32)
    values.data = np.log1p(values.data)
    return values


def write(
    path: Path, adata: anndata.AnnData, reconstruction: np.ndarray | None = None, latent: np.ndarray | None = None
) -> None:
    """Write what a peer has made, with the names of profiles and genes."""
    made = anndata.AnnData(obs=pd.DataFrame(index=adata.obs_names), var=pd.DataFrame(index=adata.var_names))
    if reconstruction is not None:
        made.layers["reconstruction"] = np.asarray(reconstruction, dtype=np.float32)
    if latent is not None:
        made.obsm["latent"] = np.asarray(latent, dtype=np.float32)
    made.write_h5ad(path)
