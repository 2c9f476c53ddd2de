import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import ON_COSINES, counts_matrix, csr, dense_normalize, dense_products, products_of
from starts import KINDS, build, latents, outputs, with_random_biases
from torch import Tensor

from geneae.losses.in_batch import IN_BATCH_LOSSES, TRIPLET_MARGIN, at_perfection, contrast, hinge, indifference
from geneae.losses.names import find_loss
from geneae.losses.reconstruction import LOSSES, LossSettings, mean_loss
from geneae.settings.errors import InputError
from geneae.training.batches import Pairs
from geneae.training.devices import threads
from geneae.training.monitor import is_hinge_collapsed

EXACT = LossSettings(median_norm=0.0)


def draw(n: int = 7, n_genes: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random float64 targets and predictions, all positive so that cosines are far from zero."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(2, n, n_genes, generator=generator, dtype=torch.float64)
    return x, y + 0.5 * x


def loss_of(name: str, x: Tensor, y: Tensor, settings: LossSettings = EXACT) -> Tensor:
    return find_loss(name).function(products_of(x, y), settings)


def plain(name: str, x: np.ndarray, y: np.ndarray, settings: LossSettings) -> np.ndarray:
    """The same, profile by profile and pair by pair."""

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    found = []
    for i in range(len(x)):
        own, others = cosine(y[i], x[i]), [j for j in range(len(x)) if j != i]
        scores = np.array([cosine(y[i], x[j]) for j in others])
        alike = np.array([cosine(x[i], x[j]) for j in others])
        if name == "softmax":
            everything = np.exp(np.array([own, *scores]) / settings.temperature)
            found.append(-np.log(everything[0] / everything.sum()))
        elif name == "cosine-embedding":
            margin = alike if settings.margin is None else settings.margin
            found.append(1 - own + np.maximum(0, scores - margin).mean())
        else:
            excess = (1 - alike if settings.margin is None else settings.margin) + scores - own
            t = settings.temperature
            found.append(
                {
                    "mean": np.maximum(0, excess).mean(),
                    "hardest": max(0, excess.max()),
                    "annealed": max(0, t * np.log(np.exp(excess / t).mean())),
                }[settings.negatives]
            )
    return np.array(found)


CHOICES = [
    ("softmax", EXACT),
    ("softmax", replace(EXACT, temperature=0.7)),
    ("cosine-embedding", EXACT),
    ("cosine-embedding", replace(EXACT, margin=0.6)),
    *[
        ("ranking", replace(EXACT, negatives=negatives, margin=margin))
        for negatives in ("mean", "hardest", "annealed")
        for margin in (None, 0.3)
    ],
]


@pytest.mark.parametrize(("name", "settings"), CHOICES)
def test_every_loss_is_the_one_written_out_pair_by_pair(name: str, settings: LossSettings) -> None:
    x, y = draw()
    np.testing.assert_allclose(loss_of(name, x, y, settings), plain(name, x.numpy(), y.numpy(), settings), rtol=1e-10)


def by_formula(name: str, x: Tensor, y: Tensor, settings: LossSettings) -> Tensor:
    """Gradient of the sum over profiles in closed form: (pull - <pull, u> u) / |y| with a pull on the direction u."""
    targets, u, length = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True), y.norm(dim=1, keepdim=True)
    scores, alike = u @ targets.T, targets @ targets.T
    is_other = ~torch.eye(len(x), dtype=torch.bool)
    if name == "softmax":
        pull = (scores / settings.temperature).softmax(1) @ targets - targets
        pull = pull / settings.temperature
    elif name == "cosine-embedding":
        active = (scores > (alike if settings.margin is None else settings.margin)) & is_other
        pull = active.double() @ targets / (len(x) - 1) - targets
    else:
        excess = (1 - alike if settings.margin is None else settings.margin) + scores - scores.diagonal()[:, None]
        excess = excess.masked_fill(~is_other, -torch.inf)
        if settings.negatives == "mean":
            weight = (excess > 0).double() / (len(x) - 1)
        elif settings.negatives == "hardest":
            weight = torch.nn.functional.one_hot(excess.argmax(1), len(x)) * (excess.amax(1) > 0)[:, None].double()
        else:
            weight = (excess / settings.temperature).softmax(1)
            value = torch.logsumexp(excess / settings.temperature, 1) - np.log(len(x) - 1)
            weight = weight * (value > 0)[:, None]
        pull = weight @ targets - weight.sum(1, keepdim=True) * targets
    return (pull - (pull * u).sum(1, keepdim=True) * u) / length


