from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, simulate
from dense_judge import STEPS, cosine, dense_held_out, dense_predictions
from made_up import FLAT, SPREAD, made_up
from scipy import sparse, stats
from sklearn.decomposition import PCA

from geneae import Autoencoder
from geneae.data.count_split import Splitter, halves
from geneae.data.preprocess import Expression
from geneae.data.reading import read_profiles
from geneae.evaluation.agreement import START, Agreement
from geneae.evaluation.depth import Depths
from geneae.evaluation.headline import headline
from geneae.evaluation.predictors import predictors, products_of
from geneae.evaluation.reconstruction import BY_PROFILE, evaluate, summarize, verdict
from geneae.evaluation.records import HELD_OUT, Evaluation, paired_difference, value
from geneae.fitting.fit import Fitted, fit
from geneae.fitting.prepare import prepare
from geneae.folders.run import own_profiles, write_tables
from geneae.settings.errors import InputError
from geneae.settings.settings import Settings
from geneae.training.batches import TRAINING_STREAM, draw_blocks

N, N_GENES = 120, 50
KINDS: dict[str, dict[str, Any]] = {
    "split": {},
    "self": {"target": "self", "center": "gene", "loss": "cosine"},
    "free": {"basis": "free", "loss": "pearson"},
}
OWN = ["model", "mean_profile", "pca", "shrunken_pca"]
ESTIMATED = ["model_latent_only", "whitened", "own_count"]
"""Further predictions of a model with an estimator."""
Judged = tuple[Fitted, Expression]


def own(judged: Judged) -> list[str]:
    """Names of the predictions of complete profiles."""
    return OWN if judged[0].model.estimator is None else OWN + ESTIMATED


@pytest.fixture(scope="module", params=KINDS)
def judged(request: pytest.FixtureRequest) -> Judged:
    """A fit, and its profiles; the last ones are so shallow that they cannot be held out."""
    adata = simulate(N, N_GENES, depth=150)
    dense = adata.X.toarray()
    dense[-12:] = np.random.default_rng(1).poisson(0.4, (12, N_GENES))
    adata.X = sparse.csr_matrix(dense)
    profiles = read_profiles(adata)
    fitted = fit(profiles, Settings(**QUICK | KINDS[request.param]))
    return fitted, fitted.model.preprocess.match(profiles)[0]


def whole(judged: Judged) -> Evaluation:
    """All profiles judged, whatever their split."""
    fitted, expression = judged
    return evaluate(fitted.model, expression, fitted.split.index, fitted.split, fit_scales=False)


def centred(x: np.ndarray, mean: np.ndarray, center: str) -> np.ndarray:
    return x - mean if center == "gene" else x - x.mean(1, keepdims=True) if center == "profile" else x


def dense_own_input(judged: Judged, scale: dict[str, float]) -> dict[str, dict[str, np.ndarray]]:
    """Every own-input column of every model, from dense float64 arrays and the formulas in their names."""
    fitted, expression = judged
    x = fitted.model.preprocess.apply(expression).toarray().astype(np.float64)
    mean = fitted.model.baselines.whole.mean.double().numpy()
    columns = {}
    for name, y in dense_predictions(fitted.model, x, expression.totals, is_half=False).items():
        norms = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
        error = ((x - y) ** 2).mean(1)
        by_length = (norms[0] - norms[1]) ** 2 / x.shape[1]
        pair = centred(x, mean, fitted.model.center), centred(y, mean, fitted.model.center)
        columns[name] = {
            "cosine": cosine(x, y),
            "centred_cosine": np.zeros(len(x)) if name == "mean_profile" else cosine(x - mean, y - mean),
            "mse": error,
            "relative_mse": error * x.shape[1] / norms[0] ** 2,
            "norm_ratio": norms[1] / norms[0],
            "direction_error": error - by_length,
            "magnitude_error": by_length,
            "rescaled_mse": ((pair[0] - scale[name] * pair[1]) ** 2).mean(1),
        }
    return columns


