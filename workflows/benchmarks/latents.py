"""How well latents show labels that took no part in training, at full depth and from few molecules, beside PCA.

    python workflows/benchmarks/latents.py DATA.h5ad --label cell_type --seeds 5 -o latents.csv
    python workflows/benchmarks/latents.py DATA.h5ad --label cell_type --seeds 5 --guard -o guard.csv

Every seed is a split of its own. Profiles outside of training are queries: complete, or thinned to a quarter, a tenth
and a twentieth of their molecules, and read at that depth. Training profiles at full depth are the reference. Two kinds
of PCA stand beside the latents: as it is, and with a reference that was thinned to the depth of the queries, as a
careful user would do for every depth anew; components are those of the complete reference in both, which is better than
those of the thinned one. `latent_thinned_reference` are the latents of that thinned reference: is what a thinned
reference brings a matter of PCA, or of the reference? Differences are paired by query. Rows are appended to the table;
`scvi_latents.py` adds those of scVI.

With `--guard`, other representations are compared with the latent twice: by labels of queries, and by the agreement of
halves of validation profiles, which needs no label. How often do both say the same where both are clear?
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from geneae.data.augment import thin_to
from geneae.data.count_split import Splitter, draw_halves
from geneae.data.preprocess import Expression
from geneae.data.reading import read_profiles
from geneae.evaluation.agreement import REPEATS, other_half_rank
from geneae.evaluation.labels import probed_labels
from geneae.fitting.fit import Fitted, fit
from geneae.losses.shared_neighbours import shared_neighbours
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.ceiling import has_molecules
from geneae.models.depths import COMPLETE
from geneae.settings.settings import Settings

RATIOS = (1, 4, 10, 20)
NEIGHBOURS = 20
WAYS = ("cosine", "euclidean", "probe")
CONTROL = "pca_thinned_reference"


def full_spread(fitted: Fitted) -> np.ndarray:
    """(rank,) deviation of posterior scores of complete training profiles, at least a twentieth of the largest."""
    estimator = fitted.model.estimator
    spread = (estimator.neighbours.reference * estimator.posterior.factors[0]).square().mean(0).sqrt().numpy()
    return np.maximum(spread, spread.max() / 20)


def representations(fitted: Fitted, train: Expression, queries: Expression, ratio: int) -> dict[str, Any]:
    """Latents of reference and queries by name."""
    model, estimator = fitted.model, fitted.model.estimator
    at = [estimator.at(COMPLETE), estimator.at(np.log(ratio) + COMPLETE)]
    dense = [model.preprocess.apply(part) for part in (train, queries)]
    pca = PCA(model.n_latent, random_state=0).fit(dense[0].toarray())
    scores = [
        of.scores(matrix, part.totals).numpy() for of, matrix, part in zip(at, dense, (train, queries), strict=True)
    ]
    exported = [model.latent(train), model.at(ratio).latent(queries)]
    full = full_spread(fitted)
    found = {
        "latent": exported,
        "plain": scores,
        "sphered": [one / full for one in scores],
        "pca": [pca.transform(one.toarray()) for one in dense],
    }
    reference = train if ratio == 1 else thin_to(train, 1 / ratio, np.random.default_rng(ratio))
    found[CONTROL] = [pca.transform(model.preprocess.apply(reference).toarray()), found["pca"][1]]
    found["latent_thinned_reference"] = [model.at(ratio).latent(reference), exported[1]]
    return found


def guarded(fitted: Fitted) -> dict[str, Callable[[Expression, float], np.ndarray]]:
    """Functions that give representations of profiles at a depth delta of the estimator, by name."""
    model, estimator = fitted.model, fitted.model.estimator
    half, full = estimator.latent_unit.numpy(), full_spread(fitted)
    rng = np.random.default_rng(0)
    turned = rng.standard_normal((len(half), len(half)))

    def scores(part: Expression, delta: float) -> np.ndarray:
        return estimator.at(delta).scores(model.preprocess.apply(part), part.totals).numpy()

    def in_basis(part: Expression, delta: float) -> np.ndarray:
        basis = model.baselines.half if delta == 0 else model.baselines.whole
        return basis.scores(sparse_rows(model.preprocess.apply(part)))[:, : model.n_latent].numpy()

    def network(part: Expression, delta: float) -> np.ndarray:
        with torch.no_grad():
            return model.network.eval().encode(torch.from_numpy(scores(part, delta)) / model.network.deviation).numpy()

    return {
        "latent": lambda part, delta: scores(part, delta) / half,
        "network": network,
        "plain": scores,
        "sphered": lambda part, delta: scores(part, delta) / full,
        "pca": in_basis,
        "pca_8": lambda part, delta: in_basis(part, delta)[:, :8],
        "first_4": lambda part, delta: (scores(part, delta) / half)[:, :4],
        "first_8": lambda part, delta: (scores(part, delta) / half)[:, :8],
        "first_16": lambda part, delta: (scores(part, delta) / half)[:, :16],
        "last_16": lambda part, delta: (scores(part, delta) / half)[:, 16:],
        "random_4": lambda part, delta: (scores(part, delta) / half) @ turned[:, :4],
        "random_16": lambda part, delta: (scores(part, delta) / half) @ turned[:, :16],
    }


def guard_rows(fitted: Fitted, profiles: Any, label: str) -> list[dict[str, Any]]:
    """For each representation, gains over the latent by labels and by the agreement of halves, with standard errors."""
    expression, _ = fitted.model.preprocess.match(profiles)
    split, labels = fitted.split.to_numpy(), profiles.obs[label].astype(str).to_numpy()
    has_label = profiles.obs[label].notna().to_numpy()
    train, queries = (
        np.flatnonzero(np.isin(split, names) & has_label) for names in (("train",), ("validation", "test"))
    )
    validation = expression.take(np.flatnonzero(split == "validation")).load()
    rng = np.random.default_rng((int(fitted.model.config["seed"]), 23))
    pairs = [draw_halves(Splitter(validation.rows), validation.totals, rng) for _ in range(REPEATS)]
    known = np.all([has_molecules(*pair) for pair in pairs], 0)
    parts = [expression.take(rows).load() for rows in (train, queries)]
    found = {}
    for name, represent in guarded(fitted).items():
        reference, of_queries = (represent(part, COMPLETE) for part in parts)
        right = is_right(reference, labels[train], of_queries, labels[queries], "cosine").astype(float)
        shared, rank = np.zeros(known.sum()), np.zeros(known.sum())
        for pair in pairs:
            one, other = (represent(half, 0.0)[known] for half in pair)
            shared += shared_neighbours(torch.tensor(one), torch.tensor(other), 15).numpy() / REPEATS
            rank -= other_half_rank(one, other) / REPEATS
        found[name] = {"label": right, "shared": shared, "rank": rank}
    rows = []
    for name, by in found.items():
        gains = {what: values - found["latent"][what] for what, values in by.items()}
        row = {"representation": name}
        for what, gain in gains.items():
            row |= {what: gain.mean(), f"{what}_error": gain.std(ddof=1) / len(gain) ** 0.5}
        rows.append(row)
    return rows


def guard_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Verdicts by representation and data set: by labels pooled over seeds, and by halves in each seed."""
    rows = []
    for (data, name), some in table.groupby(["data", "representation"]):
        error = some["label_error"].pow(2).mean() ** 0.5 / len(some) ** 0.5
        by_label = np.sign(some["label"].mean()) * (abs(some["label"].mean()) > 2 * error)
        clear = {
            what: np.sign(some[what]) * (some[what].abs() > 2 * some[f"{what}_error"]) for what in ("shared", "rank")
        }
        worse = (clear["shared"] < 0) | (clear["rank"] < 0)
        better = ((clear["shared"] > 0) | (clear["rank"] > 0)) & ~worse
        rows.append(
            {"data": data, "representation": name, "label": some["label"].mean(), "error": error, "by_label": by_label}
            | {"shared": some["shared"].mean(), "rank": some["rank"].mean()}
            | {"better": better.sum(), "worse": worse.sum(), "seeds": len(some)}
        )
    return pd.DataFrame(rows)