@pytest.mark.parametrize(("name", "settings"), CHOICES)
def test_gradients_are_those_of_the_formulas_and_orthogonal_to_the_prediction(
    name: str, settings: LossSettings
) -> None:
    x, y = draw()
    y.requires_grad_()
    (found,) = torch.autograd.grad(loss_of(name, x, y, settings).sum(), y)
    torch.testing.assert_close(found, by_formula(name, x, y.detach(), settings), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close((found * y).sum(1), torch.zeros(len(y), dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, torch.bfloat16) for name in [*LOSSES, *ON_COSINES]),
        *((name, dtype) for dtype in (torch.float16, torch.float32) for name in ("mse", "magnitude", "softmax")),
    ],
)
def test_low_precision_and_profiles_without_values_give_finite_losses_and_gradients(
    name: str, dtype: torch.dtype
) -> None:
    x, y = draw()
    x[[0, 3]], y[[3, 4]] = 0, 0
    products = products_of(x.to(dtype), y.to(dtype), find_loss(name).center or "none")
    leaves = [products.cross.requires_grad_(), products.predicted.requires_grad_()]
    assert products.batch is not None
    leaves.append(products.batch.cross.requires_grad_())
    loss = mean_loss(find_loss(name).function, products, LossSettings(median_norm=2.0))
    loss.backward()
    assert loss.dtype == torch.float32
    assert bool(loss.isfinite())
    for leaf in leaves[: 3 if find_loss(name).needs == "pairs" else 2]:
        if leaf.grad is not None:
            assert leaf.grad.isfinite().all()
            assert (leaf.grad[[0, 3]] == 0).all()
    exact = mean_loss(find_loss(name).function, products_of(x, y, find_loss(name).center or "none"), LossSettings())
    assert float(loss.detach()) == pytest.approx(float(exact), rel=0.03)


@pytest.mark.parametrize("name", ON_COSINES)
def test_a_profile_without_values_is_no_negative(name: str) -> None:
    x, y = draw()
    x[2] = 0
    keep = torch.tensor([0, 1, 3, 4, 5, 6])
    with_zero = loss_of(name, x, y, LossSettings())[keep]
    torch.testing.assert_close(with_zero, loss_of(name, x[keep], y[keep], LossSettings()), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ON_COSINES)
@pytest.mark.parametrize("negatives", ["mean", "hardest", "annealed"])
def test_one_profile_has_no_negatives_and_a_finite_loss(name: str, negatives: str) -> None:
    x, y = draw(1)
    y.requires_grad_()
    loss = loss_of(name, x, y, replace(EXACT, negatives=negatives))
    expected = 1 - torch.cosine_similarity(x, y) if name == "cosine-embedding" else torch.zeros(1).double()
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss.sum(), y)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["cosine-embedding", "ranking"])
@pytest.mark.parametrize("negatives", ["mean", "hardest", "annealed"])
def test_with_margins_by_pair_a_perfect_reconstruction_has_no_loss(name: str, negatives: str) -> None:
    x, y = draw()
    settings = replace(EXACT, negatives=negatives)
    torch.testing.assert_close(loss_of(name, x, 3 * x, settings), torch.zeros(7).double(), rtol=0, atol=1e-12)
    assert at_perfection(find_loss(name), products_of(x, y), settings) == pytest.approx(0, abs=1e-12)


def test_with_a_fixed_margin_it_has_one_which_is_the_one_that_is_printed() -> None:
    x, y = draw()
    settings = replace(EXACT, margin=0.5)
    expected = float(loss_of("cosine-embedding", x, x, settings).mean())
    assert at_perfection(find_loss("cosine-embedding"), products_of(x, y), settings) == pytest.approx(expected) != 0
    both = find_loss("cosine+0.5*cosine-embedding")
    assert at_perfection(both, products_of(x, y), settings) == pytest.approx(expected / 2)


def test_annealed_negatives_go_from_nearly_the_mean_to_nearly_the_hardest() -> None:
    x, y = draw()
    settings = replace(EXACT, margin=1.0, negatives="annealed", temperature=0.001)
    start, end = (
        find_loss("ranking").function(products_of(x, y, progress=progress), settings) for progress in (0.0, 1.0)
    )
    mean, hardest = (
        loss_of("ranking", x, y, replace(settings, negatives=negatives)) for negatives in ("mean", "hardest")
    )
    torch.testing.assert_close(start, mean, rtol=0, atol=0.01)
    torch.testing.assert_close(end, hardest, rtol=0, atol=0.01)
    assert (hardest - mean).min() > 0.02


