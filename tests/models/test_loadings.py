from dataclasses import replace
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from conftest import QUICK

from geneae import Autoencoder
from geneae.models.loadings import mean_latent
from geneae.settings.errors import InputError

KINDS: dict[str, dict[str, Any]] = {
    "split": {},
    "self": {"target": "self"},
    "free": {"basis": "free"},
    "random": {"basis": "free", "init": "random"},
}


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, _counts: anndata.AnnData) -> Autoencoder:
    return Autoencoder("cosine", **QUICK | KINDS[request.param]).fit(_counts)


def test_loadings_are_the_slope_of_the_linear_decoder(model: Autoencoder) -> None:
    """With the MLPs silent, and scores not moved to neighbours, the decoder is linear, calibrated or not: a step of one
    adds the loadings exactly."""
    linear = Autoencoder.of(model.model_)
    table = linear.loadings()
    assert list(table.columns) == ["latent_0", "latent_1", "latent_2", "latent_3"]
    assert list(table.index) == list(model.model_.preprocess.genes)
    if model.init == "random":
        start, step = mean_latent(model.model_).numpy().astype(float), 1e-3
        for latent in range(4):
            up, down = (model.inverse_transform((start + sign * step * np.eye(4)[latent])[None])[0] for sign in (1, -1))
            np.testing.assert_allclose(table.iloc[:, latent], (up - down) / (2 * step), atol=5e-3)
        return
    network = model.model_.network
    weights = network.core.decoder_mlp[-1].weight.detach().clone()
    bias = network.core.decoder_mlp[-1].bias.detach().clone()
    network.core.silence_mlps()
    estimator = model.model_.estimator
    alone = model.model_ if estimator is None else replace(model.model_, estimator=estimator.within("calibration"))
    rebuilt = Autoencoder.of(alone).inverse_transform(np.vstack([np.zeros(4), np.eye(4)]))
    np.testing.assert_allclose((rebuilt[1:] - rebuilt[0]).T, table, atol=1e-4)
    network.core.decoder_mlp[-1].weight.data.copy_(weights)
    network.core.decoder_mlp[-1].bias.data.copy_(bias)


@pytest.mark.parametrize("kept", [(), ("calibration",), ("neighbours", "calibration")])
def test_loadings_are_calibrated_where_reconstructions_are(fitted: Autoencoder, kept: tuple[str, ...]) -> None:
    known = fitted.model_.estimator
    slopes = torch.linspace(0.3, 1.7, len(known.calibration))
    estimators = [replace(known.only(*steps), calibration=slopes) for steps in (kept, ())]
    found, plain = (Autoencoder.of(replace(fitted.model_, estimator=one)).loadings() for one in estimators)
    by_gene = slopes.numpy()[:, None] if "calibration" in kept else 1
    np.testing.assert_allclose(found, plain * by_gene, rtol=1e-5, atol=1e-7)


def test_the_mean_training_profile_has_the_mean_latent(model: Autoencoder, counts: anndata.AnnData) -> None:
    from scipy import sparse

    from geneae.losses.sparse_rows import sparse_rows

    network, whole = model.model_.network, model.model_.baselines.whole.mean
    rows = sparse_rows(sparse.csr_matrix(whole.numpy()[None]))
    with torch.no_grad():
        expected = network.encode(network.scores(rows, model.model_.shift(is_half=False)))[0]
    np.testing.assert_allclose(mean_latent(model.model_), expected, atol=1e-4)


def test_genes_along_a_latent_are_those_whose_reconstruction_moves(model: Autoencoder, counts: anndata.AnnData) -> None:
    latents = model.transform(counts)
    for data, centre, step in (
        (None, mean_latent(model.model_).numpy(), 1.0),
        (counts, latents.mean(0), latents[:, 2].std()),
    ):
        table = model.genes_along(2, data)
        up, at, down = (model.inverse_transform((centre + sign * step * np.eye(4)[2])[None])[0] for sign in (1, 0, -1))
        by_gene = table.set_index("gene").loc[model.model_.preprocess.genes]
        np.testing.assert_allclose(by_gene["change"], (up - down) / 2, atol=1e-5)
        np.testing.assert_allclose(by_gene["mean"], at, atol=1e-5)
        assert list(table.columns) == ["gene", "change", "mean"]
        assert (np.diff(table["change"].abs()) <= 0).all()


def test_the_genes_of_a_programme_are_found(counts: anndata.AnnData) -> None:
    """Along the latent that tells a gene's cells from others, that gene moves most, in the direction of the cells."""
    dense, high = counts.X.toarray(), np.arange(counts.n_obs) % 2 == 0
    dense[:, 7] = 400 * high
    counts.X = dense
    model = Autoencoder(**QUICK | {"epochs": 1}).fit(counts)
    latents = model.transform(counts)
    gaps = latents[high].mean(0) - latents[~high].mean(0)
    along = int(np.argmax(np.abs(gaps) / latents.std(0)))
    first = model.genes_along(along, counts).iloc[0]
    assert first["gene"] == "gene7"
    assert np.sign(first["change"]) == np.sign(gaps[along])


@pytest.mark.parametrize("latent", [-1, 4])
def test_a_latent_that_is_not_there_is_refused(fitted: Autoencoder, latent: int) -> None:
    with pytest.raises(InputError) as error:
        fitted.genes_along(latent)
    assert str(error.value) == f"the model has 4 latents, numbered 0 to 3; found {latent}. Ask for one of them."


def test_correlations_by_gene_of_the_test_profiles_come_again(fitted: Autoencoder, counts: anndata.AnnData) -> None:
    held = counts[(fitted.split_ == "test").to_numpy()].copy()
    again = fitted.gene_correlation(held)
    np.testing.assert_allclose(again["correlation"], fitted.genewise_["correlation"], rtol=1e-9)
