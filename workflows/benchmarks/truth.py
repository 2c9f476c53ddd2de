"""What each step of the default fit brings, how far it is below its ceiling, and what depth and loss change.

    python workflows/benchmarks/truth.py DATA.h5ad ... --seeds 5 --n-top-genes 2000 -o truth.csv
    python workflows/benchmarks/truth.py DATA.h5ad ... --loss mse --loss cosine --loss combined --loss magnitude
    python workflows/benchmarks/truth.py DATA.h5ad ... --alone
    python workflows/benchmarks/truth.py DATA.h5ad ... --queries cell_type

Every seed is a split of its own, of profiles and of molecules. Numbers are means over test profiles, which take part in
no choice of a model; differences are paired by profile. Rows are written as they come, so that a run can be stopped.
With `--alone`, estimators that are fitted for a single depth stand beside the one for all depths. With `--queries`,
depths are wrong by a factor, or estimated from query sets of one label or of half the labels: what that costs.
"""

import importlib
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch

from geneae.data.augment import thin_to
from geneae.data.count_split import Splitter, draw_halves
from geneae.data.preprocess import Expression
from geneae.data.reading import read_profiles
from geneae.evaluation.depth import OF_HALF, RATIOS, thinned_cosines
from geneae.evaluation.halves import EVALUATION_STREAM, half_against_half
from geneae.evaluation.predictors import linear_predictors, predictors
from geneae.evaluation.records import HELD_OUT
from geneae.fitting.fit import Fitted, fit
from geneae.models.baselines import frame, shrunken_pca
from geneae.models.pca import fit_basis, fit_wiener
from geneae.settings.settings import Settings
from geneae.training.batches import TRAINING_STREAM

RANKS = (4, 8, 16, 32, 64, 128)  # sizes of shrunken PCA
STEPS = (
    "mean_profile",
    "shrunken_pca",
    "whitened",
    "step_network",
    "step_neighbours",
    "model_latent_only",
    "step_own_counts",
    "model",
)
CONTROLS = ("own_count",)
LEAST_QUERY = 10  # profiles of a query set
DEPTHS = ("depths", "posterior", "neighbours", "own_counts", "estimator", "query_depth")
"""Modules of `geneae.models` that hold the depths of training."""


@contextmanager
def one_depth(share: float) -> Iterator[None]:
    """Inside this context, estimators are fitted for inputs with this share of the molecules and no other."""
    shares = (0.5,) if share == 0.5 else (0.5, share)
    weights = (1.0,) if share == 0.5 else (1e-9, 1.0)
    values = {
        "SHARES": shares,
        "WEIGHTS": weights,
        "DELTAS": tuple(math.log(0.5 / one) for one in (1.0, *shares)),
    }
    names = [*(f"geneae.models.{name}" for name in DEPTHS), "geneae.fitting.estimator", "geneae.fitting.head"]
    modules = [importlib.import_module(name) for name in (*names, "geneae.training.batches")]
    before = [(module, name, getattr(module, name)) for module in modules for name in values if hasattr(module, name)]
    for module, name, _ in before:
        setattr(module, name, values[name])
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def test_profiles(fitted: Fitted, profiles: Any) -> Expression:
    """Test profiles in the genes of a model."""
    expression, _ = fitted.model.preprocess.match(profiles)
    return expression.take(np.flatnonzero(fitted.split == "test"))


def shrunken_of_all_ranks(fitted: Fitted, profiles: Any) -> dict[str, np.ndarray]:
    """(n_profiles,) held-out cosines of shrunken PCA of several sizes, on the count splits that judged the model."""
    model, seed = fitted.model, int(fitted.model.config["seed"])
    expression, _ = model.preprocess.match(profiles)
    train = expression.take(np.flatnonzero(fitted.split == "train"))
    rng = np.random.default_rng((seed, TRAINING_STREAM, 0))
    halves = [model.preprocess.apply(half) for half in draw_halves(Splitter(train.rows), train.totals, rng)]
    basis = fit_basis(halves, max(RANKS), seed)
    factors, at = fit_wiener(halves[0], halves[1], basis.rank, seed), frame(basis, basis.mean, torch.float32)
    frames = {f"shrunken_{size}": (at, shrunken_pca(factors, size)) for size in RANKS if size <= basis.rank}
    # the count splits of the evaluation are those of validation and test profiles together
    judged = np.flatnonzero(fitted.split.isin(["validation", "test"]))
    rng = np.random.default_rng((seed, EVALUATION_STREAM, 0))
    found, _ = half_against_half(linear_predictors(frames), model.preprocess, expression.take(judged), rng)
    is_test = fitted.split.to_numpy()[judged] == "test"
    return {name: cosines[is_test] for name, cosines in found.items()}


