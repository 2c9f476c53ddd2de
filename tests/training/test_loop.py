import copy
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from reference import DENSE_LOSSES, DenseTwin, centred
from starts import PLAIN, QUICK, Data, are_equal, draw, make_start, weights
from torch import Tensor

from geneae.losses.reconstruction import LOSSES
from geneae.models.network import Network
from geneae.settings.errors import InputError
from geneae.settings.settings import OPTIMIZERS, Settings
from geneae.training import loop, monitor, validation
from geneae.training.devices import open_processes
from geneae.training.loop import SETTLED

COLUMNS = [
    "epoch",
    "train_loss",
    "validation_loss",
    "validation_cosine",
    "validation_mse",
    "norm_ratio",
    "reconstruction_norm",
    "reconstruction_norm_cv",
    "latent_norm",
    "latent_norm_cv",
    "gradient_norm",
    "gradient_times_norm",
    "opposite_halves",
    "near_antipodal",
    "effective_rank",
    "loss_cosine",
    "masked_targets",
    "relative_update",
    "train_seconds",
    "seconds",
]


def test_the_history_has_a_row_per_epoch_and_one_of_the_start(data: Data) -> None:
    seen: list[dict[str, float]] = []
    result = make_start(data).train(seen.append)
    history = result.history
    assert list(history.columns) == COLUMNS
    assert list(history["epoch"]) == [0, 1, 2, 3, 4]
    assert math.isnan(history["train_loss"][0])
    assert history.drop(columns="train_loss").notna().all(axis=None)
    assert history["seconds"].is_monotonic_increasing
    assert history["train_seconds"].sum() <= history["seconds"].iloc[-1]
    assert [row["epoch"] for row in seen] == [0, 1, 2, 3, 4]
    assert [row["validation_loss"] for row in seen] == list(history["validation_loss"])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("center", ["none", "gene"])
