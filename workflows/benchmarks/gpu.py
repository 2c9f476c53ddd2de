"""What does a GPU give a user, and does it give the same? `geneae fit --device cuda` beside `--device cpu`.

    python workflows/benchmarks/gpu.py
    python workflows/benchmarks/gpu.py --quick   # small; where there is no GPU it compares the CPU with itself

Every fit is a command in a process of its own, on simulated counts in a temporary folder, so that its seconds are what
a user waits: reading, bases and judging are on the CPU whatever the device. Only training is on the device; its seconds
per epoch are those of the history without the first epoch, in which libraries warm up. Every command runs once. Only
ratios within a run mean anything, and they compare one card with the cores of its machine. The last part checks what is
promised: the same bits of the same fit, the same bits of one that was interrupted, and the same latents on either
device. It ends with exit code 1 where one of them is broken. `geneae metric` trains on the CPU alone and is left out.
"""

import os
import signal
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from measuring import OUTPUT, Command, Row, facts, run, show, table
from simulated import write_simulated

from geneae.data.reading import read_profiles
from geneae.evaluation.latents import encode
from geneae.fitting.fit import Fitted, fit
from geneae.folders.model import load_model
from geneae.settings.errors import Interrupted
from geneae.settings.settings import Settings

SMALL, LARGE = (5_000, 2_000), (20_000, 5_000)  # profiles and genes
OF_TRUTHS, QUICK = (2_000, 1_000), (600, 300)
DENSITY = 0.1  # share of values that are not zero
SAME_LATENTS = 1e-4  # largest difference of a latent between the devices: float32 sums in another order
STOP_AT = 2  # epoch in which a fit is interrupted
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


WIDE = ("--basis", "free", "--init", "random", "--hidden", "1024", "--latent", "64", "--batch-size", "1024")
CASES = (
    Case("default fit", SMALL, 60),
    Case("default fit", LARGE, 10),
    Case("default fit from disk", LARGE, 10, ("--stream", "yes")),
    Case("free basis, wide layers", LARGE, 4, WIDE),
    Case("SimCLR, free basis", SMALL, 10, ("--objective", "simclr", "--basis", "free")),
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


def compare(cases: tuple[Case, ...], folder: Path, device: str) -> list[Row]:
    """Every case on both devices."""
    rows: list[Row] = []
    for case in cases:
        path = data_of(case.size, folder)
        cpu, there = (run_fit(path, folder / "run", each, case.epochs, case.flags) for each in ("cpu", device))
        found = rows_of(case, cpu, there, device)
        click.echo(table(found), err=True)  # so that a run that is cut short has said something
        rows += found
    return rows


def data_of(size: tuple[int, int], folder: Path) -> Path:
    """A file of simulated counts, written when first needed."""
    path = folder / f"{size[0]}_{size[1]}.h5ad"
    write_simulated(path, *size, DENSITY)
    return path


def count_differing(found: Fitted, expected: Fitted) -> int:
    """Number of weights and columns of the history that are not the same bit for bit."""
    one, two = (fitted.model.network.state_dict() for fitted in (found, expected))
    different = sum(not torch.equal(one[name], two[name]) for name in two)
    clocks = ["train_seconds", "seconds"]
    first, second = (fitted.history.drop(columns=clocks) for fitted in (found, expected))
    return different + sum(not first[name].equals(second[name]) for name in second)


def fit_interrupted(path: Path, settings: Settings, folder: Path) -> Fitted:
    """A fit that gets SIGINT in its second epoch, and goes on from its checkpoint."""

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == STOP_AT:
            os.kill(os.getpid(), signal.SIGINT)

    profiles = read_profiles(path)
    try:
        fit(profiles, settings, stop, checkpoint=folder)
    except Interrupted:
        return fit(profiles, settings, checkpoint=folder)
    raise click.ClickException("a fit that was sent SIGINT went on to its end.")


def truth(what: str, value: float, unit: str, limit: float, setting: str) -> Row:
    """A row that says whether what is promised holds."""
    verdict = "holds" if value <= limit else "BROKEN"
    return Row(what, value, unit, f"at most {limit:g} promised: {verdict}", setting)


def check_truths(size: tuple[int, int], folder: Path, device: str) -> list[Row]:
    """Bits that are the same twice and after an interruption, and latents that are those of the CPU."""
    path, rows = data_of(size, folder), []
    kinds: dict[str, dict[str, str]] = {
        "default fit": {},
        "free basis": {"basis": "free", "init": "random"},
        "MoCo v2": {"objective": "moco-v2", "basis": "free"},
    }
    for name, others in kinds.items():
        setting = f"truths, {name}: {size[0]:,} x {size[1]:,}, 4 epochs"
        settings = Settings(epochs=4, device=device, **others)
        profiles = read_profiles(path)
        first = fit(profiles, settings)
        again = count_differing(fit(profiles, settings), first)
        resumed = count_differing(fit_interrupted(path, settings, folder / name.replace(" ", "_")), first)
        rows.append(truth(f"the same fit again on {device}, differing", again, "tensors", 0, setting))
        rows.append(truth(f"interrupted on {device}, differing", resumed, "tensors", 0, setting))
    return [*rows, latents_row(path, folder, device)]


def latents_row(path: Path, folder: Path, device: str) -> Row:
    """Latents of `geneae embed` where no GPU is to be seen, beside those of the same network on the device."""
    run_fit(path, folder / "trained", device, epochs=4)
    written = folder / "latents.npy"
    arguments = ["embed", str(folder / "trained"), str(path), "-o", str(written), "--quiet"]
    run([sys.executable, "-c", MEASURED, *arguments], {"CUDA_VISIBLE_DEVICES": ""})
    model = load_model(folder / "trained")
    matrix = model.preprocess.apply(model.preprocess.match(read_profiles(path))[0])
    shift = model.shift(is_half=False)
    there = encode(model.network.to(device), matrix, shift)
    difference = float(np.abs(there - np.load(written)).max())
    what = f"latents, trained on {device}, cpu - {device}"
    return truth(what, 1e6 * difference, "1e-6", 1e6 * SAME_LATENTS, "truths, a model folder")


def about(device: str) -> dict[str, str]:
    """Card and versions."""
    if device != "cuda":
        return {"card": "none, the CPU beside itself"}
    return {"card": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}


@click.command(context_settings={"show_default": True})
@click.option("--quick", is_flag=True, help="Small data and few epochs; without a GPU, the CPU beside itself.")
@OUTPUT
def main(quick: bool, output: Path | None) -> None:
    """Fit simulated counts on CPU and GPU by the same commands, and check that the GPU gives the same."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not quick:
        raise click.ClickException("torch finds no CUDA device here, so that there is nothing to compare the CPU with.")
    cases = CASES
    if quick:
        cases = tuple(replace(case, size=QUICK, epochs=3) for case in CASES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = compare(cases, folder, device) + check_truths(QUICK if quick else OF_TRUTHS, folder, device)
    known = about(device)
    show(rows, facts(**known, cores=os.cpu_count(), threads=torch.get_num_threads()), output)
    if any(row.note.endswith("BROKEN") for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