def test_own_input_numbers_agree_with_dense_arrays(judged: Judged) -> None:
    table = whole(judged).profiles
    expected = dense_own_input(judged, judged[0].model.scales)
    assert sorted(expected) == sorted(own(judged))
    for name, columns in expected.items():
        found = table[table["model"] == name]
        assert list(found["profile"]) == list(judged[0].split.index)
        for column, numbers in columns.items():
            np.testing.assert_allclose(found[column], numbers, rtol=2e-5, atol=2e-6, err_msg=f"{name} {column}")


def test_held_out_numbers_agree_with_dense_arrays(judged: Judged) -> None:
    table = whole(judged).profiles
    expected = dense_held_out(judged[0].model, judged[1])
    agreement = expected.pop("halves")
    assert 0 < np.isnan(agreement).sum() < 30
    assert set(table["model"]) == set(expected)
    for name, numbers in expected.items():
        np.testing.assert_allclose(table.loc[table["model"] == name, HELD_OUT], numbers, rtol=2e-5, atol=1e-6)


def test_summaries_agree_with_numpy(judged: Judged) -> None:
    found = whole(judged)
    split = judged[0].split.to_numpy()
    of_halves = dense_held_out(judged[0].model, judged[1])["halves"]
    for name in ("train", "validation", "test"):
        table = found.profiles[(found.profiles["model"] == "pca") & (found.profiles["split"] == name)]
        assert len(table) == (split == name).sum()
        for column in ("mse", HELD_OUT):
            numbers = table[column].to_numpy()
            rows = found.metrics.query("model == 'pca' and split == @name and metric == @column").set_index("statistic")
            expected = [np.nanmean(numbers), np.nanmedian(numbers), *np.nanquantile(numbers, [0.05, 0.95])]
            np.testing.assert_allclose(rows.loc[["mean", "median", "p05", "p95"], "value"], expected, rtol=1e-12)
            assert set(rows["n_profiles"]) == {int((~np.isnan(numbers)).sum())}
        ceiling = np.sqrt(np.nanmean(of_halves[split == name]))
        assert value(found.metrics, "model", name, "ceiling") == pytest.approx(ceiling, rel=1e-5)
        mean, pca = (value(found.metrics, model, name, HELD_OUT) for model in ("mean_profile", "pca"))
        skill = value(found.metrics, "pca", name, "skill")
        assert skill == pytest.approx((pca - mean) / (ceiling - mean), rel=1e-3)
        assert value(found.metrics, "mean_profile", name, "skill") == 0


