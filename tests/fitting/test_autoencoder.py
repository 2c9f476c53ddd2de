import inspect
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch
from conftest import N_GENES, N_PROFILES, QUICK, simulate, thinned
from scipy import sparse
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from geneae import Autoencoder, read_profiles
from geneae.evaluation.reconstruction import BY_PROFILE
from geneae.models.depths import COMPLETE
from geneae.settings.errors import InputError
from geneae.settings.settings import Settings
from geneae.training.devices import threads


def test_the_parameters_are_the_settings_with_their_defaults() -> None:
    assert Autoencoder().get_params() == asdict(Settings())
    parameters = inspect.signature(Autoencoder).parameters
    assert list(parameters) == [field.name for field in fields(Settings)]
    assert {name: one.default for name, one in parameters.items()} == asdict(Settings())
    kinds = [one.kind for one in parameters.values()]
    assert kinds == [inspect.Parameter.POSITIONAL_OR_KEYWORD] + [inspect.Parameter.KEYWORD_ONLY] * (len(kinds) - 1)
    assert (parameters["seed"].annotation, parameters["label"].annotation) == (int, str | None)


def test_the_loss_may_be_given_by_position_and_nothing_else() -> None:
    assert Autoencoder("cosine", n_latent=3).get_params() == asdict(Settings(loss="cosine", n_latent=3))
    with pytest.raises(TypeError, match="takes from 1 to 2 positional arguments but 3 were given"):
        Autoencoder("cosine", "simclr")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="got multiple values for argument 'loss'"):
        Autoencoder("cosine", loss="mse")


def test_a_parameter_that_there_is_not_is_refused() -> None:
    with pytest.raises(TypeError) as error:
        Autoencoder(n_latents=3)
    assert str(error.value) == (
        "Autoencoder.__init__() got an unexpected keyword argument 'n_latents'; did you mean 'n_latent'?"
    )


def test_every_parameter_is_kept_and_cloned() -> None:
    changed: dict[str, Any] = {}
    for name, default in asdict(Settings()).items():
        changed[name] = f"{default}x" if isinstance(default, str) else (default or 0) + 1
    model = Autoencoder(**changed)
    assert model.get_params() == changed
    assert clone(model).get_params() == changed
    assert clone(model) is not model
    assert Autoencoder().set_params(n_latent=7).n_latent == 7


def test_a_clone_of_a_fitted_one_is_not_fitted(fitted: Autoencoder) -> None:
    assert not hasattr(clone(fitted), "model_")
    assert "n_latent=4" in repr(fitted)


def test_impossible_settings_are_refused_when_fitting(counts: anndata.AnnData) -> None:
    with pytest.raises(InputError, match=r"^latent must be at least 1; found 0\.$"):
        Autoencoder(n_latent=0).fit(counts)


def test_nothing_is_known_before_fitting(counts: anndata.AnnData, tmp_path: Path) -> None:
    for use in (
        lambda model: model.transform(counts),
        lambda model: model.inverse_transform(np.zeros((1, 32))),
        lambda model: model.score_profiles(counts),
        lambda model: model.score(counts),
        lambda model: model.save(tmp_path / "run"),
    ):
        with pytest.raises(NotFittedError, match=r"has no model yet: call fit, or Autoencoder\.load"):
            use(Autoencoder())
    assert list(tmp_path.iterdir()) == []


def test_all_forms_of_the_same_profiles_give_the_same_fit(counts: anndata.AnnData, counts_path: Path) -> None:
    dense = counts.X.toarray()
    latents = [
        Autoencoder(**QUICK | {"epochs": 1}).fit(data).transform(data)
        for data in (
            counts,
            counts_path,
            str(counts_path),
            dense,
            counts.X,
            counts.X.tocsc(),
            sparse.csr_array(counts.X),
            pd.DataFrame(dense),
            read_profiles(counts),
        )
    ]
    assert latents[0].shape == (N_PROFILES, 4)
    assert latents[0].dtype == np.float32
    for latent in latents[1:]:
        np.testing.assert_array_equal(latent, latents[0])


