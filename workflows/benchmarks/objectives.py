"""Whether self-supervised objectives lose to PCA or to their start: neighbours in latents, paired by seed.

    python workflows/benchmarks/objectives.py kang.h5ad:cell_type bladder.h5ad:cluster --seeds 5 -o objectives.csv

Every seed is a split, a start and an order of its own. Numbers are shares of test profiles whose label is that of the
majority of their 20 nearest training profiles, by cosine and by Euclidean distance; higher is better. Test profiles are
given complete and thinned to shares of their molecules; training profiles are complete, but for the row `pca, thinned
reference`, where they are as shallow as the test profiles: what a careful user of PCA would do.
`start` are the latents of the default fit before its network; every objective starts at them. Nothing is chosen by
labels. Differences to start and PCA are means over seeds with the standard error.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from sklearn.neighbors import KNeighborsClassifier

from geneae.data.augment import thin_to
from geneae.data.preprocess import Expression
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.fitting.bases import Bases, fit_bases
from geneae.fitting.network import train_network
from geneae.fitting.prepare import FitData, prepare
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.depths import COMPLETE
from geneae.settings.settings import Settings
from geneae.training.devices import loading_fabric
from geneae.training.selfsupervised import OBJECTIVES

NEIGHBOURS = 20
METRICS = ("cosine", "euclidean")
START, PCA, THINNED_PCA = "start", "pca", "pca, thinned reference"
THINNING_STREAM = 7  # separates thinned test profiles from other random numbers of the same seed


@dataclass(frozen=True)
class Queries:
    """Test profiles at one depth."""

    ratio: float
    """Molecules of complete profiles / molecules of these."""
    expression: Expression
    """The profiles, in the genes of the fit."""


@dataclass(frozen=True)
class Seed:
    """One split of a data set, and its labels as numbers."""

    data: FitData
    bases: Bases
    labels: np.ndarray
    queries: list[Queries]

    def of(self, split: str) -> np.ndarray:
        """(n,) labels of a split."""
        found: np.ndarray = self.labels[self.data.rows(split)]
        return found


def open_seed(profiles: Profiles, label: str, settings: Settings, ratios: list[float]) -> Seed:
    """Split, bases and test profiles of a seed; profiles without a label do not take part."""
    data = prepare(profiles, settings)
    with loading_fabric():
        bases = fit_bases(data)
    test = data.expression.take(data.rows("test"))
    rng = np.random.default_rng((settings.seed, THINNING_STREAM))
    queries = [Queries(ratio, test if ratio == 1 else thin_to(test, 1 / ratio, rng)) for ratio in ratios]
    return Seed(data, bases, pd.factorize(profiles.obs[label])[0], queries)


def accuracy(seed: Seed, reference: np.ndarray, found: np.ndarray, metric: str) -> float:
    """Share of test profiles whose label most of their nearest training profiles have."""
    train, test = seed.of("train"), seed.of("test")
    voters = KNeighborsClassifier(min(NEIGHBOURS, len(train)), metric=metric, algorithm="brute")
    known, judged = train >= 0, test >= 0
    guessed = voters.fit(reference[known], train[known]).predict(found[judged])
    return float((guessed == test[judged]).mean())


def of_pca(seed: Seed, ratio: float, is_thinned: bool, n_latent: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of training profiles, complete or as shallow as the test profiles, and of test profiles."""
    train, preprocess, basis = seed.data.train, seed.data.preprocess, seed.bases.baselines.whole
    if is_thinned and ratio != 1:
        train = thin_to(train, 1 / ratio, np.random.default_rng((seed.data.settings.seed, THINNING_STREAM, 1)))
    test = next(some.expression for some in seed.queries if some.ratio == ratio)
    scores = [basis.scores(sparse_rows(preprocess.apply(some)))[:, :n_latent].numpy() for some in (train, test)]
    reference, found = (some - scores[0].mean(0) for some in scores)  # thinned profiles have another mean
    return reference, found


def latents(seed: Seed, objective: str | None, settings: Settings) -> tuple[dict[float, np.ndarray], dict[str, float]]:
    """Latents by depth ratio, those of training profiles by 0, of the start without an objective; and facts."""
    assert seed.bases.estimator is not None
    estimator, facts = seed.bases.estimator.estimator, {}
    network = None
    if objective is not None:
        trained = train_network(prepare(seed.data.profiles, replace(settings, objective=objective)), seed.bases)
        network = trained.network
        facts = {"best_epoch": trained.training.best_epoch}

    def read(expression: Expression, ratio: float) -> np.ndarray:
        at = estimator.at(float(np.log(ratio)) + COMPLETE)
        scores = at.scores(seed.data.preprocess.apply(expression), expression.totals) / estimator.latent_unit
        with torch.no_grad():
            found: np.ndarray = (scores if network is None else network.encode(scores)).numpy()
        return found

    return {0.0: read(seed.data.train, 1.0), **{q.ratio: read(q.expression, q.ratio) for q in seed.queries}}, facts


