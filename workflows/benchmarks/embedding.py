"""How fast does `geneae embed` go through a file, beside reading it and nothing else?

    python workflows/benchmarks/embedding.py SCRATCH

Writes simulated .h5ad files into the folder SCRATCH, or finds them there, fits a small model on few profiles, and
embeds 100,000. What the command takes for a few profiles, its start, is named apart and taken off. Reading is done in
two ways: by scDataset, in the shuffled blocks that a training reads, and in order, arrays as they lie in the file, as
fast as h5py can. All in turn, after a turn that fills the file cache.
"""

import statistics
import sys
from pathlib import Path

import click
import h5py
from measuring import FOLDER, OUTPUT, Row, alternate, facts, geneae, judged, rate_row, run, show
from reading import Rows, by_scdataset, rate
from streaming import simulated_file

FEW = 2000  # profiles that the model is fitted on, and by which the start of the command is measured
MIN_RATE = 0.5  # of the speed of reading alone, asked for
IN_ORDER, SHUFFLED = "reading alone, in order", "reading alone, scDataset"
EMBED = "geneae embed, without its start"
BATCH = 1024  # profiles that scDataset gives at a time
READ = """
import sys, time, h5py
sys.path.insert(0, sys.argv[2])
from reading import in_order
with h5py.File(sys.argv[1]) as file:
    start = time.perf_counter()
    n_profiles = sum(block.shape[0] for block in in_order(file["X"]))
print(time.perf_counter() - start)
"""


def read_seconds(path: Path) -> float:
    """Seconds of reading a file in order, in a process of its own, its start left out."""
    return float(run([sys.executable, "-c", READ, str(path), str(FOLDER)]).output.splitlines()[-1])


def scdataset_seconds(path: Path) -> float:
    """Seconds that scDataset would take for the whole file, from some of its batches."""
    with h5py.File(path) as file:
        rows = Rows(file["X"])
        return len(rows) / rate(by_scdataset(rows, BATCH))


@click.command(context_settings={"show_default": True})
@click.argument("scratch", type=click.Path(path_type=Path, file_okay=False))
@click.option("--profiles", "n_profiles", default=100_000)
@click.option("--genes", "n_genes", default=20_000)
@click.option("--repeats", default=3)
@OUTPUT
def main(scratch: Path, n_profiles: int, n_genes: int, repeats: int, output: Path | None) -> None:
    """Embed a simulated file in SCRATCH, and read it."""
    scratch.mkdir(parents=True, exist_ok=True)
    few, many = (simulated_file(scratch, size, n_genes, None) for size in (FEW, n_profiles))
    model = scratch / "embedding_model"
    geneae("fit", str(few), "-o", str(model), "--epochs", "3", "--overwrite", "--quiet")
    peaks: list[float] = []

    def embed(path: Path) -> float:
        latents = str(path.with_suffix(".npy"))
        ran = geneae("embed", str(model), str(path), "-o", latents, "--overwrite", "--quiet")
        peaks.append(ran.peak_mb)
        return ran.seconds

    seconds = alternate(
        {
            "start": lambda: embed(few),
            "embed": lambda: embed(many),
            "read": lambda: read_seconds(many),
            "shuffled": lambda: scdataset_seconds(many),
        },
        repeats,
    )
    own = [whole - start for whole, start in zip(seconds["embed"], seconds["start"], strict=True)]
    rates = {
        IN_ORDER: [n_profiles / value for value in seconds["read"]],
        SHUFFLED: [n_profiles / value for value in seconds["shuffled"]],
        "geneae embed, the whole command": [n_profiles / value for value in seconds["embed"]],
        EMBED: [(n_profiles - FEW) / value for value in own],
    }
    rows = [rate_row(name, values) for name, values in rates.items()]
    rows += [
        Row("  start of the command", statistics.median(seconds["start"]), "s", f"with {FEW:,} profiles"),
        Row("  peak memory", max(peaks), "MB"),
    ]
    for reading in (SHUFFLED, IN_ORDER):
        ratio = statistics.median(a / b for a, b in zip(rates[EMBED], rates[reading], strict=True))
        rows.append(Row(f"  {EMBED}, over {reading}", ratio, "x", judged(ratio, MIN_RATE, at_least=True)))
    show(rows, facts(n_profiles=n_profiles, n_genes=n_genes), output)


if __name__ == "__main__":
    main()
