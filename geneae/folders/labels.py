"""Transferred labels in files that other tools read: AnnData, CSV, Parquet."""

from pathlib import Path

import pandas as pd

from geneae.evaluation.transfer import Transferred
from geneae.folders.embedding import Annotation, Embedded, write_embedding
from geneae.folders.tables import write_parquet, write_table

LABEL_FORMATS = (".h5ad", ".csv", ".parquet")


def annotation_of(found: Transferred, names: pd.Index, prefix: str = "geneae") -> Annotation:
    """Columns of `obs`, and `uns["geneae"]["transfer"]`."""
    return Annotation(found.table(names, prefix), {"transfer": found.facts()})


def write_labels(
    path: Path, data: str | tuple[str, ...], embedded: Embedded, found: Transferred, key_added: str
) -> list[str]:
    """Write transferred labels in the format that the ending of `path` names; returns what `write_embedding` does.

    `.csv` and `.parquet` have a row for each profile, where a refused one has an empty label; `.h5ad` is a copy of the
    query with the same columns in `obs` and the latents in `obsm[key_added]`.
    """
    annotation = annotation_of(found, embedded.profiles.names)
    if path.suffix == ".h5ad":
        return write_embedding(path, data, embedded, key_added, reconstruct=False, annotation=annotation)
    table = annotation.obs.rename_axis("profile").reset_index()
    if path.suffix == ".csv":
        write_table(table, path)
    else:
        write_parquet(table, path)
    return []
