"""What does a GPU give a user, and does it give the same?

    python workflows/benchmarks/gpu.py           # at most seven minutes
    python workflows/benchmarks/gpu.py --quick   # small; where there is no GPU it compares the CPU with itself

Four parts. The tests of `tests/test_gpu.py`: the same bits twice and after an interruption, the losses of the CPU to
the documented tolerance. Sparse products: the four of a training step in a free basis, by every way of laying a
mini-batch out, the taking of the mini-batch included. Steps: whole epochs in a free basis beside plain dense PyTorch,
and what the memory bandwidth of the card would allow. Commands: `geneae fit --device cuda` beside `--device cpu`, every
one in a process of its own, so that its seconds are what a user waits: reading, bases and judging are on the CPU
whatever the device. Data are simulated counts. Only ratios within a run mean anything, and they compare one card with
the cores of its machine. It ends with exit code 1 where a test fails.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from dense import dense_network
from measuring import FOLDER, OUTPUT, Command, Row, alternate, facts, rate_row, run, show, spread, table
from scipy import sparse
from simulated import simulate, write_simulated
from torch import Tensor

import geneae.losses.device_rows
from geneae.data.preprocess import column_mean, fit_preprocess
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.losses.device_rows import DeviceStore
from geneae.losses.names import find_loss
from geneae.losses.reconstruction import LossSettings
from geneae.losses.sparse_rows import RowStore, plain_product, transposed_product
from geneae.models.network import Network, random_network
from geneae.settings.settings import Settings
from geneae.training.batches import CountSplits, Pairs, PairSource, loss_constants
from geneae.training.loop import TrainingPlan, train
from geneae.training.objectives import Reconstruction
from geneae.training.validation import validate

SMALL = 5_000, 2_000  # profiles and genes of the commands
WIDE, BATCHES = (16_384, 20_000), (1024, 4096, 16_384)  # profiles and genes of products and steps
QUICK, QUICK_BATCHES = (600, 300), (128, 512)
DENSITY, SPARSER = 0.1, 0.02  # share of values that are not zero; the latter for the products alone, too
HIDDEN, LATENT = 128, 32
REPEATS = 3  # after one to warm up
PASSES = 9  # over a learned matrix in a step: read, gradient written and read, AdamW's three tensors read and written
PEAK = "peak memory of the device in MB:"
MEASURED = f"""
import atexit

def say():
    import torch
    used = torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_initialized() else 0
    print("{PEAK}", used)

atexit.register(say)
from geneae.cli.main import main
main()
"""
"""`geneae`, which says at its end how much memory of the device its tensors took."""


def waited(task: Callable[[], object], device: torch.device) -> float:
    """Seconds of a task until the device has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    task()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


# tests


def run_tests() -> list[Row]:
    """Tests of a GPU: how many passed, in how many seconds."""
    path = FOLDER.parent.parent / "tests" / "test_gpu.py"
    start = time.perf_counter()
    command = [sys.executable, "-m", "pytest", str(path), "-q", "-n", str(min(16, os.cpu_count() or 1))]
    command += [
        "-p",
        "no:cacheprovider",
        "-p",
        "no:benchmark",
    ]  # pytest-benchmark, where it is, refuses several processes
    found = subprocess.run(command, capture_output=True, text=True, cwd=path.parent.parent)
    click.echo(found.stdout[-6000:] + found.stderr[-2000:], err=True)
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error|skipped)", found.stdout)}
    note = f"{time.perf_counter() - start:.0f} s; " + ("" if not found.returncode else "BROKEN")
    setting = "tests of tests/test_gpu.py"
    return [Row(f"tests {word}", number, "", note, setting) for word, number in counts.items()] or [
        Row("tests", 0, "", "none ran: BROKEN", setting)
    ]


# products


