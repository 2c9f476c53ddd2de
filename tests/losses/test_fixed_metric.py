"""A loss under a metric that was learned before: exact inner products, and a fit that nothing plain notices."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK, simulate
from reference import DenseTwin, centred, dense_products
from scipy import sparse
from torch import Tensor

from geneae import Autoencoder, CosineMetric
from geneae.data.preprocess import fit_preprocess
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.fitting.checks import open_metric
from geneae.fitting.fit import Fitted, fit
from geneae.fitting.runs import Request, is_finished
from geneae.folders.model import load_model
from geneae.losses.fixed_metric import FixedMetric
from geneae.losses.inner_products import InnerProducts
from geneae.losses.names import find_loss
from geneae.losses.reconstruction import LossSettings, cosine, mean_loss
from geneae.models.ceiling import cosine_of_halves
from geneae.models.network import Network, network_in_basis, random_network
from geneae.models.pca import fit_basis
from geneae.settings.errors import InputError
from geneae.settings.loss_terms import part_of_labels
from geneae.settings.settings import Settings
from geneae.training.batches import PairNeeds, Pairs, loss_constants
from geneae.training.objectives import Reconstructed, Reconstruction

N, N_GENES, EPSILON = 23, 17, 0.3
CENTERS = ("none", "gene", "profile")
FIELDS = ("cross", "target", "predicted")
NETWORKS = ("fixed", "free", "random")
LEARNS = Settings(loss="cosine", **QUICK | {"epochs": 12, "patience": 12, "learning_rate": 2e-2, "dropout": 0.0})


def block(seed: int = 0) -> sparse.csr_matrix:
    """Profiles with half of the values zero, in single precision as everywhere."""
    rng = np.random.default_rng(seed)
    return sparse.csr_matrix(np.maximum(rng.normal(0.2, 1.0, (N, N_GENES)), 0).astype(np.float32))


def columns(n_components: int = 4, seed: int = 5) -> Tensor:
    """M' of a random metric."""
    return torch.randn(N_GENES, n_components, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def network_of(kind: str) -> Network:
    basis = fit_basis([block()], 6, 0)
    torch.manual_seed(0)
    network = (
        random_network(basis.mean, 3, 8, 0.0)
        if kind == "random"
        else network_in_basis(basis, torch.linspace(1, 0.3, 6), 3, 8, 0.0, is_free=kind == "free")
    )
    return network.double()


def seen_under(metric: FixedMetric, network: Network, center: str, index: Tensor, loss: str) -> Reconstructed:
    """Reconstructions of some profiles, as the objective of a loss under a metric sees them."""
    pairs = Pairs(network, [block()], PairNeeds(gram=True, metric=metric))
    objective = Reconstruction(find_loss(loss), center, LossSettings(), metric=metric)
    return objective.reconstruct(network, pairs.take(index), (center,))


def under(x: Tensor, y: Tensor, m: Tensor, center: str, mean: Tensor) -> tuple[InnerProducts, Tensor]:
    """Inner products computed with A itself, genes x genes; and those of each y with every x."""
    x, y = centred(x, center, mean), centred(y, center, mean)
    root = torch.linalg.cholesky(m @ m.T + EPSILON * torch.eye(N_GENES, dtype=torch.float64))  # |root' x|^2 = x'Ax
    return dense_products(x @ root, y @ root), (y @ root) @ (x @ root).T


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_products_are_those_of_the_matrix_a(kind: str, center: str) -> None:
    m = columns()
    network, index = network_of(kind), torch.arange(0, N, 2)
    found = seen_under(FixedMetric(m, EPSILON), network, center, index, "softmax")
    first, plain = found.for_loss, found.plain[center]
    x = torch.from_numpy(block().toarray()).double()[index]
    twin = DenseTwin(network)
    y = twin.predict(twin.encode(x))
    expected, pairwise = under(x, y, m, center, network.mean)
    for field in FIELDS:
        torch.testing.assert_close(getattr(first, field), getattr(expected, field), rtol=2e-6, atol=2e-5)
        torch.testing.assert_close(
            getattr(plain, field), getattr(dense_products(x, y, center, network.mean), field), rtol=2e-6, atol=2e-5
        )
    assert first.batch is not None
    assert first.batch.targets is not None
    torch.testing.assert_close(first.batch.cross, pairwise, rtol=2e-6, atol=2e-5)
    torch.testing.assert_close(first.batch.targets, under(x, x, m, center, network.mean)[1], rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_gradients_are_those_of_the_matrix_a(kind: str, center: str) -> None:
    m = columns()
    network = network_of(kind)
    x = torch.from_numpy(block().toarray()).double()
    twin = DenseTwin(network)
    settings = LossSettings()
    products = seen_under(FixedMetric(m, EPSILON), network, center, torch.arange(N), "cosine").for_loss
    mean_loss(cosine, products, settings).backward()
    mean_loss(cosine, under(x, twin.predict(twin.encode(x)), m, center, network.mean)[0], settings).backward()
    found = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert found.keys() == twin.gradients().keys()
    for name, gradient in twin.gradients().items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("center", CENTERS)
def test_a_map_that_keeps_all_angles_gives_the_plain_products(center: str) -> None:
    rotation = torch.linalg.qr(columns(N_GENES)).Q * (1 - EPSILON) ** 0.5
    found = seen_under(FixedMetric(rotation, EPSILON), network_of("free"), center, torch.arange(N), "cosine")
    for field in FIELDS:
        expected = getattr(found.plain[center], field)
        torch.testing.assert_close(getattr(found.for_loss, field), expected, rtol=1e-6, atol=2e-5)


@pytest.mark.parametrize("center", CENTERS)
def test_constants_of_a_loss_are_those_under_its_metric(center: str) -> None:
    m, halves = columns(), [block(), block(1)]
    mean = torch.from_numpy(sparse.vstack(halves).toarray().mean(0)).double()
    metric = FixedMetric(m, EPSILON)
    found = loss_constants(halves, mean, center, LossSettings(), metric)
    first, second = (torch.from_numpy(half.toarray()).double() for half in halves)
    both = torch.cat([first, second])
    expected = under(both, mean.expand(len(both), -1), m, center, mean)[0]
    assert found.mean_profile_mse == pytest.approx(
        float((expected.target - 2 * expected.cross + expected.predicted).mean()) / N_GENES, rel=1e-6
    )
    medians = [float(under(half, half, m, center, mean)[0].target.sqrt().median()) for half in (first, second)]
    assert min(medians) <= found.median_norm <= max(medians)
    crossed = under(first, second, m, center, mean)[0]
    cosines = (crossed.cross / (crossed.target * crossed.predicted).sqrt()).numpy()
    np.testing.assert_allclose(cosine_of_halves(*halves, mean.numpy(), center, metric), cosines, rtol=1e-5, atol=1e-6)
    assert found.norm_ratio == pytest.approx(np.sqrt(max(0.0, cosines.mean())) or 1.0, rel=1e-5)
    assert metric.columns.dtype == torch.float64  # as it was


def test_a_metric_along_the_mean_makes_the_mean_profile_perfect() -> None:
    """A metric trained together with the network could end here: no loss, and nothing learned."""
    profiles = read_profiles(simulate(200, 50))
    preprocess = fit_preprocess(profiles, np.arange(200))
    matrix = preprocess.apply(preprocess.match(profiles)[0])
    mean = torch.from_numpy(np.asarray(matrix.mean(0)).ravel()).double()
    plain = loss_constants([matrix], mean, "none", LossSettings()).mean_profile_cosine
    along = FixedMetric((mean / mean.norm())[:, None] * len(mean) ** 0.5, 1e-6)
    collapsed = loss_constants([matrix], mean, "none", LossSettings(), along).mean_profile_cosine
    assert plain > 0.02
    assert collapsed < 1e-6


def test_it_is_in_no_state_and_learns_nothing() -> None:
    metric = FixedMetric(columns(), EPSILON)
    assert (list(metric.state_dict()), list(metric.parameters())) == ([], [])
    objective = Reconstruction(find_loss("cosine"), "none", LossSettings(), metric=metric)
    assert (objective.state(), objective.learned()) == ({}, ())


def test_it_goes_where_its_objective_goes() -> None:
    metric = FixedMetric(columns(), EPSILON)
    objective = Reconstruction(find_loss("cosine"), "none", LossSettings(), metric=metric)
    assert objective.to(torch.device("meta")).metric is metric
    assert metric.columns.device.type == metric.of_ones.device.type == "meta"


@pytest.fixture(scope="module")
def profiles() -> Profiles:
    return read_profiles(simulate())


@pytest.fixture(scope="module")
def under_metric(profiles: Profiles, metric_folder: Path) -> Fitted:
    return fit(profiles, replace(LEARNS, metric=str(metric_folder)))


@pytest.mark.parametrize(
    "kind",
    [
        {"basis": "free", "init": "random"},
        {"loss": "pearson", "basis": "free", "init": "random"},
        {"loss": "combined", "center": "gene", "basis": "free", "init": "random"},
        {"loss": "cosine+0.1*softmax", "basis": "free", "init": "random"},
        {"loss": "ranking", "basis": "free", "init": "random"},
        {"target": "self"},
    ],
    ids=["free", "pearson", "combined", "softmax", "ranking", "pca"],
)
def test_a_fit_lowers_its_loss_under_the_metric(profiles: Profiles, metric_folder: Path, kind: dict[str, Any]) -> None:
    history = fit(profiles, replace(LEARNS, metric=str(metric_folder), n_latent=2, **kind)).history
    assert history["validation_loss"].min() < history["validation_loss"][0]
    other = fit(profiles, replace(LEARNS, n_latent=2, epochs=1, **kind)).history
    assert other["validation_loss"][0] != history["validation_loss"][0]
    assert other["validation_cosine"][0] == history["validation_cosine"][0]  # plain, of the same start
    assert other["validation_mse"][0] == history["validation_mse"][0]


def test_the_validation_loss_is_that_by_the_metric_itself(profiles: Profiles, metric_folder: Path) -> None:
    """The dense reconstructions of the network, compared by CosineMetric, give the same loss."""
    settings = replace(LEARNS, metric=str(metric_folder), target="self", epochs=1)
    fitted = fit(profiles, settings)
    model, metric = fitted.model, CosineMetric.load(metric_folder)
    expression = model.preprocess.match(profiles)[0].take(np.flatnonzero(fitted.split == "validation"))
    matrix, predicted = model.preprocess.apply(expression), model.reconstruction(model.latent(expression))
    fixed, n_matched = metric.columns_of(model.preprocess)
    assert n_matched == len(model.preprocess.genes)
    a = fixed @ fixed.T + metric.epsilon * np.eye(len(fixed))
    x, y = matrix.toarray().astype(np.float64), predicted.astype(np.float64)
    cosines = np.einsum("ij,ij->i", x @ a, y) / np.sqrt(
        np.einsum("ij,ij->i", x @ a, x) * np.einsum("ij,ij->i", y @ a, y)
    )
    best = model.config["best_epoch"]
    assert fitted.history["validation_loss"][best] == pytest.approx(1 - cosines.mean(), abs=1e-5)
    assert fitted.history["loss_cosine"][best] == pytest.approx(cosines.mean(), abs=1e-5)


def test_what_judges_a_fit_is_plain(profiles: Profiles, under_metric: Fitted) -> None:
    model = under_metric.model
    validation = model.preprocess.match(profiles)[0].take(np.flatnonzero(under_metric.split == "validation"))
    x = model.preprocess.apply(validation).toarray().astype(np.float64)
    y = model.reconstruction(model.latent(validation)).astype(np.float64)
    table = under_metric.evaluation.profiles
    found = table[(table["model"] == "model") & (table["split"] == "validation")]
    cosines = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    np.testing.assert_allclose(found["cosine"], cosines, rtol=1e-4)
    np.testing.assert_allclose(found["mse"], ((x - y) ** 2).mean(1), rtol=1e-3)


def test_what_is_known_of_the_metric_is_recorded(under_metric: Fitted, metric_folder: Path) -> None:
    metric = CosineMetric.load(metric_folder)
    assert under_metric.model.config["settings"]["metric"] == str(metric_folder)
    assert under_metric.model.config["metric"] == {
        "n_components": 3,
        "epsilon": 0.01,
        "n_matched": len(under_metric.model.preprocess.genes),
        "fingerprint": metric.fingerprint,
    }
    other = CosineMetric(n_components=3, rank=12, epochs=1).fit(simulate(), "kind")
    assert len({metric.fingerprint, other.fingerprint}) == 2
    other.map_ = metric.map_
    assert other.fingerprint == metric.fingerprint


def test_a_model_needs_its_metric_no_more(metric_folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(metric_folder, tmp_path / "metric")
    model = Autoencoder("cosine", metric=moved, **QUICK).fit(simulate())
    latents = model.transform(simulate())
    model.save(tmp_path / "run")
    shutil.rmtree(moved)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["settings"]["metric"] == str(moved)
    assert f'metric = "{moved}"' in (tmp_path / "run" / "settings.toml").read_text()
    loaded = Autoencoder.load(tmp_path / "run")
    np.testing.assert_array_equal(loaded.transform(simulate()), latents)
    assert loaded.get_params()["metric"] == str(moved)
    assert load_model(tmp_path / "run").config["metric"] == model.model_.config["metric"]
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"under the learned metric `{model.model_.config['metric']['fingerprint']}`" in card


class Stopped(Exception):
    pass


def stop_at(epoch: int) -> Callable[[dict[str, float]], None]:
    def look(row: dict[str, float]) -> None:
        if row["epoch"] == epoch:
            raise Stopped

    return look


@pytest.mark.parametrize("basis", ["pca", "free"])
def test_a_fit_goes_on_to_the_same_bits_and_not_under_another_metric(
    profiles: Profiles, metric_folder: Path, tmp_path: Path, basis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geneae.training.checkpoints.SPARE", 0)
    there = shutil.copytree(metric_folder, tmp_path / "metric")
    settings = replace(LEARNS, metric=str(there), basis=basis, epochs=4)
    whole = fit(profiles, settings)
    with pytest.raises(Stopped):
        fit(profiles, settings, stop_at(3), checkpoint=tmp_path / "run")
    shutil.rmtree(there)
    other = CosineMetric(n_components=3, rank=12, epochs=1, seed=1).fit(simulate(), "kind")
    other.save(there)
    with pytest.raises(
        InputError, match=r"a run with different content of the metric \(.{8}\.\.\. in the checkpoint, .{8}\.\.\. now\)"
    ):
        fit(profiles, settings, checkpoint=tmp_path / "run")
    shutil.rmtree(there)
    shutil.copytree(metric_folder, there)
    again = fit(profiles, settings, checkpoint=tmp_path / "run")
    clocks = ["train_seconds", "seconds"]
    assert again.history.drop(columns=clocks).equals(whole.history.drop(columns=clocks))
    for name, tensor in whole.model.network.state_dict().items():
        assert torch.equal(tensor, again.model.network.state_dict()[name])


def test_a_finished_run_under_a_metric_with_other_content_is_refused(metric_folder: Path, tmp_path: Path) -> None:
    there = shutil.copytree(metric_folder, tmp_path / "metric")
    model = Autoencoder("cosine", metric=str(there), **QUICK).fit(simulate())
    model.save(tmp_path / "run")
    config = model.model_.config
    settings = Settings("cosine", metric=str(there), **QUICK)
    known = Request("test"), config["data"]["fingerprint"]
    assert is_finished(tmp_path / "run", settings, *known)
    other = CosineMetric(n_components=3, rank=12, epochs=1, seed=1).fit(simulate(), "kind")
    other.save(there, overwrite=True)
    with pytest.raises(InputError, match=r"holds a run that differs in content of the metric. Choose"):
        is_finished(tmp_path / "run", settings, *known)
    with pytest.raises(InputError, match=r"holds a run that differs in metric. Choose"):
        is_finished(tmp_path / "run", replace(settings, metric=None), *known)


@pytest.mark.parametrize("basis", ["pca", "free"])
def test_profiles_in_a_file_are_seen_by_the_same_metric(
    counts_path: Path, profiles: Profiles, metric_folder: Path, basis: str
) -> None:
    settings = replace(LEARNS, metric=str(metric_folder), basis=basis, target="self", epochs=2)
    memory, streamed = (fit(data, settings).history for data in (profiles, read_profiles(counts_path, stream="yes")))
    columns = ["validation_loss", "loss_cosine", "gradient_norm"]
    np.testing.assert_allclose(streamed[columns].iloc[0], memory[columns].iloc[0], rtol=1e-4)
    assert streamed["train_loss"][1] == pytest.approx(memory["train_loss"][1], rel=0.1)  # in another order


def test_genes_are_matched_by_name_and_others_are_zero(metric_folder: Path) -> None:
    metric = CosineMetric.load(metric_folder)
    assert metric.preprocess_ is not None
    own = metric.preprocess_.genes
    genes = own[::-2].append(own[:0].append(type(own)(["new0", "new1"])))
    preprocess = replace(metric.preprocess_, genes=genes, scale=np.ones(len(genes)))
    found, n_matched = metric.columns_of(preprocess)
    assert n_matched == len(genes) - 2
    np.testing.assert_array_equal(found[:-2], metric.map_.T[::-2])
    np.testing.assert_array_equal(found[-2:], 0)


def renamed(n_kept: int) -> Any:
    """The simulated counts, with other names for all genes but some."""
    adata = simulate()
    adata.var_names = [name if n < n_kept else f"other{n}" for n, name in enumerate(adata.var_names)]
    return adata


def test_too_few_genes_are_refused_and_enough_are_not(metric_folder: Path) -> None:
    settings = replace(LEARNS, metric=str(metric_folder), epochs=1)
    found = fit(read_profiles(renamed(90)), settings).model.config["metric"]["n_matched"]
    assert 60 < found <= 90
    text = (
        r"at least 50 % of the \d+ genes of the fit must be in the metric; found 0 of them among its \d+ \(fit: other0,"
    )
    with pytest.raises(InputError, match=text):
        fit(read_profiles(renamed(0)), settings)


@pytest.mark.parametrize("kind", ["scale", "log"])
def test_another_space_than_that_of_the_metric_is_refused(metric_folder: Path, kind: str) -> None:
    adata = simulate()
    if kind == "log":
        adata.X = sparse.csr_matrix(np.log1p(adata.X.toarray()))
    settings = replace(LEARNS, metric=str(metric_folder), scale=kind == "scale", epochs=1)
    space = "log" if kind == "log" else "log1p_cp10k, genes divided by their deviation"
    text = (
        f"--metric needs a metric learned in the space of the fit, {space}; it was learned in log1p_cp10k. "
        "Learn it on the same matrix"
    )
    with pytest.raises(InputError, match=re.escape(text)):
        fit(read_profiles(adata), settings)


def test_a_metric_of_latents_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    CosineMetric(epochs=1).fit(rng.normal(size=(30, 5)), rng.integers(0, 2, 30)).save(tmp_path / "metric")
    with pytest.raises(
        InputError, match=r"needs a metric learned on genes; .*metric was learned on an array, or on the latents"
    ):
        open_metric(Settings(metric=str(tmp_path / "metric")))


def test_no_metric_and_what_is_none() -> None:
    assert open_metric(Settings()) is None
    with pytest.raises(InputError, match=r"is not the folder of a metric: it lacks config.json, metric.safetensors"):
        open_metric(Settings(metric="nowhere"))
    with pytest.raises(InputError, match=r"must be the folder of a learned metric; found CosineMetric. Write the"):
        Settings(metric=CosineMetric())  # type: ignore[arg-type]
    assert Settings(metric=Path("here")).metric == "here"  # type: ignore[arg-type]


def test_an_objective_without_a_reconstruction_has_no_use_for_it(profiles: Profiles, metric_folder: Path) -> None:
    settings = replace(LEARNS, metric=str(metric_folder), objective="simclr", epochs=1)
    with pytest.raises(
        InputError, match=r"--metric needs a reconstruction loss, but objective simclr trains no decoder"
    ):
        fit(profiles, settings)
    joint = [
        replace(settings, objective="simclr+reconstruction", metric=metric) for metric in (None, str(metric_folder))
    ]
    plain, joined = (fit(profiles, each).history for each in joint)
    assert plain["validation_loss"][0] != joined["validation_loss"][0]
    assert plain["validation_cosine"][0] == joined["validation_cosine"][0]


def test_labels_that_a_metric_knows_may_have_taken_part() -> None:
    assert part_of_labels("cosine", None) == "took no part in training"
    assert part_of_labels("cosine+0.1*triplet", None) == "took part in training, by the loss triplet"
    assert part_of_labels("cosine", "metric") == "may have taken part in training, by the metric of the loss"
