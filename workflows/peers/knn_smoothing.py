"""Smoothing over nearest neighbours by cellmapper (MIT): CellMapper of the profiles onto themselves, with its defaults,
on log-normalised counts and their PCA."""

from cellmapper import CellMapper
from made import arguments, log_normalised, read, write

given = arguments()
adata = read(given.input)
adata.X = log_normalised(adata.X)
mapper = CellMapper(adata)
mapper.compute_neighbors(n_neighbors=30, random_state=given.seed)
mapper.compute_mapping_matrix()
mapper.map_layers("X")
values = mapper.query_imputed.X
write(given.output, adata, values.toarray() if hasattr(values, "toarray") else values)
