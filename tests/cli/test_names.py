"""Files, folders, profiles and columns with names that are not text, or that a terminal would obey."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from commands import FILES, FLAGS, Run, assert_refused, geneae, stopped, there, with_values

from geneae.folders.tables import read_table

BAD = "\udcff\x1b[2J"  # a byte that is not UTF-8, and a command that clears a terminal
SHOWN = r"\udcff\x1b[2J"


@pytest.fixture(scope="session")
def odd(run: Run, counts_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and the run of them, under such names; not to be changed."""
    folder = tmp_path_factory.mktemp("odd")
    shutil.copyfile(counts_path, folder / f"data{BAD}.h5ad")
    shutil.copytree(run.folder, folder / f"run{BAD}")
    return folder


def assert_printable(text: str) -> None:
    assert not [sign for sign in text if sign != "\n" and (sign < " " or "\x7f" <= sign <= "\x9f")]
    text.encode("utf-8")


def test_a_fit_shows_such_names_escaped_and_goes_on_under_them(
    odd: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / f"new{BAD}"
    arguments = ["fit", odd / f"data{BAD}.h5ad", "--loss", "cosine", "-o", folder, *FLAGS, "--log", "csv"]
    result = stopped(*arguments, monkeypatch=monkeypatch)
    assert result.exit_code == 143
    assert_printable(result.stdout + result.stderr)
    result = geneae(*arguments, "--resume")
    assert result.exit_code == 0, result.output
    assert_printable(result.stdout + result.stderr)
    assert f"Report: {tmp_path}/new{SHOWN}/report.html" in result.stdout
    assert {path.name for path in folder.iterdir()} == FILES
    for name in FILES:
        assert b"\x1b" not in (folder / name).read_bytes() or name in ("model.safetensors", "latents.h5ad")
    assert f"data{SHOWN}".replace("[", " ") in (folder / "README.md").read_text(encoding="utf-8")
    source = json.loads((folder / "config.json").read_text(encoding="ascii"))["data"]["source"]
    assert os.fsencode(source) == os.fsencode(odd / f"data{BAD}.h5ad")
    for name in ("model.safetensors", "profiles.csv", "metrics.csv"):
        assert (folder / name).read_bytes() == (run.folder / name).read_bytes()


@pytest.mark.parametrize(
    ("command", "output"),
    [
        *(("embed", f"out{BAD}{ending}") for ending in (".h5ad", ".csv", ".parquet", ".npy")),
        ("evaluate", f"judged{BAD}"),
        ("share", f"model{BAD}.zip"),
        ("metric", f"metric{BAD}"),
    ],
    ids=ascii,
)
def test_other_commands_read_and_write_them_too(odd: Path, command: str, output: str, tmp_path: Path) -> None:
    model, data = odd / f"run{BAD}", odd / f"data{BAD}.h5ad"
    given = {"share": [model], "metric": [data, "--label", "kind", "--epochs", "2"]}.get(command, [model, data])
    result = geneae(command, *given, "-o", tmp_path / output)
    assert result.exit_code == 0, result.output
    assert_printable(result.stdout + result.stderr)
    assert {path.name for path in tmp_path.iterdir()} == {output}
    assert geneae(command, *given, "-o", tmp_path / output, "--overwrite").exit_code == 0


def test_a_shared_model_and_compared_runs_are_read_back(odd: Path, tmp_path: Path) -> None:
    model, data = odd / f"run{BAD}", odd / f"data{BAD}.h5ad"
    assert geneae("share", model, "-o", tmp_path / f"m{BAD}.zip").exit_code == 0
    assert geneae("embed", tmp_path / f"m{BAD}.zip", data, "-o", tmp_path / "zip.npy").exit_code == 0
    assert geneae("embed", model, data, "-o", tmp_path / "folder.npy").exit_code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "zip.npy"), np.load(tmp_path / "folder.npy"))
    result = geneae("compare", model, "-o", tmp_path / f"c{BAD}")
    assert result.exit_code == 0, result.output
    assert set(read_table((tmp_path / f"c{BAD}" / "metrics.csv").read_bytes())["run"]) == {f"run{BAD}"}