def test_validation_agrees_with_dense_arrays(
    data: Data, loss: str, center: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if loss == "pearson" and center == "gene":
        center = "none"  # it has its own
    start = make_start(data, replace(QUICK, loss=loss, center=center))
    other, preprocess = data[1], data[2]
    expected, cosines = [], []
    twin = DenseTwin(start.network)
    for number in range(2):
        halves = [torch.from_numpy(block.toarray()).double() for block in draw(other, preprocess, True, (0, 1, number))]
        for given, wanted in (halves, halves[::-1]):
            predicted = twin.predict(twin.encode(given))
            pair = [centred(x, start.objective.center, start.network.mean.double()) for x in (wanted, predicted)]
            expected.append(DENSE_LOSSES[loss](*pair, start.objective.settings).detach().numpy())
            cosines.append(torch.cosine_similarity(wanted, predicted).mean().item())
    monkeypatch.setattr(validation, "CHUNK", 7)
    losses, means = start.validate(start.network, open_processes(QUICK))
    np.testing.assert_allclose(losses, np.mean(expected, axis=0), rtol=1e-3, atol=1e-5)
    assert means["validation_cosine"] == pytest.approx(np.mean(cosines), rel=1e-4)


def test_the_first_row_is_the_exact_start(data: Data) -> None:
    start = make_start(data)
    silent = copy.deepcopy(start.network)
    silent.core.silence_mlps()
    losses, means = start.validate(silent, open_processes(QUICK))
    first = start.train().history.iloc[0]
    assert first["validation_loss"] == float(losses.mean())
    assert first["validation_cosine"] == means["validation_cosine"]


@pytest.mark.parametrize("settings", [QUICK, replace(QUICK, basis="free"), PLAIN], ids=["fixed", "free", "random"])
def test_the_best_epoch_of_a_fit_that_learns_is_the_one_that_is_kept(data: Data, settings: Settings) -> None:
    start = make_start(data, replace(settings, epochs=15, learning_rate=3e-2, dropout=0.0))
    result = start.train()
    found = float(start.validate(start.network, open_processes(QUICK))[0].mean())
    history = result.history["validation_loss"]
    assert result.best_epoch == history.idxmin() > 0
    assert found == history.min() < history[0]


@pytest.mark.parametrize("basis", ["pca", "free"])
def test_a_fit_that_only_does_harm_ends_at_its_start(data: Data, basis: str) -> None:
    start = make_start(data, replace(QUICK, basis=basis, learning_rate=3.0, epochs=3))
    silent = copy.deepcopy(start.network)
    silent.core.silence_mlps()
    result = start.train()
    assert result.best_epoch == 0
    assert result.history["validation_loss"].idxmin() == 0
    assert are_equal(weights(start.network), weights(silent))


def scripted(monkeypatch: pytest.MonkeyPatch, losses: list[list[float]]) -> None:
    """Have the validation losses of four profiles come from a list, an epoch each."""
    script = iter(losses)
    means = dict.fromkeys(COLUMNS[3:-3], 0.0)
    monkeypatch.setattr(validation, "validate", lambda *_, **__: (torch.tensor(next(script)).double(), means))


@pytest.mark.parametrize("best", [1, 2, 4])
def test_the_weights_kept_are_those_of_the_best_epoch(data: Data, best: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [[0.5 if epoch == best else 1.0] * 4 for epoch in range(5)])
    start = make_start(data)
    states: list[dict[str, Tensor]] = []
    assert start.train(lambda _: states.append(weights(start.network))).best_epoch == best
    assert [are_equal(weights(start.network), state) for state in states] == [epoch == best for epoch in range(5)]


def test_a_gain_below_one_standard_error_does_not_replace_the_start(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubtful = [0.0, 1.9, 0.1, 1.9]  # mean 0.975; error of the gain 0.54
    scripted(monkeypatch, [[1.0] * 4, doubtful, [0.98] * 4, [0.979, 0.979, 0.979, 0.98], [1.1] * 4])
    assert make_start(data).train().best_epoch == 3
    scripted(monkeypatch, [[1.0] * 4, *[doubtful] * 4])
    assert make_start(data).train().best_epoch == 0


def test_one_validation_profile_is_enough_to_choose(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [[1.0], [0.9], [0.95], [0.97], [0.99]])
    assert make_start(data).train().best_epoch == 1


def test_patience_counts_from_the_best_epoch(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [1.0, 1.1, 0.8, 0.9, 0.9, 0.9, 0.1]
    scripted(monkeypatch, [[value] * 4 for value in values])
    result = make_start(data, replace(QUICK, epochs=6, patience=3)).train()
    assert (result.best_epoch, len(result.history)) == (2, 6)
    scripted(monkeypatch, [[value] * 4 for value in values])
    result = make_start(data, replace(QUICK, epochs=6, patience=4)).train()
    assert (result.best_epoch, len(result.history)) == (6, 7)


def test_a_training_that_hardly_falls_any_more_has_settled(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    for each_epoch, n_epochs in ((0.2 * SETTLED, 4), (0.5 * SETTLED, 9)):
        values = [1.0, *(0.9 - each_epoch * epoch for epoch in range(9))]  # three epochs are compared with those before
        scripted(monkeypatch, [[value] * 4 for value in values])
        result = make_start(data, replace(QUICK, epochs=9, patience=3)).train()
        assert (result.best_epoch, len(result.history)) == (n_epochs, n_epochs + 1)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_falls_on_data_with_structure(data: Data, loss: str) -> None:
    settings = replace(PLAIN, loss=loss, epochs=10, learning_rate=2e-2)
    history = make_start(data, settings).train().history
    assert history["validation_loss"].iloc[-1] < 0.7 * history["validation_loss"][0]
    assert history["train_loss"].iloc[-1] < 0.7 * history["train_loss"][1]
    assert history["validation_cosine"].iloc[-1] > 0.3 > history["validation_cosine"][0]


@pytest.mark.parametrize("settings", [QUICK, replace(QUICK, basis="free"), PLAIN], ids=["fixed", "free", "random"])
def test_the_same_seed_gives_the_same_weights_and_history(data: Data, settings: Settings) -> None:
    first, second, third = (make_start(data, s) for s in (settings, settings, replace(settings, seed=1)))
    histories = [start.train().history.drop(columns=["train_seconds", "seconds"]) for start in (first, second, third)]
    assert are_equal(weights(first.network), weights(second.network))
    assert histories[0].equals(histories[1])
    assert not histories[0].equals(histories[2])  # the weights may be the same: those of the start, where it is kept


@pytest.mark.parametrize("settings", [replace(QUICK, learning_rate=1e18), replace(PLAIN, learning_rate=1e18)])
def test_a_loss_that_runs_away_is_said(data: Data, settings: Settings) -> None:
    with pytest.raises(
        InputError,
        match=r"the loss became (inf|nan) in epoch \d, step \d, on the profiles \d+, \d+, \d+ and 47 more\. "
        r"Lower the learning rate \(1e\+18\), or look for extreme values in these profiles\.$",
    ):
        make_start(data, settings).train()


@pytest.mark.parametrize("settings", [QUICK, replace(QUICK, basis="free"), PLAIN], ids=["fixed", "free", "random"])
def test_bf16_comes_near_to_32_bits(data: Data, settings: Settings) -> None:
    whole = make_start(data, settings).train().history
    half = make_start(data, replace(settings, precision="bf16")).train().history
    assert not np.array_equal(whole["train_loss"][1:], half["train_loss"][1:])
    np.testing.assert_allclose(half["validation_loss"], whole["validation_loss"], rtol=0.03)


@pytest.mark.parametrize("settings", [QUICK, PLAIN], ids=["fixed", "random"])
def test_a_start_at_pca_is_recorded_before_the_cut_and_a_random_one_after_it(data: Data, settings: Settings) -> None:
    seen: dict[float, list[Any]] = {}
    for cut in (1.0, 4.0):
        start = make_start(data, replace(settings, cut=cut, learning_rate=1e-12))
        states: list[dict[str, Tensor]] = []
        start.train(lambda _, network=start.network, states=states: states.append(weights(network)))
        seen[cut] = states
    name = "core.encoder.2.weight" if settings is PLAIN else "core.encoder_mlp.0.weight"
    torch.testing.assert_close(seen[4.0][1][name] * 4, seen[1.0][1][name])
    assert are_equal(seen[4.0][0], seen[1.0][0]) == (settings is QUICK)


def test_a_target_norm_is_that_of_the_first_row(data: Data) -> None:
    start = make_start(data, replace(PLAIN, target_norm=5.0))
    assert start.train().history["reconstruction_norm"][0] == pytest.approx(5.0, rel=0.05)


@pytest.mark.parametrize(("stopping", "n_rows"), [(("frozen",), 4), (("hinge",), 7)])
def test_a_collapse_is_said_and_ends_a_training_where_it_does_not_pass(
    data: Data, monkeypatch: pytest.MonkeyPatch, stopping: tuple[str], n_rows: int
) -> None:
    scripted(monkeypatch, [[1.0 - 0.1 * epoch] * 4 for epoch in range(7)])
    monkeypatch.setattr(monitor, "is_frozen", lambda *_: True)
    monkeypatch.setattr(loop, "STOPPING", stopping)
    result = make_start(data, replace(QUICK, loss="cosine", epochs=6)).train()
    assert (result.collapse, len(result.history)) == ("frozen", n_rows)
    assert result.best_epoch == n_rows - 1


def test_a_ranking_loss_at_its_margin_without_spread_ends_the_training(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = dict.fromkeys(COLUMNS[3:-3], 0.0) | {"ranking_loss": 1.0, "ranking_level": 1.0, "score_deviation": 0.01}
    monkeypatch.setattr(validation, "validate", lambda *_, **__: (torch.ones(4).double(), flat))
    result = make_start(data, replace(QUICK, loss="ranking", epochs=6)).train()
    assert (result.collapse, len(result.history)) == ("hinge", 4)


def test_gradient_descent_moves_by_rate_times_gradient_where_adam_does_not(data: Data) -> None:
    changes = {}
    for optimizer in OPTIMIZERS:
        settings = replace(PLAIN, optimizer=optimizer, epochs=1, batch_size=1000, weight_decay=0.0, dropout=0.0)
        for factor in (1.0, 2.0):
            start = make_start(data, replace(settings, learning_rate=1e-3 * factor))
            start.objective = replace(start.objective, settings=replace(start.objective.settings))
            before, after = weights(start.network), []
            start.train(lambda _, network=start.network, after=after: after.append(weights(network)))
            changes[optimizer, factor] = float((after[1]["decoder_weight"] - before["decoder_weight"]).norm())
    for optimizer in OPTIMIZERS:
        assert changes[optimizer, 2.0] == pytest.approx(2 * changes[optimizer, 1.0], rel=0.02)
    n_weights = len(before["decoder_weight"]) * PLAIN.hidden
    assert changes["adamw", 1.0] == pytest.approx(1e-3 * n_weights**0.5, rel=0.2)
    assert changes["sgd", 1.0] != pytest.approx(changes["adamw", 1.0], rel=0.2)


def test_momentum_adds_nine_tenths_of_the_step_before(data: Data) -> None:
    seen: dict[str, list[Tensor]] = {}
    for optimizer in ("sgd", "sgd-momentum"):  # so slow that the gradient stays as it is
        settings = replace(PLAIN, optimizer=optimizer, epochs=4, batch_size=1000, learning_rate=1e-4, n_splits=1)
        start = make_start(data, replace(settings, weight_decay=0.0, dropout=0.0), is_split=False)
        seen[optimizer] = [start.network.decoder_weight.detach().clone()]

        def note(_: dict[str, float], network: Network = start.network, rows: list[Tensor] = seen[optimizer]) -> None:
            rows.append(network.decoder_weight.detach().clone())

        start.train(note)
    plain, faster = ([(b - a).norm() for a, b in pairwise(rows[1:])] for rows in seen.values())
    assert faster[0] / plain[0] == pytest.approx(1, rel=0.02)
    assert faster[1] / plain[1] == pytest.approx(1.9, rel=0.02)


@pytest.mark.parametrize("settings", [QUICK, replace(QUICK, basis="free"), PLAIN], ids=["fixed", "free", "random"])
@pytest.mark.parametrize("loss", ["softmax", "cosine+cosine-embedding", "ranking"])
def test_losses_with_negatives_train_in_every_basis(data: Data, settings: Settings, loss: str) -> None:
    settings = replace(settings, loss=loss, epochs=6, learning_rate=2e-2, batch_size=30, dropout=0.0)
    history = make_start(data, settings).train().history
    assert history["gradient_norm"].notna().all()
    assert ("ranking_loss" in history) == (loss == "ranking")
    assert history["train_loss"].iloc[-1] < history["train_loss"][1]
    if settings.init == "random":
        assert history["validation_loss"].iloc[-1] < history["validation_loss"][0]


def test_validation_gives_a_loss_with_negatives_batches_of_different_profiles_of_the_size_of_training(
    data: Data,
) -> None:
    start = make_start(data, replace(QUICK, loss="softmax"))
    pairs = start.validation[0]
    sizes = [[len(index), len(set((index % 40).tolist()))] for index in validation._batches(pairs, 15)]
    assert sizes == [[14, 14], [13, 13], [13, 13]] * 2
    assert torch.equal(torch.cat(list(validation._batches(pairs, 15))), torch.arange(80))


def test_linear_paths_move_slowly_and_are_not_decayed(data: Data) -> None:
    settings = replace(QUICK, epochs=1, batch_size=1000, weight_decay=0.0)
    decayed = replace(settings, weight_decay=100.0)
    states = {}
    for name, chosen in (("plain", settings), ("decayed", decayed)):
        start = make_start(data, chosen)
        before = weights(start.network)
        after: list[dict[str, Tensor]] = []
        start.train(lambda _, network=start.network, after=after: after.append(weights(network)))
        states[name] = {key: after[1][key] - before[key] for key in before}
    linear, mlp = "core.encoder_linear.weight", "core.encoder_mlp.0.weight"
    assert torch.equal(states["plain"][linear], states["decayed"][linear])
    assert not torch.allclose(states["plain"][mlp], states["decayed"][mlp])
    # the first step of Adam is as long as the rate
    assert float(states["plain"][linear].abs().max()) == pytest.approx(0.1 * settings.learning_rate, rel=1e-2)
    assert float(states["plain"][mlp].abs().max()) == pytest.approx(settings.learning_rate, rel=1e-2)