def is_right(reference: np.ndarray, labels: np.ndarray, queries: np.ndarray, truth: np.ndarray, way: str) -> np.ndarray:
    """(n_queries,) whether the label is found by 20 nearest neighbours, or by logistic regression."""
    if way == "probe":
        return probed_labels(reference, labels, queries) == truth
    voters = KNeighborsClassifier(NEIGHBOURS, metric=way, algorithm="brute").fit(reference, labels)
    return voters.predict(queries) == truth


def rows_of(
    split: np.ndarray, expression: Expression, given: pd.Series, represent: Callable[..., dict[str, Any]]
) -> list[dict[str, Any]]:
    """Whether each query is right, by representation, way and ratio.

    Parameters
    ----------
    split
        (n_profiles,) split of each profile.
    expression
        All profiles, in the genes of the model.
    given
        (n_profiles,) labels; profiles without one are left out.
    represent
        Function of training profiles, queries and the ratio that gives pairs of their representations, by name.
        Queries depend on split and ratio alone, so that tables of different programs pair by profile.
    """
    labels, has_label = given.astype(str).to_numpy(), given.notna().to_numpy()
    at_train, at_query = (
        np.flatnonzero((split == "train") & has_label),
        np.flatnonzero(np.isin(split, ("validation", "test")) & has_label),
    )
    train, complete = expression.take(at_train).load(), expression.take(at_query).load()
    rows = []
    for ratio in RATIOS:
        queries = complete if ratio == 1 else thin_to(complete, 1 / ratio, np.random.default_rng((7, ratio)))
        for name, (reference, of_queries) in represent(train, queries, ratio).items():
            for way in WAYS:
                right = is_right(reference, labels[at_train], of_queries, labels[at_query], way)
                what = {"representation": name, "way": way, "ratio": ratio}
                rows += [
                    what | {"profile": int(at), "right": bool(one)} for at, one in zip(at_query, right, strict=True)
                ]
    return rows


