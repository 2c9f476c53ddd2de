"""Labels that took no part in training: votes of neighbours, probes, clusters, controls."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, simulate
from reference import csr
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from geneae.data.preprocess import fit_preprocess
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.evaluation import labels
from geneae.evaluation.controls import supervised_control, untrained_controls
from geneae.evaluation.judge import JudgingData
from geneae.evaluation.labels import (
    Labelled,
    Labels,
    clusters,
    judge_latents,
    knn_is_right,
    label_verdict,
    labelled,
    nearest_labels,
    probe_is_right,
    probed_labels,
)
from geneae.evaluation.latents import encode
from geneae.evaluation.records import COLUMNS
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


def judging_data(profiles: Profiles, obs: pd.DataFrame, split: pd.Series, **settings: Any) -> JudgingData:
    """What judges see of these profiles, with genes chosen on the first hundred."""
    preprocess = fit_preprocess(profiles, np.arange(100))
    expression, _ = preprocess.match(profiles)
    return JudgingData(replace(SETTINGS, **settings), obs, split, expression, preprocess, has_decoder=False)


def test_votes_are_those_of_the_nearest_by_cosine() -> None:
    rng = np.random.default_rng(0)
    reference, queries = rng.normal(size=(40, 6)), rng.normal(size=(60, 6))
    kinds = rng.integers(3, size=40)
    found = nearest_labels(reference, kinds, queries, k=7)
    for query, voted in zip(queries, found, strict=True):
        cosines = reference @ query / np.linalg.norm(reference, axis=1) / np.linalg.norm(query)
        nearest = np.argsort(-cosines)[:7]
        votes = [np.exp((cosines[nearest][kinds[nearest] == kind] - 1) / 0.1).sum() for kind in range(3)]
        assert voted == np.argmax(votes)
    assert len(set(found)) == 3
    sparse_found = nearest_labels(sparse.csr_matrix(reference), kinds, sparse.csr_matrix(queries), 7)
    np.testing.assert_array_equal(sparse_found, found)
    np.testing.assert_array_equal(nearest_labels(3 * reference, kinds, 0.1 * queries, 7), found)  # lengths do not count
    assert nearest_labels(reference, kinds, queries, k=200).shape == (60,)  # fewer references than votes


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


def test_a_product_that_is_said_to_be_invalid_warns_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """As OpenBLAS does now and then of finite matrices."""
    fit = LogisticRegression.fit

    def noisy_fit(self: LogisticRegression, *known: Any) -> LogisticRegression:
        assert np.isnan(np.array([np.inf]) - np.inf)
        return fit(self, *known)

    values, codes = np.random.default_rng(0).normal(size=(60, 3)), np.repeat([0, 1], 30)
    values[:, 0] += 10 * codes
    monkeypatch.setattr(LogisticRegression, "fit", noisy_fit)
    np.testing.assert_array_equal(probed_labels(values[::2], codes[::2], values), codes)


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
    data = judging_data(profiles, obs, split)
    known = labelled(data, "kind")
    assert set(known.names) == set(obs.index[5:])
    np.testing.assert_array_equal(known.split, split[known.names])
    kinds = sorted(set(obs["kind"].dropna()))
    np.testing.assert_array_equal([kinds[label] for label in known.labels], obs["kind"][known.names])
    whole = data.preprocess.apply(data.expression)
    assert (known.matrix != whole[obs.index.get_indexer(known.names)]).nnz == 0
    with pytest.raises(InputError, match="unknown obs column 'kinds'; did you mean 'kind'"):
        labelled(data, "kinds")
    with pytest.raises(InputError, match=r"column 'one' has 1\. Name another column with --label"):
        labelled(replace(data, obs=obs.assign(one="x")), "one")


def test_labels_are_judged_only_where_they_are_asked_for(profiles: Profiles) -> None:
    split = pd.Series(np.where(np.arange(240) % 4 == 0, "test", "train"), index=profiles.names)
    assert Labels().prepare(judging_data(profiles, profiles.obs, split, label=None)) is None
    prepared = Labels().prepare(judging_data(profiles, profiles.obs, split, label="kind"))
    assert prepared is not None
    assert prepared.watch is not None


def test_too_many_profiles_are_sampled(profiles: Profiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geneae.evaluation.latents.MOST_PROFILES", 30)
    split = pd.Series("train", index=profiles.names)
    split.iloc[200:] = "test"
    first, again = (labelled(judging_data(profiles, profiles.obs, split, seed=3), "kind") for _ in range(2))
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


def test_the_supervised_control_learns_from_labels(profiles: Profiles) -> None:
    split = pd.Series(np.where(np.arange(240) % 4 == 0, "test", "train"), index=profiles.names)
    baselines = fit(profiles, replace(SETTINGS, epochs=1)).model.baselines
    preprocess = fit(profiles, replace(SETTINGS, epochs=1)).model.preprocess
    data = replace(judging_data(profiles, profiles.obs, split), preprocess=preprocess)
    known = labelled(replace(data, expression=preprocess.match(profiles)[0]), "kind")
    found = untrained_controls(known.matrix, baselines, SETTINGS)
    supervised = supervised_control(known.matrix, known.labels, known.among("train"), baselines, SETTINGS)
    right = {
        name: knn_is_right(known, values, "test", 20).mean()
        for name, values in {"supervised": supervised, **found}.items()
    }
    assert right["supervised"] > right["random_encoder"]
    torch.manual_seed(SETTINGS.seed)
    random = random_network(baselines.whole.mean, SETTINGS.n_latent, SETTINGS.hidden, SETTINGS.dropout)
    np.testing.assert_array_equal(found["random_encoder"], encode(random, known.matrix))
    assert found["pca"].shape == (240, SETTINGS.n_latent)


def test_without_igraph_there_are_no_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "can_cluster", lambda: False)
    values, kinds = np.random.default_rng(0).normal(size=(50, 3)), np.arange(50) % 2
    _, metrics = judge_latents(known_of(values, kinds, 30), {"model": values}, seed=0)
    assert set(metrics["metric"]) == {"knn_20", "knn_200", "linear_probe"}


def simple(right: dict[str, list[float]]) -> pd.DataFrame:
    """k-NN right or wrong by model, of test profiles."""
    tables = [
        pd.DataFrame({"model": model, "profile": [f"p{i}" for i in range(len(of))], "split": "test", "knn_20": of})
        for model, of in right.items()
    ]
    return pd.concat(tables, ignore_index=True)


RIGHT = {
    "model": [1.0, 1, 1, 0, 1, 1, 1, 1, 1, 1],
    "random_encoder": [0.0] * 9 + [1.0],
    "raw_input": [1.0, 1, 0, 0, 1, 1, 1, 1, 1, 1],
    "pca": [1.0, 1, 1, 0, 1, 1, 1, 1, 1, 1],
}


def test_the_verdict_names_every_control() -> None:
    said = label_verdict(simple(RIGHT), "test")
    assert said.startswith("By 20-NN accuracy of labels on 10 test profiles, the latent beats ")
    assert "beats random encoder (+0.8000" in said
    assert "cannot be distinguished from raw input (+0.1000" in said
    assert "is as good as PCA of the same size (0.0000" in said


def test_an_encoder_is_held_against_its_controls() -> None:
    fires = {found.name: found.fires for found in labels._against_controls(simple(RIGHT), "test")}
    assert fires == {"knn_over_random_encoder": False, "knn_over_pca": True}


def test_diagnostics_fire_where_something_is_wrong(encoder: Fitted) -> None:
    rows = [
        ("model", 0, split, metric, "mean", value, 10, "")
        for split, metric, value in (
            ("test", "effective_rank", 1.2),
            ("validation", "latent_spread", 0.05),
            ("validation", "opposite_halves", 0.4),
        )
    ]
    found = diagnose_latents(pd.DataFrame(rows, columns=COLUMNS), 32, "test")
    assert {diagnostic.name: diagnostic.fires for diagnostic in found} == {
        "effective_rank": True,
        "latent_spread": True,
        "opposite_halves": True,
    }
    good = encoder.diagnostics.set_index("name")["fires"]
    assert list(good.index) == [*(d.name for d in found), "knn_over_random_encoder", "knn_over_pca"]
    assert not good[["effective_rank", "latent_spread"]].any()


def test_reconstructions_can_be_judged_by_labels_too(profiles: Profiles) -> None:
    fitted = fit(profiles, replace(Settings(**QUICK), label="kind", epochs=1))
    assert {"validation_knn_20", "validation_cosine"} <= set(fitted.history.columns)
    table = fitted.evaluation.profiles
    own = table[table["model"] == "model"]
    assert own[["cosine", "knn_20", "linear_probe"]].notna().all(axis=None)
    plain = fit(profiles, replace(Settings(**QUICK), epochs=1)).evaluation.profiles
    assert list(own["profile"]) == list(plain.loc[plain["model"] == "model", "profile"])


def test_profiles_without_a_label_are_counted_and_measurements_refused(profiles: Profiles) -> None:
    obs = profiles.obs.copy()
    obs["kind"] = obs["kind"].astype(object)
    obs.iloc[:5, obs.columns.get_loc("kind")] = [None, "", np.nan, None, 3]
    split = pd.Series(["train"] * 200 + ["test"] * (len(obs) - 200), index=obs.index)
    split.iloc[0] = "excluded"
    assert labelled(judging_data(profiles, obs, split), "kind").n_missing == 3
    obs["depth"] = np.round(np.linspace(0, 2, len(obs)), 1)  # 21 values for 240 profiles
    with pytest.raises(InputError, match=r"obs column 'depth' holds measurements, such as 0\.1\. Name another column"):
        labelled(judging_data(profiles, obs, split), "depth")
