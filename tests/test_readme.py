"""The blocks of the README and of the pages of docs/ that are no notebooks do what they say."""

import re
import shlex
from pathlib import Path

import anndata
import click
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import simulate
from made_up import place_on_a_line

from geneae.cli.main import main
from geneae.fitting import runs

ROOT = Path(__file__).parents[1]
QUICK = ["--hidden", "16", "--rank", "12", "--epochs", "2", "--splits", "2", "--quiet"]
"""Settings of a fit that takes a fraction of a second; they come last, and the last wins."""
FEWER = {"fit": [*QUICK, "--latent", "4"], "compare": [*QUICK, "--latent", "4", "--seeds", "1"]}


ELSEWHERE = ("judge.md",)  # run by tests of their own
PAGES = [Path("README.md"), *(path.relative_to(ROOT) for path in sorted((ROOT / "docs").rglob("*.md")))]


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of a language, in their order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """Every call of geneae, as words."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines() if line.startswith("geneae ")]
    return [shlex.split(line, comments=True) for line in lines]


WITH_COMMANDS, WITH_PYTHON = (
    [page for page in PAGES if commands(page) and page.name not in ELSEWHERE],
    [page for page in PAGES if blocks(page, "python") and page.name not in ELSEWHERE],
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the data that the README speaks of."""
    monkeypatch.chdir(tmp_path)
    for place in ("runs", "compare"):  # reports take longer to draw than the fits, and have tests of their own
        monkeypatch.setattr(f"geneae.fitting.{place}.write_report", lambda path, *_: path.write_text("<html></html>"))
    monkeypatch.setattr(runs, "umap_of", place_on_a_line)
    adata = simulate()
    adata.obs["cell_type"] = adata.obs["kind"]
    adata.write_h5ad("data.h5ad")
    other = simulate(seed=5, n_profiles=60)
    other.obs_names = [f"other{i}" for i in range(60)]
    other.write_h5ad("other.h5ad")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=str)
def test_the_commands_run_one_after_the_other_as_printed(page: Path, here: Path) -> None:
    for words in commands(page):
        if words[1] not in main.list_commands(click.Context(main)) or "--devices" in words or "COMMAND" in words:
            continue  # a flag of the group, such as --version; processes of their own have tests of their own
        if words[1] == "fit" and page != Path("README.md") and Path(words[2]).parent == Path("data"):
            continue
        result = CliRunner().invoke(main, words[1:] + FEWER.get(words[1], []))
        assert result.exit_code == 0, f"{shlex.join(words)}\n{result.output}"
    if page == Path("README.md"):
        assert anndata.read_h5ad("latent.h5ad").obsm["X_geneae"].shape == (60, 4)


def test_the_readme_and_the_page_of_commands_show_every_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in main.list_commands(click.Context(main)):
        assert f"`geneae {name} " in readme
    shown = {words[1] for page in WITH_COMMANDS for words in commands(page)}
    assert shown >= {"fit", "compare", "inspect", "evaluate", "embed", "metric", "transfer", "share"}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_pictures_are_there_and_small() -> None:
    found = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert found == ["docs/report.png"]
    assert (ROOT / found[0]).stat().st_size < 200_000  # bytes


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_to_files_of_the_project_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / page.parent / link).exists()] == []


@pytest.mark.parametrize("page", WITH_PYTHON, ids=str)
def test_the_python_runs_as_printed(page: Path, here: Path) -> None:
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)
    adata = names["adata"]
    assert isinstance(adata, anndata.AnnData)
    assert np.isfinite(adata.obsm["X_geneae"]).all()
    assert (here / "model" / "config.json").is_file()
