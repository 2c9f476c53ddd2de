"""Figures of the report, each with a caption and a text alternative."""

import numpy as np
import pandas as pd

from geneae import pl
from geneae.evaluation.depth import AT_RATIO
from geneae.evaluation.records import CLEAR, HELD_OUT, signed
from geneae.evaluation.steps import GAIN, GAIN_ERROR, LINEAR, STAGES, kept_steps
from geneae.evaluation.table import CEILING, DRAWN, title_of
from geneae.folders.run import Run
from geneae.pl.layout import label_size, panels_size, rows_size
from geneae.pl.style import DYNAMICS, MOST_LABELS
from geneae.pl.values import (
    baseline_values,
    by_gene,
    by_profile,
    label_differences,
    main_metric,
    mean_curve,
    mean_of,
)
from geneae.report.across_runs import (
    by_configuration,
    color_name,
    distinct,
    genes_by_configuration,
    of_config,
    profiles_and_seeds,
    profiles_of,
    repeat_of,
)
from geneae.report.cells import number
from geneae.report.differences import with_interval
from geneae.report.image import Picture, draw_picture
from geneae.settings.text import counted


def pictures_of(runs: list[Run], metrics: pd.DataFrame, split: str) -> list[Picture]:
    """All figures for which the runs have numbers."""
    by_views = by_configuration(run for run in runs if "view_cosine" in run.history)
    found = []
    if by_views:
        found.append(_encoder_picture({arm: [run.history for run in several] for arm, several in by_views.items()}))
    umaps = {
        arm: run.umap
        for arm, several in by_configuration(runs).items()
        for run in several[::-1]
        if run.umap is not None
    }
    runs = [run for run in runs if not run.is_encoder]
    arms = by_configuration(runs)
    profiles = {arm: pd.concat([run.profiles for run in several]) for arm, several in arms.items()}
    histories = {arm: [run.history for run in several] for arm, several in arms.items()}
    if runs:
        found += [
            _distribution_picture(profiles, metrics, split, repeat_of(runs)),
            *_estimator_pictures(runs, metrics, split),
        ]
    own = {arm: table for arm, table in profiles.items() if "cosine" in table}  # others were judged on halves alone
    if own:
        found += [_against_mse_picture(own, split), _parts_picture(own, metrics, split)]
    histories = {arm: several for arm, several in histories.items() if all(len(history) for history in several)}
    if histories:
        trained = [run for run in runs if len(run.history)]
        found += [
            _curves_picture(histories, _of_validation(trained)),
            _norm_picture(histories, _of_validation(trained)),
        ]
        if all(column in history for several in histories.values() for history in several for column in DYNAMICS):
            found.append(_dynamics_picture(histories, _of_validation(trained)))
    is_one_key = len(distinct(runs, "color")) < 2  # values of different columns do not fit into one legend
    if len(arms) > 1 and is_one_key and all("label" in table for table in profiles.values()):
        found.append(_labels_picture(profiles, split, color_name(runs)))
    genes = genes_by_configuration(runs)
    if genes:
        metric = "cosine" if all("cosine" in table for table in profiles.values()) else HELD_OUT
        found.append(_genes_picture(genes, _sample(profiles, split, metric, repeat_of(runs))))
    return found + _umap_pictures(umaps, color_name(runs) if is_one_key else "")


def _sample(profiles: dict[str, pd.DataFrame], split: str, metric: str, repeat: str = "seed") -> str:
    """Numbers of profiles and seeds with a value of the metric, as text."""
    by_arm = [table[table["split"] == split].dropna(subset=[metric]) for table in profiles.values()]
    seeds = [int(table["profile"].value_counts().max()) if len(table) else 0 for table in by_arm]
    return profiles_and_seeds([table["profile"].nunique() for table in by_arm], seeds, split, repeat)


def _of_validation(runs: list[Run]) -> str:
    """Numbers of validation profiles and seeds behind the histories, as text."""
    seeds = [len(several) for several in by_configuration(runs).values()]
    return profiles_and_seeds([run.split_sizes.get("validation", 0) for run in runs], seeds, "validation")


