import gc
import re
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from reference import DenseTwin, csr, dense_products, reconstruct
from starts import FACTORS, KINDS, basis, build, latents, outputs, profiles, with_random_biases
from torch import Tensor, nn

from geneae.losses.reconstruction import LOSSES, LossSettings, mean_loss
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.cores import Dropout, PlainCore, SkipCore
from geneae.models.cut import cut_initialize
from geneae.models.network import Network, network_in_basis, random_network
from geneae.models.pca import Basis
from geneae.settings.errors import InputError


@pytest.mark.parametrize("is_free", [False, True])
@pytest.mark.parametrize("factors", [torch.ones(6), FACTORS])
def test_without_its_mlps_it_starts_as_shrunken_pca(is_free: bool, factors: Tensor) -> None:
    at = basis()
    network = network_in_basis(at, factors, 4, 7, 0.5, is_free).eval()
    network.core.silence_mlps()
    x = torch.from_numpy(profiles())
    v = at.components.double()
    keep = factors.double() * (torch.arange(6) < 4)
    expected = at.mean.double() + (x - at.mean.double()) @ v @ torch.diag(keep) @ v.T
    torch.testing.assert_close(outputs(network, latents(network)).double(), expected, rtol=1e-5, atol=1e-5)


def test_with_its_mlps_it_starts_near_there() -> None:
    network = build("pca").eval()
    start = outputs(network, latents(network))
    network.core.silence_mlps()
    silent = outputs(network, latents(network))
    assert 0 < float((start - silent).norm() / (silent - silent.mean(0)).norm()) < 0.05


def test_whitened_scores_of_training_profiles_have_deviation_one() -> None:
    scores = build("pca").scores(sparse_rows(csr(profiles())))
    np.testing.assert_allclose(scores.std(0, correction=0), np.ones(6), rtol=1e-4)


def test_the_mean_profile_has_scores_and_hidden_zero() -> None:
    network = build("free-pca").eval()
    network.core.silence_mlps()
    mean = network.mean.numpy()[None]
    np.testing.assert_allclose(network.scores(sparse_rows(csr(mean))).detach(), np.zeros((1, 6)), atol=1e-4)
    np.testing.assert_allclose(outputs(network, latents(network, mean)), mean, atol=1e-4)


