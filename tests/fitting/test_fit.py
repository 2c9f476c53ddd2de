import math
import re
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import N_PROFILES, QUICK, simulate
from scipy import sparse
from torch import Tensor

from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.evaluation.reconstruction import evaluate, verdict
from geneae.evaluation.records import HELD_OUT, value
from geneae.fitting.fit import Fitted, fit
from geneae.settings.errors import InputError
from geneae.settings.settings import Settings
from geneae.training import monitor, sources

SETTINGS = Settings(**QUICK)
MOMENTS = ["train_seconds", "seconds"]


@pytest.fixture(scope="module")
def profiles() -> Profiles:
    return read_profiles(simulate())


@pytest.fixture(scope="module")
def plain(profiles: Profiles) -> Fitted:
    return fit(profiles, SETTINGS)


def tensors(fitted: Fitted) -> dict[str, Tensor]:
    """Everything numeric that was fitted."""
    model = fitted.model
    found = dict(model.network.state_dict())
    for name, basis in (("whole", model.baselines.whole), ("half", model.baselines.half)):
        if basis is not None:
            found |= {f"{name}.{field}": getattr(basis, field) for field in ("components", "mean", "deviation")}
    if model.baselines.factors is not None:
        found["factors"] = model.baselines.factors
    return found | {"scale": torch.from_numpy(model.preprocess.scale)}


def differing(first: Fitted, second: Fitted) -> list[str]:
    """Names of the tensors that are not the same bit for bit."""
    one, two = tensors(first), tensors(second)
    return sorted(name for name in one.keys() | two.keys() if not _same(one.get(name), two.get(name)))


def _same(one: Tensor | None, two: Tensor | None) -> bool:
    return one is not None and two is not None and torch.equal(one, two)


@pytest.mark.parametrize("kind", [{}, {"basis": "free"}, {"basis": "free", "init": "random", "target": "self"}])
def test_the_same_seed_gives_the_same_fit_bit_for_bit(profiles: Profiles, kind: dict[str, Any]) -> None:
    settings = replace(SETTINGS, **kind)
    torch.manual_seed(1)
    first = fit(profiles, settings)
    torch.manual_seed(2)  # the caller's random numbers make no difference
    second = fit(profiles, settings)
    assert differing(first, second) == []
    assert list(first.split) == list(second.split)
    pd.testing.assert_frame_equal(first.history.drop(columns=MOMENTS), second.history.drop(columns=MOMENTS))
    pd.testing.assert_frame_equal(first.evaluation.profiles, second.evaluation.profiles)
    pd.testing.assert_frame_equal(first.evaluation.metrics, second.evaluation.metrics)


def test_another_seed_gives_another_fit(profiles: Profiles, plain: Fitted) -> None:
    other = fit(profiles, replace(SETTINGS, seed=1))
    assert set(differing(plain, other)) >= {"core.encoder_mlp.0.weight", "half.mean", "whole.components", "factors"}
    assert list(other.split) != list(plain.split)


def test_the_random_numbers_of_the_caller_stay_as_they_were(profiles: Profiles) -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002  that of others
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fit(profiles, SETTINGS)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], before_numpy)  # noqa: NPY002


def changed(profiles: Profiles, split: pd.Series, names: tuple[str, ...]) -> Profiles:
    """Other counts for the profiles of some splits."""
    rows = split.isin(names).to_numpy()
    dense = profiles.matrix.toarray()
    dense[rows] = np.random.default_rng(9).poisson(3.0, dense[rows].shape)
    return replace(profiles, matrix=sparse.csr_matrix(dense))


