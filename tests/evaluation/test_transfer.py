"""Labels that a query is given, what is refused, and what is said."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import QUICK, simulate, thinned

from geneae import Autoencoder, read_profiles
from geneae.evaluation.calibration import calibration_error, calibration_table
from geneae.evaluation.rehearsal import Reference, labelled_reference, rehearse
from geneae.evaluation.transfer import Transferred, balanced_accuracy, next_step, sentences, transfer, verdict
from geneae.models.model import Model
from geneae.settings.settings import TransferSettings


def query(seed: int = 5, share: float | np.ndarray = 0.9) -> anndata.AnnData:
    """The same profiles with fewer molecules, under other names."""
    adata = thinned(simulate(), share, seed)
    adata.obs_names = [f"other{number}" for number in range(adata.n_obs)]
    return adata


def reference_of(model: Model, adata: anndata.AnnData) -> Reference:
    profiles = read_profiles(adata)
    return labelled_reference(model, profiles, model.preprocess.match(profiles)[0], "kind")


def transferred(
    model: Model,
    reference: anndata.AnnData,
    adata: anndata.AnnData,
    settings: TransferSettings | None = None,
    by: str | None = None,
) -> Transferred:
    profiles = read_profiles(adata)
    expression = model.preprocess.match(profiles)[0]
    depths = model.depths_of(expression, None, None if by is None else profiles.obs[by])
    ratios = np.ones(profiles.n_profiles)
    for depth in depths:
        ratios[depth.rows] = depth.ratio
    latent, is_empty = model.latent(expression, ratios), profiles.scan.lengths == 0
    of = reference_of(model, reference)
    return transfer(of, profiles.names, latent, depths, is_empty, settings or TransferSettings())


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_labels_are_found_and_their_probabilities_hold(
    fitted: Autoencoder, counts: anndata.AnnData, share: float
) -> None:
    adata = query(share=share)
    found = transferred(fitted.fitted(), counts, adata)
    is_right = found.closest_labels == adata.obs["kind"].astype(str).to_numpy()
    assert is_right.mean() > (0.85 if share == 0.5 else 0.75)
    assert found.probability.mean() == pytest.approx(is_right.mean(), abs=0.06)
    assert found.is_refused.mean() < 0.1
    assert calibration_error(calibration_table(found.probability, is_right)) < 0.08


def test_each_depth_is_rehearsed_and_told_apart(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    """Profiles of a run are labelled as if the others were not there."""
    is_shallow = np.arange(counts.n_obs) % 3 == 0
    mixed = query(share=np.where(is_shallow, 0.1, 0.9))
    mixed.obs["run"] = np.where(is_shallow, "late", "early")
    model = fitted.fitted()
    found = transferred(model, counts, mixed, by="run")
    assert [round(one.ratio) for one in found.rehearsals] == [1, 10]
    assert found.rehearsals[0].limit != found.rehearsals[1].limit
    for some in (is_shallow, ~is_shallow):
        alone = transferred(model, counts, mixed[some].copy())
        np.testing.assert_array_equal(alone.closest, found.closest[some])
        np.testing.assert_allclose(alone.probability, found.probability[some], rtol=1e-4)
        np.testing.assert_allclose(alone.distance, found.distance[some], rtol=1e-3)
        np.testing.assert_array_equal(alone.is_refused, found.is_refused[some])
    facts = found.facts()
    np.testing.assert_allclose(facts["distance_limit"], [one.limit for one in found.rehearsals])
    assert (facts["n_reference"], facts["n_refused"]) == (240, found.is_refused.sum())


def test_a_kind_that_the_reference_lacks_is_refused_more_than_others(
    fitted: Autoencoder, counts: anndata.AnnData
) -> None:
    known = counts[counts.obs["kind"] != "k2"].copy()
    adata = query()
    found = transferred(fitted.fitted(), known, adata)
    is_new = (adata.obs["kind"] == "k2").to_numpy()
    assert found.is_refused[is_new].mean() > 0.6
    assert found.is_refused[~is_new].mean() < 0.15
    said = verdict(found, pd.Series(adata.obs["kind"].astype(str)))
    number = int(found.is_refused[is_new].sum())
    assert said[-1] == f"Labels of the query that the reference lacks: k2 ({number} of {is_new.sum()} refused)."
    assert sentences(found)[2].startswith("Of a query like the reference about 5 % would be refused: this one holds")


def test_profiles_of_the_reference_itself_are_looked_up_among_the_others(
    fitted: Autoencoder, counts: anndata.AnnData
) -> None:
    model = fitted.fitted()
    found = transferred(model, counts, counts, TransferSettings(n_neighbors=5))
    assert found.n_shared == 240
    rehearsal = rehearse(reference_of(model, counts), 1.0, TransferSettings(n_neighbors=5))
    votes, log_distance = rehearsal.vote(rehearsal.latent, rehearsal.rows)
    np.testing.assert_array_equal(found.closest, votes.argmax(1))
    assert found.is_refused.mean() == pytest.approx(0.05, abs=0.005)
    assert np.exp(log_distance).min() > 1e-6
    assert "240 profiles have names of reference profiles: each is looked up among the others alone." in sentences(
        found
    )


def test_profiles_that_the_model_was_trained_on_have_their_own_limit(
    fitted: Autoencoder, counts: anndata.AnnData
) -> None:
    """Those of the first part of the reference, and of the second part of the query."""
    model, known, adata = fitted.fitted(), read_profiles(counts), query()
    expression = model.preprocess.match(known)[0]
    trained = counts.obs_names[:120].append(adata.obs_names[120:])
    reference = labelled_reference(model, known, expression, "kind", trained)
    latent, is_empty = fitted.transform(adata), np.zeros(240, bool)
    found = transfer(reference, adata.obs_names, latent, [], is_empty, TransferSettings(refuse=0.5))
    (rehearsal,) = found.rehearsals
    limits = np.where(np.arange(240) < 120, rehearsal.limit, rehearsal.limit_of_trained)
    assert rehearsal.limit != rehearsal.limit_of_trained
    np.testing.assert_array_equal(found.is_refused, found.distance > limits)
    for wrong in (rehearsal.limit, rehearsal.limit_of_trained):  # either alone refuses others
        assert ((found.distance > wrong) != found.is_refused).any()


def test_a_profile_without_molecules_has_nothing(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    adata = query()
    matrix = adata.X.toarray()
    matrix[[2, 5]] = 0
    adata.X = matrix
    found = transferred(fitted.fitted(), counts, adata)
    assert list(np.flatnonzero(found.closest < 0)) == [2, 5]
    table = found.table(adata.obs_names)
    assert table.iloc[[2, 5]].isna().all(axis=None)
    assert table["geneae_probability"].notna().sum() == 238
    assert " With too few molecules: 2." in sentences(found)[0]
    others = transferred(fitted.fitted(), counts, query())
    np.testing.assert_allclose(np.delete(found.distance, [2, 5]), np.delete(others.distance, [2, 5]), rtol=1e-3)


def small(counts: anndata.AnnData, fitted: Autoencoder) -> Transferred:
    """Ten profiles by hand: eight labelled, one refused, one empty."""
    found = transferred(fitted.fitted(), counts, query()[:10].copy())
    return replace(
        found,
        closest=np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, -1]),
        probability=np.array([0.95, 0.95, 0.95, 0.95, 0.75, 0.75, 0.75, 0.75, 0.5, np.nan]),
        distance=np.array([1.0] * 8 + [3.0, np.nan]),
        is_refused=np.array([False] * 8 + [True, True]),
    )


def test_what_is_said_by_hand(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    found = small(counts, fitted)
    accuracy = 100 * found.rehearsals[0].accuracy
    assert sentences(found) == [
        "Labelled: 8 of 10 profiles. Refused: 1 (10.0 %), farther from their neighbours than 95 % of reference "
        "profiles at this depth. With too few molecules: 1.",
        "Labels closest to the refused: k2 (1).",
        f"Of reference profiles, {accuracy:.1f} % get their own label back from the others.",
    ]
    assert next_step(found) == (
        "Next: 4 labels of probability 0.9 or more promise to be right in 95.0 % of cases; look at the others one "
        "by one."
    )
    assert next_step(replace(found, probability=np.full(10, 0.89))) == ""
    truth = pd.Series(["k0"] * 4 + ["k1", "k1", "k0", None, "k2", "k2"])
    assert verdict(found, truth) == [
        "Accuracy by the query's own 'kind': 85.7 % of 7 labelled profiles (balanced 90.0 %), where probabilities "
        "promise 86.4 % (calibration error 0.064); the closest label of 100.0 % of the refused is right."
    ]
    truth = pd.Series(["new", "a", "b", "c", *["k1"] * 4, "new", None])
    assert verdict(found, truth)[1] == (
        "Labels of the query that the reference lacks: a (0 of 1 refused), b (0 of 1 refused), c (0 of 1 refused) and "
        "1 more."
    )
    assert verdict(found, pd.Series([None] * 10)) == []


def test_a_query_deeper_than_the_reference_is_said_instead_of_called_different(
    fitted: Autoencoder, counts: anndata.AnnData
) -> None:
    """Nothing can be made as deep as it, so that its distances tell nothing of other kinds."""
    found = transferred(fitted.fitted(), query(share=0.1), counts)
    said = " ".join(sentences(replace(found, is_refused=np.ones(240, bool))))
    assert "The query has 10" in said or "The query has 9" in said
    assert "times as many molecules as the reference, which cannot be made as deep: distances and prob" in said
    assert "at this depth" not in said
    assert "other kinds" not in said
    found = transferred(fitted.fitted(), query(share=0.1), query(share=0.1, seed=9))
    as_deep = " ".join(sentences(replace(found, is_refused=np.ones(240, bool))))
    assert "times as many molecules" not in as_deep
    assert "profiles at this depth" in as_deep
    assert "this one holds other kinds" in as_deep


def test_the_table_has_a_label_only_where_nothing_is_refused(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    found = small(counts, fitted)
    table = found.table(pd.Index(list("abcdefghij")), "my")
    assert list(table.columns) == ["my_label", "my_probability", "my_distance", "my_closest_label"]
    assert list(table["my_label"].dropna()) == ["k0"] * 4 + ["k1"] * 4
    assert list(table["my_closest_label"].dropna()) == ["k0"] * 4 + ["k1"] * 4 + ["k2"]
    assert list(table["my_label"].cat.categories) == ["k0", "k1", "k2", "k3"]


def test_nothing_is_refused_or_said_of_it_where_nobody_may_be(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    found = transferred(fitted.fitted(), counts, query(), TransferSettings(refuse=0.0))
    assert not found.is_refused.any()
    assert sentences(found)[0] == "Labelled: 240 of 240 profiles."


def test_balanced_accuracy_by_hand() -> None:
    true = np.array(["a"] * 8 + ["b"] * 2, dtype=object)
    given = np.array(["a"] * 8 + ["a", "b"], dtype=object)
    assert balanced_accuracy(true, given) == pytest.approx((1 + 0.5) / 2)


def test_a_model_of_one_depth_labels_and_says_so(counts: anndata.AnnData) -> None:
    counts.X = counts.X.log1p()
    model = Autoencoder(**QUICK | {"epochs": 1}).fit(counts).fitted()
    adata = query()
    adata.X = adata.X.log1p()
    found = transferred(model, counts, adata)
    assert (found.closest_labels == adata.obs["kind"].astype(str)).mean() > 0.8
    assert sentences(found)[0] == (
        "This model knows one depth only: profiles that are shallower or deeper than the reference are labelled worse "
        "than their probabilities say."
    )


def test_a_query_without_some_genes_is_compared_on_the_shared_ones(counts: anndata.AnnData) -> None:
    rich = simulate(n_genes=400, depth=2000)
    model = Autoencoder(**QUICK).fit(rich).fitted()
    adata = thinned(rich, 0.95, seed=4)
    adata.obs_names = [f"other{number}" for number in range(adata.n_obs)]
    adata = adata[:, np.random.default_rng(0).permutation(400)[:240]].copy()
    profiles = read_profiles(adata)
    expression = model.preprocess.match(profiles)[0]
    (depth,) = model.depths_of(expression)
    assert depth.ratio == 1
    of = reference_of(model, rich).without(expression.missing)
    assert of.expression.missing is not None
    n_shared, n_genes = int((~of.expression.missing).sum()), len(model.preprocess.genes)
    assert of.shared_genes() == (
        f"Query and reference are compared on the {n_shared} of the model's {n_genes} genes that both have."
    )
    assert of.without(expression.missing) is of
    assert reference_of(model, rich).shared_genes() == ""
    found = transfer(of, profiles.names, model.latent(expression), [depth], profiles.scan.lengths == 0)
    assert found.is_refused.mean() < 0.12
    assert (found.closest_labels == adata.obs["kind"].astype(str).to_numpy()).mean() > 0.9
