import numpy as np
import pytest
import torch
from conftest import QUICK, simulate, thinned
from reference import DenseEstimator, DenseTwin
from scipy import sparse

from geneae import Autoencoder, read_profiles
from geneae.data.preprocess import Expression
from geneae.models import model
from geneae.models.model import Model

KINDS = {
    "split": {"target": "split"},
    "self": {"target": "self"},
    "free": {"basis": "free"},
    "random": {"basis": "free", "init": "random", "target": "self"},
    "scaled": {"scale": True, "n_top_genes": 50},
}
Known = tuple[Model, Expression]


@pytest.fixture(scope="module", params=KINDS)
def known(request: pytest.FixtureRequest) -> Known:
    """A model of each kind, and profiles in its genes."""
    adata = simulate(90, 60)
    fitted = Autoencoder(**QUICK | KINDS[request.param]).fit(adata).model_
    return fitted, fitted.preprocess.match(read_profiles(adata))[0]


def dense(known: Known) -> torch.Tensor:
    return torch.from_numpy(known[0].preprocess.apply(known[1]).toarray()).double()


def test_latents_and_reconstructions_agree_with_dense_arrays(known: Known) -> None:
    fitted, expression = known
    if fitted.estimator is not None:
        check_estimated(fitted, expression, dense(known).numpy())
        return
    twin = DenseTwin(fitted.network)
    shift = fitted.baselines.whole.mean.double() - fitted.network.mean.double()
    latent = twin.encode(dense(known) - shift)
    found = fitted.latent(expression)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, latent.detach(), rtol=1e-3, atol=1e-3)
    expected = twin.predict(latent).detach() + shift
    np.testing.assert_allclose(fitted.reconstruction(found), expected, rtol=1e-3, atol=2e-3)


def check_estimated(fitted: Model, expression: Expression, x: np.ndarray) -> None:
    """The same through the estimator; from latents alone there are no own counts."""
    twin, found = DenseEstimator(fitted, is_half=False), fitted.latent(expression)
    np.testing.assert_allclose(found, twin.latent(x).detach(), rtol=1e-3, atol=1e-3)
    expected = twin.predict(x, expression.totals, ["neighbours"])
    np.testing.assert_allclose(fitted.reconstruction(found), expected, rtol=1e-3, atol=2e-3)
    expected = twin.predict(x, expression.totals)
    np.testing.assert_allclose(fitted.reconstructed(expression), expected, rtol=1e-3, atol=2e-3)


def test_the_shift_leads_from_the_mean_the_network_knows_to_that_of_the_profiles(known: Known) -> None:
    fitted, _ = known
    is_split = fitted.config["target"] == "split"
    shifts = {is_half: fitted.shift(is_half) for is_half in (True, False)}
    assert shifts[is_split] is None
    other = shifts[not is_split]
    assert other is not None
    assert float(other.abs().mean()) > 0.01
    whole = fitted.network.mean if shifts[False] is None else fitted.network.mean + shifts[False]
    np.testing.assert_allclose(whole, fitted.baselines.whole.mean, rtol=1e-5, atol=1e-5)


