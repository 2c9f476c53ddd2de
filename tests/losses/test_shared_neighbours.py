"""Neighbours in common: sets of neighbours by NumPy, and latents whose answer is known."""

import numpy as np
import pytest
import torch

from geneae.losses import shared_neighbours as file
from geneae.losses.shared_neighbours import nearest_others, shared_neighbours


def slow(first: np.ndarray, second: np.ndarray, number: int) -> np.ndarray:
    """Mean over both distances of the share of neighbours in common, profile by profile."""
    shares = []
    for measure in ("euclidean", "cosine"):
        for i in range(len(first)):
            sets = []
            for latent in (first, second):
                if measure == "euclidean":
                    distances = np.sqrt(((latent - latent[i]) ** 2).sum(1))
                else:
                    distances = 1 - latent @ latent[i] / np.linalg.norm(latent, axis=1) / np.linalg.norm(latent[i])
                order = [j for j in np.argsort(distances) if j != i]
                sets.append(set(order[:number]))
            shares.append(len(sets[0] & sets[1]) / number)
    return np.array(shares).reshape(2, -1).mean(0)


def latents(n_profiles: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    first = torch.randn(n_profiles, 5, generator=torch.Generator().manual_seed(0))
    return first, first + 0.7 * torch.randn(n_profiles, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("number", [1, 7, 20])
def test_shares_are_those_of_sets(number: int) -> None:
    first, second = latents()
    found = shared_neighbours(first, second, number)
    np.testing.assert_allclose(found, slow(first.double().numpy(), second.double().numpy(), number), atol=1e-12)
    assert 0 < found.mean() < 1


def test_scale_does_not_count_and_neither_does_which_latent_is_first() -> None:
    first, second = latents()
    expected = shared_neighbours(first, second, 7)
    assert torch.equal(shared_neighbours(second, first, 7), expected)
    assert torch.equal(shared_neighbours(3 * first, 0.1 * second, 7), expected)
    assert torch.equal(shared_neighbours(first, 2 * first, 7), torch.ones(40, dtype=torch.float64))


def test_latents_that_know_nothing_share_neighbours_by_chance() -> None:
    first, second = (torch.randn(600, 4, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4))
    assert float(shared_neighbours(first, second, 30).mean()) == pytest.approx(30 / 599, abs=0.005)


@pytest.mark.parametrize(("n_profiles", "expected"), [(1, [1.0]), (2, [1.0, 1.0])])
def test_few_profiles_have_all_neighbours_in_common(n_profiles: int, expected: list[float]) -> None:
    first, second = latents(n_profiles)
    assert shared_neighbours(first, second, 15).tolist() == expected


def test_of_few_profiles_half_are_sought() -> None:
    first, second = latents(9)
    assert torch.equal(shared_neighbours(first, second, 15), shared_neighbours(first, second, 4))


def test_nearest_others_are_those_of_numpy_whatever_is_computed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    latent = latents()[0]
    distances = np.linalg.norm(latent.numpy()[:, None] - latent.numpy()[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    expected = np.argsort(distances, axis=1)[:, :6]
    np.testing.assert_array_equal(nearest_others(latent, 6), expected)
    monkeypatch.setattr(file, "CHUNK_DISTANCES", 100)
    np.testing.assert_array_equal(nearest_others(latent, 6), expected)
    assert nearest_others(latent[:3], 6).shape == (3, 2)


def test_a_twin_is_a_neighbour_and_a_profile_itself_is_not() -> None:
    latent = torch.tensor([[0.0, 1.0], [0.0, 1.0], [5.0, 5.0]])
    assert nearest_others(latent, 1).tolist()[:2] == [[1], [0]]
