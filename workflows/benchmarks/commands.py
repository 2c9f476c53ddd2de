"""What does a user wait for? `geneae fit`, `embed`, `inspect`, `evaluate` and `compare` as processes, beside one PCA.

    python workflows/benchmarks/commands.py SCRATCH --repeats 5 -o commands.csv

Every command runs on the shipped data and on simulated counts, which are written into the folder SCRATCH or found
there. Their wall falls to stages (`stages.py`); what is left is the start and the end of the process. The PCA is
scikit-learn's TruncatedSVD of rank 128 with four iterations, of the same counts, log-normalised and sparse; its seconds
are those of its fit alone. All in turn, after one turn that fills the file cache and compiles Python's modules.
"""

import json
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import click
from measuring import FOLDER, OUTPUT, Command, Row, facts, judged, run, show, spread
from stages import ORDER
from streaming import simulated_file

SHIPPED = FOLDER.parents[1] / "data" / "immune_559.h5ad"
MOST_PCA = 2.0  # wall of the default fit of simulated counts over that of one PCA, asked for
MOST_FIT, MOST_INSPECT = 4.0, 2.5  # seconds of wall on the shipped data, asked for
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}  # as where the package was installed
PCA = """
import sys, time, anndata, numpy as np
from sklearn.decomposition import TruncatedSVD
matrix = anndata.read_h5ad(sys.argv[1]).X.astype(np.float32)
totals = np.asarray(matrix.sum(1)).ravel()
matrix.data = np.log1p(matrix.data * np.repeat(1e4 / np.maximum(totals, 1), np.diff(matrix.indptr)).astype(np.float32))
start = time.perf_counter()
TruncatedSVD(128, n_iter=4, random_state=0).fit(matrix)
print(time.perf_counter() - start)
"""
Ran = tuple[Command, dict[str, float]]


def staged(scratch: Path, *arguments: str | Path) -> Ran:
    """Run a command of geneae: what it took, and the seconds of its stages."""
    file = scratch / "stages.json"
    ran = run([sys.executable, str(FOLDER / "stages.py"), str(file), *map(str, arguments)], COMPILED)
    return ran, json.loads(file.read_text())


def cases(scratch: Path, data: Path, seeds: int) -> dict[str, Callable[[], Ran]]:
    """The commands, by name; those after the fit use its model."""
    fitted, judged_in, compared = (scratch / f"{data.stem}_{name}" for name in ("run", "judged", "compared"))
    latents = scratch / f"{data.stem}_latents.h5ad"

    def compare() -> Ran:
        shutil.rmtree(compared, ignore_errors=True)  # or it would find its runs done
        return staged(
            scratch, "compare", data, "--loss", "mse", "--loss", "cosine", "--seeds", str(seeds), "-o", compared
        )

    return {
        "fit": lambda: staged(scratch, "fit", data, "-o", fitted, "--overwrite"),
        "embed": lambda: staged(scratch, "embed", fitted, data, "-o", latents, "--overwrite"),
        "inspect": lambda: staged(scratch, "inspect", data),
        "evaluate": lambda: staged(scratch, "evaluate", fitted, data, "-o", judged_in, "--overwrite"),
        "compare": compare,
    }


def rows_of(name: str, found: list[Ran], setting: str) -> list[Row]:
    """Medians of what the repeats of a command took, and of its stages."""
    commands = [ran for ran, _ in found]
    numbers = {
        f"{name}, wall": ([ran.seconds for ran in commands], "s", ".2f"),
        f"{name}, user": ([ran.user for ran in commands], "s", ".2f"),
        f"{name}, system": ([ran.system for ran in commands], "s", ".2f"),
        f"{name}, peak memory": ([ran.peak_mb for ran in commands], "MB", ",.0f"),
    }
    for stage in ORDER:
        numbers[f"  {stage}"] = ([stages[stage] for _, stages in found], "s", ".2f")
    rest = [ran.seconds - sum(stages.values()) for ran, stages in found]
    numbers["  start and end of the process"] = (rest, "s", ".2f")
    return [
        Row(what, statistics.median(values), unit, spread(values, form), setting)
        for what, (values, unit, form) in numbers.items()
        if max(values) >= 0.005
    ]


def target_row(what: str, values: list[float], limit: float, unit: str, setting: str) -> Row:
    """A median that should be no more than a limit."""
    value = statistics.median(values)
    return Row(what, value, unit, f"{spread(values, '.2f')}; {judged(value, limit, at_least=False)}", setting)


@click.command(context_settings={"show_default": True})
@click.argument("scratch", type=click.Path(path_type=Path, file_okay=False))
@click.option("--profiles", "n_profiles", default=10_000)
@click.option("--genes", "n_genes", default=20_000)
@click.option("--command", "names", multiple=True, help="Time these alone; the fit always runs.  [default: all]")
@click.option("--seeds", default=1, help="Of each loss of `geneae compare`.")
@click.option("--repeats", default=5)
@OUTPUT
def main(
    scratch: Path, n_profiles: int, n_genes: int, names: tuple[str, ...], seeds: int, repeats: int, output: Path | None
) -> None:
    """Time the commands on the shipped data and on simulated counts in SCRATCH."""
    scratch.mkdir(parents=True, exist_ok=True)
    simulated = simulated_file(scratch, n_profiles, n_genes, None)
    tasks = {
        (data, name): task
        for data in (SHIPPED, simulated)
        for name, task in cases(scratch, data, seeds).items()
        if name in ("fit", *names) or not names
    }
    found: dict[tuple[Path, str], list[Ran]] = {key: [] for key in tasks}
    pca: list[float] = []
    for turn in range(repeats + 1):
        for key, task in tasks.items():
            ran = task()
            if turn:
                found[key].append(ran)
        seconds = float(run([sys.executable, "-c", PCA, str(simulated)]).output.splitlines()[-1])
        if turn:
            pca.append(seconds)
    settings = {SHIPPED: "shipped data, 559 profiles", simulated: f"simulated, {n_profiles:,} x {n_genes:,}"}
    rows = [row for (data, name), ran in found.items() for row in rows_of(name, ran, settings[data])]
    walls = {key: [ran.seconds for ran, _ in of_key] for key, of_key in found.items()}
    ratios = [wall / one for wall, one in zip(walls[simulated, "fit"], pca, strict=True)]
    rows += [
        Row("PCA of rank 128", statistics.median(pca), "s", spread(pca, ".2f"), settings[simulated]),
        target_row("fit over PCA, simulated", ratios, MOST_PCA, "x", "targets"),
        target_row("fit, shipped data", walls[SHIPPED, "fit"], MOST_FIT, "s", "targets"),
    ]
    if (SHIPPED, "inspect") in walls:
        rows.append(target_row("inspect, shipped data", walls[SHIPPED, "inspect"], MOST_INSPECT, "s", "targets"))
    show(rows, facts(n_profiles=n_profiles, n_genes=n_genes), output)


if __name__ == "__main__":
    main()
