"""Run folders: one fit with its report, written completely or not at all."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from geneae.data.profiles import Profiles
from geneae.data.reading import check_unchanged
from geneae.data.texts import texts
from geneae.evaluation.diagnostics import of_data, to_table
from geneae.evaluation.umap import LEAST_UMAP, umap_of
from geneae.fitting.checks import open_metric
from geneae.fitting.fit import Fitted
from geneae.fitting.fitted import fit_with_nulls, run_of
from geneae.folders.embedding import embed
from geneae.folders.latents import ADDED, latents_of, write_latents
from geneae.folders.locks import only_writer
from geneae.folders.manifest import CONFIG, LATENTS_FILE, REPORT
from geneae.folders.model import read_config
from geneae.folders.outputs import Output, finish_swap
from geneae.folders.run import COLOR, write_run
from geneae.report import write_report
from geneae.settings.errors import InputChanged, InputError, listed, unknown
from geneae.settings.settings import Settings
from geneae.settings.stages import enter
from geneae.training.checkpoints import is_unfinished
from geneae.training.devices import is_first


@dataclass(frozen=True)
class Request:
    """Outputs that a run is asked for, in addition to its settings."""

    command: str
    """Command line, recorded in `config.json`."""
    color: str | None = None
    """Column of `obs` that tells profiles apart in tables and figures."""
    null: bool = False
    """Also fit the permuted controls of `geneae.data.permuted`."""
    with_latents: bool = True
    """Write `latents.h5ad`."""
    with_umap: bool = True
    """Make a UMAP of these latents, which takes seconds."""
    with_report: bool = True
    """Write a report, which takes as long as a small fit."""

    def recorded(self) -> dict[str, str | bool | None]:
        """Entries of `config.json`."""
        return {"command": self.command, "color": self.color, "null": self.null}


def fit_run(
    profiles: Profiles,
    settings: Settings,
    output: Output,
    request: Request,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Fitted:
    """Fit, evaluate, and write a run folder, by default with its report, complete or not at all.

    Until it is complete, the folder holds checkpoints, from which the same call resumes if `output.resume` is set. If
    several processes train together, only the first writes.
    """
    check_color(profiles, request.color)
    fitted = fit_with_nulls(profiles, settings, request.null, on_epoch, output.folder, output.resume)
    recorded = request.recorded() | {"conclusion": fitted.conclusion}
    fitted = replace(fitted, model=replace(fitted.model, config=fitted.model.config | recorded))
    if not is_first():
        return fitted
    enter("report")
    colors = None if request.color is None else texts(profiles.obs[request.color])
    with output.new() as partial:
        umap: pd.DataFrame | None = None
        notes: dict[str, str] = {}
        if request.with_latents:
            umap, notes = _write_latents(partial / LATENTS_FILE, fitted, profiles, colors, request.with_umap)
        if notes:
            tables = [fitted.diagnostics, to_table(of_data(notes))]
            fitted = replace(fitted, diagnostics=pd.concat(tables, ignore_index=True))
        run = run_of(fitted, output.folder.name, colors, umap)
        write_run(partial, fitted.model, run)
        if request.with_report:
            write_report(partial / REPORT, [run], fitted.conclusion)
    return fitted


def _write_latents(
    path: Path, fitted: Fitted, profiles: Profiles, colors: pd.Series | None, with_umap: bool
) -> tuple[pd.DataFrame | None, dict[str, str]]:
    """Write the latents of the profiles of a fit; returns `umap.csv`, if there is one, and what was not written."""
    model = fitted.model
    expression = model.preprocess.match(profiles)[0]
    try:
        embedded = embed(model, profiles, expression, None if model.estimator is None else 1.0)
    except InputChanged:
        raise
    except InputError as error:  # a trained model is worth more than its latents
        return None, {"latents": f"There is no {path.name}: {error}"}
    check_unchanged(profiles)
    rows = np.flatnonzero(~embedded.is_blank)
    molecules = expression.totals if model.preprocess.state == "counts" else None
    umap = None
    if with_umap and len(rows) >= LEAST_UMAP:
        umap = umap_of(profiles.names[rows], embedded.latent[rows], int(model.config["seed"]))
        rows = rows[umap.pop("row")]
        if molecules is not None:
            umap["molecules"] = molecules[rows]
        if colors is not None:
            umap[COLOR] = colors.to_numpy()[rows]
    latents = latents_of(embedded, fitted.split, molecules, umap)
    replaced = [f"obs '{name}'" for name in ADDED if name in latents.obs and name in profiles.obs]
    said = [f"{path.name} has its own {listed(replaced)} in place of the data's."] if replaced else []
    said += [failed] if (failed := write_latents(path, latents)) else []
    return umap, {"latents": " ".join(said)} if said else {}


def is_finished(folder: Path, settings: Settings, request: Request, fingerprint: str) -> bool:
    """Whether a folder holds this run, complete, on the data with this fingerprint.

    A complete run with other settings, data or color, or without the requested permuted controls, is refused.
    """
    finish_swap(folder)
    if not (folder / CONFIG).is_file() or is_unfinished(folder):
        return False
    config = read_config(folder)
    wanted = json.loads(json.dumps(asdict(settings)))
    chosen = config.get("chosen", ())
    different = [
        name
        for name, value in wanted.items()
        if config["settings"].get(name) != value and not (value is None and name in chosen)
    ]
    if config["data"]["fingerprint"] != fingerprint:
        different.append("data")
    metric = open_metric(settings)
    if metric is not None and "metric" not in different and metric.fingerprint != config["metric"]["fingerprint"]:
        different.append("content of the metric")
    if request.color is not None and config.get("color") != request.color:
        different.append("color")
    if request.null and not config.get("null"):
        different.append("null")
    if different:
        raise InputError(
            f"{folder} holds a run that differs in {', '.join(different)}. Choose another output folder, or remove it."
        )
    return True


def writing_alone(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Lock on a folder, held by the first process of a training: no other training writes the folder meanwhile."""
    return only_writer(folder) if is_first() else contextlib.nullcontext()


def check_color(profiles: Profiles, color: str | None) -> None:
    """Refuse a column that `obs` does not have."""
    if color is not None and color not in profiles.obs.columns:
        raise unknown("obs column", color, profiles.obs.columns)
