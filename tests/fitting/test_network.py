"""The network of a fit: its shift, its labels, and what its training leaves alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import QUICK, simulate
from torch import Tensor

from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.fitting.bases import Bases, fit_bases
from geneae.fitting.network import Trained, mean_shift, train_network, training_labels
from geneae.fitting.prepare import prepare
from geneae.models.network import Network
from geneae.settings.settings import Settings

SETTINGS = Settings(**QUICK | {"epochs": 2})


@pytest.fixture(scope="module")
def profiles() -> Profiles:
    return read_profiles(simulate())


@pytest.fixture(scope="module")
def bases(profiles: Profiles) -> Bases:
    return fit_bases(prepare(profiles, SETTINGS))


def trained(profiles: Profiles, bases: Bases, **changes: object) -> Trained:
    return train_network(prepare(profiles, replace(SETTINGS, **changes)), bases)


def test_the_random_numbers_of_the_caller_stay_and_the_seed_alone_decides(profiles: Profiles, bases: Bases) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = trained(profiles, bases)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    second, other = trained(profiles, bases), trained(profiles, bases, dropout=0.4)
    losses = [each.training.history["train_loss"][1] for each in (first, second, other)]
    assert losses[0] == losses[1] != losses[2]


def test_a_watch_adds_columns_for_every_epoch_and_sees_the_shift(profiles: Profiles, bases: Bases) -> None:
    seen: list[Tensor | None] = []
    expected: list[Tensor | None] = []

    def watch(network: Network, shift: Tensor | None) -> dict[str, float]:
        seen.append(shift)
        expected.append(mean_shift(bases.baselines, network))
        return {"weight": float(network.core.encoder_mlp[-1].weight.detach().norm())}

    history = train_network(prepare(profiles, SETTINGS), bases, watch).training.history
    assert len(history) == len(seen) == 3
    assert history["weight"].nunique() > 1
    assert all(
        shift is not None and known is not None and torch.equal(shift, known)
        for shift, known in zip(seen, expected, strict=True)
    )
    plain = trained(profiles, bases).training.history
    assert (plain["validation_loss"] == history["validation_loss"]).all()


def test_without_a_reconstruction_no_decoder_is_left(profiles: Profiles) -> None:
    for objective in ("simclr", "simclr+reconstruction"):
        data = prepare(profiles, replace(SETTINGS, objective=objective))
        found = train_network(data, fit_bases(data))
        assert found.network.has_decoder == objective.endswith("reconstruction")
        assert found.loss_at_perfection is None


def test_the_shift_leads_from_the_mean_of_halves_to_that_of_profiles(profiles: Profiles, bases: Bases) -> None:
    of_self = fit_bases(prepare(profiles, replace(SETTINGS, target="self")))
    assert mean_shift(of_self.baselines, trained(profiles, of_self, target="self").network) is None
    baselines = bases.baselines
    assert baselines.half is not None
    shift = mean_shift(baselines, trained(profiles, bases).network)
    assert shift is not None
    torch.testing.assert_close(baselines.half.mean + shift, baselines.whole.mean)


def test_labels_are_numbers_for_the_loss_that_learns_by_them_alone(profiles: Profiles) -> None:
    data = prepare(profiles, replace(SETTINGS, loss="cosine+triplet", label="kind"))
    kinds = profiles.obs["kind"].to_numpy()
    for split in ("train", "validation"):
        labels, expected = training_labels(data, split), kinds[data.rows(split)]
        assert labels is not None
        np.testing.assert_array_equal(labels[:, None] == labels[None], expected[:, None] == expected[None])
    assert training_labels(prepare(profiles, replace(SETTINGS, label="kind")), "train") is None
