"""Each detector fires on what it is for, and all are silent on a good model."""

import copy
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, simulate
from made_up import SPREAD, made_up

from geneae import Autoencoder
from geneae.data.permuted import NULLS, PAIR_PERMUTED
from geneae.data.reading import read_profiles
from geneae.evaluation import diagnostics
from geneae.evaluation.diagnostics import contributions, diagnose, effective_rank, null_table, to_table
from geneae.evaluation.reconstruction import evaluate
from geneae.evaluation.records import CLEAR, HELD_OUT, SAME, paired_difference, value
from geneae.fitting.fit import fit
from geneae.models.model import Model
from geneae.settings.settings import Settings

GOOD = {"n_latent": 3, "hidden": 32, "rank": 12, "epochs": 30, "n_splits": 4, "batch_size": 128, "test": 0.3}


@pytest.fixture(scope="module")
def good() -> Autoencoder:
    """A fit, with nulls, of four deep programmes by three latents, which is what they need."""
    return Autoencoder("mse", **GOOD).fit(simulate(500, depth=1500), null=True)


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
    """With own counts the predictions still differ, but the latent says nothing."""
    constant = altered(good, "constant")
    assert constant.estimator is not None
    assert {"diversity", "gain_over_pca", "own_profile_rank"} <= fired(constant, good)
    silent = replace(constant, estimator=constant.estimator.only())
    assert {"skill", "diversity", "gain_over_pca", "own_profile_rank"} <= fired(silent, good)


@pytest.mark.parametrize("target", ["split", "self"])
def test_a_model_of_permuted_targets_is_found_out(target: str) -> None:
    profiles = read_profiles(simulate(500, depth=1500))
    found = fit(profiles, Settings("mse", target=target, **GOOD), null=PAIR_PERMUTED).diagnostics
    assert {"skill", "own_profile_rank"} <= set(found.loc[found["fires"], "name"])


def test_nulls_stand_beside_the_fit_and_come_only_on_request(good: Autoencoder) -> None:
    metrics, found = good.evaluation_.metrics, good.diagnostics_
    table = null_table(metrics, found, "test")
    assert list(table.columns) == [HELD_OUT, "gain_over_mean_profile", "skill"]
    assert list(table.index) == ["this fit", *NULLS.values()]
    name = "model_latent_only"  # own counts say something where genes are permuted, too
    gain = paired_difference(good.evaluation_.profiles, name, "mean_profile", "test", HELD_OUT)[0]
    own = [value(metrics, name, "test", HELD_OUT), gain, value(metrics, name, "test", "skill")]
    np.testing.assert_allclose(table.loc["this fit"], own, atol=1e-12)
    assert (table["skill"].iloc[1:].abs() < 0.03).all()
    by_name = found.set_index("name")
    assert table.loc[NULLS[PAIR_PERMUTED], "skill"] == by_name.loc["pair_permuted_skill", "value"]
    assert by_name.loc["pair_permuted_skill", "limit"] == f"this fit: {own[2]:.4f}"
    plain = found[~found["name"].str.contains("permuted")]
    assert len(plain) == len(found) - 8
    assert null_table(metrics, plain, "test").empty


def test_the_excess_over_a_null_is_the_difference_of_gains_by_profile(good: Autoencoder) -> None:
    settings = Settings("mse", **GOOD)
    without = fit(read_profiles(simulate(500, depth=1500)), settings, null=PAIR_PERMUTED).evaluation
    gains = [
        paired_difference(of.profiles, "model_latent_only", "mean_profile", "test", HELD_OUT)[2]
        for of in (good.evaluation_, without)
    ]
    row = good.diagnostics_.set_index("name").loc["excess_over_pair_permuted"]
    assert row["value"] == pytest.approx((gains[0] - gains[1]).mean(), abs=1e-12)
    limit = 1.96 * (gains[0] - gains[1]).std(ddof=1) / np.sqrt(len(gains[0]))
    assert row["limit"] == f"above {limit:.5f}"


def flat(n_profiles: int = 300) -> np.ndarray:
    """Counts of equal rates and depth: profiles differ in noise alone."""
    rates = np.random.default_rng(0).gamma(0.5, 1.0, 120)
    return np.random.default_rng(1).poisson(np.tile(1500 * rates / rates.sum(), (n_profiles, 1))).astype(np.float32)


def test_data_without_signal_are_told_from_a_model_that_missed_it() -> None:
    excess = [f"excess_over_{null}" for null in NULLS]
    poor_data = Autoencoder("mse", **GOOD).fit(flat(), null=True).diagnostics_.set_index("name").loc[excess]
    assert poor_data["fires"].all()
    assert poor_data["message"].str.contains("neither does shrunken PCA: these profiles do not show").all()
    bad = GOOD | {"basis": "free", "init": "random", "learning_rate": 3.0, "epochs": 3}
    poor_model = Autoencoder("mse", **bad).fit(simulate(500, depth=1500), null=True)
    rows = poor_model.diagnostics_.set_index("name").loc[excess]
    assert rows["fires"].all()
    assert rows["message"].str.contains("but shrunken PCA does: these data contain a signal").all()


def test_without_counts_nulls_are_compared_by_the_centred_cosine() -> None:
    counts = simulate(300, depth=1500)
    counts.X = counts.X.log1p()
    found = Autoencoder("mse", **GOOD).fit(counts, null=True).diagnostics_.set_index("name")
    assert not found.loc["excess_over_gene_permuted", "fires"]
    assert {"gene_permuted_centred_cosine", "pair_permuted_centred_cosine"} <= set(found.index)
    assert "gene_permuted_skill" not in found.index


def test_reconstructions_of_absurd_length_are_found_out(good: Autoencoder) -> None:
    assert "norm_ratio" in fired(altered(good, "long"), good)


