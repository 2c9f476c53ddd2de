"""Speed of geneae beside what people would use instead, on the same data in the same run: one command, one table.

    python workflows/benchmarks/speed.py --scvi-python PYTHON_OF_SCVI
    python workflows/benchmarks/speed.py --profiles 2000 --genes 5000 --batch-size 1024   # quick
    python workflows/benchmarks/speed.py DATA.h5ad                                        # real counts instead

geneae and plain dense PyTorch are genes -> hidden -> latent -> hidden -> genes with the same loss and optimiser; before
anything is timed, their losses and gradients are compared on the same weights. Their epochs alternate, so that whatever
else the machine does meets both, and medians are reported. Only ratios within a run mean anything.
"""

import copy
import json
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import anndata
import click
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from dense import dense_network
from measuring import FOLDER, OUTPUT, Row, alternate, facts, judged, rate_row, run, show, spread
from reading import reading_speed
from scipy import sparse
from simulated import simulate
from time_to_quality import decomposition_seconds
from torch import Tensor, nn

from geneae.data.preprocess import column_mean, fit_preprocess
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.fitting.fit import fit
from geneae.losses.names import find_loss
from geneae.losses.reconstruction import LossSettings
from geneae.losses.sparse_rows import SparseRows, sparse_product, sparse_rows
from geneae.models.network import Network, random_network
from geneae.settings.settings import Settings
from geneae.training.batches import CountSplits, Pairs, PairSource, loss_constants
from geneae.training.loop import TrainingPlan, train
from geneae.training.objectives import Reconstruction
from geneae.training.validation import validate

DENSE_EPOCHS = 5  # what the whole default fit is compared with
OVER_DENSE, OVER_SCVI, FIT_OVER_SCVI = 5.0, 15.0, 40.0  # ratios of profiles per second asked for
OVER_LIMIT = 1.5  # times the sparse products alone, asked for
GENEAE, DENSE = "geneae, basis free", "plain dense PyTorch"
KEPT = "dense PyTorch, with memory kept between steps as geneae keeps it"
PLAIN, PANELS = "sparse products alone, rows as they are", "sparse products alone, as geneae lays them out"
FIT = "geneae, whole default fit"
SCVI_MODELS = ("SCVI", "LinearSCVI")
SAME = 1e-4  # relative difference of losses and gradients: float32 sums in another order


def check_same(network: Network, dense: nn.Sequential, matrix: sparse.csr_matrix, objective: Reconstruction) -> None:
    """Refuse to time two networks that do not compute the same loss and gradients."""
    network.eval()
    dense.eval()
    batch = Pairs(network, [matrix]).take(torch.arange(matrix.shape[0]))
    sparse_loss = objective(objective.see(network, batch))
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
    """Seconds of one epoch of `geneae.training.loop.train`, as it reports them: batches, steps, no validation."""
    plan = TrainingPlan(source, partial(validate, pairs=[validation], objective=objective), objective)
    history = train(network, plan, replace(settings, epochs=1)).history
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


class Apart:
    """The plain loop in a process of its own, where nothing of geneae's has told the allocator to keep memory."""

    def __init__(self, dense: nn.Sequential, matrix: sparse.csr_matrix, settings: Settings) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (torch.get_num_threads(),))
        with tempfile.NamedTemporaryFile(suffix=".npz", delete=False) as file:
            sparse.save_npz(file, matrix, compressed=False)
        self._given = copy.deepcopy(dense), Path(file.name), settings

    def epoch(self) -> float:
        """Seconds of one epoch, as the other process counts them."""
        return self._pool.submit(_epoch_apart, *self._given).result()

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()
        self._given[1].unlink()


_MATRICES: dict[Path, sparse.csr_matrix] = {}


def _epoch_apart(dense: nn.Sequential, path: Path, settings: Settings) -> float:
    if path not in _MATRICES:
        _MATRICES[path] = sparse.load_npz(path)
    return dense_epoch(dense, _MATRICES[path], settings)


def products_alone(rows: SparseRows, first: Tensor, last: Tensor) -> float:
    """Seconds of one step's sparse products and nothing else: both gene matrices, forward and backward."""
    first, last = (weight.detach().clone().requires_grad_() for weight in (first, last))
    gradient = torch.ones(rows.n_profiles, first.shape[1])
    start = time.perf_counter()
    for weight in (first, last):
        sparse_product(rows, weight).backward(gradient)
    return time.perf_counter() - start