@pytest.mark.parametrize("kind", [{}, {"basis": "free"}, {"target": "self"}, {"scale": True, "n_top_genes": 60}])
def test_nothing_of_validation_and_test_profiles_leaks_into_what_is_fitted(
    profiles: Profiles, kind: dict[str, Any]
) -> None:
    settings = replace(SETTINGS, **kind, learning_rate=1e-12, epochs=1)
    first = fit(profiles, settings)
    second = fit(changed(profiles, first.split, ("validation", "test")), settings)
    assert list(first.split) == list(second.split)
    assert list(first.model.preprocess.genes) == list(second.model.preprocess.genes)
    assert first.model.config["loss_constants"] == second.model.config["loss_constants"]
    assert first.history["train_loss"][1] == second.history["train_loss"][1]
    assert first.history["validation_loss"][0] != second.history["validation_loss"][0]
    assert [name for name in differing(first, second) if not name.startswith("core.")] == []


@pytest.mark.parametrize("kind", [{}, {"basis": "free", "init": "random"}, {"target": "self", "n_top_genes": 60}])
def test_test_profiles_change_no_weight_and_no_choice(profiles: Profiles, kind: dict[str, Any]) -> None:
    settings = replace(SETTINGS, **kind, epochs=6, learning_rate=1e-2)
    first = fit(profiles, settings)
    second = fit(changed(profiles, first.split, ("test",)), settings)
    assert differing(first, second) == []
    assert first.model.scales == second.model.scales
    assert first.model.config["best_epoch"] == second.model.config["best_epoch"]
    pd.testing.assert_frame_equal(first.history.drop(columns=MOMENTS), second.history.drop(columns=MOMENTS))
    numbers = [value(fitted.evaluation.metrics, "model", "test", "mse") for fitted in (first, second)]
    assert numbers[0] != numbers[1]


LEARNS = {"epochs": 4, "learning_rate": 5e-2, "patience": 4}
CHANGES: dict[str, dict[str, Any]] = {
    "objective": {"objective": "simclr"},
    "views": {"views": "mask:0.6"},
    "positives": {"positives": "neighbours"},
    "agreement": {"agreement": 2.0},
    "label": {"label": "donor"},
    "loss": {"loss": "cosine"},
    "n_latent": {"n_latent": 3},
    "hidden": {"hidden": 8},
    "basis": {"basis": "free"},
    "rank": {"rank": 10},
    "init": {"init": "random"},
    "target": {"target": "self"},
    "center": {"center": "gene"},
    "metric": {"metric": "metric"},
    "alpha": {"alpha": 0.1},
    "beta": {"beta": 3.0},
    "gamma": {"gamma": 1.0},
    "cut": {"cut": 3.0},
    "cut_where": {"cut_where": "encoder"},
    "margin": {"margin": 0.9},
    "negatives": {"negatives": "hardest"},
    "temperature": {"temperature": 0.5},
    "latent_norm": {"latent_norm": True},
    "cut_bias": {"cut_bias": "scale"},
    "target_norm": {"target_norm": 3.0},
    "grad_scale": {"grad_scale": 1.0},
    "optimizer": {"optimizer": "sgd"},
    "n_top_genes": {"n_top_genes": 20},
    "scale": {"scale": True},
    "dropout": {"dropout": 0.0},
    "n_splits": {"n_splits": 1},
    "epochs": {"epochs": 2},
    "patience": {"patience": 1},
    "batch_size": {"batch_size": 30},
    "balance": {"balance": "donor"},
    "learning_rate": {"learning_rate": 1e-3},
    "weight_decay": {"weight_decay": 0.5},
    "validation": {"validation": 0.2},
    "test": {"test": 0.2},
    "group": {"group": "donor"},
    "stratify": {"stratify": "kind"},
    "seed": {"seed": 1},
    "split_seed": {"split_seed": 1},
    "precision": {"precision": "bf16"},
}
NEEDS: dict[str, dict[str, Any]] = {
    "views": {"objective": "simclr"},
    "positives": {"objective": "simclr"},
    "agreement": {"objective": "simclr+reconstruction"},
    "init": {"basis": "free"},
    "rank": {"target": "self"},
    "center": {"loss": "cosine"},
    "metric": {"loss": "cosine"},
    "alpha": {"loss": "combined"},
    "beta": {"loss": "magnitude"},
    "gamma": {"loss": "scaled-cosine"},
    "cut_where": {"cut": 3.0},
    "cut_bias": {"cut": 3.0},
    "margin": {"loss": "ranking"},
    "negatives": {"loss": "ranking"},
    "temperature": {"loss": "softmax"},
    "label": {"loss": "cosine+triplet", "label": "kind"},
    "latent_norm": {"basis": "free", "init": "random"},
    "grad_scale": {"loss": "cosine"},
    "patience": {"learning_rate": 3.0},
}


