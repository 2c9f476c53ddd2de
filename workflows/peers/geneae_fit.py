"""A fit of geneae (BSD-3-Clause) on both halves of the training profiles as separate profiles, which `group` keeps in
one split: geneae.tl.fit, and geneae.tl.embed and reconstruct of the given halves, which are as deep as these.

A fit on whole profiles would learn more, but its reconstructions are expected values at their depth, and a half is
judged by what is expected of a half.
"""

import anndata
from made import arguments, read, write

import geneae

given = arguments("--loss")
adata = read(given.input)
train = anndata.read_h5ad(given.train)[:, adata.var_names].copy()
model = geneae.tl.fit(train, loss=given.loss or "mse", seed=given.seed, group="geneae_profile", progress=False)
geneae.tl.embed(adata, model, depth_ratio=1.0)
geneae.tl.reconstruct(adata, model, depth_ratio=1.0)
write(given.output, adata, adata.layers["geneae_reconstructed"], adata.obsm["X_geneae"])
