"""A fit with its permuted controls, and its tables as a run folder holds them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from geneae.data.permuted import NULLS
from geneae.data.profiles import Profiles
from geneae.evaluation.diagnostics import against_null, to_table
from geneae.evaluation.records import judged_split
from geneae.fitting.fit import Fitted, fit
from geneae.folders.run import COLOR, Run, configuration_of, own_profiles, sizes_of
from geneae.folders.tables import as_written
from geneae.settings.settings import RUN_OPTIONS, Settings


def fit_with_nulls(
    profiles: Profiles,
    settings: Settings,
    null: bool = False,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    checkpoint: Path | None = None,
    resume: bool = True,
) -> Fitted:
    """Fit a model and, with `null`, also the permuted controls, in which nothing can be learned.

    Parameters
    ----------
    profiles, settings, on_epoch, checkpoint, resume
        As for `fit`; `on_epoch` is also called for the permuted controls, which also start at epoch 0.
    null
        Also fit every permuted control of `geneae.data.permuted`, and add to the diagnostics whether there was anything
        to learn. Takes three times as long.
    """
    RUN_OPTIONS["null"].check(null)
    fitted = fit(profiles, settings, on_epoch, None, checkpoint, resume)
    split = judged_split(fitted.split)
    for name in NULLS if null else ():
        without = fit(profiles, settings, on_epoch, name, checkpoint, resume)
        compared = to_table(against_null(fitted.evaluation, without.evaluation, name, split))
        fitted = replace(fitted, diagnostics=pd.concat([fitted.diagnostics, compared], ignore_index=True))
    return fitted


def run_of(fitted: Fitted, name: str = "", colors: pd.Series | None = None, umap: pd.DataFrame | None = None) -> Run:
    """Tables of a fit, as `geneae.folders.run.read_run` would read them.

    `config` lacks `scales` and `tensors`, which are written with the model.

    Parameters
    ----------
    fitted
        A fit; it is not changed.
    name
        Name of the run folder.
    colors
        Value of each profile that tells it apart in figures.
    umap
        Columns profile, umap_1, umap_2, cluster, for counts molecules and, if there are colors, the colors.
    """
    profiles = as_written(own_profiles(fitted.evaluation))
    if colors is not None:
        profiles[COLOR] = colors.reindex(profiles["profile"]).to_numpy()
    config = fitted.model.config
    return Run(
        name=name,
        configuration=configuration_of(config),
        config=config,
        metrics=fitted.evaluation.metrics,
        profiles=profiles,
        history=fitted.history,
        genewise=fitted.genewise if len(fitted.genewise) else None,
        umap=None if umap is None else as_written(umap),
        diagnostics=fitted.diagnostics,
        split_sizes=sizes_of(fitted.split),
        split=fitted.split,
        keys=fitted.keys,
    )
