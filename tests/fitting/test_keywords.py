import inspect
from typing import Any

import pytest

from geneae import Autoencoder, CosineMetric
from geneae.settings.settings import MetricSettings, Settings

ESTIMATORS = [(Autoencoder, Settings), (CosineMetric, MetricSettings)]


@pytest.mark.parametrize(("estimator", "record"), ESTIMATORS)
def test_the_keywords_are_the_fields_with_their_defaults(estimator: Any, record: Any) -> None:
    found = inspect.signature(estimator).parameters
    assert {name: one.default for name, one in found.items()} == vars(record())
    assert estimator().get_params() == vars(record())
    first, *others = found.values()
    assert first.kind == inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert {one.kind for one in others} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(("estimator", "record"), ESTIMATORS)
def test_values_are_kept_unchecked_until_fit(estimator: Any, record: Any) -> None:
    assert estimator(epochs=0, seed=3).get_params() == vars(record()) | {"epochs": 0, "seed": 3}


@pytest.mark.parametrize(("estimator", "_"), ESTIMATORS)
def test_an_unknown_keyword_is_refused_with_the_nearest_one(estimator: Any, _: Any) -> None:
    with pytest.raises(
        TypeError, match=r"__init__\(\) got an unexpected keyword argument 'epoch'; did you mean 'epochs'"
    ):
        estimator(epoch=3)