def test_every_setting_is_among_those_that_are_tried() -> None:
    others = {"attainable", "batch_key", "device", "devices", "nodes"}  # which change no training
    others |= {"state", "features"}  # which change what is read
    assert CHANGES.keys() | others == {field.name for field in fields(Settings)}


@lru_cache
def history_of(settings: Settings) -> pd.DataFrame:
    """The history of a small fit, without what a clock says."""
    return fit(read_profiles(simulate(100, 50)), settings).history.drop(columns=MOMENTS)


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_reaches_the_fit(name: str, metric_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(metric_folder.parent)  # where it is called metric
    settings = replace(SETTINGS, **LEARNS | NEEDS.get(name, {}))
    changed = replace(settings, **CHANGES[name])
    assert not history_of(settings).equals(history_of(changed))


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="auto is no CPU here")
def test_the_device_changes_no_number_where_it_is_the_same(profiles: Profiles, plain: Fitted) -> None:
    assert differing(plain, fit(profiles, replace(SETTINGS, device="cpu"))) == []


def test_what_was_fitted_is_recorded(profiles: Profiles, plain: Fitted) -> None:
    config = plain.model.config
    assert config["settings"] == asdict(SETTINGS)
    assert (config["format"], config["seed"], config["center"], config["target"]) == (2, 0, "none", "split")
    assert (config["state"], config["space"], config["target_sum"]) == ("counts", "log1p_cp10k", 1e4)
    assert config["data"] == {
        "source": "AnnData in memory",
        "location": "X",
        "gene_names": None,
        "state": "counts",
        "evidence": "",
        "unit": None,
        "notes": {},
        "said": [],
        "n_profiles": N_PROFILES,
        "n_genes": profiles.n_genes,
        "n_excluded": 0,
        "is_streamed": False,
        "n_profiles_of_bases": 192,  # all of training
        "fingerprint": profiles.fingerprint,
    }
    assert set(config["versions"]) >= {"geneae", "torch", "anndata", "numpy", "python"}
    assert config["epochs_run"] == plain.history["epoch"].iloc[-1] == SETTINGS.epochs
    assert 0 < config["seconds_to_best_epoch"] <= config["seconds"]
    n_profiles = int((plain.split == "train").sum()) * config["epochs_run"]
    assert config["profiles_per_second"] == pytest.approx(n_profiles / plain.history["train_seconds"].sum())
    assert config["peak_memory_mb"] > 50


def test_splits_have_the_promised_sizes_and_hold_no_profile_twice(plain: Fitted, profiles: Profiles) -> None:
    assert dict(plain.split.value_counts()) == {"train": 192, "validation": 24, "test": 24}
    assert list(plain.split.index) == list(profiles.names)
    judged = plain.evaluation.profiles.query("model == 'model'")
    assert set(judged["profile"]) == set(plain.split.index[plain.split != "train"])
    assert judged["profile"].is_unique


def test_donors_stay_together(profiles: Profiles) -> None:
    split = fit(profiles, replace(SETTINGS, group="donor", epochs=1)).split
    by_donor = pd.crosstab(profiles.obs["donor"], split)
    assert ((by_donor > 0).sum(axis=1) == 1).all()
    assert split.nunique() == 3