def test_the_number_of_threads_changes_no_weight_and_numbers_in_their_last_digits() -> None:
    adata = simulate(300, 1500)  # large enough to be divided among threads
    fits = []
    for number in (1, 2):
        with threads(number):
            fits.append(Autoencoder(**QUICK | {"epochs": 1}).fit(adata))
    one, two = (fitted.model_.network.state_dict() for fitted in fits)
    assert all(bool((one[name] == two[name]).all()) for name in one)
    np.testing.assert_array_equal(*(fitted.transform(adata) for fitted in fits))
    tables = [fitted.evaluation_.profiles for fitted in fits]
    pd.testing.assert_frame_equal(*tables, rtol=1e-5, atol=1e-6)


def test_a_layer_and_raw_are_read_where_they_are_asked_for(counts: anndata.AnnData) -> None:
    expected = Autoencoder(**QUICK).fit_transform(counts)
    moved = anndata.AnnData(counts.X.log1p(), obs=counts.obs, var=counts.var, layers={"counts": counts.X})
    moved.raw = counts
    by_layer = Autoencoder(**QUICK).fit(moved, layer="counts")
    np.testing.assert_array_equal(by_layer.transform(moved, layer="counts"), expected)
    by_raw = Autoencoder(**QUICK).fit(moved, use_raw=True)
    np.testing.assert_array_equal(by_raw.transform(moved, use_raw=True), expected)
    for remembered in (by_layer, by_raw):
        np.testing.assert_array_equal(remembered.transform(moved), expected)
    assert by_layer.model_.config["data"]["location"] == "layers['counts']"
    assert Autoencoder(**QUICK).fit(moved).model_.config["data"]["state"] == "log"
    with pytest.raises(InputError, match="the model was fitted on counts, but AnnData in memory, X holds log"):
        by_layer.transform(moved, layer="X")


def test_a_reconstruction_is_the_decoded_latent_moved_to_its_neighbours(
    fitted: Autoencoder, counts: anndata.AnnData
) -> None:
    latent = fitted.transform(counts)
    predicted = fitted.inverse_transform(latent)
    network, model = fitted.model_.network, fitted.model_
    assert model.estimator is not None
    with torch.no_grad():
        hidden = model.estimator.at(COMPLETE).drawn(network.decode(torch.from_numpy(latent)))
        slope = model.estimator.curves.slopes[0]  # of complete profiles, as deep as what is predicted
        calibration = model.estimator.calibration if "calibration" in model.estimator.kept else 1.0
        expected = hidden @ network.components.T * calibration * slope + model.baselines.whole.mean
    assert predicted.shape == (N_PROFILES, len(model.preprocess.genes))
    assert predicted.dtype == np.float32
    np.testing.assert_allclose(predicted, expected, rtol=1e-4, atol=1e-4)


def test_scores_are_those_of_the_reconstruction(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    scores = fitted.score_profiles(counts)
    x = fitted.model_.preprocess.apply(fitted.model_.preprocess.match(read_profiles(counts))[0]).toarray()
    predicted = fitted.inverse_transform(fitted.transform(counts))
    cosine = (x * predicted).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(predicted, axis=1)
    assert list(scores.columns) == list(BY_PROFILE)
    assert list(scores.index) == list(counts.obs_names)
    np.testing.assert_allclose(scores["cosine"], cosine, rtol=1e-4)
    np.testing.assert_allclose(scores["mse"], ((x - predicted) ** 2).mean(1), rtol=1e-3)
    assert fitted.score(counts) == scores["heldout_cosine"].mean()


def test_the_score_without_counts_is_the_own_input_cosine(counts: anndata.AnnData) -> None:
    counts.X = counts.X.log1p()
    model = Autoencoder(**QUICK).fit(counts)
    assert model.score(counts) == model.score_profiles(counts)["cosine"].mean()


def test_the_numbers_of_the_fit_come_again_for_the_same_profiles(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    """Own-input numbers do: the halves of held-out numbers are drawn over all profiles in turn."""
    scores = fitted.score_profiles(counts)
    judged = fitted.evaluation_.profiles.query("model == 'model'").set_index("profile")
    np.testing.assert_allclose(judged["cosine"], scores.loc[judged.index, "cosine"], rtol=1e-9)
    np.testing.assert_allclose(judged["rescaled_mse"], scores.loc[judged.index, "rescaled_mse"], rtol=1e-9)


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 4, 1)])
def test_a_latent_of_another_shape_is_refused(fitted: Autoencoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError) as error:
        fitted.inverse_transform(np.zeros(shape))
    assert str(error.value) == f"latents must have shape (n_profiles, 4); found {shape}."


