"""Profiles of a fit among others: by their values and names."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import simulate
from reference import counts_matrix, profiles_of

from geneae import read_profiles
from geneae.data.identity import FitProfiles, n_copies, profile_keys, recognise

GENES = pd.Index([f"g{i}" for i in range(50)])


def test_keys_are_those_of_the_values_whatever_the_order_of_genes_and_further_genes() -> None:
    counts = counts_matrix()
    expected = profile_keys(profiles_of(counts), GENES)
    assert len(set(expected)) == len(counts)
    order = np.random.default_rng(0).permutation(50)
    shuffled = np.hstack([np.full((30, 2), 3.0), counts[:, order]])
    names = ["a", "b", *(f"g{i}" for i in order)]
    np.testing.assert_array_equal(profile_keys(profiles_of(shuffled, genes=names), GENES), expected)
    np.testing.assert_array_equal(expected & np.uint64(2**32 - 1), (counts > 0).sum(1))


def test_one_molecule_more_is_another_key() -> None:
    counts = counts_matrix()
    expected = profile_keys(profiles_of(counts), GENES)
    for column in range(50):
        other = counts.copy()
        other[7, column] += 1
        found = profile_keys(profiles_of(other), GENES)
        assert np.flatnonzero(found != expected).tolist() == [7]


def test_streamed_profiles_have_the_same_keys(tmp_path: Path) -> None:
    adata = simulate(60, 40)
    adata.write_h5ad(tmp_path / "a.h5ad")
    streamed = read_profiles(tmp_path / "a.h5ad", stream="yes")
    for genes in (streamed.genes, streamed.genes[[5, 3, 20]]):
        np.testing.assert_array_equal(profile_keys(streamed, genes), profile_keys(read_profiles(adata), genes))


def known(n: int = 30) -> tuple[FitProfiles, np.ndarray]:
    keys = profile_keys(profiles_of(counts_matrix()), GENES)[:n]
    split = np.array(["train", "validation", "test"] * 10, dtype=object)[:n]
    return FitProfiles(pd.Index([f"c{i}" for i in range(n)]), split, keys), keys


def test_profiles_are_known_by_name_and_value_in_any_order() -> None:
    fit, keys = known()
    order = np.random.default_rng(1).permutation(30)[:20]
    found = recognise(fit, fit.names[order], keys[order], True)
    assert list(found.split) == list(fit.split[order])
    assert (found.n_other, found.n_renamed, found.n_by_name) == (0, 0, 0)
    assert found.sentences(("train", "validation", "test"))[0].startswith("Of the fit are ")


def test_equal_names_with_other_values_are_new() -> None:
    fit, keys = known()
    others = keys.copy()
    others[:10] += np.uint64(2**40)
    found = recognise(fit, fit.names, others, True)
    assert list(found.split[:10]) == ["new"] * 10
    assert list(found.split[10:]) == list(fit.split[10:])
    assert found.sentences(("train", "validation", "test")) == [
        "Of the fit are 6 train, 7 validation and 7 test profiles; 10 profiles are new.",
        "10 profiles have names of the fit and other values: they count as new.",
    ]
    nothing = recognise(fit, fit.names, others[::-1].copy() + np.uint64(2**41), True)
    assert set(nothing.split) == {"all"}
    assert nothing.sentences(("train",))[0] == "None of these profiles is known to be of the fit."


def test_equal_values_under_other_names_are_known_unless_they_are_few() -> None:
    fit, keys = known()
    names = pd.Index([f"c{i}-1" for i in range(30)])
    found = recognise(fit, names, keys, True)
    assert list(found.split) == list(fit.split)
    assert found.n_renamed == 30
    assert "30 profiles have values of the fit under other names" in found.sentences(("train",))[1]
    few = (keys & ~np.uint64(2**32 - 1)) | np.uint64(9)
    alone = recognise(FitProfiles(fit.names, fit.split, few), names, few, True)
    assert set(alone.split) == {"all"}


def test_of_copies_in_several_splits_the_one_in_training_counts() -> None:
    fit, keys = known(3)
    copies = np.full(3, keys[0])
    fit = FitProfiles(fit.names, np.array(["test", "validation", "train"], dtype=object), copies)
    assert list(recognise(fit, pd.Index(["other"]), copies[:1], True).split) == ["train"]


@pytest.mark.parametrize("kind", ["genes are missing", "no keys are recorded", "no keys are given"])
def test_where_values_cannot_be_compared_names_decide(kind: str) -> None:
    fit, keys = known()
    others = keys + np.uint64(2**40)
    if kind == "no keys are recorded":
        fit = FitProfiles(fit.names, fit.split, None)
    found = recognise(fit, fit.names, None if kind == "no keys are given" else others, kind != "genes are missing")
    assert list(found.split) == list(fit.split)
    assert found.n_by_name == 30
    assert found.sentences(("train",))[-1].startswith("30 profiles are taken for those of the fit by their names alone")


def test_copies_are_counted_across_splits() -> None:
    _, keys = known()
    keys = keys.copy()
    keys[[5, 6]] = keys[0]  # two copies, both judged
    keys[9] = keys[8]  # within a split
    is_training = np.arange(30) < 5
    assert n_copies(keys, is_training, ~is_training) == 2
    keys[[0, 5, 6]] = 3  # equal, with three values
    assert n_copies(keys, is_training, ~is_training) == 0
