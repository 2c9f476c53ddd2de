"""Configurations compared with the first one: paired differences by profile, over seeds, with verdicts."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from geneae.evaluation.bootstrap import bootstrap_interval
from geneae.evaluation.diagnostics import CONSTANT_SKILL
from geneae.evaluation.labels import ACCURACIES
from geneae.evaluation.records import HELD_OUT, SAME, WITHOUT_COUNTS, signed
from geneae.evaluation.table import CEILING, DRAWN, METRIC_FACTS, metric_facts
from geneae.losses.names import find_loss
from geneae.settings.text import counted

ANSWERED_BY = (HELD_OUT, WITHOUT_COUNTS, ACCURACIES[0])
"""Metrics that can decide the answer: the first one that is available does."""
BY_HALVES = "other_half_rank"
"""Metric that judges latents without labels."""
UNSTEADY = 0.25  # deviation between seeds over their mean, above which a result depends on the seed
LEVEL = 0.05  # significance level of the family of all comparisons, after Holm
BETTER, WORSE, NONE, UNDEFINED = "better", "worse", "no difference that these data can show", "not comparable"
SAME_SHARE = 1e-4  # of an error: where cosines near 0.7 differ by `SAME`, errors differ by about this share
COMPARED = {name: facts for name, facts in METRIC_FACTS.items() if facts.is_by_profile and facts.better}
"""Facts about the metrics that are compared profile by profile."""


@dataclass(frozen=True, eq=False)
class Configuration:
    """One choice of objective, loss, cut and latent (`arm` in tables), run with several seeds on one split."""

    name: str
    """Name in tables."""
    loss: str
    """Loss of the runs; empty where another program was judged."""
    profiles: dict[int, pd.DataFrame]
    """Rows of `profiles.csv` of one split, indexed by profile; by seed."""
    center: str = "none"
    """Centring of the loss and of `rescaled_mse`."""

    @property
    def is_scale_free(self) -> bool:
        """Whether its loss leaves the length of predictions undetermined."""
        return bool(self.loss) and find_loss(self.loss).is_scale_free


def compare_configurations(configurations: list[Configuration], split: str, seed: int = 0) -> pd.DataFrame:
    """Paired differences between every configuration and the first.

    For each metric the difference is taken profile by profile and seed by seed; interval and p value come from a
    bootstrap over profiles and seeds, so that they hold for other profiles and other seeds. p values are corrected over
    all comparisons of the table (Holm 1979). A difference below the last digit in tables counts as none, however
    certain: below `SAME` for cosines, below a share `SAME_SHARE` of the reference for errors.

    Parameters
    ----------
    configurations
        At least two, the reference first, with the same profiles and seeds.
    split
        Split, a column of the table.
    seed
        Seed of the bootstrap.

    Returns
    -------
    arm, reference, split, metric, difference, low, high, p, p_holm, verdict, n_profiles, n_seeds, better.
    """
    rows = []
    reference, *others = configurations
    for other in others:
        for metric, facts in COMPARED.items():
            differences = _differences(reference, other, metric)
            if differences.size:
                better = facts.better
                floor = SAME if better == "higher" else SAME_SHARE * _mean(reference, metric)
                rows.append(
                    (
                        other.name,
                        metric,
                        *bootstrap_interval(differences, seed),
                        *differences.shape[::-1],
                        better,
                        floor,
                    )
                )
    columns = ["arm", "metric", "difference", "low", "high", "p", "n_profiles", "n_seeds", "better", "floor"]
    table = pd.DataFrame(rows, columns=columns)
    scale_free = [other.name for other in others if other.is_scale_free or reference.is_scale_free]
    sees_length = [name for name, facts in COMPARED.items() if facts.sees_length]
    raw = table["metric"].isin(sees_length) & table["arm"].isin(scale_free)
    centred_otherwise = [other.name for other in others if other.center != reference.center]
    raw |= (table["metric"] == "rescaled_mse") & table["arm"].isin(centred_otherwise)
    table.loc[raw, "p"] = np.nan
    table["p_holm"] = holm(table["p"].to_numpy(float))
    table["verdict"] = [
        UNDEFINED if is_raw else _verdict(difference, p, better, floor)
        for is_raw, difference, p, better, floor in zip(
            raw, table["difference"], table["p_holm"], table["better"], table["floor"], strict=True
        )
    ]
    table.insert(1, "reference", reference.name)
    table.insert(2, "split", split)
    order = ["arm", "reference", "split", "metric", "difference", "low", "high", "p", "p_holm", "verdict"]
    return table[[*order, "n_profiles", "n_seeds", "better"]]


def _differences(reference: Configuration, other: Configuration, metric: str) -> np.ndarray:
    """(n_seeds, n_profiles) other minus reference, for profiles with a value in every run; empty without the metric."""
    if not all(metric in table for of in (other, reference) for table in of.profiles.values()):
        return np.empty((0, 0))
    by_seed = [other.profiles[seed][metric] - reference.profiles[seed][metric] for seed in sorted(other.profiles)]
    return np.asarray(pd.concat(by_seed, axis=1).dropna().to_numpy(float).T)


def _mean(configuration: Configuration, metric: str) -> float:
    """Mean over profiles and seeds."""
    return float(np.nanmean([table[metric].to_numpy(float) for table in configuration.profiles.values()]))


def holm(p: np.ndarray) -> np.ndarray:
    """p values corrected for their number by Holm's step-down method; NaN remains NaN and is not counted."""
    corrected = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if len(order) else steps
    return corrected