class Bags:
    """Mini-batches taken on the device, sparse, with their transpose, for `embedding_bag` or cuSPARSE."""

    def __init__(self, store: DeviceStore) -> None:
        self._store = store

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Starts, columns and values of the rows; starts, rows and values of the genes."""
        n_genes, (profile, columns, values) = self._store.n_genes, self._store.entries(rows)
        order = columns.argsort(stable=True)
        device = values.device
        starts = torch.searchsorted(profile, torch.arange(len(rows) + 1, device=device))
        by_gene = torch.searchsorted(columns[order], torch.arange(n_genes + 1, device=device))
        return starts, columns.long(), values, by_gene, profile[order], values[order]


def by_bags(parts: tuple[Tensor, ...], weight: Tensor, given: Tensor) -> Tensor:
    """Both products by `embedding_bag`."""
    for starts, indices, values, dense in ((*parts[:3], weight), (*parts[3:], given)):
        found = F.embedding_bag(indices, dense, starts, mode="sum", per_sample_weights=values, include_last_offset=True)
    return found


def by_cusparse(parts: tuple[Tensor, ...], weight: Tensor, given: Tensor) -> Tensor:
    """Both products by `torch.sparse`."""
    shape = len(given), len(weight)
    for starts, indices, values, dense, size in ((*parts[:3], weight, shape), (*parts[3:], given, shape[::-1])):
        found = torch.sparse_csr_tensor(starts, indices, values, size) @ dense
    return found


def by_dense(values: Tensor, weight: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """Both products by dense matrix products."""
    return values @ weight, values.T @ given


def product_rows(matrix: sparse.csr_matrix, batches: tuple[int, ...], device: torch.device) -> list[Row]:
    """Milliseconds of the four sparse products of a step, with the taking of its mini-batch, by layout."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(matrix.shape[1], HIDDEN, generator=generator).to(device)
    host, there = RowStore(matrix), DeviceStore(matrix, device, 2**40)
    bags = Bags(there)
    compiled = torch.compile(by_dense)
    rows: list[Row] = []
    for size in batches:
        index = torch.randperm(matrix.shape[0], generator=generator)[:size]
        given = torch.randn(size, HIDDEN, generator=generator).to(device)

        def host_panels(index: Tensor = index, given: Tensor = given) -> None:
            batch = host.take(index).to(device)
            for _ in range(2):
                plain_product(batch, weight)
                transposed_product(batch, given)

        def on_device(
            multiply: Callable[[tuple[Tensor, ...], Tensor, Tensor], Tensor],
            index: Tensor = index,
            given: Tensor = given,
        ) -> None:
            parts = bags.take(index)
            for _ in range(2):
                multiply(parts, weight, given)

        def dense(
            dtype: torch.dtype, multiply: Callable[..., object], index: Tensor = index, given: Tensor = given
        ) -> None:
            batch = there.take(index).to(device, dtype)
            assert batch.frequent is not None
            values = batch.frequent.values  # noqa: PD011 - a tensor
            for _ in range(2):
                multiply(values, weight.to(dtype), given.to(dtype))

        ways = {
            "panels taken on the CPU, embedding_bag": host_panels,
            "taken on the card, embedding_bag": partial(on_device, by_bags),
            "taken on the card, torch.sparse (cuSPARSE)": partial(on_device, by_cusparse),
            "made dense on the card, fp32 (geneae)": partial(dense, torch.float32, by_dense),
            "made dense on the card, fp32, torch.compile": partial(dense, torch.float32, compiled),
            "made dense on the card, bf16": partial(dense, torch.bfloat16, by_dense),
        }
        setting = f"four products of a step, {size:,} of {matrix.shape[0]:,} x {matrix.shape[1]:,}, "
        setting += f"{matrix.nnz / np.prod(matrix.shape):.0%} not zero, {HIDDEN} columns"
        for name, way in ways.items():
            try:
                seconds = [waited(way, device) for _ in range(REPEATS + 1)][1:]
            except Exception as error:  # a way that this card or version does not have is a row that says so
                rows.append(Row(name, np.nan, "ms", f"{type(error).__name__}: {str(error)[:80]}", setting))
                continue
            found = [1000 * each for each in seconds]
            rows.append(Row(name, statistics.median(found), "ms", spread(found, ".2f"), setting))
        click.echo(table(rows[-len(ways) :]), err=True)
    return rows


# steps


