"""One fit by the command that tests of several commands look at."""

from pathlib import Path

import pytest
from commands import FLAGS, Run, geneae
from made_up import place_on_a_line

from geneae.fitting import runs


@pytest.fixture(scope="session")
def run(counts_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A fit of the counts, not to be changed."""
    folder = tmp_path_factory.mktemp("fit") / "run"
    return Run(geneae("fit", counts_path, "--loss", "cosine", "-o", folder, *FLAGS, "--verbose"), folder)


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time of so small a fit; `run` and the processes of their own write whole reports."""
    monkeypatch.setattr(runs, "write_report", lambda path, *_: path.write_text("<html></html>"))
    monkeypatch.setattr(runs, "umap_of", place_on_a_line)
