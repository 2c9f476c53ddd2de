"""What tests of several commands share: the command in this process, a small fit, and bad input."""

import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from conftest import simulate

from geneae.cli.main import main
from geneae.training.checkpoints import Checkpoint

FLAGS = ["--latent", "4", "--hidden", "16", "--rank", "12", "--epochs", "3", "--splits", "2", "--batch-size", "64"]


BAD_DEPTHS = {
    "ratio of 0": (["--depth-ratio", "0"], "--depth-ratio must be a number above 0; found 0. 10 means a tenth of"),
    "ratio below 0": (["--depth-ratio", "-1"], "--depth-ratio must be a number above 0; found -1."),
    "ratio that is no number": (["--depth-ratio", "nan"], "--depth-ratio must be a number above 0; found nan."),
    "unknown column": (["--depth-by", "doner"], "unknown obs column 'doner'; did you mean 'donor'?"),
    "both": (
        ["--depth-by", "donor", "--depth-ratio", "3"],
        "but --depth-ratio 3 gives one for all. Give only one of them.",
    ),
}
"""Flags for the depth of profiles that are refused, and what is said."""


TABLES = {"diagnostics.csv", "genes.csv", "genewise.csv", "history.csv", "metrics.csv", "profiles.csv", "split.csv"}


FILES = {
    "README.md",
    "SHA256SUMS",
    "config.json",
    "latents.h5ad",
    "model.safetensors",
    "report.html",
    "settings.toml",
    "umap.csv",
    "universe.csv",
    *TABLES,
}


def geneae(*arguments: object) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def there(folder: Path) -> set[str]:
    """Everything in a folder, hidden files too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@dataclass
class Run:
    """What `geneae fit` did."""

    result: Result
    folder: Path


def write(path: Path, adata: anndata.AnnData) -> Path:
    adata.write_h5ad(path)
    return path


def with_values(change: Callable[[np.ndarray], None]) -> anndata.AnnData:
    adata = simulate(60, 30)
    dense = adata.X.toarray()
    change(dense)
    adata.X = dense
    return adata


def put(row: int, column: int, value: float) -> Callable[[np.ndarray], None]:
    def change(dense: np.ndarray) -> None:
        dense[row, column] = value

    return change


def make_text(folder: Path) -> Path:
    path = folder / "data.h5ad"
    path.write_text("gene,cell0\nA,1\n")
    return path


def make_truncated(folder: Path) -> Path:
    path = write(folder / "data.h5ad", simulate(60, 30))
    path.write_bytes(path.read_bytes()[:-5000])
    return path


def make_duplicates(folder: Path) -> Path:
    import h5py

    path = write(folder / "data.h5ad", simulate(60, 30))
    with h5py.File(path, "r+") as file:
        names = file["obs/_index"]
        (names if isinstance(names, h5py.Dataset) else names["values"])[4] = "cell3"
    return path


BAD_DATA: dict[str, tuple[Callable[[Path], Path], list[str], str]] = {
    "missing file": (lambda folder: folder / "data.h5ad", [], "{data} does not exist"),
    "not an h5ad": (make_text, [], "{data} should be an .h5ad (HDF5) file, but its content is not HDF5."),
    "truncated": (make_truncated, [], "{data} should be a complete AnnData file, but reading it failed: "),
    "missing layer": (
        lambda folder: write(folder / "data.h5ad", simulate(60, 30)),
        ["--layer", "counts"],
        "unknown layer 'counts'. There are none.",
    ),
    "missing raw": (
        lambda folder: write(folder / "data.h5ad", simulate(60, 30)),
        ["--raw"],
        "{data} has no raw. Leave raw out; its layers: none.",
    ),
    "negative values": (
        lambda folder: write(folder / "data.h5ad", with_values(put(3, 5, -1.0))),
        [],
        "{data}, X: counts cannot be negative; of ",
    ),
    "NaN": (
        lambda folder: write(folder / "data.h5ad", with_values(put(3, 5, np.nan))),
        [],
        "1 are NaN or infinite, first in profile 'cell3', gene 'gene5'. Remove these profiles or genes, or fill in",
    ),
    "infinity": (
        lambda folder: write(folder / "data.h5ad", with_values(put(7, 2, np.inf))),
        [],
        "1 are NaN or infinite, first in profile 'cell7', gene 'gene2'.",
    ),
    "duplicate profiles": (
        make_duplicates,
        [],
        "{data}, X: profile names must be unique; 1 of 60 repeat an earlier one, first 'cell3'. Make them unique with",
    ),
    "too few profiles": (
        lambda folder: write(folder / "data.h5ad", simulate(2, 30)),
        [],
        "a split into train, validation, test needs at least 3 profiles; found 2.",
    ),
    "latent too large": (
        lambda folder: write(folder / "data.h5ad", simulate(30, 40)),
        ["--latent", "32"],
        "--latent must be at most 23 with 24 training profiles and ",
    ),
    "unknown group": (
        lambda folder: write(folder / "data.h5ad", simulate(60, 30)),
        ["--group", "doner"],
        "unknown obs column 'doner'; did you mean 'donor'? Available: donor, kind",
    ),
    "impossible setting": (
        lambda folder: folder / "data.h5ad",
        ["--dropout", "1"],
        "dropout must be at least 0 and below 1; found 1.",
    ),
    "unknown loss": (
        lambda folder: folder / "data.h5ad",
        ["--loss", "cosin"],
        "unknown loss 'cosin'; did you mean 'cosine'? Available: mse, relative-mse, cosine,",
    ),
}


def assert_refused(result: Result, text: str) -> None:
    """One message on standard error, nothing else, exit code 2."""
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert text in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output


def damage(run: Run, folder: Path, kind: str) -> Path:
    """A folder that is no model any more."""
    path = folder / "model"
    if kind == "missing":
        return path
    shutil.copytree(run.folder, path)
    (path / "SHA256SUMS").unlink()  # so that it is not by its checksum that the damage is found
    if kind == "foreign":
        for name in FILES - {"SHA256SUMS"}:
            (path / name).unlink()
        (path / "notes.txt").write_text("mine")
    if kind == "truncated":
        content = (path / "model.safetensors").read_bytes()
        (path / "model.safetensors").write_bytes(content[: len(content) // 2])
    if kind == "no json":
        (path / "config.json").write_text('{"format": 1,')
    if kind == "other format":
        (path / "config.json").write_text('{"format": 99}')
    if kind == "no weights":
        (path / "model.safetensors").unlink()
    if kind == "other genes":
        table = pd.read_csv(path / "genes.csv")
        table.iloc[:-3].to_csv(path / "genes.csv", index=False)
    return path


def stopped(
    *arguments: object, monkeypatch: pytest.MonkeyPatch, after: int = 2, by: signal.Signals = signal.SIGTERM
) -> Result:
    """The command, stopped by a signal in the middle of an epoch."""
    real, left = Checkpoint.is_due, [after]

    def is_due(self: Checkpoint) -> bool:
        left[0] -= 1
        if not left[0]:
            signal.raise_signal(by)
        return real(self)

    monkeypatch.setattr(Checkpoint, "is_due", is_due)
    result = geneae(*arguments)
    monkeypatch.setattr(Checkpoint, "is_due", real)
    return result