def training_speed(profiles: Profiles, settings: Settings, repeats: int, setting: str) -> list[Row]:
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
    source = PairSource(network, expression, preprocess, CountSplits(False, 1, settings.seed))
    validation = Pairs(network, [few])
    plain = sparse_rows(matrix[: settings.batch_size], transpose=True)
    panels = source.epoch(1).take(torch.arange(plain.n_profiles)).inputs
    assert isinstance(panels, SparseRows)

    def alone(rows: SparseRows) -> float:
        seconds = products_alone(rows, network.encoder_weight, network.decoder_weight)
        return seconds * profiles.n_profiles / rows.n_profiles

    apart = Apart(dense, matrix, settings)
    seconds = alternate(
        {
            GENEAE: lambda: geneae_epoch(network, source, validation, objective, settings),
            DENSE: apart.epoch,
            KEPT: lambda: dense_epoch(dense, matrix, settings),
            PLAIN: lambda: alone(plain),
            PANELS: lambda: alone(panels),
        },
        repeats,
    )
    apart.close()
    rows = [
        rate_row(who, [profiles.n_profiles / value for value in values], setting) for who, values in seconds.items()
    ]
    over_dense = [b / a for a, b in zip(seconds[GENEAE], seconds[DENSE], strict=True)]
    target = judged(statistics.median(over_dense), OVER_DENSE, at_least=True)
    rows.append(
        Row("  over dense", statistics.median(over_dense), "x", f"{spread(over_dense, '.1f')}; {target}", setting)
    )
    over_kept = [b / a for a, b in zip(seconds[GENEAE], seconds[KEPT], strict=True)]
    rows.append(
        Row("  over dense with memory kept", statistics.median(over_kept), "x", spread(over_kept, ".1f"), setting)
    )
    for limit in (PLAIN, PANELS):
        ratio = statistics.median(a / b for a, b in zip(seconds[GENEAE], seconds[limit], strict=True))
        rows.append(Row(f"  time over {limit}", ratio, "x", judged(ratio, OVER_LIMIT, at_least=False), setting))
    return rows


def fit_speed(profiles: Profiles, settings: Settings, dense_rate: float, setting: str) -> list[Row]:
    """A whole default fit: its wall time by part, beside some epochs of the dense network, and profiles per second."""
    start = time.perf_counter()
    moments: list[float] = []
    fitted = fit(profiles, settings, lambda _: moments.append(time.perf_counter()))
    end = time.perf_counter()
    n_train, epochs = int((fitted.split == "train").sum()), len(moments) - 1
    seconds, dense_seconds = end - start, DENSE_EPOCHS * n_train / dense_rate
    target = judged(seconds, dense_seconds, at_least=False)
    parts = {
        "genes, bases, Wiener factors": moments[0] - start,
        "epochs": moments[-1] - moments[0],
        "evaluation": end - moments[-1],
    }
    return [
        Row(FIT, n_train * epochs / seconds, "profiles/s", f"{epochs} epochs, everything counted", setting),
        Row("  its wall time", seconds, "s", f"{DENSE_EPOCHS} epochs of dense PyTorch: {target}", setting),
        *(Row(f"  {part}", value, "s", "", setting) for part, value in parts.items()),
    ]


def scvi_speed(python: str, counts: Path, name: str, settings: Settings, threads: int, setting: str) -> Row:
    """Profiles per second of a model of scvi-tools, in an environment of its own."""
    command = [python, str(FOLDER / "scvi_speed.py"), str(counts), "--model", name]
    for flag, size in (
        ("--batch-size", settings.batch_size),
        ("--hidden", settings.hidden),
        ("--latent", settings.n_latent),
        ("--threads", threads),
    ):
        command += [flag, str(size)]
    found = json.loads(run(command).output.splitlines()[-1])
    return rate_row(f"scvi-tools {found['scvi']}, {name}", found["rates"], setting)


def over_scvi(rows: list[Row], setting: str) -> list[Row]:
    """Ratios of geneae, and of its whole fit, over SCVI."""
    rates = {row.what: row.value for row in rows}
    scvi = next(rate for name, rate in rates.items() if name.endswith(", SCVI"))
    return [
        Row(f"  {name}, over SCVI", rates[name] / scvi, "x", judged(rates[name] / scvi, limit, at_least=True), setting)
        for name, limit in ((GENEAE, OVER_SCVI), (FIT, FIT_OVER_SCVI))
        if name in rates
    ]


