# The configuration, checked, and the functions that read it.
import itertools
import shlex

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

try:
    validate(config, schema="../schemas/config.schema.yaml")
except WorkflowError as error:
    # The whole schema follows the message of snakemake; what is wrong, where, and what may stand there is enough.
    wrong = error.__context__
    known = ", ".join(wrong.schema.get("properties", {}))
    raise WorkflowError(
        f"configuration, {wrong.json_path}: {wrong.message}." + (f" Known keys: {known}." if known else "")
    ) from None

DATA = {data["name"]: data for data in config["data"]}
if len(DATA) < len(config["data"]):
    names = ", ".join(data["name"] for data in config["data"])
    raise WorkflowError(f"data: names must differ; found {names}. Rename one of the data sets.")


wildcard_constraints:
    data=r"[\w-]+",
    run=r"[^/]+",
    loss=r"[a-z-]+",
    cut=r"[0-9.e+-]+",
    seed=r"\d+",


def run_names():
    """Names of the run folders of a data set; the first arm, which the others are compared with, comes first."""
    grid = itertools.product(config["losses"], config["cuts"], config["seeds"])
    return [f"{loss}_cut{cut}_seed{seed}" for loss, cut, seed in grid]


def runs_of(data):
    """Run folders of a data set."""
    return [f"results/{data}/runs/{name}" for name in run_names()]


def evaluations_of(data):
    """Folders with the evaluation of each run of a data set."""
    return [f"results/{data}/evaluations/{name}" for name in run_names()]


def flags(options):
    """Flags of a command: `{"epochs": 5, "scale": True, "layer": None}` becomes `--epochs 5 --scale`."""
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    return shlex.join(
        word for name, value in given.items() for word in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
    )


def matrix_of(data):
    """Which matrix of a data set to read."""
    return {name: DATA[data].get(name) for name in ("layer", "raw")}


def fit_flags(wildcards):
    """Flags of a fit. All runs of a data set share the split."""
    return flags(
        {
            "loss": wildcards.loss,
            "cut": wildcards.cut,
            "seed": wildcards.seed,
            "split-seed": config.get("split-seed", 0),
            "color": DATA[wildcards.data].get("color"),
        }
        | matrix_of(wildcards.data)
        | config.get("settings", {})
    )


def evaluated_path(wildcards):
    """File whose profiles the runs of a data set are evaluated on: another one, or their own."""
    data = DATA[wildcards.data]
    return data.get("evaluate-on", data["path"])