def bandwidth(device: torch.device) -> float:
    """Bytes per second of a copy on the device, read and written."""
    source = torch.ones(2**28 if device.type == "cuda" else 2**22, device=device)
    target = torch.empty_like(source)
    seconds = min(waited(lambda: target.copy_(source), device) for _ in range(5))
    return 2 * source.nbytes / seconds


class Steps:
    """Epochs of the same autoencoder, by geneae and by plain loops."""

    def __init__(self, profiles: Profiles, device: torch.device, batch_size: int, precision: str) -> None:
        self.device, self.batch_size, self.precision = device, batch_size, precision
        preprocess = fit_preprocess(profiles, np.arange(profiles.n_profiles))
        expression, _ = preprocess.match(profiles)
        self.matrix = preprocess.apply(expression)
        mean = torch.from_numpy(column_mean(self.matrix).astype(np.float32))
        self.settings = Settings(
            hidden=HIDDEN, n_latent=LATENT, basis="free", target="self", init="random", batch_size=batch_size,
            device=device.type, precision=precision, epochs=1,
        )  # fmt: skip
        self.network: Network = random_network(mean, LATENT, HIDDEN, self.settings.dropout)
        self.dense = dense_network(self.network).to(device)
        few = self.matrix[:256]
        constants = loss_constants([few], mean, "none", LossSettings())
        self._objective = Reconstruction(find_loss("mse"), "none", constants)
        self._given = expression, preprocess
        self._source = PairSource(self.network, *self._given, CountSplits(False, 1, 0))
        self._validation = Pairs(self.network, [few])
        self._on_card: Tensor | None = None

    def geneae(self) -> float:
        """Seconds of an epoch of the training loop, as it reports them."""
        validation = partial(validate, pairs=[self._validation], objective=self._objective)
        history = train(self.network, TrainingPlan(self._source, validation, self._objective), self.settings).history
        return float(history["train_seconds"].iloc[-1])

    def geneae_from_cpu(self) -> float:
        """The same, with mini-batches taken on the CPU, as where the card has no room for the profiles."""
        self._source = PairSource(self.network, *self._given, CountSplits(False, 1, 0))
        on_device, geneae.losses.device_rows.device_store = geneae.losses.device_rows.device_store, lambda *_: None
        try:
            self.geneae()  # which lays them out
            return self.geneae()
        finally:
            geneae.losses.device_rows.device_store = on_device

    def from_cpu(self) -> float:
        """Seconds of an epoch of a plain loop that makes rows dense on the CPU, batch by batch, and moves them."""
        return self._plain(lambda index: torch.from_numpy(self.matrix[index.numpy()].toarray()).to(self.device))

    def from_card(self) -> float:
        """Seconds of an epoch of a plain loop over all profiles as one dense matrix on the card."""
        if self._on_card is None:
            self._on_card = torch.zeros(self.matrix.shape, device=self.device)
            for start in range(0, self.matrix.shape[0], 4096):
                part = self.matrix[start : start + 4096]
                self._on_card[start : start + 4096] = torch.from_numpy(part.toarray())
        given = self._on_card
        return self._plain(lambda index: given[index.to(self.device)])

    def _plain(self, take: Callable[[Tensor], Tensor]) -> float:
        settings, dense = self.settings, self.dense
        optimizer = torch.optim.AdamW(dense.parameters(), lr=settings.learning_rate, fused=True)
        dense.train()

        def epoch() -> None:
            for index in torch.randperm(self.matrix.shape[0]).split(self.batch_size):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                    x = take(index)
                    loss = F.mse_loss(dense(x).float(), x)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                float(loss.detach())  # a loop that looks at its loss waits for the device, as geneae does

        return waited(epoch, self.device)

    def at_most(self, bytes_per_second: float) -> float:
        """Profiles per second that the memory allows: stored values are read once, learned matrices `PASSES` times."""
        stored = 8 * self.matrix.nnz / self.matrix.shape[0]  # value and column
        learned = 2 * PASSES * 4 * self.matrix.shape[1] * HIDDEN
        return bytes_per_second / (stored + learned / self.batch_size)

    def share_waited(self) -> float:
        """Share of an epoch in which the card computes nothing."""
        from torch.profiler import ProfilerActivity, profile

        seconds = []
        with profile(activities=[ProfilerActivity.CUDA]) as found:
            seconds.append(self.geneae())
        busy = sum(event.self_device_time_total for event in found.key_averages()) / 1e6
        return 1 - busy / seconds[0]


