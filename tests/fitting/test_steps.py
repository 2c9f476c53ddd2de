"""Choice of steps: losses of validation halves, and what is kept because it helps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dense_estimator import DenseEstimator, World, small_fit, world_of
from reference import counts_matrix
from torch import Tensor, nn

from geneae.data.count_split import halves
from geneae.fitting import steps as choosing
from geneae.fitting.steps import CHOICE_STREAM, Step, StepChoice, plain_loss
from geneae.losses.fixed_metric import FixedMetric
from geneae.losses.inner_products import InnerProducts
from geneae.losses.names import find_loss
from geneae.losses.reconstruction import LOSSES, LossSettings
from geneae.models.cores import SkipCore
from geneae.models.entry_head import EntryHead
from geneae.models.estimator import FROM_LATENT, STEPS, Estimator
from geneae.models.network import Network, whitened_network
from geneae.training.objectives import Reconstruction

N = 80
COSINE = Reconstruction(LOSSES["cosine"], "none", LossSettings())


@pytest.fixture(scope="module")
def others() -> World:
    """Profiles of the programmes of `small_world` that its fit has not seen."""
    return world_of(counts_matrix(240, 24, 1, 300.0)[160:])


@pytest.fixture(scope="module")
def estimator() -> Estimator:
    return small_fit().estimator


def network_of(estimator: Estimator, is_bent: bool = False) -> Network:
    """The identity, or a network whose linear decoder is random."""
    torch.manual_seed(0)
    network = whitened_network(estimator, estimator.whitening.rank, 6, 0.0, is_frozen=False)
    assert isinstance(network.core, SkipCore)
    network.core.silence_mlps()
    if is_bent:
        nn.init.normal_(network.core.decoder_linear.weight)
    return network.eval()


def choice(
    world: World, estimator: Estimator, center: str = "none", partner: np.ndarray | None = None, is_bent: bool = False
) -> StepChoice:
    by_profile = plain_loss(replace(COSINE, center=center))
    network = network_of(estimator, is_bent)
    return StepChoice(world.whole, world.preprocess, network, center, by_profile, 3, partner)


def dense_losses(world: World, estimator: Estimator, center: str, partner: np.ndarray) -> np.ndarray:
    """Mean cosine losses of both directions of two count splits."""
    rng, parts = np.random.default_rng((3, CHOICE_STREAM)), []
    mean = estimator.whitening.mean.double().numpy()
    for _ in range(2):
        first, second = halves(world.whole, rng)
        second = second.take(partner)
        blocks = [world.preprocess.apply(half).toarray().astype(float) for half in (first, second)]
        for x, y, totals in ((*blocks, first.totals), (*blocks[::-1], second.totals)):
            found = DenseEstimator(estimator, 0.0).expectation(x, totals)
            if center == "gene":
                y, found = y - mean, found - mean
            if center == "profile":
                y, found = (some - some.mean(1, keepdims=True) for some in (y, found))
            parts.append(1 - (y * found).sum(1) / np.linalg.norm(y, axis=1) / np.linalg.norm(found, axis=1))
    return np.asarray(np.mean(parts, axis=0))


@pytest.mark.parametrize("kept", [(), ("neighbours", "own_counts"), ("neighbours", "calibration"), STEPS])
@pytest.mark.parametrize("center", ["none", "gene", "profile"])
def test_losses_are_those_of_dense_predictions_of_the_other_half(
    others: World, estimator: Estimator, kept: tuple[str, ...], center: str
) -> None:
    some = estimator.only(*kept)
    found = choice(others, estimator, center).losses(some, has_network=False)
    np.testing.assert_allclose(found, dense_losses(others, some, center, np.arange(N)), rtol=1e-3, atol=1e-4)


def test_in_a_control_each_profile_predicts_its_partner(others: World, estimator: Estimator) -> None:
    partner = np.random.default_rng(0).permutation(N)
    found = choice(others, estimator, partner=partner).losses(estimator, has_network=False)
    np.testing.assert_allclose(found, dense_losses(others, estimator, "none", partner), rtol=1e-3, atol=1e-4)


def test_a_network_that_is_the_identity_changes_no_loss(others: World, estimator: Estimator) -> None:
    some = choice(others, estimator)
    with_it, without = (some.losses(estimator, has_network) for has_network in (True, False))
    torch.testing.assert_close(with_it, without, atol=1e-6, rtol=1e-5)
    bent = choice(others, estimator, is_bent=True)
    assert not torch.allclose(bent.losses(estimator), without, atol=1e-3)


def with_real_differences(n_profiles: int, seed: int) -> np.ndarray:
    """Counts with levels by profile and gene that no component knows, so that own counts say much."""
    rng = np.random.default_rng(seed)
    rates = rng.gamma(1.0, 1.0, (n_profiles, 24)) * np.linspace(1, 4, 24)
    return np.asarray(rng.poisson(600 * rates / rates.sum(1, keepdims=True)), dtype=float)


def test_own_counts_are_kept_where_they_help() -> None:
    estimator = world_of(with_real_differences(80, 0)).fit().estimator
    kept, steps = choice(world_of(with_real_differences(60, 1)), estimator).choose(
        estimator, False, lambda *_: estimator
    )
    assert "own_counts" in kept.kept
    assert [step.name for step in steps] == list(STEPS)
    assert steps[2].is_kept
    assert steps[2].gain > 0.02


def test_own_counts_are_refused_where_targets_are_of_other_profiles() -> None:
    estimator = world_of(with_real_differences(80, 0)).fit().estimator
    partner = np.roll(np.arange(60), 1)
    some = choice(world_of(with_real_differences(60, 1)), estimator, partner=partner)

    def fit_step(name: str, kept: tuple[str, ...]) -> Estimator:
        assert name != "entries", "entries are not fitted where own counts do harm"
        return estimator

    kept, steps = some.choose(estimator, False, fit_step)
    assert "own_counts" not in kept.kept
    assert [step.name for step in steps] == list(STEPS[:-1])  # entries go with own counts
    assert not steps[2].is_kept
    assert steps[2].gain < -2 * steps[2].error


def once_each(n_profiles: int, seed: int) -> np.ndarray:
    """Which genes were seen, as 0 and 1, of profiles of two kinds: what is in one half is missing in the other."""
    rng = np.random.default_rng(seed)
    shares = np.where(rng.random((n_profiles, 1)) < 0.5, np.linspace(0.1, 0.9, 120), np.linspace(0.9, 0.1, 120))
    return (rng.random(shares.shape) < shares).astype(float)


def test_own_counts_are_not_tried_where_counts_are_not_drawn_at_random() -> None:
    """They would lower the loss, as a gene that is seen in one half is never seen in the other; but of a complete
    profile they would then say that what was seen is not there."""
    fitted = world_of(once_each(80, 0)).fit()
    estimator, some = fitted.estimator, choice(world_of(once_each(60, 1)), fitted.estimator)
    assert not some.is_drawn_at_random(estimator)
    without, with_them = (some.losses(estimator.only(*kept)) for kept in ((), ("own_counts", "entries")))
    assert (without - with_them).mean() > 0.01

    def fit_step(name: str, kept: tuple[str, ...]) -> Estimator:
        assert name in FROM_LATENT, "neither own counts nor entries are fitted"
        return estimator

    kept, steps = some.choose(estimator, False, fit_step)
    assert not {"own_counts", "entries"} & set(kept.kept)
    assert [step.name for step in steps] == ["neighbours", "calibration"]


def test_counted_molecules_are_drawn_at_random(others: World, estimator: Estimator) -> None:
    assert choice(others, estimator).is_drawn_at_random(estimator)
    assert choice(others, estimator, partner=np.roll(np.arange(N), 1)).is_drawn_at_random(estimator)
    few = world_of(counts_matrix(6, 24, 1, 10.0))  # too few molecules to tell
    assert choice(few, estimator).is_drawn_at_random(estimator)


def test_entries_are_fitted_once_and_tried_with_own_counts(
    others: World, estimator: Estimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where own counts alone are no clear gain: the step `entries` brings them along."""
    unfitted = replace(
        estimator,
        own_counts=replace(estimator.own_counts, zeros=torch.zeros_like(estimator.own_counts.zeros)),
        head=EntryHead(),
    )
    some, calls = choice(others, estimator), []

    def losses(tried: Estimator, has_network: bool = True) -> Tensor:
        gains = {"own_counts": 0.0, "entries": 1.0}
        step = tried.kept[-1] if tried.kept else ""
        return torch.linspace(0.0, 0.1, N).double() - gains.get(step, 0.0)

    def fit_step(name: str, kept: tuple[str, ...]) -> Estimator:
        calls.append((name, kept))
        return estimator if name == "entries" else unfitted

    monkeypatch.setattr(some, "losses", losses)
    kept, steps = some.choose(unfitted, False, fit_step)
    assert calls == [(name, ()) for name in STEPS]
    assert [(step.name, step.is_kept) for step in steps] == [
        ("neighbours", False),
        ("calibration", False),
        ("own_counts", False),
        ("entries", True),
    ]
    assert kept.kept == ("own_counts", "entries")
    assert kept.head is estimator.head
    assert kept.own_counts is estimator.own_counts


