# The configuration, checked, and the functions that read it.
import itertools
import re
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


# Losses by their name in a path: cosine+0.1*softmax is cosine+0.1-softmax there.
LOSS = {re.sub(r"[^\w.+=-]+", "-", loss): loss for loss in config["losses"]}
if len(LOSS) < len(config["losses"]):
    raise WorkflowError(f"losses: names must differ; found {', '.join(config['losses'])}. Leave one of them out.")


wildcard_constraints:
    data=r"[\w-]+",
    run=r"[^/]+",
    loss=r"[\w.+-]+",
    cut=r"[0-9.e+-]+",
    seed=r"\d+",


def run_names():
    """Names of the run folders of a data set; the first arm, which the others are compared with, comes first."""
    grid = itertools.product(LOSS, config["cuts"], config["seeds"])
    return [f"{loss}_cut{cut}_seed{seed}" for loss, cut, seed in grid]


def settings_of(data):
    """Settings of the fits of a data set: those of all, and over them its own."""
    return config.get("settings", {}) | DATA[data].get("settings", {})


def reconstructs(data):
    """Whether the fits of a data set reconstruct; an encoder that learns from views alone has nothing to evaluate."""
    return "reconstruction" in settings_of(data).get("objective", "reconstruction").split("+")


def runs_of(data):
    """Run folders of a data set."""
    return [f"results/{data}/runs/{name}" for name in run_names()]


def evaluations_of(data):
    """Folders with the evaluation of each run of a data set; none of encoders."""
    return [f"results/{data}/evaluations/{name}" for name in run_names() if reconstructs(data)]


def flags(options):
    """Flags of a command: `{"epochs": 5, "scale": True, "layer": None}` becomes `--epochs 5 --scale`."""
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    return shlex.join(
        word for name, value in given.items() for word in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
    )


def reading_flags(data):
    """How the matrix of a data set is read. YAML takes yes and no for true and false; the flag wants the words."""
    stream = settings_of(data).get("stream")
    matrix = {name: DATA[data].get(name) for name in ("layer", "raw", "gene-names", "modality")}
    return matrix | {"stream": {True: "yes", False: "no"}.get(stream, stream)}


def fit_flags(wildcards):
    """Flags of a fit. All runs of a data set share the split."""
    return flags(
        {
            "loss": LOSS[wildcards.loss],
            "cut": wildcards.cut,
            "seed": wildcards.seed,
            "split-seed": config.get("split-seed", 0),
            "color": DATA[wildcards.data].get("color"),
        }
        | settings_of(wildcards.data)
        | reading_flags(wildcards.data)
    )


def evaluated_path(wildcards):
    """File whose profiles the runs of a data set are evaluated on: another one, or their own."""
    data = DATA[wildcards.data]
    return data.get("evaluate-on", data["path"])