def _distribution_picture(profiles: dict[str, pd.DataFrame], metrics: pd.DataFrame, split: str, repeat: str) -> Picture:
    metric = main_metric(profiles)
    said = []
    for arm, table in profiles.items():
        values = by_profile(table, split)[metric].dropna()
        if len(values):
            low, median, high = values.quantile([0.05, 0.5, 0.95])
            said.append(f"{arm}: mean {values.mean():.4f}, median {median:.4f} ({low:.4f} to {high:.4f})")
    facts = DRAWN | {"ceiling": CEILING}
    lines = [
        f"{facts[name].title} {np.nanmean(values):.4f}"
        for name, values in baseline_values(metrics, list(profiles), split, metric).items()
    ]
    return draw_picture(
        f"Distribution of the {title_of(metric)}",
        f"{_sample(profiles, split, metric, repeat)}. The bar spans the 5th to the 95th percentile; the dot is the "
        "median, the white diamond the mean. Lines are means of the baselines: compare them with the diamond.",
        f"{title_of(metric)} with 5th to 95th percentiles. {'; '.join(said)}. Lines: {', '.join(lines) or 'none'}.",
        lambda sheet: pl.cosine_distribution(profiles, metrics, sheet.rows(rows_size(len(profiles))), split=split),
    )


def _estimator_pictures(runs: list[Run], metrics: pd.DataFrame, split: str) -> list[Picture]:
    """Figures of steps and of depth, of the configurations that have an estimator."""
    kept = {
        arm: kept_steps(steps)
        for arm, several in by_configuration(runs).items()
        if (steps := of_config(several[0], "steps"))
    }
    found = [_steps_picture(kept, metrics, split)] if kept else []
    if any((metrics["metric"] == metric).any() for metric in AT_RATIO.values() if metric != HELD_OUT) and kept:
        found.append(_depth_picture(list(kept), metrics, split))
    return found


def _steps_picture(kept: dict[str, list[str]], metrics: pd.DataFrame, split: str) -> Picture:
    said = []
    for arm, used in kept.items():
        steps = []
        for name, stage in STAGES.items():
            reached, gain, error = (
                mean_of(metrics, arm, stage.model, split, metric) for metric in (HELD_OUT, GAIN, GAIN_ERROR)
            )
            with_gain = f"{signed(gain)} ± {CLEAR * error:.4f}" if name in used else "left out"
            steps.append(f"{stage.title} {reached:.4f}" + (f" ({with_gain})" if name != LINEAR else ""))
        said.append(f"{arm}: {', '.join(steps)}")
    return draw_picture(
        "Step by step",
        f"Mean held-out cosine over {profiles_of(split)} as each step is added, from top to bottom, with 95 % "
        "intervals of the gain over the step before, paired by profile. A hollow dot is a step that was left out, "
        "because it was not tried or did not lower the loss of the validation profiles."
        + (" Of several seeds, the first one says which steps were left out." if len(kept) > 1 else ""),
        f"Held-out cosine step by step. {'; '.join(said)}.",
        lambda sheet: pl.cosine_by_step(metrics, kept, sheet.rows(rows_size(len(STAGES))), split=split),
    )


def _depth_picture(arms: list[str], metrics: pd.DataFrame, split: str) -> Picture:
    said = []
    for arm in arms:
        for model, title in (("model", arm), *((name, DRAWN[name].title) for name in ("shrunken_pca", "mean_profile"))):
            values = ", ".join(f"{mean_of(metrics, arm, model, split, metric):.4f}" for metric in AT_RATIO.values())
            said.append(f"{title} {values}")
    is_shown = metrics["metric"].isin(AT_RATIO.values()) & (metrics["split"] == split)
    least, most = metrics["n_profiles"][is_shown].astype(int).agg(["min", "max"])
    few = f" Points of thinned halves are over {least:,} of them, which keep enough molecules." if least < most else ""
    return draw_picture(
        "Fewer molecules",
        f"Mean held-out cosine over {profiles_and_seeds([most], [1], split)} from a half, or one thinned at random to "
        f"a share of all molecules, with the other half, untouched. The model is read at the depth of its input.{few}",
        f"Held-out cosine from {', '.join(f'1/{ratio}' for ratio in AT_RATIO)} of the molecules. {'; '.join(said)}.",
        lambda sheet: pl.cosine_by_depth(metrics, arms, sheet.rows(panels_size(1, len(arms) + 2)), split=split),
    )


