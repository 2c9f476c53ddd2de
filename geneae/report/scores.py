"""Table of results: configurations, baselines and the noise ceiling."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from geneae.evaluation.predictors import LATENT_ONLY
from geneae.evaluation.records import HELD_OUT, SAME
from geneae.evaluation.table import CEILING, MODEL_FACTS
from geneae.folders.run import Run
from geneae.report.across_runs import by_configuration, name_alone, of_config, profiles_of
from geneae.report.cells import Cell, Table, count_cell, mean_cell, metric_header, show_range
from geneae.settings.text import counted

OF_PROFILES = (HELD_OUT, "skill", "cosine", "mse", "rescaled_mse", "centred_cosine")
"""Metrics of reconstructions, the first ones in the first table."""
MOST_COLUMNS = 5  # of numbers in a table that fits every page


def in_parts(names: Sequence[str]) -> list[list[str]]:
    """Names of metrics in parts, each of which fits into a table."""
    return [list(names[begin : begin + MOST_COLUMNS]) for begin in range(0, len(names), MOST_COLUMNS)]


@dataclass(frozen=True)
class Scores:
    """Row of the table of results: a configuration, a baseline or the noise ceiling."""

    title: str
    """Name shown in the row."""
    kind: str
    """`arm`, `baseline` or `ceiling`."""
    means: dict[str, list[float]]
    """Means over profiles by metric, one for each run."""
    n_profiles: dict[str, list[int]]
    """Numbers of profiles by metric, one for each run."""
    n_runs: int
    """Number of seeds."""


def score_rows(runs: list[Run], split: str) -> list[Scores]:
    """Rows of configurations, baselines and the ceiling; equal baselines of several configurations are one row."""
    arms = by_configuration(runs)
    names = list(arms) if len(arms) > 1 else [name_alone(runs[0])]
    rows = [_scores(name, "arm", several, split, "model") for name, several in zip(names, arms.values(), strict=True)]
    merged: list[tuple[Scores, list[str]]] = []
    for arm, several in arms.items():
        for scores in _baselines(several, split):
            known = (beside for other, beside in merged if _is_same(scores, other))
            beside = next(known, None)
            if beside is None:
                merged.append((scores, [arm]))
            else:
                beside.append(arm)
    titles: set[str] = set()
    found = []
    for scores, beside in merged:
        again = scores.title in titles
        titles.add(scores.title)
        title = f"{scores.title} (for {', '.join(beside)})" if again else scores.title
        found.append(Scores(title, scores.kind, scores.means, scores.n_profiles, scores.n_runs))
    return [*rows, *sorted(found, key=lambda scores: scores.kind == "ceiling")]


def _is_same(one: Scores, other: Scores) -> bool:
    """Whether two rows are equal to the digits shown; repeated fits on a busy machine can differ in the last bits."""
    return (one.kind, one.title, one.n_profiles) == (other.kind, other.title, other.n_profiles) and all(
        np.allclose(values, other.means.get(metric, np.nan), rtol=SAME, atol=1e-6, equal_nan=True)
        for metric, values in one.means.items()
    )


def _baselines(runs: list[Run], split: str) -> list[Scores]:
    """Rows of the baselines of one configuration, from the strongest kind to the weakest, then of the ceiling.

    What a model with an estimator predicts from its latent alone stands first."""
    size = of_config(runs[0], "settings", "n_latent")
    sized = "" if size is None else f", size {size}"
    titles = {name: facts.title + sized * facts.is_sized for name, facts in MODEL_FACTS.items() if name != "model"}
    names = {name: titles[name] for name in (LATENT_ONLY,)}
    names |= {name: title for name, title in titles.items() if MODEL_FACTS[name].is_sized}
    known = set(runs[0].metrics["model"])
    sizes = [name for name in dict.fromkeys(runs[0].metrics["model"]) if re.fullmatch(r"pca_\d+", name)]
    names |= {
        name: f"PCA, size {name.removeprefix('pca_')}"
        for name in sorted(sizes, key=lambda name: -int(name.removeprefix("pca_")))
        if name != f"pca_{size}"
    }
    names |= {name: title for name, title in titles.items() if name not in names}
    names = {name: title for name, title in names.items() if not (name in sizes and _is_pca_again(runs, split, name))}
    names |= {name: name for name in dict.fromkeys(runs[0].metrics["model"]) if name not in (*names, "model", *sizes)}
    steps = {name for name, facts in MODEL_FACTS.items() if facts.is_step}
    found = [_scores(title, "baseline", runs, split, name) for name, title in names.items() if name in known - steps]
    ceiling = _scores(CEILING.title, "ceiling", runs, split, "model", "ceiling")
    return [scores for scores in [*found, ceiling] if scores.means]


def _is_pca_again(runs: list[Run], split: str, name: str) -> bool:
    """Whether a PCA of some size is the PCA that is a row already."""
    again = _scores("", "", runs, split, name)
    return bool(again.means) and again.means == _scores("", "", runs, split, "pca").means


def _scores(title: str, kind: str, runs: list[Run], split: str, model: str, metric: str | None = None) -> Scores:
    means: dict[str, list[float]] = {}
    sizes: dict[str, list[int]] = {}
    for run in runs:
        table = run.metrics
        rows = table[(table["split"] == split) & (table["model"] == model) & (table["statistic"] == "mean")]
        rows = rows[rows["metric"] == metric] if metric is not None else rows[rows["metric"] != "ceiling"]
        for name, value, size in zip(rows["metric"], rows["value"], rows["n_profiles"], strict=True):
            name = HELD_OUT if name == "ceiling" else str(name)
            means.setdefault(name, []).append(float(value))
            sizes.setdefault(name, []).append(int(size))
    return Scores(title, kind, means, sizes, len(runs))


def first_columns(rows: list[Scores], metrics: Sequence[str]) -> list[list[str]]:
    """Metrics of the first tables: those of reconstructions, then all others, as many as fit on a page."""
    present = [metric for metric in metrics if any(metric in scores.means for scores in rows)]
    of_profiles = [metric for metric in OF_PROFILES if metric in present]
    others = [metric for metric in present if metric not in OF_PROFILES]
    parts = [of_profiles[:MOST_COLUMNS], *in_parts(others)]
    return [part for part in parts if part]


def score_table(
    rows: list[Scores], split: str, metrics: Sequence[str], better: Mapping[str, str], repeat: str = "seed"
) -> Table:
    """Table of means over profiles and seeds ± standard deviation over seeds.

    Numbers of profiles and seeds are in the caption, or in headings and cells where they differ.

    Parameters
    ----------
    rows
        Result of `score_rows`.
    split
        Split to name in the caption.
    metrics
        Metrics to show, if any row has them.
    better
        Better direction by metric: `higher`, `lower` or empty.
    repeat
        What runs of one configuration differ in, see `repeat_of`.
    """
    shown = [metric for metric in metrics if any(metric in scores.means for scores in rows)]
    rows = [scores for scores in rows if any(metric in scores.means for metric in shown)]
    sizes = {metric: [size for scores in rows for size in scores.n_profiles.get(metric, [])] for metric in shown}
    by_metric = {metric: show_range(min(found), max(found)) for metric, found in sizes.items()}
    is_one_size, seeds = len(set(by_metric.values())) == 1, sorted({scores.n_runs for scores in rows})
    headers = ["model"]
    for metric in shown:
        headers.append(
            metric_header(metric, better[metric]) + ("" if is_one_size else f" of {by_metric[metric]} profiles")
        )
    if len(seeds) > 1:
        headers.append(f"{repeat}s")
    cells = []
    for scores in rows:
        row = [Cell(scores.title, kind=scores.kind), *(mean_cell(scores.means.get(metric, [])) for metric in shown)]
        cells.append([*row, count_cell(scores.n_runs)] if len(seeds) > 1 else row)
    n_profiles = f"{by_metric[shown[0]]} " if is_one_size else ""
    n_seeds = counted(seeds[0], repeat) if len(seeds) == 1 else f"{repeat}s"
    of_seeds = f" and {n_seeds} ± standard deviation over {repeat}s"
    words = profiles_of(split, max(sizes[shown[0]]) if is_one_size else 2)
    title = f"{split.capitalize()}: means over {n_profiles}{words}{of_seeds if max(seeds, default=1) > 1 else ''}"
    return Table(title, tuple(headers), cells)