def rows_of(fitted: Fitted, profiles: Any) -> Iterator[dict[str, Any]]:
    """Numbers of one fit."""
    metrics = fitted.evaluation.metrics
    some = metrics[(metrics["split"] == "test") & (metrics["statistic"] == "mean")]
    for row in some.itertuples():
        yield {"model": row.model, "metric": row.metric, "value": row.value, "n_profiles": row.n_profiles}
    of = fitted.evaluation.profiles
    of = of[of["split"] == "test"].set_index("profile")
    by_model = {name: of.loc[of["model"] == name, HELD_OUT] for name in of["model"].unique()}
    for rival in ("shrunken_pca", "whitened", "own_count", "mean_profile"):
        yield from _paired("model", rival, by_model["model"].to_numpy(), by_model[rival].to_numpy())
    yield from _paired(
        "model_latent_only", "whitened", by_model["model_latent_only"].to_numpy(), by_model["whitened"].to_numpy()
    )
    for name, cosines in shrunken_of_all_ranks(fitted, profiles).items():
        yield {"model": name, "metric": HELD_OUT, "value": float(np.nanmean(cosines)), "n_profiles": len(cosines)}
        yield from _paired("model", name, by_model["model"].to_numpy(), cosines)
    config = fitted.model.config
    for step in config["steps"]:
        yield {"model": f"kept_{step['name']}", "metric": "kept", "value": float(step["is_kept"]), "n_profiles": 0}
    yield {"model": "fit", "metric": "seconds", "value": config["seconds"], "n_profiles": 0}
    yield {"model": "fit", "metric": "best_epoch", "value": config["best_epoch"], "n_profiles": 0}


def alone_rows(fitted: Fitted, profiles: Any, settings: Settings) -> Iterator[dict[str, Any]]:
    """Estimators fitted for one depth beside the one for all, on the same thinned inputs."""
    expression = test_profiles(fitted, profiles).load()
    together = all_depths(fitted, expression)
    for ratio, by_model in together.items():
        with one_depth(1 / ratio):
            alone = fit(profiles, settings)
            found = all_depths(alone, expression, (ratio,))[ratio]["model"]
        yield {"model": f"alone_{ratio}", "metric": HELD_OUT, "value": np.nanmean(found), "n_profiles": len(found)}
        for name in ("model", "mean_profile", "shrunken_pca"):
            value = np.nanmean(by_model[name])
            yield {"model": f"{name}_{ratio}", "metric": HELD_OUT, "value": value, "n_profiles": len(found)}
        yield from _paired(f"model_{ratio}", f"alone_{ratio}", by_model["model"], found)
        yield from _paired(f"model_{ratio}", f"mean_profile_{ratio}", by_model["model"], by_model["mean_profile"])


