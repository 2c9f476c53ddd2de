"""The scale at the top of a report."""

from dataclasses import replace

import pandas as pd
import pytest

from geneae.evaluation.records import HELD_OUT
from geneae.folders.run import Run
from geneae.report.across_runs import name_alone
from geneae.report.scale import CEILING, MODEL, scale_of
from geneae.report.scores import score_rows

REACHED = {"mean_profile": 0.5, "pca": 0.6, "shrunken_pca": 0.65, "model": 0.7}


def run_of(name: str = "mse", ceiling: float = 0.9, **reached: float) -> Run:
    """A run that reached these cosines."""
    cosines = REACHED | reached
    rows = [[model, 0, "test", HELD_OUT, "mean", cosine, 10, "higher"] for model, cosine in cosines.items()]
    rows.append(["model", 0, "test", "ceiling", "mean", ceiling, 10, "higher"])
    columns = ["model", "seed", "split", "metric", "statistic", "value", "n_profiles", "better"]
    nothing = pd.DataFrame()
    return Run(name, name, {}, pd.DataFrame(rows, columns=columns), nothing, nothing)


def test_the_scale_goes_from_the_mean_profile_to_the_ceiling() -> None:
    marks = scale_of([run_of()], "test")
    assert [mark.title for mark in marks] == ["mean profile", "PCA", "shrunken PCA", MODEL, CEILING]
    assert [mark.percent for mark in marks] == pytest.approx([0, 25, 37.5, 50, 100])
    assert marks[3].shown == "0.7000"
    assert marks[3].meaning == "model: 0.7000, 50 % of the way from the mean profile to the noise ceiling."


def test_a_program_is_called_by_its_name_and_a_fit_is_not_called_by_its_loss() -> None:
    program = replace(run_of("nmf"), config={"judged": True})
    for run, name in ((program, "nmf"), (run_of("cosine"), MODEL)):
        assert name_alone(run) == name
        assert [mark.title for mark in scale_of([run], "test") if mark.kind == "arm"] == [name]
        assert score_rows([run], "test")[0].title == name


def test_a_pca_that_is_a_row_already_is_no_other_row() -> None:
    run = run_of("nmf", pca_32=REACHED["pca"], pca_4=0.55)
    titles = [row.title for row in score_rows([run], "test")]
    assert titles == [MODEL, "shrunken PCA", "PCA", "PCA, size 4", "mean profile", CEILING]


def test_a_model_below_the_mean_profile_has_no_bar_and_says_so() -> None:
    mark = scale_of([run_of(model=0.4)], "test")[3]
    assert (mark.percent, mark.shown) == (0, "0.4000")
    assert "-25 % of the way" in mark.meaning


def test_several_configurations_are_named_and_seeds_are_averaged() -> None:
    marks = scale_of([run_of("mse"), run_of("mse", model=0.8), run_of("cosine", model=0.6)], "test")
    assert {mark.title: mark.shown for mark in marks if mark.kind == "arm"} == {"mse": "0.7500", "cosine": "0.6000"}


def test_without_a_ceiling_above_the_mean_profile_there_is_no_scale() -> None:
    assert scale_of([run_of(ceiling=0.5)], "test") == []
    assert scale_of([run_of(ceiling=float("nan"))], "test") == []
    assert scale_of([run_of()], "validation") == []