def fit_rows(fitted: Fitted, profiles: Any, label: str) -> list[dict[str, Any]]:
    """Rows of the latents of a fit and of PCA."""
    expression, _ = fitted.model.preprocess.match(profiles)
    return rows_of(fitted.split.to_numpy(), expression, profiles.obs[label], partial(representations, fitted))


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every representation, and how much higher that of the latent is on the same queries.

    A row per data set, way, ratio and representation; columns accuracy, the number of seeds, the difference and its
    standard error (0 for the latent itself, NaN without rows of the latent for the same seeds).
    """
    keys = ["data", "way", "ratio"]
    by = [*keys, "representation"]
    latent = table[table["representation"] == "latent"]
    paired = table.merge(latent, on=[*keys, "seed", "profile"], suffixes=("", "_of_latent"))
    difference = paired["right_of_latent"].astype(float) - paired["right"]
    # a profile may be a query of several seeds
    by_profile = paired.assign(difference=difference).groupby([*by, "profile"])["difference"].mean().groupby(by)
    each = table.groupby(by)
    return pd.DataFrame(
        {
            "accuracy": each["right"].mean(),
            "seeds": each["seed"].nunique(),
            "latent - it": by_profile.mean(),
            "error": by_profile.sem(),
        }
    )


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--label", required=True, help="Column of obs.")
@click.option("--seeds", default=5, show_default=True)
@click.option("--n-top-genes", default=2000, show_default=True)
@click.option("--guard", is_flag=True, help="Compare the agreement of halves with labels.")
@click.option("--latent", default=32, show_default=True)
@click.option("-o", "--output", default=Path("latents.csv"), show_default=True, type=click.Path(path_type=Path))
def main(
    data: tuple[Path, ...], label: str, seeds: int, n_top_genes: int, guard: bool, latent: int, output: Path
) -> None:
    """Fit every data set with every seed, and find the labels of its queries."""
    for path in data:
        profiles = read_profiles(path)
        for seed in range(seeds):
            fitted = fit(profiles, Settings(seed=seed, n_latent=latent, n_top_genes=n_top_genes))
            rows = (guard_rows if guard else fit_rows)(fitted, profiles, label)
            table = pd.DataFrame(rows).assign(data=path.stem, seed=seed)
            table.to_csv(output, mode="a", header=not output.exists(), index=False)
            choice, of = fitted.model.config.get("latent_choice"), fitted.evaluation.metrics.query("split == 'test'")
            numbers = of[of["metric"].isin(["shared_neighbours", "other_half_rank", "depth_r2"])]
            click.echo(f"{path.stem} seed {seed}: choice {choice}")
            click.echo(numbers.pivot_table(index="model", columns="metric", values="value").round(4).to_string())
    click.echo((guard_summary if guard else summary)(pd.read_csv(output)).round(4).to_string())


if __name__ == "__main__":
    main()
