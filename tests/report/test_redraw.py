"""A report drawn from the folder is the report of the fit."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import QUICK
from made_up import place_on_a_line

from geneae import read_profiles
from geneae.fitting import runs
from geneae.fitting.runs import Request, fit_run
from geneae.folders.outputs import Output
from geneae.folders.run import read_run
from geneae.report.redraw import coloured, redraw_report
from geneae.settings.settings import Settings


@pytest.fixture(scope="module")
def folders(counts_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str | None, Path]:
    """The same fit without a color and with one."""
    above = tmp_path_factory.mktemp("redraw")
    settings, found = Settings("cosine", **QUICK), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "umap_of", place_on_a_line)
        for color in (None, "kind"):
            found[color] = above / ("folder_a" if color is None else "folder_b")
            fit_run(read_profiles(counts_path), settings, Output(found[color]), Request("fit", color))
    return found


@pytest.mark.slow
def test_it_is_the_report_that_the_fit_has_written(folders: dict[str | None, Path]) -> None:
    for folder in folders.values():
        assert redraw_report(folder) == (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_color_given_afterwards_is_one_given_to_the_fit(folders: dict[str | None, Path]) -> None:
    plain, with_kind = folders[None], folders["kind"]
    again = redraw_report(plain, "kind")
    assert "UMAP of the latents by kind" in again
    given = (with_kind / "report.html").read_text(encoding="utf-8")
    of_results = [html.partition('<section id="making">')[0] for html in (again, given)]  # after it come times
    assert of_results[0] == of_results[1]


def test_profiles_without_a_value_have_an_empty_label(folders: dict[str | None, Path]) -> None:
    run = read_run(folders[None])
    assert run.umap is not None
    name = run.profiles["profile"].iloc[0]
    found = coloured(run, "age", pd.Series([1.5], index=[name]))
    assert list(found.profiles["label"]) == ["1.5"] + [""] * (len(run.profiles) - 1)
    assert found.umap is not None
    assert found.umap.loc[found.umap["profile"] == name, "label"].item() == "1.5"
    assert found.config["color"] == "age"


@pytest.mark.usefixtures("no_pictures")
def test_a_run_without_a_conclusion_has_a_report_without_one(
    folders: dict[str | None, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = str(read_run(folders[None]).config["conclusion"])
    assert said.startswith("The model ")
    assert '<p class="answer">' in redraw_report(folders[None])
    older = replace(read_run(folders[None]), config=read_run(folders[None]).config | {"conclusion": None})
    monkeypatch.setattr("geneae.report.redraw.read_run", lambda _: older)
    html = redraw_report(folders[None])
    assert '<p class="answer">' not in html
    assert 'id="results"' in html