def test_triplet_is_the_mean_over_semi_hard_triplets_of_each_anchor() -> None:
    pytest.importorskip("pytorch_metric_learning")
    latent = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, -1, 3])
    x, y = draw(12)
    found = find_loss("triplet").function(products_of(x, y, latent=latent, labels=labels), EXACT)
    distance, expected = torch.cdist(latent, latent).detach().numpy(), np.zeros(12)
    for a in range(12):
        values = []
        for p in range(12):
            for n in range(12):
                same, other = distance[a, p], distance[a, n]
                is_triplet = a != p and labels[a] == labels[p] and labels[n] != labels[a]
                if min(labels[[a, p, n]]) >= 0 and is_triplet and 0 < other - same <= TRIPLET_MARGIN:
                    values.append(same - other + TRIPLET_MARGIN)
        expected[a] = np.mean(values) if values else 0
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-6, atol=1e-9)
    assert (expected > 0).sum() >= 4
    (gradient,) = torch.autograd.grad(found.sum(), latent)
    assert (gradient[10] == 0).all()
    assert gradient.norm() > 0


def test_triplet_has_the_same_gradient_every_time_on_several_threads() -> None:
    pytest.importorskip("pytorch_metric_learning")
    draws = torch.Generator().manual_seed(0)
    latent, labels = torch.randn(256, 32, generator=draws), torch.randint(10, (256,), generator=draws)
    found = []
    with threads(2):
        for _ in range(5):
            leaf = latent.clone().requires_grad_()
            products = products_of(latent, latent, latent=leaf, labels=labels)
            find_loss("triplet").function(products, EXACT).sum().backward()
            assert leaf.grad is not None
            found.append(leaf.grad)
    assert found[0].abs().sum() > 0
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_triplet_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = draw()
    monkeypatch.setitem(__import__("sys").modules, "pytorch_metric_learning.distances", None)
    with pytest.raises(InputError, match=re.escape("Install it with: pip install pytorch-metric-learning")):
        loss_of("triplet", x, y)


def test_a_sum_is_the_weighted_sum_of_its_terms() -> None:
    x, y = draw()
    loss = find_loss("cosine + 0.1*softmax+2e-1*mse")
    terms = [LOSSES["cosine"], IN_BATCH_LOSSES["softmax"], LOSSES["mse"]]
    found = [term.function(products_of(x, y), EXACT) for term in terms]
    torch.testing.assert_close(loss.function(products_of(x, y), EXACT), found[0] + 0.1 * found[1] + 0.2 * found[2])
    assert (loss.needs, loss.is_scale_free, loss.center, loss.has_pair_margin) == ("pairs", False, None, False)
    assert find_loss("pearson+ranking").center == "profile"
    assert find_loss("pearson+ranking").ranks
    assert find_loss("cosine+softmax").is_scale_free
    assert find_loss("cosine+mse").needs == "products"
    assert find_loss("softmax") is IN_BATCH_LOSSES["softmax"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cosine+softmx", "unknown loss 'softmx'; did you mean 'softmax'? Available: mse, relative-mse"),
        ("cosine+a*softmax", "the weight of a loss must be a number, as in cosine+0.1*softmax; found 'a'"),
        ("cosine+0*softmax", "the weight of a loss must be above 0; found 0 in 'cosine+0*softmax'."),
        ("cosine+", "unknown loss ''."),
    ],
)
def test_a_sum_that_is_none_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        find_loss(name)


def test_a_loss_with_negatives_says_what_it_needs() -> None:
    x, y = draw()
    with pytest.raises(ValueError, match="needs the inner products of all pairs"):
        find_loss("softmax").function(dense_products(x, y), EXACT)
    products = products_of(x, y)
    assert products.batch is not None
    without = replace(products, batch=replace(products.batch, targets=None))
    with pytest.raises(ValueError, match="needs the inner products of the targets"):
        find_loss("ranking").function(without, EXACT)
    pytest.importorskip("pytorch_metric_learning")
    with pytest.raises(ValueError, match="needs the labels of a batch"):
        find_loss("triplet").function(products, EXACT)


def test_losses_say_what_they_are_functions_of() -> None:
    assert {loss.needs for loss in IN_BATCH_LOSSES.values()} == {"pairs"}
    assert {loss.needs for loss in LOSSES.values()} == {"products"}


def test_indifference_is_loss_margin_and_spread() -> None:
    x, y = draw()
    settings = replace(EXACT, margin=0.3, negatives="hardest")
    loss, level, deviation = indifference(products_of(x, y), settings)
    cosines = (y / y.norm(dim=1, keepdim=True)) @ (x / x.norm(dim=1, keepdim=True)).T
    assert loss == pytest.approx(float(loss_of("ranking", x, y, settings).mean()))
    assert (level, deviation) == (pytest.approx(0.3), pytest.approx(float(cosines.std())))


