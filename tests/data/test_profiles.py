import numpy as np
import pytest
from reference import FIVE, assert_same_profiles, five_profiles

from geneae.data.reading import read_profiles
from geneae.settings.errors import InputError


def test_sizes_totals_and_density() -> None:
    found = read_profiles(five_profiles())
    assert (found.n_profiles, found.n_genes) == (5, 4)
    np.testing.assert_array_equal(found.totals, [3, 3, 0, 6, 14])
    assert found.density == 8 / 20
    assert found.megabytes == (8 * 4 + 8 * 4 + 6 * 4) / 1e6


def test_totals_are_summed_in_float64() -> None:
    x = np.ones((1, 4), np.float32)
    x[0, 0] = 2**24
    assert read_profiles(x).totals[0] == 2**24 + 3


def test_totals_of_empty_profiles_are_zero() -> None:
    assert read_profiles(np.zeros((2, 3))).totals.tolist() == [0, 0]


def test_the_fingerprint_sees_values_places_and_names() -> None:
    other_value, other_place = FIVE.copy(), FIVE[:, [1, 0, 2, 3]]
    other_value[0, 1] = 3
    renamed, regened = five_profiles(), five_profiles()
    renamed.obs_names, regened.var_names = list("abcde"), list("abcd")
    found = [
        read_profiles(a).fingerprint
        for a in (five_profiles(), five_profiles(other_value), five_profiles(other_place), renamed, regened)
    ]
    assert len(set(found)) == 5
    assert found[0] == "b27d58c26939aace742309828f289d63abc9eb4bfa113f363a12139d9cd48b63"


def test_take_by_position_and_by_mask() -> None:
    whole = read_profiles(five_profiles())
    found = whole.take([3, 0])
    np.testing.assert_array_equal(found.matrix.toarray(), FIVE[[3, 0]])
    assert list(found.names) == list(found.obs.index) == ["cell3", "cell0"]
    assert list(found.obs["donor"]) == ["b", "a"]
    mask = whole.totals > 3
    assert_same_profiles(whole.take(mask), whole.take(np.flatnonzero(mask)))
    assert_same_profiles(whole.take(np.arange(5)), whole)
    assert (whole.take([]).n_profiles, whole.take([]).density) == (0, 0)
    with pytest.raises(InputError, match="one value for each of 5 profiles; found 2"):
        whole.take([True, False])


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (
            FIVE,
            "AnnData in memory, X: counts: will be normalised to 10,000 per profile and log1p'd; 5 profiles x 4 genes, "
            "60.0 % zero, 0.0 MB, median 3 molecules per profile",
        ),
        (
            np.log1p(FIVE),
            "AnnData in memory, X: log values: used as they are, no held-out half without counts (values from 0 to "
            "2.3, taken for logarithms); 5 profiles x 4 genes, 60.0 % zero, 0.0 MB",
        ),
        (FIVE * 12.25, "X: normalised, not logged: values used as they are, no held-out half without counts ("),
        (
            FIVE - 1.3,
            "X: scaled, with negative values: used as they are, no held-out half without counts (15 of 20 values are "
            "negative); 5 profiles",
        ),
    ],
)
def test_describe_says_what_was_found_and_what_follows(x: np.ndarray, text: str) -> None:
    assert text in read_profiles(five_profiles(x)).describe()
    assert "\n" not in read_profiles(five_profiles(x)).describe()