def _verdict(difference: float, p: float, better: str, floor: float) -> str:
    if not p < LEVEL or abs(difference) < floor:
        return NONE
    return BETTER if (difference > 0) == (better == "higher") else WORSE


def seed_table(metrics: pd.DataFrame, split: str) -> pd.DataFrame:
    """Dependence of each configuration on its seed.

    Parameters
    ----------
    metrics
        `metrics.csv` of all runs, with a column `arm`.
    split
        `test` or `validation`.

    Returns
    -------
    arm, metric, mean, deviation, least, most, success_rate, n_seeds, fires. The metric is the skill, or without counts
    the share of the way from the mean profile's cosine to 1; a seed succeeds above 0.05. `fires` is true where a seed
    failed, or where the deviation between seeds is more than a quarter of the mean.
    """
    means = metrics[(metrics["split"] == split) & (metrics["statistic"] == "mean")]

    def by_seed(model: str, metric: str) -> pd.Series:
        rows = means[(means["model"] == model) & (means["metric"] == metric)]
        return rows.set_index(["arm", "seed"])["value"].astype(float)

    skill, name = by_seed("model", "skill"), "skill"
    if skill.isna().all():
        trivial = by_seed("mean_profile", "cosine")
        skill, name = (by_seed("model", "cosine") - trivial) / (1 - trivial), "gain_over_mean_profile"
    rows = []
    for arm, values in skill.groupby(level="arm", sort=False):
        deviation = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
        success = float((values > CONSTANT_SKILL).mean())
        fires = bool(success < 1 or deviation > UNSTEADY * values.mean())
        rows.append((arm, name, values.mean(), deviation, values.min(), values.max(), success, len(values), fires))
    columns = ["arm", "metric", "mean", "deviation", "least", "most", "success_rate", "n_seeds", "fires"]
    return pd.DataFrame(rows, columns=columns)


