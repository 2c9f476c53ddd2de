"""Latents of other programs: depth and the other half, without a label."""

import numpy as np
import pandas as pd
import pytest
from worlds import World, make_world

from geneae.data.halves import as_expression
from geneae.data.preprocess import fit_preprocess
from geneae.evaluation.judge import JudgingData
from geneae.evaluation.program_latents import judge_representations
from geneae.evaluation.records import value
from geneae.settings.settings import Settings


@pytest.fixture(scope="module")
def world() -> World:
    """Halves of counts with known rates."""
    return make_world()


@pytest.fixture(scope="module")
def found(world: World) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Numbers of latents whose depth and agreement are known."""
    halves, n_profiles = world.halves, len(world.shares)
    rng = np.random.default_rng(0)
    preprocess = fit_preprocess(halves.whole(), np.flatnonzero(halves.split == "train"))
    expression = as_expression(halves.given, preprocess.genes, np.arange(n_profiles))
    data = JudgingData(Settings(), halves.given.obs, halves.split, expression, preprocess, has_decoder=True)
    noise, other = rng.standard_normal((2, n_profiles, 6))
    depth = np.log(expression.totals)[:, None]
    given = {"same": world.expected, "noise": noise, "half noise": noise, "depth": depth}
    held_out = {"same": world.expected, "noise": other, "half noise": noise + other}
    return judge_representations(data, given, held_out, np.ones(n_profiles, bool))


def test_latents_that_are_the_same_agree_and_noise_does_not(found: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    metrics = found[1]
    shared, rank = (
        {name: value(metrics, name, "test", metric) for name in ("same", "half noise", "noise")}
        for metric in ("shared_neighbours", "other_half_rank")
    )
    assert (shared["same"], rank["same"]) == (1, 0)
    assert 1 > shared["half noise"] > shared["noise"]
    assert 0 < rank["half noise"] < rank["noise"]
    assert rank["noise"] == pytest.approx(0.5, abs=0.12)  # chance


def test_depth_is_found_in_latents_that_hold_it(found: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    metrics = found[1]
    assert value(metrics, "depth", "test", "depth_r2") == pytest.approx(1)
    assert value(metrics, "noise", "test", "depth_r2") < 0.1
    assert np.isnan(value(metrics, "depth", "test", "shared_neighbours"))  # it has only one half


def test_every_profile_has_its_own_numbers(found: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    by_profile, metrics = found
    own = by_profile[(by_profile["model"] == "half noise") & (by_profile["split"] == "test")]
    assert len(own) == 78
    for metric in ("shared_neighbours", "other_half_rank"):
        assert own[metric].mean() == pytest.approx(value(metrics, "half noise", "test", metric))
