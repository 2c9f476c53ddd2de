"""A run: everything that a fit produces, written to a folder and read from one."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geneae.data.profiles import Profiles
from geneae.evaluation.records import Evaluation
from geneae.folders.card import FILE as CARD
from geneae.folders.card import model_card
from geneae.folders.contents import ChangedFile, Contents, FolderContents
from geneae.folders.manifest import SPLIT
from geneae.folders.model import read_config, save_model
from geneae.folders.tables import read_table, write_table
from geneae.models.model import Model
from geneae.settings.errors import InputError, reason_of
from geneae.settings.toml import FILE as SETTINGS
from geneae.settings.toml import flags_of, to_toml

NEEDED = {
    "metrics": ("model", "seed", "split", "metric", "better", "statistic", "value", "n_profiles"),
    "profiles": ("profile", "split", "cosine", "mse", "direction_error", "magnitude_error"),
    "history": ("epoch", "validation_cosine", "validation_mse", "norm_ratio"),
    "genewise": ("gene", "mean", "correlation"),
    "umap": ("profile", "umap_1", "umap_2"),
    "diagnostics": ("name", "value", "limit", "fires", "message"),
}
ENCODER_NEEDED = NEEDED | {"profiles": ("profile", "split"), "history": ("epoch", "view_cosine", "opposite_halves")}
TEXT_COLUMNS = {
    "model",
    "split",
    "metric",
    "statistic",
    "better",
    "profile",
    "gene",
    "label",
    "cluster",
    "name",
    "limit",
    "message",
    "run",
    "arm",
}
WHOLE_COLUMNS = {"seed", "n_profiles", "epoch"}
TRUTH = {"True": True, "False": False}
"""Values of the column `fires`, as spelled in CSV files."""
COLOR = "label"
"""Column of `profiles.csv` and `umap.csv` with the values of the column of `obs` that `--color` names."""


@dataclass(frozen=True, eq=False)
class Run:
    """Configuration and tables of one fit, in memory or read from a folder without loss of precision."""

    name: str
    """Name of the folder."""
    configuration: str
    """Name of the configuration, column `arm` of tables; runs of one configuration differ only in their seeds."""
    config: dict[str, Any]
    """Contents of `config.json`; in memory without `scales` and `tensors`, which are written with the model."""
    metrics: pd.DataFrame
    """`metrics.csv`: scores of the model and its baselines."""
    profiles: pd.DataFrame
    """`profiles.csv`: one row per validation and test profile, for the model alone."""
    history: pd.DataFrame
    """`history.csv`: one row per epoch."""
    genewise: pd.DataFrame | None = None
    """`genewise.csv`; None without a reconstruction."""
    umap: pd.DataFrame | None = None
    """`umap.csv`; None if no UMAP was asked for."""
    diagnostics: pd.DataFrame | None = None
    """`diagnostics.csv`; None in folders of older versions."""
    split_sizes: dict[str, int] = field(default_factory=dict)
    """Number of profiles by split, from `split.csv`."""
    split: pd.Series | None = None
    """Split of each profile, `split.csv`; None in a run read from a folder, which keeps only the sizes."""
    keys: np.ndarray | None = None
    """Key of each profile, see `geneae.data.identity`, column `digest` of `split.csv`; likewise."""

    @property
    def is_encoder(self) -> bool:
        """Whether the model has only latents, and no reconstruction."""
        return is_encoder(self.config)

    def named(self, table: pd.DataFrame) -> pd.DataFrame:
        """One of its tables with the columns `run` and `arm`, which tell its rows from those of other runs."""
        # texts as objects: a folder's name may not be UTF-8, which the texts of pandas 3 must be
        names = {"run": self.name, "arm": self.configuration}
        return table.assign(**{key: pd.Series(name, index=table.index, dtype=object) for key, name in names.items()})

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables that exist, by file name without `.csv`."""
        tables = {
            "split": None if self.split is None else split_table(self.split, self.keys),
            "history": self.history,
            "genewise": self.genewise,
            "diagnostics": self.diagnostics,
            "profiles": self.profiles,
            "metrics": self.metrics,
            "umap": self.umap,
        }
        return {name: table for name, table in tables.items() if table is not None}


def split_table(split: pd.Series, keys: np.ndarray | None) -> pd.DataFrame:
    """Contents of `split.csv`: profile, split and, if they are known, the key of its values as hexadecimal digits."""
    table = pd.DataFrame({"profile": split.index, "split": split.to_numpy()})
    return table if keys is None else table.assign(digest=[f"{key:016x}" for key in keys.tolist()])


def write_run(folder: Path, model: Model, run: Run | None) -> None:
    """Write a model, its card, its settings and, if given, the tables of its run into a folder."""
    save_model(model, folder)
    (folder / CARD).write_text(model_card(model, None if run is None else run.metrics), encoding="utf-8")
    (folder / SETTINGS).write_text(to_toml(flags_of(model.config)), encoding="utf-8")
    if run is not None:
        write_tables(folder, run.tables())


