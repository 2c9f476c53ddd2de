"""Agreement of the latents of halves: neighbours and ranks by explicit search, and the choice by them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from dense_estimator import small_fit, small_world

from geneae.data.reading import read_profiles
from geneae.evaluation import agreement as file
from geneae.evaluation.agreement import (
    Agreement,
    LatentChoice,
    Represent,
    agreement_sentence,
    choose_latent,
    drawn_halves,
    other_half_rank,
)
from geneae.evaluation.records import COLUMNS
from geneae.fitting.autoencoder import Autoencoder
from geneae.models.depths import COMPLETE
from geneae.models.network import Network, whitened_network

RNG = np.random.default_rng(0)
FIRST, SECOND = RNG.standard_normal((2, 30, 4))


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_the_rank_of_the_other_half_is_that_of_an_explicit_search() -> None:
    expected = []
    for index in range(30):
        own = cosine(FIRST[index], SECOND[index])
        others = [other for other in range(30) if other != index]
        there = sum(cosine(FIRST[index], SECOND[other]) > own for other in others)
        back = sum(cosine(FIRST[other], SECOND[index]) > own for other in others)
        expected.append((there + back) / 2 / 29)
    np.testing.assert_allclose(other_half_rank(FIRST, SECOND), expected)


def test_equal_halves_agree_and_unrelated_ones_do_by_chance() -> None:
    assert other_half_rank(FIRST, FIRST).tolist() == [0.0] * 30
    first, second = np.random.default_rng(1).standard_normal((2, 400, 6))
    assert other_half_rank(first, second).mean() == pytest.approx(0.5, abs=0.03)


def test_a_rank_does_not_depend_on_the_length_of_latents_or_on_a_rotation() -> None:
    rotation, lengths = np.linalg.qr(RNG.standard_normal((4, 4)))[0], 0.5 + RNG.random((30, 1))
    expected = other_half_rank(FIRST, SECOND)
    np.testing.assert_allclose(other_half_rank(lengths * FIRST @ rotation, SECOND @ rotation), expected)


def test_a_latent_that_is_the_same_for_all_profiles_finds_nothing() -> None:
    same = np.ones((30, 4))
    assert other_half_rank(same, same).tolist() == [0.5] * 30


def test_one_profile_has_no_others() -> None:
    assert np.isnan(other_half_rank(FIRST[:1], SECOND[:1])).all()


def trained(is_better: bool) -> Network:
    """A network on the estimator of the small world whose encoder shows the first component alone, or noise."""
    estimator = small_fit().estimator
    network = whitened_network(estimator, estimator.whitening.rank, 8, 0.0, is_frozen=True)
    network.core.silence_mlps()
    with torch.no_grad():
        scale = torch.full((estimator.whitening.rank,), 0.02)
        if is_better:
            scale[:2] = 1.0
        else:
            scale = 1 - scale
            scale[:2] = 0.02
        network.core.encoder_linear.weight.copy_(torch.diag(scale))
    return network


def test_a_latent_is_chosen_where_halves_find_each_other_better() -> None:
    """The small world has two programmes: the other components are noise, which a latent should leave out."""
    world, estimator = small_world(), small_fit().estimator
    better = choose_latent(estimator, trained(is_better=True), world.whole, world.preprocess, 0)
    worse = choose_latent(estimator, trained(is_better=False), world.whole, world.preprocess, 0)
    assert worse.is_start
    assert worse.rank_gain < -2 * worse.rank_error
    assert better.rank_gain > worse.rank_gain
    rng = np.random.default_rng((0, file.AGREEMENT_STREAM))
    halves = drawn_halves(world.whole, world.preprocess, rng)
    before, after = (halves.agreement(Represent(estimator, of)) for of in (None, trained(is_better=True)))
    gains = (before["other_half_rank"] - after["other_half_rank"])[halves.is_known]
    assert better.rank_gain == pytest.approx(gains.mean())
    assert better.rank_error == pytest.approx(gains.std(ddof=1) / len(gains) ** 0.5)
    clear = [better.rank_gain > 2 * better.rank_error, better.shared_gain > 2 * better.shared_error]
    worse = [better.rank_gain < -2 * better.rank_error, better.shared_gain < -2 * better.shared_error]
    assert better.is_start == (any(worse) or not any(clear))


def test_the_start_itself_is_not_better_than_the_start() -> None:
    world, estimator = small_world(), small_fit().estimator
    network = whitened_network(estimator, estimator.whitening.rank, 8, 0.0, is_frozen=True)
    network.core.silence_mlps()
    found = choose_latent(estimator, network, world.whole, world.preprocess, 0)
    assert found == LatentChoice(True, 0.0, 0.0, 0.0, 0.0)


def test_latents_of_the_start_are_posterior_scores_and_can_be_reconstructed_from(
    fitted: Autoencoder, counts_path: Path
) -> None:
    model = fitted.fitted()
    expression = model.preprocess.match(read_profiles(counts_path))[0]
    kept, start = (
        replace(model, config=model.config | {"latent_choice": {"is_start": is_start}}) for is_start in (False, True)
    )
    assert start.estimator is not None
    at = start.estimator.at(COMPLETE)
    scores = at.scores(start.preprocess.apply(expression), expression.totals) / start.network.deviation
    latent = start.latent(expression)
    assert latent.shape == (expression.n_profiles, start.n_latent)
    np.testing.assert_allclose(latent[:, : scores.shape[1]], scores, rtol=1e-5, atol=1e-6)
    assert not latent[:, scores.shape[1] :].any()
    expected = kept.reconstruction(kept.latent(expression))
    np.testing.assert_allclose(start.reconstruction(latent), expected, rtol=1e-4, atol=1e-5)


def test_a_sentence_says_what_is_shared_and_what_is_exported() -> None:
    rows = [
        Agreement.row(model, 0, "test", "shared_neighbours", value, 30)
        for model, value in (("model", 0.743), ("pca", 0.7))
    ]
    metrics = pd.DataFrame(rows, columns=COLUMNS)
    said = agreement_sentence(metrics, "test", {"latent_choice": None})
    assert said == (
        "The latents of both halves of a profile share 74 % of their 15 nearest neighbours (PCA of the same size 70 %)."
    )
    assert agreement_sentence(metrics, "test", {"latent_choice": {"is_start": True}}).endswith(
        " By this, training did not clearly better them, so that the latents of its start are exported."
    )
    assert agreement_sentence(metrics, "validation", {}) == ""
    assert agreement_sentence(metrics.assign(n_profiles=29), "test", {}) == ""
