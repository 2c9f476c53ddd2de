"""On a CUDA device a fit is that of the CPU, repeats its bits, goes on to the same bits, and leaves nothing there."""

import gc
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, simulate
from starts import are_equal, build, weights

from geneae import Autoencoder
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.evaluation.latents import encode
from geneae.evaluation.records import value
from geneae.fitting.fit import Fitted, fit
from geneae.losses.in_batch import IN_BATCH_LOSSES
from geneae.losses.reconstruction import LOSSES
from geneae.settings.settings import OPTIMIZERS, Settings
from geneae.training.checkpoints import Checkpoint
from geneae.training.devices import open_processes
from geneae.training.selfsupervised import OBJECTIVES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")

DEVICE = "cuda"
SETTINGS = Settings(**QUICK, device=DEVICE)
CLOCKS = ["train_seconds", "seconds"]
LEARNED = {"basis": "free", "init": "random"}
KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "free": {"basis": "free"},
    "random": LEARNED,
    "unit": {**LEARNED, "latent_norm": True},
    "self": {"target": "self"},
    "scaled": {"scale": True, "n_top_genes": 60},
    "gene": {"loss": "cosine", "center": "gene"},
    "profile": {"loss": "cosine", "center": "profile"},
    "metric": {"loss": "cosine", "metric": "metric"},
    "gradients": {"loss": "cosine", "grad_scale": 1.0},
    "sum": {"loss": "cosine+0.1*softmax"},
    "cut": {"cut": 3.0},
    "cut all": {**LEARNED, "cut": 3.0},
    "target norm": {**LEARNED, "cut": 3.0, "target_norm": 2.0},
    "joint": {"objective": "simclr+reconstruction"},
    **{f"{loss} fixed": {"loss": loss} for loss in (*LOSSES, *IN_BATCH_LOSSES)},
    **{f"{loss} learned": {"loss": loss, **LEARNED} for loss in ("mse", "pearson", *IN_BATCH_LOSSES)},
    **{name: {"objective": name, **LEARNED} for name in OBJECTIVES},
    **{f"{name} whitened": {"objective": name} for name in OBJECTIVES},
    **{name: {"optimizer": name} for name in OPTIMIZERS},
}
"""What differs from the default fit."""
REPEATED = [
    "default",
    "free",
    "random",
    "metric",
    "softmax learned",
    "triplet fixed",
    "triplet learned",
    "moco-v2",
    "dino",
    "vicreg whitened",
    "joint",
]


def settings_of(kind: str, **others: Any) -> Settings:
    """On the device, with a label where the loss learns from one."""
    label = {"label": "kind"} if "triplet" in kind else {}
    return replace(SETTINGS, **KINDS[kind] | label | others)


def fit_here(profiles: Profiles, settings: Settings, **others: Any) -> Fitted:
    """A fit; a loss whose library is not installed is skipped."""
    if "triplet" in settings.loss:
        pytest.importorskip("pytorch_metric_learning")
    return fit(profiles, settings, **others)


@pytest.fixture(scope="module")
def profiles() -> Profiles:
    return read_profiles(simulate())


