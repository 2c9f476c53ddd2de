"""How do time and memory of whole commands grow, from ten thousand profiles to a million, in .h5ad and sharded .zarr?

    python workflows/benchmarks/million.py DATA.h5ad SCRATCH -o growth.csv

Writes files of resampled profiles of DATA into SCRATCH (5 GB for a million of PBMC 3k), or finds them there, reads each
once and does nothing else, and runs `geneae fit --stream yes`, `inspect`, `embed` and `evaluate` on it.
`growth_figure.py` draws the tables. Delete SCRATCH afterwards.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import click
from measuring import FOLDER, OUTPUT, Command, Row, facts, geneae, judged, run, show

MAX_MB = 2000.0  # peak memory asked for
MAX_TIME = 1.5  # times two readings of the file, asked for
READ = """
import sys, numpy as np
from anndata.io import sparse_dataset
import h5py, zarr
path = sys.argv[1]
group = h5py.File(path)["X"] if path.endswith(".h5ad") else zarr.open_group(path, mode="r")["X"]
rows, total = sparse_dataset(group), 0.0
for start in range(0, rows.shape[0], 8192):
    total += rows[start:start + 8192].data.sum(dtype=np.float64)
print(total)
"""


def commands(path: Path, fit_options: tuple[str, ...]) -> dict[str, Callable[[], Command]]:
    """What is run on a file, in this order: the fit is what the last two need."""
    model, out = path.with_name(f"{path.name}_fit"), path.with_name(f"{path.name}_out")
    streamed = ["--stream", "yes", "--overwrite"]
    return {
        "reading once": lambda: run([sys.executable, "-c", READ, str(path)]),
        "fit": lambda: geneae("fit", str(path), "-o", str(model), *streamed, "--quiet", *fit_options),
        "inspect": lambda: geneae("inspect", str(path), "--stream", "yes"),
        "embed": lambda: geneae("embed", str(model), str(path), "-o", f"{out}.parquet", *streamed),
        "evaluate": lambda: geneae("evaluate", str(model), str(path), "-o", str(out), *streamed),
    }


@click.command(context_settings={"show_default": True})
@click.argument("data", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("scratch", type=click.Path(path_type=Path, file_okay=False))
@click.argument("fit_options", nargs=-1, type=click.UNPROCESSED)
@click.option("--profiles", "sizes", multiple=True, default=[10_000, 100_000, 1_000_000])
@click.option("--genes", "n_genes", default=20_000)
@click.option("--ending", "endings", multiple=True, default=[".h5ad", ".zarr"])
@click.option("--command", "chosen", multiple=True, help="Only these, after the reading; all without it.")
@OUTPUT
def main(
    data: Path,
    scratch: Path,
    fit_options: tuple[str, ...],
    sizes: tuple[int, ...],
    n_genes: int,
    endings: tuple[str, ...],
    chosen: tuple[str, ...],
    output: Path | None,
) -> None:
    """Resample DATA into files in SCRATCH, and run commands on them, with FIT_OPTIONS of `geneae fit` (after --)."""
    scratch.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for ending in endings:
        for size in sizes:
            path = scratch / f"resampled_{size}x{n_genes}{ending}"
            run([sys.executable, str(FOLDER / "resampled.py"), str(data), str(size), str(n_genes), str(path)])
            setting, once = f"{size:,} x {n_genes:,}, {ending}", 0.0
            for what, task in commands(path, fit_options).items():
                if chosen and what not in (*chosen, "reading once"):
                    continue
                ran = task()
                once = once or ran.seconds
                ratio = judged(ran.seconds / (2 * once), MAX_TIME, at_least=False)
                note = "" if what == "reading once" else f"{ran.seconds / (2 * once):.2f} times two readings, {ratio}"
                rows.append(Row(what, ran.seconds, "s", note, setting))
                rows.append(
                    Row("  peak memory", ran.peak_mb, "MB", judged(ran.peak_mb, MAX_MB, False, ",.0f"), setting)
                )
                click.echo(f"{setting}: {what} {ran.seconds:.1f} s, {ran.peak_mb:,.0f} MB", err=True)
    show(rows, facts(data=data.name, fit_options=" ".join(fit_options)), output)


if __name__ == "__main__":
    main()
