"""A picture of latents in two dimensions, and their clusters."""

import numpy as np
import pandas as pd

MOST_UMAP = 5000  # profiles; more hide each other in a figure
LEAST_UMAP = 10  # profiles; fewer have no graph of neighbours worth a picture, and some are too few for UMAP itself
NEIGHBOURS = 15  # of a profile, and
MIN_DIST = 0.5  # as scanpy has them
EPOCHS = 100  # with 200, 3 % more of the neighbours stay neighbours, trustworthiness is the same, and the time twice


def umap_of(names: pd.Index, latent: np.ndarray, seed: int) -> pd.DataFrame:
    """Columns row, profile, umap_1, umap_2 and cluster for at most 5,000 random profiles.

    UMAP (McInnes et al. 2018) and clusters (Leiden, Traag et al. 2019, of the graph of shared nearest neighbours,
    Xu & Su 2015) are those of libscran, with the number of neighbours and the distance of scanpy; compiled, they take
    less time than scanpy's takes to load. Clusters are numbered as text, from 0 for the largest.

    Parameters
    ----------
    names
        Names of the profiles.
    latent
        (n_profiles, n_latent), finite; at least `LEAST_UMAP` profiles.
    seed
        Seed of the choice of profiles, of UMAP and of the clusters.
    """
    import knncolle  # slow to load
    import scranpy

    rows = np.arange(len(latent))
    if len(rows) > MOST_UMAP:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_UMAP, replace=False))
    index = knncolle.build_index(knncolle.VptreeParameters(), np.asarray(latent[rows], np.float64))
    nearest = knncolle.find_knn(index, min(NEIGHBOURS, len(rows) - 1))
    placed = scranpy.run_umap(nearest, min_dist=MIN_DIST, num_epochs=EPOCHS, initialize_seed=seed, optimize_seed=seed)
    found = scranpy.cluster_graph(scranpy.build_snn_graph(nearest), "leiden", seed=seed)["membership"]
    first, second = np.asarray(placed).reshape(len(rows), 2).T
    table = {"row": rows, "profile": names[rows], "umap_1": first, "umap_2": second, "cluster": by_size(found)}
    return pd.DataFrame(table)


def by_size(clusters: np.ndarray) -> list[str]:
    """Clusters as text, from 0 for the largest; of two of a size the one that begins first comes first."""
    _, first, members, sizes = np.unique(clusters, return_index=True, return_inverse=True, return_counts=True)
    number = np.empty(len(sizes), int)
    number[np.lexsort([first, -sizes])] = np.arange(len(sizes))
    return [str(place) for place in number[members]]
