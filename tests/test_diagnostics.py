"""Each detector fires on what it is for, and all are silent on a good model."""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from geneae import Autoencoder
from geneae.diagnostics import contributions, diagnose, effective_rank, to_table
from geneae.evaluation import evaluate
from geneae.model import Model
from geneae.profiles import read_profiles
from tests.conftest import simulate

GOOD = {"n_latent": 3, "hidden": 32, "rank": 12, "epochs": 30, "n_splits": 4, "batch_size": 128, "test": 0.3}


@pytest.fixture(scope="module")
def good() -> Autoencoder:
    """A fit of four deep programmes by three latents, which is what they need."""
    return Autoencoder("mse", **GOOD).fit(simulate(500, depth=1500))


def fired(model: Model, profiles_of: Autoencoder) -> set[str]:
    """Names of what fires when a model is judged on the test profiles of a fit."""
    profiles = read_profiles(simulate(500, depth=1500))
    rows = np.flatnonzero(profiles_of.split_ == "test")
    expression = model.preprocess.match(profiles)[0].take(rows)
    split = pd.Series("test", index=profiles.names[rows])
    evaluation = evaluate(model, expression, profiles.names[rows], split, fit_scales=False)
    table = to_table(diagnose(model, evaluation, expression, "test"))
    return set(table.loc[table["fires"], "name"])


def altered(fit: Autoencoder, change: str) -> Model:
    """The model of a fit with its decoder altered."""
    network = copy.deepcopy(fit.model_.network)
    with torch.no_grad():
        for layer in network.core.blocks("decoder")[0][-1:] + network.core.blocks("decoder")[1]:
            if change == "constant":
                layer.weight.zero_()
            elif change == "long":
                layer.weight.mul_(1000)
    return replace(fit.model_, network=network)


def test_silent_on_a_good_model(good: Autoencoder) -> None:
    table = good.diagnostics_.set_index("name")
    quiet = table.drop(index=["gain_over_pca", "gain_over_shrunken_pca"])  # linear programmes: PCA is as good
    assert not quiet["fires"].any(), quiet[quiet["fires"]]


def test_a_constant_predictor_is_found_out(good: Autoencoder) -> None:
    assert {"skill", "diversity", "gain_over_pca", "own_profile_rank"} <= fired(altered(good, "constant"), good)


def test_reconstructions_of_absurd_length_are_found_out(good: Autoencoder) -> None:
    assert "norm_ratio" in fired(altered(good, "long"), good)


def test_an_oversized_latent_is_found_out() -> None:
    fit = Autoencoder("mse", **(GOOD | {"n_latent": 60, "rank": 60, "epochs": 3})).fit(simulate(500, depth=1500))
    row = fit.diagnostics_.set_index("name").loc["used_latents"]
    assert row["fires"]
    assert row["value"] < 6
    assert "smaller --latent" in row["message"]


def test_where_profiles_differ_in_depth_alone_the_simpler_model_is_recommended() -> None:
    fit = Autoencoder("mse", **GOOD).fit(simulate(500, depth=1500, n_programmes=1))
    assert fit.diagnostics_.set_index("name").loc["gain_over_shrunken_pca", "fires"]


def test_the_message_names_the_simpler_model(good: Autoencoder) -> None:
    row = good.diagnostics_.set_index("name").loc["gain_over_shrunken_pca"]
    assert row["message"].endswith("prefer shrunken PCA, it is simpler.")


def test_effective_rank_of_equal_and_of_single_directions() -> None:
    draws = torch.randn(20_000, 5, generator=torch.Generator().manual_seed(0))
    assert effective_rank(draws) == pytest.approx(5, abs=0.01)
    assert effective_rank(draws[:, :1] @ torch.ones(1, 5)) == pytest.approx(1, abs=1e-6)


def test_contributions_of_a_linear_decoder_are_the_variances_it_adds(good: Autoencoder) -> None:
    model = altered(good, "none")
    model.network.core.silence_mlps()
    latent = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    weight = model.network.core.decoder_linear.weight.detach() * model.network.deviation[:, None]
    expected = latent.var(0, correction=0) * weight.square().sum(0)
    np.testing.assert_allclose(contributions(model, latent).numpy(), expected.numpy(), rtol=1e-3)