def test_the_size_of_the_chunks_changes_nothing(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = whole(judged)
    monkeypatch.setattr("geneae.evaluation.predictors.CHUNK", 17)
    in_chunks = whole(judged)
    held_out = [table.profiles.pop(HELD_OUT) for table in (at_once, in_chunks)]  # in float32
    pd.testing.assert_series_equal(*held_out, rtol=1e-6, atol=1e-6)
    pd.testing.assert_frame_equal(at_once.profiles, in_chunks.profiles, rtol=1e-9, atol=1e-9)
    pd.testing.assert_frame_equal(at_once.metrics, in_chunks.metrics, rtol=1e-5, atol=1e-6)


def test_the_prediction_does_not_see_the_target_half(judged: Judged) -> None:
    model, expression = judged[0].model, judged[1]
    first, second = (model.preprocess.apply(half) for half in halves(expression, np.random.default_rng(0)))
    models = predictors(model, is_half=True)
    known, _ = products_of(models, [first, second], ("none",))
    other, _ = products_of(models, [first, second[::-1]], ("none",))
    assert set(models) >= {"model", "mean_profile", "pca"}
    for name in models:
        one, two = known[name]["none"], other[name]["none"]
        assert torch.equal(one.predicted, two.predicted)
        assert not torch.equal(one.cross, two.cross)


def test_copying_noise_pays_on_own_input_and_not_on_the_held_out_half() -> None:
    rng = np.random.default_rng(0)
    noise = read_profiles(rng.poisson(np.tile(rng.gamma(1, 3, 40), (300, 1))).astype(np.float32))
    metrics = fit(noise, Settings(**QUICK | {"n_latent": 32, "rank": 32, "target": "self"})).evaluation.metrics
    own, held_out = (
        [value(metrics, name, "test", metric) for name in ("model", "mean_profile")] for metric in ("cosine", HELD_OUT)
    )
    assert own[0] > own[1] + 0.5 * (1 - own[1])
    assert held_out[0] < held_out[1]
    ceiling, skill = (value(metrics, "model", "test", metric) for metric in ("ceiling", "skill"))
    assert (skill < 0) if ceiling > held_out[1] else np.isnan(skill)


def test_the_pca_rows_are_those_of_scikit_learn(judged: Judged) -> None:
    fitted, expression = judged
    split = fitted.split.to_numpy()
    x = fitted.model.preprocess.apply(expression).toarray().astype(np.float64)
    pca = PCA(4, svd_solver="full").fit(x[split == "train"])
    predicted = pca.inverse_transform(pca.transform(x[split == "test"]))
    table = fitted.evaluation.profiles.query("model == 'pca' and split == 'test'")
    np.testing.assert_allclose(table["cosine"], cosine(x[split == "test"], predicted), rtol=1e-3)
    assert table["mse"].mean() == pytest.approx(((x[split == "test"] - predicted) ** 2).mean(), rel=1e-3)
    train = expression.take(np.flatnonzero(split == "train"))
    blocks = draw_blocks(train, fitted.model.preprocess, Splitter(train.matrix), (0, TRAINING_STREAM, 0))
    pca = PCA(4, svd_solver="full").fit(sparse.vstack(blocks).toarray().astype(np.float64))
    basis = fitted.model.baselines.half
    assert basis is not None
    overlap = np.linalg.svd(pca.components_ @ basis.components[:, :4].double().numpy(), compute_uv=False)
    np.testing.assert_allclose(overlap, 1, atol=0.02)


def test_the_scale_comes_from_validation_profiles_alone(judged: Judged) -> None:
    fitted, expression = judged
    model = fitted.model
    rows = np.flatnonzero(fitted.split == "validation")
    x = model.preprocess.apply(expression).toarray().astype(np.float64)[rows]
    mean = model.baselines.whole.mean.double().numpy()
    for name, y in dense_predictions(fitted.model, x, expression.totals[rows], is_half=False).items():
        pair = centred(x, mean, model.center), centred(y, mean, model.center)
        if name != "mean_profile" or model.center != "gene":  # centred, the mean profile is nothing but rounding
            assert model.scales[name] == pytest.approx((pair[0] * pair[1]).sum() / (pair[1] ** 2).sum(), rel=1e-4)
    again = evaluate(model, expression, fitted.split.index, fitted.split, fit_scales=False)
    assert again.scales == model.scales


def test_the_error_divides_into_direction_and_magnitude_exactly(judged: Judged) -> None:
    table = whole(judged).profiles.dropna(subset="mse")
    np.testing.assert_allclose(table["direction_error"] + table["magnitude_error"], table["mse"], rtol=1e-6, atol=1e-9)


def test_a_profile_without_molecules_has_no_number(judged: Judged) -> None:
    fitted, expression = judged
    empty = Expression(expression.matrix[:3].multiply(np.array([[1], [0], [1]])).tocsr(), expression.totals[:3])
    empty.matrix.eliminate_zeros()
    names = pd.Index(["a", "b", "c"])
    found = evaluate(fitted.model, empty, names, pd.Series("all", index=names), fit_scales=False)
    rows = found.profiles.set_index("profile").loc["b", list(BY_PROFILE)]
    assert rows.isna().all(axis=None)
    assert set(found.metrics.query("metric == 'mse'")["n_profiles"]) == {2}


def test_with_a_partner_each_profile_is_to_predict_another_one(judged: Judged) -> None:
    fitted, expression = judged
    partner = np.roll(np.arange(expression.n_profiles), 1)
    found = evaluate(fitted.model, expression, fitted.split.index, fitted.split, False, partner).profiles
    x = fitted.model.preprocess.apply(expression).toarray().astype(np.float64)
    predicted = dense_predictions(fitted.model, x, expression.totals, is_half=False)
    for name in own(judged):
        rows = found[found["model"] == name]
        known = np.flatnonzero(rows["cosine"].notna())
        np.testing.assert_allclose(rows["cosine"].iloc[known], cosine(x[partner], predicted[name])[known], rtol=1e-5)
    expected = dense_held_out(judged[0].model, judged[1], partner)
    for name in own(judged):
        rows = found.loc[found["model"] == name, HELD_OUT]
        np.testing.assert_allclose(rows, expected[name], rtol=2e-5, atol=1e-6)


def test_evaluating_twice_gives_the_same_numbers(judged: Judged) -> None:
    pd.testing.assert_frame_equal(whole(judged).profiles, whole(judged).profiles)


def test_files_have_the_promised_columns(judged: Judged, tmp_path: Path) -> None:
    evaluation = judged[0].evaluation
    write_tables(tmp_path, {"metrics": evaluation.metrics, "profiles": own_profiles(evaluation)})
    metrics, profiles = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("metrics", "profiles"))
    assert list(metrics.columns) == ["model", "seed", "split", "metric", "statistic", "value", "n_profiles", "better"]
    assert set(profiles.columns) == {
        *("profile", "split", "cosine", "centred_cosine", "mse", "relative_mse", "rescaled_mse", "norm_ratio"),
        *("direction_error", "magnitude_error", "heldout_cosine", "molecules", "shared_neighbours", "other_half_rank"),
    }
    assert list(profiles.columns[:2]) == ["profile", "split"]
    assert len(profiles) == 24
    assert profiles["profile"].is_unique
    at_shares = set(list(Depths.metrics)[:2])  # of these profiles of 150 molecules, few have 10 in a twentieth
    of_estimator = {"step_gain", "step_gain_error", *at_shares} if judged[0].model.estimator is not None else set()
    assert set(metrics["metric"]) == {
        *BY_PROFILE,
        "skill",
        "disattenuated_cosine",
        "ceiling",
        *of_estimator,
        *Agreement.metrics,
    }
    sizes = {name for name in judged[0].evaluation.metrics["model"] if name.startswith("pca_")}
    assert {"pca_4", "pca_8"} <= sizes <= {"pca_4", "pca_8", "pca_16", "pca_32"}
    assert set(metrics["model"]) == {*own(judged), *sizes, *([] if own(judged) == OWN else [*STEPS, START])}
    assert {"validation", "test"} == set(metrics["split"]) == set(profiles["split"])
    assert {"mean", "median", "p05", "p95"} == set(metrics["statistic"])
    better = metrics.groupby("metric")["better"].first().fillna("").to_dict()
    assert better["mse"] == better["rescaled_mse"] == better["direction_error"] == "lower"
    assert better["cosine"] == better["heldout_cosine"] == better["skill"] == better["ceiling"] == "higher"
    assert better["norm_ratio"] == ""


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (0.01 + SPREAD, "beats PCA of the same size (+0.0100 ± 0.0004)"),
        (-0.01 + SPREAD, "is worse than PCA of the same size (-0.0100 ± 0.0004)"),
        (0.0003 + SPREAD, "cannot be distinguished from PCA of the same size (+0.0003 ± 0.0004)"),
        (-0.0003 + SPREAD, "cannot be distinguished from PCA of the same size (-0.0003 ± 0.0004)"),
        (0.0005 + SPREAD, "beats PCA of the same size (+0.0005 ± 0.0004)"),
        (FLAT + 1e-9, "is as good as PCA of the same size (0.0000 ± 0.0000)"),
    ],
)
def test_the_verdict_says_what_the_differences_show(difference: np.ndarray, said: str) -> None:
    found = made_up({"mean_profile": FLAT + 0.2, "pca": difference, "pca_4": FLAT + 0.3, "pca_8": FLAT + 0.1})
    assert verdict(found, "test") == f"{headline(found, 'test')} " + (
        "On 100 test profiles, evaluated against the other half of the molecules (held-out cosine), the model "
        f"{said}, beats the best PCA (size 8) (+0.1000 ± 0.0000). "
        "Its 0.7000 is 50 % of the way from the mean profile (0.5000) to the noise ceiling (0.9000)."
    )


