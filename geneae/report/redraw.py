"""The report of a run folder, drawn again from what the folder holds."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from geneae.data.texts import texts
from geneae.folders.latents import read_column
from geneae.folders.manifest import CONFIG
from geneae.folders.run import COLOR, Run, read_run
from geneae.report.page import render_report
from geneae.settings.errors import InputError, reason_of


def redraw_report(folder: Path, color: str | None = None) -> str:
    """HTML of the report of a run folder.

    Runs of versions that have not recorded their conclusion get a report without it.

    Parameters
    ----------
    folder
        A run folder; a column of `latents.h5ad` needs one whose fit has written that file.
    color
        Column of `obs` that tells profiles apart, in place of the one of the fit.
    """
    try:
        run = read_run(folder)
        if color is not None:
            run = coloured(run, color, read_column(folder, color))
        return render_report([run], str(run.config.get("conclusion") or ""))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"no report can be drawn of {folder} ({type(error).__name__}: {reason_of(error)}): its tables or {CONFIG} "
            "are not as geneae writes them. Copy the complete folder again, or fit again."
        ) from error


def coloured(run: Run, color: str, values: pd.Series) -> Run:
    """The run as if it had been fitted with this `--color`; profiles without a value have an empty label.

    Parameters
    ----------
    run
        A run.
    color
        Name of the column.
    values
        Its values, by profile.
    """
    labels = texts(values)

    def labelled(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(**{COLOR: labels.reindex(table["profile"]).fillna("").to_numpy()})

    umap = None if run.umap is None else labelled(run.umap)
    return replace(run, config=run.config | {"color": color}, profiles=labelled(run.profiles), umap=umap)