def test_directions_without_variance_do_not_blow_up() -> None:
    at = basis()
    flat = Basis(at.components, at.mean, at.deviation * torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.0]))
    network = network_in_basis(flat, FACTORS, 3, 7, 0.0, is_free=False)
    assert network.deviation.min() == pytest.approx(1e-6 * float(at.deviation.max()))
    assert latents(network.eval()).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_and_decoding_equal_the_dense_twin(kind: str) -> None:
    network = with_random_biases(build(kind))
    twin, x = DenseTwin(network), torch.from_numpy(csr(profiles()).toarray()).double()
    z = latents(network)
    assert z.shape == (30, 3)
    assert network.decode(z).shape == (30, 6)
    torch.testing.assert_close(z, twin.encode(x).detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(outputs(network, z), twin.predict(z).detach(), rtol=1e-9, atol=1e-9)


def test_forward_from_projections_at_hand_equals_forward_from_profiles() -> None:
    network = with_random_biases(build("pca"))
    rows = sparse_rows(csr(profiles())).to("cpu", torch.float64)
    target = network.decoder().project(rows)
    torch.testing.assert_close(network.scores_of(target), network.scores(rows))
    centers = ("none", "gene", "profile")
    by_scores, z = reconstruct(network, network.scores_of(target), target, *centers)
    by_rows, other = reconstruct(network, rows, rows, *centers)
    torch.testing.assert_close(z, other)
    assert by_scores.keys() == by_rows.keys() == set(centers)
    x, y = torch.from_numpy(csr(profiles()).toarray()).double(), outputs(network, z.detach())
    for center in centers:
        expected = dense_products(x, y, center, network.mean)
        for name in ("cross", "target", "predicted"):
            torch.testing.assert_close(getattr(by_scores[center], name), getattr(by_rows[center], name))
            torch.testing.assert_close(getattr(by_scores[center], name), getattr(expected, name), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_forward_may_predict_other_profiles_than_it_reads(kind: str) -> None:
    network = with_random_biases(build(kind))
    inputs, targets = profiles(), profiles()[::-1].copy()
    source, target = (sparse_rows(csr(v)).to("cpu", torch.float64) for v in (inputs, targets))
    found = reconstruct(network, source, target)[0]["none"]
    y = outputs(network, latents(network, inputs))
    expected = dense_products(torch.from_numpy(csr(targets).toarray()).double(), y)
    for name in ("cross", "target", "predicted"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["pca", "free-pca"])
def test_forward_keeps_up_when_precision_changes(kind: str) -> None:
    network = build(kind).eval()
    for dtype in (torch.float32, torch.float64, torch.float32):
        network = network.to(dtype)
        rows = sparse_rows(csr(profiles())).to("cpu", dtype)
        products = reconstruct(network, rows, rows, "gene")[0]["gene"]
        y = outputs(network, latents(network)).double()
        expected = dense_products(torch.from_numpy(profiles()), y, "gene", network.mean.double())
        assert products.predicted.dtype == dtype
        torch.testing.assert_close(products.predicted.double(), expected.predicted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_low_precision_inside_leaves_the_inner_products_in_float32(kind: str) -> None:
    network = build(kind).eval()
    rows = sparse_rows(csr(profiles()), transpose=True)
    exact = reconstruct(network, rows, rows)[0]["none"]
    with torch.autocast("cpu", torch.bfloat16):
        by_center, z = reconstruct(network, rows, rows)
    products = by_center["none"]
    assert z.dtype == torch.bfloat16
    for name in ("cross", "target", "predicted"):
        value = getattr(products, name)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, getattr(exact, name), rtol=0.02, atol=0.02 * float(exact.target.max()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_shift_of_the_gene_mean_is_taken_off_the_input_and_put_onto_the_output(kind: str) -> None:
    network = with_random_biases(build(kind))
    shift = torch.linspace(-0.5, 1.0, 50, dtype=torch.float64)
    x = csr(profiles(), np.float64)
    moved = csr(profiles().astype(np.float64) + shift.numpy(), np.float64)
    rows, moved_rows = (sparse_rows(m) for m in (x, moved))
    scores = network.scores(rows)
    torch.testing.assert_close(network.scores(moved_rows, shift), scores, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(network.decoder(shift).offset, network.decoder().offset + shift)
    hidden = network.decode(network.encode(scores))
    for center in ("none", "gene", "profile"):
        decoder, moved = network.decoder(), network.decoder(shift)
        plain = decoder.products(hidden, decoder.project(rows), [center])[center]
        both = moved.products(hidden, moved.project(moved_rows), [center])[center]
        dense_x = torch.from_numpy(profiles()) + shift
        dense_y = hidden @ network.output_weight().T + network.decoder().offset + shift
        expected = dense_products(dense_x, dense_y, center, network.mean + shift)
        for name in ("cross", "target", "predicted"):
            torch.testing.assert_close(getattr(both, name), getattr(expected, name), rtol=1e-6, atol=1e-6)
            if center == "gene":
                torch.testing.assert_close(getattr(both, name), getattr(plain, name), rtol=1e-6, atol=1e-6)


def test_latents_beyond_the_number_of_scores_start_at_zero() -> None:
    core = SkipCore(torch.tensor([0.9, 0.5]), 5, 7, 0.0)
    core.silence_mlps()
    scores = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    latent = core.encode(scores)
    torch.testing.assert_close(latent, torch.cat([scores, torch.zeros(2, 3)], 1))
    torch.testing.assert_close(core.decode(latent), scores * torch.tensor([0.9, 0.5]))


@pytest.mark.parametrize("kind", KINDS)
def test_its_shape_and_parameters_are_those_of_its_kind(kind: str) -> None:
    network = build(kind)
    is_free, core = kind != "pca", "plain" if kind == "free-random" else "skip"
    facts = {"is_free": is_free, "is_whitened": False, "has_decoder": True}
    assert network.shape() == {"core": core, **facts, "n_scores": 6, "n_genes": 50}
    assert isinstance(network.core, PlainCore if core == "plain" else SkipCore)
    sizes = {name: p.numel() for name, p in network.named_parameters() if not name.startswith("core")}
    learned = {"encoder_weight": 300, "encoder_bias": 6, "decoder_weight": 300, "decoder_bias": 50}
    assert sizes == (learned if is_free else {})
    slow = {id(p) for p in network.linear_parameters()}
    expected = {
        "pca": ["core.encoder_linear.weight", "core.decoder_linear.weight"],
        "free-pca": ["core.encoder_linear.weight", "core.decoder_linear.weight", *learned],
        "free-random": [],
    }[kind]
    assert {name for name, p in network.named_parameters() if id(p) in slow} == set(expected)


def test_a_free_basis_learns_its_two_matrices_apart_and_a_fixed_one_stays() -> None:
    at = basis()
    before = at.components.clone()
    network = network_in_basis(at, FACTORS, 3, 7, 0.0, is_free=True)
    with torch.no_grad():
        network.encoder_weight.mul_(2)
    assert torch.equal(network.decoder_weight, before)
    assert torch.equal(at.components, before)


def test_dropout_acts_in_training_alone() -> None:
    for kind in KINDS:
        network = build(kind, dropout=0.5)
        rows = sparse_rows(csr(profiles()))
        network.train()
        assert not torch.equal(network.encode(network.scores(rows)), network.encode(network.scores(rows)))
        network.eval()
        assert torch.equal(network.encode(network.scores(rows)), network.encode(network.scores(rows)))


@pytest.mark.parametrize("p", [0.25, 0.1, 0.7])
def test_dropout_drops_its_share_and_keeps_the_mean_and_the_gradient(p: float) -> None:
    torch.manual_seed(0)
    ones = torch.ones(501, 401, requires_grad=True)  # no multiple of four
    found = Dropout(p)(ones)
    found.sum().backward()
    share = float((found == 0).double().mean())
    assert abs(share - p) < 5 * (p * (1 - p) / found.numel()) ** 0.5
    torch.testing.assert_close(found[found > 0], torch.full_like(found[found > 0], 1 / (1 - p)), rtol=1e-4, atol=0)
    assert torch.equal(found, ones.grad)
    neighbours = (found[:, 1:] == 0) & (found[:, :-1] == 0)  # drawn independently
    assert abs(float(neighbours.double().mean()) - p * p) < 5 * (p * p / neighbours.numel()) ** 0.5 * 2


def test_silencing_a_plain_network_changes_nothing() -> None:
    network = build("free-random").eval()
    before = latents(network)
    network.core.silence_mlps()
    assert torch.equal(latents(network), before)


def check_cut(before: Tensor, after: Tensor, ratio: float) -> None:
    """Check that directions are kept and that norms are `ratio` times as large."""
    assert before.norm() > 0
    cosine = torch.nn.functional.cosine_similarity(before, after)
    torch.testing.assert_close(cosine, torch.ones_like(cosine), atol=1e-6, rtol=0)
    ratios = after.norm(dim=1) / before.norm(dim=1)
    torch.testing.assert_close(ratios, torch.full_like(ratios, ratio), rtol=1e-5, atol=0)


@pytest.mark.parametrize("factor", [3.0, 9.0, 1 / 3])
@pytest.mark.parametrize(
    ("where", "latent_layers", "output_layers"), [("all", 2, 4), ("encoder", 2, None), ("decoder", 0, 2)]
)
def test_a_cut_of_a_plain_network_keeps_every_direction(
    where: str, latent_layers: int, output_layers: int | None, factor: float
) -> None:
    network = with_random_biases(build("free-random"))
    z = latents(network)
    y = outputs(network, z)
    cut_initialize(network, factor, where)
    check_cut(z, latents(network), factor**-latent_layers)
    if output_layers is not None:
        check_cut(y, outputs(network, latents(network)), factor**-output_layers)
    else:  # the decoder's biases stay, so that only its own input shrinks
        torch.testing.assert_close(outputs(network, z), y)


@pytest.mark.parametrize("kind", ["pca", "free-pca"])
@pytest.mark.parametrize(
    ("where", "latent_layers", "hidden_layers"), [("all", 2, 4), ("encoder", 2, None), ("decoder", 0, 2)]
)
def test_a_cut_of_a_network_with_linear_paths_keeps_every_direction_of_its_core(
    kind: str, where: str, latent_layers: int, hidden_layers: int | None
) -> None:
    network = with_random_biases(build(kind))
    gene_sized = {n: p.clone() for n, p in network.state_dict().items() if not n.startswith("core")}
    z = latents(network)
    hidden = network.decode(z).detach()
    cut_initialize(network, 3.0, where)
    check_cut(z, latents(network), 3.0**-latent_layers)
    if hidden_layers is not None:
        check_cut(hidden, network.decode(latents(network)).detach(), 3.0**-hidden_layers)
    for name, value in gene_sized.items():  # a PCA basis and the mean it adds are left alone
        assert torch.equal(network.state_dict()[name], value)


def test_dividing_every_parameter_would_not_keep_directions() -> None:
    network = with_random_biases(build("free-random"))
    y = outputs(network, latents(network))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.div_(9)
    cosine = torch.nn.functional.cosine_similarity(y, outputs(network, latents(network)))
    assert cosine.min() < 0.99


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["encoder", "decoder", "all"])
def test_a_cut_of_one_changes_nothing(kind: str, where: str) -> None:
    network = build(kind)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    cut_initialize(network, 1.0, where)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    ("factor", "where", "message"),
    [
        (0.0, "all", "the cut must be a number above 0; found 0. 1 means no cut."),
        (-2.0, "all", "the cut must be a number above 0; found -2. 1 means no cut."),
        (float("nan"), "all", "the cut must be a number above 0; found nan. 1 means no cut."),
        (3.0, "output", "the cut must be in one of encoder, decoder, all; found 'output'."),
    ],
)
def test_impossible_cuts_are_refused_before_anything_is_cut(factor: float, where: str, message: str) -> None:
    network = build("free-random")
    before = [p.clone() for p in network.parameters()]
    with pytest.raises(InputError, match=re.escape(message)):
        cut_initialize(network, factor, where)
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), before, strict=True))


