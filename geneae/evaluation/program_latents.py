"""Latents of other programs, made from one half of the molecules: labels, batches, depth, and the other half.

A latent of each profile's given half is judged on held-out profiles, next to controls of the same half. Where a program
has embedded the held-out halves, too, its neighbours should be the same from either half.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from geneae.evaluation.agreement import MOST_PROFILES, Agreement, other_half_rank
from geneae.evaluation.batches import batched, judge_batches
from geneae.evaluation.judge import JudgingData
from geneae.evaluation.labels import judge_latents, labelled
from geneae.evaluation.latents import Representation
from geneae.evaluation.records import COLUMNS
from geneae.evaluation.regression import Regression
from geneae.losses.shared_neighbours import shared_neighbours
from geneae.training.choice import NEIGHBOURS

SPLITS = ("validation", "test")


def judge_representations(
    data: JudgingData, given: Mapping[str, Representation], held_out: Mapping[str, np.ndarray], is_known: np.ndarray
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Judge latents of given halves, and what they have in common with latents of held-out halves.

    Parameters
    ----------
    data
        Settings with `label` and `batch_key`, annotation, split, and the given halves.
    given
        (n_profiles, n) latents of the given halves by model; rows of excluded profiles are not read.
    held_out
        (n_profiles, n) latents of the held-out halves of validation and test profiles, by model; others are not read.
    is_known
        (n_profiles,) whether both halves have enough molecules to be compared.

    Returns
    -------
    A table by model and profile, and rows of the long table: k-NN accuracy, linear probe, ARI and NMI with a label;
    iLISI, kBET and BRAS with a batch; `depth_r2`; `shared_neighbours` and `other_half_rank` with both halves.
    """
    seed, names = data.settings.seed, data.obs.index
    tables = [pd.DataFrame({"model": [], "profile": [], "split": []})]
    metrics = [pd.DataFrame(_depth(data, given), columns=COLUMNS)]
    if data.settings.label is not None:
        known = labelled(data, data.settings.label)
        rows = names.get_indexer(known.names)
        table, long = judge_latents(known, {name: values[rows] for name, values in given.items()}, seed)
        tables.append(table)
        metrics.append(long)
    if data.settings.batch_key is not None:
        of_batches = batched(data, data.settings.batch_key)
        metrics.append(judge_batches(of_batches, {name: v[of_batches.rows] for name, v in given.items()}, seed))
    rng = np.random.default_rng(seed)
    by_halves, long_rows = [], []
    for split in SPLITS:
        rows = np.flatnonzero((data.split == split).to_numpy() & is_known)
        if len(rows) > MOST_PROFILES:
            rows = np.sort(rng.choice(rows, MOST_PROFILES, replace=False))
        for name, other in held_out.items():
            if len(rows) < 2:
                continue
            first = np.asarray(given[name])[rows]
            found = {
                "shared_neighbours": shared_neighbours(
                    torch.from_numpy(first), torch.from_numpy(other[rows]), NEIGHBOURS
                ).numpy(),
                "other_half_rank": other_half_rank(first, other[rows]),
            }
            by_halves.append(pd.DataFrame({"model": name, "profile": names[rows], "split": split, **found}))
            long_rows += [
                Agreement.row(name, seed, split, metric, float(values.mean()), len(rows))
                for metric, values in found.items()
            ]
    metrics.append(pd.DataFrame(long_rows, columns=COLUMNS))
    by_profile = pd.concat(tables, ignore_index=True)
    if by_halves:
        keys = ["model", "profile", "split"]
        by_profile = by_profile.merge(pd.concat(by_halves, ignore_index=True), "outer", keys)
    return by_profile, pd.concat([one for one in metrics if len(one)], ignore_index=True)


def _depth(
    data: JudgingData, given: Mapping[str, Representation]
) -> list[tuple[str, int, str, str, str, float, int, str]]:
    """Rows of the share of the variance of log molecules that a latent explains."""
    logs = np.log(np.maximum(data.expression.totals, 1.0))
    train = np.flatnonzero(data.split == "train")
    found = []
    for name, values in given.items():
        if isinstance(values, sparse.csr_matrix):  # the input itself holds its depth
            continue
        fitted = Regression(values[train], logs[train])
        for split in SPLITS:
            rows = np.flatnonzero(data.split == split)
            if len(rows) > 1:
                r2 = fitted.r2(values[rows], logs[rows])
                found.append(Agreement.row(name, data.settings.seed, split, "depth_r2", r2, len(rows)))
    return found
