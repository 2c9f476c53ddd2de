import numpy as np
import pytest
import torch
from conftest import simulate
from dense_estimator import DenseEstimator, random_estimator
from reference import DenseTwin, dense_products, reconstruct
from scipy import sparse

from geneae.data.augment import SHARES, WEIGHTS, thin_to
from geneae.data.count_split import Splitter, draw_halves, with_own_totals
from geneae.data.preprocess import Expression, Preprocess, fit_preprocess
from geneae.data.reading import read_profiles
from geneae.losses.reconstruction import LossSettings
from geneae.losses.sparse_rows import SparseRows, sparse_product
from geneae.models.ceiling import cosine_of_halves
from geneae.models.depths import DELTAS
from geneae.models.estimator import Estimator
from geneae.models.network import Network, network_in_basis, whitened_network
from geneae.models.pca import fit_basis
from geneae.training import batches
from geneae.training.batches import (
    CountSplits,
    PairNeeds,
    Pairs,
    PairSource,
    ThinnedInputs,
    draw_blocks,
    draw_pairs,
    loss_constants,
    project_blocks,
)

N = 41  # odd, so that a median is one of the values
CENTERS = ("none", "gene", "profile")


@pytest.fixture(scope="module")
def known() -> tuple[Expression, Preprocess]:
    profiles = read_profiles(simulate(N, 30))
    preprocess = fit_preprocess(profiles, np.arange(N))
    return preprocess.match(profiles)[0], preprocess


@pytest.fixture(scope="module")
def blocks(known: tuple[Expression, Preprocess]) -> list[sparse.csr_matrix]:
    return draw_blocks(*known, Splitter(known[0].matrix), (0, 0, 0))


def make_network(blocks: list[sparse.csr_matrix], is_free: bool = False) -> Network:
    basis = fit_basis(blocks, 8, 0)
    torch.manual_seed(0)
    return network_in_basis(basis, torch.linspace(1, 0.3, 8), 4, 10, 0.0, is_free).double()


def dense(rows: SparseRows) -> np.ndarray:
    return sparse_product(rows.to("cpu", torch.float64), torch.eye(rows.n_genes, dtype=torch.float64)).numpy()


def test_the_target_of_each_half_is_the_other_half(blocks: list[sparse.csr_matrix]) -> None:
    first, second = (block.toarray() for block in blocks)
    some = Pairs(make_network(blocks, is_free=True), blocks)
    batch = some.take(torch.tensor([0, 3, N, N + 3, 2 * N - 1]))
    inputs, target = batch.inputs, batch.target
    assert isinstance(inputs, SparseRows)
    assert isinstance(target, SparseRows)
    np.testing.assert_array_equal(dense(inputs), np.vstack([first[[0, 3]], second[[0, 3, N - 1]]]))
    np.testing.assert_array_equal(dense(target), np.vstack([second[[0, 3]], first[[0, 3, N - 1]]]))
    assert (len(some), some.n_profiles) == (2 * N, N)


