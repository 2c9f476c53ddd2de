"""How right transferred labels are, whether their probabilities hold, and what is refused, by data and depth.

    python workflows/benchmarks/transfer.py pbmc3k.h5ad=cell_type bladder.h5ad=cluster --seeds 5
    python workflows/benchmarks/transfer.py kang.h5ad=cell_type --by donor --by condition
    python workflows/benchmarks/transfer.py pbmc3k.h5ad=cell_type --hold-back B --hold-back NK --fit-on all

A model is fitted on the reference alone (`--fit-on all`: on the query, too, without labels). Reference and query are
random halves of the profiles, one split for each seed; with `--by`, each value of a column is the reference in turn and
all other profiles are the query. The query is thinned at random to 1, 1/4, 1/10 and 1/20 of its molecules, and its
depth is estimated. With `--hold-back`, profiles of a label are taken out of the reference: they should be refused.

Columns: share of profiles whose closest label is right, refused or not; the same for neighbours in 32 principal
components of the reference thinned to the depth of the query, a control that is made anew for each depth; share
refused; accuracy, balanced accuracy, mean probability and expected calibration error of the labels that are given.
Beside it the calibration errors of plain votes and of votes that were rehearsed at the full depth of the reference, and
what is refused at other settings of --refuse. A table of calibration follows.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch

from geneae.data.augment import thin_to
from geneae.data.labels import labels_in
from geneae.data.preprocess import Expression
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.evaluation.calibration import calibration_error, calibration_table
from geneae.evaluation.labels import nearest_labels
from geneae.evaluation.rehearsal import Reference, Rehearsal, labelled_reference, probabilities, rehearse
from geneae.evaluation.transfer import Transferred, balanced_accuracy, transfer
from geneae.fitting.fit import fit
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.pca import fit_basis
from geneae.models.query_depth import ratios_of
from geneae.settings.settings import Settings, TransferSettings

RATIOS = (1, 4, 10, 20)  # molecules of the query per molecule that is kept
REFUSE = (0.1, 0.05, 0.02, 0.01)
N_COMPONENTS = 32
SHOWN = ("closest_right", "pca_right", "refused", "accuracy", "balanced", "probability", "error", "error_of_votes")


def splits(profiles: Profiles, by: tuple[str, ...], seeds: int) -> Iterator[tuple[str, int, np.ndarray]]:
    """Name, seed, and which profiles are the reference."""
    for column in by:
        values = profiles.obs[column].astype(str).to_numpy()
        for value in np.unique(values):
            yield f"{column}={value}", 0, values == value
    for seed in range(0 if by else seeds):
        yield "random half", seed, np.random.default_rng(seed).random(profiles.n_profiles) < 0.5


def pca_right(reference: Reference, rehearsal: Rehearsal, query: Expression, truth: np.ndarray, seed: int) -> float:
    """Accuracy of neighbours in principal components of the reference at the depth of the query."""
    preprocess, rng = reference.model.preprocess, np.random.default_rng((seed, 1))
    known = reference.expression if rehearsal.share == 1 else thin_to(reference.expression, rehearsal.share, rng)
    matrix = preprocess.apply(known)
    basis = fit_basis([matrix], N_COMPONENTS, seed)
    scores = [basis.scores(sparse_rows(some)).numpy() for some in (matrix, preprocess.apply(query))]
    found = nearest_labels(scores[0], reference.codes, scores[1], rehearsal.settings.n_neighbors)
    return float((np.array(reference.labels)[found] == truth).mean())


def numbers(
    found: Transferred, names: pd.Index, truth: np.ndarray, latent: np.ndarray, held: str
) -> tuple[dict[str, Any], pd.DataFrame]:
    """A row of the table, and the table of calibration. Held-back profiles count where it is said alone."""
    rehearsal, is_held = found.rehearsals[0], truth == held
    is_known = ~is_held & (found.closest >= 0)
    given, is_right = ~found.is_refused & is_known, found.closest_labels == truth
    table = calibration_table(found.probability[given], is_right[given])
    as_deep = rehearse(found.reference, found.reference.ratio, found.settings)
    row = {
        "n_query": int(is_known.sum()),
        "closest_right": is_right[is_known].mean(),
        "refused": found.is_refused[is_known].mean(),
        "refused_held_back": found.is_refused[is_held].mean() if is_held.any() else np.nan,
        "accuracy": is_right[given].mean(),
        "balanced": balanced_accuracy(truth[given], found.closest_labels[given]),
        "probability": found.probability[given].mean(),
        "error": calibration_error(table),
        "exponent": rehearsal.exponent,
        "rehearsed_right": rehearsal.accuracy,
    }
    votes, _ = rehearsal.vote(latent[given])
    for name, probability in (("votes", votes), ("full_depth", probabilities(votes, as_deep.exponent))):
        row[f"error_of_{name}"] = calibration_error(calibration_table(probability.max(1), is_right[given]))
    is_trained = names.isin(found.reference.trained)
    for refuse in REFUSE:
        other = replace(rehearsal, settings=replace(found.settings, refuse=refuse))
        is_beyond = found.distance > np.where(is_trained, other.limit_of_trained, other.limit)
        row[f"refused_{refuse:g}"] = is_beyond[is_known].mean()
        row[f"held_{refuse:g}"] = is_beyond[is_held].mean() if is_held.any() else np.nan
    return row, table


def judge(
    profiles: Profiles, key: str, is_reference: np.ndarray, held: str, fit_on: str, settings: Settings
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Rows of one model and one reference, a row for each depth of the query."""
    labels = labels_in(profiles.obs, key).to_numpy()
    known = np.flatnonzero(is_reference & (labels != held))
    fitted = fit(profiles if fit_on == "all" else profiles.take(known), settings)
    model, trained = fitted.model, fitted.split.index[fitted.split == "train"]
    expression, _ = model.preprocess.match(profiles)
    of_reference = profiles.take(known)
    reference = labelled_reference(model, of_reference, expression.take(known), key, trained)
    rows = np.flatnonzero(~is_reference | (labels == held))
    rows = rows[~pd.isna(labels[rows])]
    for ratio in RATIOS:
        query = expression.take(rows)
        query = thin_to(query, 1 / ratio, np.random.default_rng((settings.seed, ratio))) if ratio > 1 else query
        depths = model.depths_of(query)
        latent = model.latent(query, ratios_of(depths, len(rows)))
        found = transfer(
            reference, profiles.names[rows], latent, depths, query.totals == 0, TransferSettings(seed=settings.seed)
        )
        row, table = numbers(found, profiles.names[rows], labels[rows], latent, held)
        is_known = labels[rows] != held
        row["pca_right"] = pca_right(
            reference, found.rehearsals[0], query.take(np.flatnonzero(is_known)), labels[rows][is_known], settings.seed
        )
        of = {"ratio": ratio, "estimated_ratio": depths[0].ratio, "n_reference": len(known)}
        yield of | row, table.assign(ratio=ratio)


