"""The fitted estimator: which items it learns from, its parts on them, and worlds in which little is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dense_estimator import DenseEstimator, World, small_fit, small_world, world_of
from reference import counts_matrix, csr, dense_normalize

from geneae.data.augment import SHARES, WEIGHTS, thin_to
from geneae.data.count_split import with_own_totals
from geneae.fitting import estimator as fitting
from geneae.fitting.estimator import FittedEstimator, fit_estimator
from geneae.models import entry_head
from geneae.models.calibration import fit_calibration
from geneae.models.depths import DELTAS
from geneae.models.estimator import FROM_LATENT, STEPS, Estimator, estimator_tensors
from geneae.models.own_counts import entries_of, fit_own_counts
from geneae.models.whitening import Halves, fit_whitened


@pytest.fixture(scope="module")
def world() -> World:
    return small_world()


@pytest.fixture(scope="module")
def fitted() -> FittedEstimator:
    return small_fit()


def test_items_are_halves_thinned_to_every_share_and_the_other_halves(world: World, fitted: FittedEstimator) -> None:
    first, second = world.dense
    assert [one.item.share for one in fitted.scored] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    for number, one in enumerate(fitted.scored):
        own, other = (first, second) if number % 2 == 0 else (second, first)
        half = world.counts[number % 2]
        np.testing.assert_array_equal(one.item.targets.toarray(), other)
        found = one.item.inputs.toarray()
        if not one.item.share:
            np.testing.assert_array_equal(found, own)
            np.testing.assert_array_equal(one.item.totals, half.totals)
            continue
        assert not found[own == 0].any()
        assert one.item.totals.sum() == pytest.approx(half.totals.sum() * SHARES[one.item.share] / 0.5, rel=0.06)
        molecules = np.expm1(found) * one.item.totals[:, None] / 1e4
        np.testing.assert_allclose(molecules, np.rint(molecules), atol=1e-3)
        assert (molecules <= half.rows.toarray() + 1e-3).all()


def test_thinned_items_are_drawn_from_the_seed(world: World, fitted: FittedEstimator) -> None:
    own = with_own_totals(world.counts)[1]
    thinned = thin_to(own, SHARES[2] / 0.5, np.random.default_rng((0, fitting.THINNING_STREAM, 2, 1, 0)))
    np.testing.assert_array_equal(fitted.scored[5].item.inputs.toarray(), world.preprocess.apply(thinned).toarray())
    np.testing.assert_array_equal(fitted.scored[5].item.totals, thinned.totals)


def test_parts_are_those_of_the_training_profiles(world: World, fitted: FittedEstimator) -> None:
    estimator = fitted.estimator
    whitened = fit_whitened([world.halves], 4, 0)
    assert torch.equal(estimator.whitening.components, whitened.whitening.components)
    np.testing.assert_array_equal(fitted.whitened.fold, whitened.fold)
    whole = dense_normalize(world.whole.rows.toarray())
    np.testing.assert_allclose(estimator.curves.means[0], whole.mean(0), rtol=1e-5)
    assert estimator.scale.mean == pytest.approx(np.log(world.counts[0].totals).mean())
    assert estimator.kept == STEPS


def test_the_reference_is_the_mean_raw_score_of_both_halves(world: World, fitted: FittedEstimator) -> None:
    basis = fitted.estimator.whitening
    mean, deviation, components = (
        tensor.double().numpy() for tensor in (basis.mean, basis.deviation, basis.components)
    )
    first, second = world.dense
    expected = ((first + second) / 2 - mean) / deviation @ components
    np.testing.assert_allclose(fitted.estimator.neighbours.reference, expected, atol=1e-4)
    raw, by_fold = fitting._references(fitted.whitened, world.halves)
    np.testing.assert_allclose(raw, expected, atol=1e-4)
    for number, rows in enumerate(by_fold):
        others = fitted.whitened.fold != number
        own = fitted.whitened.without[number].double().numpy()
        np.testing.assert_allclose(rows, (((first + second) / 2 - mean) / deviation @ own)[others], atol=1e-4)


@pytest.mark.parametrize("number", [0, 7])
def test_the_head_learns_what_is_left_of_seen_values(fitted: FittedEstimator, number: int) -> None:
    estimator, one, entries = fitted.estimator, fitted.scored[number], fitted.entries[number]
    sample = fitting._entry_sample(estimator, one, entries, fitting.share_of_item(one, 10), 0)
    share = one.item.share
    assert sample.share == pytest.approx(WEIGHTS[share] / (2 * sum(WEIGHTS)))
    z, y = one.item.inputs.toarray().astype(float), one.item.targets.toarray().astype(float)
    bases = [components.double().numpy() for components in fitted.whitened.without]
    scores = one.expected.double().numpy()
    p = np.array([bases[fold] @ row for fold, row in zip(fitted.whitened.fold, scores, strict=True)])
    p = p * estimator.calibration.double().numpy()
    dense = DenseEstimator(estimator, DELTAS[share + 1])
    difference = (z - dense.input_mean) / dense.deviation - dense.slope * p
    residual = (y - dense.mean) / dense.deviation - p - dense.share * difference
    seen = (z != 0) & (one.item.weight > 0)[:, None]
    features = dense.features(z, p, one.item.totals)
    assert len(sample.targets) == seen.sum()
    np.testing.assert_allclose(np.sort(sample.targets), np.sort(residual[seen]), atol=1e-4)
    np.testing.assert_allclose(
        np.sort(sample.features.numpy(), axis=0), np.sort(features[seen], axis=0), rtol=1e-3, atol=1e-4
    )
    weights = np.broadcast_to(dense.deviation**2 / (dense.deviation**2).mean(), z.shape)[seen]
    np.testing.assert_allclose(np.sort(sample.weights), np.sort(weights), rtol=1e-4)
    # what stands in a row is of the same value
    for column in (2, 4, 9):
        product = (sample.targets * sample.weights * sample.features[:, column]).sum()
        assert float(product) == pytest.approx((residual[seen] * weights * features[seen][:, column]).sum(), rel=1e-3)


def test_entries_change_nothing_until_they_are_fitted(world: World) -> None:
    whole = world.preprocess.apply(world.whole)
    before = fit_estimator(world.split, world.draw, world.preprocess, whole, 4, 0)
    z, totals = world.dense[0], world.counts[0].totals
    drawn = DenseEstimator(before.estimator.only("neighbours"), 0.0).expectation(z, totals)
    np.testing.assert_array_equal(DenseEstimator(before.estimator, 0.0).expectation(z, totals), drawn)
    for number, name in enumerate(STEPS[:-1]):
        before = before.with_step(name, STEPS[:number], 0)
    assert before.entries == []
    assert not bool(before.estimator.own_counts.zeros.any())
    with_them, without = (
        DenseEstimator(before.estimator.only(*kept), 0.0).expectation(z, totals) for kept in (STEPS, STEPS[:-1])
    )
    np.testing.assert_array_equal(with_them, without)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry_head, "STEPS", 30)
        after = before.with_step("entries", STEPS, 0)
    assert len(after.entries) == len(after.scored) == len(before.scored)
    assert bool(after.estimator.own_counts.zeros.any())
    assert np.abs(DenseEstimator(after.estimator, 0.0).expectation(z, totals) - without).max() > 1e-3
    # everything else stays as it was, also in what was given
    assert not bool(before.estimator.own_counts.zeros.any())
    assert before.entries == []
    known, found = (estimator_tensors(one.estimator) for one in (before, after))
    changed = {name for name in known if not torch.equal(known[name], found[name])}
    assert "zeros" in changed
    assert all(name == "zeros" or name.startswith("head.") for name in changed)


@pytest.mark.parametrize("kept", [(), ("neighbours",), ("calibration",), FROM_LATENT])
def test_later_steps_are_fitted_on_those_that_are_kept(world: World, kept: tuple[str, ...]) -> None:
    """As if a step that is left out had never been there: spoiled before, it changes nothing."""
    whole = world.preprocess.apply(world.whole)
    clean = fit_estimator(world.split, world.draw, world.preprocess, whole, 4, 0)
    slopes = fit_calibration(clean.whitened, clean.scored if "neighbours" in kept else clean.undrawn)
    basis = clean.whitened.calibrated(slopes) if "calibration" in kept else clean.whitened
    scored = clean.scored if "neighbours" in kept else clean.undrawn
    expected = fit_own_counts(basis, clean.estimator.curves, scored, clean.whitened.fold, clean.n_seen)
    spoiled = clean
    if "neighbours" not in kept:
        scored = [replace(one, expected=3 - one.expected) for one in clean.scored]
        spoiled = replace(spoiled, scored=scored, estimator=replace(clean.estimator, calibration=slopes / 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry_head, "STEPS", 3)
        found = spoiled
        for number, name in enumerate(STEPS):
            found = found.with_step(name, [step for step in STEPS[:number] if step in (*kept, "own_counts")], 0)
    if "calibration" in kept:
        torch.testing.assert_close(found.estimator.calibration, slopes)
    torch.testing.assert_close(found.estimator.own_counts.shares, expected.shares)
    assert found.estimator.kept == tuple(step for step in STEPS if step in (*kept, "own_counts", "entries"))
    by_fold = [entries_of(basis, one, basis.fold) for one in found.scored]
    for own, entries in zip(found.entries, by_fold, strict=True):
        torch.testing.assert_close(own.predictions, entries.predictions)
    everything = clean.whitened.calibrated(fit_calibration(clean.whitened, clean.scored))
    of_all = fit_own_counts(everything, clean.estimator.curves, clean.scored, clean.whitened.fold, clean.n_seen)
    assert set(kept) == set(FROM_LATENT) or not torch.allclose(expected.shares, of_all.shares)


def test_a_sample_of_entries_has_the_size_of_its_share(
    fitted: FittedEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "SAMPLE_ENTRIES", 140)
    sizes = [
        len(fitting._entry_sample(fitted.estimator, one, entries, fitting.share_of_item(one, 10), 0).targets)
        for one, entries in zip(fitted.scored, fitted.entries, strict=True)
    ]
    assert sizes == [30, 30, *[10] * 8]


@pytest.mark.parametrize(("n_values", "expected"), [(0, (4, 2)), (2**21, (4, 2)), (2**22, (2, 1)), (2**24, (1, 1))])
def test_many_values_take_fewer_count_splits(n_values: int, expected: tuple[int, int]) -> None:
    assert fitting.number_of_splits(n_values) == expected


def test_several_count_splits_are_drawn_by_their_number(world: World) -> None:
    drawn: list[int] = []

    def draw(number: int) -> fitting.CountedHalves:
        drawn.append(number)
        return world.draw(number)

    whole = world.preprocess.apply(world.whole)
    found = fit_estimator(world.split, draw, world.preprocess, whole, 4, 0)
    assert drawn == [1, 2, 3]
    assert [one.item.share for one in found.scored] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] * 2
    assert sum(fitting.share_of_item(one, len(found.scored)) for one in found.scored) == pytest.approx(1)
    thinned = [one.item.inputs for one in found.scored if one.item.share == 2]
    assert (thinned[0] != thinned[2]).nnz  # thinned apart, though this world draws the same halves again


def test_the_seed_decides_everything_and_nothing_else_changes() -> None:
    world = small_world(40, 12)
    torch.manual_seed(5)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one = estimator_tensors(world.fit(2).estimator)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    torch.manual_seed(6)
    same, other = (estimator_tensors(world.fit(2, seed).estimator) for seed in (0, 1))
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert not torch.equal(one["means"], other["means"])
    assert not torch.equal(one["head.layers.0.weight"], other["head.layers.0.weight"])


def test_numbers_of_genes_come_from_some_of_many_profiles(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    halves = world.halves
    np.testing.assert_array_equal(fitting._chosen(halves, 0), np.arange(80))
    monkeypatch.setattr(fitting, "MOST_PROFILES", 30)
    chosen = fitting._chosen(halves, 0)
    assert len(chosen) == 30
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, fitting._chosen(halves, 0))
    assert (chosen != fitting._chosen(halves, 1)).any()
    monkeypatch.setattr(fitting, "MOST_VALUES", (halves.first.nnz + halves.second.nnz) / 8)
    assert len(fitting._chosen(halves, 0)) == 10
    found = world.fit()
    assert {len(one.expected) for one in found.scored} == {10}
    np.testing.assert_array_equal(
        found.scored[0].item.inputs.toarray(), halves.first[fitting._chosen(halves, 0)].toarray()
    )
    assert len(found.estimator.neighbours.reference) == 80
    assert_finite(found.estimator)


def test_other_profiles_are_predicted_better_than_by_the_mean_at_every_depth(fitted: FittedEstimator) -> None:
    counts = counts_matrix(240, 24, 1, 300.0)[160:]  # profiles of the same programmes that the fit has not seen
    others = world_of(counts, 1)
    _, target = others.dense
    for share, delta in enumerate(DELTAS[1:]):
        thinned = (
            others.counts[0] if not share else thin_to(others.counts[0], SHARES[share] / 0.5, np.random.default_rng(0))
        )
        inputs = others.preprocess.apply(thinned).toarray().astype(float)
        known = thinned.totals >= 8
        predicted = DenseEstimator(fitted.estimator, delta).expectation(inputs, thinned.totals)

        def error(predicted: np.ndarray, known: np.ndarray = known) -> float:
            return float(((predicted - target) ** 2)[known].mean())

        assert error(predicted) < 0.95 * error(np.tile(fitted.estimator.whitening.mean.numpy(), (len(target), 1)))


def test_a_fit_to_other_profiles_halves_learns_no_own_counts() -> None:
    world = small_world(80, 12)
    partner = np.random.default_rng(0).permutation(80)
    halves = world.halves
    apart = World(world.whole, (world.counts[0], world.counts[1].take(partner)), world.preprocess)
    np.testing.assert_array_equal(apart.halves.second.toarray(), halves.second[partner].toarray())
    with_own, without = world.fit(2).estimator, apart.fit(2).estimator
    assert float(without.own_counts.alone[1].mean()) < 0.2 * float(with_own.own_counts.alone[1].mean())
    assert float(without.posterior.factors[1].max()) < 0.5 * float(with_own.posterior.factors[1].max())


def assert_finite(estimator: Estimator) -> None:
    """All numbers, and predictions of a few profiles of several depths."""
    tensors = estimator_tensors(estimator)
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    n_genes = len(estimator.whitening.mean)
    counts = np.vstack([np.zeros(n_genes), np.eye(n_genes)[0], np.full(n_genes, 50.0)])
    for delta in (*DELTAS, 5.0):
        predicted = DenseEstimator(estimator, delta).expectation(dense_normalize(counts), counts.sum(1))
        assert np.isfinite(predicted).all()
        scores = estimator.at(delta).scores(csr(dense_normalize(counts)), counts.sum(1))
        assert bool((scores / estimator.latent_unit).isfinite().all())


def odd_counts(name: str) -> np.ndarray:
    counts = np.random.default_rng(0).poisson(6, (24, 8)).astype(float) + 1
    if name == "gene seen nowhere":
        counts[:, 3] = 0
    elif name == "gene seen once":
        counts[1:, 3] = 0
    elif name == "a single molecule":
        counts[0] = np.eye(8)[2]
    elif name == "an empty profile":
        counts[0] = 0
    elif name == "the same profile":
        counts[:] = counts[0]
    elif name == "few molecules":
        counts = np.minimum(counts, np.random.default_rng(1).integers(0, 2, counts.shape))
        counts[:, 0] = 1
    return counts


@pytest.mark.parametrize(
    "name",
    [
        "gene seen nowhere",
        "gene seen once",
        "a single molecule",
        "an empty profile",
        "the same profile",
        "few molecules",
    ],
)
def test_odd_profiles_give_finite_numbers(name: str) -> None:
    assert_finite(world_of(odd_counts(name)).fit(2).estimator)


@pytest.mark.parametrize("shape", [(2, 8), (3, 8), (5, 8), (24, 3), (24, 1), (5, 3)])
def test_few_profiles_or_genes_give_finite_numbers(shape: tuple[int, int]) -> None:
    counts = np.random.default_rng(0).poisson(9, shape).astype(float) + 1
    assert_finite(world_of(counts).fit(8).estimator)


def test_halves_without_any_difference_give_finite_numbers() -> None:
    counts = np.random.default_rng(0).poisson(6, (24, 8)).astype(float) + 1
    world = world_of(counts)
    half = replace(world.counts[0])
    same = World(world.whole, (half, half), world.preprocess)
    assert isinstance(same.halves, Halves)
    assert_finite(same.fit(2).estimator)