def judge(seed: Seed, objectives: list[str], settings: Settings) -> Iterator[dict[str, object]]:
    """A row for each model, depth ratio and distance."""
    for model in (PCA, THINNED_PCA, START, *objectives):
        by_ratio, facts = {}, {}
        if model not in (PCA, THINNED_PCA):
            by_ratio, facts = latents(seed, None if model == START else model, settings)
        for ratio in (some.ratio for some in seed.queries):
            if model in (PCA, THINNED_PCA):
                reference, found = of_pca(seed, ratio, model == THINNED_PCA, settings.n_latent)
            else:
                reference, found = by_ratio[0.0], by_ratio[ratio]
            for metric in METRICS:
                right = accuracy(seed, reference, found, metric)
                yield {"model": model, "ratio": ratio, "metric": metric, "accuracy": right, **facts}


def difference(table: pd.DataFrame, model: str, rival: str) -> str:
    """Mean difference in accuracy between two models, paired by seed, and its standard error."""
    by_seed = table.pivot_table(index="seed", columns="model", values="accuracy")
    gains = by_seed[model] - by_seed[rival]
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else float("nan")
    return f"{gains.mean():+.4f} ± {error:.4f}"


def markdown(table: pd.DataFrame) -> str:
    """Means over seeds, and differences to start and PCA."""
    lines = ["| data | 1 / share | distance | model | accuracy | - start | - pca |", "|---" * 7 + "|"]
    for (data, ratio, metric), some in table.groupby(["data", "ratio", "metric"], sort=False):
        for model in some["model"].unique():
            mean = some.loc[some["model"] == model, "accuracy"].mean()
            gains = [difference(some, model, rival) if model != rival else "" for rival in (START, PCA)]
            lines.append(f"| {data} | {ratio:g} | {metric} | {model} | {mean:.4f} | {' | '.join(gains)} |")
    return "\n".join(lines)


def changes(text: tuple[str, ...]) -> dict[str, object]:
    """Settings from texts such as `learning_rate=0.001`."""
    found: dict[str, object] = {}
    for name, _, value in (one.partition("=") for one in text):
        known = getattr(Settings(), name)
        found[name] = type(known)(value) if known is not None else value
    return found


@click.command(context_settings={"show_default": True})
@click.argument("data", nargs=-1, required=True)
@click.option("--objective", "objectives", multiple=True, default=list(OBJECTIVES))
@click.option("--seeds", default=5, help="Seeds 0, 1, ...")
@click.option("--first-seed", default=0)
@click.option("--test", default=0.2, help="Share of the profiles that are judged.")
@click.option("--ratio", "ratios", multiple=True, type=float, default=[1.0, 10.0], help="1 / share of the molecules.")
@click.option("--n-top-genes", default=2000, help="Genes of largest variance that are kept, at most.")
@click.option("--set", "changed", multiple=True, metavar="NAME=VALUE", help="Another setting of the fit.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="CSV with one row per number.")
def main(
    data: tuple[str, ...],
    objectives: tuple[str, ...],
    seeds: int,
    first_seed: int,
    test: float,
    ratios: tuple[float, ...],
    n_top_genes: int,
    changed: tuple[str, ...],
    output: Path | None,
) -> None:
    """Train encoders on DATA, written PATH:LABEL, with every objective and seed."""
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for one in data:
        name, _, label = one.rpartition(":")
        profiles = read_profiles(Path(name))
        for seed in range(first_seed, first_seed + seeds):
            settings = Settings(
                objective="simclr", seed=seed, test=test, n_top_genes=n_top_genes, device="cpu", **changes(changed)
            )
            opened = open_seed(profiles, label, settings, list(ratios))
            found = judge(opened, list(objectives), settings)
            rows += [{"data": Path(name).stem, "seed": seed, "n_test": len(opened.of("test")), **row} for row in found]
            click.echo(f"{Path(name).stem}, seed {seed}: done", err=True)
            if output is not None:  # after every seed, so that an interrupted run leaves what it has
                pd.DataFrame(rows).to_csv(output, index=False)
    click.echo(markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
