"""BiPCA (Stanley et al. 2025), package bipca (BSD-3-Clause): bipca.BiPCA with its defaults; expected counts."""

from bipca import BiPCA
from made import arguments, read, write

given = arguments()
adata = read(given.input)
model = BiPCA(seed=given.seed, verbose=0)
model.fit(adata.X.toarray().astype(float))
values = model.transform(unscale=True, library_normalize=False)
latent = model.transform(counts=False)
write(given.output, adata, values, latent)
