"""Numbers and sentences about encoders that learn from views alone."""

from dataclasses import replace
from typing import Any

import anndata
import pytest
from conftest import QUICK

from geneae.cli.commands.fit import _training_line
from geneae.data.reading import read_profiles
from geneae.evaluation.agreement import LatentChoice
from geneae.evaluation.views import OF_VIEWS, start_sentence
from geneae.fitting import fit as module
from geneae.fitting.fit import Fitted, fit
from geneae.settings.settings import Settings


def config_of(best_epoch: int, is_whitened: bool = True, cut: float = 1.0, **entries: Any) -> dict[str, Any]:
    settings = {"objective": "barlow", "cut": cut}
    return {"settings": settings, "network": {"is_whitened": is_whitened}, "best_epoch": best_epoch} | entries


@pytest.mark.parametrize(
    ("config", "is_start"),
    [
        (config_of(0), True),
        (config_of(3), False),
        (config_of(3, latent_choice={"is_start": False}), False),
        (config_of(3, latent_choice={"is_start": True}), True),
        (config_of(0, is_whitened=False), False),  # it started elsewhere
        (config_of(0, cut=30.0), False),
    ],
)
def test_it_is_said_where_latents_are_those_of_the_start(config: dict[str, Any], is_start: bool) -> None:
    said = "Training with barlow did not clearly better its start, the latents of the default fit, which are exported."
    assert start_sentence(config) == said * is_start


@pytest.fixture
def taken_back(counts: anndata.AnnData, monkeypatch: pytest.MonkeyPatch) -> Fitted:
    """A fit whose best epoch was the first, and whose latents halves disliked."""
    train_network, choose_latent = module.train_network, module.choose_latent

    def trained(*given: Any) -> Any:
        found = train_network(*given)
        return replace(found, training=replace(found.training, best_epoch=1))

    def taken_back(*given: Any) -> LatentChoice:
        return replace(choose_latent(*given), is_start=True)

    monkeypatch.setattr(module, "train_network", trained)
    monkeypatch.setattr(module, "choose_latent", taken_back)
    return fit(read_profiles(counts), Settings(**QUICK | {"epochs": 1}, objective="barlow"))


def test_numbers_are_of_the_latents_that_are_exported(taken_back: Fitted) -> None:
    assert taken_back.conclusion.startswith("Training with barlow did not clearly better its start, ")
    metrics = taken_back.evaluation.metrics
    start, first = taken_back.history.iloc[0], taken_back.history.iloc[1]
    found = metrics[(metrics["split"] == "validation") & metrics["metric"].isin(OF_VIEWS)].set_index("metric")["value"]
    assert found.to_dict() == pytest.approx({name: float(start[name]) for name in OF_VIEWS}, nan_ok=True)
    assert float(start["latent_spread"]) != float(first["latent_spread"])
    line = _training_line(taken_back.model.config | {"seconds": 1.0})
    assert "Best epoch by the neighbours that both halves of validation profiles have in common: 1 of 1" in line
    assert line.endswith("not clearly better than those of the start, the default fit, which are exported.")
