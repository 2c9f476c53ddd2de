"""Evaluations of made-up numbers, and a made-up UMAP."""

import numpy as np
import pandas as pd

from geneae.evaluation.reconstruction import BY_PROFILE, summarize
from geneae.evaluation.records import HELD_OUT, Evaluation


def made_up(differences: dict[str, np.ndarray], metric: str = HELD_OUT) -> Evaluation:
    """An evaluation in which the model lies above each rival by the given numbers, profile by profile."""
    model = np.linspace(0.6, 0.8, len(next(iter(differences.values()))))
    names = [f"cell{i}" for i in range(len(model))]
    values = {"model": model} | {name: model - difference for name, difference in differences.items()}
    nothing = dict.fromkeys(BY_PROFILE, np.nan)
    tables = [
        pd.DataFrame({"model": name, "profile": names, "split": "test", **nothing, metric: numbers})
        for name, numbers in values.items()
    ]
    profiles = pd.concat(tables, ignore_index=True)
    of_halves = np.full(len(model), 0.81 if metric == HELD_OUT else np.nan)
    return Evaluation(profiles, summarize(profiles, of_halves, np.full(len(model), "test"), 0), {})


SPREAD = np.tile([-0.002, 0.002], 50)  # standard error 0.0002
FLAT = np.zeros(100)


def place_on_a_line(names: pd.Index, latent: np.ndarray, seed: int) -> pd.DataFrame:
    """In place of a UMAP, which compiles for seconds: all profiles, in two clusters."""
    rows = np.arange(len(names))
    clusters = (rows % 2).astype(str)
    return pd.DataFrame(
        {"row": rows, "profile": names, "umap_1": 1.0 * rows, "umap_2": 1.0 * rows, "cluster": clusters}
    )
