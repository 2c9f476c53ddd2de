"""How well geneae predicts held-out molecules, beside PCA and shrunken PCA: one markdown table over data and losses.

    python workflows/benchmarks/quality.py DATA... --loss mse --loss cosine --seeds 3 --n-top-genes 2000 --latent 16

Every seed is a split of its own, of profiles and of molecules. All numbers are means over test profiles, which take
part in no choice of the model: for counts the held-out cosine (one half of the molecules predicts the other), for all
other data the cosine with the model's own input, where a higher number may be copied noise. Higher is better. The best
PCA is chosen on the test profiles, in its favour.
"""

import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch

from geneae import Autoencoder
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.evaluation.halves import HeldOutCosines
from geneae.evaluation.records import HELD_OUT, value
from geneae.losses.reconstruction import LOSSES

RIVALS = ("best_pca", "shrunken_pca", "shrunken_full")
TITLES = {
    "data": "data",
    "loss": "loss",
    "n_seeds": "seeds",
    "n_test": "test profiles",
    "compared": "cosine",
    "model": "model",
    "shrunken_pca": "shrunken PCA",
    "shrunken_full": "shrunken PCA, whole rank",
    "pca": "PCA",
    "best_pca": "best PCA",
    "mean_profile": "mean profile",
    "ceiling": "ceiling",
    "over_best_pca": "model - best PCA",
    "over_shrunken_pca": "model - shrunken",
    "over_shrunken_full": "model - shrunken, whole rank",
    "sd_over_shrunken_pca": "its sd over seeds",
    "best_epoch": "best epoch",
    "seconds": "seconds per fit",
}
COUNTED = ("n_seeds", "n_test")
SIGNED = tuple(f"over_{rival}" for rival in RIVALS)
ROUNDED = {"best_epoch": ".0f", "seconds": ".1f"}


def judge(profiles: Profiles, model: Autoencoder) -> dict[str, float | str]:
    """Fit, and the means over the test profiles for model, baselines and ceiling."""
    start = time.perf_counter()
    model.fit(profiles)
    seconds = time.perf_counter() - start
    metrics, has_counts = model.evaluation_.metrics, model.model_.can_hold_out
    metric = HELD_OUT if has_counts else "cosine"
    found = {name: value(metrics, name, "test", metric) for name in ("model", "shrunken_pca", "pca", "mean_profile")}
    sizes = {name: value(metrics, name, "test", metric) for name in metrics["model"].unique() if name.startswith("pca")}
    best = max((name for name in sizes if not np.isnan(sizes[name])), key=lambda name: sizes[name])
    found |= {"best_pca": sizes[best], "shrunken_full": shrunken_full(profiles, model) if has_counts else np.nan}
    found |= {f"over_{rival}": found["model"] - found[rival] for rival in RIVALS}
    return {
        "compared": "held-out" if has_counts else "own input",
        **found,
        "best_pca_is": best,
        "ceiling": value(metrics, "model", "test", "ceiling"),
        "n_test": int((model.split_ == "test").sum()),
        "best_epoch": int(model.model_.config["best_epoch"]),
        "seconds": seconds,
    }


def shrunken_full(profiles: Profiles, model: Autoencoder) -> float:
    """Held-out cosine of shrunken PCA with every component of the basis, on the very halves that judged the model."""
    fitted = model.model_
    half = fitted.baselines.half
    assert half is not None
    whole = replace(fitted, baselines=replace(fitted.baselines, size=half.rank))
    judged = np.flatnonzero(model.split_.isin(["validation", "test"]))  # those, in the order, that `fit` evaluates
    expression = fitted.preprocess.match(profiles)[0].take(judged)
    cosines, _ = HeldOutCosines(whole)(expression)
    is_test = (model.split_.iloc[judged] == "test").to_numpy()
    fitted_model = model.evaluation_.profiles.query("model == 'model' and split == 'test'")[HELD_OUT]
    if not np.allclose(cosines["model"][is_test], fitted_model, equal_nan=True):
        raise click.ClickException("the halves are not those that judged the model; the evaluation has changed.")
    return float(np.nanmean(cosines["shrunken_pca"][is_test]))


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds by data set and loss, in the order of the runs."""
    by_run = table.groupby(["data", "loss", "compared"], sort=False)
    means = by_run.mean(numeric_only=True)
    means["n_seeds"] = by_run.size()
    means["sd_over_shrunken_pca"] = by_run["over_shrunken_pca"].std()
    return means.reset_index()[list(TITLES)]


def markdown(table: pd.DataFrame) -> str:
    """A markdown table of the summary."""
    lines = [" | ".join(TITLES.values()), " | ".join("---" for _ in TITLES)]
    for row in table.to_dict("records"):
        lines.append(" | ".join(_cell(name, cell) for name, cell in row.items()))
    return "\n".join(f"| {line} |" for line in lines)


def _cell(name: str, cell: float | str) -> str:
    if isinstance(cell, str):
        return cell
    if np.isnan(cell):
        return "-"
    if name in COUNTED:
        return f"{cell:,.0f}"
    return f"{cell:{ROUNDED.get(name, '+.4f' if name in SIGNED else '.4f')}}"


@click.command(context_settings={"show_default": True})
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--loss", "losses", multiple=True, default=["mse", "cosine"], type=click.Choice(list(LOSSES)))
@click.option("--seeds", default=3, help="Fits by data set and loss, with seeds 0, 1, ...")
@click.option("--n-top-genes", type=int, help="Most variable genes to keep; all without it.")
@click.option("--latent", "n_latent", type=int, help="Size of the latent; geneae's default without it.")
@click.option("--epochs", type=int, help="Geneae's default without it.")
@click.option("--threads", default=2)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="CSV with one row per fit.")
def main(
    data: tuple[Path, ...],
    losses: tuple[str, ...],
    seeds: int,
    n_top_genes: int | None,
    n_latent: int | None,
    epochs: int | None,
    threads: int,
    output: Path | None,
) -> None:
    """Fit DATA with every loss and seed, and compare with PCA and shrunken PCA on test profiles."""
    torch.set_num_threads(threads)
    chosen = {"n_top_genes": n_top_genes, "n_latent": n_latent, "epochs": epochs}
    settings = {name: choice for name, choice in chosen.items() if choice is not None}
    rows = []
    for path in data:
        profiles = read_profiles(path)
        click.echo(profiles.describe().replace(str(path), path.name), err=True)
        for loss in losses:
            for seed in range(seeds):
                row = judge(profiles, Autoencoder(loss, seed=seed, device="cpu", **settings))
                rows.append({"data": path.stem, "loss": loss, "seed": seed, **settings, **row})
                click.echo(f"{path.stem} {loss} seed {seed}: {_progress(row)}", err=True)
                if output is not None:  # after every fit, so that an interrupted run leaves what it has
                    pd.DataFrame(rows).to_csv(output, index=False)
    click.echo(markdown(summarize(pd.DataFrame(rows))))


def _progress(row: dict[str, float | str]) -> str:
    return ", ".join(f"{name} {_cell(name, row[name])}" for name in ("model", *SIGNED, "best_epoch", "seconds"))


if __name__ == "__main__":
    main()
