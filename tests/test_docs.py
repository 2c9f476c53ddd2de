"""The notebook of scanpy runs and the site builds, both without a warning; CI builds it with all notebooks executed."""

import base64
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import jupytext
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import simulate
from nbclient import NotebookClient
from PIL import Image
from traitlets.config import Config

import geneae
from geneae.cli.main import main
from geneae.settings.settings import SETTINGS

ROOT = Path(__file__).parents[1]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}  # on so little data threads only wait for each other
NOTEBOOK = ROOT / "docs" / "tutorials" / "in_scanpy.md"


@pytest.fixture(scope="module")
def outputs() -> list[Any]:
    """What the cells of the notebook give, in their order."""
    notebook = jupytext.read(NOTEBOOK)
    assert not any("outputs" in cell and cell["outputs"] for cell in notebook.cells)
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    patient = {"timeout": None, "startup_timeout": 600}  # seconds; a busy machine is no error of the notebook
    with tempfile.TemporaryDirectory() as folder:
        # Over TCP the kernel warns that neighbours may listen. Names of sockets must be short.
        ipc = Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/k"}})
        client = NotebookClient(notebook, kernel_name="python3", resources=where, config=ipc, **patient)
        client.execute(env=os.environ | ONE_THREAD)
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.slow
def test_the_notebook_runs_without_a_warning(outputs: list[Any]) -> None:
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    said = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert "On 168 test profiles, evaluated against the other half of the molecules" in said
    assert "By held-out cosine on 168 test profiles and 2 seeds, against mse: " in said
    tables = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert [name in tables[1] for name in ("model", "shrunken_pca", "pca", "mean_profile")] == [True] * 4


@pytest.mark.slow
def test_the_notebook_draws_its_figures(outputs: list[Any]) -> None:
    figures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(figures) == 5
    for figure in figures:
        with Image.open(io.BytesIO(base64.b64decode(figure))) as image:
            assert np.asarray(image.convert("L")).std() > 5  # an empty one has 0


def test_every_promise_has_its_tests() -> None:
    """Each bullet names tests, and these exist."""
    text = (ROOT / "docs" / "reference" / "promises.md").read_text(encoding="utf-8")
    there = {
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text("utf-8"))
    }
    promises = text.split("\n* ")[1:]
    assert len(promises) > 15
    for promise in promises:
        named = re.findall(r"`(test_\w+)`", promise)
        assert named, promise
        assert set(named) <= there, promise


@pytest.mark.slow
def test_the_site_has_every_public_name_and_flag_and_no_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-D", "nb_execution_mode=off"]
    done = subprocess.run([*command, ROOT / "docs", tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    reference = (tmp_path / "reference" / "api.html").read_text(encoding="utf-8")
    names = [
        *(f"geneae.tl.{name}" for name in ("fit", "embed", "reconstruct", "score", "transfer", "split", "judge")),
        *(f"geneae.pl.{name}" for name in geneae.pl.__all__),
    ]
    for name in ("geneae.Autoencoder", "geneae.CosineMetric", "geneae.read_profiles", *names):
        assert f'id="{name}"' in reference
    flags = (tmp_path / "reference" / "flags.html").read_text(encoding="utf-8")
    for name in main.list_commands(click.Context(main)):
        assert f"geneae {name}" in flags
    assert all(f"--{one.flag}" in flags for one in SETTINGS.values())
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    assert {path for path in pages if not (tmp_path / path).with_suffix(".html").is_file()} == set()


@pytest.mark.slow
def test_the_page_on_judging_another_program_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    adata = simulate()
    adata.obs["cell_type"] = adata.obs["kind"]
    adata.write_h5ad("data.h5ad")
    text = (ROOT / "docs" / "how_to" / "judge.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    said = ""
    for language, block in re.findall(r"^```(bash|python)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if language == "python":
            exec(compile(block, "judge.md", "exec"), names)
            continue
        for line in block.splitlines():
            result = CliRunner().invoke(main, shlex.split(line)[1:])
            assert result.exit_code == 0, f"{line}\n{result.output}"
            said += result.stdout
    assert "By held-out cosine on 24 test profiles" in said
    assert "By 20-NN accuracy of the latents on 24 test profiles" in said
    assert (tmp_path / "judged" / "report.html").is_file()
    copied = capsys.readouterr().out
    assert "copied (-" in copied.partition("worse: ")[2]  # noise that is copied is no reconstruction
