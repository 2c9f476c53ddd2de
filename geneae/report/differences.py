"""Figures of paired differences between configurations, each with a caption and a text alternative."""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from geneae import pl
from geneae.evaluation.table import DRAWN, title_of
from geneae.pl.layout import rows_size
from geneae.pl.values import baseline_values, mean_of, paired_main_metric, shown_split
from geneae.report.across_runs import profiles_and_seeds
from geneae.report.cells import show_difference
from geneae.report.image import Picture, Sheet, draw_picture

RIVALS = ("shrunken_pca", "mean_profile")
"""Baselines that say how much a difference is."""


def paired_pictures(paired: pd.DataFrame, metrics: pd.DataFrame, repeat: str = "seed") -> list[Picture]:
    """Forest plots of differences from the first configuration in up to three main metrics.

    Parameters
    ----------
    paired
        `paired.csv` of a comparison.
    metrics
        `metrics.csv` of the runs with a column `arm`, for the baselines.
    repeat
        What runs of one configuration differ in, see `repeat_of`.
    """
    found = []
    split = shown_split({"": paired})
    for metric in (paired_main_metric(paired), "cosine", "rescaled_mse"):
        rows = paired[(paired["metric"] == metric) & (paired["split"] == split)]
        if rows.empty:
            continue
        said = "; ".join(f"{row['arm']} {with_interval(row)}, {row['verdict']}" for row in rows.to_dict("records"))
        sample = profiles_and_seeds(map(int, rows["n_profiles"]), map(int, rows["n_seeds"]), split, repeat)
        reference = str(rows["reference"].iloc[0])
        title = f"Difference in {title_of(metric)} from {reference}"
        own, lines = (
            mean_of(metrics, reference, "model", split, metric),
            baseline_values(metrics, [reference], split, metric),
        )
        rivals = {DRAWN[name].title: lines[name][0] - own for name in RIVALS if name in lines}
        beside = "".join(f" {name} {show_difference(difference)}." for name, difference in rivals.items())

        def draw(
            sheet: Sheet,
            metric: str = metric,
            size: tuple[float, float] = rows_size(len(rows)),
            rivals: dict[str, float] = rivals,
        ) -> Axes:
            return pl.paired_differences(paired, sheet.rows(size), metric=metric, split=split, rivals=rivals)

        caption = f"Mean over {sample}, with 95 % interval." + (
            " Above: how far baselines lie from the same configuration." if rivals else ""
        )
        found.append(draw_picture(title, caption, f"{title}: {said}.{beside}", draw))
    return found


def with_interval(row: Mapping[Hashable, Any]) -> str:
    low, high = (show_difference(row[end]) for end in ("low", "high"))
    return f"{show_difference(row['difference'])} ({low} to {high})"
