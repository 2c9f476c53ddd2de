"""The choice of an epoch by neighbours: what it counts, and that a fit that does harm returns its start."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK, simulate
from dense_estimator import small_fit

from geneae.data.count_split import Splitter, draw_halves, with_own_totals
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.fitting import network as fitting
from geneae.fitting.fit import fit
from geneae.fitting.prepare import prepare
from geneae.losses.shared_neighbours import shared_neighbours
from geneae.models.network import Network, whitened_network
from geneae.settings.settings import Settings
from geneae.training.choice import NEIGHBOURS, Choice, by_neighbours
from geneae.training.view_batches import TwoViews

SETTINGS = Settings(**QUICK | {"epochs": 3}, objective="simclr", device="cpu")


@pytest.fixture(scope="module")
def profiles() -> Profiles:
    return read_profiles(simulate())


def test_the_choice_is_by_neighbours_that_are_not_shared() -> None:
    estimator = small_fit().estimator
    network = whitened_network(estimator, 4, 8, 0.5, True, "gated")
    rank = len(estimator.latent_unit)
    generator = torch.Generator().manual_seed(0)
    splits = [TwoViews(*(torch.randn(50, rank, generator=generator) for _ in range(2))) for _ in range(2)]
    choice = by_neighbours(splits)
    with torch.no_grad():
        network.core.gate.fill_(0.5)
        pairs = [[network.eval().encode(some) for some in (views.first, views.second)] for views in splits]
    expected = 1 - (shared_neighbours(*pairs[0], NEIGHBOURS) + shared_neighbours(*pairs[1], NEIGHBOURS)) / 2
    network.train()
    assert torch.equal(choice.losses(network), expected)  # without dropout, whatever the mode was


def test_the_choice_makes_the_epoch_and_not_the_loss(profiles: Profiles, monkeypatch: pytest.MonkeyPatch) -> None:
    gates: list[torch.Tensor] = []

    def losses(network: Network) -> torch.Tensor:
        gates.append(network.core.gate.detach().clone())
        return torch.full((24,), [0.5, 0.6, 0.3, 0.4][len(gates) - 1])

    monkeypatch.setattr(fitting, "choice_of", lambda *_: Choice("made_up", losses))
    fitted = fit(profiles, replace(SETTINGS, epochs=3))
    assert list(fitted.history["made_up"].round(6)) == [0.5, 0.6, 0.3, 0.4]
    assert fitted.model.config["best_epoch"] == 2
    assert torch.equal(fitted.model.network.core.gate.detach(), gates[2])
    assert not torch.equal(gates[2], gates[3])


def test_the_history_has_the_share_that_is_not_in_common(profiles: Profiles) -> None:
    history = fit(profiles, SETTINGS).history
    assert history["unshared_neighbours"].between(0.01, 0.9).all()
    data = prepare(profiles, SETTINGS)
    expected = []
    for number in range(2):
        halves = draw_halves(
            Splitter(data.validation.rows), data.validation.totals, np.random.default_rng((0, 1, number))
        )
        estimator = fit(profiles, SETTINGS).model.estimator
        assert estimator is not None
        at = estimator.at(0.0)
        pair = [
            at.scores(data.preprocess.apply(half), half.totals) / estimator.latent_unit
            for half in with_own_totals(halves)
        ]
        expected.append(1 - shared_neighbours(*pair, NEIGHBOURS).mean())
    assert history["unshared_neighbours"][0] == pytest.approx(float(np.mean(expected)), abs=1e-9)


def test_an_encoder_that_only_does_harm_ends_at_its_start(profiles: Profiles) -> None:
    fitted = fit(profiles, replace(SETTINGS, learning_rate=30.0))
    assert fitted.model.config["best_epoch"] == 0
    assert torch.equal(fitted.model.network.core.gate.detach(), torch.zeros(SETTINGS.n_latent))


@pytest.mark.parametrize("objective", ["simclr+reconstruction", "barlow+reconstruction"])
def test_with_a_reconstruction_the_start_is_that_of_the_reconstruction_alone_and_halves_choose_the_epoch(
    profiles: Profiles, objective: str
) -> None:
    joint, alone = (fit(profiles, replace(SETTINGS, objective=one)) for one in (objective, "reconstruction"))
    assert joint.model.estimator is not None
    assert alone.model.estimator is not None
    assert torch.equal(joint.model.network.deviation, alone.model.network.deviation)
    assert joint.history["validation_cosine"][0] == alone.history["validation_cosine"][0]
    unshared = joint.history["unshared_neighbours"]
    assert unshared[joint.model.config["best_epoch"]] == unshared.min() or joint.model.config["best_epoch"] == 0
    harmed = fit(profiles, replace(SETTINGS, objective=objective, learning_rate=30.0))
    assert harmed.model.config["best_epoch"] == 0
    assert harmed.evaluation.metrics.query("model == 'model'")["value"].notna().any()


@pytest.mark.parametrize("kind", [{"basis": "free", "init": "random"}, {"target": "self"}])
def test_other_encoders_take_their_last_epoch(profiles: Profiles, kind: dict[str, Any]) -> None:
    fitted = fit(profiles, replace(SETTINGS, **kind))
    assert "unshared_neighbours" not in fitted.history
    assert fitted.model.config["best_epoch"] == 3
    assert fitted.model.estimator is None
    assert np.isfinite(fitted.history["validation_loss"]).all()
