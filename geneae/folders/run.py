"""Run folders, read."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from geneae.folders.model import read_config
from geneae.folders.outputs import SPLIT
from geneae.settings.errors import InputError

NEEDED = {
    "metrics": ("model", "seed", "split", "metric", "statistic", "value", "n_profiles"),
    "profiles": ("profile", "split", "cosine", "mse", "direction_error", "magnitude_error"),
    "history": ("epoch", "validation_cosine", "validation_mse", "norm_ratio"),
    "genewise": ("gene", "mean", "correlation"),
    "umap": ("profile", "umap_1", "umap_2", "label"),
    "diagnostics": ("name", "value", "limit", "fires", "message"),
}


ENCODER_NEEDED = NEEDED | {"profiles": ("profile", "split"), "history": ("epoch", "view_cosine", "opposite_halves")}


TEXT_COLUMNS = {"model", "split", "metric", "statistic", "better", "profile", "gene", "label"} | {
    "name", "limit", "fires", "message"
}  # fmt: skip


WHOLE_COLUMNS = {"seed", "n_profiles", "epoch"}


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder, read."""

    name: str
    """Of the folder."""
    arm: str
    """What is compared: runs of one arm differ in their seeds alone."""
    config: dict[str, Any]
    """`config.json`."""
    metrics: pd.DataFrame
    """`metrics.csv`."""
    profiles: pd.DataFrame
    """`profiles.csv`."""
    history: pd.DataFrame
    """`history.csv`."""
    genewise: pd.DataFrame | None = None
    """`genewise.csv`, where there is one."""
    umap: pd.DataFrame | None = None
    """`umap.csv`, where there is one."""
    diagnostics: pd.DataFrame | None = None
    """`diagnostics.csv`, where there is one."""
    split_sizes: dict[str, int] = field(default_factory=dict)
    """Profiles by split, from `split.csv`."""

    @property
    def is_encoder(self) -> bool:
        """Whether it has latents alone, and no reconstruction."""
        return is_encoder(self.config)


def read_run(folder: Path, arm: str | None = None) -> Run:
    """A run from its files; `arm` is by default the name of its loss, or of its objective where that is another."""
    config = read_config(folder)
    needed = ENCODER_NEEDED if is_encoder(config) else NEEDED
    metrics, profiles, history = (
        _read_table(folder / f"{name}.csv", needed) for name in ("metrics", "profiles", "history")
    )
    genewise, umap, diagnostics = (
        _read_table(path) if (path := folder / f"{name}.csv").is_file() else None
        for name in ("genewise", "umap", "diagnostics")
    )
    sizes: dict[str, int] = {}
    if (folder / SPLIT).is_file():
        split = pd.read_csv(folder / SPLIT, dtype=str, keep_default_na=False)["split"]
        sizes = {str(name): int(size) for name, size in split.value_counts().items()}
    arm = arm or _arm_of(config)
    return Run(folder.name, arm, config, metrics, profiles, history, genewise, umap, diagnostics, sizes)


def _arm_of(config: dict[str, Any]) -> str:
    """What a run by itself is called: an encoder has no loss of reconstruction."""
    settings = config["settings"]
    loss, objective = str(settings["loss"]), str(settings.get("objective", "reconstruction"))
    if objective == "reconstruction":
        return loss
    return objective if is_encoder(config) else f"{objective}, {loss}"


def is_encoder(config: dict[str, Any]) -> bool:
    network = config.get("network")
    return isinstance(network, dict) and network.get("has_decoder") is False


def _read_table(path: Path, needed: dict[str, tuple[str, ...]] = NEEDED) -> pd.DataFrame:
    """A table with names as text (a gene may be called NA), and numbers to their last bit."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        missing = [name for name in needed[path.stem] if name not in table]
        if missing:
            raise ValueError(f"it lacks the columns {', '.join(missing)}")
        for name in table.columns.difference(list(TEXT_COLUMNS)):
            table[name] = table[name].replace("", "nan").astype(int if name in WHOLE_COLUMNS else float)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a table of geneae ({str(error).splitlines()[0]}). "
            "Copy the whole folder again, or fit again."
        ) from error
    return table
