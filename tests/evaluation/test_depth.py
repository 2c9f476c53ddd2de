"""Held-out cosines from thinned inputs: what is thinned, at which depth it is read, and who takes part."""

import math
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, simulate

from geneae import Autoencoder, read_profiles
from geneae.data.augment import thin_to
from geneae.data.count_split import Splitter, draw_halves, with_own_totals
from geneae.data.preprocess import Expression
from geneae.evaluation import depth
from geneae.evaluation.depth import AT_RATIO, DEPTH_STREAM, RATIOS, REPEATS, Depths, depth_sentence, judge_depths
from geneae.evaluation.judge import JudgingData
from geneae.evaluation.predictors import Chunk, predictors, products_of
from geneae.evaluation.records import HELD_OUT, value
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.decoders import Corrected
from geneae.models.model import Model
from geneae.settings.settings import Settings


@pytest.fixture(scope="module")
def expression(fitted: Autoencoder, counts_path: Path) -> Expression:
    """Sixty profiles in the genes of the model."""
    model = fitted.fitted()
    return model.preprocess.match(read_profiles(counts_path))[0].take(np.arange(60)).load()


def dense_prediction(model: Model, name: str, part: Expression) -> np.ndarray:
    """(n_profiles, n_genes) prediction from halves at the depth of the model."""
    if name == "mean_profile":
        assert model.baselines.half is not None
        return np.tile(model.baselines.half.mean.numpy(), (part.n_profiles, 1))
    matrix = model.preprocess.apply(part)
    predictor = predictors(model, is_half=True, output=0.0)[name]
    rows = sparse_rows(matrix).to("cpu", torch.float32)
    with torch.no_grad():
        hidden = predictor.predict(Chunk(rows, matrix, part.totals), predictor.project(rows))
        assert isinstance(hidden, Corrected | torch.Tensor)
        return np.asarray(predictor.decoder.expectation(hidden))


def test_cosines_are_those_of_dense_predictions_with_the_other_half(
    fitted: Autoencoder, expression: Expression
) -> None:
    model = fitted.fitted()
    rng, splitter = np.random.default_rng((3, DEPTH_STREAM, 0)), Splitter(expression.rows)
    expected: dict[tuple[int, str], list[np.ndarray]] = {}
    for _ in range(REPEATS):
        pair = draw_halves(splitter, expression.totals, rng)
        own = with_own_totals(pair)
        for given, target in ((own[0], pair[1]), (own[1], pair[0])):
            wanted = model.preprocess.apply(target).toarray()
            for ratio in RATIOS:
                thinned = thin_to(given, 2 / ratio, rng)
                assert thinned.totals.sum() == pytest.approx(expression.totals.sum() / ratio, rel=0.1)
                is_judged = thinned.rows.toarray().sum(1) >= 10
                for name in ("model", "model_latent_only", "mean_profile"):
                    found = dense_prediction(model.at(ratio / 2), name, thinned)
                    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
                    cosines = np.where(is_judged, (found * wanted).sum(1) / norms, np.nan)
                    expected.setdefault((ratio, name), []).append(cosines)
    found_by = depth.thinned_cosines(model, expression, seed=3)
    for (ratio, name), cosines in expected.items():
        np.testing.assert_allclose(found_by[ratio][name], np.mean(cosines, axis=0), rtol=1e-4)