@pytest.mark.parametrize(("loss", "is_called"), [(0.03, False), (0.01, True)])
def test_own_counts_do_harm_where_their_loss_is_clearly_higher(
    loss: float, is_called: bool, others: World, estimator: Estimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = torch.tensor([-0.1, 0.1]).double().repeat(N // 2)  # standard error 0.0113
    some, calls = choice(others, estimator), []

    def losses(tried: Estimator, has_network: bool = True) -> Tensor:
        return loss + noise if "own_counts" in tried.kept else 0 * noise

    monkeypatch.setattr(some, "losses", losses)
    _, steps = some.choose(estimator, False, lambda *called: calls.append(called) or estimator)
    assert ("entries" in dict(calls)) is is_called
    assert [step.name for step in steps] == list(STEPS if is_called else STEPS[:-1])


def test_a_step_is_tried_on_those_kept_before(others: World, estimator: Estimator) -> None:
    some = choice(others, estimator, is_bent=True)
    kept, steps = some.choose(estimator, True, lambda *_: estimator)
    assert [step.name for step in steps][:2] == ["network", "neighbours"]
    start, bent = some.losses(estimator.only(), has_network=False), some.losses(estimator.only())
    assert steps[0].gain == pytest.approx(float((start - bent).mean()))
    tried, before = estimator.only("neighbours"), bent
    assert steps[1].gain == pytest.approx(float((before - some.losses(tried)).mean()))
    assert kept.kept == tuple(step.name for step in steps[1:] if step.is_kept)


def test_a_clear_gain_is_twice_its_standard_error() -> None:
    gains = torch.tensor([0.0, 1.0, 2.0, 5.0]).double()
    error = float(np.std([0, 1, 2, 5], ddof=1) / 2)
    assert choosing._step("loss", gains) == Step("loss", 2 * error < 2.0, 2.0, pytest.approx(error))
    assert choosing._step("loss", gains + 0.2).is_kept
    assert not choosing._step("loss", gains - 0.2).is_kept
    assert not choosing._step("loss", torch.zeros(9)).is_kept
    assert not choosing._step("loss", -gains).is_kept


@pytest.mark.parametrize(("gain", "is_kept"), [(0.1, True), (0.0, False), (-0.1, False)])
def test_a_single_profile_has_no_error(gain: float, is_kept: bool) -> None:
    assert choosing._step("loss", torch.tensor([gain])) == Step("loss", is_kept, pytest.approx(gain), 0.0)


def test_a_head_is_taken_if_it_lowers_the_loss(others: World, estimator: Estimator) -> None:
    spoiled, last = EntryHead(), nn.Linear(32, 1)
    nn.init.constant_(last.bias, 2.0)
    spoiled.layers[-1] = last
    some = choice(others, estimator)
    same, step = some.choose_head(estimator, spoiled)
    assert same is estimator
    assert (step.name, step.is_kept) == ("loss", False)
    assert step.gain < 0
    worse = replace(estimator, head=spoiled)
    better, step = some.choose_head(worse, estimator.head)
    assert better.head is estimator.head
    assert step.is_kept
    assert step.gain == pytest.approx(float((some.losses(worse) - some.losses(estimator)).mean()))


def test_a_world_without_structure_keeps_no_neighbours() -> None:
    rng = np.random.default_rng(0)
    levels = np.linspace(1, 5, 24)
    train, validation = (world_of(rng.poisson(levels, (60, 24)).astype(float)) for _ in range(2))
    estimator = train.fit(2).estimator
    kept, _ = choice(validation, estimator).choose(estimator, False, lambda *_: estimator)
    assert kept.kept == ()


def _products() -> InnerProducts:
    some = torch.tensor([1.0, 2.0, 0.5])
    return InnerProducts(some, some + 1, some * 2, 9)


@pytest.mark.parametrize("name", ["mse", "cosine"])
def test_steps_are_chosen_by_the_loss_of_the_fit(name: str) -> None:
    objective = Reconstruction(LOSSES[name], "none", LossSettings())
    found: Tensor = plain_loss(objective)(_products())
    assert torch.equal(found, objective.by_profile(_products()))


def test_and_by_the_cosine_where_that_compares_profiles_or_has_a_metric() -> None:
    in_batch = Reconstruction(find_loss("softmax"), "none", LossSettings())
    metric = Reconstruction(LOSSES["mse"], "none", LossSettings(), metric=FixedMetric(torch.ones(9, 2), 0.1))
    assert in_batch.loss.needs == "pairs"
    for objective in (in_batch, metric):
        assert torch.equal(plain_loss(objective)(_products()), COSINE.by_profile(_products()))
