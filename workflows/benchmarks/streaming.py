"""How much memory does a fit from disk take, and how much speed does it cost?

    python workflows/benchmarks/streaming.py SCRATCH -- --basis free --epochs 3

Writes simulated .h5ad files of 100,000 and 400,000 profiles x 20,000 genes (1.6 and 6.4 GB) into the folder SCRATCH, or
finds them there, and runs `geneae fit` on them as commands of their own. Delete the folder afterwards.
"""

import json
import statistics
import sys
from pathlib import Path

import click
from measuring import FOLDER, OUTPUT, Row, facts, geneae, judged, run, show, spread

MAX_MB = 1500.0  # peak memory asked for
MAX_GROWTH = 1.15  # of the peak, from the smallest file to the largest, asked for
MIN_RATE = 0.8  # of the speed in memory, asked for


def simulated_file(scratch: Path, n_profiles: int, n_genes: int, compression: str | None) -> Path:
    """A simulated file, written by a command of its own, so that this one stays small."""
    path = scratch / f"simulated_{n_profiles}x{n_genes}{'_' + compression if compression else ''}.h5ad"
    command = [sys.executable, str(FOLDER / "simulated.py"), str(n_profiles), str(n_genes), str(path)]
    run(command + (["--compression", compression] if compression else []))
    return path


def fit_file(
    path: Path, stream: str, options: tuple[str, ...], repeats: int
) -> tuple[list[float], list[float], list[float]]:
    """Peak memory in 10^6 bytes, profiles per second of training, and wall seconds of repeated fits."""
    peaks, rates, seconds = [], [], []
    folder = path.with_name(f"{path.stem}_{stream}_fit")
    for _ in range(repeats):
        ran = geneae("fit", str(path), "-o", str(folder), "--stream", stream, "--overwrite", "--quiet", *options)
        config = json.loads((folder / "config.json").read_text())
        peaks.append(ran.peak_mb or config["peak_memory_mb"])
        rates.append(config["profiles_per_second"])
        seconds.append(ran.seconds)
    return peaks, rates, seconds


def rows_of(stream: str, found: tuple[list[float], list[float], list[float]], setting: str) -> list[Row]:
    """Medians of what was found."""
    peaks, rates, seconds = found
    return [
        Row(f"--stream {stream}, peak memory", max(peaks), "MB", spread(peaks, ",.0f"), setting),
        Row(f"--stream {stream}, training", statistics.median(rates), "profiles/s", spread(rates, ",.0f"), setting),
        Row(f"--stream {stream}, whole command", statistics.median(seconds), "s", spread(seconds, ".1f"), setting),
    ]


@click.command(context_settings={"show_default": True})
@click.argument("scratch", type=click.Path(path_type=Path, file_okay=False))
@click.argument("fit_options", nargs=-1, type=click.UNPROCESSED)
@click.option("--profiles", "sizes", multiple=True, default=[100_000, 400_000])
@click.option("--genes", "n_genes", default=20_000)
@click.option("--compression", type=click.Choice(["gzip"]), help="Of the files; none without it.")
@click.option("--in-memory", default=1, help="Fit so many of the files, from the first on, in memory too.")
@click.option("--repeats", default=1)
@OUTPUT
def main(
    scratch: Path,
    fit_options: tuple[str, ...],
    sizes: tuple[int, ...],
    n_genes: int,
    compression: str | None,
    in_memory: int,
    repeats: int,
    output: Path | None,
) -> None:
    """Fit simulated files in SCRATCH from disk and in memory, with FIT_OPTIONS of `geneae fit` (after --)."""
    scratch.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    peaks = []
    for number, n_profiles in enumerate(sizes):
        path = simulated_file(scratch, n_profiles, n_genes, compression)
        setting = f"{n_profiles:,} x {n_genes:,}, {path.stat().st_size / 1e9:.1f} GB, {compression or 'uncompressed'}"
        streamed = fit_file(path, "yes", fit_options, repeats)
        peaks.append(max(streamed[0]))
        rows += rows_of("yes", streamed, setting)
        rows[-3] = Row(**{**vars(rows[-3]), "note": judged(peaks[-1], MAX_MB, at_least=False, form=",.0f")})
        if number:
            growth = peaks[-1] / peaks[0]
            rows.append(
                Row("  peak over that of the first file", growth, "x", judged(growth, MAX_GROWTH, False), setting)
            )
        if number < in_memory:
            held = fit_file(path, "no", fit_options, repeats)
            ratio = statistics.median(a / b for a, b in zip(streamed[1], held[1], strict=True))
            rows += rows_of("no", held, setting)
            rows.append(Row("  from disk over in memory", ratio, "x", judged(ratio, MIN_RATE, True), setting))
    show(rows, facts(fit_options=" ".join(fit_options)), output)


if __name__ == "__main__":
    main()