def test_the_model_is_read_at_the_depth_of_the_input(
    fitted: Autoencoder, expression: Expression, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[float] = []
    targets: list[float] = []

    def watched(model: Model, is_half: bool, output: float) -> object:
        assert is_half
        read.append(model.delta)
        targets.append(output)
        return predictors(model, is_half, output)

    monkeypatch.setattr(depth, "predictors", watched)
    depth.thinned_cosines(fitted.fitted(), expression, seed=0)
    depth.thinned_cosines(fitted.fitted().at(2.0), expression, seed=0)
    shallow = [math.log(ratio / 2) for ratio in RATIOS]
    np.testing.assert_allclose(read, [*shallow, *(one + math.log(2) for one in shallow)])
    np.testing.assert_allclose(targets, [0.0] * len(RATIOS) + [math.log(2)] * len(RATIOS))  # untouched halves


def test_fewer_molecules_predict_worse_and_the_mean_profile_equally(
    fitted: Autoencoder, expression: Expression
) -> None:
    metrics = judge_depths(fitted.fitted(), expression, "test", seed=0)
    reached = [value(metrics, "model", "test", AT_RATIO[ratio]) for ratio in RATIOS]
    assert reached == sorted(reached, reverse=True)
    trivial = [value(metrics, "mean_profile", "test", AT_RATIO[ratio]) for ratio in RATIOS]
    assert np.ptp(trivial) < 0.01
    assert min(reached) > max(trivial)
    assert set(metrics["model"]) == set(Depths.models)
    assert set(metrics["better"]) == {"higher"}
    pd.testing.assert_frame_equal(metrics, judge_depths(fitted.fitted(), expression, "test", seed=0))
    assert not metrics.equals(judge_depths(fitted.fitted(), expression, "test", seed=1))


def test_all_ratios_are_compared_on_the_same_profiles() -> None:
    nan = float("nan")
    found = {
        4: {"model": np.array([0.5, 0.6, 0.7, nan])},
        10: {"model": np.array([0.4, nan, 0.6, nan])},
        20: {"model": np.array([0.3, nan, nan, nan])},
    }
    ratios, is_known = depth._shown(found)
    assert ratios == [4, 10]  # at 20 most profiles have too few molecules
    np.testing.assert_array_equal(is_known, [True, False, True, False])


def test_large_sets_are_sampled(fitted: Autoencoder, expression: Expression, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth, "MOST_PROFILES", 12)
    assert set(judge_depths(fitted.fitted(), expression, "test", seed=0)["n_profiles"]) == {12}


def test_inputs_with_too_few_molecules_take_no_part(fitted: Autoencoder) -> None:
    model = fitted.fitted()
    shallow = model.preprocess.match(read_profiles(simulate(30, depth=80)))[0].load()
    found = depth.thinned_cosines(model, shallow, seed=0)
    n_known = [int((~np.isnan(found[ratio]["model"])).sum()) for ratio in RATIOS]
    assert n_known[0] > n_known[1] > n_known[2] == 0
    metrics = judge_depths(model, shallow, "test", seed=0)
    assert AT_RATIO[4] in set(metrics["metric"])
    assert AT_RATIO[20] not in set(metrics["metric"])
    nothing = judge_depths(model, model.preprocess.match(read_profiles(simulate(30, depth=20)))[0], "test", seed=0)
    assert nothing.empty
    assert depth_sentence(nothing, "test", 5) == ""


def test_models_of_one_depth_and_permuted_targets_are_not_judged(fitted: Autoencoder, expression: Expression) -> None:
    model = fitted.fitted()
    assert judge_depths(replace(model, estimator=None), expression, "test", seed=0).empty
    names = pd.Index([f"p{number}" for number in range(60)])
    split, obs = pd.Series("test", index=names), pd.DataFrame(index=names)
    plain = JudgingData(Settings(**QUICK), obs, split, expression, model.preprocess, has_decoder=True)
    assert Depths().prepare(plain) is None
    assert Depths().prepare(replace(plain, has_estimator=True)) is not None
    assert Depths().prepare(replace(plain, has_estimator=True, partner=np.arange(60))) is None


def test_the_fit_says_what_a_tenth_is_enough_for(fitted: Autoencoder) -> None:
    metrics = fitted.evaluation_.metrics
    known = metrics[metrics["metric"].isin([AT_RATIO[ratio] for ratio in RATIOS])]
    assert set(known["split"]) == {"test"}
    reached, pca, trivial = (
        value(metrics, name, "test", AT_RATIO[10]) for name in ("model", "shrunken_pca", "mean_profile")
    )
    said = f"From 1/10 of the molecules, the model, read at that depth, reaches {reached:.4f} (shrunken PCA {pca:.4f}, "
    assert f"{said}mean profile {trivial:.4f})." in fitted.conclusion_
    assert AT_RATIO[2] == HELD_OUT


def test_and_over_how_many_profiles_where_some_have_too_few_molecules(fitted: Autoencoder) -> None:
    metrics = fitted.evaluation_.metrics.copy()
    n_test = int((fitted.split_ == "test").sum())
    assert "profiles that have enough" not in depth_sentence(metrics, "test", n_test)
    assert "profiles that have enough" not in fitted.conclusion_
    metrics.loc[metrics["metric"] == AT_RATIO[10], "n_profiles"] = 7
    said = depth_sentence(metrics, "test", n_test)
    assert said.startswith("From 1/10 of the molecules, over the 7 profiles that have enough, the model, read at that")


def test_the_judge_says_so_of_its_own_profiles(fitted: Autoencoder) -> None:
    """Of 40 profiles, 15 have too few molecules for a twentieth; the others are compared, and that is said."""
    model, few = fitted.fitted(), 15
    both = anndata.concat([simulate(few, depth=150), simulate(40 - few, depth=2000)], index_unique="-")
    expression = model.preprocess.match(read_profiles(both))[0].load()
    names = pd.Index([f"p{number}" for number in range(40)])
    split, obs = pd.Series("test", index=names), pd.DataFrame(index=names)
    data = JudgingData(
        Settings(**QUICK), obs, split, expression, model.preprocess, has_decoder=True, has_estimator=True
    )
    prepared = Depths().prepare(data)
    assert prepared is not None
    found = prepared.judge(model, None)  # type: ignore[arg-type]
    n_profiles = int(found.metrics["n_profiles"].max())
    assert 40 - few <= n_profiles < 40
    assert found.sentence.startswith(f"From 1/10 of the molecules, over the {n_profiles} profiles that have enough, ")


def test_in_one_way_the_second_block_is_a_target_alone(fitted: Autoencoder, expression: Expression) -> None:
    model = fitted.fitted()
    models = predictors(model, is_half=True)
    pair = draw_halves(Splitter(expression.rows), expression.totals, np.random.default_rng(0))
    blocks, totals = [model.preprocess.apply(half) for half in pair], [half.totals for half in pair]
    both = products_of(models, blocks, ("none",), totals)
    (alone,) = products_of(models, blocks, ("none",), totals, is_one_way=True)
    for name in models:
        assert torch.equal(alone[name]["none"].cross, both[0][name]["none"].cross)
        assert torch.equal(alone[name]["none"].target, both[0][name]["none"].target)
