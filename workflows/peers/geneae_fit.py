"""A fit of geneae (BSD-3-Clause) on the given half alone, which it divides once more: geneae.tl.fit and reconstruct."""

from made import arguments, read, write

import geneae

given = arguments("--loss")
adata = read(given.input)
model = geneae.tl.fit(adata, loss=given.loss or "mse", seed=given.seed, progress=False)
geneae.tl.reconstruct(adata, model, depth_ratio=1.0)
write(given.output, adata, adata.layers["geneae_reconstructed"], adata.obsm["X_geneae"])
