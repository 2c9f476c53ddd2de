"""The input itself, log-normalised: what doing nothing reaches."""

from made import arguments, log_normalised, read, write

given = arguments()
adata = read(given.input)
write(given.output, adata, log_normalised(adata.X).toarray())
