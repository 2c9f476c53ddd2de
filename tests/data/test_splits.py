from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geneae.data.splits import SPLITS, split_profiles
from geneae.settings.errors import InputError


def table(n: int, **columns: object) -> pd.DataFrame:
    return pd.DataFrame(columns, index=[f"p{i}" for i in range(n)])


def sizes(split: pd.Series) -> list[int]:
    return [int((split == name).sum()) for name in SPLITS]


@pytest.mark.parametrize(
    ("n", "validation", "test", "expected"),
    [
        (100, 0.1, 0.1, [80, 10, 10]),
        (10, 0.15, 0.15, [6, 2, 2]),  # 1.5 is rounded up
        (50, 0.29, 0.1, [30, 15, 5]),  # 14.499999999999998 in binary
        (10, 0.14, 0.1, [8, 1, 1]),
        (25, 0.1, 0.1, [19, 3, 3]),
        (3, 0.1, 0.1, [1, 1, 1]),  # never empty
        (2, 0.1, 0.0, [1, 1, 0]),
        (50, 0.3, 0.0, [35, 15, 0]),
    ],
)
def test_sizes_are_fractions_rounded_half_up_and_at_least_one(
    n: int, validation: float, test: float, expected: list[int]
) -> None:
    assert sizes(split_profiles(table(n), validation, test)) == expected


@given(st.integers(3, 300), st.floats(0.01, 0.3), st.floats(0.01, 0.3), st.integers(0, 2**32))
@settings(deadline=None)
def test_every_profile_is_in_one_split_and_the_seed_decides(n: int, validation: float, test: float, seed: int) -> None:
    split = split_profiles(table(n), validation, test, seed=seed)
    assert split.name == "split"
    assert list(split.index) == [f"p{i}" for i in range(n)]
    assert sum(sizes(split)) == n
    for fraction, size in zip((validation, test), sizes(split)[1:], strict=True):
        assert size == 1 or abs(size - fraction * n) <= 0.5 + 1e-6
    pd.testing.assert_series_equal(split, split_profiles(table(n), validation, test, seed=seed))


def test_another_seed_gives_another_split() -> None:
    assert not split_profiles(table(100), seed=0).equals(split_profiles(table(100), seed=1))


def test_every_profile_gets_its_turn_in_validation() -> None:
    seen = sum((split_profiles(table(20), seed=seed) == "validation").astype(int) for seed in range(300))
    assert np.all(np.abs(seen - 30) < 25)  # binomial with mean 30 and deviation 5.2


@given(st.lists(st.integers(0, 8), min_size=3, max_size=80), st.integers(0, 1000), st.booleans())
@settings(max_examples=50, deadline=None)
def test_groups_never_straddle(donors: list[int], seed: int, is_stratified: bool) -> None:
    obs = table(len(donors), donor=donors, state=[i % 2 for i in range(len(donors))])
    if obs["donor"].nunique() < 3:
        with pytest.raises(InputError, match="needs at least 3 different values of 'donor'"):
            split_profiles(obs, group="donor", seed=seed)
        return
    split = split_profiles(obs, group="donor", stratify="state" if is_stratified else None, seed=seed)
    assert split.groupby(obs["donor"]).nunique().max() == 1
    assert min(sizes(split)) >= 1


def test_among_groups_the_largest_is_kept_in_training() -> None:
    donors = np.repeat([f"d{i}" for i in range(10)], [500] + [50] * 9)
    for seed in range(10):
        assert (split_profiles(table(950, donor=donors), group="donor", seed=seed)[donors == "d0"] == "train").all()


def test_a_group_per_profile_is_a_split_by_profile() -> None:
    obs = table(60, barcode=[f"b{i}" for i in range(60)])
    assert sizes(split_profiles(obs, group="barcode")) == [48, 6, 6]


def test_group_and_stratify_together_keep_both() -> None:
    donors = np.repeat(np.arange(20), 10)
    obs = table(200, donor=donors, disease=np.where(donors < 10, "yes", "no"))
    for seed in range(5):
        split = split_profiles(obs, group="donor", stratify="disease", seed=seed)
        assert pd.crosstab(split, obs["disease"]).loc[list(SPLITS)].to_numpy().tolist() == [
            [80, 80],
            [10, 10],
            [10, 10],
        ]


