"""The network of a fit: its shift, its labels, and what its training leaves alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import QUICK, simulate

from geneae.data.preprocess import fit_preprocess
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.fitting.network import mean_shift, train_network, training_labels
from geneae.models.baselines import Baselines
from geneae.models.network import Network
from geneae.models.pca import fit_basis
from geneae.settings.settings import Settings
from geneae.training.sources import TrainingData

SETTINGS = Settings(**QUICK | {"epochs": 2})
ROWS = np.arange(160), np.arange(160, 240)


@pytest.fixture(scope="module")
def profiles() -> Profiles:
    return read_profiles(simulate())


@pytest.fixture(scope="module")
def data(profiles: Profiles) -> TrainingData:
    preprocess = fit_preprocess(profiles, ROWS[0])
    expression, _ = preprocess.match(profiles)
    parts = expression.take(ROWS[0]), expression.take(ROWS[1])
    return TrainingData(parts, profiles.names[ROWS[0]], preprocess, False, [preprocess.apply(parts[0])])


@pytest.fixture(scope="module")
def baselines(data: TrainingData) -> Baselines:
    return Baselines(fit_basis(data.blocks, SETTINGS.rank, 0), None, None, SETTINGS.n_latent)


def test_the_random_numbers_of_the_caller_stay_and_the_seed_alone_decides(
    data: TrainingData, baselines: Baselines
) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = train_network(data, baselines, SETTINGS)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    second, other = (train_network(data, baselines, each) for each in (SETTINGS, replace(SETTINGS, seed=1)))
    losses = [trained.training.history["train_loss"][1] for trained in (first, second, other)]
    assert losses[0] == losses[1] != losses[2]


def test_a_watch_adds_columns_for_every_epoch(data: TrainingData, baselines: Baselines) -> None:
    def watch(network: Network) -> dict[str, float]:
        return {"weight": float(network.core.encoder_linear.weight.detach().norm())}

    history = train_network(data, baselines, SETTINGS, watch=watch).training.history
    assert len(history) == 3
    assert history["weight"].nunique() > 1
    plain = train_network(data, baselines, SETTINGS).training.history
    assert (plain["validation_loss"] == history["validation_loss"]).all()


def test_without_a_reconstruction_no_decoder_is_left(data: TrainingData, baselines: Baselines) -> None:
    views = replace(data, views=[("mask", 0.3)])
    trained = train_network(views, baselines, replace(SETTINGS, objective="simclr"))
    assert not trained.network.has_decoder
    assert trained.loss_at_perfection is None
    joint = train_network(views, baselines, replace(SETTINGS, objective="simclr+reconstruction"))
    assert joint.network.has_decoder


def test_the_shift_leads_from_the_mean_of_halves_to_that_of_profiles(baselines: Baselines) -> None:
    half = replace(baselines.whole, mean=baselines.whole.mean / 2)
    both = replace(baselines, half=half, factors=torch.ones(half.rank))
    assert mean_shift(both, is_split=False) is None
    shift = mean_shift(both, is_split=True)
    assert shift is not None
    torch.testing.assert_close(half.mean + shift, baselines.whole.mean)


def test_labels_are_numbers_for_the_loss_that_learns_by_them_alone(profiles: Profiles) -> None:
    triplet = replace(SETTINGS, loss="cosine+triplet", label="kind")
    first, second = training_labels(profiles, triplet, ROWS)
    assert first is not None
    assert second is not None
    kinds = profiles.obs["kind"].to_numpy()
    for labels, rows in ((first, ROWS[0]), (second, ROWS[1])):
        same = labels[:, None] == labels[None]
        np.testing.assert_array_equal(same, kinds[rows][:, None] == kinds[rows][None])
    assert training_labels(profiles, replace(triplet, loss="cosine"), ROWS) == (None, None)