def step_rows(profiles: Profiles, batches: tuple[int, ...], device: torch.device) -> list[Row]:
    """Profiles per second of epochs in a free basis, by batch size and precision."""
    speed = bandwidth(device)
    rows = [Row("copy on the device, read and written", speed / 1e9, "GB/s", "", "steps")]
    for batch_size in batches:
        for precision in ("32", "bf16"):
            steps = Steps(profiles, device, batch_size, precision)
            setting = f"epochs, free basis, {profiles.n_profiles:,} x {profiles.n_genes:,}, batch {batch_size:,}, "
            setting += "fp32" if precision == "32" else precision
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            own = alternate({"geneae": steps.geneae}, REPEATS)["geneae"]
            peak = torch.cuda.max_memory_allocated() / 1e6 if device.type == "cuda" else np.nan
            waits = steps.share_waited() if device.type == "cuda" else np.nan
            others = {"all on the card": steps.from_card}
            seconds = {"geneae": own, **alternate(others, REPEATS), "from the CPU": [steps.from_cpu()]}
            seconds["geneae, taken on the CPU"] = [steps.geneae_from_cpu()]
            named = {
                "geneae": "geneae",
                "geneae, taken on the CPU": "geneae, mini-batches taken on the CPU",
                "all on the card": "dense PyTorch, all profiles dense on the card",
                "from the CPU": "dense PyTorch, batches made dense on the CPU",
            }
            found = [
                rate_row(named[who], [profiles.n_profiles / each for each in values], setting)
                for who, values in seconds.items()
            ]
            rate = found[0].value
            found += [Row(f"  geneae over {row.what}", rate / row.value, "x", "", setting) for row in found[1:]]
            limit = steps.at_most(speed)
            found.append(Row("  limit by memory bandwidth", limit, "profiles/s", f"{limit / rate:.1f} times", setting))
            found.append(Row("  geneae, peak memory of the card", peak, "MB", "of tensors", setting))
            found.append(Row("  geneae, share of time the card waits", waits, "", "", setting))
            click.echo(table(found), err=True)
            rows += found
            del steps
    return rows


# commands


@dataclass(frozen=True)
class Case:
    """A fit that is run on both devices."""

    name: str
    """What is special about it."""
    size: tuple[int, int]
    """Profiles and genes."""
    epochs: int
    """At most."""
    flags: tuple[str, ...] = ()
    """Further ones of `geneae fit`."""


CASES = (
    Case("default fit", SMALL, 10),
    Case("free basis, random start", SMALL, 10, ("--basis", "free", "--init", "random", "--batch-size", "1024")),
)


@dataclass(frozen=True)
class Outcome:
    """A fit that has ended."""

    command: Command
    """Seconds, memory and what it printed."""
    training: float
    """Seconds of training, of all epochs."""
    per_epoch: float
    """Median of the epochs after the first."""
    cosine: float
    """Held-out cosine on the test profiles; NaN without a decoder."""
    device_mb: float
    """Peak memory of the device in 10^6 bytes."""


def run_fit(path: Path, folder: Path, device: str, epochs: int, flags: tuple[str, ...] = ()) -> Outcome:
    """Fit a file by the command and read what it has written."""
    arguments = ["fit", str(path), "-o", str(folder), "--device", device, "--epochs", str(epochs), *flags]
    command = run([sys.executable, "-c", MEASURED, *arguments, "--quiet", "--overwrite"])
    history, metrics = pd.read_csv(folder / "history.csv"), pd.read_csv(folder / "metrics.csv")
    chosen = metrics.query("model == 'model' and split == 'test' and metric == 'heldout_cosine'")["value"]
    return Outcome(
        command,
        float(history["train_seconds"].sum()),
        float(history["train_seconds"].iloc[2:].median()),
        float(chosen.iloc[0]) if len(chosen) else np.nan,
        float(command.output.rsplit(PEAK, 1)[1]),
    )


