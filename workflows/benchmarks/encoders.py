"""How much encoders trained on views know of labels they have never seen: one markdown table over data and objectives.

    python workflows/benchmarks/encoders.py DATA... --label cell_type --seeds 5
    python workflows/benchmarks/encoders.py data/immune_559.h5ad --clusters --seeds 5

Every seed is a split, a start and an order of its own. Numbers are weighted k-NN accuracies of test profiles, whose
labels the training profiles vote for (k = 20, and 200 in brackets); higher is better. Differences are paired: of the
same test profiles with the same seed, mean over seeds with the 95 % interval of Student's t. Nothing is chosen by
labels: the last epoch is taken. Data without the label are trained on all the same, and say how the loss and the views
went; with `--clusters` they get labels, Leiden clusters of their principal components. Such labels favour PCA, and the
raw input that it is made of: what they can show is whether an encoder has learned more than a random one.
"""

from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from scipy import stats

from geneae.data.preprocess import fit_preprocess
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.evaluation.controls import supervised_control, untrained_controls
from geneae.evaluation.judge import JudgingData
from geneae.evaluation.labels import NEIGHBOURS, Labelled, clusters, knn_is_right, labelled
from geneae.evaluation.latents import encode
from geneae.fitting.fit import Fitted, fit
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.pca import fit_basis
from geneae.settings.settings import Settings
from geneae.training.monitor import effective_rank
from geneae.training.selfsupervised import OBJECTIVES

RANDOM, PCA = "random_encoder", "pca"
N_COMPONENTS = 30  # that profiles are clustered by


def label_profiles(profiles: Profiles, fitted: Fitted, label: str, settings: Settings) -> Labelled:
    """Profiles with labels in the genes and splits of a fit."""
    preprocess = fitted.model.preprocess
    data = JudgingData(settings, profiles.obs, fitted.split, preprocess.match(profiles)[0], preprocess, False)
    return labelled(data, label)


def cluster(profiles: Profiles) -> np.ndarray:
    """(n_profiles,) Leiden clusters of the first 30 principal components of all profiles, as scanpy makes them."""
    preprocess = fit_preprocess(profiles, np.arange(profiles.n_profiles))
    matrix = preprocess.apply(preprocess.match(profiles)[0])
    basis = fit_basis([matrix], N_COMPONENTS, seed=0)
    return clusters(basis.scores(sparse_rows(matrix)).numpy(), seed=0)


def judge_seed(profiles: Profiles, base: Settings, objectives: list[str], label: str) -> list[dict[str, object]]:
    """A row for each objective and control: k-NN accuracies on the test profiles of one seed."""
    latents, known = {}, None
    for objective in objectives:
        fitted = fit(profiles, replace(base, objective=objective))
        if known is None:  # genes and split are those of the seed, whatever the objective
            known = label_profiles(profiles, fitted, label, base)
            train, baselines = known.among("train"), fitted.model.baselines
            latents["supervised"] = supervised_control(known.matrix, known.labels, train, baselines, base)
            latents |= untrained_controls(known.matrix, baselines, base)
        latents[objective] = encode(fitted.model.network, known.matrix, fitted.model.shift(is_half=False))
    assert known is not None
    test = known.among("test")
    rows: list[dict[str, object]] = []
    for model, values in latents.items():
        right = {f"knn_{k}": float(knn_is_right(known, values, "test", k).mean()) for k in NEIGHBOURS}
        rank = effective_rank(torch.from_numpy(values[test])) if isinstance(values, np.ndarray) else np.nan
        rows.append({"model": model, "seed": base.seed, "n_test": len(test), **right, "effective_rank": rank})
    return rows


def difference(table: pd.DataFrame, model: str, rival: str) -> str:
    """Of 20-NN accuracy, paired by seed, with its 95 % interval."""
    by_seed = table.pivot_table(index="seed", columns="model", values="knn_20")
    differences = (by_seed[model] - by_seed[rival]).to_numpy()
    if len(differences) < 2:
        return f"{differences.mean():+.3f}"
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    width = float(stats.t.ppf(0.975, len(differences) - 1) * error)
    return f"{differences.mean():+.3f} ({differences.mean() - width:+.3f} to {differences.mean() + width:+.3f})"