@given(st.lists(st.integers(3, 60), min_size=1, max_size=6), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_strata_keep_their_proportions(counts: list[int], seed: int) -> None:
    n = sum(counts)
    obs = table(n, kind=np.repeat(np.arange(len(counts)), counts))
    split = split_profiles(obs, 0.2, 0.1, stratify="kind", seed=seed)
    assert sizes(split) == sizes(split_profiles(table(n), 0.2, 0.1))
    found = pd.crosstab(obs["kind"], split)
    for name, total in zip(SPLITS, sizes(split), strict=True):
        assert np.all(np.abs(found[name] - np.array(counts) * total / n) < 2)


def test_a_stratum_smaller_than_the_number_of_splits_stays_in_training() -> None:
    kinds = ["rare"] * 2 + ["common"] * 50
    for seed in range(10):
        split = split_profiles(table(52, kind=kinds), stratify="kind", seed=seed)
        assert list(split.iloc[:2]) == ["train", "train"]
        assert sizes(split) == [42, 5, 5]


@pytest.mark.parametrize("keys", [{"group": "key"}, {"stratify": "key"}, {"group": "key", "stratify": "key"}])
def test_the_type_of_the_key_does_not_matter(keys: Any) -> None:
    values = np.random.default_rng(0).integers(0, 12, 200)
    forms = [values, values.astype(float), values.astype(str), pd.Categorical(values.astype(str)), values * 7 - 3]
    splits = [split_profiles(table(200, key=form), seed=3, **keys) for form in forms]
    for split in splits[1:]:
        pd.testing.assert_series_equal(split, splits[0])


def test_excluded_profiles_are_marked_and_do_not_count() -> None:
    mask = np.arange(110) < 10
    split = split_profiles(table(110), exclude=mask)
    assert list(split[mask].unique()) == ["excluded"]
    assert sizes(split) == [80, 10, 10]
    assert list(split[~mask]) == list(split_profiles(table(100)))


def test_a_value_missing_only_among_excluded_profiles_is_no_error() -> None:
    obs = table(40, donor=[None, *range(39)])
    assert split_profiles(obs, group="donor", exclude=np.arange(40) == 0).iloc[0] == "excluded"


@pytest.mark.parametrize(
    ("validation", "test"), [(0, 0.1), (-0.1, 0.1), (1, 0), (0.1, -0.1), (0.5, 0.5), (float("nan"), 0.1)]
)
def test_fractions_out_of_range(validation: float, test: float) -> None:
    with pytest.raises(InputError, match=f"sum below 1; found validation {validation:g} and test {test:g}"):
        split_profiles(table(100), validation, test)


@pytest.mark.parametrize(
    ("obs", "options", "message"),
    [
        (table(2), {}, "train, validation, test needs at least 3 profiles; found 2. Give more, or --test 0."),
        (table(1), {}, "train, validation, test needs at least 3 profiles; found 1. Give more."),
        (table(1), {"test": 0}, "train, validation needs at least 2 profiles; found 1. Give more."),
        (
            table(10),
            {"validation": 0.49, "test": 0.49},
            "validation 0.49 and test 0.49 of 10 profiles leave none for training. Give smaller fractions.",
        ),
        (
            table(4, donor=["a", "b", "a", "b"]),
            {"group": "donor"},
            "needs at least 3 different values of 'donor'; found 2. Give more, or --test 0.",
        ),
        (
            table(4, kind=["a", "b", "a", "b"]),
            {"stratify": "kind"},
            "needs at least 3 profiles in strata large enough to be divided; found 0.",
        ),
        (
            table(9, donor=range(9)),
            {"group": "doner"},
            "unknown obs column 'doner'; did you mean 'donor'? Available: donor",
        ),
        (
            table(5, donor=["a", None, "b", None, "c"]),
            {"group": "donor"},
            "obs column 'donor' must have a value for every profile; 2 of 5 have none, first 'p1'.",
        ),
        (table(5), {"exclude": np.zeros(4, bool)}, "one value for each of 5 profiles; its shape is (4,)."),
    ],
)
def test_impossible_splits_say_what_is_needed(obs: pd.DataFrame, options: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        split_profiles(obs, **options)
    assert message in str(caught.value)


def test_profiles_without_values_leave_nothing_to_split() -> None:
    obs = pd.DataFrame(index=["a", "b", "c"])
    with pytest.raises(
        InputError, match=r"needs at least 3 profiles with values; found none\. Check that this is the right"
    ):
        split_profiles(obs, exclude=np.ones(3, bool))