def test_an_oversized_latent_is_found_out() -> None:
    fit = Autoencoder("mse", **(GOOD | {"n_latent": 60, "rank": 60, "epochs": 3})).fit(simulate(500, depth=1500))
    row = fit.diagnostics_.set_index("name").loc["used_latents"]
    assert row["fires"]
    assert row["value"] < 6
    assert "smaller --latent" in row["message"]


def test_where_profiles_differ_in_depth_alone_the_simpler_model_is_recommended() -> None:
    fit = Autoencoder("mse", basis="free", **GOOD).fit(simulate(500, depth=1500, n_programmes=1))
    assert fit.diagnostics_.set_index("name").loc["gain_over_shrunken_pca", "fires"]


def test_the_message_names_the_simpler_model(good: Autoencoder) -> None:
    row = good.diagnostics_.set_index("name").loc["gain_over_shrunken_pca"]
    assert row["message"].endswith("prefer shrunken PCA, which is simpler.")


@pytest.mark.parametrize("missing", ["skill", "ceiling"])
def test_where_no_way_to_a_ceiling_is_known_models_are_still_compared_on_held_out_molecules(
    good: Autoencoder, missing: str
) -> None:
    """As the verdict does; by cosines with their own input PCA, which copies, would be recommended."""
    found = good.evaluation_
    without = replace(found, metrics=found.metrics[found.metrics["metric"] != missing])
    rows = np.flatnonzero(good.split_ == "test")
    expression = good.model_.preprocess.match(read_profiles(simulate(500, depth=1500)))[0].take(rows)
    table = to_table(diagnose(good.model_, without, expression, "test")).set_index("name")
    expected, error, _ = paired_difference(found.profiles, "model", "pca", "test", HELD_OUT)
    assert table.loc["gain_over_pca", "value"] == pytest.approx(expected)
    assert table.loc["gain_over_pca", "fires"] == (not expected > max(SAME, CLEAR * error))
    assert {"gain_over_whitened", "gain_over_own_count"} <= set(table.index)


@pytest.mark.parametrize(("difference", "fires"), [(-0.01 + SPREAD, True), (-0.0003 + SPREAD, False)])
def test_noise_is_copied_only_where_the_held_out_cosine_is_clearly_below(difference: np.ndarray, fires: bool) -> None:
    found = made_up({"mean_profile": difference})
    own = [["model", 0, "test", "cosine", "mean", 0.9], ["mean_profile", 0, "test", "cosine", "mean", 0.8]]
    metrics = pd.concat([found.metrics, pd.DataFrame(own, columns=found.metrics.columns[:6])], ignore_index=True)
    metrics = metrics.drop_duplicates(["model", "split", "metric", "statistic"], keep="last")
    assert diagnostics._copying(replace(found, metrics=metrics), "test").fires == fires


def test_a_model_that_is_no_better_than_its_start_or_than_copying_is_found_out(good: Autoencoder) -> None:
    for rival, said in (("whitened", "that it starts from"), ("own_count", "its latent adds nothing")):
        assert not good.diagnostics_.set_index("name").loc[f"gain_over_{rival}", "fires"]
        profiles = good.evaluation_.profiles
        worse = profiles.assign(model=profiles["model"].replace({"model": rival, rival: "model"}))
        chosen = worse["model"].isin(["model", rival, "mean_profile"])
        evaluation = replace(good.evaluation_, profiles=worse[chosen])
        rows = np.flatnonzero(good.split_ == "test")
        expression = good.model_.preprocess.match(read_profiles(simulate(500, depth=1500)))[0].take(rows)
        others = evaluation.metrics[evaluation.metrics["model"].isin(["model", rival, "mean_profile"])]
        found = to_table(diagnose(good.model_, replace(evaluation, metrics=others), expression, "test"))
        row = found.set_index("name").loc[f"gain_over_{rival}"]
        assert row["fires"]
        assert said in row["message"]


def test_effective_rank_of_equal_and_of_single_directions() -> None:
    draws = torch.randn(20_000, 5, generator=torch.Generator().manual_seed(0))
    assert effective_rank(draws) == pytest.approx(5, abs=0.01)
    assert effective_rank(draws[:, :1] @ torch.ones(1, 5)) == pytest.approx(1, abs=1e-6)
    assert np.isnan(effective_rank(draws * torch.inf))


def test_contributions_of_a_linear_decoder_are_the_variances_it_adds(good: Autoencoder) -> None:
    model = altered(good, "none")
    model.network.core.silence_mlps()
    latent = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    weight = model.network.output_weight() @ (
        model.network.core.decoder_linear.weight.detach() * model.network.deviation[:, None]
    )
    expected = latent.var(0, correction=0) * weight.square().sum(0)
    np.testing.assert_allclose(contributions(model, latent).numpy(), expected.numpy(), rtol=1e-3)


def test_copies_across_splits_are_counted_and_said(counts: anndata.AnnData) -> None:
    doubled = anndata.concat([counts, counts[:30]], index_unique="-")
    model = Autoencoder(**QUICK | {"epochs": 1}).fit(doubled)
    split, x = model.split_.to_numpy(), doubled.X.toarray()
    training = {tuple(row) for row in x[split == "train"]}
    number = sum(tuple(row) in training for row in x[split != "train"])
    assert number > 0
    table = model.diagnostics_.set_index("name")
    assert table.loc["copies_of_training", "value"] == number
    assert table.loc["copies_of_training", "message"].startswith(
        f"{number} of {(split != 'train').sum()} validation and test profiles are copies of training profiles: numbers"
    )
    assert "copies_of_training" not in set(Autoencoder(**QUICK | {"epochs": 1}).fit(counts).diagnostics_["name"])
