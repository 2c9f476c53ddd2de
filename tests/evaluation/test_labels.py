"""Labels that took no part in training: votes of neighbours, probes, clusters, controls."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, simulate
from reference import csr
from scipy import sparse

from geneae.data.preprocess import fit_preprocess
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.evaluation.controls import controls
from geneae.evaluation.labels import (
    COLUMNS,
    Labelled,
    clusters,
    encode,
    judge_latents,
    knn_is_right,
    knn_votes,
    label_verdict,
    labelled,
    merge,
    paired,
    probe_is_right,
)
from geneae.evaluation.records import Evaluation
from geneae.evaluation.views import diagnose_latents
from geneae.fitting.fit import Fitted, fit
from geneae.models.network import random_network
from geneae.settings.errors import InputError
from geneae.settings.settings import Settings

SETTINGS = Settings(
    **QUICK | {"epochs": 2}, objective="simclr", basis="free", init="random", label="kind", device="cpu"
)


@pytest.fixture(scope="module")
def profiles() -> Profiles:
    return read_profiles(simulate())


@pytest.fixture(scope="module")
def encoder(profiles: Profiles) -> Fitted:
    return fit(profiles, SETTINGS)


def known_of(values: np.ndarray, labels: np.ndarray, n_train: int) -> Labelled:
    """Training profiles first, test profiles after them."""
    split = np.array(["train"] * n_train + ["test"] * (len(values) - n_train))
    return Labelled(csr(np.abs(values)), pd.Index([f"p{i}" for i in range(len(values))]), labels, split)


def test_votes_are_those_of_the_nearest_by_cosine() -> None:
    rng = np.random.default_rng(0)
    reference, queries = rng.normal(size=(40, 6)), rng.normal(size=(9, 6))
    labels = rng.integers(3, size=40)
    found = knn_votes(reference, labels, queries, 3, k=7)
    for query, votes in zip(queries, found, strict=True):
        cosines = reference @ query / np.linalg.norm(reference, axis=1) / np.linalg.norm(query)
        nearest = np.argsort(-cosines)[:7]
        expected = [np.exp((cosines[nearest][labels[nearest] == kind] - 1) / 0.1).sum() for kind in range(3)]
        np.testing.assert_allclose(votes, expected, rtol=1e-8)
    np.testing.assert_allclose(knn_votes(sparse.csr_matrix(reference), labels, sparse.csr_matrix(queries), 3, 7), found)
    np.testing.assert_allclose(knn_votes(3 * reference, labels, 0.1 * queries, 3, 7), found)  # lengths do not count
    assert knn_votes(reference, labels, queries, 3, k=200).shape == (9, 3)  # fewer references than votes


def test_neighbours_and_probe_find_what_is_there_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=300)
    values = np.eye(3)[labels] * 4 + rng.normal(size=(300, 3))
    known = known_of(values, labels, 200)
    assert knn_is_right(known, values, "test", 20).mean() > 0.9
    assert probe_is_right(known, values)[200:].mean() > 0.9
    noise = rng.normal(size=(300, 3))
    assert abs(knn_is_right(known, noise, "test", 20).mean() - 1 / 3) < 5 * np.sqrt(2 / 9 / 100)
    assert abs(probe_is_right(known, noise)[200:].mean() - 1 / 3) < 5 * np.sqrt(2 / 9 / 100)
    assert probe_is_right(known, values).shape == (300,)


def test_judged_profiles_do_not_vote() -> None:
    rng = np.random.default_rng(1)
    values, labels = rng.normal(size=(60, 4)), rng.integers(2, size=60)
    known = known_of(values, labels, 40)
    others = labels.copy()
    others[41:] = 1 - others[41:]
    right = [knn_is_right(replace(known, labels=some), values, "test", 20)[0] for some in (labels, others)]
    assert right[0] == right[1]


@pytest.mark.slow
def test_clusters_are_the_groups_that_are_far_apart() -> None:
    groups = np.repeat([0, 1, 2], 40)
    values = np.eye(3)[groups] * 50 + np.random.default_rng(0).normal(size=(120, 3))
    found = clusters(values, seed=0)
    assert all(len(set(groups[found == cluster])) == 1 for cluster in set(found))
    np.testing.assert_array_equal(found, clusters(values, seed=0))
    assert torch.get_num_threads() == 1  # as conftest has set it, though the search for neighbours changes it


def test_profiles_without_a_label_are_left_out(profiles: Profiles) -> None:
    obs = profiles.obs.copy()
    obs["kind"] = obs["kind"].astype(object)
    obs.iloc[:5, obs.columns.get_loc("kind")] = None
    split = pd.Series(np.where(np.arange(len(obs)) % 4 == 0, "test", "train"), index=obs.index)
    preprocess = fit_preprocess(profiles, np.arange(100))
    expression, _ = preprocess.match(profiles)
    known = labelled(expression, preprocess, obs, split, "kind", 0)
    assert set(known.names) == set(obs.index[5:])
    np.testing.assert_array_equal(known.split, split[known.names])
    kinds = sorted(set(obs["kind"].dropna()))
    np.testing.assert_array_equal([kinds[label] for label in known.labels], obs["kind"][known.names])
    assert (known.matrix != preprocess.apply(expression)[obs.index.get_indexer(known.names)]).nnz == 0
    with pytest.raises(InputError, match="unknown obs column 'kinds'; did you mean 'kind'"):
        labelled(expression, preprocess, obs, split, "kinds", 0)
    with pytest.raises(InputError, match=r"column 'one' has 1 different values among them\. Name another column"):
        labelled(expression, preprocess, obs.assign(one="x"), split, "one", 0)


def test_too_many_profiles_are_sampled(profiles: Profiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geneae.evaluation.latents.MOST_PROFILES", 30)
    preprocess = fit_preprocess(profiles, np.arange(100))
    expression, _ = preprocess.match(profiles)
    split = pd.Series("train", index=profiles.names)
    split.iloc[200:] = "test"
    first, again = (labelled(expression, preprocess, profiles.obs, split, "kind", 3) for _ in range(2))
    assert dict(pd.Series(first.split).value_counts()) == {"train": 30, "test": 30}
    assert list(first.names) == list(again.names)


def test_an_encoder_is_judged_beside_its_controls(encoder: Fitted) -> None:
    metrics = encoder.evaluation.metrics
    by_model = metrics[metrics["split"] == "test"].pivot_table(index="model", columns="metric", values="value")
    assert set(by_model.index) == {"model", "supervised", "raw_input", "pca", "random_encoder"}
    columns = ["knn_20", "knn_200", "linear_probe", "ari", "nmi"]
    assert by_model[columns].notna().all(axis=None)
    assert ((by_model[columns] >= -0.5) & (by_model[columns] <= 1)).all(axis=None)
    table = encoder.evaluation.profiles
    for model, means in by_model.iterrows():
        rows = table[(table["model"] == model) & (table["split"] == "test")]
        assert len(rows) == 24
        assert rows["knn_20"].mean() == pytest.approx(means["knn_20"])
    assert {"view_cosine", "opposite_halves", "effective_rank", "latent_norm"} <= set(metrics["metric"])
    last = encoder.history.iloc[-1]
    shown = metrics[(metrics["metric"] == "knn_20") & (metrics["split"] == "validation")].set_index("model")["value"]
    assert shown["model"] == pytest.approx(last["validation_knn_20"])  # what the history saw is what is told


def test_the_random_encoder_is_the_start_of_a_plain_fit(profiles: Profiles, encoder: Fitted) -> None:
    start = encoder.history.iloc[0]
    metrics = encoder.evaluation.metrics
    born = metrics[(metrics["model"] == "random_encoder") & (metrics["split"] == "validation")].set_index("metric")
    assert born.loc["knn_20", "value"] == pytest.approx(start["validation_knn_20"])


def test_labels_teach_the_ceiling(profiles: Profiles) -> None:
    split = pd.Series(np.where(np.arange(240) % 4 == 0, "test", "train"), index=profiles.names)
    fitted = fit(profiles, replace(SETTINGS, epochs=1))
    preprocess = fitted.model.preprocess
    expression, _ = preprocess.match(profiles)
    known = labelled(expression, preprocess, profiles.obs, split, "kind", 0)
    found = controls(known, fitted.model.baselines, SETTINGS)
    right = {name: knn_is_right(known, values, "test", 20).mean() for name, values in found.items()}
    assert right["supervised"] > right["random_encoder"]
    torch.manual_seed(SETTINGS.seed)
    born = random_network(fitted.model.baselines.whole.mean, SETTINGS.n_latent, SETTINGS.hidden, SETTINGS.dropout)
    np.testing.assert_array_equal(found["random_encoder"], encode(born, known.matrix))
    assert found["pca"].shape == (240, SETTINGS.n_latent)


def test_without_igraph_there_are_no_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geneae.evaluation.labels.can_cluster", lambda: False)
    values, labels = np.random.default_rng(0).normal(size=(50, 3)), np.arange(50) % 2
    found = judge_latents(known_of(values, labels, 30), {"model": values}, seed=0)
    assert set(found.metrics["metric"]) == {"knn_20", "knn_200", "linear_probe"}


def simple(right: dict[str, list[float]]) -> Evaluation:
    """k-NN right or wrong by model, of test profiles."""
    tables = [
        pd.DataFrame({"model": model, "profile": [f"p{i}" for i in range(len(of))], "split": "test", "knn_20": of})
        for model, of in right.items()
    ]
    return Evaluation(pd.concat(tables, ignore_index=True), pd.DataFrame(columns=COLUMNS), {})


RIGHT = {
    "model": [1.0, 1, 1, 0, 1, 1, 1, 1, 1, 1],
    "random_encoder": [0.0] * 9 + [1.0],
    "raw_input": [1.0, 1, 0, 0, 1, 1, 1, 1, 1, 1],
    "pca": [1.0, 1, 1, 0, 1, 1, 1, 1, 1, 1],
}


def test_differences_are_paired_by_profile() -> None:
    evaluation = simple(RIGHT)
    mean, error, n_profiles = paired(evaluation, "raw_input", "test")
    differences = np.array(RIGHT["model"]) - np.array(RIGHT["raw_input"])
    assert (mean, n_profiles) == (pytest.approx(0.1), 10)
    assert error == pytest.approx(differences.std(ddof=1) / np.sqrt(10))
    shuffled = replace(evaluation, profiles=evaluation.profiles.sample(frac=1, random_state=0))
    assert paired(shuffled, "raw_input", "test") == pytest.approx((mean, error, n_profiles))


def test_the_verdict_names_every_control() -> None:
    said = label_verdict(simple(RIGHT), "test")
    assert said.startswith("Judged by labels of 20 neighbours (k-NN accuracy) on 10 test profiles, the latent beats ")
    assert "beats random encoder (+0.8000" in said
    assert "cannot be told from raw input (+0.1000" in said
    assert "is as good as PCA of the same size (0.0000" in said


def test_diagnostics_fire_where_something_is_wrong(encoder: Fitted) -> None:
    evaluation = simple(RIGHT)
    rows = [
        ("model", 0, split, metric, "mean", value, 10, "")
        for split, metric, value in (
            ("test", "effective_rank", 1.2),
            ("validation", "latent_spread", 0.05),
            ("validation", "opposite_halves", 0.4),
        )
    ]
    bad = replace(evaluation, metrics=pd.DataFrame(rows, columns=COLUMNS))
    found = {diagnostic.name: diagnostic.fires for diagnostic in diagnose_latents(bad, 32, "test")}
    assert found == {
        "effective_rank": True,
        "latent_spread": True,
        "opposite_halves": True,
        "knn_over_random_encoder": False,
        "knn_over_pca": True,
    }
    good = encoder.diagnostics.set_index("name")["fires"]
    assert not good[["effective_rank", "latent_spread"]].any()


def test_merging_keeps_the_order_and_loses_nothing() -> None:
    first = Evaluation(
        pd.DataFrame({"model": ["model"] * 3, "profile": ["c", "a", "b"], "split": "test", "cosine": [0.1, 0.2, 0.3]}),
        pd.DataFrame(columns=COLUMNS),
        {"model": 2.0},
    )
    both = merge(first, simple({"model": [1.0], "pca": [0.0]}))
    assert list(both.profiles["profile"]) == ["c", "a", "b", "p0"]
    assert both.profiles["cosine"].notna().sum() == 3
    assert both.scales == {"model": 2.0}


def test_reconstructions_can_be_judged_by_labels_too(profiles: Profiles) -> None:
    fitted = fit(profiles, replace(Settings(**QUICK), label="kind", epochs=1))
    assert {"validation_knn_20", "validation_cosine"} <= set(fitted.history.columns)
    table = fitted.evaluation.profiles
    own = table[table["model"] == "model"]
    assert own[["cosine", "knn_20", "linear_probe"]].notna().all(axis=None)
    plain = fit(profiles, replace(Settings(**QUICK), epochs=1)).evaluation.profiles
    assert list(own["profile"]) == list(plain.loc[plain["model"] == "model", "profile"])
