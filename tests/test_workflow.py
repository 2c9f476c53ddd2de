"""The Snakemake workflow: what it accepts, what it plans, and what `geneae compare` makes of its runs."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anndata
import generate
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import simulate
from jsonschema import Draft202012Validator

from geneae.cli.commands.fit import command as fit
from geneae.folders.model import read_config

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / "workflows"
SETTINGS = {"epochs": 2, "latent": 4, "hidden": 16, "rank": 12, "splits": 2, "validation": 0.2, "test": 0.2}
LOSSES = ["mse", "cosine+0.1*softmax"]
GRID = {"losses": LOSSES, "cuts": [1], "seeds": [1], "split-seed": 3}
"""What is run; every run takes seconds to load its libraries, so that several seeds and cuts are only planned."""


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the workflow in a folder by its `config.yaml`, with the commands of this Python; it says all in stdout."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(WORKFLOW / "Snakefile"), "--nocolor"]
    command += ["--directory", str(folder), "--configfile", str(folder / "config.yaml"), *arguments]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    said: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.run(command, **said, check=False, env=os.environ | {"PATH": path})


def write_config(folder: Path, **changes: Any) -> Path:
    """A grid on two small data sets in a folder; returns the folder."""
    data = [
        {"name": "simulated", "path": "simulated.h5ad", "settings": {"stream": True, "log": "csv", "latent": 3}},
        {"name": "immune", "path": "immune.h5ad", "evaluate-on": "immune_others.h5ad"},
    ]
    config = {"data": data, **GRID, "settings": SETTINGS} | changes
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the configuration and the data: simulated counts, and 120 genes of 200 of the shipped cells."""
    folder = write_config(tmp_path_factory.mktemp("workflow"))
    simulate(160).write_h5ad(folder / "simulated.h5ad")
    immune = anndata.read_h5ad(ROOT / "data" / "immune_559.h5ad")
    often = np.argsort(-np.asarray(immune.X.sum(axis=0)).ravel())[:120]
    immune[:160, often].copy().write_h5ad(folder / "immune.h5ad")
    immune[160:200, often].copy().write_h5ad(folder / "immune_others.h5ad")
    return folder


@pytest.fixture(scope="module")
def done(workplace: Path) -> Path:
    """The same folder after the workflow has run on two cores."""
    finished = snakemake(workplace, "--cores", "2")
    assert finished.returncode == 0, finished.stdout + "".join(
        path.read_text(encoding="utf-8") for path in sorted(workplace.glob("logs/**/*.log"))
    )
    return workplace


@pytest.mark.slow
def test_every_run_is_there_and_shares_the_split_of_its_data_set(done: Path) -> None:
    for data in ("simulated", "immune"):
        runs = sorted(path.parent for path in (done / "results" / data / "runs").glob("*/config.json"))
        names = [f"{loss}_cut1_seed1" for loss in ("cosine+0.1-softmax", "mse")]
        assert [run.name for run in runs] == names
        assert len({(run / "split.csv").read_bytes() for run in runs}) == 1
        for run, name in zip(runs, names, strict=True):
            settings = read_config(run)["settings"]
            loss = settings["loss"].replace("*", "-")
            assert f"{loss}_cut{settings['cut']:g}_seed{settings['seed']}" == name
            n_latent = 3 if data == "simulated" else 4  # its own setting, over that of all
            assert (settings["split_seed"], settings["n_latent"], settings["epochs"]) == (3, n_latent, 2)
            log = run.with_name(f"{run.name}_log") / "history.csv"
            assert log.is_file() == (data == "simulated")


@pytest.mark.slow
def test_every_run_is_evaluated_on_its_own_profiles_or_on_others(done: Path) -> None:
    for data, splits in (("simulated", {"train", "validation", "test"}), ("immune", {"all"})):
        folders = list((done / "results" / data / "evaluations").iterdir())
        assert len(folders) == 2
        for folder in folders:
            table = pd.read_csv(folder / "profiles.csv")
            assert set(table["split"]) == splits
            assert table["profile"].nunique() == {"simulated": 160, "immune": 40}[data]


@pytest.mark.slow
def test_the_comparison_reads_all_runs(done: Path) -> None:
    for data in ("simulated", "immune"):
        folder = done / "results" / data / "comparison"
        paired = pd.read_csv(folder / "paired.csv")
        assert set(zip(paired["reference"], paired["arm"], paired["n_seeds"], strict=True)) == {("mse", LOSSES[1], 1)}
        assert pd.read_csv(folder / "metrics.csv")["run"].nunique() == 2


@pytest.mark.slow
def test_a_second_run_has_nothing_to_do_and_one_page_gathers_the_reports(done: Path) -> None:
    assert "Nothing to be done" in snakemake(done, "--dry-run").stdout
    page = done / "report.html"
    assert snakemake(done, "--report", str(page)).returncode == 0
    assert page.read_text(encoding="utf-8").count("geneae compare") >= 2


@pytest.mark.slow
def test_lint_is_clean(workplace: Path) -> None:
    linted = snakemake(workplace, "--lint")
    assert (linted.returncode, "your workflow is in a good condition" in linted.stdout) == (0, True), linted.stdout


