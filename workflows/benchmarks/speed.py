"""Speed of geneae beside the same network in plain dense PyTorch, on simulated counts: one command, one table.

    python workflows/benchmarks/speed.py
    python workflows/benchmarks/speed.py --profiles 2000 --genes 5000   # quick

Both networks are genes -> hidden -> latent -> hidden -> genes with the same loss and optimiser; before anything is
timed, their losses and gradients are compared on the same weights. Their epochs alternate, so that whatever else the
machine does meets both, and medians are reported.
"""

import copy
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy import optimize, sparse
from torch import Tensor, nn

from geneae.fitting import fit
from geneae.losses import LossSettings, find_loss
from geneae.network import Network, PlainCore, random_network
from geneae.objectives import Reconstruction
from geneae.pairs import Pairs, PairSource, loss_constants
from geneae.preprocess import column_mean, fit_preprocess
from geneae.products import SparseRows, sparse_product, sparse_rows
from geneae.profiles import Profiles, read_profiles
from geneae.settings import Settings
from geneae.training import train

FACTORS = 12  # rank of the simulated structure
CHUNK = 250  # profiles simulated at a time: 40 MB of rates at 20,000 genes
DENSE_EPOCHS = 5  # what the whole default fit is compared with
MIN_RATIO = 4.0  # geneae over dense, asked for by the project
GENEAE, DENSE = "training, geneae", "training, dense PyTorch"
SAME = 1e-4  # relative difference of losses and gradients: float32 sums in another order


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    """Quantity."""
    value: float
    """Median, where it was repeated."""
    unit: str
    """Of `value`."""
    note: str = ""
    """Range, target, how it was had."""


def simulate(n_profiles: int, n_genes: int, density: float, seed: int) -> Profiles:
    """Poisson counts: log-normal gene means and depths, low-rank structure, about `density` of the values not zero.

    Drawn some profiles at a time and sparse at once; never dense as a whole.
    """
    rng = np.random.default_rng(seed)
    by_gene = rng.normal(0, 2, n_genes).astype(np.float32)
    loadings = rng.normal(0, 0.6 / FACTORS**0.5, (FACTORS, n_genes)).astype(np.float32)
    factors = rng.standard_normal((n_profiles, FACTORS), dtype=np.float32)
    depth = rng.normal(0, 0.35, (n_profiles, 1)).astype(np.float32)

    def rates(rows: slice) -> np.ndarray:
        return np.exp(factors[rows] @ loadings + by_gene + depth[rows])

    first = rates(slice(CHUNK))
    level = optimize.brentq(lambda at: float(-np.expm1(-first * np.exp(at)).mean()) - density, -20, 20)
    blocks = [
        sparse.csr_matrix(rng.poisson(rates(slice(start, start + CHUNK)) * np.exp(level)).astype(np.float32))
        for start in range(0, n_profiles, CHUNK)
    ]
    return read_profiles(sparse.vstack(blocks, format="csr"))


def dense_network(network: Network) -> nn.Sequential:
    """The same layers as `nn.Linear`, with the same weights."""
    core = network.core
    assert isinstance(core, PlainCore)
    n_hidden = len(network.deviation)
    first, last = nn.Linear(network.n_genes, n_hidden), nn.Linear(n_hidden, network.n_genes)
    with torch.no_grad():
        first.weight.copy_(network.encoder_weight.T)
        first.bias.copy_(network.encoder_bias)
        last.weight.copy_(network.decoder_weight)
        last.bias.copy_(network.decoder_bias)
    inner = [
        nn.Dropout(layer.p) if isinstance(layer, nn.Dropout) else copy.deepcopy(layer)
        for layer in (*core.encoder, *core.decoder)
    ]
    return nn.Sequential(first, *inner, last)


def check_same(network: Network, dense: nn.Sequential, matrix: sparse.csr_matrix, objective: Reconstruction) -> None:
    """Refuse to time two networks that do not compute the same loss and gradients."""
    network.eval()
    dense.eval()
    batch = Pairs(network, [matrix]).take(torch.arange(matrix.shape[0]))
    (products,), _ = network(*batch, objective.center)
    sparse_loss = objective(products)
    sparse_loss.backward()
    x = torch.from_numpy(matrix.toarray())
    dense_loss = F.mse_loss(dense(x), x)
    dense_loss.backward()
    gradients = (
        (network.encoder_weight.grad, dense[0].weight.grad.T),
        (network.decoder_weight.grad, dense[-1].weight.grad),
        (network.decoder_bias.grad, dense[-1].bias.grad),
    )
    differences = [abs(sparse_loss.item() / dense_loss.item() - 1)]
    differences += [float((a - b).norm() / b.norm()) for a, b in gradients]
    if max(differences) > SAME:
        raise click.ClickException(
            f"the two networks differ: relative differences {differences} should be below {SAME}."
        )
    network.zero_grad()
    dense.zero_grad()


