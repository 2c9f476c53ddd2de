"""Poisson GLM-PCA, package fastglmpca (MIT): fastglmpca.PoissonGLMPCA, 16 components; expected counts."""

from fastglmpca import PoissonGLMPCA
from made import arguments, read, write

given = arguments()
adata = read(given.input)
model = PoissonGLMPCA(n_pcs=16, seed=given.seed, progress_bar=False, device="cpu", max_iter=200)
model.fit(adata.X)
values = model.reconstruct_counts()
latent = getattr(model, "U", None)
write(given.output, adata, values, latent)
