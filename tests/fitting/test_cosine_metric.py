import json
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import N_GENES, N_PROFILES
from safetensors.numpy import load_file, save_file
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.estimator_checks import check_estimator

from geneae import Autoencoder, CosineMetric, read_profiles
from geneae.settings.errors import InputError
from geneae.training.similarity import centred_cosines, cosines, vote

QUICK = {"n_components": 4, "rank": 12, "epochs": 5, "batch_size": 64, "n_neighbors": 5}
"""Of a metric that takes a moment."""


def latents(n_profiles: int = 150, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three labels in a plane of little variance among eight dimensions, around a large common mean."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n_profiles)
    rows = 1.5 * rng.normal(size=(n_profiles, 8))
    angle = 2 * np.pi * labels / 3
    rows[:, :2] = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.3 * rng.normal(size=(n_profiles, 2))
    return rows + np.r_[0, 0, np.full(6, 5.0)], np.array(["a", "b", "c"])[labels]


def slow_cosines(x: np.ndarray, y: np.ndarray, a: np.ndarray) -> np.ndarray:
    """x'Ay / sqrt(x'Ax y'Ay)"""
    return x @ a @ y.T / np.sqrt(np.outer(((x @ a) * x).sum(1), ((y @ a) * y).sum(1)))


def test_it_keeps_the_contract_of_scikit_learn() -> None:
    """All checks; the one for other array libraries is skipped by scikit-learn, unless an environment variable asks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(CosineMetric(epochs=2), on_fail="raise")
    others = {found["check_name"]: found["status"] for found in results if found["status"] != "passed"}
    assert set(others.items()) <= {("check_array_api_input", "skipped")}
    assert len(results) > 40


def test_neighbours_by_the_metric_have_the_label_more_often() -> None:
    rows, labels = latents()
    others, truth = latents(seed=1)
    metric = CosineMetric(n_components=4, batch_size=32, epochs=60).fit(rows, labels)
    known = np.unique(labels, return_inverse=True)[1]
    right = {
        name: (np.array(["a", "b", "c"])[vote(similarity, known, 15)] == truth).mean()
        for name, similarity in (("plain", cosines(others, rows)), ("learned", metric.similarity(others, rows)))
    }
    assert right["plain"] < 0.85
    assert right["learned"] > 0.93
    assert metric.score(others, truth) > 0.9
    assert (metric.map_**2).sum(0)[:2].sum() > 0.8 * (metric.map_**2).sum()


@pytest.mark.parametrize("epsilon", [0.0, 0.01, 0.5])
def test_a_is_positive_and_has_the_trace_of_the_identity(epsilon: float) -> None:
    metric = CosineMetric(n_components=3, epsilon=epsilon, epochs=2).fit(*latents())
    a = metric.metric_
    np.testing.assert_array_equal(a, a.T)
    assert np.trace(a) == pytest.approx(8)
    np.testing.assert_allclose(np.linalg.eigvalsh(a)[:5], epsilon, atol=1e-12)  # outside of the map
    assert np.linalg.eigvalsh(a)[5] > epsilon


def test_similarities_are_the_cosines_under_a() -> None:
    rows, labels = latents()
    metric = CosineMetric(n_components=3, epsilon=0.2, epochs=2).fit(rows, labels)
    expected = slow_cosines(rows[:9], rows[9:30], metric.metric_)
    np.testing.assert_allclose(metric.similarity(rows[:9], rows[9:30]), expected, atol=1e-12)
    found = metric.similarity(sparse.csr_matrix(rows[:9]), sparse.csr_matrix(rows[9:30]))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(metric.similarity(7 * rows[:9], rows[9:30]), expected, atol=1e-12)
    np.testing.assert_allclose(metric.similarity(rows, rows).diagonal(), 1)
    assert (metric.similarity(np.zeros((1, 8)), rows) == 0).all()
    bare = CosineMetric(n_components=3, epsilon=0.0, epochs=2).fit(rows, labels)
    np.testing.assert_allclose(cosines(*[bare.transform(rows)] * 2), bare.similarity(rows, rows), atol=1e-12)


@pytest.mark.parametrize("as_rows", [np.asarray, sparse.csr_matrix])
def test_plain_and_centred_cosines_are_those_of_numpy(as_rows: type) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.poisson(1.0, size=(n, 30)).astype(float) for n in (5, 6))
    mean = y.mean(0)
    np.testing.assert_allclose(cosines(as_rows(x), as_rows(y)), slow_cosines(x, y, np.eye(30)), atol=1e-12)
    expected = slow_cosines(x - mean, y - mean, np.eye(30))
    np.testing.assert_allclose(centred_cosines(as_rows(x), as_rows(y), mean), expected, atol=1e-12)


def test_votes_are_those_of_scikit_learn_and_ties_go_to_the_nearer() -> None:
    rng = np.random.default_rng(0)
    known, others, codes = rng.normal(size=(50, 4)), rng.normal(size=(20, 4)), rng.integers(0, 2, 50)
    expected = KNeighborsClassifier(7, metric="cosine").fit(known, codes).predict(others)
    np.testing.assert_array_equal(vote(cosines(others, known), codes, 7), expected)
    similarity = np.array([[0.9, 0.5, 0.8, 0.7]])
    assert vote(similarity, np.array([1, 1, 0, 0]), 4) == [0]
    assert vote(similarity, np.array([1, 1, 0, 0]), 99) == [0]
    assert vote(similarity, np.array([1, 1, 0, 0]), 1) == [1]


def test_the_same_seed_gives_the_same_metric_and_leaves_random_numbers_alone() -> None:
    rows, labels = latents()
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one, same, other = (CosineMetric(epochs=2, batch_size=32, seed=seed).fit(rows, labels) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.map_, same.map_)
    assert not np.allclose(one.map_, other.map_)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_sparse_and_dense_rows_give_the_same_metric() -> None:
    rng = np.random.default_rng(0)
    rows = rng.poisson(0.5, size=(120, 40)).astype(float)
    labels = rng.integers(0, 2, 120)
    dense = CosineMetric(**QUICK).fit(rows, labels)
    for form in (sparse.csr_matrix(rows), sparse.csc_matrix(rows), sparse.csr_array(rows)):
        fitted = CosineMetric(**QUICK).fit(form, labels)
        np.testing.assert_allclose(fitted.metric_, dense.metric_, atol=1e-8)
        np.testing.assert_allclose(fitted.similarity(form, rows), dense.similarity(rows, rows), atol=1e-8)


def test_the_map_starts_blind_to_the_mean() -> None:
    rows, labels = latents()
    start = CosineMetric(n_components=3, epochs=1, learning_rate=1e-12).fit(rows, labels)
    mean = rows.mean(0) / np.linalg.norm(rows.mean(0))
    np.testing.assert_allclose(start.map_ @ mean, 0, atol=1e-5)
    whole = CosineMetric(n_components=99, epochs=1, learning_rate=1e-12).fit(rows, labels)
    np.testing.assert_allclose(whole.metric_, np.eye(8), atol=1e-5)  # where there is room, nothing is out of reach


def test_one_dimension_and_profiles_on_a_line_are_no_trouble() -> None:
    rows = np.r_[np.linspace(-2, -1, 10), np.linspace(1, 2, 10)][:, None]
    labels = np.repeat([0, 1], 10)
    assert CosineMetric(n_neighbors=3).fit(rows, labels).score(rows, labels) == 1
    along_mean = (3 + rows) * np.ones((1, 5))
    assert np.isfinite(CosineMetric(n_neighbors=3).fit(along_mean, labels).map_).all()


def test_genes_of_anndata_are_normalised_and_matched(counts: anndata.AnnData, counts_path: Path) -> None:
    metric = CosineMetric(**QUICK).fit(counts, "kind")
    model = Autoencoder(n_latent=4, hidden=8, rank=8, epochs=1).fit(counts).model_
    rows = metric.preprocess_.apply(metric.preprocess_.match(read_profiles(counts))[0])
    assert metric.preprocess_.space == model.preprocess.space
    np.testing.assert_allclose(metric.transform(counts), rows @ metric.map_.T, atol=1e-10)
    order = np.random.default_rng(0).permutation(N_GENES)
    np.testing.assert_allclose(metric.transform(counts[:, order].copy()), metric.transform(counts), atol=1e-5)
    by_path = CosineMetric(**QUICK).fit(str(counts_path), "kind")
    np.testing.assert_array_equal(by_path.map_, metric.map_)
    np.testing.assert_array_equal(CosineMetric(**QUICK).fit(counts, counts.obs["kind"]).map_, metric.map_)
    assert metric.score(counts, "kind") == metric.score(counts, counts.obs["kind"].to_numpy())
    assert metric.transform(counts).shape == (N_PROFILES, 4)
    assert list(metric.get_feature_names_out()) == [f"cosinemetric{i}" for i in range(4)]


def test_validation_profiles_choose_the_epoch() -> None:
    rows, labels = latents(300)
    known, others = (rows[:200], labels[:200]), (rows[200:], labels[200:])
    chosen = CosineMetric(n_components=3, epochs=6).fit(*known, validation=others)
    accuracy = chosen.history_["validation_accuracy"]
    assert list(chosen.history_["epoch"]) == list(range(7))
    assert chosen.best_epoch_ == accuracy.argmax()
    best = CosineMetric(n_components=3, epsilon=0.0, epochs=6).fit(*known, validation=others)
    codes = np.unique(known[1], return_inverse=True)[1]
    voted = np.array(["a", "b", "c"])[vote(best.similarity(others[0], known[0]), codes, 15)]
    assert (voted == others[1]).mean() == accuracy.max()
    alone = CosineMetric(n_components=3, epochs=6).fit(*known)
    assert alone.best_epoch_ == 6
    assert alone.history_["validation_accuracy"].isna().all()


def test_a_validation_label_that_is_new_is_never_right() -> None:
    rows, labels = latents()
    metric = CosineMetric(epochs=1).fit(rows, labels, validation=(rows, np.full(len(rows), "new")))
    assert (metric.history_["validation_accuracy"] == 0).all()


def test_a_metric_read_back_is_the_same(counts: anndata.AnnData, tmp_path: Path) -> None:
    metric = CosineMetric(**QUICK).fit(counts, "kind")
    metric.save(tmp_path / "metric")
    assert {path.name for path in (tmp_path / "metric").iterdir()} == {
        "SHA256SUMS",
        "config.json",
        "metric.safetensors",
        "genes.csv",
        "history.csv",
    }
    loaded = CosineMetric.load(tmp_path / "metric")
    assert loaded.get_params() == metric.get_params()
    np.testing.assert_array_equal(loaded.map_, metric.map_)
    np.testing.assert_array_equal(loaded.transform(counts), metric.transform(counts))
    pd.testing.assert_frame_equal(loaded.history_, metric.history_)
    assert list(loaded.classes_) == list(metric.classes_)
    with pytest.raises(InputError, match=r"already exists\. Choose another one, or add --overwrite"):
        metric.save(tmp_path / "metric")
    loaded.save(tmp_path / "metric", overwrite=True)
    rows, labels = latents()
    of_array = CosineMetric(epochs=1).fit(rows, labels)
    of_array.save(tmp_path / "array")
    assert not (tmp_path / "array" / "genes.csv").exists()
    np.testing.assert_array_equal(CosineMetric.load(tmp_path / "array").transform(rows), of_array.transform(rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a metric, to be damaged; without checksums, as earlier versions wrote it."""
    CosineMetric(epochs=1).fit(*latents()).save(tmp_path / "metric")
    (tmp_path / "metric" / "SHA256SUMS").unlink()
    return tmp_path / "metric"


def test_a_folder_that_is_no_metric_is_refused(folder: Path, model_folder: Path) -> None:
    with pytest.raises(
        InputError, match=r"is not the folder of a metric: it lacks metric\.safetensors\. Give a folder"
    ):
        CosineMetric.load(model_folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format": 99}))
    with pytest.raises(InputError, match=r"holds cosine-metric 99, but this version of geneae reads cosine-metric 1\."):
        CosineMetric.load(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(InputError, match="holds list, but this version"):
        CosineMetric.load(folder)
    for text in ("{", "[" * 100_000):
        (folder / "config.json").write_text(text)
        with pytest.raises(InputError, match=r"config\.json is not JSON"):
            CosineMetric.load(folder)


@pytest.mark.parametrize("damage", ["columns", "nan", "settings", "short"])
def test_a_damaged_folder_is_refused(folder: Path, damage: str) -> None:
    weights, config = folder / "metric.safetensors", json.loads((folder / "config.json").read_text())
    map_ = load_file(weights)["map"]
    if damage == "columns":
        save_file({"map": np.ascontiguousarray(map_[:, 1:])}, weights)
    elif damage == "nan":
        save_file({"map": map_ * np.nan}, weights)
    elif damage == "settings":
        (folder / "config.json").write_text(json.dumps(config | {"settings": {"epochs": 0}}))
    else:
        weights.write_bytes(weights.read_bytes()[:50])
    with pytest.raises(InputError, match=r"should be the folder of a metric, but its files do not fit together \("):
        CosineMetric.load(folder)


def test_genes_that_do_not_fit_are_refused(counts: anndata.AnnData, tmp_path: Path) -> None:
    CosineMetric(**QUICK).fit(counts, "kind").save(tmp_path / "metric")
    (tmp_path / "metric" / "SHA256SUMS").unlink()
    path = tmp_path / "metric" / "genes.csv"
    pd.read_csv(path).iloc[1:].to_csv(path, index=False)
    with pytest.raises(InputError, match=r"genes\.csv must hold 120 different genes"):
        CosineMetric.load(tmp_path / "metric")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_components": 0}, r"^components must be at least 1; found 0\.$"),
        ({"epochs": 0}, r"^epochs must be at least 1; found 0\.$"),
        ({"temperature": 0.0}, r"^temperature must be above 0; found 0\.$"),
        ({"epsilon": 1.0}, r"^epsilon must be at least 0 and below 1; found 1\.$"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CosineMetric(**settings).fit(*latents())


def test_labels_that_teach_nothing_are_refused(counts: anndata.AnnData) -> None:
    rows, labels = latents()
    with pytest.raises(InputError, match=r"at least two labels; found one class, 'x'\. Give others\."):
        CosineMetric().fit(rows, np.full(len(rows), "x"))
    with pytest.raises(InputError, match=r"must occur in two or more profiles; found 15 labels for 15 profiles\."):
        CosineMetric().fit(rows[:15], [f"label{i}" for i in range(15)])
    with pytest.raises(InputError, match=r"unknown obs column 'kinds'; did you mean 'kind'\? Available: donor, kind"):
        CosineMetric().fit(counts, "kinds")
    counts.obs.loc["cell3", "kind"] = np.nan
    with pytest.raises(InputError, match=r"a value for every profile; 1 of 240 have none, first 'cell3'\."):
        CosineMetric().fit(counts, "kind")
    with pytest.raises(InputError, match=r"'kind' can only name a column of AnnData; found ndarray\. Give the labels"):
        CosineMetric().fit(rows, "kind")
    fitted = CosineMetric(epochs=1).fit(rows, labels)
    with pytest.raises(InputError, match="learned on an array, so it has no gene names to match"):
        fitted.transform(counts)
    with pytest.raises(InputError, match="two profiles, because they are compared with each other; found 1 sample"):
        fitted.score(rows[:1], labels[:1])


def test_nothing_is_known_before_fitting(tmp_path: Path) -> None:
    rows, labels = latents()
    for use in (
        lambda metric: metric.transform(rows),
        lambda metric: metric.similarity(rows, rows),
        lambda metric: metric.score(rows, labels),
        lambda metric: metric.metric_,
        lambda metric: metric.save(tmp_path / "metric"),
    ):
        with pytest.raises(NotFittedError):
            use(clone(CosineMetric()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA])
def test_missing_labels_are_refused_and_counted(nothing: object) -> None:
    rows, labels = latents(30)
    some: list[object] = [f"k{label}" for label in labels]
    some[4] = some[7] = nothing
    text = "every profile must have a label; 2 of 30 have none, first profile 4 \\(counted from 0\\). Leave these"
    for y in (some, np.array(some, dtype=object), pd.Series(some), pd.Series(some, dtype="category")):
        with pytest.raises(InputError, match=text):
            CosineMetric(**QUICK).fit(rows, y)
    with pytest.raises(InputError, match=text):
        CosineMetric(**QUICK).fit(rows, labels, validation=(rows, some))
    with pytest.raises(InputError, match=text):
        CosineMetric(**QUICK).fit(rows, labels).score(rows, some)