def test_in_a_fixed_basis_too(blocks: list[sparse.csr_matrix]) -> None:
    network = make_network(blocks)
    first, second = (block.toarray().astype(np.float64) for block in blocks)
    batch = Pairs(network, blocks).take(torch.tensor([5, N + 5]))
    inputs, target = batch.inputs, batch.target
    components, mean = network.components.numpy(), network.mean.numpy()
    assert isinstance(inputs, torch.Tensor)
    scores = (np.stack([first[5], second[5]]) - mean) @ components / network.deviation.numpy()
    np.testing.assert_allclose(inputs.numpy(), scores, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(target.squared, [np.sum(second[5] ** 2), np.sum(first[5] ** 2)], rtol=1e-5)
    np.testing.assert_allclose(target.weight, np.stack([second[5], first[5]]) @ components, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_free", [False, True])
def test_an_undivided_profile_is_its_own_target(known: tuple[Expression, Preprocess], is_free: bool) -> None:
    block = draw_blocks(*known, None, (0,))
    np.testing.assert_array_equal(block[0].toarray(), known[1].apply(known[0]).toarray())
    some = Pairs(make_network(block, is_free), block)
    target = some.take(torch.arange(N)).target
    squared = np.sum(dense(target) ** 2) if isinstance(target, SparseRows) else target.squared.sum()
    assert len(some) == N
    assert float(squared) == pytest.approx(float((block[0].toarray().astype(np.float64) ** 2).sum()), rel=1e-6)


def test_halves_come_from_the_seed_alone(known: tuple[Expression, Preprocess]) -> None:
    splitter = Splitter(known[0].matrix)
    one, again, other = (draw_blocks(*known, splitter, seed) for seed in ((0, 0, 0), (0, 0, 0), (0, 1, 0)))
    for block, same, different in zip(one, again, other, strict=True):
        np.testing.assert_array_equal(block.toarray(), same.toarray())
        assert (block.toarray() != different.toarray()).mean() > 0.1


def test_an_epoch_has_every_profile_once_and_both_directions(blocks: list[sparse.csr_matrix]) -> None:
    network, generator = make_network(blocks), torch.Generator().manual_seed(0)
    orders = [Pairs(network, blocks).order(generator) for _ in range(200)]
    for order in orders:
        assert sorted(order % N) == list(range(N))
    assert abs(float((torch.cat(orders) >= N).double().mean()) - 0.5) < 5 * 0.5 / (200 * N) ** 0.5
    alone = Pairs(network, blocks[:1]).order(generator)
    assert sorted(alone) == list(range(N))


@pytest.mark.parametrize("center", CENTERS)
def test_free_and_fixed_basis_give_the_dense_inner_products(blocks: list[sparse.csr_matrix], center: str) -> None:
    fixed, free = make_network(blocks), make_network(blocks, is_free=True)
    free.core.load_state_dict(fixed.core.state_dict())
    index = torch.arange(0, 2 * N, 7)
    batches = [Pairs(network, blocks).take(index) for network in (fixed, free)]
    by_fixed, latent = reconstruct(fixed, batches[0].inputs, batches[0].target, center)
    by_free, same_latent = reconstruct(free, batches[1].inputs, batches[1].target, center)
    torch.testing.assert_close(latent, same_latent, rtol=1e-5, atol=1e-5)
    whole = torch.from_numpy(sparse.vstack(blocks).toarray()).double()
    twin = DenseTwin(fixed)
    predicted = twin.predict(twin.encode(whole[index]))
    expected = dense_products(whole[(index + N) % (2 * N)], predicted, center, fixed.mean)
    for products in (by_fixed[center], by_free[center]):
        for field in ("cross", "target", "predicted"):
            torch.testing.assert_close(getattr(products, field), getattr(expected, field), rtol=1e-5, atol=1e-5)


def test_projecting_in_chunks_changes_nothing(blocks: list[sparse.csr_matrix], monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network(blocks)
    at_once = Pairs(network, blocks).take(torch.arange(2 * N))
    monkeypatch.setattr(batches, "CHUNK", 7)
    in_chunks = Pairs(network, blocks).take(torch.arange(2 * N))
    torch.testing.assert_close(at_once.inputs, in_chunks.inputs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(at_once.target.squared, in_chunks.target.squared, rtol=0, atol=0)


@pytest.mark.parametrize("is_free", [False, True])
def test_a_batch_has_what_its_loss_needs_and_takes_all_of_it_elsewhere(
    blocks: list[sparse.csr_matrix], is_free: bool
) -> None:
    needs = PairNeeds(gram=True, labels=torch.arange(N))
    index = torch.tensor([3, N + 5])
    batch = Pairs(make_network(blocks, is_free), blocks, needs).take(index, 0.25)
    targets = np.stack([blocks[1].toarray()[3], blocks[0].toarray()[5]])
    np.testing.assert_allclose(batch.gram, targets @ targets.T, rtol=1e-5)
    assert (batch.labels.tolist(), batch.progress) == ([3, 5], 0.25)
    plain = Pairs(make_network(blocks, is_free), blocks).take(index)
    assert (plain.gram, plain.labels, plain.progress) == (None, None, 1.0)
    moved = batch.to("meta")
    assert moved.progress == 0.25
    assert {moved.gram.device.type, moved.labels.device.type} == {"meta"}
    for rows in (moved.inputs, moved.target):
        values = rows.panels[0].values if isinstance(rows, SparseRows) else getattr(rows, "weight", rows)
        assert values.device.type == "meta"


@pytest.mark.parametrize("is_free", [False, True])
def test_a_source_takes_its_splits_in_turn(
    known: tuple[Expression, Preprocess], blocks: list[sparse.csr_matrix], is_free: bool
) -> None:
    source = PairSource(make_network(blocks, is_free), *known, CountSplits(True, 3, 0))
    epochs = [source.epoch(epoch) for epoch in range(1, 8)]
    assert epochs[0] is epochs[3] is epochs[6]
    assert epochs[1] is epochs[4]
    assert len({id(some) for some in epochs}) == 3
    totals = [values_of(some) for some in epochs[:3]]
    assert not np.array_equal(totals[0], totals[1])
    assert not np.array_equal(totals[1], totals[2])


def values_of(some: Pairs) -> np.ndarray:
    inputs = some.take(torch.arange(len(some))).inputs
    return inputs.numpy() if isinstance(inputs, torch.Tensor) else dense(inputs)


@pytest.mark.parametrize("is_free", [False, True])
def test_a_forgotten_split_is_drawn_again_the_same(
    known: tuple[Expression, Preprocess],
    blocks: list[sparse.csr_matrix],
    is_free: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "CACHE_BYTES", 1)
    source = PairSource(make_network(blocks, is_free), *known, CountSplits(True, 3, 0))
    first, second = source.epoch(1), source.epoch(2)
    again = source.epoch(4)
    assert again is not first
    np.testing.assert_array_equal(values_of(again), values_of(first))
    assert not np.array_equal(values_of(again), values_of(second))


def test_undivided_profiles_are_the_same_in_every_epoch(
    known: tuple[Expression, Preprocess], blocks: list[sparse.csr_matrix]
) -> None:
    source = PairSource(make_network(blocks), *known, CountSplits(False, 5, 0))
    assert source.n_splits == 1
    assert source.epoch(1) is source.epoch(2)


def centre(x: np.ndarray, mean: np.ndarray, center: str) -> np.ndarray:
    return x - mean if center == "gene" else x - x.mean(1, keepdims=True) if center == "profile" else x


@pytest.mark.parametrize("center", CENTERS)
def test_loss_constants_are_the_errors_of_the_mean_profile(known: tuple[Expression, Preprocess], center: str) -> None:
    block = known[1].apply(known[0])
    x = block.toarray().astype(np.float64)
    mean = x.mean(0)
    found = loss_constants([block], torch.from_numpy(mean), center, LossSettings(0.3, 2.0, 3.0))
    x, y = centre(x, mean, center), centre(np.tile(mean, (N, 1)), mean, center)
    norms = np.linalg.norm(x, axis=1)
    by_norm = norms * np.maximum(np.linalg.norm(y, axis=1), 1e-300)
    assert found.mean_profile_mse == pytest.approx(((x - y) ** 2).mean(), rel=1e-5)
    assert found.mean_profile_cosine == pytest.approx((1 - (x * y).sum(1) / by_norm).mean(), rel=1e-5)
    assert found.median_norm == pytest.approx(np.median(norms), rel=1e-5)
    assert (found.alpha, found.beta, found.gamma, found.norm_ratio) == (0.3, 2.0, 3.0, 1.0)


@pytest.mark.parametrize("center", CENTERS)
def test_the_norm_ratio_asked_of_halves_is_their_ceiling(blocks: list[sparse.csr_matrix], center: str) -> None:
    mean = torch.from_numpy(sparse.vstack(blocks).toarray().mean(0))
    first, second = (centre(block.toarray().astype(np.float64), mean.numpy(), center) for block in blocks)
    cosines = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    np.testing.assert_allclose(cosine_of_halves(*blocks, mean.double().numpy(), center), cosines, rtol=1e-4, atol=1e-5)
    found = loss_constants(blocks, mean, center, LossSettings())
    assert found.norm_ratio == pytest.approx(np.sqrt(cosines.mean()), rel=1e-4)
    assert loss_constants(blocks, mean, center, LossSettings(norm_ratio=0.7)).norm_ratio == 0.7


def test_constants_of_profiles_without_any_value_leave_the_terms_as_they_are() -> None:
    found = loss_constants([sparse.csr_matrix((3, 5), dtype=np.float32)], torch.zeros(5), "none", LossSettings())
    assert (found.mean_profile_mse, found.mean_profile_cosine, found.median_norm) == (1.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def estimator(known: tuple[Expression, Preprocess]) -> Estimator:
    return random_estimator(known[0].rows.shape[1])


def halves_of(known: tuple[Expression, Preprocess]) -> tuple[Expression, Expression]:
    return draw_halves(Splitter(known[0].rows), known[0].totals, np.random.default_rng(1))


@pytest.mark.parametrize("share", range(len(SHARES)))
def test_thinned_inputs_are_posterior_scores_at_the_depth_of_their_share(
    share: int, known: tuple[Expression, Preprocess], estimator: Estimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = np.eye(len(SHARES))[share]
    monkeypatch.setattr(batches, "WEIGHTS", tuple(weights))
    unit, halves = torch.tensor([0.5, 1.0, 3.0]), halves_of(known)
    found = ThinnedInputs(estimator, known[1], unit)(halves, np.random.default_rng(7))
    rng = np.random.default_rng(7)
    rng.choice(len(SHARES), N, p=weights)
    expected = []
    for half, own in zip(halves, with_own_totals(halves), strict=True):
        thinned = thin_to(own, SHARES[share] / 0.5, rng) if share else half
        z = known[1].apply(thinned).toarray().astype(float)
        expected.append(DenseEstimator(estimator, DELTAS[share + 1]).scores(z, thinned.totals))
    np.testing.assert_allclose(found, np.concatenate(expected) / unit.numpy(), rtol=1e-4, atol=1e-4)


class Seen:
    """In place of an estimator: scores are the depth and the molecules of a profile."""

    def at(self, delta: float) -> "Seen":
        self.delta = delta
        return self

    def scores(self, matrix: sparse.csr_matrix, totals: np.ndarray) -> torch.Tensor:
        return torch.tensor(np.column_stack([np.full(len(totals), self.delta), totals]), dtype=torch.float32)


def test_both_halves_of_a_profile_have_one_random_share(known: tuple[Expression, Preprocess]) -> None:
    halves = halves_of(known)
    many = tuple(half.take(np.tile(np.arange(N), 100)) for half in halves)
    inputs = ThinnedInputs(Seen(), known[1], torch.ones(2))  # type: ignore[arg-type]
    found = inputs(many, np.random.default_rng(0)).numpy()  # type: ignore[arg-type]
    delta, totals = found[:, 0], found[:, 1]
    np.testing.assert_array_equal(delta[: 100 * N], delta[100 * N :])
    expected = np.array(WEIGHTS) / sum(WEIGHTS)
    counted = [np.isclose(delta, known_delta).mean() for known_delta in DELTAS[1:]]
    np.testing.assert_allclose(counted, expected, atol=0.02)
    before = np.concatenate([half.totals for half in many])
    for share, known_delta in zip(SHARES, DELTAS[1:], strict=True):
        some = np.isclose(delta, known_delta)
        assert totals[some].sum() == pytest.approx(before[some].sum() * share / 0.5, rel=0.03)


def test_a_single_profile_can_be_thinned(known: tuple[Expression, Preprocess], estimator: Estimator) -> None:
    one = tuple(half.take(np.array([3])) for half in halves_of(known))
    found = ThinnedInputs(estimator, known[1], torch.ones(3))(one, np.random.default_rng(0))  # type: ignore[arg-type]
    assert found.shape == (2, 3)
    assert bool(found.isfinite().all())


def test_thinning_inputs_leaves_the_halves_as_they_are(
    known: tuple[Expression, Preprocess], estimator: Estimator
) -> None:
    thinned, splitter = ThinnedInputs(estimator, known[1], torch.ones(3)), Splitter(known[0].matrix)
    plain, nothing = draw_pairs(*known, splitter, (0, 0, 0), None)
    halves, inputs = draw_pairs(*known, splitter, (0, 0, 0), thinned)
    assert nothing is None
    assert inputs is not None
    for one, other in zip(plain, halves, strict=True):
        np.testing.assert_array_equal(one.toarray(), other.toarray())
    again = draw_pairs(*known, splitter, (0, 0, 0), thinned)[1]
    other_seed = draw_pairs(*known, splitter, (0, 0, 1), thinned)[1]
    assert again is not None
    assert other_seed is not None
    assert torch.equal(inputs, again)
    assert not torch.equal(inputs, other_seed)
    assert draw_pairs(*known, None, (0, 0, 0), thinned)[1] is None


def whitened(estimator: Estimator) -> Network:
    torch.manual_seed(0)
    return whitened_network(estimator, 3, 6, 0.0, is_frozen=True)


def test_given_scores_are_the_inputs_and_the_targets_stay(
    blocks: list[sparse.csr_matrix], estimator: Estimator
) -> None:
    network, given = whitened(estimator), torch.randn(2 * N, 3)
    index = torch.tensor([0, 5, N + 2])
    own, thinned = Pairs(network, blocks).take(index), Pairs(network, blocks, inputs=given).take(index)
    assert torch.equal(thinned.inputs, given[index])
    for one, other in zip(own.target.tensors(), thinned.target.tensors(), strict=True):
        assert torch.equal(one, other)
    # without them: posterior scores of the halves
    z = np.concatenate([block.toarray().astype(float) for block in blocks])[index.numpy()]
    basis = estimator.whitening
    raw = ((z - basis.mean.numpy()) / basis.deviation.numpy()) @ basis.components.numpy()
    expected = raw * estimator.posterior.factors[1].numpy() / estimator.latent_unit.numpy()
    np.testing.assert_allclose(own.inputs, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("chunk", [7, 2048])
def test_what_is_kept_of_blocks_gives_the_same_pairs(
    blocks: list[sparse.csr_matrix], estimator: Estimator, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for network in (whitened(estimator), make_network(blocks).float()):
        expected = Pairs(network, blocks)
        monkeypatch.setattr(batches, "CHUNK", chunk)
        kept = project_blocks(network, blocks)
        found = Pairs(network, kept)
        assert (kept.n_halves, len(found), found.n_profiles) == (2, 2 * N, N)
        index = torch.tensor([1, N - 1, N, 2 * N - 1])
        one, other = expected.take(index), found.take(index)
        torch.testing.assert_close(one.inputs, other.inputs)
        for tensors in zip(one.target.tensors(), other.target.tensors(), strict=True):
            torch.testing.assert_close(*tensors, rtol=1e-5, atol=1e-4)


def test_every_count_split_has_thinned_inputs_of_its_own(
    known: tuple[Expression, Preprocess], blocks: list[sparse.csr_matrix], estimator: Estimator
) -> None:
    thinned = ThinnedInputs(estimator, known[1], torch.ones(3))
    source = PairSource(whitened(estimator), *known, CountSplits(True, 2, 0), blocks, thinned=thinned)
    index = torch.arange(2 * N)
    first, second, again = (source.epoch(epoch).take(index) for epoch in (1, 2, 3))
    expected = draw_pairs(*known, Splitter(known[0].rows), (0, batches.TRAINING_STREAM, 0), thinned)[1]
    assert torch.equal(first.inputs, expected)
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.allclose(first.inputs, second.inputs)
