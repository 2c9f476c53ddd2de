"""ALRA (Linderman et al. 2022), package halra (MIT): halra.halra with its defaults on log-normalised counts."""

import pandas as pd
from halra import halra
from made import arguments, log_normalised, read, write

given = arguments()
adata = read(given.input)
values, cells, genes = halra(
    log_normalised(adata.X).toarray(), list(adata.obs_names), list(adata.var_names), seed=given.seed, verbose=False
)
made = pd.DataFrame(values.toarray() if hasattr(values, "toarray") else values, cells, genes)
kept = adata[made.index, made.columns]
write(given.output, kept, made.to_numpy())
