"""Halves of profiles: nothing is lost, nothing is shared, and the same seed gives the same halves."""

from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest
from conftest import N_PROFILES, simulate

from geneae import read_profiles
from geneae.data.halves import HALF_COLUMN, PROFILE_COLUMN, SPLIT_COLUMN, divided, draw
from geneae.data.splits import split_profiles
from geneae.settings.errors import InputError
from geneae.settings.halves import HalvesSettings


def test_both_halves_add_up_to_the_profiles(counts: anndata.AnnData) -> None:
    for fraction in (0.5, 0.8):
        halves = draw(read_profiles(counts), HalvesSettings(fraction=fraction))
        both = halves.given.matrix + halves.held_out.matrix
        assert abs(both - counts.X).max() == 0
        assert halves.whole().fingerprint == read_profiles(counts).fingerprint == halves.fingerprint
        n_molecules = float(counts.X.sum())
        deviation = float(np.sqrt(fraction * (1 - fraction) / n_molecules))
        assert halves.given.totals.sum() / n_molecules == pytest.approx(fraction, abs=4 * deviation)


def test_halves_of_poisson_counts_are_independent_given_the_rates() -> None:
    rates = np.linspace(1, 6, 20)
    counts = np.random.default_rng(0).poisson(rates, (4000, 20)).astype(np.float32)
    for fraction in (0.5, 0.7):
        halves = draw(read_profiles(counts), HalvesSettings(fraction=fraction))
        given, held_out = (half.matrix.toarray() for half in (halves.given, halves.held_out))
        np.testing.assert_allclose(given.mean(0), fraction * rates, rtol=0.06)
        correlation = [np.corrcoef(given[:, gene], held_out[:, gene])[0, 1] for gene in range(20)]
        assert np.abs(correlation).max() < 4 / np.sqrt(4000)


def test_seed_and_repeat_decide_and_not_the_place_of_the_profiles(counts: anndata.AnnData, counts_path: Path) -> None:
    settings = HalvesSettings(seed=3)
    first = draw(read_profiles(counts), settings)
    assert abs(first.given.matrix - draw(read_profiles(counts), settings).given.matrix).max() == 0
    for other in (draw(read_profiles(counts), settings, repeat=2), draw(read_profiles(counts), HalvesSettings())):
        assert abs(first.given.matrix - other.given.matrix).max() > 0
    assert list(first.split) == list(draw(read_profiles(counts), settings, repeat=2).split)
    streamed = read_profiles(counts_path, stream="yes")
    ((_, given, _),) = divided(streamed, settings)
    assert abs(given - first.given.matrix).max() == 0


def test_the_split_is_that_of_a_fit(counts: anndata.AnnData) -> None:
    settings = HalvesSettings(validation=0.2, test=0.3, group="donor", seed=4)
    found = draw(read_profiles(counts), settings).split
    assert list(found) == list(split_profiles(counts.obs, 0.2, 0.3, "donor", None, 4))


def test_others_see_the_given_half_and_both_of_training_profiles(counts: anndata.AnnData) -> None:
    halves = draw(read_profiles(counts), HalvesSettings())
    seen, train = halves.input, halves.training
    assert abs(seen.X - halves.given.matrix).max() == 0
    assert list(seen.obs[SPLIT_COLUMN]) == list(halves.split)
    assert seen.uns["geneae"] == {
        "half": "given",
        "fraction": 0.5,
        "seed": 0,
        "repeat": 1,
        "fingerprint": halves.fingerprint,
    }
    assert train.n_obs == 2 * (halves.split == "train").sum() < 2 * N_PROFILES
    assert train.obs_names.is_unique
    for name in ("given", "held_out"):
        half = train[train.obs[HALF_COLUMN] == name]
        rows = counts.obs_names.get_indexer(half.obs[PROFILE_COLUMN])
        assert (halves.split.iloc[rows] == "train").all()
        assert abs(half.X - {"given": halves.given, "held_out": halves.held_out}[name].matrix[rows]).max() == 0


def test_a_profile_without_molecules_is_excluded() -> None:
    adata = simulate(40, 30)
    dense = adata.X.toarray()
    dense[7] = 0
    adata.X = dense
    assert (draw(read_profiles(adata), HalvesSettings()).split == "excluded").to_numpy().nonzero()[0].tolist() == [7]


def test_values_that_are_no_counts_are_refused(counts: anndata.AnnData) -> None:
    counts.X = counts.X * 0.5
    with pytest.raises(InputError, match=r"needs counts; AnnData in memory, X holds normalised values\. Name the"):
        draw(read_profiles(counts), HalvesSettings())


def test_impossible_fractions_are_refused() -> None:
    with pytest.raises(InputError, match=r"fraction must be .*found 1"):
        HalvesSettings(fraction=1.0)
    assert replace(HalvesSettings(), fraction=0.95).fraction == 0.95