def test_without_a_test_split_the_validation_profiles_are_judged(profiles: Profiles) -> None:
    fitted = fit(profiles, replace(SETTINGS, test=0.0, epochs=1))
    assert set(fitted.evaluation.profiles["split"]) == {"validation"}
    assert "On 24 validation profiles" in verdict(fitted.evaluation, "validation")


def test_profiles_without_molecules_are_kept_out(counts: anndata.AnnData) -> None:
    dense = counts.X.toarray()
    dense[[3, 7]] = 0
    counts.X = sparse.csr_matrix(dense)
    fitted = fit(read_profiles(counts), replace(SETTINGS, epochs=1))
    assert list(fitted.split.index[fitted.split == "excluded"]) == ["cell3", "cell7"]
    assert fitted.model.config["data"]["n_excluded"] == 2
    assert {"cell3", "cell7"}.isdisjoint(fitted.evaluation.profiles["profile"])


def test_the_target_follows_from_the_values_unless_it_is_given(counts: anndata.AnnData, plain: Fitted) -> None:
    counts.X = counts.X.log1p()
    logs = read_profiles(counts)
    fitted = fit(logs, SETTINGS)
    assert (plain.model.config["target"], fitted.model.config["target"]) == ("split", "self")
    assert fitted.model.config["space"] == "log"
    assert HELD_OUT not in set(fitted.evaluation.metrics["metric"])
    assert "Without counts there is no held-out cosine" in verdict(fitted.evaluation, "test")
    with pytest.raises(InputError) as error:
        fit(logs, replace(SETTINGS, target="split"))
    assert str(error.value) == (
        "--target split divides molecules and needs counts; AnnData in memory, X holds log values. "
        "Name the counts with --layer or --raw, or use --target self."
    )


def test_negative_values_cannot_be_divided(counts: anndata.AnnData) -> None:
    counts.X = counts.X.toarray() - 0.5
    with pytest.raises(InputError, match=r"needs counts; AnnData in memory, X holds scaled values\."):
        fit(read_profiles(counts), replace(SETTINGS, target="split"))


@pytest.mark.parametrize("n_genes", [10, 40])
def test_a_latent_larger_than_the_data_allow_is_refused(n_genes: int) -> None:
    small = read_profiles(simulate(30, n_genes))
    n_kept = len(fit(small, replace(SETTINGS, n_latent=2, epochs=1)).model.preprocess.genes)
    largest = min(23, n_kept)
    with pytest.raises(InputError) as error:
        fit(small, replace(SETTINGS, n_latent=largest + 1))
    assert str(error.value) == (
        f"--latent must be at most {largest} with 24 training profiles and {n_kept} genes; found "
        f"{largest + 1}. Use a smaller one."
    )
    assert fit(small, replace(SETTINGS, n_latent=largest, epochs=1)).model.n_latent == largest
    chosen = fit(small, replace(SETTINGS, n_latent=None, epochs=1)).model
    assert (chosen.n_latent, chosen.config["chosen"]) == (largest, ["n_latent"])


def test_a_start_that_is_kept_is_the_whitened_prediction(profiles: Profiles) -> None:
    fitted = fit(profiles, replace(SETTINGS, learning_rate=3.0))
    assert fitted.model.config["best_epoch"] == 0
    assert "network" not in {step["name"] for step in fitted.model.config["steps"]}
    table = fitted.evaluation.profiles.set_index(["model", "profile"])[HELD_OUT]
    np.testing.assert_allclose(table.loc["step_network"], table.loc["whitened"], rtol=1e-6)
    estimator = fitted.model.estimator
    assert estimator is not None
    linear = replace(fitted.model, estimator=estimator.only())
    expression = fitted.model.preprocess.match(profiles)[0]
    rows = np.flatnonzero(fitted.split == "test")
    names = fitted.split.index[rows]
    alone = evaluate(linear, expression.take(rows), names, fitted.split.iloc[rows], False).profiles
    columns = ["cosine", "centred_cosine", "mse", HELD_OUT]
    by_model = alone.set_index(["model", "profile"])[columns]
    np.testing.assert_allclose(by_model.loc["model"], by_model.loc["whitened"], rtol=1e-5)


