"""scVI (Lopez et al. 2018), package scvi-tools (BSD-3-Clause): scvi.model.SCVI with its defaults, trained on both
halves of the training profiles as separate profiles, at most 200 epochs.

The reconstruction is the model's own expectation of log1p CP10k, a sum over the counts of its distribution. The
logarithm of its mean lies below the mean profile and would slander it.
"""

import anndata
import numpy as np
import scvi
import torch
from made import TARGET_SUM, arguments, read, write

MOST = 60  # counts of the sum; above 20 expected ones, an expansion
CHUNK = 64  # profiles at a time


def expected_log1p(mean: np.ndarray, dispersion: np.ndarray, dropout: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """(n, n_genes) E log1p(10,000 x / total) of zero-inflated negative binomial counts x."""
    scale = (TARGET_SUM / totals)[:, None]
    chance = np.exp(dispersion * (np.log(dispersion) - np.log(dispersion + mean)))  # of zero
    ratio = mean / (mean + dispersion)
    found = np.zeros_like(mean)
    for count in range(1, MOST + 1):
        chance = chance * (count - 1 + dispersion) / count * ratio
        found += chance * np.log1p(scale * count)
    variance = mean + mean**2 / dispersion
    expanded = np.log1p(scale * mean) - variance / 2 * (scale / (1 + scale * mean)) ** 2
    return (1 - dropout) * np.where(mean > MOST / 3, np.maximum(expanded, 0), found)


given = arguments("--linear")
scvi.settings.seed = given.seed
torch.set_num_threads(1)
adata = read(given.input)
train = anndata.read_h5ad(given.train)[:, adata.var_names].copy()
kind = scvi.model.LinearSCVI if given.linear else scvi.model.SCVI
kind.setup_anndata(train)
model = kind(train)
model.train(max_epochs=200, early_stopping=True, accelerator="cpu", enable_progress_bar=False)
totals = np.asarray(adata.X.sum(1)).ravel()
found = []
for start in range(0, adata.n_obs, CHUNK):
    part = adata[start : start + CHUNK].copy()
    values = model.get_likelihood_parameters(part, n_samples=1)
    mean, dispersion = (np.asarray(values[name], dtype=np.float32) for name in ("mean", "dispersions"))
    dropout = np.asarray(values.get("dropout", 0.0), dtype=np.float32)
    found.append(expected_log1p(mean, np.broadcast_to(dispersion, mean.shape), dropout, totals[start : start + CHUNK]))
write(given.output, adata, np.concatenate(found), model.get_latent_representation(adata))