@pytest.fixture(autouse=True)
def _in_the_folder_of_the_metric(metric_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(metric_folder.parent)  # where it is called metric


SENSITIVE = 0.05
"""Difference allowed where rounding is made more of."""


def history(fitted: Fitted) -> pd.DataFrame:
    """Without what a clock says."""
    return fitted.history.drop(columns=CLOCKS)


def assert_same_bits(found: Fitted, expected: Fitted) -> None:
    """The same weights, history and evaluation."""
    pd.testing.assert_frame_equal(history(found), history(expected), check_exact=True)
    assert are_equal(weights(found.model.network), weights(expected.model.network))
    pd.testing.assert_frame_equal(found.evaluation.profiles, expected.evaluation.profiles, check_exact=True)


def assert_close(found: Fitted, expected: Fitted, within: float) -> None:
    """The same course of the losses, and the same test profiles as good, up to rounding that has added up."""
    one, two = history(found), history(expected)
    assert list(one.columns) == list(two.columns)
    losses = ["train_loss", "validation_loss"]
    np.testing.assert_allclose(one[losses], two[losses], rtol=within, atol=within * 0.01)
    if "cosine" in set(expected.evaluation.metrics["metric"]):
        if within < SENSITIVE:  # otherwise the epochs may be too close to choose the same one
            assert found.model.config["best_epoch"] == expected.model.config["best_epoch"]
        cosines = [value(each.evaluation.metrics, "model", "test", "cosine") for each in (found, expected)]
        assert cosines[0] == pytest.approx(cosines[1], abs=within)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_is_that_of_the_cpu(kind: str, profiles: Profiles) -> None:
    settings = settings_of(kind, dropout=0.0)  # the devices draw it from other random numbers
    found, expected = (fit_here(profiles, replace(settings, device=device)) for device in (DEVICE, "cpu"))
    # BatchNorm makes more of a difference by rounding, and so does the choice of triplets, which is not continuous
    is_sensitive = settings.objective != "reconstruction" or "triplet" in settings.loss
    assert_close(found, expected, within=SENSITIVE if is_sensitive else 1e-3)


@pytest.mark.parametrize("basis", ["pca", "free"])
@pytest.mark.parametrize("loss", ["mse", "cosine"])
def test_a_fit_from_a_file_is_that_of_the_cpu(basis: str, loss: str, counts_path: Path) -> None:
    settings = replace(SETTINGS, basis=basis, loss=loss, dropout=0.0)
    streamed = read_profiles(counts_path, stream="yes")
    found, expected = (fit(streamed, replace(settings, device=device)) for device in (DEVICE, "cpu"))
    assert found.model.config["data"]["is_streamed"]
    assert_close(found, expected, within=1e-3)
    assert_same_bits(fit(streamed, settings), found)


@pytest.mark.parametrize("kind", ["default", "random", "softmax fixed", "simclr"])
def test_half_precision_is_near(kind: str, profiles: Profiles) -> None:
    settings = settings_of(kind, dropout=0.0)
    found, expected = (fit(profiles, replace(settings, precision=precision)) for precision in ("bf16", "32"))
    assert not history(found).equals(history(expected))
    assert_close(found, expected, within=0.1)


@pytest.mark.parametrize("kind", REPEATED)
def test_the_same_seed_gives_the_same_bits(kind: str, profiles: Profiles) -> None:
    settings = settings_of(kind)
    first = fit_here(profiles, settings)
    torch.rand(7, device=DEVICE)  # the caller's random numbers make no difference
    assert_same_bits(fit_here(profiles, settings), first)
    assert not history(fit_here(profiles, replace(settings, seed=1))).equals(history(first))


class Killed(Exception):
    pass


@pytest.mark.parametrize("kind", ["default", "random", "moco-v2", "dino", "barlow whitened", "joint", "target norm"])
def test_a_fit_that_was_killed_goes_on_to_the_same_bits(
    kind: str, profiles: Profiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(kind, optimizer="sgd-momentum") if kind == "moco-v2" else settings_of(kind)
    expected = fit(profiles, settings)
    for step in (2, 4):  # of three steps and an end an epoch: amid the first one, amid the second
        left = [step]

        def is_due(_: Checkpoint, left: list[int] = left) -> bool:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return True

        monkeypatch.setattr(Checkpoint, "is_due", is_due)
        with pytest.raises(Killed):
            fit(profiles, settings, checkpoint=tmp_path)
        monkeypatch.undo()
    found = fit(profiles, settings, checkpoint=tmp_path)
    assert found.model.config["parts"] == 3
    pd.testing.assert_frame_equal(history(found), history(expected), check_exact=True)
    assert are_equal(weights(found.model.network), weights(expected.model.network))


def test_auto_takes_the_device_where_it_is_quicker() -> None:
    assert open_processes(Settings(basis="free")).device.type == DEVICE
    assert open_processes(Settings()).device.type == "cpu"


def test_what_was_fitted_is_on_the_cpu(profiles: Profiles) -> None:
    model = fit(profiles, SETTINGS).model
    tensors = [*model.network.state_dict().values(), model.baselines.whole.components, model.baselines.whole.mean]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}


def test_a_model_opens_where_there_is_no_device(counts_path: Path, tmp_path: Path) -> None:
    model = Autoencoder("cosine", **QUICK, device=DEVICE).fit(counts_path)
    model.save(tmp_path / "run")
    code = """
import sys
import numpy, torch
from geneae import Autoencoder
assert not torch.cuda.is_available()
numpy.save(sys.argv[3], Autoencoder.load(sys.argv[1]).transform(sys.argv[2]))
"""
    arguments = [str(tmp_path / "run"), str(counts_path), str(tmp_path / "latents.npy")]
    blind = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code, *arguments], env=blind, check=True, timeout=120)
    there = np.load(tmp_path / "latents.npy")
    np.testing.assert_allclose(there, model.transform(counts_path), atol=1e-5)
    fitted = model.model_
    matrix = fitted.preprocess.apply(fitted.preprocess.match(read_profiles(counts_path))[0])
    shift = fitted.shift(is_half=False)
    on_device = encode(fitted.network.to(DEVICE), matrix, shift)
    np.testing.assert_allclose(there, on_device, atol=1e-4)


def allocated() -> int:
    """Bytes in use on the device."""
    gc.collect()
    torch.cuda.synchronize()
    return int(torch.cuda.memory_allocated())


@pytest.mark.parametrize("kind", ["pca", "free-pca", "free-random"])
def test_a_network_that_leaves_the_device_leaves_nothing_there(kind: str) -> None:
    network = build(kind)
    for number in range(2):
        before = allocated()
        network.to(DEVICE)
        assert network.decoder().layer.weight.device.type == DEVICE  # with products of the last layer, which are kept
        assert allocated() > before
        network.to("cpu")
        if number:  # from their first use on, the libraries of torch keep memory of their own
            assert allocated() == before
    assert network.decoder().layer.weight.device.type == "cpu"


@pytest.mark.parametrize("kind", ["default", "random", "metric", "softmax fixed", "moco-v2", "joint"])
def test_a_fit_leaves_nothing_on_the_device(kind: str, profiles: Profiles) -> None:
    fit(profiles, settings_of(kind))  # from their first use on, the libraries of torch keep memory of their own
    before = allocated()
    kept = fit(profiles, settings_of(kind))
    assert allocated() == before
    assert kept.model.network.mean.device.type == "cpu"


def test_the_random_numbers_of_the_caller_stay_as_they_were(profiles: Profiles) -> None:
    torch.manual_seed(5)
    torch.rand(3, device=DEVICE)
    before = torch.get_rng_state(), torch.cuda.get_rng_state()
    fit(profiles, replace(SETTINGS, label="kind"))  # which also trains an encoder on the labels
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(torch.cuda.get_rng_state(), before[1])