def query_rows(fitted: Fitted, profiles: Any, label: str) -> Iterator[dict[str, Any]]:
    """What it costs to read profiles at a wrong depth, and at the depth that sets of another composition suggest.

    Query sets are taken from the profiles outside of training, the whole, a label or a random half of the labels; each
    is thinned to each ratio, and its depth estimated from its mean log molecules. Costs are differences in held-out
    cosine between reading at the true depth and at that depth, means over the profiles of the set.
    """
    expression, _ = fitted.model.preprocess.match(profiles)
    is_query = (fitted.split != "train").to_numpy() & (expression.totals > 0)
    expression, seed = expression.take(np.flatnonzero(is_query)).load(), int(fitted.model.config["seed"])
    ratios, rng = (OF_HALF, *RATIOS), np.random.default_rng(seed)
    at_truth = {
        ratio: found["model"] for ratio, found in thinned_cosines(fitted.model, expression, seed, ratios).items()
    }

    def cost(rows: np.ndarray, ratio: int, misread: float) -> tuple[float, int]:
        some = expression.take(rows)
        found = thinned_cosines(fitted.model, some, seed, (ratio,), misread)[ratio]["model"]
        exact = thinned_cosines(fitted.model, some, seed, (ratio,))[ratio]["model"]  # the same thinned inputs
        loss = exact - found
        return float(np.nanmean(loss)), int((~np.isnan(loss)).sum())

    everyone = np.arange(expression.n_profiles)
    for ratio in ratios:
        yield {
            "model": f"true_{ratio}",
            "metric": HELD_OUT,
            "value": float(np.nanmean(at_truth[ratio])),
            "n_profiles": 0,
        }
        for factor in (1.4, 2.0, 1 / 1.4, 0.5):
            loss, n_profiles = cost(everyone, ratio, factor)
            yield {"model": f"factor_{factor:.2f}_{ratio}", "metric": "cost", "value": loss, "n_profiles": n_profiles}
    labels = profiles.obs[label].astype(str).to_numpy()[is_query]
    names = sorted({name for name in labels if (labels == name).sum() >= LEAST_QUERY})
    sets = {"all": everyone} | {name: np.flatnonzero(labels == name) for name in names}
    for number in range(4 if len(names) > 2 else 0):
        half = rng.permutation(names)[: len(names) // 2]
        sets[f"half_{number}"] = np.flatnonzero(np.isin(labels, half))
    for name, rows in sets.items():
        for ratio in ratios:
            times = ratio / OF_HALF
            thinned = expression.take(rows) if ratio == OF_HALF else thin_to(expression.take(rows), 1 / times, rng)
            estimated = fitted.model.depths_of(thinned)[0].ratio
            loss, n_profiles = cost(rows, ratio, estimated / times)
            what = {"model": f"set_{name}_{ratio}", "n_profiles": n_profiles}
            yield what | {"metric": "estimated", "value": estimated / times}
            yield what | {"metric": "cost", "value": loss}


def all_depths(fitted: Fitted, expression: Expression, ratios: tuple[int, ...] = (OF_HALF, *RATIOS)) -> Any:
    """Cosines by ratio and model, from halves and from thinned halves."""
    seed, found = int(fitted.model.config["seed"]), {}
    if OF_HALF in ratios:
        models = predictors(fitted.model, is_half=True)
        rng = np.random.default_rng((seed, 12))
        found[OF_HALF], _ = half_against_half(models, fitted.model.preprocess, expression, rng)
    thin = tuple(ratio for ratio in ratios if ratio != OF_HALF)
    return found | (thinned_cosines(fitted.model, expression, seed, thin) if thin else {})


def _paired(first: str, second: str, one: np.ndarray, other: np.ndarray) -> Iterator[dict[str, Any]]:
    gain = (one - other)[~np.isnan(one - other)]
    error = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else math.nan
    what = {"model": f"{first} - {second}", "n_profiles": len(gain)}
    yield what | {"metric": "gain", "value": float(gain.mean())}
    yield what | {"metric": "gain_error", "value": error}


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--loss", "losses", multiple=True, default=("mse",), show_default=True)
@click.option("--seeds", default=5, show_default=True)
@click.option("--first-seed", default=0, show_default=True)
@click.option("--n-top-genes", default=2000, show_default=True, help="0: all genes.")
@click.option("--latent", default=32, show_default=True)
@click.option("--alone", is_flag=True, help="Also fit estimators for single depths.")
@click.option("--queries", metavar="LABEL", help="Column of obs: what a wrong or an estimated depth costs.")
@click.option("--own-totals", is_flag=True, help="Molecules are counted over the genes of the model only.")
@click.option("-o", "--output", default=Path("truth.csv"), show_default=True, type=click.Path(path_type=Path))
def main(
    data: tuple[Path, ...],
    losses: tuple[str, ...],
    seeds: int,
    first_seed: int,
    n_top_genes: int,
    latent: int,
    alone: bool,
    queries: str | None,
    own_totals: bool,
    output: Path,
) -> None:
    """Fit every data set with every loss and seed, and write one row per number."""
    for path in data:
        profiles = read_profiles(path)
        for loss in losses:
            for seed in range(first_seed, first_seed + seeds):
                settings = Settings(loss=loss, seed=seed, n_latent=latent, n_top_genes=n_top_genes or None)
                start = time.perf_counter()
                some = only_top_genes(profiles, settings) if own_totals else profiles
                fitted = fit(some, settings)
                if queries is not None:
                    rows = list(query_rows(fitted, some, queries))
                else:
                    rows = list(alone_rows(fitted, some, settings) if alone else rows_of(fitted, some))
                table = pd.DataFrame(rows).assign(data=path.stem, loss=loss, seed=seed, genes=n_top_genes)
                table.to_csv(output, mode="a", header=not output.exists(), index=False)
                reached = fitted.evaluation.metrics.query("model == 'model' and split == 'test' and metric == 'skill'")
                click.echo(
                    f"{path.stem} {loss} seed {seed}: skill {reached['value'].iloc[0]:.4f}, "
                    f"{time.perf_counter() - start:.0f} s"
                )
    summary(pd.read_csv(output))


def only_top_genes(profiles: Any, settings: Settings) -> Any:
    """Profiles that consist of the genes of the model alone, as data sets that were reduced to them."""
    from geneae.fitting.prepare import prepare

    genes = prepare(profiles, settings).preprocess.genes
    columns = profiles.genes.get_indexer(genes)
    matrix = profiles.matrix[:, columns].tocsr()
    scan = replace(
        profiles.scan,
        lengths=np.diff(matrix.indptr).astype(np.int32),
        totals=np.asarray(matrix.sum(1), dtype=np.float64).ravel(),
    )
    return replace(profiles, matrix=matrix, genes=genes, scan=scan)


def summary(table: pd.DataFrame) -> None:
    """Print means over seeds, and the smallest gain of any seed."""
    keys = ["data", "genes", "loss"]
    skill = table[table["metric"] == "skill"].pivot_table(index=keys, columns="model", values="value")
    shown = [name for name in (*STEPS, *CONTROLS) if name in skill]
    if len(skill):
        click.echo("Skill, mean over seeds")
        click.echo(skill[shown].round(4).to_string())
    costs = table[table["metric"] == "cost"].groupby(["data", "model"])["value"].mean()
    if len(costs):
        click.echo("Cost in held-out cosine, mean over seeds")
        click.echo(costs.round(5).to_string())
    gains = table[table["metric"] == "gain"].groupby(["data", "genes", "loss", "model"])["value"].agg(["mean", "min"])
    if len(gains):
        click.echo("Paired gain in held-out cosine: mean over seeds, and the smallest seed")
        click.echo(
            gains.reset_index()
            .pivot_table(index=[*keys[1:], "model"], columns="data", values=["mean", "min"])
            .round(5)
            .to_string()
        )


if __name__ == "__main__":
    main()
