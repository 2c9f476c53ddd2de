"""Training from a file: every profile once an epoch, and the same numbers as from memory."""

import copy
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK, simulate

from geneae import Autoencoder
from geneae.data.count_split import Splitter
from geneae.data.preprocess import Expression, Preprocess, fit_preprocess
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.evaluation.reconstruction import evaluate
from geneae.evaluation.records import value
from geneae.losses.inner_products import TargetProducts
from geneae.losses.sparse_rows import SparseRows
from geneae.models.network import Network, network_in_basis, random_network
from geneae.models.pca import fit_basis
from geneae.settings.errors import InputError
from geneae.training.batches import CountSplits, Pairs, Projected
from geneae.training.streaming import Projections, StreamedPairs, StreamedSource


@pytest.fixture
def streamed(counts_path: Path) -> Profiles:
    return read_profiles(counts_path, stream="yes")


@pytest.fixture
def world(streamed: Profiles) -> tuple[Expression, Preprocess, Network]:
    """Profiles in their file, and a network in a fixed basis of them."""
    preprocess = fit_preprocess(streamed, np.arange(streamed.n_profiles))
    expression, _ = preprocess.match(streamed)
    basis = fit_basis([preprocess.apply(expression.load())], 6, 0)
    return expression, preprocess, network_in_basis(basis, torch.ones(6), 3, 8, 0.0, is_free=False)


def windows_of(n_profiles: int, is_split: bool, window: int) -> tuple[StreamedPairs, list[np.ndarray]]:
    read: list[np.ndarray] = []

    def make(profiles: np.ndarray) -> Any:
        read.append(profiles)
        return profiles

    return StreamedPairs(n_profiles, is_split, make, window), read


@pytest.mark.parametrize("is_split", [False, True])
def test_an_epoch_has_every_profile_once(is_split: bool) -> None:
    pairs, _ = windows_of(1000, is_split, 128)
    order = pairs.order(torch.Generator().manual_seed(0))
    assert sorted((order % 1000).tolist()) == list(range(1000))
    assert int(order.max()) < pairs.n_pairs == 1000 * (1 + is_split)
    share = float((order >= 1000).double().mean())
    assert abs(share - 0.5 * is_split) < 0.06
    again = pairs.order(torch.Generator().manual_seed(0))
    assert torch.equal(order, again)
    assert not torch.equal(order, pairs.order(torch.Generator().manual_seed(1)))


def test_a_window_is_blocks_from_everywhere() -> None:
    pairs, _ = windows_of(4096, False, 512)
    window = pairs.order(torch.Generator().manual_seed(0))[:512].sort().values
    assert (window.diff() == 1).double().mean() > 0.9  # in runs of neighbours
    assert window[0] < 1000
    assert window[-1] > 3000
    first = pairs.order(torch.Generator().manual_seed(0))[:512]
    assert (first.diff() == 1).double().mean() < 0.05  # shuffled within


def test_pairs_in_a_file_are_pairs_in_memory(world: tuple[Expression, Preprocess, Network]) -> None:
    expression, preprocess, network = world
    source = StreamedSource(network, expression, preprocess, CountSplits(False, 1, 0), batch_size=50)
    pairs = source.epoch(1)
    memory = Pairs(network, [preprocess.apply(expression.load())])
    for index in pairs.order(torch.Generator().manual_seed(3)).split(50):
        batch, expected = pairs.take(index), memory.take(index)
        inputs, target, wanted_inputs, wanted = batch.inputs, batch.target, expected.inputs, expected.target
        assert isinstance(inputs, torch.Tensor)
        assert isinstance(wanted_inputs, torch.Tensor)
        assert isinstance(target, TargetProducts)
        assert isinstance(wanted, TargetProducts)
        torch.testing.assert_close(inputs, wanted_inputs)
        for field in TargetProducts.__dataclass_fields__:
            torch.testing.assert_close(getattr(target, field), getattr(wanted, field))


def test_halves_belong_together_and_add_up(world: tuple[Expression, Preprocess, Network]) -> None:
    expression, preprocess, network = world
    source = StreamedSource(network, expression, preprocess, CountSplits(True, 2, 0), batch_size=40)
    first, second = source.epoch(1), source.epoch(2)
    order = first.order(torch.Generator().manual_seed(0))
    swapped = (order + first.n_profiles) % first.n_pairs
    second.order(torch.Generator().manual_seed(0))
    for index, other in zip(order.split(40), swapped.split(40), strict=True):
        batch, swapped_batch = first.take(index), first.take(other)
        target, other_target = batch.target, swapped_batch.target
        assert isinstance(target, TargetProducts)
        assert isinstance(other_target, TargetProducts)
        torch.testing.assert_close(network.scores_of(target), swapped_batch.inputs)
        torch.testing.assert_close(network.scores_of(other_target), batch.inputs)
        assert not torch.equal(second.take(index).inputs, batch.inputs)  # the other count split
    assert source.epoch(3).n_pairs == first.n_pairs


