"""MAGIC (van Dijk et al. 2018), package magic-impute (GPL-2.0), called as a process of its own: magic.MAGIC with its
defaults on log-normalised counts."""

import magic
from made import arguments, log_normalised, read, write

given = arguments()
adata = read(given.input)
operator = magic.MAGIC(random_state=given.seed, n_jobs=1, verbose=0)
values = operator.fit_transform(log_normalised(adata.X), genes="all_genes")
write(given.output, adata, getattr(values, "values", values))
