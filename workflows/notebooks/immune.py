# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From raw counts to a latent, and what it is worth
#
# 559 immune cells from several tissues, raw counts, shipped in `data/`. An autoencoder is fitted, its latent is drawn
# beside PCA, and its reconstruction is judged: over all test profiles, by cluster, and profile by profile. At the end,
# two losses are compared.
#
# Open this file as a notebook with [jupytext](https://jupytext.readthedocs.io), or make one of it:
# `jupytext --to ipynb workflows/notebooks/immune.py`.

# %%
from pathlib import Path

import anndata
import pandas as pd
import scanpy as sc

from geneae import Autoencoder, pl, tl
from geneae.data.reading import read_profiles
from geneae.evaluation.comparison import Configuration, answer, compare_configurations
from geneae.evaluation.inspection import inspect_profiles
from geneae.evaluation.reconstruction import verdict

adata = anndata.read_h5ad(Path("../../data/immune_559.h5ad"))
adata

# %% [markdown]
# ## What can be had at all
#
# Before anything is trained: the cosine that the mean profile reaches, and the noise ceiling. Numbers are held-out
# cosines: one random half of a profile's molecules is predicted from the other half, which copying noise cannot raise.

# %%
inspection = inspect_profiles(read_profiles(adata))
pd.Series(
    {
        "molecules per profile, median": inspection.molecules_median,
        "mean profile": inspection.mean_profile_heldout,
        **{f"PCA of size {size}": value for size, value in (inspection.pca_heldout or {}).items()},
        "noise ceiling": inspection.ceiling_half,
    }
).round(4).to_frame("held-out cosine, or molecules")

# %%
print(inspection.verdict)

# %% [markdown]
# ## Fit
#
# The 1,000 most variable genes and 16 latents. Three tenths of the profiles are kept for the judgement (`test`): they
# choose nothing.

# %%
choices = {"n_latent": 16, "n_top_genes": 1000, "test": 0.3, "split_seed": 0}
model = Autoencoder("cosine", **choices).fit(adata)
metrics = model.evaluation_.metrics
metrics[(metrics["split"] == "test") & (metrics["statistic"] == "mean")].pivot_table(
    index="model", columns="metric", values="value"
)[["cosine", "centred_cosine", "mse", "heldout_cosine"]].round(4)

# %%
print(verdict(model.evaluation_, "test"))

# %% [markdown]
# `cosine` is that of a profile with its own reconstruction, `heldout_cosine` the honest one. Baselines stand beside the
# model: shrunken PCA is PCA whose components are multiplied by the share of their variance that both halves of the
# molecules have in common, and is where every fit starts. On so few profiles it is hard to improve on; if no epoch
# did, the model *is* shrunken PCA, and the sentence says so.

# %% [markdown]
# ## The latent beside PCA
#
# The same neighbours, UMAP and Leiden clustering on both. The clusters come from PCA, so that the latent is not asked
# about its own clusters.

# %%
tl.embed(adata, model)  # obsm["X_geneae"]
normalised = adata.copy()
sc.pp.normalize_total(normalised, target_sum=1e4)
sc.pp.log1p(normalised)
sc.pp.highly_variable_genes(normalised, n_top_genes=1000)
sc.pp.pca(normalised, n_comps=16, random_state=0)


def umap_of(representation: str) -> pd.DataFrame:
    """UMAP of a representation in obsm, with the cluster of each profile."""
    sc.pp.neighbors(normalised, use_rep=representation, random_state=0)
    sc.tl.umap(normalised, random_state=0)
    table = pd.DataFrame(normalised.obsm["X_umap"], columns=["umap_1", "umap_2"], index=normalised.obs_names)
    return table.assign(label=normalised.obs["cluster"])


sc.pp.neighbors(normalised, use_rep="X_pca", random_state=0)
sc.tl.leiden(normalised, key_added="cluster", flavor="igraph", n_iterations=2, random_state=0)
axes = pl.umap({"PCA": umap_of("X_pca"), "geneae": umap_of("X_geneae")}, title="Leiden cluster")
# %% [markdown]
# ## Cosine by cluster
#
# Means over the test profiles. Small clusters, and profiles of few molecules, reconstruct worse; how much of that is
# noise is what the ceiling is for.

# %%
clusters = normalised.obs["cluster"].astype(str)
profiles = model.evaluation_.profiles
profiles = profiles.assign(label=profiles["profile"].map(clusters))
test = profiles[profiles["split"] == "test"]
by_cluster = test.pivot_table(index="label", columns="model", values="heldout_cosine")
by_cluster = by_cluster[["model", "shrunken_pca", "pca", "mean_profile"]]
sizes = (
    test[test["model"] == "model"]
    .groupby("label")
    .agg(n_profiles=("profile", "size"), molecules=("molecules", "median"))
)
by_cluster.join(sizes).sort_values("n_profiles", ascending=False).round(4)

# %%
own = profiles[profiles["model"] == "model"]
axes = pl.cosine_distribution({"geneae": own}, metrics)
# %% [markdown]
# ## The worst profiles
#
# Few molecules explain a low cosine; many molecules and a low cosine are profiles worth a look: a rare kind, a doublet,
# a damaged cell.

# %%
worst = test[test["model"] == "model"].nsmallest(8, "heldout_cosine")
worst[["profile", "label", "molecules", "heldout_cosine", "cosine", "mse", "norm_ratio"]].round(3)

# %%
axes = pl.cosine_against_mse({"geneae": own})
# %% [markdown]
# ## Which loss?
#
# From the start at shrunken PCA the losses can hardly be told apart here. So the plain autoencoder: gene-sized
# matrices, a random start, two seeds of each loss on one split. Differences are taken profile by profile; the interval
# is over profiles and seeds, and the verdict is corrected for the number of metrics (Holm).

# %%
plain = choices | {"basis": "free", "init": "random", "batch_size": 64, "epochs": 20}
runs = {loss: {seed: Autoencoder(loss, seed=seed, **plain).fit(adata) for seed in (0, 1)} for loss in ("mse", "cosine")}


def tables_of(loss: str) -> dict[int, pd.DataFrame]:
    """By seed, the rows of the model itself."""
    found = {seed: run.evaluation_.profiles for seed, run in runs[loss].items()}
    return {seed: table[table["model"] == "model"] for seed, table in found.items()}


def test_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Test profiles, by name."""
    return table[table["split"] == "test"].set_index("profile")


arms = [Configuration(loss, loss, {seed: test_rows(table) for seed, table in tables_of(loss).items()}) for loss in runs]
paired = compare_configurations(arms, "test")
paired[["arm", "metric", "difference", "low", "high", "verdict", "n_profiles", "n_seeds"]].round(4)

# %%
of_runs = pd.concat(run.evaluation_.metrics.assign(arm=loss) for loss in runs for run in runs[loss].values())
print(answer(paired, of_runs))

# %% [markdown]
# Raw errors cannot be compared: a cosine loss leaves the length of its predictions undetermined. `rescaled_mse`, after
# the one factor for all predictions that is best on other profiles, can.

# %%
axes = pl.cosine_distribution({loss: pd.concat(tables_of(loss).values()) for loss in runs})
# %%
axes = pl.training_curves({loss: [run.history_ for run in runs[loss].values()] for loss in runs})
