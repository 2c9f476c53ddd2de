"""Entry head: what it sees, what it learns, and what bounds it."""

import numpy as np
import pytest
import torch
from torch import nn

from geneae.models import entry_head
from geneae.models.entry_head import (
    MOST_CORRECTION,
    N_FEATURES,
    EntryHead,
    EntrySample,
    entry_features,
    fit_head,
    gene_features,
    head_steps,
    sample_size,
)


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def last(head: EntryHead) -> nn.Linear:
    layer = head.layers[-1]
    assert isinstance(layer, nn.Linear)
    return layer


def test_a_new_head_corrects_nothing_and_knows_it() -> None:
    head = EntryHead()
    assert head.is_zero()
    assert torch.equal(head(draws(9, N_FEATURES)), torch.zeros(9))
    for parameter in last(head).parameters():
        with torch.no_grad():
            parameter[..., 0] = 0.5
            assert not head.is_zero()
            assert head(draws(9, N_FEATURES)).any()
            parameter.zero_()


def test_a_head_starts_from_its_seed_and_leaves_other_random_numbers_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = EntryHead(3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    same, other = EntryHead(3).state_dict(), EntryHead(4).state_dict()
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    for layer in ("layers.0", "layers.2"):
        assert not torch.equal(one[f"{layer}.weight"], other[f"{layer}.weight"])


def test_corrections_end_at_four_deviations() -> None:
    head = EntryHead()
    for bias, expected in ((100.0, MOST_CORRECTION), (-100.0, -MOST_CORRECTION), (1.5, 1.5)):
        nn.init.constant_(last(head).bias, bias)
        torch.testing.assert_close(head(draws(3, N_FEATURES)), torch.full((3,), expected))


def test_genes_are_seen_by_their_standardised_logarithms() -> None:
    mean, deviation = np.array([0.0, 0.1, 2.0, 3.0]), np.array([0.5, 0.2, 1.0, 4.0])
    found = gene_features(torch.from_numpy(mean), torch.from_numpy(deviation))
    for values, logs in ((found.level, np.log(mean + 1e-6)), (found.noise, np.log(deviation))):
        np.testing.assert_allclose(values, (logs - logs.mean()) / logs.std(), atol=1e-9)


def test_genes_that_are_all_the_same_are_seen_as_zero() -> None:
    found = gene_features(torch.full((3,), 0.7), torch.full((3,), 2.0))
    torch.testing.assert_close(found.level, torch.zeros(3), atol=0.2, rtol=0)
    assert bool(gene_features(torch.ones(1), torch.ones(1)).noise.isfinite().all())


def test_features_are_scaled_and_limited() -> None:
    p, differences = torch.tensor([-20.0, 1.0, 20.0]), torch.tensor([-20.0, 1.0, 20.0])
    values, expected = torch.tensor([0.5, 2.0, 6.0]), torch.tensor([-5.0, 2.0, 20.0])
    of_genes = (torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.7, 0.8, 0.9]))
    of_profiles = (torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-1.0, 0.0, 1.0]))
    found = entry_features(p, differences, values, expected, of_genes, 1.3, of_profiles)
    wanted = [
        [-8, -2.5, 0.15, -0.3, 1.3, 0.1, 0.4, 0.7, 0.3 * -0.5, -1],
        [1, 0.3, 0.6, 0.6, 1.3, 0.2, 0.5, 0.8, 0.0, 0],
        [8, 2.5, 1.8, 2.7, 1.3, 0.3, 0.6, 0.9, 0.9, 1],
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert found.shape[1] == N_FEATURES


def sample(target: float = 0.0, n: int = 400, share: float = 1.0, seed: int = 0) -> EntrySample:
    """Residuals that are a bent function of two features, plus a constant."""
    features = draws(n, N_FEATURES, seed=seed)
    return EntrySample(features, features[:, 0].tanh() * features[:, 1] + target, torch.ones(n), share)


def error(head: EntryHead, some: EntrySample) -> float:
    with torch.no_grad():
        return float((head(some.features) - some.targets).square().mean())


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_head, "STEPS", 120)
    monkeypatch.setattr(entry_head, "WARM_UP", 10)
    monkeypatch.setattr(entry_head, "BATCH", 200)


@pytest.mark.usefixtures("few_steps")
def test_a_head_learns_residuals_that_it_has_not_seen() -> None:
    head, other = fit_head([sample()], 0), sample(seed=1)
    assert error(head, other) < 0.2 * error(EntryHead(), other)
    assert not head.training


@pytest.mark.usefixtures("few_steps")
def test_the_same_seed_gives_the_same_head_and_leaves_other_random_numbers_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = fit_head([sample()], 0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    same, other = fit_head([sample()], 0), fit_head([sample()], 1)
    features = draws(9, N_FEATURES)
    assert torch.equal(one(features), same(features))
    assert not torch.equal(one(features), other(features))


@pytest.mark.usefixtures("few_steps")
def test_weights_and_shares_say_what_counts() -> None:
    up, down = sample(1.0), sample(-1.0)
    heavy = EntrySample(up.features, up.targets, torch.full((400,), 9.0), 1.0)
    features = draws(200, N_FEATURES, seed=5)
    for samples in ([heavy, down], [EntrySample(up.features, up.targets, up.weights, 9.0), down]):
        mean = float(fit_head(samples, 0)(features).detach().mean())
        assert mean == pytest.approx(0.8, abs=0.25)  # (9 - 1) / (9 + 1)


@pytest.mark.parametrize(
    ("n_entries", "expected"), [(0, 100), (50_000, 100), (170_667, 250), (409_600, 600), (2**20, 1000)]
)
def test_the_first_fit_sees_each_entry_three_times_within_limits(n_entries: int, expected: int) -> None:
    assert head_steps(n_entries) == expected


def test_without_entries_a_head_stays_zero() -> None:
    empty = EntrySample(torch.zeros(0, N_FEATURES), torch.zeros(0), torch.zeros(0), 1.0)
    for samples in ([], [empty]):
        head = fit_head(samples, 0)
        assert torch.equal(head(draws(5, N_FEATURES)), torch.zeros(5))


@pytest.mark.parametrize(
    ("n_entries", "share", "most", "expected"), [(100, 0.5, 1000, 100), (900, 0.5, 1000, 500), (9, 0.1, 11, 2)]
)
def test_items_keep_their_share_of_the_entries(n_entries: int, share: float, most: int, expected: int) -> None:
    assert sample_size(n_entries, share, most) == expected
