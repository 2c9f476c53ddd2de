"""What neighbours are worth: votes, probabilities, distances, and references that cannot be used."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import N_PROFILES, simulate, thinned

from geneae import Autoencoder, read_profiles
from geneae.evaluation import rehearsal as module
from geneae.evaluation.labels import nearest_labels
from geneae.evaluation.rehearsal import (
    PSEUDO_SHARE,
    Reference,
    fit_exponent,
    labelled_reference,
    nearest,
    probabilities,
    rehearse,
    votes_of,
)
from geneae.models.model import Model
from geneae.settings.errors import InputError
from geneae.settings.settings import TransferSettings


def reference_of(model: Model, adata: anndata.AnnData, key: str = "kind", trained: pd.Index | None = None) -> Reference:
    profiles = read_profiles(adata)
    return labelled_reference(model, profiles, model.preprocess.match(profiles)[0], key, trained)


def cosine_distances(among: np.ndarray, latent: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(latent, axis=1)[:, None] * np.linalg.norm(among, axis=1)
    return 1 - latent @ among.T / lengths


def test_neighbours_are_those_of_all_cosines() -> None:
    rng = np.random.default_rng(0)
    among, latent = rng.normal(size=(50, 4)), rng.normal(size=(9, 4))
    every = cosine_distances(among, latent)
    positions, distances = nearest(among, latent, 7)
    np.testing.assert_array_equal(positions, every.argsort(1)[:, :7])
    np.testing.assert_allclose(distances, np.sort(every, 1)[:, :7], atol=1e-12)
    positions, _ = nearest(among, 3 * latent, 7)  # lengths do not matter
    np.testing.assert_array_equal(positions, every.argsort(1)[:, :7])
    assert nearest(among, latent, 99)[0].shape == (9, 50)
    assert [found.shape for found in nearest(among, latent[:0], 7)] == [(0, 7), (0, 7)]


def test_a_profile_is_not_its_own_neighbour() -> None:
    rng = np.random.default_rng(1)
    among = rng.normal(size=(30, 3))
    own = np.array([4, 29, -1])
    latent = np.stack([among[4], -among[29], among[7]])  # the second is nowhere near itself, the third not in there
    every = cosine_distances(among, latent)
    every[0, 4] = every[1, 29] = np.inf
    positions, distances = nearest(among, latent, 5, own)
    np.testing.assert_array_equal(positions, every.argsort(1)[:, :5])
    assert distances[2, 0] == pytest.approx(0, abs=1e-12)
    assert nearest(among, latent, 99, own)[0].shape == (3, 29)


def test_votes_are_those_of_the_judge_of_labels() -> None:
    rng = np.random.default_rng(2)
    among, latent, codes = rng.normal(size=(80, 4)), rng.normal(size=(40, 4)), rng.integers(0, 3, 80)
    positions, distances = nearest(among, latent, 10)
    votes = votes_of(codes[positions], distances, 3)
    np.testing.assert_allclose(votes.sum(1), 1)
    weights = np.exp((1 - distances[0]) / 0.1)
    by_hand = [weights[codes[positions[0]] == label].sum() / weights.sum() for label in range(3)]
    np.testing.assert_allclose(votes[0], by_hand)
    np.testing.assert_array_equal(votes.argmax(1), nearest_labels(among, codes, latent, 10))


def test_probabilities_by_hand() -> None:
    votes = np.array([[1.0, 0.0, 0.0], [0.5, 0.3, 0.2]])
    found = probabilities(votes, 1.0)
    np.testing.assert_allclose(found, (votes + PSEUDO_SHARE) / (1 + 3 * PSEUDO_SHARE))
    sharper, flatter = probabilities(votes, 2.0), probabilities(votes, 0.5)
    np.testing.assert_allclose(sharper[1], (votes[1] + PSEUDO_SHARE) ** 2 / ((votes[1] + PSEUDO_SHARE) ** 2).sum())
    assert (sharper.max(1) > found.max(1)).all()
    assert (found.max(1) > flatter.max(1)).all()
    for each in (found, sharper, flatter):
        np.testing.assert_allclose(each.sum(1), 1)
        np.testing.assert_array_equal(each.argmax(1), votes.argmax(1))


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_the_exponent_that_made_labels_is_found(true: float) -> None:
    rng = np.random.default_rng(3)
    votes = rng.dirichlet(np.ones(4), 20_000)
    of = probabilities(votes, true).cumsum(1)
    codes = (rng.random((len(votes), 1)) > of[:, :-1]).sum(1)
    assert fit_exponent(votes, codes) == pytest.approx(true, rel=0.05)


def test_the_exponent_has_a_range() -> None:
    votes = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert fit_exponent(votes, np.array([0, 1])) == pytest.approx(10, rel=1e-3)  # always right
    assert fit_exponent(votes, np.array([1, 0])) == pytest.approx(0.1, rel=1e-3)  # always wrong


def test_only_profiles_with_a_label_are_used(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    model = fitted.fitted()
    whole = reference_of(model, counts)
    np.testing.assert_array_equal(whole.latent, fitted.transform(counts))
    assert whole.labels == ("k0", "k1", "k2", "k3")
    assert [whole.labels[code] for code in whole.codes] == list(counts.obs["kind"])
    assert whole.sentence() == "Reference: 240 profiles with 4 labels in 'kind'."
    counts.obs["kind"] = counts.obs["kind"].astype(object)
    counts.obs.iloc[:3, counts.obs.columns.get_loc("kind")] = [None, "", np.nan]
    matrix = counts.X.toarray()
    matrix[3] = 0
    counts.X = matrix
    some = reference_of(model, counts)
    assert list(some.names) == list(counts.obs_names[4:])
    np.testing.assert_array_equal(some.latent, whole.latent[4:])
    assert some.sentence() == (
        "Reference: 236 profiles with 4 labels in 'kind'; 4 without a label or molecules are left out."
    )


def test_labels_are_compared_as_text(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    counts.obs["number"] = np.arange(N_PROFILES) % 3
    assert reference_of(fitted.fitted(), counts, "number").labels == ("0", "1", "2")
    counts.obs["number"] = counts.obs["number"].astype(object)
    counts.obs.iloc[:2, counts.obs.columns.get_loc("number")] = ["0", 1.0]
    assert reference_of(fitted.fitted(), counts, "number").labels == ("0", "1", "2")


def test_labels_of_which_there_are_too_few_profiles_are_said(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    counts.obs["kind"] = ["rare", "single", *counts.obs["kind"].astype(str)[2:]]
    counts.obs.iloc[3:5, counts.obs.columns.get_loc("kind")] = "rare"
    said = reference_of(fitted.fitted(), counts).sentence()
    assert said.endswith(" With one profile only, so that nothing tells how right it is: single.")
    few = counts[:12].copy()
    few.obs["kind"] = [f"k{number % 6}" for number in range(12)]
    assert (
        reference_of(fitted.fitted(), few)
        .sentence()
        .endswith(
            " Half of the labels or more have fewer than 5 profiles: probabilities learned from so few may be far off."
        )
    )


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("kinds", "unknown obs column 'kinds'; did you mean 'kind'? Available: donor, kind, nothing, one, total"),
        ("nothing", "profiles of at least 2 labels; column 'nothing' of AnnData in memory has 0 in 0 profiles. Name"),
        ("one", "profiles of at least 2 labels; column 'one' of AnnData in memory has 1 in 240 profiles."),
        (
            "total",
            "labels must be names or whole numbers that profiles share; obs column 'total' holds measurements, such as",
        ),
    ],
)
def test_a_reference_without_labels_is_refused(
    fitted: Autoencoder, counts: anndata.AnnData, key: str, text: str
) -> None:
    counts.obs["nothing"], counts.obs["one"], counts.obs["total"] = None, "T cell", np.arange(N_PROFILES) / 7
    with pytest.raises(InputError) as error:
        reference_of(fitted.fitted(), counts, key)
    assert text in str(error.value)


def test_profiles_that_took_part_in_training_set_no_limit(
    fitted: Autoencoder, counts: anndata.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If enough others are known; if not, all of them do."""
    model, names = fitted.fitted(), counts.obs_names
    assert reference_of(model, counts).is_unseen.all()
    reference = reference_of(model, counts, trained=names[:180])
    np.testing.assert_array_equal(reference.is_unseen, np.arange(N_PROFILES) >= 180)
    assert reference_of(model, counts, trained=names[:191]).is_unseen.all()  # 49 are too few
    some = rehearse(reference, 1.0)
    relative = some._relative(some.latent, some._found[1], some.rows)
    assert some.limit == pytest.approx(np.quantile(relative[180:], 0.95))
    assert some.limit_of_trained == pytest.approx(np.quantile(relative[:180], 0.95)) != some.limit
    everyone = rehearse(reference_of(model, counts), 1.0)
    assert everyone.limit == everyone.limit_of_trained == pytest.approx(np.quantile(relative, 0.95))


