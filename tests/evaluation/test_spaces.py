"""Where reconstructions come from: spaces are found out, and what has seen the held-out half is refused."""

import numpy as np
import pytest
from worlds import World, expected_log1p, log1p_cp10k, make_world

from geneae.data.halves import as_expression
from geneae.data.programs import Table, table_in_memory
from geneae.evaluation import spaces
from geneae.evaluation.programs import JudgedHalves, of_halves, score
from geneae.evaluation.spaces import check_source, in_log1p, see
from geneae.settings.errors import InputError


@pytest.fixture(scope="module")
def world() -> World:
    """Halves of counts with known rates."""
    return make_world(depth=3000.0)


@pytest.fixture(scope="module")
def shallow() -> World:
    """The same with few molecules, where the logarithm tells depths apart."""
    return make_world(depth=600.0)


@pytest.fixture(scope="module")
def judged(world: World) -> JudgedHalves:
    """Every profile is judged."""
    return judging(world)


def judging(world: World) -> JudgedHalves:
    """Every profile of a world, to be judged."""
    halves, rows = world.halves, np.arange(len(world.shares))
    given, held_out = (as_expression(half, halves.given.genes, rows) for half in (halves.given, halves.held_out))
    split = np.full(len(rows), "test")
    return JudgedHalves(given, held_out, halves.given.names, split, halves.given.genes, world.held_out.mean(0), 0.5, 0)


def whole(world: World) -> np.ndarray:
    """(n_profiles, n_genes) undivided counts."""
    found: np.ndarray = world.halves.whole().matrix.toarray()
    return found


def table(world: World, values: np.ndarray) -> Table:
    return table_in_memory(world.frame(values), "made.csv", world.halves.given.genes)


def low_rank(values: np.ndarray, rank: int = 4) -> np.ndarray:
    """PCA of profiles."""
    mean = values.mean(0)
    u, s, v = np.linalg.svd(values - mean, full_matrices=False)
    found: np.ndarray = (u[:, :rank] * s[:rank]) @ v[:rank] + mean
    return found


def test_the_space_of_a_reconstruction_is_found_out(world: World, judged: JudgedHalves) -> None:
    totals = judged.given.totals[:, None]
    cases = {"counts": world.shares * totals, "cp10k": world.shares * 1e4, "log1p_cp10k": world.expected}
    for space, values in cases.items():
        for noisy in (values, low_rank(values)):
            seen = see(table(world, noisy), judged, None)
            assert seen.space == space
            assert seen.distance < 0.05
            assert 0.95 < seen.ratio < 1.05
            assert not any(one.fires for one in seen.diagnostics())


def test_rates_become_their_expected_logarithm(world: World, judged: JudgedHalves) -> None:
    totals = judged.given.totals
    slow = expected_log1p(world.shares * totals[:, None], totals)
    for space, values in (("counts", world.shares * totals[:, None]), ("cp10k", world.shares * 1e4)):
        predict = in_log1p(table(world, values), space, totals)
        np.testing.assert_allclose(predict(slice(3, 60)), slow[3:60], atol=2e-3)
    some = in_log1p(table(world, world.expected), "log1p_cp10k", totals)(slice(3, 60))
    np.testing.assert_array_equal(some, world.expected[3:60])


def test_zero_and_negative_rates_are_expected_to_be_zero(world: World, judged: JudgedHalves) -> None:
    values = np.where(np.arange(120) < 60, 0.0, -1.0) * np.ones_like(world.shares)
    assert not in_log1p(table(world, values), "counts", judged.given.totals)(slice(0, 9)).any()


def test_the_logarithm_of_an_expected_value_is_told() -> None:
    few = make_world(depth=400.0)  # with many molecules it is the expected logarithm
    seen = see(table(few, np.log1p(few.shares * 1e4)), judging(few), None)
    assert seen.space == "log1p_cp10k"
    assert [one.name for one in seen.diagnostics() if one.fires] == ["level"]


def test_negative_values_and_nan_are_counted_and_nan_is_zero(world: World, judged: JudgedHalves) -> None:
    values = world.expected.copy()
    values[0, :3], values[5, 2], values[6, 0] = np.nan, np.inf, -0.5
    seen = see(table(world, values), judged, None)
    assert (seen.n_nan, seen.n_negative, seen.n_values) == (4, 1, values.size)
    assert [one.name for one in seen.diagnostics() if one.fires] == ["nan_values"]
    as_zero = np.where(np.isfinite(values), values, 0)
    predict = in_log1p(table(world, values), "log1p_cp10k", judged.given.totals)
    np.testing.assert_array_equal(predict(slice(0, 9)), as_zero[:9])


def test_another_space_is_refused_unless_it_is_named(world: World, judged: JudgedHalves) -> None:
    for values in (np.sqrt(world.shares), world.expected * 0.001, np.zeros_like(world.expected)):
        with pytest.raises(InputError, match=r"its gene means are near those of the given half in none of them \("):
            see(table(world, values), judged, None)
        seen = see(table(world, values), judged, "log1p_cp10k")
        assert "distance_of_gene_means" in [one.name for one in seen.diagnostics() if one.fires]


def test_whole_profiles_are_found_out_by_their_means(world: World, judged: JudgedHalves, shallow: World) -> None:
    few = judging(shallow)
    cases = [
        (world, judged, whole(world), "counts"),
        (shallow, few, log1p_cp10k(whole(shallow)), "log1p_cp10k"),
        (shallow, few, low_rank(log1p_cp10k(whole(shallow))), "log1p_cp10k"),
    ]
    for of, at, values, space in cases:
        for told in (None, space):
            with pytest.raises(
                InputError, match=f"was made from whole profiles: its gene means .* profiles in {space}"
            ):
                see(table(of, values), at, told)


def refuse(world: World, judged: JudgedHalves, values: np.ndarray) -> None:
    check_source("made.csv", score(lambda some: values[some], judged), of_halves(judged))


def test_the_wrong_half_is_found_out(world: World, judged: JudgedHalves) -> None:
    for values in (world.held_out, low_rank(world.held_out, 12)):
        with pytest.raises(
            InputError, match=r"made\.csv was made from the wrong half: it agrees better with the held-"
        ):
            refuse(world, judged, values)


def test_a_cosine_above_the_ceiling_is_refused(shallow: World) -> None:
    with pytest.raises(
        InputError, match=r"has seen what it is judged by: its held-out cosine 0\.\d+ is above the noise"
    ):
        refuse(shallow, judging(shallow), log1p_cp10k(whole(shallow)))


def test_what_is_made_from_the_given_half_is_not_refused(world: World, judged: JudgedHalves) -> None:
    rates = world.shares * judged.given.totals[:, None]
    made = {"given": world.given, "low rank": low_rank(world.given), "expected": world.expected}
    refused = []
    for name, values in (made | {"rates": np.log1p(rates), "zeros": np.zeros_like(rates)}).items():
        try:
            refuse(world, judged, values)
        except InputError as error:
            refused.append((name, str(error)))
    assert refused == []


def test_limits_are_ordered() -> None:
    assert spaces.NEAR_MEANS < spaces.SAME_MEANS