def test_the_verdict_without_counts_says_what_it_cannot_say() -> None:
    found = made_up({"mean_profile": FLAT + 0.2, "pca": 0.01 + SPREAD}, "centred_cosine")
    assert verdict(found, "test") == f"{headline(found, 'test')} " + (
        "On 100 test profiles, evaluated against their own input (centred cosine), the model beats PCA of the same "
        "size (+0.0100 ± 0.0004). Without counts there is no held-out cosine, and an own-input cosine also rewards "
        "copying noise."
    )


def test_the_verdict_without_a_pca_of_another_size_leaves_that_comparison_out() -> None:
    found = made_up({"mean_profile": FLAT + 0.2, "pca": 0.01 + SPREAD})
    assert verdict(found, "test") == f"{headline(found, 'test')} " + (
        "On 100 test profiles, evaluated against the other half of the molecules (held-out cosine), the model "
        "beats PCA of the same size (+0.0100 ± 0.0004). "
        "Its 0.7000 is 50 % of the way from the mean profile (0.5000) to the noise ceiling (0.9000)."
    )


@pytest.mark.parametrize(("n_profiles", "n_genes"), [(60, 3), (4, 50)])
def test_few_genes_or_profiles_have_a_verdict(n_profiles: int, n_genes: int) -> None:
    data = simulate(n_profiles, n_genes)
    found = fit(read_profiles(data), Settings(**QUICK | {"n_latent": 1, "validation": 0.25, "test": 0.25}))
    assert not any(name.startswith("pca_") for name in found.evaluation.metrics["model"])
    assert "PCA of the same size" in found.conclusion
    assert "the best PCA" not in found.conclusion


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_split_without_any_value_in_the_genes_of_the_model_is_refused(name: str) -> None:
    settings = Settings(**QUICK | {"n_top_genes": 1, "n_latent": 1})
    counts = simulate(80, 2).X.toarray()
    split = prepare(read_profiles(counts + 1), settings).split  # which depends on the number of profiles alone
    counts[:, 1], counts[:, 0] = 100, np.where(split == name, 0, np.arange(80) % 2)  # the first varies most
    with pytest.raises(InputError, match=rf"^8 {name} profiles without any value in the 1 gene of the model leave"):
        fit(read_profiles(counts), settings)


