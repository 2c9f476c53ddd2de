"""NMF of log-normalised counts by scikit-learn (BSD-3-Clause): sklearn.decomposition.NMF, 32 components."""

from made import arguments, log_normalised, read, write
from sklearn.decomposition import NMF

given = arguments()
adata = read(given.input)
model = NMF(n_components=32, init="nndsvda", max_iter=300, tol=1e-3, random_state=given.seed)
latent = model.fit_transform(log_normalised(adata.X))
write(given.output, adata, latent @ model.components_, latent)