def test_profiles_are_read_at_the_depth_that_is_given_or_estimated(
    fitted: Autoencoder, counts: anndata.AnnData
) -> None:
    shallow, of_training = thinned(counts, 0.2), fitted.transform(counts)
    np.testing.assert_array_equal(fitted.transform(counts, depth_ratio=1.0), of_training)
    np.testing.assert_array_equal(fitted.transform(counts, depth_ratio=None), of_training)  # as deep as they were
    by_ratio = {ratio: fitted.transform(shallow, depth_ratio=ratio) for ratio in (1.0, 5.0, None)}
    np.testing.assert_allclose(by_ratio[None], by_ratio[5.0], atol=0.1)
    error = {ratio: np.abs(latent - of_training).mean() for ratio, latent in by_ratio.items()}
    assert max(error[5.0], error[None]) < error[1.0]
    alone = fitted.transform(shallow[:3].copy(), depth_ratio=5.0)
    np.testing.assert_allclose(alone, by_ratio[5.0][:3], rtol=1e-4, atol=1e-5)  # whatever the others are
    scores = {ratio: fitted.score_profiles(shallow, depth_ratio=ratio).mean() for ratio in (1.0, 5.0, None)}
    for score in ("heldout_cosine", "cosine"):
        assert min(scores[5.0][score], scores[None][score]) > scores[1.0][score]


@pytest.mark.parametrize("ratio", [0, -1.0, float("nan"), float("inf")])
def test_a_ratio_that_there_cannot_be_is_refused(fitted: Autoencoder, counts: anndata.AnnData, ratio: float) -> None:
    for use in (fitted.transform, fitted.score_profiles):
        with pytest.raises(InputError, match=rf"^depth_ratio must be a number above 0; found {ratio:g}\."):
            use(counts, depth_ratio=ratio)


def test_a_model_without_an_estimator_takes_no_ratio(counts: anndata.AnnData) -> None:
    counts.X = counts.X.log1p()
    model = Autoencoder(**QUICK | {"epochs": 1}).fit(counts)
    np.testing.assert_array_equal(model.transform(counts, depth_ratio=None), model.transform(counts))
    for use in (model.transform, model.score_profiles):
        with pytest.raises(InputError, match="this model knows one depth only, because it was not fitted on counts"):
            use(counts, depth_ratio=10.0)