@click.command(context_settings={"show_default": True})
@click.argument("data", nargs=-1, required=True, metavar="FILE=KEY...")
@click.option("--seeds", type=click.IntRange(1), default=3, help="Random halves, with seeds 0, 1, ...")
@click.option("--by", multiple=True, metavar="COLUMN", help="Column of obs whose values are the reference in turn.")
@click.option("--hold-back", multiple=True, metavar="LABEL", help="Label that the reference lacks, each in turn.")
@click.option("--fit-on", type=click.Choice(["reference", "all"]), default="reference", help="Profiles of the model.")
@click.option("--n-top-genes", default=2000, help="0: all genes.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the rows, and NAME_calibration.csv.")
def main(
    data: tuple[str, ...],
    seeds: int,
    by: tuple[str, ...],
    hold_back: tuple[str, ...],
    fit_on: str,
    n_top_genes: int,
    output: Path | None,
) -> None:
    """Transfer labels of obs column KEY of every FILE from a reference to a query at four depths."""
    torch.set_num_threads(1)
    rows, tables = [], []
    for one in data:
        path, _, key = one.rpartition("=")
        profiles = read_profiles(path)
        for name, seed, is_reference in splits(profiles, by, seeds):
            for held in hold_back or ("",):
                of = {"data": Path(path).stem, "reference": name, "held_back": held, "seed": seed}
                settings = Settings(seed=seed, n_top_genes=n_top_genes or None)
                for row, table in judge(profiles, key, is_reference, held, fit_on, settings):
                    rows.append(of | row)
                    tables.append(table.assign(**of))
                click.echo(f"{of}: done", err=True)
    found, calibration = pd.DataFrame(rows), pd.concat(tables, ignore_index=True)
    keys = ["data", "reference", "held_back"]
    shown = [*SHOWN, *(["refused_held_back"] if hold_back else [])]
    with pd.option_context("display.width", 200, "display.max_rows", None, "display.max_columns", None):
        click.echo(found.groupby([*keys, "ratio"])[shown].mean().round(3).to_string())
        numbers_of_refuse = [name for name in found if name.startswith(("refused_0", "held_0"))]
        click.echo("\nShare refused at other settings of --refuse, mean over all")
        click.echo(found.groupby("ratio")[numbers_of_refuse].mean().round(3).to_string())
        click.echo("\nCalibration errors, mean over all")
        click.echo(
            found.groupby("ratio")[["error", "error_of_full_depth", "error_of_votes"]].mean().round(4).to_string()
        )
        click.echo("\nCalibration of labels that are given, all together")
        weighted = calibration.assign(
            **{name: calibration[name] * calibration["n_profiles"] for name in ("probability", "right")}
        )
        sums = weighted.groupby(["ratio", "low"])[["n_profiles", "probability", "right"]].sum()
        means = sums[["probability", "right"]].div(sums["n_profiles"], axis=0).round(3)
        click.echo(means.assign(n_profiles=sums["n_profiles"]).to_string())
    if output:
        found.to_csv(output, index=False)
        calibration.to_csv(output.with_name(f"{output.stem}_calibration.csv"), index=False)


if __name__ == "__main__":
    main()