def test_a_free_basis_reads_the_profiles_again(
    world: tuple[Expression, Preprocess, Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    expression, preprocess, _ = world
    monkeypatch.setattr("geneae.training.streaming.WINDOW_VALUES", 4000)
    network = random_network(torch.zeros(expression.matrix.shape[1]), 3, 8, 0.0)
    pairs = StreamedSource(network, expression, preprocess, CountSplits(True, 2, 0), batch_size=16).epoch(1)
    whole = preprocess.apply(expression.load())
    order = pairs.order(torch.Generator().manual_seed(0))
    for index in order.split(16):
        batch = pairs.take(index, 0.5)
        inputs, target = batch.inputs, batch.target
        assert batch.progress == 0.5
        assert isinstance(inputs, SparseRows)
        assert isinstance(target, SparseRows)
        profiles = (index % pairs.n_profiles).numpy()
        for rows in (inputs, target):
            assert rows.sums is None or rows.sums.total.min() > 0
            assert rows.n_profiles == len(profiles)
        assert target.sums is not None
        assert (target.sums.total.numpy() < 2 * whole[profiles].sum(1).A1).all()


@pytest.mark.parametrize("is_whitened", [False, True])
def test_projections_come_back_by_split_and_profile(
    is_whitened: bool, world: tuple[Expression, Preprocess, Network]
) -> None:
    """The scores of a network on posterior scores do not follow from the products, and are written, too."""
    network = copy.deepcopy(world[2])
    network.is_whitened = is_whitened
    stored = Projections(network, 10, True, None)
    draws = torch.Generator().manual_seed(0)
    wanted = torch.randn(2, 2, 10, 15, generator=draws)  # split, half, profile, numbers
    for split in range(2):
        for start in (0, 6):
            part = wanted[split, :, start : start + (6 if start == 0 else 4)].flatten(0, 1)
            center = part[:, 6]
            targets = TargetProducts(part[:, :6], center, center, part[:, 7], part[:, 8])
            stored.write(split, start, Projected(part[:, 9:], targets, 2))
    profiles = np.array([1, 2, 5, 9])
    read, expected = stored.read(1, profiles), wanted[1][:, profiles].flatten(0, 1)
    found = read.targets
    assert read.n_halves == 2
    joined = torch.cat([found.weight, found.center[:, None], found.squared[:, None], found.total[:, None]], 1)
    torch.testing.assert_close(joined, expected[:, :9], rtol=0, atol=0)
    scores = expected[:, 9:] if is_whitened else network.scores_of(found)
    torch.testing.assert_close(read.inputs, scores, rtol=0, atol=0)


@pytest.mark.parametrize("room", [7, 4096])
def test_projections_are_whole_although_a_file_takes_a_part_at_a_time(
    room: int, world: tuple[Expression, Preprocess, Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is nearly full takes the first part without an error."""
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, place: real(file, data[:room], place))
    stored, values = Projections(world[2], 4, False, None), torch.arange(36.0).reshape(4, 9)
    targets = TargetProducts(values[:, :6], values[:, 6], values[:, 6], values[:, 7], values[:, 8])
    stored.write(0, 0, Projected(values[:, :0], targets, 1))
    torch.testing.assert_close(stored.read(0, np.arange(4)).targets.weight, values[:, :6], rtol=0, atol=0)


def test_projections_on_a_full_disk_are_an_error(world: tuple[Expression, Preprocess, Network]) -> None:
    stored, values = Projections(world[2], 4, False, None), torch.zeros(4, 9)
    targets = TargetProducts(values[:, :6], values[:, 6], values[:, 6], values[:, 7], values[:, 8])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            stored.write(0, 0, Projected(values[:, :0], targets, 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_projections_follow_the_network_to_another_device(world: tuple[Expression, Preprocess, Network]) -> None:
    expression, preprocess, network = world
    source = StreamedSource(network, expression, preprocess, CountSplits(True, 1, 0), 32)
    network.to("meta")
    pairs = source.epoch(1)
    batch = pairs.take(pairs.order(torch.Generator().manual_seed(0))[:32])
    assert isinstance(batch.inputs, torch.Tensor)
    assert isinstance(batch.target, TargetProducts)
    assert batch.inputs.device.type == batch.target.weight.device.type == "meta"


def test_the_scratch_file_leaves_nothing_behind(world: tuple[Expression, Preprocess, Network], tmp_path: Path) -> None:
    source = StreamedSource(world[2], world[0], world[1], CountSplits(True, 2, 0), 32, tmp_path)
    assert source.epoch(1).n_pairs == 480
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("basis", ["pca", "free"])
def test_a_fit_from_a_file_is_about_a_fit_from_memory(basis: str, counts_path: Path) -> None:
    settings = QUICK | {"basis": basis, "epochs": 6}
    streamed = Autoencoder("mse", **settings).fit(read_profiles(counts_path, stream="yes"))
    memory = Autoencoder("mse", **settings).fit(counts_path)
    assert streamed.model_.config["data"]["is_streamed"]
    assert (streamed.split_ == memory.split_).all()
    for model in ("mean_profile", "pca", "shrunken_pca"):
        for metric, within in (("cosine", 1e-4), ("mse", 1e-3), ("heldout_cosine", 0.01)):
            one, other = (value(fit.evaluation_.metrics, model, "test", metric) for fit in (streamed, memory))
            assert abs(one - other) < within
    again = Autoencoder("mse", **settings).fit(read_profiles(counts_path, stream="yes"))
    for name, tensor in streamed.model_.network.state_dict().items():
        assert torch.equal(tensor, again.model_.network.state_dict()[name])


def test_profiles_from_a_file_are_judged_and_embedded_as_from_memory(
    fitted: Autoencoder, streamed: Profiles, counts_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, memory = fitted.model_, read_profiles(counts_path)
    tables = []
    for profiles in (streamed, memory):
        expression, _ = model.preprocess.match(profiles)
        np.testing.assert_array_equal(model.latent(expression), fitted.transform(memory))
        tables.append(evaluate(model, expression, profiles.names, fitted.split_, fit_scales=True).profiles)
    assert tables[0].equals(tables[1])


def test_evaluation_in_parts_drops_and_repeats_nobody(
    fitted: Autoencoder, streamed: Profiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fitted.model_
    expression, _ = model.preprocess.match(streamed)
    whole = evaluate(model, expression, streamed.names, fitted.split_, fit_scales=True).profiles
    monkeypatch.setattr("geneae.evaluation.reconstruction.READ", 17)
    parts = evaluate(model, expression, streamed.names, fitted.split_, fit_scales=True).profiles
    assert (parts["profile"] == whole["profile"]).all()
    for column in ("cosine", "centred_cosine", "mse", "norm_ratio"):
        np.testing.assert_allclose(parts[column], whole[column], rtol=1e-12)
    difference = (parts["heldout_cosine"] - whole["heldout_cosine"]).to_numpy()
    assert np.abs(difference).max() > 0  # other halves
    assert abs(difference.mean()) < 0.01


def test_a_null_needs_the_profiles_in_memory(counts_path: Path) -> None:
    with pytest.raises(InputError, match="null=True permutes all profiles in memory, but these stay in their file"):
        Autoencoder(**QUICK).fit(read_profiles(counts_path, stream="yes"), null=True)


def test_a_sample_is_of_the_size_asked_for_and_of_all_profiles(streamed: Profiles) -> None:
    preprocess = fit_preprocess(streamed, np.arange(streamed.n_profiles))
    expression, _ = preprocess.match(streamed)
    assert expression.sample(10**9, 50, 0).n_profiles == 50
    few = expression.sample(3000, 10**6, 0)
    assert 0.5 < few.rows.nnz / 3000 < 1.5
    assert not few.is_streamed
    assert expression.sample(10**9, 10**6, 0).n_profiles == 240
    assert (expression.sample(3000, 99, 0).totals == few.totals).all()
    assert (expression.sample(3000, 99, 1).totals != few.totals).any()
    memory = expression.load()
    assert memory.sample(1, 1, 0) is memory
    assert Splitter(few.rows).draw(np.random.default_rng(0))[0].shape == few.rows.shape
    assert simulate().n_obs == 240


def test_a_loss_that_compares_profiles_takes_streamed_ones(counts_path: Path) -> None:
    fitted = Autoencoder("softmax", **QUICK).fit(read_profiles(counts_path, stream="yes"))
    assert np.isfinite(fitted.history_["train_loss"][1:]).all()
    with pytest.raises(InputError, match="compares targets and needs the profiles in memory"):
        Autoencoder("cosine-embedding", **QUICK).fit(read_profiles(counts_path, stream="yes"))