def test_one_profile_shows_nothing() -> None:
    found = made_up({"mean_profile": np.array([0.2]), "pca": np.array([0.1]), "pca_4": np.array([0.1])})
    assert "cannot be distinguished from PCA of the same size" in verdict(found, "test")


def test_paired_differences_have_the_standard_error_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    found = made_up({"mean_profile": rng.normal(0.1, 1, 50), "pca": rng.normal(0, 1, 50)})
    mean, error, differences = paired_difference(found.profiles, "model", "pca", "test", HELD_OUT)
    values = {
        name: found.profiles.loc[found.profiles["model"] == name, HELD_OUT].to_numpy() for name in ("model", "pca")
    }
    assert mean / error == pytest.approx(stats.ttest_rel(values["model"], values["pca"]).statistic)
    np.testing.assert_allclose(differences, values["model"] - values["pca"])


def test_a_number_that_is_not_there_is_nan(judged: Judged) -> None:
    metrics = judged[0].evaluation.metrics
    assert np.isnan(value(metrics, "model", "test", "nothing"))
    assert np.isnan(value(metrics, "nobody", "test", "mse"))


def test_values_that_are_no_counts_have_no_held_out_number(counts: Any) -> None:
    counts.X = counts.X.log1p()
    found = fit(read_profiles(counts), Settings(**QUICK)).evaluation
    assert set(found.profiles["model"]) == {"model", "mean_profile", "pca"}
    assert found.profiles[HELD_OUT].isna().all()
    assert {"skill", "ceiling", HELD_OUT}.isdisjoint(found.metrics["metric"])


