"""What is left of profiles when there is nothing to learn, and that training learns nothing there."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import QUICK, simulate
from reference import counts_matrix, csr

from geneae.data.permuted import GENE_PERMUTED, NULLS, PAIR_PERMUTED, partners, permute_genes
from geneae.data.preprocess import Expression
from geneae.data.reading import read_profiles
from geneae.evaluation.records import HELD_OUT, paired_difference, value
from geneae.fitting.fit import fit
from geneae.settings.errors import InputError
from geneae.settings.settings import Settings
from geneae.training.batches import mismatch

SETTINGS = Settings(**QUICK | {"test": 0.3, "n_latent": 3})


def expression(n_profiles: int = 30, n_genes: int = 50) -> Expression:
    counts = counts_matrix(n_profiles, n_genes)
    return Expression(csr(counts), counts.sum(1) + 7)


def test_every_profile_keeps_its_values_and_none_its_genes() -> None:
    before = expression()
    after = permute_genes(before, seed=0)
    one, two = before.matrix.toarray(), after.matrix.toarray()
    np.testing.assert_array_equal(np.sort(two, axis=1), np.sort(one, axis=1))
    np.testing.assert_array_equal(after.totals, before.totals)
    assert after.matrix.has_sorted_indices
    assert (one != two).any(axis=1).all()


def test_genes_are_permuted_in_each_profile_anew_and_all_places_are_as_likely() -> None:
    same = np.tile(np.arange(1.0, 6.0), (20_000, 1))
    permuted = permute_genes(Expression(csr(np.hstack([same, np.zeros_like(same)])), same.sum(1)), seed=1)
    dense = permuted.matrix.toarray()
    np.testing.assert_allclose((dense == 3).mean(0), 0.1, atol=0.01)
    centred = dense - dense.mean(0)
    correlation = np.corrcoef(centred.T)[~np.eye(10, dtype=bool)]
    np.testing.assert_allclose(correlation, -1 / 9, atol=0.03)  # as of any permutation: the sum of a profile is fixed


def test_a_profile_without_values_stays_empty() -> None:
    counts = np.zeros((3, 4))
    counts[1, 2] = 5
    permuted = permute_genes(Expression(csr(counts), counts.sum(1)), seed=0).matrix
    assert np.diff(permuted.indptr).tolist() == [0, 1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_partners_are_other_profiles_of_the_same_split(seed: int) -> None:
    split = np.array(["train"] * 9 + ["test"] * 2 + ["validation"] + ["train"] * 4)
    found = partners(split, seed)
    assert sorted(found) == list(range(len(split)))
    assert (split[found] == split).all()
    assert np.flatnonzero(found == np.arange(len(split))).tolist() == [11]  # the only validation profile
    assert (found != partners(split, seed + 1)).any()


def test_blocks_are_paired_with_partners_and_stay_as_they_are_without() -> None:
    one, two = csr(counts_matrix(4, 5)), csr(counts_matrix(4, 5, seed=1))
    partner = np.array([1, 2, 3, 0])
    for blocks, target in (([one], one), ([one, two], two)):
        first, second = mismatch(blocks, partner)
        assert (first != one).nnz == 0
        np.testing.assert_array_equal(second.toarray(), target.toarray()[partner])
        assert mismatch(blocks, None) is blocks


def test_an_unknown_null_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="unknown null 'gene-permuted'; did you mean 'gene_permuted'"):
        fit(read_profiles(simulate(60)), SETTINGS, null="gene-permuted")


@pytest.mark.parametrize("null", NULLS)
@pytest.mark.parametrize("kind", [{}, {"target": "self"}, {"basis": "free"}, {"scale": True, "n_top_genes": 60}])
def test_a_null_has_the_split_and_the_genes_of_the_fit_and_learns_nothing(null: str, kind: dict[str, object]) -> None:
    """From the latent, that is: an own count says something about its gene where genes are permuted, too."""
    profiles, settings = read_profiles(simulate(300, depth=1500)), replace(SETTINGS, **kind)  # type: ignore[arg-type]
    real, without = fit(profiles, settings), fit(profiles, settings, null=null)
    assert without.split.equals(real.split)
    assert without.model.preprocess.genes.equals(real.model.preprocess.genes)
    name = "model" if real.model.estimator is None else "model_latent_only"
    gains = [
        paired_difference(f.evaluation.profiles, name, "mean_profile", "test", HELD_OUT)[0] for f in (real, without)
    ]
    assert gains[0] > 0.01
    assert gains[1] < 0.1 * gains[0]


def test_permuting_pairs_leaves_the_mean_profile_and_the_ceiling_as_they_were() -> None:
    profiles = read_profiles(simulate(300, depth=1500))
    real, without = fit(profiles, SETTINGS), fit(profiles, SETTINGS, null=PAIR_PERMUTED)
    for model, metric in (("mean_profile", HELD_OUT), ("mean_profile", "mse"), ("model", "ceiling")):
        numbers = [value(f.evaluation.metrics, model, "test", metric) for f in (real, without)]
        assert numbers[1] == pytest.approx(numbers[0], rel=1e-6)  # products of halves are in float32


def test_permuting_genes_leaves_the_ceiling_and_takes_the_mean_profile() -> None:
    profiles = read_profiles(simulate(300, depth=1500))
    real, without = fit(profiles, SETTINGS), fit(profiles, SETTINGS, null=GENE_PERMUTED)
    ceilings = [value(f.evaluation.metrics, "model", "test", "ceiling") for f in (real, without)]
    assert ceilings[1] == pytest.approx(ceilings[0], abs=0.002)
    means = [value(f.evaluation.metrics, "mean_profile", "test", HELD_OUT) for f in (real, without)]
    assert means[1] < means[0] - 0.02


def test_the_same_seed_gives_the_same_null() -> None:
    profiles = read_profiles(simulate(100))
    for null in NULLS:
        one, two = (fit(profiles, SETTINGS, null=null).model.network.state_dict() for _ in range(2))
        assert all(torch.equal(one[name], two[name]) for name in one)
