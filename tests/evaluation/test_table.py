"""What is known of metrics and models agrees with what fits report."""

import pandas as pd
import pytest
from conftest import QUICK, simulate

from geneae.data.reading import read_profiles
from geneae.evaluation.judges import JUDGES
from geneae.evaluation.programs import HALF_METRICS
from geneae.evaluation.table import DRAWN, MAIN_METRICS, METRIC_FACTS, MODEL_FACTS, header_of, metric_facts, title_of
from geneae.fitting.fit import fit
from geneae.losses.metrics import METRICS
from geneae.models.baselines import BASELINES
from geneae.settings.settings import Settings


@pytest.fixture(scope="module")
def metrics() -> pd.DataFrame:
    """Long tables of a fit with every judge of latents, and of an encoder alone."""
    profiles = read_profiles(simulate())
    every = Settings(**QUICK | {"epochs": 1}, label="kind", batch_key="donor", attainable=True)
    encoder = Settings(**QUICK | {"epochs": 1}, objective="simclr")
    return pd.concat([fit(profiles, settings).evaluation.metrics for settings in (every, encoder)])


def test_every_metric_and_model_of_a_fit_is_known(metrics: pd.DataFrame) -> None:
    assert set(metrics["metric"]) == set(METRIC_FACTS) - {"gain_over_mean_profile"} - set(HALF_METRICS)
    sizes = {name for name in metrics["model"] if name.startswith("pca_")}
    assert set(metrics["model"]) - sizes == set(MODEL_FACTS)


def test_the_direction_in_the_table_is_the_one_that_is_known(metrics: pd.DataFrame) -> None:
    found = metrics.drop_duplicates("metric").set_index("metric")["better"]
    assert dict(found) == {name: METRIC_FACTS[name].better for name in found.index}
    assert {name: metric.better for name, metric in METRICS.items()}.items() <= dict(found).items()


def test_no_metric_belongs_to_two_judges() -> None:
    names = [name for judge in JUDGES for name in judge.metrics]
    assert len(names) == len(set(names))
    assert all(set(judge.columns) <= set(METRIC_FACTS) for judge in JUDGES)
    assert all(next(iter(judge.models)) == "model" for judge in JUDGES)


def test_titles_and_directions_are_those_that_readers_see() -> None:
    assert header_of("mse") == "MSE ↓"
    assert header_of("heldout_cosine") == "held-out cosine ↑"
    assert (header_of("knn_20"), title_of("knn_20")) == ("20-NN ↑", "20-NN accuracy")
    assert (header_of("ilisi"), title_of("ilisi")) == ("iLISI", "iLISI of batches")
    assert title_of("of_another_version") == "of another version"
    assert metric_facts("of_another_version").better == ""
    assert MAIN_METRICS[:6] == ("heldout_cosine", "skill", *HALF_METRICS, "cosine")
    assert list(DRAWN) == list(BASELINES) == ["mean_profile", "pca", "shrunken_pca"]
    assert MODEL_FACTS["pca"].of_size == "PCA of the same size"
    assert MODEL_FACTS["mean_profile"].of_size == "mean profile"
