"""Other tables of the report: differences, diagnostics, permuted controls, worst profiles, genes."""

import numpy as np
import pandas as pd

from geneae.data.permuted import NULLS
from geneae.evaluation.comparison import NONE
from geneae.evaluation.diagnostics import null_table
from geneae.evaluation.labels import ACCURACIES
from geneae.evaluation.records import HELD_OUT, WITHOUT_COUNTS
from geneae.evaluation.table import MODEL_FACTS, title_of
from geneae.folders.run import Run
from geneae.pl.values import by_gene, by_profile, main_metric
from geneae.report.across_runs import (
    by_configuration,
    color_name,
    directions,
    genes_by_configuration,
    profiles_of,
    repeat_of,
)
from geneae.report.cells import (
    KEPT,
    Cell,
    Table,
    count_cell,
    mean_cell,
    metric_header,
    number_cell,
    show_difference,
    show_range,
)
from geneae.settings.text import counted

PAIRED_METRICS = (HELD_OUT, WITHOUT_COUNTS, "cosine", "rescaled_mse", "mse", ACCURACIES[0])
N_WORST = 20  # worst profiles listed
N_GENES = 10  # genes listed at either end
MOST_COLUMNS = 3  # of configurations, beside those that say what a row is
OF_GENES = (
    "Among the half of the genes with higher mean expression. Of counts, a gene in one half of the molecules against "
    "its prediction from the other half: a gene without any signal has 0."
)
"""Note on the tables of genes."""


def paired_tables(paired: pd.DataFrame, repeat: str = "seed") -> list[Table]:
    """Tables of paired differences: first the main metrics, then the others; `repeat` as `repeat_of` says."""
    is_main = paired["metric"].isin(PAIRED_METRICS)
    return [_paired_table(table, repeat) for table in (paired[is_main], paired[~is_main]) if len(table)]


def _paired_table(paired: pd.DataFrame, repeat: str) -> Table:
    """Table with a row for each metric and configuration."""
    order = [*PAIRED_METRICS, *(str(metric) for metric in paired["metric"].unique() if metric not in PAIRED_METRICS)]
    n_profiles, n_seeds = (sorted({int(size) for size in paired[name]}) for name in ("n_profiles", "n_seeds"))
    has_sizes = len(n_profiles) > 1 or len(n_seeds) > 1  # otherwise the caption has room for them, a phone has not
    rows = []
    for row in sorted(paired.to_dict("records"), key=lambda row: order.index(str(row["metric"]))):
        difference, low, high, p = (float(row[name]) for name in ("difference", "low", "high", "p_holm"))
        verdict = "no difference" if row["verdict"] == NONE else str(row["verdict"])
        rows.append(
            [
                Cell(str(row["arm"])),
                Cell(metric_header(str(row["metric"]), str(row["better"]))),
                number_cell(difference, show_difference(difference)),
                Cell(
                    f"{show_difference(low)}{KEPT}to {show_difference(high)}",
                    repr(low) if np.isfinite(low) else "",
                    "number",
                ),
                number_cell(p, f"<{KEPT}0.0001" if p < 1e-4 else f"{p:.4f}"),
                Cell(verdict, kind=verdict if verdict in ("better", "worse") else ""),
                *([count_cell(row["n_profiles"]), count_cell(row["n_seeds"])] if has_sizes else []),
            ]
        )
    reference = ", ".join(dict.fromkeys(map(str, paired["reference"])))
    split = ", ".join(dict.fromkeys(map(str, paired["split"])))
    headers = ("configuration", "metric", "difference", "95 % interval", "p (Holm)", "verdict")
    words = profiles_of(split, n_profiles[-1])
    if not has_sizes:
        words = f"{n_profiles[0]:,} {words}" + (f" and {n_seeds[0]:,} {repeat}s" if n_seeds[0] > 1 else "")
    return Table(
        f"Difference of each configuration from {reference}, {words}",
        (*headers, "profiles", f"{repeat}s") if has_sizes else headers,
        rows,
        f"Differences are paired by profile and {repeat}. The bootstrap interval covers variation over both profiles "
        f"and {repeat}s and is not corrected for multiple comparisons. p values are corrected for the number of "
        "comparisons in all metrics (Holm 1979); the verdict follows from them. No difference means none that these "
        "data can show, or one below the last digit of a table. Errors of a loss that leaves the length of "
        "reconstructions free are compared only after rescaling, because before that they mainly reflect the length.",
    )