def rows_of(case: Case, cpu: Outcome, there: Outcome, device: str) -> list[Row]:
    """What the two devices took, and how far apart they end."""
    n_profiles, n_genes = case.size
    setting = f"{case.name}: {n_profiles:,} x {n_genes:,} {' '.join(('--epochs', str(case.epochs), *case.flags))}"
    named = (("cpu", cpu), (device, there))
    rows = [
        Row(f"{name}, whole command", each.command.seconds, "s", f"{each.training:.1f} s of them training", setting)
        for name, each in named
    ]
    ratio = cpu.command.seconds / there.command.seconds
    rows.append(Row(f"  cpu over {device}", ratio, "x", "", setting))
    rows += [Row(f"{name}, training", 1000 * each.per_epoch, "ms/epoch", "", setting) for name, each in named]
    rows.append(Row(f"  cpu over {device}", cpu.per_epoch / there.per_epoch, "x", "", setting))
    rows.append(Row(f"{device}, peak memory of the device", there.device_mb, "MB", "of tensors", setting))
    if not np.isnan(cpu.cosine):
        note = f"{there.cosine:.5f} and {cpu.cosine:.5f}; dropout is drawn otherwise"
        difference = 1e4 * (there.cosine - cpu.cosine)
        rows.append(Row(f"held-out cosine, {device} - cpu", difference, "1e-4", note, setting))
    return rows


def command_rows(cases: tuple[Case, ...], folder: Path, device: str) -> list[Row]:
    """Every case on both devices."""
    rows: list[Row] = []
    for case in cases:
        path = folder / f"{case.size[0]}_{case.size[1]}.h5ad"
        if not path.exists():
            write_simulated(path, *case.size, DENSITY)
        cpu, there = (run_fit(path, folder / "run", each, case.epochs, case.flags) for each in ("cpu", device))
        found = rows_of(case, cpu, there, device)
        click.echo(table(found), err=True)  # so that a run that is cut short has said something
        rows += found
    return rows


def about(device: torch.device) -> dict[str, str]:
    """Card and versions."""
    if device.type != "cuda":
        return {"card": "none, the CPU beside itself"}
    return {"card": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}


def simulated(size: tuple[int, int], density: float) -> Profiles:
    """Simulated counts in memory."""
    return read_profiles(sparse.vstack(list(simulate(*size, density, 0, os.cpu_count() or 1)), format="csr"))


PARTS = ("tests", "products", "steps", "commands")


@click.command(context_settings={"show_default": True})
@click.option("--quick", is_flag=True, help="Small data and few epochs; without a GPU, the CPU beside itself.")
@click.option("--part", "parts", multiple=True, default=PARTS, type=click.Choice(PARTS), help="Only these.")
@OUTPUT
def main(quick: bool, parts: tuple[str, ...], output: Path | None) -> None:
    """Run the tests of a GPU, and time products, epochs and whole commands on it beside others."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not quick:
        raise click.ClickException("torch finds no CUDA device here, so that there is nothing to compare the CPU with.")
    size, batches, cases = WIDE, BATCHES, CASES
    if quick:
        size, batches = QUICK, QUICK_BATCHES
        cases = tuple(replace(case, size=QUICK, epochs=3) for case in CASES)
    known = about(device)
    said = facts(**known, cores=os.cpu_count(), threads=torch.get_num_threads())
    rows: list[Row] = run_tests() if "tests" in parts else []
    if "products" in parts:
        for density in (DENSITY, SPARSER):
            rows += product_rows(simulated(size, density).matrix, batches, device)
    if "steps" in parts:
        rows += step_rows(simulated(size, DENSITY), batches, device)
    if "commands" in parts:
        with tempfile.TemporaryDirectory() as name:
            rows += command_rows(cases, Path(name), device.type)
    show(rows, said, output)
    if any(row.note.endswith("BROKEN") for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