def write_counts(profiles: Profiles, path: Path) -> None:
    """The counts as others read them."""
    genes = pd.DataFrame(index=pd.Index(profiles.genes.astype(str)))
    anndata.AnnData(profiles.matrix, pd.DataFrame(index=profiles.names), genes).write_h5ad(path)


@click.command(context_settings={"show_default": True})
@click.argument("data", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--profiles", "n_profiles", default=10_000, help="Simulated profiles.")
@click.option("--genes", multiple=True, default=[20_000, 2_000], help="Simulated genes.")
@click.option("--density", "densities", multiple=True, default=[0.10], help="Share of values that are not zero.")
@click.option("--batch-size", "batch_sizes", multiple=True, default=[1024, 128])
@click.option("--hidden", default=128)
@click.option("--latent", "n_latent", default=32)
@click.option("--threads", default=2)
@click.option("--repeats", default=5, help="Epochs of each network that are timed, after one to warm up.")
@click.option("--fit/--no-fit", "has_fit", default=True, help="Time the whole default fit too.")
@click.option("--scvi-python", help="Python of an environment with scvi-tools; left out without it.")
@click.option("--pca/--no-pca", "has_pca", default=True, help="Time PCA and TruncatedSVD of scikit-learn too.")
@click.option("--reading/--no-reading", "has_reading", default=True, help="Time reading alone too.")
@click.option("--seed", default=0)
@OUTPUT
def main(
    data: tuple[Path, ...],
    n_profiles: int,
    genes: tuple[int, ...],
    densities: tuple[float, ...],
    batch_sizes: tuple[int, ...],
    hidden: int,
    n_latent: int,
    threads: int,
    repeats: int,
    has_fit: bool,
    scvi_python: str | None,
    has_pca: bool,
    has_reading: bool,
    seed: int,
    output: Path | None,
) -> None:
    """Measure geneae beside dense PyTorch, scvi-tools, scikit-learn and reading alone, on DATA or simulated counts."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    about = facts(hidden=hidden, latent=n_latent, threads=threads, seed=seed)
    sizes = Settings(hidden=hidden, n_latent=n_latent, seed=seed, device="cpu")
    rows: list[Row] = []

    def measure(profiles: Profiles, name: str) -> None:
        counts = Path(scratch) / "counts.h5ad"
        write_counts(profiles, counts)
        whole: list[Row] = []
        for batch_size in batch_sizes:
            setting = f"{name}, {profiles.n_profiles:,} x {profiles.n_genes:,}, {profiles.density:.1%} not zero, batch "
            setting += f"{batch_size:,}"
            plain = replace(sizes, basis="free", target="self", init="random", batch_size=batch_size)
            found = training_speed(profiles, plain, repeats, setting)
            if has_fit and not whole:  # its batches are its own: once for all
                dense = next(row for row in found if row.what == DENSE)
                whole = fit_speed(profiles, replace(sizes, patience=sizes.epochs), dense.value, setting)
            found += [replace(row, setting=setting) for row in whole]
            if scvi_python is not None:
                found += [scvi_speed(scvi_python, counts, model, plain, threads, setting) for model in SCVI_MODELS]
                found += over_scvi(found, setting)
            if has_reading:
                found += reading_speed(counts, batch_size, setting)
            rows.extend(found)
        if has_pca:
            preprocess = fit_preprocess(profiles, np.arange(profiles.n_profiles))
            matrix = preprocess.apply(preprocess.match(profiles)[0])
            for what, seconds in decomposition_seconds(matrix, n_latent, repeats=1).items():
                rows.append(Row(what, statistics.median(seconds), "s", "", f"{name}, decompositions"))
        show(rows, about, output)  # after every data set, so that an interrupted run leaves what it has

    with tempfile.TemporaryDirectory() as scratch:
        for path in data:
            measure(read_profiles(path), path.stem)
        if not data:
            for n_genes in genes:
                for density in densities:
                    blocks = simulate(n_profiles, n_genes, density, seed, threads)
                    measure(read_profiles(sparse.vstack(list(blocks), format="csr")), "simulated")


if __name__ == "__main__":
    main()
