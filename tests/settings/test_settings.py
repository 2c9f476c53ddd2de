import dataclasses
import math
import re
import subprocess
import sys
from typing import Any

import pytest

from geneae.losses.names import find_loss
from geneae.losses.reconstruction import LOSSES, LossSettings
from geneae.settings.errors import InputError
from geneae.settings.settings import RUN_OPTIONS, SETTINGS, STARTS, RunOptions, Settings


def test_defaults_are_those_of_the_issue_and_name_a_loss() -> None:
    default = Settings()
    assert (default.loss, default.basis, default.rank, default.target) == ("mse", "pca", 128, "auto")
    assert (default.validation, default.test, default.cut, default.seed) == (0.1, 0.1, 1.0, 0)
    assert find_loss(default.loss) is LOSSES[default.loss]
    weights = LossSettings()
    assert (default.alpha, default.beta, default.gamma) == (weights.alpha, weights.beta, weights.gamma)


CHOSEN = [name for name, one in SETTINGS.items() if one.choices and name != "init"]


@pytest.mark.parametrize("name", CHOSEN)
def test_every_option_that_is_offered_is_accepted_and_the_default_is_among_them(name: str) -> None:
    assert getattr(Settings(), name) in SETTINGS[name].choices
    for option in SETTINGS[name].choices:
        assert getattr(Settings(**{name: option}), name) == option


