"""Harmony (Korsunsky et al. 2019), package harmonypy (GPL-3.0-or-later), called as a process of its own: run_harmony on
32 principal components of log-normalised counts, by the batches of --batch. Latents only."""

import numpy as np
from harmonypy import run_harmony
from made import arguments, log_normalised, read, write
from sklearn.decomposition import PCA

given = arguments()
adata = read(given.input)
scores = PCA(32, random_state=given.seed).fit_transform(log_normalised(adata.X).toarray())
if given.batch is None:
    raise SystemExit("Harmony needs --batch.")
corrected = np.asarray(run_harmony(scores, adata.obs, [given.batch], random_state=given.seed).Z_corr)
write(given.output, adata, None, corrected if corrected.shape == scores.shape else corrected.T)
