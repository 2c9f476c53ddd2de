"""Models to share: the model card, and the zip in which a model is shared."""

import json
import math
import re
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from geneae.evaluation.records import judged_split
from geneae.evaluation.table import short_table
from geneae.folders.archive import pack
from geneae.folders.contents import FolderContents
from geneae.folders.manifest import SHAREABLE
from geneae.folders.model import load_model
from geneae.folders.outputs import new_file
from geneae.models.model import Model
from geneae.models.query_depth import SHALLOWEST
from geneae.settings.errors import InputError
from geneae.settings.text import counted, escaped

FILE = "README.md"
NO_LICENCE = "not stated: ask whoever gave it to you"


def share_model(folder: Path, path: Path, licence: str | None = None, overwrite: bool = False) -> list[str]:
    """Pack a model folder into a zip with checksums, if it can be loaded, and return the names of all files in the zip.

    Tables of profiles, the split and the report are included where they exist; these name profiles.
    `latents.h5ad` stays out: it holds all columns of `obs`, which may tell who the profiles are of.
    """
    if path.suffix != ".zip":
        raise InputError(f"the output must end in .zip; found '{path.name}'.")
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder. Give the folder that geneae fit has written.")
    model, metrics = load_model(folder), folder / "metrics.csv"
    FolderContents(folder).check(SHAREABLE)
    table = pd.read_csv(metrics) if metrics.is_file() else None
    with new_file(path, overwrite) as partial:
        return pack(folder, partial, {FILE: model_card(model, table, licence).encode("utf-8")})


def model_card(model: Model, metrics: pd.DataFrame | None, licence: str | None = None) -> str:
    """Model card in Markdown: data, settings, scores next to baselines and ceiling, and how to load the model.

    Parameters
    ----------
    model
        The fitted model.
    metrics
        `metrics.csv` of its fit, if available.
    licence
        Licence under which the model is shared.
    """
    config = model.config
    settings, data, genes = config["settings"], config["data"], model.preprocess.genes
    latent = f"{counted(model.n_latent, 'latent')}, basis {settings['basis']}, target {config['target']}, "
    latent += f"seed {config['seed']}"
    facts = {
        "Licence": _plain(licence or NO_LICENCE),
        "Data": f"{_plain(PurePath(str(data['source'])).name)}, {_plain(data['location'])}: "
        f"{counted(data['n_profiles'], 'profile')} x {counted(data['n_genes'], 'gene')}, "
        f"{_plain(data['state'])}{_evidence(data)}",
        "Data fingerprint": f"`{_plain(data['fingerprint'])}` (SHA-256 of names and values)",
        "Space": f"{_plain(model.preprocess.space)}",
        "Genes": f"{len(genes):,}, matched by name: {', '.join(_plain(gene) for gene in genes[:5])}, ... (`genes.csv`)",
        "Loss": f"{_plain(settings['loss'])}, centring {_plain(config['center'])}{_under(config.get('metric'))}",
        "Network": _plain(latent),
        "Made with": f"geneae {_plain(config['versions']['geneae'])}",
    }
    lines = [
        "---",
        f"license: {json.dumps(escaped(licence or 'unknown'), ensure_ascii=False)}",
        "library_name: geneae",
        "---",
        "",
    ]
    lines += ["# An autoencoder of gene-expression profiles", ""]
    lines += ["| | |", "|---|---|", *(f"| {name} | {fact} |" for name, fact in facts.items()), ""]
    lines += ["## How good the reconstruction is", "", *_results(metrics), ""]
    lines += _limits(model)
    return "\n".join([*lines, *LOADING]) + "\n"


OWN_COUNTS = [
    "- It reads a profile's own count of each gene as well as its latent. The two halves of a profile, on which it was "
    "trained and judged, share technical clumping (duplicates, ambient molecules, index swaps), so that they cannot "
    "tell it from real variation of a single gene. What is decoded from the latent alone (`model_latent_only` in "
    "`metrics.csv`) uses no own counts and is free of it, unless it moves many genes together.",
]
"""What own counts cannot tell."""
LOADING = """## How to load it

```python
from geneae import Autoencoder

model = Autoencoder.load("MODEL")  # this folder, or the zip that it came in
latents = model.transform("data.h5ad")
```

or `geneae embed MODEL data.h5ad -o latent.h5ad`. Loading runs no code from this folder: it holds JSON, CSV and
safetensors. To repeat the fit: `geneae fit DATA --config settings.toml`.""".splitlines()


def _limits(model: Model) -> list[str]:
    """Lines on what a model with an estimator can tell, and what it holds; none for other models."""
    if model.estimator is None:
        return []
    n_molecules, n_reference = 2 * math.exp(model.estimator.scale.mean), len(model.estimator.neighbours.reference)
    own_counts = OWN_COUNTS if "own_counts" in model.estimator.kept else []
    used = ", from which it finds neighbours" if "neighbours" in model.estimator.kept else ""
    return [
        "## What it can and cannot tell",
        "",
        *own_counts,
        f"- It was trained for profiles with about {n_molecules:,.0f} molecules (the geometric mean of its training "
        f"profiles), down to 1/{SHALLOWEST:g} of that. Deeper profiles are read like training profiles, shallower ones "
        "like those at the lower end. Shallow profiles were made by thinning at random; real ones may differ in more.",
        f"- This folder holds scores of {n_reference:,} training profiles{used}. They have "
        "no names and are not counts, but a smoothed version of each of these profiles can be computed from them.",
        "",
    ]


def _plain(text: Any) -> str:
    """Text without markup, line breaks and control characters, which cannot break out of its table cell."""
    return escaped(re.sub(r"[|<>`\[\]\s]+", " ", str(text)).strip())


def _evidence(data: dict[str, Any]) -> str:
    """How the values come from counts, as far as they tell it, as text of a table cell; empty for exact counts."""
    evidence = data.get("evidence")
    return f" ({_plain(evidence)})" if evidence else ""


def _under(metric: dict[str, Any] | None) -> str:
    """The learned metric of a loss, as text of a table cell; empty without one."""
    return "" if metric is None else f", under the learned metric `{_plain(metric['fingerprint'])}`"


def _results(metrics: pd.DataFrame | None) -> list[str]:
    """Lines with the means of model, baselines and ceiling over test profiles, or validation if there are none."""
    if metrics is None or not len(metrics):
        return ["This folder holds no metrics. Evaluate the model: `geneae evaluate MODEL data.h5ad -o evaluation`."]
    split = judged_split(metrics["split"])
    n_profiles = int(metrics.loc[metrics["split"] == split, "n_profiles"].max())
    headings, *rows = short_table(metrics, [split])
    chose = "not used for any choice" if split == "test" else "used to choose the epoch"
    return [
        f"Means over {n_profiles:,} {split} profiles, {chose}; ↑ higher is better, ↓ lower is better.",
        "",
        f"|{' | '.join(headings)} |",
        "|---" * len(headings) + "|",
        *(f"| {' | '.join(cells)} |" for cells in rows),
    ]