def markdown(table: pd.DataFrame) -> str:
    """Means over seeds, differences to the random encoder and to PCA, and the effective rank of the latents."""
    lines = ["| data | encoder | 20-NN (200-NN) | - random encoder | - PCA | rank |", "|---|---|---|---|---|---|"]
    for data, of_data in table.groupby("data", sort=False):
        for model in of_data["model"].unique():
            means = of_data.loc[of_data["model"] == model, ["knn_20", "knn_200", "effective_rank"]].mean()
            others = [difference(of_data, model, rival) if model != rival else "" for rival in (RANDOM, PCA)]
            cells = [str(data), str(model), f"{means['knn_20']:.3f} ({means['knn_200']:.3f})", *others]
            cells.append(f"{means['effective_rank']:.1f}" if means["effective_rank"] > 0 else "")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def describe_training(profiles: Profiles, base: Settings, objectives: list[str]) -> str:
    """Loss and views of validation profiles at start and end, for data without labels."""
    lines = ["| encoder | validation loss | cosine of views | effective rank of the latent |", "|---|---|---|---|"]
    for objective in objectives:
        fitted = fit(profiles, replace(base, objective=objective))
        start, end = fitted.history.iloc[0], fitted.history.iloc[-1]
        metrics = fitted.evaluation.metrics
        rank = metrics.loc[(metrics["metric"] == "effective_rank") & (metrics["split"] == "test"), "value"].iloc[0]
        pairs = [f"{start[name]:.3f} to {end[name]:.3f}" for name in ("validation_loss", "view_cosine")]
        lines.append(f"| {objective} | {' | '.join(pairs)} | {rank:.1f} |")
    return "\n".join(lines)


@click.command(context_settings={"show_default": True})
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--label", default="cell_type", help="Column of obs that latents are judged by.")
@click.option("--clusters", "is_clustered", is_flag=True, help="Where it is missing, Leiden clusters take its place.")
@click.option("--objective", "objectives", multiple=True, default=list(OBJECTIVES))
@click.option("--seeds", default=5, help="Seeds 0, 1, ...")
@click.option("--test", default=0.2, help="Share of the profiles that are judged.")
@click.option("--epochs", default=100)
@click.option("--batch-size", default=128)
@click.option("--learning-rate", default=1e-3)
@click.option("--n-top-genes", default=2000, help="Genes of largest variance that are kept, at most.")
@click.option("--views", default="auto")
@click.option("--basis", default="free", help="free has a random start here, pca starts at PCA.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="CSV with one row per encoder.")
def main(
    data: tuple[Path, ...],
    label: str,
    is_clustered: bool,
    objectives: tuple[str, ...],
    seeds: int,
    test: float,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    n_top_genes: int,
    views: str,
    basis: str,
    output: Path | None,
) -> None:
    """Train encoders on DATA with every objective and seed, and judge them by labels."""
    torch.set_num_threads(1)
    base = Settings(
        test=test,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        n_top_genes=n_top_genes,
        views=views,
        basis=basis,
        init="random" if basis == "free" else "pca",
        device="cpu",
    )
    rows: list[dict[str, object]] = []
    for path in data:
        profiles = read_profiles(path)
        if label not in profiles.obs.columns and is_clustered:
            profiles = replace(profiles, obs=profiles.obs.assign(**{label: cluster(profiles)}))
            click.echo(f"{path.name} is labelled by {profiles.obs[label].nunique()} Leiden clusters of its PCA.")
        if label not in profiles.obs.columns:
            click.echo(f"{path.name} has no labels '{label}':\n{describe_training(profiles, base, list(objectives))}\n")
            continue
        for seed in range(seeds):
            found = judge_seed(profiles, replace(base, seed=seed), list(objectives), label)
            rows += [{"data": path.stem, **row} for row in found]
            click.echo(f"{path.stem}, seed {seed}: done", err=True)
            if output is not None:  # after every seed, so that an interrupted run leaves what it has
                pd.DataFrame(rows).to_csv(output, index=False)
    if rows:
        table = pd.DataFrame(rows)
        sizes = table.groupby("data", sort=False)["n_test"].mean()
        click.echo(", ".join(f"{name}: {size:.0f} test profiles a seed" for name, size in sizes.items()))
        click.echo(markdown(table))


if __name__ == "__main__":
    main()