def cosine_step(network: Network) -> Callable[[Tensor], float]:
    """Take gradients of the cosine loss; return a function that gives |<gradient, parameter>| over both norms."""
    rows = sparse_rows(csr(profiles()), transpose=True).to("cpu", torch.float64)
    products = reconstruct(network, rows, rows)[0]["none"]
    mean_loss(LOSSES["cosine"].function, products, LossSettings(median_norm=1e-9)).backward()

    def relative(*parameters: Tensor) -> float:
        gradients = [p.grad for p in parameters]
        assert all(g is not None for g in gradients)
        inner = sum(float((g * p).sum().detach()) for g, p in zip(gradients, parameters, strict=True))
        norms = [sum(float(v.detach().square().sum()) for v in vs) ** 0.5 for vs in (gradients, parameters)]
        assert min(norms) > 0
        return abs(inner) / (norms[0] * norms[1])

    return relative


def test_a_cosine_never_pulls_at_the_length_of_a_layer_without_bias() -> None:
    network = with_random_biases(build("free-random"), size=0.0)
    relative = cosine_step(network)
    core = network.core
    assert isinstance(core, PlainCore)
    layers = [layer for side in (core.encoder, core.decoder) for layer in side if isinstance(layer, nn.Linear)]
    for weight in (network.encoder_weight, *(layer.weight for layer in layers), network.decoder_weight):
        assert relative(weight) < 1e-6