DIAGNOSTICS = {
    "gain_over_mean_profile_held_out": "gain over the mean profile in held-out cosine",
    "diversity": "how much reconstructions differ, as a share of those of (shrunken) PCA",
    "effective_rank": "directions that the latent fills",
    "used_latents": "latents that the reconstruction uses",
    "norm_ratio": "length of reconstructions, as a share of that of profiles",
    "own_profile_rank": "place of a profile among all by cosine with its reconstruction, from 0 (first) to 1",
    "latent_spread": "how far apart latents point",
    "opposite_halves": "share of profiles whose two views point in opposite directions",
    "distance_of_gene_means": "distance of gene means from those of the given half, relative",
    "level": "sum of gene means, as a share of that of the given half",
    "negative_values": "share of negative values",
    "nan_values": "share of NaN and infinite values",
}
"""Diagnostics in words, where their names do not tell."""
GAIN = "gain_over_"


def _diagnostic_title(name: str) -> str:
    """A diagnostic in words."""
    rival = MODEL_FACTS.get(name.removeprefix(GAIN))
    plain = name.replace("_", " ") if rival is None else f"gain over {rival.title}"
    return DIAGNOSTICS.get(name, plain)


def diagnostics_of(runs: list[Run]) -> tuple[list[tuple[str, str]], Table] | None:
    """Messages of the diagnostics that fire, each with its configurations; and a table of all diagnostics.

    None if no run has diagnostics.
    """
    tables = [run.diagnostics.assign(arm=run.configuration) for run in runs if run.diagnostics is not None]
    if not tables:
        return None
    said: dict[str, list[str]] = {}
    rows = []
    for (arm, name), found in pd.concat(tables).groupby(["arm", "name"], sort=False):
        fires = found["fires"]
        often = f"in {fires.sum()} of {counted(len(found), 'run')}" if len(runs) > 1 else "yes"
        if fires.any():
            message = str(found.loc[fires, "message"].iloc[0])
            said.setdefault(message, []).append(str(arm) if fires.all() else f"{arm} ({often})")
        shown = (_diagnostic_title(str(name)), str(found["limit"].iloc[0]), often if fires.any() else "no")
        rows.append([Cell(str(arm)), Cell(shown[0]), mean_cell(list(found["value"])), *map(Cell, shown[1:])])
    spread = ": means ± standard deviation over seeds" if len(runs) > len(by_configuration(runs)) else ""
    table = Table(f"All diagnostics{spread}", ("configuration", "diagnostic", "value", "should be", "warns"), rows)
    every = list(by_configuration(runs))
    fired = {message: "every configuration" if arms == every else ", ".join(arms) for message, arms in said.items()}
    return list(fired.items()), table


def nulls_of(runs: list[Run], split: str) -> Table | None:
    """Table of each fit next to its permuted controls; None if there are none."""
    rows: list[list[Cell]] = []
    headers: list[str] = []
    better = directions(runs)
    for run in runs:
        table = pd.DataFrame() if run.diagnostics is None else null_table(run.metrics, run.diagnostics, split)
        headers = headers or [metric_header(str(name), better[str(name)]) for name in table.columns]
        for title, *numbers in table.itertuples():
            name = title if len(runs) == 1 else f"{run.name}, {title}"
            rows.append([Cell(name, kind="" if title in NULLS.values() else "arm"), *map(number_cell, numbers)])
    if not rows:
        return None
    sizes = [run.metrics.loc[run.metrics["split"] == split, "n_profiles"].max() for run in runs]
    n_profiles = show_range(int(min(sizes)), int(max(sizes)))
    return Table(
        f"The same training where there is nothing to learn: means over {n_profiles} {profiles_of(split)}",
        ("fit", *headers),
        rows,
        "Genes permuted: each profile keeps its values, but at random genes, so that profiles share nothing but their "
        "depth. Targets permuted: the model must predict another profile. Any gain over the mean profile that remains "
        "there needs no signal; a fit that does not gain more has learned nothing.",
    )


