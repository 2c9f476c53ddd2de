"""How well latents show labels that took no part in training, at full depth and from few molecules, beside PCA.

    python workflows/benchmarks/latents.py DATA.h5ad --label cell_type --seeds 5 -o latents.csv

Every seed is a split of its own. Profiles outside of training are queries: complete, or thinned to a quarter, a tenth
and a twentieth of their molecules, and read at that depth. Training profiles at full depth are the reference. Two
kinds of PCA stand beside the latents: as it is, and with a reference that was thinned to the depth of the queries, as a
careful user would do for every depth anew; components are those of the complete reference in both, which is better than
those of the thinned one. Differences are paired by query.
"""

import warnings
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from geneae.data.augment import thin_to
from geneae.data.preprocess import Expression
from geneae.data.reading import read_profiles
from geneae.fitting.fit import Fitted, fit
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
    return found


def is_right(reference: np.ndarray, labels: np.ndarray, queries: np.ndarray, truth: np.ndarray, way: str) -> np.ndarray:
    """(n_queries,) whether the label is found by 20 nearest neighbours, or by logistic regression."""
    if way == "probe":
        scaler = StandardScaler().fit(reference)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            probe = LogisticRegression(max_iter=300).fit(scaler.transform(reference), labels)
        return probe.predict(scaler.transform(queries)) == truth
    voters = KNeighborsClassifier(NEIGHBOURS, metric=way, algorithm="brute").fit(reference, labels)
    return voters.predict(queries) == truth


def rows_of(fitted: Fitted, profiles: Any, label: str) -> list[dict[str, Any]]:
    """Whether each query is right, by representation, way and ratio."""
    expression, _ = fitted.model.preprocess.match(profiles)
    split, labels = fitted.split.to_numpy(), profiles.obs[label].astype(str).to_numpy()
    has_label = profiles.obs[label].notna().to_numpy()
    at_train, at_query = (
        np.flatnonzero((split == "train") & has_label),
        np.flatnonzero(np.isin(split, ("validation", "test")) & has_label),
    )
    train, complete = expression.take(at_train).load(), expression.take(at_query).load()
    rows = []
    for ratio in RATIOS:
        queries = complete if ratio == 1 else thin_to(complete, 1 / ratio, np.random.default_rng((7, ratio)))
        for name, (reference, of_queries) in representations(fitted, train, queries, ratio).items():
            for way in WAYS:
                right = is_right(reference, labels[at_train], of_queries, labels[at_query], way)
                what = {"representation": name, "way": way, "ratio": ratio}
                rows += [
                    what | {"profile": int(at), "right": bool(one)} for at, one in zip(at_query, right, strict=True)
                ]
    return rows


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracies, and paired differences of the latent with both kinds of PCA and their standard errors."""
    keys = ["data", "way", "ratio"]
    wide = table.pivot_table(index=[*keys, "seed", "profile"], columns="representation", values="right").astype(float)
    found = wide.groupby(keys).mean()
    for rival in ("pca", CONTROL):
        difference = wide["latent"] - wide[rival]
        by_profile = difference.groupby([*keys, "profile"]).mean()  # a profile may be a query of several seeds
        found[f"latent - {rival}"] = by_profile.groupby(keys).mean()
        found["error of it" if rival == "pca" else "error of this"] = by_profile.groupby(keys).sem()
    return found


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--label", required=True, help="Column of obs.")
@click.option("--seeds", default=5, show_default=True)
@click.option("--n-top-genes", default=2000, show_default=True)
@click.option("--latent", default=32, show_default=True)
@click.option("-o", "--output", default=Path("latents.csv"), show_default=True, type=click.Path(path_type=Path))
def main(data: tuple[Path, ...], label: str, seeds: int, n_top_genes: int, latent: int, output: Path) -> None:
    """Fit every data set with every seed, and find the labels of its queries."""
    for path in data:
        profiles = read_profiles(path)
        for seed in range(seeds):
            fitted = fit(profiles, Settings(seed=seed, n_latent=latent, n_top_genes=n_top_genes))
            table = pd.DataFrame(rows_of(fitted, profiles, label)).assign(data=path.stem, seed=seed)
            table.to_csv(output, mode="a", header=not output.exists(), index=False)
            choice, of = fitted.model.config.get("latent_choice"), fitted.evaluation.metrics.query("split == 'test'")
            numbers = of[of["metric"].isin(["shared_neighbours", "other_half_rank", "depth_r2"])]
            click.echo(f"{path.stem} seed {seed}: choice {choice}")
            click.echo(numbers.pivot_table(index="model", columns="metric", values="value").round(4).to_string())
    click.echo(summary(pd.read_csv(output)).round(4).to_string())


if __name__ == "__main__":
    main()
