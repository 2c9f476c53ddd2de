"""Tables that the commands print at the end."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from geneae.evaluation.batches import OF_BATCHES
from geneae.evaluation.diagnostics import null_table
from geneae.evaluation.inspection import Inspection
from geneae.evaluation.judge import Judge
from geneae.evaluation.judges import JUDGES
from geneae.evaluation.labels import ACCURACIES, OF_CLUSTERS
from geneae.evaluation.programs import HALF_METRICS
from geneae.evaluation.records import HELD_OUT, WITHOUT_COUNTS, Evaluation, value
from geneae.evaluation.table import CEILING, SHOWN, fewer, header_of, short_table
from geneae.fitting.metric_comparison import WAYS
from geneae.settings.text import counted, escaped

EVALUATED = ("validation", "test")
JUDGED = (
    *(HELD_OUT, "skill", *HALF_METRICS, *ACCURACIES, *OF_CLUSTERS, *OF_BATCHES),
    *("shared_neighbours", "other_half_rank", "depth_r2"),
)
"""Metrics of the table of other programs."""
WIDEST = 10_000  # characters, so that tables in files and pipes are not wrapped


def metrics_table(evaluation: Evaluation, splits: tuple[str, ...] = EVALUATED) -> str:
    """Table of model and baselines x cosine, centred cosine, MSE and held-out cosine, with the mean of every split.

    Empty for an encoder without a reconstruction.
    """
    if "cosine" not in evaluation.profiles:
        return ""
    metrics = evaluation.metrics
    present = [split for split in splits if split in set(metrics["split"])]
    sizes = [int(metrics.loc[metrics["split"] == split, "n_profiles"].max()) for split in present]
    shown = [metric for metric in SHOWN if _is_there(evaluation, metric, present[-1])]
    rows = short_table(metrics, present, shown)
    named = " / ".join(f"{size:,} {split}" for size, split in zip(sizes, present, strict=True))
    head = f"Means over {named} profile{'s' * (sizes[-1] != 1)}; ↑ higher is better, ↓ lower is better"
    if any(fewer(metrics, present, name) for name in shown):
        head += "; in brackets: numbers of profiles, where fewer have a value"
    return "\n".join([head, *_aligned(rows)])


def latent_tables(
    evaluation: Evaluation, settings: Mapping[str, Any], splits: tuple[str, ...] = EVALUATED
) -> list[str]:
    """Table of latents and controls x metrics for each judge of latents that was asked for."""
    heads = {judge: judge.head(settings) for judge in JUDGES if judge.is_in(evaluation.metrics)}
    return [_latent_table(evaluation, judge, head, splits) for judge, head in heads.items() if head]


def judged_table(metrics: pd.DataFrame, split: str) -> str:
    """Table of programs, controls and the ceiling x metrics of held-out halves: means over the profiles of a split."""
    means = metrics[(metrics["split"] == split) & (metrics["statistic"] == "mean")]
    own = means[means["model"] == "model"].pivot_table("value", "arm", "metric", sort=False)
    shown = [name for name in JUDGED if name in own]
    order = own.sort_values(shown[0], ascending=False).index
    rows = [["", *map(header_of, shown)]]
    rows += [[str(arm), *(_four(own.loc[arm, name]) for name in shown)] for arm in order]
    if "ceiling" in own:
        rows.append([CEILING.title, *(f"{own['ceiling'].mean():.4f}" if name == HELD_OUT else "" for name in shown)])
    n_profiles = int(means["n_profiles"].max())
    head = f"Means over {n_profiles:,} {split} profiles; ↑ higher is better, ↓ lower is better"
    return "\n".join([head, *_aligned(rows)])


def _four(number: float) -> str:
    return "" if np.isnan(number) else f"{number:.4f}"


def _latent_table(evaluation: Evaluation, judge: Judge, head: str, splits: tuple[str, ...]) -> str:
    """Table with the mean of every split in each cell; `{sizes}` in `head` are filled in from the first metric."""
    metrics = evaluation.metrics
    known = set(metrics["metric"])
    columns = [name for name in judge.columns if name in known]
    judged = metrics[metrics["metric"] == columns[0]]
    present = [split for split in splits if split in set(judged["split"])]
    sizes = [f"{int(judged.loc[judged['split'] == split, 'n_profiles'].max()):,} {split}" for split in present]
    rows = [["", *map(header_of, columns)]]
    for model, facts in judge.models.items():
        cells = [[value(metrics, model, split, name) for split in present] for name in columns]
        rows.append([facts.title, *(" / ".join(f"{n:.4f}" for n in cell if not np.isnan(n)) for cell in cells)])
    return "\n".join([head.format(sizes=" / ".join(sizes)), *_aligned(rows)])


def null_lines(evaluation: Evaluation, diagnostics: pd.DataFrame, split: str) -> str:
    """Table of the fit next to the same fit where there is nothing to learn, for a fit with permuted controls."""
    table = null_table(evaluation.metrics, diagnostics, split)
    rows = [["", *map(header_of, table.columns)]]
    rows += [[title, *("" if np.isnan(mean) else f"{mean:.4f}" for mean in row)] for title, *row in table.itertuples()]
    metrics = evaluation.metrics
    judged = metrics[(metrics["split"] == split) & metrics["metric"].isin([HELD_OUT, WITHOUT_COUNTS])]
    n_profiles = int(judged.loc[judged["metric"] == table.columns[0], "n_profiles"].max())
    head = f"The same training where there is nothing to learn, means over {n_profiles:,} {split} profiles"
    return "\n".join([head, *_aligned(rows)])


def accuracy_table(table: pd.DataFrame) -> str:
    """Table of k-NN accuracy by metric, and of the gain of the learned metric over each of the others."""
    validation, test = (table[table["split"] == split] for split in EVALUATED)
    rows = [["", "accuracy ↑", "gain of the learned metric (95 % interval)"]]
    for way, first, last, gain, low, high in zip(
        *(validation[name] for name in ("metric", "accuracy")),
        *(test[name] for name in ("accuracy", "learned_minus", "low", "high")),
        strict=True,
    ):
        interval = "" if np.isnan(gain) else f"{gain:+.4f} ({low:+.4f} to {high:+.4f})"
        rows.append([WAYS[way], f"{first:.4f} / {last:.4f}", interval])
    sizes = " / ".join(f"{part['n_profiles'].iloc[0]:,} {part['split'].iloc[0]}" for part in (validation, test))
    head = f"k-NN accuracy with training profiles as neighbours, over {sizes} profiles; gains on test profiles"
    return "\n".join([head, *_aligned(rows)])


def _aligned(rows: list[list[str]]) -> list[str]:
    """Lines of a table, first column left-aligned, others right-aligned; never wrapped, and without colours."""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="left", no_wrap=True)
    for _ in rows[0][1:]:
        table.add_column(justify="right", no_wrap=True)
    for cells in rows:
        table.add_row(*(Text(escaped(cell)) for cell in cells))
    written = io.StringIO()
    Console(file=written, width=WIDEST, color_system=None).print(table)
    return [line.rstrip() for line in written.getvalue().splitlines()]


def inspection_table(inspection: Inspection) -> str:
    """Table of trivial cosines, PCA and ceilings: own input, own input after gene-centring, held-out half."""
    sizes = sorted(inspection.pca_cosine)

    def row(title: str, *numbers: float | None) -> list[str]:
        return [title, *("" if number is None else f"{number:.4f}" for number in numbers)]

    centred, held_out = inspection.centred, inspection.pca_heldout or {}
    rows = [
        ["cosine with", "own input", "gene-centred", "held-out half"],
        row("gene-permuted self", inspection.permuted_cosine, centred["permuted_cosine"], None),
        row("another profile", inspection.random_pair_cosine, centred["random_pair_cosine"], None),
        row(
            "mean profile",
            inspection.mean_profile_cosine,
            centred["mean_profile_cosine"],
            inspection.mean_profile_heldout,
        ),
        *(
            row(f"PCA-{size}", inspection.pca_cosine[size], centred["pca_cosine"][size], held_out.get(size))
            for size in sizes
        ),
        *(
            row(f"shrunken PCA-{size}", None, None, value)
            for size, value in sorted((inspection.shrunken_pca_heldout or {}).items())
        ),
    ]
    if inspection.ceiling_half is not None and inspection.ceiling_half_interval is not None:
        low, high = inspection.ceiling_half_interval
        rows.append(["noise ceiling", "", "", f"{inspection.ceiling_half:.4f}"])
        rows.append(row("  headroom above the mean profile", None, None, inspection.headroom))
        rows.append(row("  after gene-centring", None, None, inspection.ceiling_half_centred))
        rows.append(["  95 % interval over profiles", "", "", f"{low:.4f} to {high:.4f}"])
    if inspection.ceiling_full is not None:
        low, high = inspection.ceiling_full
        rows.append(["  of complete profiles, extrapolated", f"{low:.4f} to {high:.4f}", "", ""])
    if inspection.ceiling_counts is not None:
        rows.append(row("  of raw counts", inspection.ceiling_counts, None, None))
    if inspection.mean_profile_heldout is None:
        rows = [cells[:3] for cells in rows]
    lines = [
        f"Cosines: means over {counted(inspection.n_test, 'profile')} not used for any basis or mean",
        *_aligned(rows),
    ]
    reason = inspection.reasons.get("counts") or inspection.reasons.get("ceiling_half")
    if reason and inspection.mean_profile_heldout is not None and inspection.reasons.get("counts"):
        reason += f"; median {inspection.molecules_median:,.0f} per profile"
    return "\n".join(lines + ([f"Note: {reason.rstrip('.')}."] if reason else []))


def _is_there(evaluation: Evaluation, metric: str, split: str) -> bool:
    return not np.isnan(value(evaluation.metrics, "model", split, metric))