def test_splits_are_summarised_apart(judged: Judged) -> None:
    fitted, expression = judged
    names = fitted.split.index
    everything = evaluate(fitted.model, expression, names, pd.Series("all", index=names), fit_scales=False)
    apart = whole(judged)
    assert list(pd.unique(everything.metrics["split"])) == ["all"]
    sizes = [(fitted.split == name).sum() for name in ("train", "validation", "test")]
    parts = [value(apart.metrics, "model", name, "mse") for name in ("train", "validation", "test")]
    assert value(everything.metrics, "model", "all", "mse") == pytest.approx(np.average(parts, weights=sizes))


def test_the_disattenuated_cosine_is_the_held_out_one_over_the_ceiling(judged: Judged) -> None:
    metrics = whole(judged).metrics
    for model in ("model", "mean_profile", "pca", "shrunken_pca"):
        expected = value(metrics, model, "test", HELD_OUT) / value(metrics, "model", "test", "ceiling")
        assert value(metrics, model, "test", "disattenuated_cosine") == pytest.approx(expected, abs=1e-12)


def test_a_seed_of_its_own_is_recorded(counts: Any) -> None:
    settings = replace(Settings(**QUICK), seed=3, epochs=1)
    assert set(fit(read_profiles(counts), settings).evaluation.metrics["seed"]) == {3}


@pytest.mark.parametrize(
    ("agreement", "skill", "ceiling"),
    [
        (0.81, 0.5, 0.9),
        (0.49003, np.nan, 0.70002),  # a way of less than the last digit
        (0.4899, np.nan, 0.69993),
        (0.48, np.nan, np.nan),
        (0.0, np.nan, np.nan),
    ],
)
def test_skill_is_the_share_of_the_way_to_the_ceiling_where_there_is_a_way(
    agreement: float, skill: float, ceiling: float
) -> None:
    """The mean profile lies at 0.7, the model at 0.8. A ceiling below the mean profile is none."""
    tables = [
        pd.DataFrame({"model": name, "split": "test", **dict.fromkeys(BY_PROFILE, np.nan), HELD_OUT: [cosine] * 5})
        for name, cosine in (("model", 0.8), ("mean_profile", 0.7))
    ]
    metrics = summarize(pd.concat(tables), np.full(5, agreement), np.full(5, "test"), 0)
    np.testing.assert_allclose(value(metrics, "model", "test", "skill"), skill)
    np.testing.assert_allclose(value(metrics, "model", "test", "ceiling"), ceiling, rtol=1e-5)
    assert value(metrics, "model", "test", HELD_OUT) == pytest.approx(0.8)


def test_genes_of_noise_have_no_correlation_with_their_prediction() -> None:
    """Sixty genes without signal beside sixty of programmes, at one depth, of profiles that the model has not seen."""
    rng = np.random.default_rng(5)
    rates = np.hstack([rng.dirichlet(np.full(4, 0.4), 480) @ rng.gamma(0.4, 1.0, (4, 60)), np.full((480, 60), 0.4)])
    rates[:, :60] *= 24 / rates[:, :60].sum(1, keepdims=True)
    counts = sparse.csr_matrix(rng.multinomial(1200, rates / rates.sum(1, keepdims=True)).astype(np.float32))
    model = Autoencoder(**QUICK).fit(counts[:240])
    table = model.gene_correlation(counts[240:]).set_index("gene")["correlation"]
    of_noise = table[table.index.astype(int) >= 60]
    assert len(of_noise) == 60
    assert abs(of_noise.mean()) < 0.05
    assert table[table.index.astype(int) < 60].mean() > 0.15