def test_what_cannot_be_recorded_is_refused_before_training(odd: Path, metric_folder: Path, tmp_path: Path) -> None:
    metric = Path(shutil.copytree(metric_folder, tmp_path / f"metric{BAD}"))
    before = there(tmp_path)
    data = odd / f"data{BAD}.h5ad"
    result = geneae("fit", data, "-o", tmp_path / "run", "--metric", metric)
    assert_refused(
        result, f"the name of --metric {tmp_path}/metric{SHOWN} must be UTF-8 text without control characters"
    )
    result = geneae("fit", data, "-o", tmp_path / f"run{BAD}", "--log", "tensorboard")
    assert_refused(
        result, f"--log tensorboard needs a folder whose name is UTF-8 text; found {tmp_path}/run{SHOWN}_log."
    )
    assert there(tmp_path) == before


def test_names_of_profiles_and_columns_are_escaped_where_shown_and_kept_in_tables(tmp_path: Path) -> None:
    adata = with_values(lambda dense: dense.__setitem__([2, 5], 0))
    adata.obs_names = [f"cell\r\n{number}\x1b[31m\u202e" for number in range(60)]
    adata.var_names = [f"=gene\n{number}\u2028" for number in range(30)]
    adata.obs["k\x1b[31m\nind"] = [f"k\r{number % 2}\x9b2J" for number in range(60)]
    adata.write_h5ad(tmp_path / "data.h5ad")
    flags = [*FLAGS, "--color", "k\x1b[31m\nind"]
    result = geneae("fit", tmp_path / "data.h5ad", "-o", tmp_path / "run", *flags)
    assert result.exit_code == 0, result.output
    assert_printable(result.stdout + result.stderr)
    assert r"2 profiles without any value were excluded: cell\r\n2\x1b[31m\u202e, cell\r\n5" in result.stdout
    assert list(read_table((tmp_path / "run" / "split.csv").read_bytes())["profile"]) == list(adata.obs_names)
    assert set(read_table((tmp_path / "run" / "genes.csv").read_bytes())["gene"]) <= set(adata.var_names)
    assert set(read_table((tmp_path / "run" / "profiles.csv").read_bytes())["label"]) == {"k\r0\x9b2J", "k\r1\x9b2J"}
    known = [name for number, name in enumerate(adata.obs_names) if number not in (2, 5)]
    assert list(read_table((tmp_path / "run" / "umap.csv").read_bytes())["profile"]) == known
    latents = anndata.read_h5ad(tmp_path / "run" / "latents.h5ad")
    assert list(latents.obs_names) == known
    assert list(latents.obs["k\x1b[31m\nind"]) == list(adata[known].obs["k\x1b[31m\nind"])
    assert not set("\x1b\x9b\u202e\u2028\r") & set((tmp_path / "run" / "README.md").read_text(encoding="utf-8"))
    refused = geneae("fit", tmp_path / "data.h5ad", "-o", tmp_path / "other", "--group", "k")
    assert_refused(refused, r"unknown obs column 'k'. Available: donor, kind, k\x1b[31m\nind")
    for name, read in (
        ("out.h5ad", lambda path: anndata.read_h5ad(path).obs_names),
        ("out.csv", _profiles),
        ("out.parquet", _profiles),
    ):
        assert geneae("embed", tmp_path / "run", tmp_path / "data.h5ad", "-o", tmp_path / name).exit_code == 0
        assert list(read(tmp_path / name)) == list(adata.obs_names)


def _profiles(path: Path) -> "pd.Series[str]":
    table = pd.read_parquet(path) if path.suffix == ".parquet" else read_table(path.read_bytes())
    return table["profile"]


@pytest.mark.slow
def test_the_c_locale_changes_no_file(odd: Path, run: Run, tmp_path: Path) -> None:
    """Nor does a byte that is not ASCII keep a run from being written."""
    data = tmp_path / "donn\u00e9es.h5ad"
    shutil.copyfile(odd / f"data{BAD}.h5ad", data)
    poor = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "geneae.cli", "fit", data, "--loss", "cosine", "-o", tmp_path / "run", *FLAGS]
    done = subprocess.run(command, env=poor, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    for name in ("model.safetensors", "profiles.csv", "metrics.csv", "genes.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (run.folder / name).read_bytes()