def worst_profiles(runs: list[Run], split: str) -> Table | None:
    """Table of the twenty profiles of lowest cosine, by mean over configurations and seeds; None for encoders alone."""
    arms = by_configuration(run for run in runs if not run.is_encoder)
    if not arms:  # no run has reconstructions
        return None
    profiles = {arm: by_profile(pd.concat([run.profiles for run in several]), split) for arm, several in arms.items()}
    metric = main_metric({arm: table.reset_index() for arm, table in profiles.items()})
    values = pd.DataFrame({arm: table[metric] for arm, table in profiles.items()})
    order = values.mean(axis=1).dropna().sort_values(kind="stable").index[:N_WORST]
    first, shown = _with_clusters(next(iter(profiles.values())).reindex(order), runs), _few_columns(values)
    extra = [name for name in ("label", "cluster", "molecules") if name in first]
    rows = []
    for name in order:
        row = [Cell(str(name))]
        row += [Cell(str(first.loc[name, kind])) for kind in extra if kind != "molecules"]
        if "molecules" in extra:
            row.append(count_cell(float(first["molecules"][name])))
        rows.append([*row, *map(number_cell, shown.loc[name])])
    headers = {"label": color_name(runs), "cluster": "cluster in the UMAP", "molecules": "molecules"}
    columns = list(shown) if len(arms) > 1 else [metric_header(metric, directions(runs)[metric])]
    mean = f" (mean over configurations and {repeat_of(runs)}s)" if len(runs) > 1 else ""
    return Table(
        f"The {counted(len(rows), profiles_of(split, 1))} of lowest {title_of(metric)}{mean}",
        ("profile", *(headers[name] for name in extra), *columns),
        rows,
    )


def _few_columns(values: pd.DataFrame) -> pd.DataFrame:
    """A column for each configuration, or, of so many that a phone could not show them, their mean and extremes."""
    if values.shape[1] <= MOST_COLUMNS:
        return values
    ends = {"mean": values.mean(axis=1), "lowest": values.min(axis=1), "highest": values.max(axis=1)}
    return pd.DataFrame(ends, index=values.index)


def _with_clusters(profiles: pd.DataFrame, runs: list[Run]) -> pd.DataFrame:
    """Profiles with their cluster in the UMAP of the first run that has one, where they have no label."""
    umap = next((run.umap for run in runs if run.umap is not None and "cluster" in run.umap), None)
    if "label" in profiles or umap is None:
        return profiles
    found = umap.set_index("profile")["cluster"].reindex(profiles.index)
    return profiles.assign(cluster=found.fillna("–"))


def genes_of(runs: list[Run], split: str) -> list[Table]:
    """Tables of the genes of highest and of lowest correlation, among the half of genes with higher mean expression."""
    genes = {arm: by_gene(table) for arm, table in genes_by_configuration(runs).items()}
    if not genes:
        return []
    values = pd.DataFrame({arm: table["correlation"] for arm, table in genes.items()})
    means = pd.DataFrame({arm: table["mean"] for arm, table in genes.items()}).mean(axis=1)
    order = values.mean(axis=1)[means >= means.median()].dropna().sort_values(ascending=False, kind="stable").index
    number = min(N_GENES, len(order) // 2)  # a gene stands in one of them only
    shown = _few_columns(values)
    columns = list(shown) if len(genes) > 1 else ["correlation ↑"]
    numbers = [means, *(shown[name] for name in shown)]

    def row(gene: str) -> list[Cell]:
        return [Cell(str(gene)), *(number_cell(float(column.loc[gene])) for column in numbers)]

    return [
        Table(
            f"Genes of {which} correlation with their reconstruction, {profiles_of(split)}",
            ("gene", "mean expression", *columns),
            [row(gene) for gene in named],
        )
        for which, named in (("highest", order[: max(number, 1)]), ("lowest", order[len(order) - number :][::-1]))
        if len(named)
    ]
