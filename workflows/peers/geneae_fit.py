"""A fit of geneae (BSD-3-Clause) on whole training profiles: geneae.tl.fit, and geneae.tl.embed and reconstruct of the
given halves, which are profiles of half the depth to it, at their own depth.
"""

import anndata
import pandas as pd
from made import arguments, read, write
from scipy import sparse

import geneae

given = arguments("--loss")
adata = read(given.input)
halves = anndata.read_h5ad(given.train)[:, adata.var_names]
of, profiles = pd.factorize(halves.obs["geneae_profile"])
both = sparse.csr_matrix(([1.0] * len(of), (of, range(len(of)))))  # adds the two halves of a profile
train = anndata.AnnData(sparse.csr_matrix(both @ halves.X), pd.DataFrame(index=profiles), halves.var)
model = geneae.tl.fit(train, loss=given.loss or "mse", seed=given.seed, progress=False)
geneae.tl.embed(adata, model, depth_ratio=2.0)
geneae.tl.reconstruct(adata, model, depth_ratio=2.0, own_depth=True)
write(given.output, adata, adata.layers["geneae_reconstructed"], adata.obsm["X_geneae"])