def _against_mse_picture(profiles: dict[str, pd.DataFrame], split: str) -> Picture:
    tables = {arm: by_profile(table, split) for arm, table in profiles.items()}
    said = [
        f"{arm}: {counted(len(table), 'profile')}, rank correlation of cosine and MSE {_rank_correlation(table):.2f}"
        for arm, table in tables.items()
    ]
    coloured = all("molecules" in table for table in tables.values())
    caption = (
        f"{_sample(profiles, split, 'cosine')}. Each dot is a profile, with cosine and MSE of its own reconstruction."
    )
    if coloured:
        caption += " Colour is the number of molecules: profiles with few molecules are noisier and score lower."
    return draw_picture(
        "Cosine against MSE",
        caption,
        f"Cosine against MSE, a dot for each of the {profiles_of(split)}. {'; '.join(said)}.",
        lambda sheet: pl.cosine_against_mse(profiles, sheet.panels(len(profiles)), split=split),
    )


def _rank_correlation(table: pd.DataFrame) -> float:
    """Spearman correlation of MSE and cosine; NaN if one of them does not vary."""
    ranks = table[["mse", "cosine"]].dropna().rank()
    if len(ranks) < 2 or (ranks.std() == 0).any():
        return float("nan")
    return float(np.corrcoef(ranks["mse"], ranks["cosine"])[0, 1])


def _parts_picture(profiles: dict[str, pd.DataFrame], metrics: pd.DataFrame, split: str) -> Picture:
    said = []
    for arm, table in profiles.items():
        means = by_profile(table, split)[["direction_error", "magnitude_error"]].mean()
        direction, magnitude = (number(float(value)) for value in means)
        said.append(f"{arm}: direction {direction}, magnitude {magnitude}")
    n_baselines = len(baseline_values(metrics, list(profiles)[:1], split, "direction_error"))
    size = rows_size(len(profiles) + n_baselines)
    return draw_picture(
        "Parts of the error",
        f"Mean over {_sample(profiles, split, 'mse')}. MSE is the sum of two parts: the error of the direction of a "
        "reconstruction, and that of its length. A cosine loss sees the first part only."
        + (" Baselines are those of the first configuration." if n_baselines and len(profiles) > 1 else ""),
        f"Mean over {profiles_of(split)} of the two parts of the MSE. {'; '.join(said)}.",
        lambda sheet: pl.error_parts(profiles, metrics, sheet.rows(size), split=split),
    )


def _curve_ends(histories: dict[str, list[pd.DataFrame]], column: str) -> str:
    said = []
    for arm, several in histories.items():
        curve = mean_curve(several, column)
        said.append(
            f"{arm} from {number(float(curve.iloc[0]))} to {number(float(curve.iloc[-1]))} at epoch {curve.index[-1]}"
        )
    return "; ".join(said)


def _of_lines(histories: dict[str, list[pd.DataFrame]]) -> str:
    """What thick and thin lines are, where there are both."""
    has_seeds = any(len(several) > 1 for several in histories.values())
    return " Thick lines are means over seeds, thin lines single seeds." if has_seeds else ""


def _curves_picture(histories: dict[str, list[pd.DataFrame]], sample: str) -> Picture:
    return draw_picture(
        "Training curves",
        f"Values during training on {sample}, by epoch; epoch 0 is the start. With count splitting, one half of "
        f"the molecules is compared with the other.{_of_lines(histories)}",
        f"Validation cosine by epoch: {_curve_ends(histories, 'validation_cosine')}. "
        f"Validation MSE: {_curve_ends(histories, 'validation_mse')}.",
        lambda sheet: pl.training_curves(histories, sheet.panels(2, len(histories))),
    )


def _encoder_picture(histories: dict[str, list[pd.DataFrame]]) -> Picture:
    has_labels = all("validation_knn_20" in history for several in histories.values() for history in several)
    said = [f"Cosine of views: {_curve_ends(histories, 'view_cosine')}"]
    if has_labels:
        said.append(f"20-NN accuracy: {_curve_ends(histories, 'validation_knn_20')}")
    return draw_picture(
        "Agreement of views",
        "Validation profiles, by epoch; epoch 0 is the start. Some methods start with many pairs of views whose "
        f"cosine is negative; there should be few at the end.{_of_lines(histories)}",
        f"{'. '.join(said)}.",
        lambda sheet: pl.encoder_curves(histories, sheet.panels(2 + has_labels, len(histories))),
    )


def _norm_picture(histories: dict[str, list[pd.DataFrame]], sample: str) -> Picture:
    return draw_picture(
        "Norm of the reconstruction",
        f"{sample}. Median over profiles of the length of the reconstruction divided by that of its target. The MSE "
        "is smallest where this ratio equals the cosine; a cosine loss leaves the ratio free.",
        f"Norm ratio by epoch: {_curve_ends(histories, 'norm_ratio')}.",
        lambda sheet: pl.norm_by_epoch(histories, sheet.panels(1, len(histories))[0]),
    )