def write_tables(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write tables as CSV files; the keys are file names without `.csv`."""
    for name, table in tables.items():
        write_table(table, folder / f"{name}.csv")


def own_profiles(evaluation: Evaluation) -> pd.DataFrame:
    """Rows per profile for the model alone, without its baselines: the contents of `profiles.csv`."""
    table = evaluation.profiles
    return table[table["model"] == "model"].drop(columns="model").reset_index(drop=True)


def run_of_evaluation(
    model: Model,
    evaluation: Evaluation,
    profiles: Profiles,
    split: pd.Series,
    umap: pd.DataFrame | None,
    heard: Sequence[str],
    name: str,
    command: str,
) -> Run:
    """The evaluation of a model on other profiles as a run without a history, for a report.

    Parameters
    ----------
    model
        The model.
    evaluation
        Its numbers.
    profiles
        The profiles that it was evaluated on.
    split
        Split of each profile in the fit, `new` or `all`.
    umap
        `umap.csv` of their latents, if there is one.
    heard
        Sentences about the profiles: how they were read, genes that they lack, their depth.
    name
        Name of the folder.
    command
        Command line.
    """
    facts = {
        "source": profiles.source,
        "location": profiles.location,
        "n_profiles": profiles.n_profiles,
        "n_genes": profiles.n_genes,
        "fingerprint": profiles.fingerprint,
        "heard": list(heard),
    }
    config = model.config | {"evaluated": True, "command": command, "data": facts, "color": None}
    return Run(
        name,
        configuration_of(config),
        config,
        evaluation.metrics,
        own_profiles(evaluation),
        pd.DataFrame(),
        umap=umap,
        split_sizes=sizes_of(split),
    )


def read_run(folder: Path, configuration: str | None = None) -> Run:
    """Read a run from its files; `configuration` is the name from `configuration_of` by default."""
    files = FolderContents(folder)
    config = read_config(folder)
    needed = ENCODER_NEEDED if is_encoder(config) else NEEDED
    metrics, profiles, history = (
        read_columns(files, f"{name}.csv", needed) for name in ("metrics", "profiles", "history")
    )
    genewise, umap, diagnostics = (
        read_columns(files, f"{name}.csv") if f"{name}.csv" in files else None
        for name in ("genewise", "umap", "diagnostics")
    )
    sizes = read_sizes(files) if SPLIT in files else {}
    configuration = configuration or configuration_of(config)
    return Run(folder.name, configuration, config, metrics, profiles, history, genewise, umap, diagnostics, sizes)


def sizes_of(split: pd.Series) -> dict[str, int]:
    """Number of profiles by split, largest first."""
    return {str(name): int(size) for name, size in split.value_counts().items()}


def read_sizes(files: Contents) -> dict[str, int]:
    """The same from `split.csv`."""
    with _reading(files.path / SPLIT):
        return sizes_of(_with_columns(read_table(files.read(SPLIT)), ("split",))["split"])


def configuration_of(config: Mapping[str, Any]) -> str:
    """Default name of a configuration: its loss, its objective or both; an encoder has no reconstruction loss."""
    settings = config["settings"]
    loss, objective = str(settings["loss"]), str(settings.get("objective", "reconstruction"))
    if objective == "reconstruction":
        return loss
    return objective if is_encoder(config) else f"{objective}, {loss}"


def is_encoder(config: Mapping[str, Any]) -> bool:
    """Whether the contents of a `config.json` describe a network without a decoder."""
    network = config.get("network")
    return isinstance(network, dict) and network.get("has_decoder") is False


def read_columns(files: Contents, file: str, needed: Mapping[str, tuple[str, ...]] = NEEDED) -> pd.DataFrame:
    """Read a table with names as text (a gene may be called NA) and numbers at full precision."""
    with _reading(files.path / file):
        table = _with_columns(read_table(files.read(file)), needed[file.removesuffix(".csv")])
        if "fires" in table:
            table["fires"] = _truths(table["fires"])
        for name in table.columns.difference([*TEXT_COLUMNS, "fires"]):
            table[name] = table[name].replace("", "nan").astype(int if name in WHOLE_COLUMNS else float)
    return table


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what is wrong with a table into one error that says so."""
    try:
        yield
    except ChangedFile:
        raise
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a table of geneae ({reason_of(error)}). "
            "Copy the complete folder again, or fit again."
        ) from error


def _with_columns(table: pd.DataFrame, needed: Iterable[str]) -> pd.DataFrame:
    missing = [name for name in needed if name not in table]
    if missing:
        raise ValueError(f"it lacks the columns {', '.join(missing)}")
    return table


def _truths(column: pd.Series) -> pd.Series:
    odd = column[~column.isin(list(TRUTH))]
    if len(odd):
        raise ValueError(f"the column fires must hold True or False; found '{odd.iloc[0]}'")
    return column.map(TRUTH).astype(bool)
