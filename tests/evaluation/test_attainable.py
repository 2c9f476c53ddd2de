"""What is attainable: beside the Bayes predictor of a simulation, in a fit, in words, and refused."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, simulate
from scipy import sparse

from geneae import read_profiles
from geneae.data.preprocess import Expression, fit_preprocess
from geneae.data.profiles import Profiles
from geneae.evaluation.attainable import Attainables, Standing, bayes_cosines, divide, estimate, stand, with_rest
from geneae.evaluation.judge import JudgingData
from geneae.evaluation.records import HELD_OUT, value
from geneae.fitting.fit import Fitted, fit
from geneae.models.ceiling import cosine_of_halves, half_ceiling
from geneae.models.population import Population
from geneae.settings.errors import InputError
from geneae.settings.settings import Settings

N_GENES, N_STATES = 60, 3
SETTINGS = Settings(**QUICK | {"epochs": 1}, device="cpu", attainable=True)


def states() -> Population:
    """Three states that 80 molecules do not always tell apart, without variation within."""
    loadings = 0.5 * np.random.default_rng(0).normal(size=(N_GENES, N_STATES))
    return Population(
        torch.zeros(N_GENES),
        torch.tensor(loadings, dtype=torch.float32),
        torch.full((N_GENES,), torch.inf),
        torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
        torch.eye(N_STATES, dtype=torch.float64),
        1e-8 * torch.eye(N_STATES, dtype=torch.float64).expand(N_STATES, -1, -1),
    )


def drawn(n_profiles: int, seed: int) -> Profiles:
    rng = np.random.default_rng(seed)
    counts = states().draw(np.full(n_profiles, 160.0), rng)
    names = [
        pd.DataFrame(index=[f"{letter}{at}" for at in range(n)]) for letter, n in zip("pg", counts.shape, strict=True)
    ]
    return read_profiles(anndata.AnnData(sparse.csr_matrix(counts), obs=names[0], var=names[1]))


@pytest.fixture(scope="module")
def judged() -> Fitted:
    return fit(drawn(240, 1), SETTINGS)


def test_attainable_is_what_the_bayes_predictor_reaches(judged: Fitted) -> None:
    """The Bayes predictor of a population with three states is a sum over them, see tests/models/test_population.py."""
    model, new = judged.model, drawn(200, 2)
    expression, split = model.preprocess.match(new)[0], pd.Series("test", new.names)
    train = model.preprocess.match(drawn(240, 1))[0].take(np.flatnonzero(judged.split == "train"))
    standing, n_profiles = stand(model, train, expression, split, "test", seed=0)
    assert n_profiles == 200
    known, rng = states(), np.random.default_rng(3)
    with_other = replace(
        known,
        base=torch.cat([known.base, torch.tensor([-20.0])]),
        loadings=torch.cat([known.loadings, torch.zeros(1, N_STATES)]),
        shape=torch.full((N_GENES + 1,), torch.inf),
    )
    divided = divide(with_rest(expression), expression.totals, model.preprocess, rng)
    bayes = bayes_cosines(with_other, divided, model.preprocess, rng).mean()
    ceiling = half_ceiling(cosine_of_halves(divided.targets[0], divided.targets[1]))
    assert standing.attainable / standing.ceiling == pytest.approx(bayes / ceiling, abs=0.006)
    assert standing.trivial < standing.reached <= standing.here <= standing.attainable <= standing.ceiling


def test_rows_and_sentence_of_a_fit(judged: Fitted) -> None:
    metrics = judged.evaluation.metrics

    def of(metric: str) -> float:
        return value(metrics, "model", "test", metric)

    assert of(HELD_OUT) <= of("attainable_here") <= of("attainable") <= of("ceiling")
    trivial = value(metrics, "mean_profile", "test", HELD_OUT)
    for name in ("attainable", "attainable_here"):
        assert of(f"{name}_skill") == pytest.approx((of(name) - trivial) / (of("ceiling") - trivial))
    rows = metrics[metrics["metric"].str.startswith("attainable")]
    assert set(rows["split"]) == {"test"}
    assert set(rows["better"]) == {"higher"}
    assert rows["n_profiles"].iloc[0] == (judged.split == "test").sum()
    assert "even if the population is known), " in judged.conclusion
    assert f"{of('attainable'):.4f} is attainable" in judged.conclusion


def test_a_seed_gives_the_same_estimate(judged: Fitted) -> None:
    expression = judged.model.preprocess.match(drawn(60, 4))[0]
    train, new = expression.take(np.arange(40)), expression.take(np.arange(40, 60))
    one, other = (estimate(judged.model, train, new, seed=5) for _ in range(2))
    np.testing.assert_array_equal(np.concatenate(one), np.concatenate(other))


@pytest.mark.parametrize(("is_wanted", "partner"), [(False, None), (True, np.arange(80))])
def test_nothing_is_estimated_unasked_or_of_permuted_targets(is_wanted: bool, partner: np.ndarray | None) -> None:
    profiles = drawn(80, 1)
    preprocess = fit_preprocess(profiles, np.arange(60))
    split = pd.Series(np.where(np.arange(80) < 60, "train", "test"), profiles.names)
    expression = preprocess.match(profiles)[0]
    settings = replace(SETTINGS, attainable=is_wanted)
    data = JudgingData(settings, profiles.obs, split, expression, preprocess, has_decoder=True, partner=partner)
    assert Attainables().prepare(data) is None
    assert Attainables().prepare(replace(data, settings=SETTINGS, partner=None)) is not None


def test_the_parts_of_the_sentence_add_up() -> None:
    said = Standing(0.6, 0.7, 0.72, 0.75, 0.8, 0.001).sentence()
    assert said == (
        "Of the 50 % that are missing to the noise ceiling, an estimated 25 ± 2 lie in the molecules (from one half, "
        "0.7500 is attainable even if the population is known), 15 in the number of profiles (with as many, 0.7200) "
        "and 10 in the model."
    )
    assert Standing(0.6, 0.6, 0.6, 0.6, 0.6, 0.0).sentence() == ""


def test_molecules_of_other_genes_are_the_last_column() -> None:
    expression = Expression(sparse.csr_matrix(np.array([[1.0, 2.0], [0.0, 3.0]], np.float32)), np.array([10.0, 3.0]))
    found = with_rest(expression)
    assert found.shape == (2, 3)
    assert found[:, 2].sum() == 7
    assert found[0, 2] == 7


def test_values_without_counts_are_refused() -> None:
    adata = simulate(60, 40)
    adata.X = adata.X.log1p()
    with pytest.raises(InputError) as raised:
        fit(read_profiles(adata), SETTINGS)
    assert str(raised.value) == (
        "--attainable compares with counts drawn from a model, so it needs counts and a reconstruction; found "
        "log values. Leave out --attainable."
    )
    with pytest.raises(InputError, match="found counts and no decoder"):
        fit(drawn(60, 1), replace(SETTINGS, objective="simclr"))
