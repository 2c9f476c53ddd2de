"""The network of a fit: its shift, its labels, and what its training leaves alone."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, simulate
from torch import Tensor

from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.fitting.bases import Bases, fit_bases
from geneae.fitting.network import Trained, balanced_groups, mean_shift, train_network, training_labels
from geneae.fitting.prepare import prepare
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.depths import COMPLETE
from geneae.models.network import Network
from geneae.settings.settings import Settings
from geneae.training import sources
from geneae.training.batches import Pairs
from geneae.training.sources import POSITIVES
from geneae.training.view_batches import Partners, ScoredPairs

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
    assert history["weight"].iloc[0] != history["weight"].iloc[-1]
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


def test_groups_are_values_of_the_column_and_missing_ones(profiles: Profiles) -> None:
    assert balanced_groups(prepare(profiles, SETTINGS)) is None
    donors = profiles.obs["donor"].astype(object).to_numpy().copy()
    donors[::9] = None
    some = replace(profiles, obs=profiles.obs.assign(donor=donors))
    data = prepare(some, replace(SETTINGS, balance="donor"))
    groups = balanced_groups(data)
    assert groups is not None
    expected = pd.Series(donors).fillna("none").to_numpy()[data.rows("train")]
    assert sorted(groups.unique().tolist()) == list(range(9))
    np.testing.assert_array_equal(groups[:, None] == groups[None], expected[:, None] == expected[None])


@pytest.mark.parametrize("objective", ["reconstruction", "barlow"])
def test_mini_batches_have_the_same_share_of_each_group(
    profiles: Profiles, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Tensor] = []
    kind = Pairs if objective == "reconstruction" else ScoredPairs
    take = kind.take

    def record(self: Pairs, index: Tensor, progress: float = 1.0) -> object:
        taken.append(index % self.n_profiles)
        return take(self, index, progress)  # type: ignore[arg-type]

    settings = replace(SETTINGS, objective=objective, balance="donor", epochs=1, batch_size=32)
    data = prepare(profiles, settings)
    bases = fit_bases(data)
    monkeypatch.setattr(kind, "take", record)
    train_network(data, bases)
    donors = profiles.obs["donor"].cat.codes.to_numpy()[data.rows("train")]
    in_training = [index.numpy() for index in taken if len(index) == 32]
    assert len(in_training) == 6
    for index in in_training:
        assert np.ptp(np.bincount(donors[index], minlength=8)) <= 2  # of 24 profiles of each donor
    taken.clear()
    train_network(prepare(profiles, replace(settings, balance=None)), bases)
    others = [index.numpy() for index in taken if len(index) == 32]
    assert max(np.ptp(np.bincount(donors[index], minlength=8)) for index in others) > 2


def neighbours_of(latent: np.ndarray) -> np.ndarray:
    distances = np.linalg.norm(latent[:, None] - latent[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    found: np.ndarray = np.sort(np.argsort(distances, axis=1)[:, :POSITIVES], axis=1)
    return found


@pytest.mark.parametrize("target", ["auto", "self"])
def test_positives_are_neighbours_in_the_latents_at_the_start(
    profiles: Profiles, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Tensor] = []

    class Recorded(Partners):
        def __init__(self, neighbours: Tensor) -> None:
            found.append(neighbours)
            super().__init__(neighbours)

    settings = replace(SETTINGS, objective="simclr", positives="neighbours", target=target, epochs=1)
    data = prepare(profiles, settings)
    bases = fit_bases(data)
    monkeypatch.setattr(sources, "Partners", Recorded)
    first = train_network(data, bases)
    whole = data.preprocess.apply(data.train)
    if bases.estimator is not None:
        estimator = bases.estimator.estimator
        latent = estimator.at(COMPLETE).scores(whole, data.train.totals) / estimator.latent_unit
    else:
        scores = bases.baselines.whole.scores(sparse_rows(whole))[:, : settings.n_latent]
        latent = scores / bases.baselines.whole.deviation[: settings.n_latent]
    shared = [
        set(one) & set(other) for one, other in zip(found[0].tolist(), neighbours_of(latent.numpy()), strict=True)
    ]
    assert np.mean([len(some) for some in shared]) > 0.97 * POSITIVES  # beside PCA stands a small MLP
    again = train_network(data, bases)
    plain = train_network(prepare(profiles, replace(settings, positives="views")), bases)
    losses = [each.training.history["train_loss"][1] for each in (first, again, plain)]
    assert losses[0] == losses[1] > losses[2]  # neighbours are less alike than views
