"""A picture of latents in two dimensions, and their clusters."""

import warnings

import numpy as np
import pandas as pd
from scipy import sparse

from geneae.evaluation.latents import neighbour_graph

MOST_UMAP = 5000  # profiles; more hide each other in a figure
LEAST_UMAP = 10  # profiles; fewer have no graph of neighbours worth a picture, and some are too few for UMAP itself


def umap_of(names: pd.Index, latent: np.ndarray, seed: int) -> pd.DataFrame:
    """Columns row, profile, umap_1, umap_2 and cluster for at most 5,000 random profiles, by scanpy with its defaults.

    Clusters are those of the graph that UMAP draws, see `clusters_of`.

    Parameters
    ----------
    names
        Names of the profiles.
    latent
        (n_profiles, n_latent), finite.
    seed
        Seed of the choice of profiles, of UMAP and of the clusters.
    """
    import scanpy as sc  # slow to load

    rows = np.arange(len(latent))
    if len(rows) > MOST_UMAP:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_UMAP, replace=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of latents that are equal, or in groups far from each other
        adata = neighbour_graph(latent[rows], seed)
        sc.tl.umap(adata, random_state=seed)
    first, second = adata.obsm["X_umap"].T
    cluster = clusters_of(adata.obsp["connectivities"], seed)
    return pd.DataFrame({"row": rows, "profile": names[rows], "umap_1": first, "umap_2": second, "cluster": cluster})


def clusters_of(graph: sparse.csr_matrix, seed: int) -> list[str]:
    """Number of the Louvain cluster of each profile as text, from 0 for the largest (Blondel et al. 2008).

    Parameters
    ----------
    graph
        (n_profiles, n_profiles) weights of neighbours, symmetric.
    seed
        Seed of the order in which profiles are visited.
    """
    import networkx as nx  # slow to load

    found = nx.community.louvain_communities(nx.from_scipy_sparse_array(graph), seed=seed)
    number = np.empty(graph.shape[0], int)
    for place, cluster in enumerate(sorted(found, key=lambda cluster: (-len(cluster), min(cluster)))):
        number[list(cluster)] = place
    return [str(place) for place in number]