def seed_sentence(seeds: pd.DataFrame) -> str:
    """Sentences on configurations that depend on their seed or fail with every seed; empty where there are none."""
    firing = seeds[seeds["fires"] & (seeds["n_seeds"] > 1)].to_dict("records")
    found = {}
    for row in firing:
        found[row["arm"]] = f"({str(row['metric']).replace('_', ' ')} {row['least']:.2f} to {row['most']:.2f})"
    failed = [f"{row['arm']} {found[row['arm']]}" for row in firing if not row["success_rate"]]
    unsteady = [
        f"{row['arm']} succeeds with {round(row['success_rate'] * row['n_seeds'])} of "
        f"{counted(row['n_seeds'], 'seed')} {found[row['arm']]}"
        for row in firing
        if row["success_rate"]
    ]
    said = ""
    if failed:
        said += f" No seed clearly beats the mean profile: {'; '.join(failed)}. Prefer another configuration."
    if unsteady:
        said += (
            f" The result depends on the seed: {'; '.join(unsteady)}. Report all seeds. Lower the learning rate or the "
            "initial norm; for a ranking loss use --negatives mean or --loss softmax."
        )
    return said


def answer(paired: pd.DataFrame, metrics: pd.DataFrame, draw: str = "seed") -> str:
    """Two sentences: which configurations are better or worse than the first on the metric that counts, and by how
    much; and where the first stands between baselines and ceiling.

    Parameters
    ----------
    paired
        Result of `compare_configurations`.
    metrics
        Long table of all runs, with a column `arm`.
    draw
        What the runs of a configuration differ in, a noun.
    """
    known = [name for name in ANSWERED_BY if (paired["metric"] == name).any()]
    if not known:
        return "These configurations have no metric in common: fit with --label KEY, which evaluates all latents alike."
    metric, facts = known[0], metric_facts(known[0])
    rows = paired[paired["metric"] == metric]
    reference, split = rows["reference"].iloc[0], rows["split"].iloc[0]
    n_seeds = int(rows["n_seeds"].iloc[0])
    seeds = f"{n_seeds} {draw}s" if n_seeds > 1 else f"one {draw}, which says nothing about the spread between {draw}s"
    said = []
    for verdict in (BETTER, WORSE, NONE):
        found = rows[rows["verdict"] == verdict]
        if len(found):
            names = ", ".join(f"{arm} ({signed(d)})" for arm, d in zip(found["arm"], found["difference"], strict=True))
            said.append(f"{verdict}: {names}")
    return (
        f"By {facts.in_full or facts.title} on {int(rows['n_profiles'].iloc[0]):,} {split} profiles and {seeds}, "
        f"against {reference}: "
        f"{'; '.join(said)}. {standing(metrics, reference, split, metric)}"
    )


def guard_sentence(paired: pd.DataFrame) -> str:
    """Sentence on how often labels and the agreement of halves, which needs no label, say the same of a configuration,
    where both are clear; empty without labels or halves.

    Parameters
    ----------
    paired
        Result of `compare_configurations`.
    """
    by_label, by_halves = (
        paired[paired["metric"] == metric].set_index("arm")["verdict"] for metric in (ACCURACIES[0], BY_HALVES)
    )
    if by_label.empty or by_halves.empty:
        return ""
    both = pd.DataFrame({"label": by_label, "halves": by_halves})
    clear = both[both.isin([BETTER, WORSE]).all(axis=1)]
    if clear.empty:
        return " Labels and the agreement of halves are both clear about no configuration."
    agree = int((clear["label"] == clear["halves"]).sum())
    return (
        f" Where labels and the agreement of halves ({METRIC_FACTS[BY_HALVES].title}) are both clear, they agree on "
        f"{agree} of {len(clear)} configurations."
    )


def standing(metrics: pd.DataFrame, configuration: str, split: str, metric: str) -> str:
    """Sentence that places a configuration next to mean profile, PCA, shrunken PCA and the noise ceiling."""
    rows = metrics[(metrics["arm"] == configuration) & (metrics["split"] == split) & (metrics["statistic"] == "mean")]
    own = {facts.of_size: (name, metric) for name, facts in DRAWN.items()}
    own |= {CEILING.title: ("model", "ceiling")} if metric == HELD_OUT else {}
    means = rows.groupby(["model", "metric"])["value"].mean()
    beside = [f"{title} {means[key]:.4f}" for title, key in own.items() if key in means.index]
    return f"The reference {configuration} has {means['model', metric]:.4f} ({', '.join(beside)})."
