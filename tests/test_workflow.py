"""The Snakemake workflow: what it accepts, what it plans, and what `geneae compare` makes of its runs."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import simulate
from jsonschema import Draft202012Validator

from geneae.cli import fit
from geneae.saving import read_config
from geneae.settings import LOSS_NAMES, NEGATIVE_NAMES, Settings

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / "workflows"
SETTINGS = {"epochs": 2, "latent": 4, "hidden": 16, "rank": 12, "splits": 2, "validation": 0.2, "test": 0.2}
GRID = {"losses": ["mse", "cosine"], "cuts": [1], "seeds": [0, 1], "split-seed": 3}


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
        {"name": "simulated", "path": "simulated.h5ad"},
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


def test_every_run_is_there_and_shares_the_split_of_its_data_set(done: Path) -> None:
    for data in ("simulated", "immune"):
        runs = sorted((done / "results" / data / "runs").iterdir())
        names = [f"{loss}_cut1_seed{seed}" for loss in ("cosine", "mse") for seed in (0, 1)]
        assert [run.name for run in runs] == names
        assert len({(run / "split.csv").read_bytes() for run in runs}) == 1
        for run, name in zip(runs, names, strict=True):
            settings = read_config(run)["settings"]
            assert f"{settings['loss']}_cut{settings['cut']:g}_seed{settings['seed']}" == name
            assert (settings["split_seed"], settings["n_latent"], settings["epochs"]) == (3, 4, 2)


def test_every_run_is_evaluated_on_its_own_profiles_or_on_others(done: Path) -> None:
    for data, splits in (("simulated", {"train", "validation", "test"}), ("immune", {"all"})):
        folders = list((done / "results" / data / "evaluations").iterdir())
        assert len(folders) == 4
        for folder in folders:
            table = pd.read_csv(folder / "profiles.csv")
            assert set(table["split"]) == splits
            assert table["profile"].nunique() == {"simulated": 160, "immune": 40}[data]


def test_the_comparison_reads_all_runs(done: Path) -> None:
    for data in ("simulated", "immune"):
        folder = done / "results" / data / "comparison"
        paired = pd.read_csv(folder / "paired.csv")
        assert set(zip(paired["reference"], paired["arm"], paired["n_seeds"], strict=True)) == {("mse", "cosine", 2)}
        assert pd.read_csv(folder / "metrics.csv")["run"].nunique() == 4


def test_a_second_run_has_nothing_to_do_and_one_page_gathers_the_reports(done: Path) -> None:
    assert "Nothing to be done" in snakemake(done, "--dry-run").stdout
    page = done / "report.html"
    assert snakemake(done, "--report", str(page)).returncode == 0
    assert page.read_text(encoding="utf-8").count("geneae compare") >= 2


def test_lint_is_clean(workplace: Path) -> None:
    linted = snakemake(workplace, "--lint")
    assert (linted.returncode, "your workflow is in a good condition" in linted.stdout) == (0, True), linted.stdout


@pytest.fixture(scope="module")
def planned(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What would be run on a cluster, of a grid with every kind of flag."""
    if find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("snakemake-executor-plugin-slurm is not installed: no plan for a cluster can be made")
    data = {"name": "a", "path": str(workplace / "simulated.h5ad"), "layer": "counts", "color": "kind"}
    data["evaluate-on"] = str(workplace / "immune.h5ad")
    settings = {"scale": True, "n-top-genes": None, "group": "my donor"}
    grid = {"losses": ["cosine"], "cuts": [1, 2.5], "seeds": [7]}
    folder = write_config(tmp_path_factory.mktemp("plan"), data=[data], **grid, settings=settings)
    profile = str(WORKFLOW / "profiles" / "slurm")
    dry = snakemake(folder, "--dry-run", "--printshellcmds", "--workflow-profile", profile)
    assert dry.returncode == 0, dry.stdout
    print(dry.stdout)
    return dry.stdout


def test_the_plan_for_a_cluster_asks_for_a_gpu_for_each_fit(planned: str) -> None:
    jobs = re.split(r"\nrule ", planned)[1:]
    fits = [job for job in jobs if job.startswith("fit:")]
    assert len(fits) == 2
    assert all("gpu=1" in job and "threads: 4" in job and "runtime=240" in job for job in fits)
    others = [job for job in jobs if job.startswith(("evaluate:", "compare:"))]
    assert len(others) == 3
    assert not any("gpu=" in job for job in others)


def test_flags_reach_the_commands(planned: str, workplace: Path) -> None:
    path, other = workplace / "simulated.h5ad", workplace / "immune.h5ad"
    flags = "--split-seed 3 --color kind --layer counts --scale --group 'my donor' > logs/fit/a/"
    run = "results/a/runs/cosine_cut2.5_seed7"
    assert f"geneae fit {path} -o {run} --loss cosine --cut 2.5 --seed 7 {flags}" in planned
    assert f"geneae evaluate {run} {other} -o results/a/evaluations/cosine_cut2.5_seed7 --layer counts > " in planned
    assert f"geneae compare results/a/runs/cosine_cut1_seed7 {run} -o results/a/comparison --color kind > " in planned


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"epoch": 3}}, "configuration, $.settings: Additional properties are not allowed ('epoch' was"),
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
    assert "settings" not in changes or "Known keys: epochs, patience, latent, " in refused.stdout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"lossess": ["mse"]}, "'lossess' was unexpected"),
        ({"data": [{"name": "a", "path": "a.h5ad", "colour": "b"}]}, "'colour' was unexpected"),
        ({"data": [{"name": "a/b", "path": "a.h5ad"}]}, "'a/b' does not match"),
        ({"losses": ["mae"]}, "'mae' is not one of"),
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


def test_settings_are_the_flags_of_fit() -> None:
    elsewhere = {"loss", "cut", "seed", "split_seed", "nodes"}  # the grid; and a job has one node
    flags = {parameter.name: parameter.opts[0].removeprefix("--") for parameter in fit.params}
    expected = {flags[name] for name in Settings.__dataclass_fields__ if name not in elsewhere}
    assert set(schema()["properties"]["settings"]["properties"]) == expected
    assert schema()["properties"]["losses"]["items"]["enum"] == [*LOSS_NAMES, *NEGATIVE_NAMES]


def test_the_configuration_explains_every_key_and_its_default() -> None:
    text = (WORKFLOW / "config" / "config.yaml").read_text(encoding="utf-8")
    assert set(yaml.safe_load(text)) == set(schema()["properties"])
    explained = dict(re.findall(r"^  (?:# )?(?:- )?([a-z-]+): (\S+) +# .+$", text, re.MULTILINE))
    explained |= dict(re.findall(r"^    (?:# )?([a-z-]+): (\S+) +# .+$", text, re.MULTILINE))
    assert set(schema()["properties"]["settings"]["properties"]) | set(
        schema()["properties"]["data"]["items"]["properties"]
    ) == set(explained)
    fields = {parameter.opts[0].removeprefix("--"): parameter.name for parameter in fit.params}
    for name in schema()["properties"]["settings"]["properties"]:
        default = getattr(Settings(), str(fields[name]))
        assert yaml.safe_load(explained[name]) == (int(default) if name == "precision" else default), name