def test_nor_at_that_of_the_last_layer_with_its_bias_but_at_that_of_an_inner_one() -> None:
    network = with_random_biases(build("free-random"))
    relative = cosine_step(network)
    assert relative(network.decoder_weight, network.decoder_bias) < 1e-6
    assert relative(network.encoder_weight) > 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["encoder", "decoder", "all"])
def test_a_cut_may_start_biases_at_zero_or_divide_them_like_weights(kind: str, where: str) -> None:
    before = dict(with_random_biases(build(kind)).named_parameters())
    for bias in ("zero", "scale"):
        network = with_random_biases(build(kind))
        cut_initialize(network, 3.0, where, bias)
        for name, value in network.named_parameters():
            of_side = where == "all" or name.removeprefix("core.").startswith(where)
            is_cut = of_side and (kind == "free-random" or name.startswith("core"))
            layers = 2 if "linear" in name and bias == "zero" else 1
            factor = 1.0 if not is_cut else 0.0 if bias == "zero" and name.endswith("bias") else 3.0**-layers
            torch.testing.assert_close(value, factor * before[name], msg=f"{bias} {name}")


def test_dividing_biases_like_weights_makes_profiles_alike_and_the_other_cuts_do_not() -> None:
    x = profiles()

    def between(network: Network) -> float:
        y = torch.nn.functional.normalize(outputs(network, latents(network, x)))
        return float((y @ y.T)[~torch.eye(len(y), dtype=torch.bool)].mean())

    found = {}
    for bias in ("homogeneous", "scale"):
        for factor in (1.0, 3.0, 9.0):
            network = build("free-random").double().eval()
            cut_initialize(network, factor, "all", bias)
            found[bias, factor] = between(network)
    assert found["homogeneous", 9.0] == pytest.approx(found["homogeneous", 1.0], abs=1e-6)
    assert found["scale", 1.0] < 0.98 < found["scale", 3.0] < 0.9999 < found["scale", 9.0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["encoder", "decoder", "all"])
