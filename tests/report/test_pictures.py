"""Figures and notes of models with an estimator."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from geneae import Autoencoder
from geneae.evaluation.depth import AT_RATIO
from geneae.evaluation.records import HELD_OUT, value
from geneae.evaluation.steps import loss_of_steps, steps_sentence
from geneae.folders.run import Run, read_run
from geneae.report import render_report
from geneae.report.notes import notes_of
from geneae.report.pictures import pictures_of
from geneae.report.scores import score_rows

TITLES = ["Step by step", "Fewer molecules"]


@pytest.fixture(scope="module")
def run(model_folder: Path) -> Run:
    return read_run(model_folder)


def metrics_of(runs: list[Run]) -> pd.DataFrame:
    return pd.concat([run.metrics.assign(run=run.name, arm=run.configuration) for run in runs])


def without_estimator(run: Run) -> Run:
    """The same run as if it had been fitted from PCA."""
    parts = ("whitened", "own_count", "model_latent_only", "step_network", "step_neighbours", "step_own_counts")
    table = run.metrics
    table = table[~table["model"].isin(parts) & ~table["metric"].str.contains("_at_|step_gain")]
    return replace(run, config=run.config | {"steps": []}, metrics=table, configuration="free")


def test_steps_and_depth_are_drawn_where_there_is_an_estimator(run: Run, fitted: Autoencoder) -> None:
    found = pictures_of([run], metrics_of([run]), "test")
    assert [picture.title for picture in found[1:3]] == TITLES
    steps, by_depth = found[1:3]
    metrics = fitted.evaluation_.metrics
    assert f"whitened linear {value(metrics, 'whitened', 'test', HELD_OUT):.4f}, network " in steps.alternative
    assert f"{value(metrics, 'model', 'test', AT_RATIO[20]):.4f}; shrunken PCA" in by_depth.alternative
    assert "Mean held-out cosine over 24 test profiles" in by_depth.caption
    assert "Points of thinned halves" not in by_depth.caption
    assert all(picture.drawing.startswith("<svg ") for picture in (steps, by_depth))


def test_profiles_that_become_too_shallow_are_told(run: Run) -> None:
    is_thinned = run.metrics["metric"].str.contains("_at_")
    fewer = replace(run, metrics=run.metrics.assign(n_profiles=run.metrics["n_profiles"].mask(is_thinned, 22)))
    by_depth = pictures_of([fewer], metrics_of([fewer]), "test")[2]
    assert "Mean held-out cosine over 24 test profiles" in by_depth.caption
    assert by_depth.caption.endswith(" Points of thinned halves are over 22 of them, which keep enough molecules.")


def test_they_are_left_out_elsewhere(run: Run) -> None:
    plain = without_estimator(run)
    assert not set(TITLES) & {picture.title for picture in pictures_of([plain], metrics_of([plain]), "test")}
    shallow = replace(run, metrics=run.metrics[~run.metrics["metric"].str.contains("_at_")])
    titles = [picture.title for picture in pictures_of([shallow], metrics_of([shallow]), "test")]
    assert (TITLES[0] in titles, TITLES[1] in titles) == (True, False)


def test_only_configurations_with_an_estimator_are_drawn(run: Run) -> None:
    runs = [run, without_estimator(run)]
    steps, by_depth = pictures_of(runs, metrics_of(runs), "test")[1:3]
    for picture in (steps, by_depth):
        assert f"{run.configuration}" in picture.alternative
        assert "free" not in picture.alternative
        assert "nan" not in picture.alternative


def test_notes_explain_the_rows_and_the_steps(run: Run) -> None:
    said = " ".join(notes_of([run]))
    assert "From the latent alone is what can be decoded without these" in said
    assert "cannot tell from variation of a single gene" in said
    assert steps_sentence(run.config["steps"], loss_of_steps(run.config)) in notes_of([run])
    assert "Real shallow sequencing may differ from thinning" in said
    for is_kept, begin in ((True, "The model also reads"), (False, "No model here reads")):
        steps = [{"name": "own_counts", "is_kept": is_kept, "gain": 0.1, "error": 0.01}]
        of_these = replace(run, config=run.config | {"steps": steps})
        assert f"{begin} a profile's own count of each gene. From the latent" in " ".join(notes_of([of_these]))
    plain = " ".join(notes_of([without_estimator(run)]))
    assert "latent alone" not in plain
    assert "thinned" not in plain
    both = notes_of([run, without_estimator(run)])
    assert steps_sentence(run.config["steps"], loss_of_steps(run.config)) in both


def test_notes_say_what_was_understood_of_the_data(run: Run) -> None:
    assert not any(note.startswith(("The values are", "Genes are named")) for note in notes_of([run]))
    facts = {"evidence": "recovered from logarithms", "gene_names": "symbol", "said": ["data.csv: the rows are genes."]}
    read = replace(run, config=run.config | {"data": run.config["data"] | facts})
    expected = ["The values are counts (recovered from logarithms).", "Genes are named by var column 'symbol'."]
    assert notes_of([read, run, read])[:3] == [*expected, *facts["said"]]


def test_the_table_shows_the_latent_alone_next_to_the_model_and_no_steps(run: Run) -> None:
    titles = [scores.title for scores in score_rows([run], "test")]
    assert titles[:3] == ["model", "from the latent alone", "whitened linear, size 4"]
    assert "own counts and mean profile" in titles
    html = render_report([run], "It beats PCA (+0.01). Its 0.75 is far. Step by step: 0.7. Copies reach 0.6.")
    assert '<p class="answer">It beats PCA (+0.01).</p>' in html
    assert "<p>Its 0.75 is far. Step by step: 0.7. Copies reach 0.6.</p>" in html
    assert "gain over the step before" not in html[: html.index('id="figures"')]
    assert "held-out cosine from 1/10 of the mole&shy;cules" in html
    assert "step_network" not in html
    assert "step_own_counts" not in html