def test_a_rehearsal_as_deep_as_the_reference_is_leave_one_out(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    reference = reference_of(fitted.fitted(), counts)
    found = rehearse(reference, 1.0, TransferSettings(n_neighbors=5))
    assert (found.share, len(found.rows)) == (1.0, N_PROFILES)
    every = cosine_distances(reference.latent.astype(float), reference.latent.astype(float))
    np.fill_diagonal(every, np.inf)
    order = every.argsort(1)[:, :5]
    near = np.log(np.take_along_axis(every, order, 1)).mean(1)
    votes, log_distance = found._found
    np.testing.assert_allclose(log_distance, near, rtol=1e-3)
    labels = [np.bincount(reference.codes[row], np.exp(-every[i, row] / 0.1), 4) for i, row in enumerate(order)]
    np.testing.assert_allclose(votes, np.array(labels) / np.sum(labels, 1, keepdims=True), rtol=1e-4, atol=1e-6)
    assert found.accuracy == pytest.approx((np.argmax(labels, 1) == reference.codes).mean())
    relative = np.exp(near - near[order].mean(1))
    assert found.limit == pytest.approx(np.quantile(relative, 0.95), rel=1e-3)
    by_label, distance = found.look_up(reference.latent, np.arange(N_PROFILES))  # each without itself
    np.testing.assert_allclose(distance, relative, rtol=1e-3)
    np.testing.assert_allclose(by_label, probabilities(votes, found.exponent))


def test_a_shallow_query_is_rehearsed_by_thinned_profiles(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    model = fitted.fitted()
    reference = reference_of(model, counts)
    deep, shallow = (rehearse(reference, ratio) for ratio in (1.0, 10.0))
    assert shallow.share == pytest.approx(0.1)
    profiles = read_profiles(thinned(counts, 0.1, seed=7))
    alike = model.at(10.0).latent(model.preprocess.match(profiles)[0])
    spread = [np.linalg.norm(values - values.mean(0)) for values in (shallow.latent, alike, deep.latent)]
    assert spread[0] == pytest.approx(spread[1], rel=0.1)  # other molecules of the same depth
    assert deep.accuracy > shallow.accuracy > 0.5
    again, other = rehearse(reference, 10.0), rehearse(reference, 10.0, TransferSettings(seed=1))
    np.testing.assert_array_equal(again.latent, shallow.latent)
    assert not np.array_equal(other.latent, shallow.latent)


def test_the_depth_that_counts_is_that_of_reference_and_query(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    reference = reference_of(fitted.fitted(), thinned(counts, 0.2))
    assert reference.ratio == pytest.approx(5, rel=0.1)
    assert rehearse(reference, 10.0).share == pytest.approx(0.5, rel=0.1)
    same, deeper = rehearse(reference, reference.ratio), rehearse(reference, 1.0)
    assert (same.share, deeper.share) == (1, 1)  # nothing can be made deeper
    np.testing.assert_array_equal(deeper.latent, reference.latent)


def test_many_profiles_are_rehearsed_by_a_sample(
    fitted: Autoencoder, counts: anndata.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = reference_of(fitted.fitted(), counts)
    whole = rehearse(reference, 4.0)
    monkeypatch.setattr(module, "MOST_REHEARSED", 100)
    some = rehearse(reference, 4.0)
    assert len(set(some.rows)) == 100
    assert some.limit == pytest.approx(whole.limit, rel=0.25)
    assert some.accuracy == pytest.approx(whole.accuracy, abs=0.1)


def test_what_is_left_in_its_file_is_rehearsed_alike(
    fitted: Autoencoder, counts_path: str, counts: anndata.AnnData
) -> None:
    model = fitted.fitted()
    profiles = read_profiles(counts_path, stream="yes")
    streamed = labelled_reference(model, profiles, model.preprocess.match(profiles)[0], "kind")
    assert streamed.expression.is_streamed
    in_memory = rehearse(reference_of(model, counts), 4.0)
    np.testing.assert_allclose(rehearse(streamed, 4.0).latent, in_memory.latent, rtol=1e-5, atol=1e-5)


def test_a_query_far_too_shallow_for_the_reference_is_refused(fitted: Autoencoder) -> None:
    few = simulate(12, depth=600.0)
    reference = replace(reference_of(fitted.fitted(), few, "kind"), ratio=1.0)
    with pytest.raises(InputError) as error:
        rehearse(reference, 1e9)
    assert "of their molecules, fewer than 2 reference profiles keep any. Give" in str(error.value)


def test_nobody_is_refused_where_nobody_may_be(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    reference = reference_of(fitted.fitted(), counts)
    limits = [rehearse(reference, 1.0, TransferSettings(refuse=refuse)).limit for refuse in (0.0, 0.01, 0.05, 0.5)]
    assert limits[0] == np.inf
    assert limits == sorted(limits, reverse=True)
