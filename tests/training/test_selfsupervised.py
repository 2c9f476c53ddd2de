"""Heads, teachers, queues and centres of the methods; that they learn, and where they start."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK, simulate
from torch import Tensor

from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.evaluation.judge import JudgingData
from geneae.evaluation.labels import knn_is_right, labelled
from geneae.evaluation.latents import encode
from geneae.fitting.bases import fit_bases
from geneae.fitting.fit import Fitted, fit
from geneae.fitting.network import _start, train_network
from geneae.fitting.prepare import prepare
from geneae.losses.sparse_rows import sparse_rows
from geneae.losses.view_losses import (
    against_batch,
    against_queue,
    cross_correlation,
    distillation,
    nt_xent,
    unit,
    variance_covariance,
)
from geneae.models.heads import Branch, Prototypes, cut_plainly, layers
from geneae.models.model import Model
from geneae.models.network import Network, random_network
from geneae.settings.errors import InputError
from geneae.settings.settings import OBJECTIVE_NAMES, Settings
from geneae.training.selfsupervised import (
    CENTER_MOMENTUM,
    MOMENTUM,
    N_PROJECTED,
    OBJECTIVES,
    Embeddings,
    SelfSupervised,
    Sizes,
    cosine_ramp,
    parse_objective,
)
from geneae.training.view_batches import TwoViews

SIZES = Sizes(n_latent=4, hidden=8, n_profiles=60)
QUICK_VIEWS = Settings(**QUICK | {"epochs": 4}, objective="simclr", basis="free", init="random", device="cpu")


def make(name: str, seed: int = 0) -> tuple[Network, SelfSupervised, TwoViews]:
    """A random encoder of 30 genes, a method, and two views of 20 profiles."""
    torch.manual_seed(seed)
    network = random_network(torch.rand(30), SIZES.n_latent, SIZES.hidden, dropout=0.0)
    network.drop_decoder()
    counts = simulate(20, 30, seed=seed).X
    first, second = (sparse_rows(each.tocsr().log1p(), transpose=True) for each in (counts, counts * 0.5))
    return network, OBJECTIVES[name](SIZES, None), TwoViews(first, second)


def step(network: Network, objective: SelfSupervised, views: TwoViews) -> Embeddings:
    """One step of plain gradient descent."""
    seen = objective.see(network, views)
    parameters = [*network.parameters(), *objective.learned()]
    gradients = torch.autograd.grad(objective(seen), parameters, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter -= 0.1 * gradient
    objective.after_step(network, seen)
    return seen


def teacher_of(objective: SelfSupervised) -> torch.nn.Module:
    assert objective._teacher is not None
    return objective._teacher.module


def test_objectives_are_named_in_the_settings() -> None:
    assert list(OBJECTIVE_NAMES) == ["reconstruction", *OBJECTIVES]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("reconstruction", (None, True)),
        ("dino", ("dino", False)),
        ("simclr+reconstruction", ("simclr", True)),
        ("reconstruction+byol", ("byol", True)),
    ],
)
def test_an_objective_is_one_or_joined_with_reconstruction(text: str, found: tuple[str | None, bool]) -> None:
    assert parse_objective(text) == found


@pytest.mark.parametrize("text", ["simcrl", "simclr+dino", "simclr+simclr", "", "reconstruction+reconstruction"])
def test_other_objectives_are_refused(text: str) -> None:
    with pytest.raises(
        InputError, match=f"^unknown objective '{text.replace('+', '.')}'.* Available: reconstruction, "
    ):
        parse_objective(text)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_moves_encoder_and_heads_and_no_target_gets_a_gradient(name: str) -> None:
    network, objective, views = make(name)
    objective.begin(network, n_steps=10)
    seen = objective.see(network, views)
    assert not any(target.requires_grad for target in seen.target)
    gradients = torch.autograd.grad(objective(seen), [network.encoder_weight, *objective.learned()])
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    assert objective.by_profile(seen).shape == (20,)
    torch.testing.assert_close(objective(seen), objective.by_profile(seen).mean())


def test_views_of_another_mean_are_embedded_as_those_of_the_own_one() -> None:
    network, _, views = make("simclr")
    torch.manual_seed(1)
    shift = torch.rand(30)
    objective = OBJECTIVES["simclr"](SIZES, shift)
    scores = network.scores(views.first, shift)
    torch.testing.assert_close(objective.see(network, views).latent[0], network.encode(scores))
    assert not torch.allclose(scores, network.scores(views.first))
    assert torch.equal(objective.state()["shift"], shift)


def test_simclr_and_moco_v3_are_the_losses_of_their_projections() -> None:
    network, objective, views = make("simclr")
    objective.begin(network, 10)
    projected = [objective.projector(network.encode(network.scores(view))) for view in (views.first, views.second)]
    torch.testing.assert_close(objective.by_profile(objective.see(network, views)), nt_xent(*projected, 0.5))
    network, objective, views = make("moco-v3")
    objective.begin(network, 10)
    seen = objective.see(network, views)
    expected = against_batch(seen.online[0], seen.target[1], 0.2) + against_batch(seen.online[1], seen.target[0], 0.2)
    torch.testing.assert_close(objective.by_profile(seen), expected)


def test_simsiam_predicts_the_projection_of_the_other_view() -> None:
    network, objective, views = make("simsiam")
    seen = objective.see(network, views)
    z = [objective.projector(network.encode(network.scores(view))) for view in (views.first, views.second)]
    p = [objective.predictor(each) for each in z]  # type: ignore[misc]
    expected = -(torch.cosine_similarity(p[0], z[1]) + torch.cosine_similarity(p[1], z[0])) / 2
    torch.testing.assert_close(objective.by_profile(seen), expected)
    assert seen.target[0].mean(0).abs().max() < 1e-5  # the projector ends with BatchNorm


def test_byol_is_four_minus_two_cosines() -> None:
    network, objective, views = make("byol")
    objective.begin(network, 10)
    seen = objective.see(network, views)
    expected = 4 - 2 * sum(torch.cosine_similarity(seen.online[i], seen.target[1 - i]) for i in range(2))
    torch.testing.assert_close(objective.by_profile(seen), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["moco-v2", "moco-v3", "byol", "dino"])
def test_a_teacher_starts_as_a_copy_and_follows_by_its_momentum(name: str) -> None:
    network, objective, views = make(name)
    n_steps = 4
    objective.begin(network, n_steps)
    student = Branch(network, objective.projector)
    for ours, theirs in zip(student.parameters(), teacher_of(objective).parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours is not theirs
        assert not theirs.requires_grad
    expected = [parameter.detach().clone() for parameter in student.parameters()]
    for number in range(1, n_steps + 1):
        step(network, objective, views)
        momentum = MOMENTUM if name == "moco-v2" else cosine_ramp(MOMENTUM, 1.0, number / n_steps)
        expected = [
            momentum * before + (1 - momentum) * now.detach()
            for before, now in zip(expected, student.parameters(), strict=True)
        ]
        for theirs, ours in zip(teacher_of(objective).parameters(), expected, strict=True):
            torch.testing.assert_close(theirs, ours, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["simclr", "simsiam"])
def test_others_have_no_teacher(name: str) -> None:
    network, objective, views = make(name)
    objective.begin(network, 3)
    step(network, objective, views)
    assert objective._teacher is None


def test_momentum_goes_along_half_a_cosine() -> None:
    found = [cosine_ramp(0.99, 1.0, progress) for progress in (0, 0.5, 1, 2)]
    np.testing.assert_allclose(found, [0.99, 0.995, 1, 1])
    assert cosine_ramp(0, 1, 0.25) == pytest.approx((1 - math.cos(math.pi / 4)) / 2)


def test_a_queue_takes_the_newest_keys_in_and_lets_the_oldest_go() -> None:
    network, objective, views = make("moco-v2")
    objective.begin(network, 10)
    queue: Tensor = objective.queue  # type: ignore[assignment]
    assert queue.shape == (30, N_PROJECTED)  # half of the profiles
    torch.testing.assert_close(queue.norm(dim=1), torch.ones(30))
    seen = objective.see(network, views)
    expected = (
        against_queue(seen.online[0], seen.target[1], queue, 0.2)
        + against_queue(seen.online[1], seen.target[0], queue, 0.2)
    ) / 2
    torch.testing.assert_close(objective.by_profile(seen), expected)
    keys = unit(step(network, objective, views).target[1])
    after: Tensor = objective.queue  # type: ignore[assignment]
    torch.testing.assert_close(after, torch.cat([keys, queue[:10]]))


def test_the_centre_follows_the_teacher() -> None:
    network, objective, views = make("dino")
    objective.begin(network, 10)
    seen = step(network, objective, views)
    center: Tensor = objective.center  # type: ignore[assignment]
    torch.testing.assert_close(center, (1 - CENTER_MOMENTUM) * torch.cat(seen.target).mean(0))
    expected = (
        distillation(seen.online[0], seen.target[1], center, 0.1, 0.04)
        + distillation(seen.online[1], seen.target[0], center, 0.1, 0.04)
    ) / 2
    torch.testing.assert_close(objective.by_profile(seen), expected)
    assert isinstance(objective.projector, Prototypes)
    assert all(logits.abs().max() <= 1 + 1e-6 for logits in seen.target)


def test_the_head_of_dino_tells_profiles_apart_however_short_their_latents_are() -> None:
    _, objective, _ = make("dino")
    embedding = objective.projector.get_submodule("embedding")
    cosines = []
    for head in (embedding, layers((4, 8, 8, N_PROJECTED), is_normalized=False)):
        vectors = unit(head(0.01 * torch.randn(50, 4)).detach())
        cosines.append(float((vectors @ vectors.T).mean()))
    assert cosines[0] < 0.8
    assert cosines[1] > 0.99  # its biases are all that is seen


@pytest.mark.parametrize("name", ["moco-v2", "moco-v3", "byol", "dino"])
def test_a_teacher_trains_from_the_first_step_on(name: str) -> None:
    network, objective, views = make(name)
    network.eval()  # as the record of the start leaves it
    objective.begin(network, 10)
    for _ in range(2):
        assert all(part.training for part in teacher_of(objective).modules())
        objective.validate(network, [views])


def test_projectors_have_the_layers_that_they_are_asked_for() -> None:
    kinds = [type(part).__name__ for part in layers((4, 8, 8, 3), True, is_last_normalized=True)]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    assert [type(part).__name__ for part in layers((4, 8, 3), False)] == ["Linear", "ReLU", "Linear"]
    first, _, _, last = layers((4, 8, 3), True)
    assert first.bias is None
    assert last.bias is not None


def test_a_plain_cut_divides_every_parameter() -> None:
    network, objective, _ = make("byol")
    before = copy.deepcopy(objective.state_dict())
    objective.begin(network, 10, cut=3.0)
    for name, parameter in objective.named_parameters():
        if not name.startswith("_teacher"):
            torch.testing.assert_close(parameter.detach(), before[name] / 3)
    torch.testing.assert_close(
        dict(teacher_of(objective).named_parameters())["projector.0.weight"].data, before["projector.0.weight"] / 3
    )
    encoder = dict(network.named_parameters())
    copied = {name: parameter.detach().clone() for name, parameter in encoder.items()}
    cut_plainly(network, 2.0)
    assert all(torch.equal(parameter, copied[name] / 2) for name, parameter in encoder.items())


def test_judging_says_what_the_vectors_look_like() -> None:
    network, objective, views = make("simclr")
    losses, found = objective.validate(network, [views, views])
    seen = objective.see(network, views)
    z, other = (each.detach().double() for each in seen.online)
    cosine = torch.cosine_similarity(z, other)
    assert losses.shape == (40,)
    torch.testing.assert_close(losses[:20], objective.by_profile(seen).double())
    assert found["view_cosine"] == pytest.approx(float(cosine.mean()))
    assert found["opposite_halves"] == float((cosine < 0).double().mean())
    assert found["embedding_norm"] == pytest.approx(float(torch.cat([z, z]).norm(dim=1).median()))
    sine = (1 - cosine**2).clamp(min=0).sqrt()
    assert found["effective_gradient"] == pytest.approx(float((sine / z.norm(dim=1)).mean()), rel=1e-5)
    gradient = torch.autograd.functional.jacobian(lambda x: torch.cosine_similarity(x, other).sum(), z)
    assert found["effective_gradient"] == pytest.approx(float(gradient.norm(dim=1).mean()), rel=1e-5)
    assert 0 < found["latent_spread"] < 1.1
    assert found["latent_norm"] == pytest.approx(float(torch.cat([seen.latent[0].detach()] * 2).norm(dim=1).median()))


@pytest.fixture(scope="module")
def profiles() -> Profiles:
    return read_profiles(simulate())


def test_barlow_and_vicreg_are_the_losses_of_their_projections() -> None:
    for name, loss in (("barlow", lambda *z: cross_correlation(*z, 1 / N_PROJECTED)), ("vicreg", variance_covariance)):
        network, objective, views = make(name)
        objective.begin(network, 10)
        seen = objective.see(network, views)
        z = [objective.projector(network.encode(network.scores(view))) for view in (views.first, views.second)]
        torch.testing.assert_close(objective.by_profile(seen), loss(*z), rtol=1e-4, atol=1e-5)
        assert objective.normalized(seen) == seen.online


WHITENED = replace(QUICK_VIEWS, basis="pca", init="pca")


@pytest.mark.parametrize("n_latent", [2, 8])
def test_an_encoder_starts_at_the_latents_of_the_default_fit(profiles: Profiles, n_latent: int) -> None:
    settings = replace(WHITENED, n_latent=n_latent)
    data = prepare(profiles, settings)
    bases = fit_bases(data)
    network, expression = _start(data, bases), data.validation
    default = replace(settings, objective="reconstruction")
    of_default = prepare(profiles, default)
    model = fit(profiles, replace(default, epochs=1, learning_rate=1e-9)).model  # ends at its start
    assert model.config["best_epoch"] == 0
    encoder = Model(network, data.preprocess, bases.baselines, {}, model.config, bases.estimator.estimator.only())
    np.testing.assert_allclose(encoder.latent(expression), model.latent(of_default.validation), rtol=1e-5, atol=1e-5)
    shallow = np.full(expression.n_profiles, 10.0)
    np.testing.assert_allclose(
        encoder.latent(expression, shallow), model.latent(of_default.validation, shallow), rtol=1e-5, atol=1e-5
    )
    assert not np.allclose(encoder.latent(expression), encoder.latent(expression, shallow))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_each_method_opens_the_gates_and_leaves_the_linear_path(profiles: Profiles, name: str) -> None:
    data = prepare(profiles, replace(WHITENED, objective=name, epochs=2))
    bases = fit_bases(data)
    found: list[Tensor] = []

    def watch(network: Network, shift: Tensor | None) -> dict[str, float]:
        found.append(network.core.gate.detach().clone())
        assert torch.equal(network.core.encoder_linear.weight, torch.eye(WHITENED.n_latent, len(network.deviation)))
        return {}

    history = train_network(data, bases, watch).training.history
    assert torch.equal(found[0], torch.zeros(WHITENED.n_latent))
    assert found[-1].abs().max() > 0
    assert history["validation_loss"].notna().all()


def test_an_encoder_keeps_the_scores_of_its_estimator_alone(profiles: Profiles) -> None:
    model = fit(profiles, WHITENED).model
    assert model.estimator is not None
    assert model.estimator.kept == ()
    assert model.config["network"]["core"] == "gated"
    assert [depth.ratio for depth in model.depths_of(model.preprocess.match(profiles)[0], ratio=4.0)] == [4.0]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_each_method_learns_what_tells_kinds_apart(profiles: Profiles, name: str) -> None:
    settings = replace(QUICK_VIEWS, objective=name, epochs=20, learning_rate=5e-3, batch_size=48)
    fitted = fit(profiles, settings)
    history, preprocess = fitted.history, fitted.model.preprocess
    if name not in ("moco-v2", "dino"):  # whose tasks grow harder as queue and teacher learn
        assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[1]
    assert history["latent_spread"].iloc[-1] > 0.1  # it has not collapsed
    assert fitted.model.config["best_epoch"] == 20  # the last one
    expression, _ = preprocess.match(profiles)
    data = JudgingData(settings, profiles.obs, fitted.split, expression, preprocess, has_decoder=False)
    known = labelled(data, "kind")
    right = knn_is_right(known, encode(fitted.model.network, known.matrix), "test", 20)
    assert right.mean() > 0.5  # of four kinds


def same(first: Fitted, second: Fitted) -> bool:
    one, two = first.model.network.state_dict(), second.model.network.state_dict()
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    "kind", [{"objective": "byol"}, {"objective": "moco-v2", "basis": "pca", "init": "pca", "target": "self"}]
)
def test_the_same_seed_gives_the_same_encoder_bit_for_bit(profiles: Profiles, kind: dict[str, Any]) -> None:
    settings = replace(QUICK_VIEWS, **kind, epochs=2)
    first = fit(profiles, settings)
    torch.manual_seed(9)
    assert same(first, fit(profiles, settings))
    assert not same(first, fit(profiles, replace(settings, seed=1)))


def test_labels_take_no_part_in_training(profiles: Profiles) -> None:
    with_labels = fit(profiles, replace(QUICK_VIEWS, label="kind"))
    assert same(with_labels, fit(profiles, QUICK_VIEWS))
    obs = profiles.obs.assign(kind=profiles.obs["kind"].to_numpy()[::-1])
    assert same(with_labels, fit(replace(profiles, obs=obs), replace(QUICK_VIEWS, label="kind")))


def test_test_profiles_change_no_weight(profiles: Profiles) -> None:
    first = fit(profiles, QUICK_VIEWS)
    dense = profiles.matrix.toarray()
    rows = (first.split == "test").to_numpy()
    dense[rows] = np.random.default_rng(9).poisson(3.0, dense[rows].shape)
    assert same(first, fit(replace(profiles, matrix=type(profiles.matrix)(dense)), QUICK_VIEWS))


def test_a_joint_objective_reconstructs_and_agrees(profiles: Profiles) -> None:
    settings = replace(QUICK_VIEWS, objective="simclr+reconstruction", epochs=1)
    joint, twice = (fit(profiles, replace(settings, agreement=weight)) for weight in (0.5, 1.0))
    assert {"validation_cosine", "view_cosine"} <= set(joint.history.columns)
    assert joint.model.network.has_decoder
    assert set(joint.evaluation.metrics["model"]) >= {"model", "pca", "mean_profile"}
    assert not same(joint, twice)
    alone = fit(profiles, replace(QUICK_VIEWS, objective="reconstruction", epochs=1)).history.iloc[0]
    start, start_twice = joint.history.iloc[0], twice.history.iloc[0]
    assert start["validation_mse"] == pytest.approx(alone["validation_mse"])
    extra = start["validation_loss"] - alone["validation_loss"]
    assert extra > 0
    assert start_twice["validation_loss"] - alone["validation_loss"] == pytest.approx(2 * extra, rel=1e-5)


def test_values_without_counts_are_masked() -> None:
    adata = simulate()
    adata.X = adata.X.log1p()
    logs = read_profiles(adata)
    assert fit(logs, replace(QUICK_VIEWS, epochs=1)).history["view_cosine"].notna().all()
    with pytest.raises(InputError, match="view thin takes molecules away and needs counts"):
        fit(logs, replace(QUICK_VIEWS, views="thin"))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({"target": "split"}, "--target split needs a reconstruction, but objective simclr trains no decoder."),
        ({"batch_size": 1}, "objective simclr needs mini-batches of at least 2 profiles; found --batch-size 1."),
        ({"label": "knd"}, "unknown obs column 'knd'; did you mean 'kind'"),
    ],
)
def test_what_does_not_suit_an_objective_is_refused(profiles: Profiles, kind: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit(profiles, replace(QUICK_VIEWS, **kind))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({}, "objective simclr draws views of profiles in memory, but these stay in their file. Use --stream no if "),
        ({"objective": "reconstruction", "label": "kind"}, "--label evaluates profiles in memory, but these stay "),
        (
            {"objective": "reconstruction", "batch_key": "donor"},
            "--batch evaluates profiles in memory, but these stay ",
        ),
    ],
)
def test_profiles_in_a_file_have_no_views_and_are_not_judged(
    counts_path: Path, kind: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fit(read_profiles(counts_path, stream="yes"), replace(QUICK_VIEWS, **kind))


def test_nulls_are_of_reconstruction(profiles: Profiles) -> None:
    with pytest.raises(
        InputError, match=r"--null needs a reconstruction, but objective simclr trains no decoder\. Leave out --null\."
    ):
        fit(profiles, QUICK_VIEWS, null="gene_permuted")