def test_a_target_norm_is_reached_without_turning_anything(kind: str, where: str) -> None:
    network = with_random_biases(build(kind))
    rows = sparse_rows(csr(profiles())).to("cpu", torch.float64)
    z = latents(network)
    hidden, y = network.decode(z).detach(), outputs(network, z)
    cut_initialize(network, 1.0, where, target_norm=2.5, inputs=rows)
    after = latents(network)
    if where == "encoder":
        check_cut(z, after, 2.5 / float(z.norm(dim=1).median()))
        return
    torch.testing.assert_close(after, z)
    if kind == "free-random":
        check_cut(y, outputs(network, z), 2.5 / float(y.norm(dim=1).median()))
    else:  # the mean profile stays; what is added to it is scaled
        offset = network.decoder().offset.detach()
        distance = (y - offset).norm(dim=1)
        check_cut(hidden, network.decode(z).detach(), 2.5 / float(distance.median()))
        assert float((outputs(network, z) - offset).norm(dim=1).median()) == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"bias": "half"}, "the biases of a cut must be one of homogeneous, zero, scale; found 'half'."),
        ({"target_norm": 1.0}, "a target norm needs a mini-batch to measure norms on; found none. Pass inputs."),
        ({"target_norm": -1.0, "inputs": torch.zeros(2, 6)}, "the target norm must be a number above 0; found -1."),
    ],
)
def test_impossible_choices_of_a_cut_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        cut_initialize(build("pca"), 2.0, **choices)


def test_a_target_norm_of_outputs_that_are_all_zero_is_refused() -> None:
    network = build("free-random")
    for parameter in network.parameters():
        parameter.data.zero_()
    with pytest.raises(InputError, match=r"all initial outputs are zero\. Use another --cut\."):
        cut_initialize(network, target_norm=1.0, inputs=sparse_rows(csr(profiles())))


def test_unit_latents_have_norm_one_and_the_direction_of_others() -> None:
    mean = torch.from_numpy(profiles().mean(0)).float()
    torch.manual_seed(0)
    unit = with_random_biases(random_network(mean, 3, 6, 0.0, has_unit_latents=True))
    other = with_random_biases(build("free-random"))
    z = latents(unit)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(len(z), dtype=torch.float64))
    torch.testing.assert_close(z, torch.nn.functional.normalize(latents(other)))


def test_weights_of_a_network_without_biases_never_get_shorter_under_plain_gradient_descent() -> None:
    torch.manual_seed(0)
    network = random_network(torch.from_numpy(profiles().mean(0)), 8, 20, 0.0).double().eval()
    cut_initialize(network, 1.0, "all", "zero")
    weights = {name: p for name, p in network.named_parameters() if name.endswith("weight")}
    rows = sparse_rows(csr(profiles()), transpose=True).to("cpu", torch.float64)
    start = {name: float(weight.detach().norm()) for name, weight in weights.items()}
    for _ in range(30):
        products = reconstruct(network, rows, rows)[0]["none"]
        loss = mean_loss(LOSSES["cosine"].function, products, LossSettings(median_norm=0.0))
        gradients = torch.autograd.grad(loss, list(weights.values()))
        with torch.no_grad():
            for weight, gradient in zip(weights.values(), gradients, strict=True):
                inner = (weight * gradient).sum() / (weight.norm() * gradient.norm())
                assert abs(float(inner)) < 1e-6
                before = weight.norm()
                weight.sub_(0.3 * gradient)
                assert weight.norm() >= before * (1 - 1e-12)
                torch.testing.assert_close(weight.norm() ** 2, before**2 + 0.09 * gradient.norm() ** 2)
    assert all(float(weight.detach().norm()) > start[name] for name, weight in weights.items())


def test_a_network_that_has_moved_keeps_no_tensor_of_its_old_place() -> None:
    network = build("pca")
    old = weakref.ref(network.decoder().weight)
    network.double()
    gc.collect()
    assert old() is None
    assert network.decoder().weight.dtype == torch.float64