@pytest.mark.parametrize(("n_negatives", "separation"), [(4, 1.03), (16, 1.77), (64, 2.35), (256, 2.83)])
def test_below_this_separation_shrinking_all_scores_descends(n_negatives: int, separation: float) -> None:
    """Scores sigma (delta [own] + noise): the derivative of the hinge by sigma at 0 is E max noise - delta."""
    draws = torch.Generator().manual_seed(0)
    noise = torch.randn(20_000, n_negatives + 1, generator=draws)
    for delta in (0.0, separation + 0.1, separation - 0.1):
        sigma = torch.tensor(1e-3, requires_grad=True)
        scores = sigma * noise
        own, everyone = scores[:, 0] + sigma * delta, torch.ones(20_000, n_negatives, dtype=torch.bool)
        (slope,) = torch.autograd.grad(hinge(own, scores[:, 1:], 1.0, everyone, "hardest").mean(), sigma)
        assert float(slope) == pytest.approx(separation - delta, abs=0.03)
        (slope,) = torch.autograd.grad(
            hinge(noise[:, 0] * sigma + sigma * delta, sigma * noise[:, 1:], 1.0, everyone, "mean").mean(), sigma
        )
        assert float(slope) == pytest.approx(-delta, abs=0.03)


def train_scores(
    loss: Callable[[Tensor, Tensor], Tensor], has_unit_norm: bool = False, bias: bool = False
) -> tuple[float, float]:
    """Loss and deviation of the scores after training an embedding to tell a query's own candidate from 64 others.

    Candidates are noise, the own one shifted by 1.2 deviations in the direction of the query; the score is the inner
    product of the embeddings, or their cosine.
    """
    torch.manual_seed(0)
    embedding = torch.nn.Linear(6, 6, bias=bias)
    optimizer = torch.optim.Adam(embedding.parameters(), lr=0.01)
    for _ in range(400):
        query, candidates = torch.randn(64, 6), torch.randn(64, 65, 6)
        candidates[:, 0] += 1.2 * torch.nn.functional.normalize(query)
        one, others = embedding(query), embedding(candidates)
        if has_unit_norm:
            one, others = (torch.nn.functional.normalize(vectors, dim=-1) for vectors in (one, others))
        scores = (others @ one[:, :, None])[..., 0]
        value = loss(scores[:, 0], scores[:, 1:])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return float(value.detach()), float(scores.detach().std())


EVERYONE = torch.ones(64, 64, dtype=torch.bool)


def test_a_hinge_with_64_hardest_negatives_collapses_and_is_seen_to() -> None:
    value, deviation = train_scores(lambda own, scores: hinge(own, scores, 1.0, EVERYONE, "hardest").mean())
    assert is_hinge_collapsed(value, 1.0, deviation)


def test_softmax_and_mean_negatives_do_not_on_the_same_data_and_unit_norms_only_without_a_bias() -> None:
    value, deviation = train_scores(lambda own, scores: contrast(own, scores, EVERYONE, 1.0).mean())
    assert deviation > 0.5
    assert not is_hinge_collapsed(value, 1.0, deviation)
    value, deviation = train_scores(lambda own, scores: hinge(own, scores, 1.0, EVERYONE, "mean").mean())
    assert deviation > 0.5
    assert not is_hinge_collapsed(value, 1.0, deviation)
    hardest = lambda own, scores: hinge(own, scores, 1.0, EVERYONE, "hardest").mean()  # noqa: E731
    value, deviation = train_scores(hardest, has_unit_norm=True)
    assert not is_hinge_collapsed(value, 1.0, deviation)
    value, deviation = train_scores(hardest, has_unit_norm=True, bias=True)  # which can make all embeddings one
    assert is_hinge_collapsed(value, 1.0, deviation)


@pytest.mark.parametrize("name", ON_COSINES)
@pytest.mark.parametrize("center", ["none", "gene", "profile"])
def test_a_network_gives_what_dense_arrays_give(name: str, center: str) -> None:
    from geneae.training.batches import PairNeeds
    from geneae.training.objectives import Reconstruction

    x = torch.from_numpy(csr(dense_normalize(counts_matrix())).toarray()).double()
    for kind in KINDS:
        network = with_random_biases(build(kind))
        pairs = Pairs(network, [csr(x, np.float64)], PairNeeds(gram=True, labels=torch.arange(30)))
        index = torch.tensor([3, 1, 8, 20, 29])
        found = Reconstruction(find_loss(name), center, EXACT).reconstruct(network, pairs.take(index), ("none",))
        y = outputs(network, latents(network, x.numpy()))[index]
        expected = find_loss(name).function(products_of(x[index], y, center, network.mean), EXACT)
        torch.testing.assert_close(find_loss(name).function(found.for_loss, EXACT), expected, rtol=1e-6, atol=1e-7)
        assert found.plain["none"].batch is None