def geneae_epoch(
    network: Network, source: PairSource, validation: Pairs, objective: Reconstruction, settings: Settings
) -> float:
    """Seconds of one epoch of `geneae.training.train`, as it reports them itself: batches, steps, no validation."""
    history = train(network, source, [validation], objective, replace(settings, epochs=1)).history
    return float(history["train_seconds"].iloc[-1])


def dense_epoch(dense: nn.Sequential, matrix: sparse.csr_matrix, settings: Settings) -> float:
    """Seconds of one epoch of the plain loop: CSR rows made dense batch by batch."""
    optimizer = torch.optim.AdamW(
        dense.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    dense.train()
    start = time.perf_counter()
    for index in torch.randperm(matrix.shape[0]).split(settings.batch_size):
        x = torch.from_numpy(matrix[index.numpy()].toarray())
        loss = F.mse_loss(dense(x), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - start


def products_alone(rows: SparseRows, first: Tensor, last: Tensor) -> float:
    """Seconds of one step's sparse products and nothing else: both gene matrices, forward and backward."""
    first, last = (weight.detach().clone().requires_grad_() for weight in (first, last))
    gradient = torch.ones(rows.n_profiles, first.shape[1])
    start = time.perf_counter()
    for weight in (first, last):
        sparse_product(rows, weight).backward(gradient)
    return time.perf_counter() - start


def training_speed(profiles: Profiles, settings: Settings, repeats: int) -> list[Row]:
    """Profiles per second of geneae, of the dense network and of the sparse products alone, alternating."""
    everything = np.arange(profiles.n_profiles)
    preprocess = fit_preprocess(profiles, everything)
    expression, _ = preprocess.match(profiles)
    matrix = preprocess.apply(expression)
    mean = torch.from_numpy(column_mean(matrix).astype(np.float32))
    network = random_network(mean, settings.n_latent, settings.hidden, settings.dropout)
    dense = dense_network(network)
    few = matrix[: min(256, settings.batch_size)]
    constants = loss_constants([few], mean, "none", LossSettings())
    objective = Reconstruction(find_loss(settings.loss), "none", constants)
    check_same(network, dense, few, objective)
    source = PairSource(network, expression, preprocess, False, 1, settings.seed)
    validation = Pairs(network, [few])
    batch = sparse_rows(matrix[: settings.batch_size], transpose=True)

    def alone() -> float:
        seconds = products_alone(batch, network.encoder_weight, network.decoder_weight)
        return seconds * profiles.n_profiles / batch.n_profiles

    seconds = _alternate(
        {
            GENEAE: lambda: geneae_epoch(network, source, validation, objective, settings),
            DENSE: lambda: dense_epoch(dense, matrix, settings),
            "sparse products alone, the limit": alone,
        },
        repeats,
    )
    rates = {name: [profiles.n_profiles / value for value in values] for name, values in seconds.items()}
    ratios = [a / b for a, b in zip(rates[GENEAE], rates[DENSE], strict=True)]
    rows = [_rate(name, values) for name, values in rates.items()]
    ratio = statistics.median(ratios)
    verdict = "reached" if ratio >= MIN_RATIO else "MISSED"
    note = f"{_range(ratios, '.1f')}; at least {MIN_RATIO:g} asked for: {verdict}"
    return [*rows, Row("geneae over dense", ratio, "x", note)]


def _alternate(tasks: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Seconds by task, one after the other in turn; the first turn warms up and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(repeats + 1):
        for name, task in tasks.items():
            value = task()
            if turn:
                seconds[name].append(value)
    return seconds


def _rate(what: str, values: list[float]) -> Row:
    return Row(what, statistics.median(values), "profiles/s", _range(values, ",.0f"))


def _range(values: list[float], form: str) -> str:
    return f"{min(values):{form}} to {max(values):{form}} in {len(values)} repeats"


def fit_speed(profiles: Profiles, settings: Settings, dense_rate: float) -> list[Row]:
    """Wall time of a whole default fit, beside some epochs of the dense network on its training profiles."""
    start = time.perf_counter()
    moments: list[float] = []
    fitted = fit(profiles, settings, lambda _: moments.append(time.perf_counter()))
    end = time.perf_counter()
    n_train = int((fitted.split == "train").sum())
    seconds, dense_seconds = end - start, DENSE_EPOCHS * n_train / dense_rate
    verdict = "reached" if seconds < dense_seconds else "MISSED"
    return [
        Row(f"whole default fit, {len(moments) - 1} epochs", seconds, "s", f"less than dense asked for: {verdict}"),
        Row("  genes, bases, Wiener factors", moments[0] - start, "s", "until the start is judged"),
        Row("  epochs", moments[-1] - moments[0], "s", "count splits drawn, trained on, judged on validation"),
        Row("  evaluation", end - moments[-1], "s", "model and baselines on validation and test profiles"),
        Row(
            f"{DENSE_EPOCHS} epochs of dense PyTorch",
            dense_seconds,
            "s",
            f"on the fit's {n_train:,} training profiles, scaled from the rate above",
        ),
    ]


def table(rows: list[Row]) -> str:
    """Plain text, a line a row."""
    lines = []
    for row in rows:
        digits = 0 if row.value >= 1000 else 2
        lines.append(f"{row.what:<38} {row.value:>10,.{digits}f} {row.unit:<11} {row.note}".rstrip())
    return "\n".join(lines)


def write(rows: list[Row], facts: dict[str, Any], path: Path) -> None:
    """A JSON file with the facts of the run, or a CSV of the rows alone, by the ending of the name."""
    if path.suffix == ".json":
        path.write_text(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    else:
        pd.DataFrame([asdict(row) for row in rows]).to_csv(path, index=False)


@click.command(context_settings={"show_default": True})
@click.option("--profiles", "n_profiles", default=10_000, help="Simulated profiles.")
@click.option("--genes", "n_genes", default=20_000, help="Simulated genes.")
@click.option("--density", default=0.10, help="Share of values that are not zero.")
@click.option("--batch-size", default=1024, help="Of the training speed; the whole fit takes geneae's default.")
@click.option("--hidden", default=128)
@click.option("--latent", "n_latent", default=32)
@click.option("--threads", default=2)
@click.option("--repeats", default=5, help="Epochs of each network that are timed, after one to warm up.")
@click.option("--fit/--no-fit", "has_fit", default=True, help="Time the whole default fit too.")
@click.option("--seed", default=0)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the rows: .csv or .json.")
def main(
    n_profiles: int,
    n_genes: int,
    density: float,
    batch_size: int,
    hidden: int,
    n_latent: int,
    threads: int,
    repeats: int,
    has_fit: bool,
    seed: int,
    output: Path | None,
) -> None:
    """Measure the training speed of geneae and of plain dense PyTorch on simulated counts."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    load = os.getloadavg()[0]  # of other programs: they slow the sparse products more than the dense
    profiles = simulate(n_profiles, n_genes, density, seed)
    click.echo(profiles.describe())
    sizes = Settings(hidden=hidden, n_latent=n_latent, seed=seed, device="cpu")
    plain = replace(sizes, basis="free", target="self", init="random", batch_size=batch_size)
    rows = training_speed(profiles, plain, repeats)
    if has_fit:
        dense = next(row for row in rows if row.what == DENSE)
        whole = replace(sizes, patience=sizes.epochs)  # no early stop: all epochs are paid for
        rows += fit_speed(profiles, whole, dense.value)
    facts = {"n_profiles": n_profiles, "n_genes": n_genes, "density": profiles.density, "batch_size": batch_size}
    facts |= {"hidden": hidden, "latent": n_latent, "threads": threads, "seed": seed}
    facts |= {
        "torch": torch.__version__,
        "geneae": version("geneae"),
        "machine": platform.machine(),
        "load_before": round(load, 1),
    }
    click.echo(", ".join(f"{name} {value}" for name, value in facts.items()) + "\n\n" + table(rows))
    if output is not None:
        write(rows, facts, output)


if __name__ == "__main__":
    main()
