"""Does cut-initialisation speed SimSiam up, and is that more than a higher learning rate?

    python workflows/benchmarks/cut_simsiam.py --seeds 5
    python workflows/benchmarks/cut_simsiam.py --seeds 5 --optimizer sgd-momentum --learning-rate 0.05

Simulated counts (negative binomial, 12 kinds of profiles, 800 genes, 400 molecules), 16 epochs. Three arms: no cut; the
plain cut, which divides every parameter of encoder and heads by 3; and no cut at the learning rate that is to match it.
A weight whose scale the next normalisation undoes gets a gradient three times as large after a cut by 3. Gradient
descent makes a step three times as large of it, and nine times as large relative to the weight: a rate times 9 does the
same. AdamW does not see the size of a gradient: a rate times 3. Numbers are weighted 20-NN accuracies of test profiles.
Higher is better; intervals are Student's t over seeds.
"""

from dataclasses import replace

import anndata
import click
import numpy as np
import pandas as pd
import torch
from scipy import sparse, stats

from geneae.data.augment import Viewer, parse_views
from geneae.data.preprocess import column_mean, column_variance, fit_preprocess
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.data.splits import split_profiles
from geneae.evaluation.judge import JudgingData
from geneae.evaluation.labels import knn_is_right, labelled
from geneae.evaluation.latents import encode
from geneae.models.heads import cut_plainly
from geneae.models.network import Network, random_network
from geneae.settings.settings import OPTIMIZERS, Settings
from geneae.training.devices import Processes
from geneae.training.loop import TrainingPlan, train
from geneae.training.selfsupervised import SimSiam, Sizes
from geneae.training.view_batches import ViewSource, validation_views

N_GENES, N_KINDS, DEPTH, DISPERSION = 800, 12, 400.0, 2.0
SPREAD = 0.5  # deviation of the log rates of the kinds around what they share
SHOWN = (1, 2, 4, 8, 16)
NO_CUT, CUT = "no cut", 3.0
MATCHED = {"adamw": CUT, "sgd": CUT**2, "sgd-momentum": CUT**2}  # factors of the learning rate


def simulate(n_profiles: int, seed: int) -> Profiles:
    """Negative binomial counts of profiles of 12 kinds."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(0, 1.5, N_GENES)
    rates = np.exp(shared + rng.normal(0, SPREAD, (N_KINDS, N_GENES)))
    rates /= rates.sum(1, keepdims=True)
    kinds = rng.integers(N_KINDS, size=n_profiles)
    molecules = DEPTH * rng.lognormal(0, 0.3, (n_profiles, 1))
    mean = rates[kinds] * molecules * rng.gamma(DISPERSION, 1 / DISPERSION, (n_profiles, N_GENES))
    obs = pd.DataFrame({"kind": kinds.astype(str)}, index=[f"p{i}" for i in range(n_profiles)])
    return read_profiles(anndata.AnnData(sparse.csr_matrix(rng.poisson(mean).astype(np.float32)), obs=obs))


def accuracies(profiles: Profiles, settings: Settings, cut: float, views: str) -> list[float]:
    """Test accuracy at the start and after every epoch of one training."""
    split = split_profiles(profiles.obs, settings.validation, settings.test, seed=settings.seed)
    rows = {name: np.flatnonzero(split == name) for name in ("train", "validation")}
    preprocess = fit_preprocess(profiles, rows["train"])
    expression, _ = preprocess.match(profiles)
    known = labelled(JudgingData(settings, profiles.obs, split, expression, preprocess, has_decoder=False), "kind")
    matrix = preprocess.apply(expression.take(rows["train"]))
    torch.manual_seed(settings.seed)
    mean = torch.from_numpy(column_mean(matrix).astype(np.float32))
    network = random_network(mean, settings.n_latent, settings.hidden, settings.dropout)
    network.drop_decoder()
    objective = SimSiam(Sizes(settings.n_latent, settings.hidden, len(rows["train"])))
    cut_plainly(network, cut)
    cut_plainly(objective, cut)
    viewer = Viewer(parse_views(views, profiles.state), preprocess, np.sqrt(column_variance(matrix)))
    source = ViewSource(network, expression.take(rows["train"]), viewer, settings.batch_size, settings.seed)
    batches = validation_views(viewer, expression.take(rows["validation"]), settings.batch_size, settings.seed)
    found: list[float] = []

    def validate(network: Network, _: Processes) -> tuple[torch.Tensor, dict[str, float]]:
        found.append(float(knn_is_right(known, encode(network, known.matrix), "test", 20).mean()))
        return objective.validate(network, batches)

    train(network, TrainingPlan(source, validate, objective), settings)
    return found


def interval(values: np.ndarray) -> str:
    """Mean with its 95 % interval."""
    if len(values) < 2:
        return f"{values.mean():+.3f}"
    width = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return f"{values.mean():+.3f} ({values.mean() - width:+.3f} to {values.mean() + width:+.3f})"


@click.command(context_settings={"show_default": True})
@click.option("--seeds", default=5)
@click.option("--profiles", "n_profiles", default=5000)
@click.option("--epochs", default=16)
@click.option("--optimizer", default="adamw", type=click.Choice(OPTIMIZERS))
@click.option("--learning-rate", default=1e-3)
@click.option("--views", default="mask:0.5+noise:0.2")
def main(seeds: int, n_profiles: int, epochs: int, optimizer: str, learning_rate: float, views: str) -> None:
    """Train SimSiam with and without cut, and with the learning rate that is to match it."""
    torch.set_num_threads(1)
    base = Settings(
        objective="simsiam",
        n_latent=64,
        hidden=256,
        dropout=0.0,
        weight_decay=0.0,
        epochs=epochs,
        optimizer=optimizer,
        device="cpu",
        test=0.2,
    )
    matched = f"no cut, learning rate x {MATCHED[optimizer]:g}"
    arms = {NO_CUT: (1.0, 1.0), f"plain cut by {CUT:g}": (CUT, 1.0), matched: (1.0, MATCHED[optimizer])}
    curves: dict[str, list[list[float]]] = {name: [] for name in arms}
    for seed in range(seeds):
        data = simulate(n_profiles, seed)
        for name, (cut, factor) in arms.items():
            settings = replace(base, seed=seed, learning_rate=learning_rate * factor)
            curves[name].append(accuracies(data, settings, cut, views))
            click.echo(f"seed {seed}, {name}: {curves[name][-1][-1]:.3f}", err=True)
    shown = [epoch for epoch in SHOWN if epoch <= epochs]
    click.echo(f"| arm | start | {' | '.join(f'epoch {epoch}' for epoch in shown)} | last - no cut |")
    click.echo(f"|---|{'---|' * (len(shown) + 2)}")
    last = {name: np.array([curve[-1] for curve in several]) for name, several in curves.items()}
    for name, several in curves.items():
        means = np.mean(several, axis=0)
        against = interval(last[name] - last[NO_CUT]) if name != NO_CUT else ""
        click.echo(f"| {name} | {' | '.join(f'{means[epoch]:.3f}' for epoch in (0, *shown))} | {against} |")
    _, cut, same = last.values()
    click.echo(f"cut - matched learning rate, last epoch: {interval(cut - same)}")


if __name__ == "__main__":
    main()
