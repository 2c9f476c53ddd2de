"""When does a default fit stand above the best PCA, in units of the time that PCA alone takes?

    python workflows/benchmarks/time_to_quality.py DATA.h5ad ...
    python workflows/benchmarks/time_to_quality.py --profiles 10000 --genes 20000   # simulated

Both are given the same sparse matrix in memory. Quality is the held-out cosine on the validation profiles, on the very
halves that training judges itself by; the best PCA (of size 4, 8, 16, 32) is chosen on them, in its favour. The clock
of geneae runs from the counts on and counts everything: genes, bases, splits, epochs, judging.
"""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from measuring import OUTPUT, Row, facts, judged, seconds_of, show, spread
from scipy import sparse
from simulated import simulate
from sklearn.decomposition import PCA, TruncatedSVD

from geneae.data.count_split import Splitter
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.evaluation.predictors import linear_predictors, products_of
from geneae.fitting.fit import Fitted, fit
from geneae.losses.metrics import METRICS, measure
from geneae.settings.settings import Settings
from geneae.training.batches import VALIDATION_STREAM, draw_blocks
from geneae.training.sources import VALIDATION_SPLITS

TO_QUALITY, TO_END = 3.0, 10.0  # times PCA, asked for
REFERENCE = "PCA, svd_solver auto"  # what somebody gets who asks for nothing


def decomposition_seconds(matrix: sparse.csr_matrix, n_components: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of scikit-learn's decompositions of a sparse matrix, by name."""
    estimators = {
        REFERENCE: PCA(n_components),
        "PCA, arpack": PCA(n_components, svd_solver="arpack", random_state=0),
        "TruncatedSVD, randomized": TruncatedSVD(n_components, random_state=0),
        "TruncatedSVD, arpack": TruncatedSVD(n_components, algorithm="arpack", random_state=0),
    }
    return {
        name: [seconds_of(lambda one=one: one.fit(matrix)) for _ in range(repeats)] for name, one in estimators.items()
    }


@dataclass(frozen=True)
class Course:
    """One fit against the clock."""

    seconds: list[float]
    """By epoch, from the start of the fit; epoch 0 is the start of training."""
    cosines: list[float]
    """Held-out, on the validation profiles, by epoch."""
    end: float
    """Seconds of the whole fit, judging at the end included."""
    fitted: Fitted
    """What was fitted."""


def follow(profiles: Profiles, settings: Settings) -> Course:
    """Fit, and note the clock at every epoch."""
    moments: list[float] = []
    cosines: list[float] = []

    def note(row: dict[str, float]) -> None:
        moments.append(time.perf_counter() - start)
        cosines.append(row["validation_cosine"])

    start = time.perf_counter()
    fitted = fit(profiles, settings, note)
    return Course(moments, cosines, time.perf_counter() - start, fitted)


def best_pca(profiles: Profiles, fitted: Fitted, seed: int) -> tuple[str, float]:
    """Name and held-out cosine of the best PCA, on the halves that validation was judged on in training."""
    model = fitted.model
    rows = np.flatnonzero(fitted.split == "validation")
    expression = model.preprocess.match(profiles)[0].take(rows)
    splitter = Splitter(expression.matrix)
    models = linear_predictors(model.baselines.held_out(torch.float32))
    found: dict[str, list[float]] = {name: [] for name in models if name.startswith("pca")}
    for number in range(VALIDATION_SPLITS):
        blocks = draw_blocks(expression, model.preprocess, splitter, (seed, VALIDATION_STREAM, number))
        for by_model in products_of(models, blocks, ("none",)):
            for name, cosines in found.items():
                cosines.append(float(measure(METRICS["cosine"], by_model[name]["none"]).nanmean()))
    return max(((name, float(np.mean(cosines))) for name, cosines in found.items()), key=lambda one: one[1])


def measure_course(profiles: Profiles, settings: Settings, repeats: int, setting: str) -> list[Row]:
    """PCA and fits in turn; when the fit passes the best PCA, when it ends, and its course."""
    reference: list[float] = []
    courses: list[Course] = []
    for _ in range(repeats):
        courses.append(follow(profiles, settings))
        train = np.flatnonzero(courses[0].fitted.split == "train")
        preprocess = courses[0].fitted.model.preprocess
        matrix = preprocess.apply(preprocess.match(profiles)[0].take(train))
        reference.append(seconds_of(lambda matrix=matrix: PCA(settings.n_latent).fit(matrix)))
    name, to_beat = best_pca(profiles, courses[0].fitted, settings.seed)
    unit = statistics.median(reference)
    above = [
        next((at for at, cosine in zip(c.seconds, c.cosines, strict=True) if cosine > to_beat), np.inf) for c in courses
    ]
    ends = [course.end for course in courses]
    epoch = next((at for at, cosine in enumerate(courses[0].cosines) if cosine > to_beat), None)
    note = (
        f"{spread(above, '.1f')}; epoch {epoch}; {judged(statistics.median(above) / unit, TO_QUALITY, at_least=False)}"
    )
    rows = [
        Row(f"PCA of size {settings.n_latent} alone", unit, "s", spread(reference, ".1f"), setting),
        Row(f"best PCA ({name}), held-out cosine", to_beat, "", f"{to_beat:.5f} on the validation halves", setting),
        Row("fit above the best PCA after", statistics.median(above), "s", note, setting),
        Row("  in units of PCA", statistics.median(above) / unit, "x", "", setting),
        Row("fit ended after", statistics.median(ends), "s", spread(ends, ".1f"), setting),
        Row(
            "  in units of PCA",
            statistics.median(ends) / unit,
            "x",
            judged(statistics.median(ends) / unit, TO_END, at_least=False),
            setting,
        ),
    ]
    last = courses[-1]
    shown = [at for at in (0, 1, 2, 5, 10, 20, 30, 40, 50, 60) if at < len(last.seconds)]
    for at in shown:
        note = f"held-out cosine {last.cosines[at]:.5f}, {last.cosines[at] - to_beat:+.5f} above the best PCA"
        rows.append(Row(f"  epoch {at} after", last.seconds[at], "s", note, setting))
    return rows


@click.command(context_settings={"show_default": True})
@click.argument("data", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--profiles", "n_profiles", default=10_000, help="Simulated profiles, where no DATA are given.")
@click.option("--genes", "n_genes", default=20_000, help="Simulated genes.")
@click.option("--density", default=0.10, help="Share of simulated values that are not zero.")
@click.option("--repeats", default=3, help="Fits and PCAs, in turn.")
@click.option("--threads", default=2)
@click.option("--seed", default=0)
@OUTPUT
def main(
    data: tuple[Path, ...],
    n_profiles: int,
    n_genes: int,
    density: float,
    repeats: int,
    threads: int,
    seed: int,
    output: Path | None,
) -> None:
    """Follow default fits of DATA, or of simulated counts, against the clock of scikit-learn's PCA."""
    torch.set_num_threads(threads)
    settings = Settings(seed=seed, device="cpu")
    rows: list[Row] = []
    for path in data:
        rows += measure_course(read_profiles(path), settings, repeats, path.name)
    if not data:
        matrix = sparse.vstack(list(simulate(n_profiles, n_genes, density, seed, threads)), format="csr")
        rows += measure_course(read_profiles(matrix), settings, repeats, f"simulated, {n_profiles:,} x {n_genes:,}")
    show(rows, facts(threads=threads, seed=seed), output)


if __name__ == "__main__":
    main()