def test_a_start_that_is_kept_is_shrunken_pca_in_a_free_basis(profiles: Profiles) -> None:
    fitted = fit(profiles, replace(SETTINGS, basis="free", learning_rate=3.0))
    assert fitted.model.config["best_epoch"] == 0
    table = fitted.evaluation.profiles.set_index(["model", "profile"])
    columns = ["cosine", "centred_cosine", "mse", HELD_OUT]
    np.testing.assert_allclose(
        table.loc["model", columns].to_numpy(), table.loc["shrunken_pca", columns].to_numpy(), rtol=1e-4, atol=1e-5
    )
    assert "is as good as shrunken PCA of the same size" in verdict(fitted.evaluation, "test")


def test_a_start_that_is_kept_on_own_input_is_pca(profiles: Profiles) -> None:
    fitted = fit(profiles, replace(SETTINGS, target="self", learning_rate=3.0))
    assert fitted.model.config["best_epoch"] == 0
    table = fitted.evaluation.profiles.set_index(["model", "profile"])
    columns = ["cosine", "centred_cosine", "mse"]
    np.testing.assert_allclose(table.loc["model", columns], table.loc["pca", columns], rtol=1e-4, atol=1e-5)


def ring(n_profiles: int = 600, n_genes: int = 80) -> anndata.AnnData:
    """Counts along a closed curve: two numbers tell all, but no plane holds it."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * math.pi, size=(n_profiles, 1))
    rate = np.exp(4 * np.cos(angle - np.linspace(0, 2 * math.pi, n_genes, endpoint=False)))
    counts = rng.poisson(2000 * rate / rate.sum(1, keepdims=True)).astype(np.float32)
    return anndata.AnnData(sparse.csr_matrix(counts))


@pytest.mark.parametrize("loss", ["mse", "cosine"])
def test_a_network_beats_pca_where_the_structure_is_curved(loss: str) -> None:
    settings = Settings(loss=loss, n_latent=2, rank=16, hidden=64, epochs=30, batch_size=64, dropout=0.0, n_splits=2)
    evaluation = fit(read_profiles(ring()), settings).evaluation
    model, pca, best = (value(evaluation.metrics, name, "test", HELD_OUT) for name in ("model", "pca", "shrunken_pca"))
    ceiling = value(evaluation.metrics, "model", "test", "ceiling")
    assert model > max(pca, best) + 0.3 * (ceiling - max(pca, best))
    assert "the model beats PCA of the same size" in verdict(evaluation, "test")
    assert "beats shrunken PCA of the same size" in verdict(evaluation, "test")


def test_each_row_of_the_history_is_told_while_training(profiles: Profiles) -> None:
    seen: list[dict[str, float]] = []
    show: Callable[[dict[str, float]], None] = seen.append
    fitted = fit(profiles, SETTINGS, show)
    assert [row["epoch"] for row in seen] == list(fitted.history["epoch"]) == [0, 1, 2, 3]


def test_the_epoch_is_chosen_on_several_different_halves(
    profiles: Profiles, plain: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "VALIDATION_SPLITS", 1)
    once = fit(profiles, SETTINGS).history["validation_loss"]
    assert (once != plain.history["validation_loss"]).all()
    np.testing.assert_allclose(once, plain.history["validation_loss"], rtol=0.1)


def test_a_basis_larger_than_the_data_is_cut_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    small = read_profiles(simulate(30, 40))
    fitted = fit(small, replace(SETTINGS, n_latent=2, rank=500, epochs=1))
    assert fitted.model.baselines.half is not None
    assert fitted.model.baselines.half.rank <= 40
    monkeypatch.setattr("geneae.fitting.bases.PCA_SIZES", (4,))
    assert fit(small, replace(SETTINGS, n_latent=2, rank=6, epochs=1)).model.baselines.whole.rank == 4


def test_what_a_loss_is_at_a_perfect_reconstruction_is_recorded_where_it_compares_profiles(profiles: Profiles) -> None:
    def recorded(**settings: Any) -> float | None:
        found: float | None = fit(profiles, replace(SETTINGS, epochs=1, **settings)).model.config["loss_at_perfection"]
        return found

    assert recorded(loss="cosine") is None
    assert recorded(loss="cosine+triplet", label="kind") is None
    fixed, by_pair, wide = (recorded(loss="cosine-embedding", margin=margin) for margin in (0.5, None, 2.0))
    assert fixed is not None
    assert fixed > 0.01
    assert by_pair == pytest.approx(0, abs=1e-6)
    assert wide == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("kin", "unknown obs column 'kin'; did you mean 'kind'?"),
        ("same", "labels must have at least 2 different values among the training profiles; column 'same' has 1."),
        ("name", "column 'name' has 64 different values among 64 training profiles, as names or measurements have."),
        (
            "size",
            "labels must be names or whole numbers that profiles share; obs column 'size' holds measurements, such as",
        ),
    ],
)
def test_a_label_that_tells_nothing_is_refused(label: str, message: str) -> None:
    adata = simulate(80, 40)
    adata.obs["same"] = "a"
    adata.obs["name"] = [f"n{i}" for i in range(80)]
    adata.obs["size"] = np.arange(80) / 7
    with pytest.raises(InputError, match=re.escape(message)):
        fit(read_profiles(adata), replace(SETTINGS, loss="cosine+triplet", label=label))


def test_a_collapse_is_recorded_with_its_remedy(profiles: Profiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "is_frozen", lambda *_: True)
    fitted = fit(profiles, replace(SETTINGS, loss="cosine", epochs=5))
    assert fitted.model.config["collapse"] == "frozen"
    row = fitted.diagnostics.iloc[0]
    assert (row["name"], row["value"], row["fires"]) == ("frozen_collapse", 5, True)
    assert row["message"] == f"At epoch 5: {monitor.COLLAPSES['frozen']}"


def test_a_cosine_at_a_rate_far_too_high_freezes_and_that_is_said(profiles: Profiles) -> None:
    plain = replace(SETTINGS, loss="cosine", basis="free", init="random", epochs=8, patience=8)
    frozen = fit(profiles, replace(plain, learning_rate=1.0))
    assert frozen.model.config["collapse"] == "frozen"
    last = frozen.history.iloc[-1]
    assert last["norm_ratio"] > 10
    assert last["gradient_norm"] < 0.1 * frozen.history["gradient_norm"][0]
    assert fit(profiles, replace(plain, learning_rate=1e-2)).model.config["collapse"] is None


def test_own_counts_are_a_control_also_where_they_are_not_tried() -> None:
    """0 and 1 are not drawn at random: what is in one half is missing in the other, which the control shows."""
    rng = np.random.default_rng(0)
    shares = np.where(rng.random((200, 1)) < 0.5, np.linspace(0.1, 0.9, 120), np.linspace(0.9, 0.1, 120))
    adata = anndata.AnnData(sparse.csr_matrix((rng.random(shares.shape) < shares).astype(np.float32)))
    fitted = fit(read_profiles(adata, state="counts"), Settings(**QUICK | {"state": "counts"}))
    assert [step["name"] for step in fitted.model.config["steps"]] == ["neighbours", "calibration"]
    metrics = fitted.evaluation.metrics
    of = metrics[(metrics["split"] == "test") & (metrics["metric"] == "centred_cosine")]
    by_model = of[of["statistic"] == "mean"].set_index("model")["value"]
    assert by_model["own_count"] < -0.5