def test_a_profile_has_the_same_latent_alone_and_among_others(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted, expression = known
    together = fitted.latent(expression)
    alone = np.concatenate([fitted.latent(expression.take(np.array([row]))) for row in range(5)])
    np.testing.assert_allclose(alone, together[:5], rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(model, "CHUNK_VALUES", 7 * expression.n_values // expression.n_profiles)
    np.testing.assert_allclose(fitted.latent(expression), together, rtol=1e-4, atol=1e-4)


def test_latents_hold_nothing_random(known: Known) -> None:
    fitted, expression = known
    np.testing.assert_array_equal(fitted.latent(expression), fitted.latent(expression))


def test_a_profile_without_molecules_has_a_finite_latent(known: Known) -> None:
    fitted, expression = known
    empty = Expression(expression.matrix[:1] * 0, np.zeros(1))
    latent = fitted.latent(empty)
    assert latent.shape == (1, fitted.n_latent)
    assert np.isfinite(latent).all()


def test_the_latent_has_the_promised_length(known: Known) -> None:
    assert known[0].n_latent == 4 == known[0].latent(known[1]).shape[1]
    assert known[0].center == "none"


def test_only_counts_can_be_held_out() -> None:
    adata = simulate(60, 40)
    assert Autoencoder(**QUICK).fit(adata).model_.can_hold_out is True
    adata.X = adata.X.log1p()
    assert Autoencoder(**QUICK).fit(adata).model_.can_hold_out is False


def test_deviations_are_those_of_scores_in_units_of_the_latent(known: Known) -> None:
    fitted, expression = known
    found = fitted.latent_deviation(expression)
    if fitted.estimator is None:
        assert found is None
        return
    assert found is not None
    posterior, scale = fitted.estimator.posterior, fitted.estimator.scale
    relative = np.exp(np.log(expression.totals.clip(1) / 2) - scale.mean).clip(
        *np.exp([-3 * scale.deviation, 3 * scale.deviation])
    )
    left = posterior.unexplained[0].double().numpy()
    share = left / (relative[:, None] ** posterior.power * (1 - left) + left)
    expected = np.sqrt(posterior.signal.numpy() * share) / fitted.network.deviation.numpy()
    np.testing.assert_allclose(found, expected[:, : fitted.n_latent], rtol=1e-4)
    shallow = fitted.latent_deviation(expression, np.full(expression.n_profiles, 10.0))
    assert shallow is not None
    assert shallow.sum() > found.sum()


def test_genes_that_were_not_measured_take_their_mean(known: Known) -> None:
    fitted, expression = known
    missing = np.random.default_rng(0).random(len(fitted.preprocess.genes)) < 0.3
    found = fitted.latent(expression.without(missing))
    complete = fitted.latent(expression)
    zeros = fitted.latent(Expression(expression.without(missing).matrix, expression.totals))
    assert np.linalg.norm(found - complete) < 0.7 * np.linalg.norm(zeros - complete)
    if fitted.estimator is not None:
        return
    x = dense(known)
    x[:, missing] = fitted.baselines.whole.mean.double()[missing]
    twin = DenseTwin(fitted.network)
    expected = twin.encode(x - (fitted.baselines.whole.mean.double() - fitted.network.mean.double()))
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-3, atol=1e-3)


def test_deviations_grow_by_what_missing_genes_change() -> None:
    """Deviations of latents from all and from some genes differ in squares as these latents do."""
    adata = simulate(600, 200, depth=900)
    fitted = Autoencoder(n_latent=4, epochs=1, n_splits=1).fit(adata[:400].copy()).fitted()
    expression = fitted.preprocess.match(read_profiles(adata[400:].copy()))[0]
    some = expression.without(np.random.default_rng(0).random(200) < 0.3)
    of_all, of_some = fitted.latent_deviation(expression), fitted.latent_deviation(some)
    assert of_all is not None
    assert of_some is not None
    assert (of_some > of_all).all()
    change = np.square(fitted.latent(some) - fitted.latent(expression)).mean()
    assert change == pytest.approx(np.mean(of_some**2 - of_all**2), rel=0.5)


@pytest.mark.parametrize("times", [2.0, 5.0])
def test_profiles_deeper_than_training_have_their_ratio_and_the_latents_of_their_thinned_molecules(
    times: float,
) -> None:
    deep = simulate(200, 80, depth=3000)
    deep.obs_names = [f"deep{i}" for i in range(200)]
    fitted = Autoencoder(**QUICK).fit(thinned(deep, 1 / times)).fitted()
    expression = fitted.preprocess.match(read_profiles(deep))[0]
    (depth,) = fitted.depths_of(expression)
    assert depth.ratio == pytest.approx(1 / times, rel=0.1)
    found = fitted.latent(expression, np.full(200, 1 / times))
    shallow = [fitted.preprocess.match(read_profiles(thinned(deep, 1 / times, seed)))[0] for seed in range(1, 5)]
    latents = [fitted.latent(one) for one in shallow]
    mean = np.mean(latents, 0)
    spread = np.mean([np.linalg.norm(one - mean) for one in latents])
    assert np.linalg.norm(found - mean) < spread
    assert np.linalg.norm(fitted.latent(expression) - mean) > 1.5 * np.linalg.norm(found - mean)


def test_nothing_is_said_of_profiles_with_hardly_a_molecule(known: Known) -> None:
    fitted, expression = known
    counts = expression.rows.toarray()
    counts[0], counts[1] = 0, 0
    counts[1, :3] = [1, 5, 1]
    changed = Expression(sparse.csr_matrix(counts), expression.totals)
    blank = fitted.is_blank(changed)
    few = 0 if fitted.estimator is None else 1
    assert np.flatnonzero(blank).tolist() == [0, 1][: 1 + few]
    at_two_depths = np.where(np.arange(len(counts)) % 2, 1.0, 0.5) if fitted.estimator is not None else None
    for ratios in (None, at_two_depths):
        latent, in_same_pass = fitted.latent_and_blank(changed, ratios)
        assert (in_same_pass == blank).all()
        np.testing.assert_array_equal(latent, fitted.latent(changed, ratios))
