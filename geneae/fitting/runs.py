"""Run folders: one fit written whole."""

import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.fitting.autoencoder import Autoencoder
from geneae.folders.locks import only_writer
from geneae.report import read_run, write_report
from geneae.settings.errors import unknown
from geneae.settings.settings import Settings
from geneae.training.devices import is_first, threads

REPORT = "report.html"


MOST_UMAP = 5000  # profiles in a picture


@dataclass(frozen=True)
class Source:
    """Where profiles are read from; each worker of a grid reads them itself."""

    data: str
    """Path."""
    layer: str | None = None
    """Layer in place of X."""
    use_raw: bool = False
    """raw in place of X."""

    def read(self) -> Profiles:
        """The profiles."""
        return read_profiles(self.data, self.layer, self.use_raw)


def fit_run(
    profiles: Profiles,
    settings: Settings,
    folder: Path,
    command: str,
    overwrite: bool = False,
    color: str | None = None,
    null: bool = False,
    with_umap: bool = True,
    with_report: bool = True,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    resume: bool = False,
) -> Autoencoder:
    """Fit, judge, and write a run folder, by default with its report, whole or not at all.

    Until it is whole the folder holds checkpoints, from which the same call goes on with `resume`. With `color`, a
    column of `obs`, profiles carry its value as their label, and a UMAP of the latents is made unless it is declined.
    With `null`, the nulls of `geneae.data.permuted` are fitted too.
    """
    check_color(profiles, color)
    model = Autoencoder(**asdict(settings))
    model.fit(profiles, on_epoch=on_epoch, null=null, checkpoint=folder, resume=resume)
    model.model_.config.update(command=command, color=color, null=null)
    if color is not None:
        table, labels = model.evaluation_.profiles, profiles.obs[color].astype(str)
        table["label"] = labels.reindex(table["profile"]).to_numpy()

    def add_report(partial: Path) -> None:
        if color is not None and with_umap:
            umap = umap_of(profiles.names, model.transform(profiles), settings.seed)
            umap.assign(label=labels.to_numpy()[umap.pop("row")]).to_csv(partial / "umap.csv", index=False)
        if with_report:
            write_report(partial / REPORT, [read_run(partial)], model.conclusion_)

    model.save(folder, overwrite=overwrite or resume, and_then=add_report)
    return model


def writing_alone(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Inside, no process but those of one training writes a folder; of these the first one sees to it."""
    return only_writer(folder) if is_first() else contextlib.nullcontext()


def check_color(profiles: Profiles, color: str | None) -> None:
    """Refuse a column of `obs` that is not there."""
    if color is not None and color not in profiles.obs.columns:
        raise unknown("obs column", color, profiles.obs.columns)


def umap_of(names: pd.Index, latent: np.ndarray, seed: int) -> pd.DataFrame:
    """row, profile, umap_1, umap_2 of at most 5,000 profiles, by scanpy with its defaults."""
    import anndata
    import scanpy as sc  # slow to load

    rows = np.arange(len(latent))
    if len(rows) > MOST_UMAP:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_UMAP, replace=False))
    adata = anndata.AnnData(latent[rows])
    with threads(torch.get_num_threads()):  # the search for neighbours changes the number for all of the process
        sc.pp.neighbors(adata, n_neighbors=min(15, len(rows) - 1), use_rep="X", random_state=seed)
        sc.tl.umap(adata, random_state=seed)
    first, second = adata.obsm["X_umap"].T
    return pd.DataFrame({"row": rows, "profile": names[rows], "umap_1": first, "umap_2": second})


def judged_split(settings: Settings) -> str:
    """The split that verdicts read."""
    return "test" if settings.test else "validation"