def test_every_start_is_accepted_in_a_free_basis() -> None:
    assert [Settings(basis="free", init=init).init for init in STARTS] == ["pca", "random"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"basis": "PCA"}, "unknown basis 'PCA'; did you mean 'pca'? Available: pca, free"),
        ({"init": "randm"}, "unknown init 'randm'; did you mean 'random'? Available: pca, random"),
        ({"target": "halves"}, "unknown target 'halves'. Available: auto, split, self"),
        ({"center": "genes"}, "unknown center 'genes'; did you mean 'gene'? Available: none, gene, profile"),
        ({"positives": "neighbors"}, "unknown positives 'neighbors'; did you mean 'neighbours'?"),
        (
            {"positives": "neighbours", "basis": "free", "init": "random"},
            "--positives neighbours needs latents that tell profiles apart at the start; found --init random. Use "
            "--init pca.",
        ),
        ({"cut_where": "output"}, "unknown cut-where 'output'. Available: encoder, decoder, all"),
        ({"device": "gpu"}, "unknown device 'gpu'; did you mean 'cpu'? Available: auto, cpu, cuda, mps"),
        ({"precision": "16"}, "Available: 32, bf16"),
        ({"n_latent": 0}, "latent must be at least 1; found 0."),
        ({"hidden": 0}, "hidden must be at least 1; found 0."),
        ({"rank": 0}, "rank must be at least 1; found 0."),
        ({"n_splits": 0}, "splits must be at least 1; found 0."),
        ({"epochs": 0}, "epochs must be at least 1; found 0."),
        ({"patience": 0}, "patience must be at least 1; found 0."),
        ({"batch_size": -3}, "batch-size must be at least 1; found -3."),
        ({"n_top_genes": 0}, "n-top-genes must be at least 1; found 0."),
        ({"seed": -1}, "seed must be between 0 and 4,294,967,295; found -1."),
        ({"alpha": 1.5}, "alpha must be between 0 and 1; found 1.5."),
        ({"alpha": -0.1}, "alpha must be between 0 and 1; found -0.1."),
        ({"beta": -1}, "beta must be at least 0; found -1."),
        ({"gamma": 0.5}, "gamma must be at least 1; found 0.5."),
        ({"cut": 0}, "cut must be above 0 (1 means no cut); found 0."),
        ({"cut": float("nan")}, "cut must be above 0 (1 means no cut); found nan."),
        ({"cut_bias": "none"}, "unknown cut-bias 'none'. Available: homogeneous, zero, scale"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam'; did you mean 'adamw'? Available: adamw, sgd"),
        ({"negatives": "all"}, "unknown negatives 'all'. Available: mean, annealed, hardest"),
        ({"target_norm": 0.0}, "target-norm must be above 0; found 0."),
        ({"grad_scale": 2.5}, "grad-scale must be between 0 and 2; found 2.5."),
        ({"temperature": 0.0}, "temperature must be above 0; found 0."),
        (
            {"latent_norm": True},
            "--latent-norm needs a random start; found --init pca. Use --basis free --init random.",
        ),
        (
            {"latent_norm": True, "basis": "free", "init": "random", "target_norm": 1.0, "cut_where": "encoder"},
            "latents of unit norm cannot start at --target-norm. Use --cut-where decoder or all.",
        ),
        ({"loss": "cosine+0.5*triplet"}, "the loss triplet needs labels; found none. Name a column with --label."),
        ({"loss": "cosine+x*mse"}, "the weight of a loss must be a number, as in cosine+0.1*softmax; found 'x'"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1; found 1."),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1; found -0.1."),
        ({"margin": -2}, "margin must be at least -1; found -2."),
        ({"margin": math.nan}, "margin must be at least -1; found nan."),
        ({"split_seed": -1}, "split-seed must be between 0 and 4,294,967,295; found -1."),
        ({"validation": 0}, "validation must be above 0 and below 1; found 0."),
        ({"validation": 1.0}, "validation must be above 0 and below 1; found 1."),
        ({"test": -0.1}, "test must be at least 0 and below 1; found -0.1."),
        ({"test": 1}, "test must be at least 0 and below 1; found 1."),
        ({"beta": math.inf}, "beta must be finite and at least 0; found inf."),
        ({"target_norm": math.inf}, "target-norm must be finite and above 0; found inf."),
        (
            {"metric": 3},
            "metric must be the folder of a learned metric; found int. Write the metric with save(folder), and give",
        ),
        ({"learning_rate": 0}, "learning-rate must be above 0; found 0."),
        ({"weight_decay": -1e-3}, "weight-decay must be at least 0; found -0.001."),
        (
            {"init": "random"},
            "--init random needs a learned basis; found --basis pca. Use --basis free with --init random.",
        ),
    ],
)
def test_impossible_values_are_refused(options: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Settings(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"beta": 0.0},
        {"gamma": 1.0},
        {"dropout": 0.0},
        {"weight_decay": 0.0},
        {"n_latent": 1, "hidden": 1, "rank": 1, "epochs": 1, "patience": 1, "batch_size": 1, "n_splits": 1},
        {"n_top_genes": 1},
        {"cut": 0.1},
        {"margin": -1},
        {"margin": 3.5},
        {"split_seed": 0},
        {"test": 0.0},
    ],
)
def test_the_ends_of_every_range_are_allowed(options: Any) -> None:
    settings = Settings(**options)
    assert {name: getattr(settings, name) for name in options} == options


def test_a_record_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().seed = 1  # type: ignore[misc]
    assert dataclasses.replace(Settings(), seed=1) != Settings()


def test_reading_settings_loads_nothing_heavy() -> None:
    code = "import sys, geneae.settings.settings; print(sorted({'torch', 'scanpy', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_setting_is_described_and_those_that_may_be_none_say_so() -> None:
    for record, settings in ((Settings, SETTINGS), (RunOptions, RUN_OPTIONS)):
        assert list(settings) == [field.name for field in dataclasses.fields(record)]
        described = str(record.__doc__)
        for one in settings.values():
            assert one.text[0].isupper()
            assert one.text.endswith(".")
            optional = " or None" if one.default is None else ""
            assert re.search(rf"^{one.name} : .*{optional}, default {re.escape(repr(one.default))}$", described, re.M)
            assert " ".join(one.sentence.split()) in " ".join(described.split())


def test_what_is_left_to_a_run_has_defaults_that_do_nothing() -> None:
    assert dataclasses.astuple(RunOptions()) == (None, False, None, None, None, "auto", False, None)