def test_genes_are_matched_by_name(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    expected = fitted.transform(counts)
    order = np.random.default_rng(0).permutation(N_GENES)
    np.testing.assert_array_equal(fitted.transform(counts[:, order].copy()), expected)
    more = anndata.AnnData(
        sparse.hstack([counts.X, sparse.csr_matrix((N_PROFILES, 5))]).tocsr(),
        obs=counts.obs,
        var=pd.DataFrame(index=[*counts.var_names, *(f"other{i}" for i in range(5))]),
    )
    np.testing.assert_array_equal(fitted.transform(more), expected)


def test_missing_genes_count_as_not_measured_down_to_half_of_the_genes(
    fitted: Autoencoder, counts: anndata.AnnData
) -> None:
    model_genes = fitted.model_.preprocess.genes
    n_kept = -(-len(model_genes) // 2)
    some = counts[:, model_genes[:n_kept]].copy()
    zeroed = counts[:, model_genes].copy()
    zeroed.X = sparse.csr_matrix(zeroed.X.toarray() * (np.arange(len(model_genes)) < n_kept))
    complete, found = fitted.transform(counts), fitted.transform(some)
    assert np.linalg.norm(found - complete) < 0.3 * np.linalg.norm(fitted.transform(zeroed) - complete)
    fewer = counts[:, model_genes[: n_kept - 1]].copy()
    with pytest.raises(InputError) as error:
        fitted.transform(fewer)
    assert str(error.value).startswith(
        f"at least 50 % of the model's {len(model_genes)} genes must be in the data; found {n_kept - 1} of them among "
        f"{n_kept - 1} (model: gene0, gene1, gene2, ...; data: gene0, gene1, gene2, ...). Rename the genes"
    )


def test_it_is_a_step_of_a_pipeline(counts: anndata.AnnData) -> None:
    pipeline = make_pipeline(Autoencoder(**QUICK), PCA(2, random_state=0))
    found = pipeline.fit_transform(counts.X)
    latent = Autoencoder(**QUICK).fit_transform(counts.X)
    assert found.shape == (N_PROFILES, 2)
    np.testing.assert_allclose(
        np.abs(found), np.abs(PCA(2, random_state=0).fit_transform(latent)), rtol=1e-3, atol=1e-4
    )
    assert pipeline.named_steps["autoencoder"].n_features_in_ == N_GENES
    np.testing.assert_allclose(pipeline.transform(counts.X), found, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:These values are not logged")  # the arrays of the checks are of no genes
def test_it_keeps_the_whole_contract_of_scikit_learn_as_it_is() -> None:
    """No check is exempted, and no setting suits it to the small arrays that the checks are made with."""
    found = check_estimator(Autoencoder(), on_skip=None, expected_failed_checks={})
    by_status = pd.Series([result["status"] for result in found]).value_counts().to_dict()
    assert by_status.keys() == {"passed", "skipped"}
    assert by_status["passed"] >= 46
    assert [result["check_name"] for result in found if result["status"] == "skipped"] == ["check_array_api_input"]


def test_neighbours_in_its_latents_are_cross_validated(counts: anndata.AnnData) -> None:
    """The kind of a profile is its largest programme, which the latents tell and chance does not."""
    pipeline = make_pipeline(Autoencoder(**QUICK | {"epochs": 1}), KNeighborsClassifier(5))
    kinds = counts.obs["kind"].to_numpy()
    by_matrix = cross_val_score(pipeline, counts.X, kinds, cv=3)
    assert by_matrix.mean() > 0.8
    assert pd.Series(kinds).value_counts(normalize=True).max() < 0.5
    np.testing.assert_array_equal(cross_val_score(pipeline, counts, kinds, cv=3), by_matrix)


def test_a_search_finds_the_settings_of_the_best_held_out_cosine() -> None:
    adata = simulate(80, 60)
    search = GridSearchCV(Autoencoder(**QUICK | {"epochs": 1}), {"n_latent": [1, 3]}, cv=2).fit(adata)
    assert search.best_params_ == {"n_latent": 3}
    model = Autoencoder(**QUICK | {"epochs": 1, "n_latent": 3}).fit(adata[40:].copy())
    assert search.cv_results_["split0_test_score"][1] == model.score(adata[:40].copy())


def test_latents_as_a_table(counts: anndata.AnnData) -> None:
    frame = pd.DataFrame(counts.X.toarray(), index=counts.obs_names, columns=counts.var_names)
    model = Autoencoder(**QUICK | {"epochs": 1}).set_output(transform="pandas")
    found = model.fit_transform(frame)
    names = ["latent_0", "latent_1", "latent_2", "latent_3"]
    assert list(found.columns) == names == list(model.get_feature_names_out())
    assert list(found.index) == list(counts.obs_names)
    pd.testing.assert_frame_equal(model.transform(frame), found)
    pd.testing.assert_frame_equal(model.transform(frame[frame.columns[::-1]]), found)  # matched by name
    assert list(model.feature_names_in_) == list(counts.var_names)
    assert not hasattr(model.fit(counts.X), "feature_names_in_")


def test_an_array_must_have_the_genes_of_the_fit(counts: anndata.AnnData) -> None:
    model = Autoencoder(**QUICK | {"epochs": 1}).fit(counts.X)
    with pytest.raises(InputError) as error:
        model.transform(counts.X[:, :7])
    assert str(error.value) == (
        "X has 7 features, but Autoencoder is expecting 120 features as input. Give the genes that it was fitted on, "
        "or AnnData or a DataFrame, matched by name."
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (np.ones(5), "Expected 2D array, got 1D array instead: Reshape your data either using"),
        (np.ones((5, 3)) * 1j, "Complex data not supported. Give profiles x genes as numbers."),
        (np.ones((1, 3)), "Found array with 1 sample(s) (shape=(1, 3)) while a minimum of 2 is required"),
        ([["a", "b"], ["c", "d"]], "dtype='numeric' is not compatible with arrays of bytes/strings."),
        (np.ma.masked_array(np.ones((5, 3))), "profiles can be read from a path, AnnData, a numpy or scipy array"),
    ],
)
def test_an_array_that_is_none_is_one_clear_error(data: Any, text: str) -> None:
    with pytest.raises(InputError) as error:
        Autoencoder(n_latent=1).fit(data)
    assert str(error.value).startswith(text)
    assert "\n" not in str(error.value)


def test_a_layer_is_read_by_fit_and_transform_alike(counts: anndata.AnnData) -> None:
    moved = anndata.AnnData(counts.X.log1p(), obs=counts.obs, var=counts.var, layers={"counts": counts.X})
    found = Autoencoder(**QUICK).fit_transform(moved, layer="counts")
    np.testing.assert_array_equal(found, Autoencoder(**QUICK).fit_transform(counts))


def test_fitting_returns_itself_and_changes_no_data(counts: anndata.AnnData) -> None:
    before = counts.X.toarray()
    model = Autoencoder(**QUICK)
    assert model.fit(counts, y=None) is model
    np.testing.assert_array_equal(counts.X.toarray(), before)
    assert (list(counts.obsm), list(filter(None, counts.layers))) == ([], [])
    assert model.n_features_in_ == N_GENES
    assert list(model.history_["epoch"]) == [0, 1, 2, 3]


def test_each_epoch_is_told(counts: anndata.AnnData) -> None:
    seen: list[float] = []
    Autoencoder(**QUICK).fit(counts, on_epoch=lambda row: seen.append(row["epoch"]))
    assert seen == [0, 1, 2, 3]


def test_a_model_read_back_has_its_settings(fitted: Autoencoder, model_folder: Path, tmp_path: Path) -> None:
    loaded = Autoencoder.load(model_folder)
    assert loaded.get_params() == fitted.get_params()
    assert loaded.n_features_in_ == N_GENES
    loaded.save(tmp_path / "again")
    assert {path.name for path in (tmp_path / "again").iterdir()} == {
        "README.md",
        "SHA256SUMS",
        "config.json",
        "genes.csv",
        "model.safetensors",
        "settings.toml",
        "universe.csv",
    }
    other = simulate(20, seed=3)
    np.testing.assert_array_equal(Autoencoder.load(tmp_path / "again").transform(other), fitted.transform(other))


def test_real_cells_of_scanpy_work_from_end_to_end() -> None:
    """700 blood cells; X is scaled, raw is log-normalised."""
    adata = sc.datasets.pbmc68k_reduced()
    model = Autoencoder(**QUICK | {"epochs": 2}).fit(adata, use_raw=True)
    assert model.model_.config["data"]["state"] in ("log", "counts")
    latent = model.transform(adata, use_raw=True)
    assert latent.shape == (700, 4)
    assert model.score_profiles(adata, use_raw=True)["cosine"].between(0.5, 1).all()
    scaled = Autoencoder(**QUICK | {"epochs": 2}).fit(adata)
    assert (scaled.model_.config["data"]["state"], scaled.model_.preprocess.space) == ("scaled", "scaled")


def test_values_without_a_logarithm_are_a_warning_and_logarithms_are_none(counts: anndata.AnnData) -> None:
    dense = counts.X.toarray()
    normalised = 1e4 * dense / dense.sum(1, keepdims=True)
    with pytest.warns(UserWarning, match=r"These values are not logged \(whole numbers times a factor of each profile"):
        model = Autoencoder(**QUICK).fit(normalised)
    assert "data_not_logged" in set(model.diagnostics_.loc[model.diagnostics_["fires"], "name"])
    assert "data_not_logged" not in set(Autoencoder(**QUICK).fit(np.log1p(normalised)).diagnostics_["name"])


def test_counts_said_to_be_so_give_the_latents_of_the_counts(counts: anndata.AnnData) -> None:
    """From any logarithm of them, at the fit and afterwards."""
    dense = counts.X.toarray().astype(np.float64)
    expected = Autoencoder(**QUICK).fit_transform(dense)
    for values in (0.5 * dense, np.log2(1 + 1e6 * dense / dense.sum(1, keepdims=True))):
        model = Autoencoder(state="counts", **QUICK).fit(values)
        np.testing.assert_array_equal(model.transform(values), expected)
        assert model.model_.config["data"]["unit"]["is_proven"]