def _dynamics_picture(histories: dict[str, list[pd.DataFrame]], sample: str) -> Picture:
    return draw_picture(
        "Norms, gradients and latents",
        f"{sample}, with the centring of the loss. For a cosine, the gradient with respect to the reconstruction has a "
        "length equal to the sine of the angle to the target divided by the norm of the reconstruction: as the norm "
        "grows, the gradient shrinks, and their product is the mean sine. An effective rank near 1 means that the "
        "latent has collapsed.",
        f"Norm of the reconstruction by epoch: {_curve_ends(histories, 'reconstruction_norm')}. "
        f"Gradient: {_curve_ends(histories, 'gradient_norm')}.",
        lambda sheet: pl.dynamics_by_epoch(histories, axes=sheet.panels(len(DYNAMICS), len(histories))),
    )


def _labels_picture(profiles: dict[str, pd.DataFrame], split: str, name: str) -> Picture:
    metric, reference = main_metric(profiles), next(iter(profiles))
    table = label_differences(profiles, metric, split)
    size = label_size(table["label"].nunique(), len(profiles) - 1)
    said = [f"{row['label']}, {row['arm']}: {with_interval(row)}" for row in table.head(40).to_dict("records")]
    return draw_picture(
        f"Difference from {reference} by {name}",
        f"{_sample(profiles, split, metric)}. Mean difference in {title_of(metric)} over the profiles of each "
        f"{name}, with 95 % interval over profiles; numbers of profiles in brackets. Intervals are not corrected for "
        "multiple comparisons."
        + (f" The {MOST_LABELS} most frequent are shown." if table["label"].nunique() > MOST_LABELS else ""),
        f"Difference in {title_of(metric)} from {reference}. {'; '.join(said)}.",
        lambda sheet: pl.difference_by_label(profiles, sheet.rows(size), split=split),
    )


def _genes_picture(genes: dict[str, pd.DataFrame], sample: str) -> Picture:
    said = []
    for arm, table in genes.items():
        found = by_gene(table)["correlation"].dropna()
        said.append(f"{arm}: median {found.median():.4f} over {counted(len(found), 'gene')}")
    return draw_picture(
        "Correlation by gene",
        f"Pearson correlation between a gene and its reconstruction over {sample}, against the mean expression of the "
        "gene. Lines are medians in bins of equally many genes. Rarely expressed genes are almost entirely noise.",
        f"Correlation of genes with their reconstruction. {'; '.join(said)}.",
        lambda sheet: pl.gene_correlation(genes, sheet.panels(1, len(genes))[0]),
    )


def _umap_pictures(tables: dict[str, pd.DataFrame], name: str) -> list[Picture]:
    """UMAPs by label, or by cluster where there is none, and by molecules.

    Parameters
    ----------
    tables
        `umap.csv` by configuration; empty where there is none.
    name
        Name of the labels; empty where the configurations have labels of different kinds.
    """
    if not tables:
        return []
    columns = {column for column in ("label", "cluster", "molecules") if all(column in one for one in tables.values())}
    columns -= {"cluster"} if name and "label" in columns else {"label"}
    titles = {"label": name, "cluster": "cluster", "molecules": "molecules"}
    return [_umap_picture(tables, column, title) for column, title in titles.items() if column in columns]


def _umap_picture(tables: dict[str, pd.DataFrame], column: str, title: str) -> Picture:
    sizes = [len(table) for table in tables.values()]
    said = {
        "label": "First seed of each configuration. " if len(tables) > 1 else "",
        "cluster": "Leiden clusters of the graph of neighbours, numbered by size"
        f"{' in each configuration' if len(tables) > 1 else ''}. ",
        "molecules": "Molecules of each profile: where colours part, depth decides where a profile lies. ",
    }
    kinds = "labels" if column == "label" else "clusters"
    numbers = [
        f"{arm}: {counted(len(table), 'profile')}, "
        + (
            f"{number(table[column].min())} to {number(table[column].max())} molecules"
            if column == "molecules"
            else f"{table[column].nunique():,} {kinds}"
        )
        for arm, table in tables.items()
    ]
    return draw_picture(
        f"UMAP of the latents by {title}",
        f"{said[column]}{profiles_and_seeds(sizes, [1], 'all').capitalize()}. Distances between groups mean little.",
        f"UMAP of the latents coloured by {title}. {'; '.join(numbers)}.",
        lambda sheet: pl.umap(tables, sheet.panels(len(tables)), color=column, title=title),
    )