@pytest.fixture(scope="module")
def planned(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What would be run on a cluster, of a grid with every kind of flag."""
    if find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("snakemake-executor-plugin-slurm is not installed: no plan for a cluster can be made")
    data: dict[str, Any] = {"name": "a", "path": str(workplace / "simulated.h5ad"), "layer": "counts", "color": "kind"}
    data["evaluate-on"] = str(workplace / "immune.h5ad")
    data["settings"] = {"group": "my donor", "stream": False, "null": True}
    settings = {"scale": True, "n-top-genes": None, "group": None, "objective": "simclr+reconstruction", "nodes": 2}
    grid = {"losses": ["cosine"], "cuts": [1, 2.5], "seeds": [7, 8]}
    folder = write_config(tmp_path_factory.mktemp("plan"), data=[data], **grid, settings=settings)
    profile = str(WORKFLOW / "profiles" / "slurm")
    cores = ["--cores", "4"]  # later versions of Snakemake make dry runs for a single one
    dry = snakemake(folder, "--dry-run", "--printshellcmds", *cores, "--workflow-profile", profile)
    assert dry.returncode == 0, dry.stdout
    print(dry.stdout)
    return dry.stdout


@pytest.mark.slow
def test_the_plan_for_a_cluster_asks_for_a_gpu_for_each_fit(planned: str) -> None:
    jobs = re.split(r"\nrule ", planned)[1:]
    fits = [job for job in jobs if job.startswith("fit:")]
    assert len(fits) == 4
    assert all("gpu=1" in job and "threads: 4" in job and "runtime=240" in job for job in fits)
    others = [job for job in jobs if job.startswith(("evaluate:", "compare:"))]
    assert len(others) == 5
    assert not any("gpu=" in job for job in others)


@pytest.mark.slow
def test_flags_reach_the_commands(planned: str, workplace: Path) -> None:
    path, other = workplace / "simulated.h5ad", workplace / "immune.h5ad"
    flags = "--split-seed 3 --color kind --scale --group 'my donor' --objective simclr+reconstruction --nodes 2"
    run = "results/a/runs/cosine_cut2.5_seed7"
    fit_line = f"geneae fit {path} -o {run} --overwrite --loss cosine --cut 2.5 --seed 7 {flags} --stream no --null"
    assert f"{fit_line} --layer counts > logs/fit/a/" in planned
    folder = "results/a/evaluations/cosine_cut2.5_seed7"
    assert f"geneae evaluate {run} {other} -o {folder} --layer counts --stream no > " in planned
    runs = [f"results/a/runs/cosine_cut{cut}_seed{seed}" for cut in ("1", "2.5") for seed in (7, 8)]
    assert f"geneae compare {' '.join(runs)} -o results/a/comparison --color kind > " in planned
    seeds = re.findall(r"geneae fit .* --cut (\S+) --seed (\d+) --split-seed (\d+) ", planned)  # one split for all
    assert sorted(seeds) == [("1", "7", "3"), ("1", "8", "3"), ("2.5", "7", "3"), ("2.5", "8", "3")]


@pytest.mark.slow
def test_encoders_that_learn_from_views_alone_are_not_evaluated(workplace: Path, tmp_path: Path) -> None:
    data = [{"name": "a", "path": str(workplace / "simulated.h5ad")}]
    folder = write_config(
        tmp_path, data=data, losses=["mse"], settings={"objective": "simclr", "views": "thin:0.3+mask"}
    )
    dry = snakemake(folder, "--dry-run", "--printshellcmds")
    assert dry.returncode == 0, dry.stdout
    assert "--objective simclr --views thin:0.3+mask >" in dry.stdout
    assert "geneae compare" in dry.stdout
    assert "geneae evaluate" not in dry.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"epoch": 3}}, "configuration, $.settings: Additional properties are not allowed ('epoch' was"),
        ({"losses": ["mse", "coisne"]}, "configuration, $.losses[1]: 'coisne' does not match"),
        (
            {"data": [{"name": "a", "path": "b"}] * 2},
            "data: names must differ; found a, a. Rename one of the data sets.",
        ),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    refused = snakemake(write_config(tmp_path, **changes), "--dry-run")
    assert refused.returncode == 1
    assert message in refused.stdout
    assert "settings" not in changes or "Known keys: objective, views, positives, agreement, " in refused.stdout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"lossess": ["mse"]}, "'lossess' was unexpected"),
        ({"data": [{"name": "a", "path": "a.h5ad", "colour": "b"}]}, "'colour' was unexpected"),
        ({"data": [{"name": "a/b", "path": "a.h5ad"}]}, "'a/b' does not match"),
        ({"losses": ["mae"]}, "'mae' does not match"),
        ({"losses": ["cosine+0.1*softmx"]}, "'cosine+0.1*softmx' does not match"),
        ({"losses": ["0.5*cosine+1e-3*softmax+mse"]}, None),
        ({"data": [{"name": "a", "path": "a.h5ad", "settings": {"epoch": 1}}]}, "'epoch' was unexpected"),
        ({"settings": {"objective": "simclr+mse"}}, "'simclr+mse' does not match"),
        ({"settings": {"objective": "reconstruction+dino"}}, None),
        ({"settings": {"views": "thin:0.3+blur"}}, "'thin:0.3+blur' does not match"),
        ({"settings": {"stream": "maybe"}}, "'maybe' is not one of"),
        ({"settings": {"stream": True, "null": True, "log": "csv"}}, None),
        ({"settings": {"optimizer": "sgd-momentum"}}, None),
        ({"settings": {"precision": "32"}}, None),
        ({"settings": {"margin": 1.5}}, None),
        ({"settings": {"margin": -1.5}}, "-1.5 is less than the minimum of -1"),
        ({"split-seed": None}, "None is not of type 'integer'"),
        ({"settings": {"learning-rate": "fast"}}, "'fast' is not of type 'number'"),
        ({"cuts": [0]}, "0 is less than or equal to the minimum of 0"),
        ({"seeds": []}, "should be non-empty"),
    ],
)
def test_the_schema_refuses_what_it_does_not_know(changes: dict[str, Any], message: str | None) -> None:
    config = yaml.safe_load((WORKFLOW / "config" / "config.yaml").read_text(encoding="utf-8"))
    errors = [error.message for error in Draft202012Validator(schema()).iter_errors(config | changes)]
    assert len(errors) == (message is not None)
    assert message is None or message in errors[0]


def schema() -> dict[str, Any]:
    """The schema of the configuration."""
    found: dict[str, Any] = yaml.safe_load((WORKFLOW / "schemas" / "config.schema.yaml").read_text(encoding="utf-8"))
    return found


def settings_schema() -> dict[str, Any]:
    """Of the settings of all runs, by key."""
    found: dict[str, Any] = schema()["$defs"]["settings"]["properties"]
    return found


GRID_FLAGS = {"loss", "cut", "seed", "split-seed"}
DATA_FLAGS = {"layer", "raw", "gene-names", "modality", "color"}
WORKFLOW_FLAGS = {"output", "overwrite", "resume", "quiet", "verbose", "config"}


def test_every_flag_of_fit_has_its_place() -> None:
    flags = {flag.removeprefix("--") for parameter in fit.params for flag in parameter.opts if flag.startswith("--")}
    elsewhere = GRID_FLAGS | DATA_FLAGS | WORKFLOW_FLAGS
    assert flags >= elsewhere
    assert set(settings_schema()) == flags - elsewhere
    assert set(schema()["properties"]["data"]["items"]["properties"]) >= DATA_FLAGS


def test_the_generated_parts_are_those_of_the_declarations() -> None:
    for path in generate.GENERATED:
        assert path.read_text(encoding="utf-8") == generate.renewed(path), (
            f"{path} does not fit the settings any more. Run: .venv/bin/python workflows/generate.py"
        )


def test_a_file_without_the_mark_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: []\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"has no line '# Generated from here on: .* Put it where the generated part"):
        generate.renewed(tmp_path / "config.yaml")


def test_the_schema_and_the_settings_accept_the_same_values() -> None:
    """At and just beyond each limit; every choice and every name of a family; None; and a word that is none."""
    for name, one in (generate.SETTINGS | generate.RUN_OPTIONS).items():
        validator = Draft202012Validator(generate.rule(one))
        assert validator.is_valid(one.default), name
        assert validator.is_valid(None) == (one.default is None), name
        for word in (*one.choices, *one.family):
            assert validator.is_valid(word), (name, word)
        assert not ((one.choices or one.family) and validator.is_valid("wasserstein")), name
        step = 1 if one.kind is int else 1e-6
        for bound in (-1, 0, 1, 2) if one.limits else ():
            for value in (bound - step, bound, bound + step):
                assert validator.is_valid(value) == one.limits.hold(value), (name, value)


@pytest.mark.parametrize("path", generate.GENERATED, ids=lambda path: path.name)
def test_a_setting_that_is_not_generated_yet_is_missed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(generate.SETTINGS, "warmup", replace(generate.SETTINGS["epochs"], name="warmup", flag="warmup"))
    assert "warmup" in generate.renewed(path)
    assert generate.renewed(path) != path.read_text(encoding="utf-8")


def test_the_configuration_explains_every_key_and_its_default() -> None:
    text = (WORKFLOW / "config" / "config.yaml").read_text(encoding="utf-8")
    assert set(yaml.safe_load(text)) == set(schema()["properties"])
    explained = dict(re.findall(r'^ {2,4}(?:# |- )?"?([a-z-]+)"?: (\S.*?) +# .+$', text, re.MULTILINE))
    assert list(explained)[-len(settings_schema()) :] == list(settings_schema())
    assert set(explained) == set(settings_schema()) | set(schema()["properties"]["data"]["items"]["properties"])
    values = fit.make_context("fit", ["data.h5ad"]).params
    defaults = {parameter.opts[0].removeprefix("--"): values.get(str(parameter.name)) for parameter in fit.params}
    for name in settings_schema():
        default = defaults[name]
        assert yaml.safe_load(explained[name]) == (int(default) if name == "precision" else default), name
