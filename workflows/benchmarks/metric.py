"""Does a learned cosine find neighbours of the same label better than plain cosine? One markdown table over data sets.

    python workflows/benchmarks/metric.py pbmc3k.h5ad=cell_type bladder.h5ad=cluster --seeds 5

Every seed is a split of its own. Accuracy is the share of test profiles, which take part in no choice, whose 15 nearest
training profiles vote for their label; higher is better. Beside the learned metric: plain cosine on the same genes, the
same after the mean is subtracted, PCA of the same size, and neighbourhood components analysis (scikit-learn) on PCA
scores as many as the learned metric has, started at PCA and judged by Euclidean distance, as it is meant. Differences
are paired by profile; the interval is a bootstrap over profiles and seeds. Seconds are those of learning alone.
"""

import time
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from sklearn.neighbors import KNeighborsClassifier, NeighborhoodComponentsAnalysis

from geneae import CosineMetric
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.evaluation.bootstrap import bootstrap_interval
from geneae.fitting.metric_comparison import LEARNED, WAYS, judge_metric
from geneae.losses.sparse_rows import sparse_rows
from geneae.models.pca import fit_basis

NCA = "nca"
TITLES = {**WAYS, NCA: "NCA on PCA scores"}
RANK = CosineMetric().rank  # components that the learned metric is learned within, given to NCA too


def nca(profiles: Profiles, learner: CosineMetric, split: pd.Series, key: str) -> tuple[np.ndarray, float]:
    """Labels that neighbours under NCA vote for, of the test profiles, and the seconds that learning took."""
    preprocess = learner.preprocess_
    assert preprocess is not None
    rows = preprocess.apply(preprocess.match(profiles)[0])
    known, test = (np.flatnonzero(split == name) for name in ("train", "test"))
    labels = profiles.obs[key].astype(str).to_numpy()
    start = time.perf_counter()
    basis = fit_basis([rows[known]], RANK, learner.seed)
    scores = basis.scores(sparse_rows(rows)).numpy()
    model = NeighborhoodComponentsAnalysis(learner.n_components, init="pca", random_state=learner.seed)
    model.fit(scores[known], labels[known])
    seconds = time.perf_counter() - start
    voters = KNeighborsClassifier(learner.n_neighbors).fit(model.transform(scores[known]), labels[known])
    return voters.predict(model.transform(scores[test])), seconds


def judge(profiles: Profiles, key: str, seed: int) -> tuple[pd.DataFrame, dict[str, float]]:
    """Whether each way is right on each test profile, and seconds by way of learning."""
    learner = CosineMetric(seed=seed)
    judged = judge_metric(learner, profiles, key, validation=0.1, test=0.2)
    train = profiles.take(np.flatnonzero(judged.split == "train"))
    start = time.perf_counter()
    CosineMetric(seed=seed).fit(train, key)
    seconds = {LEARNED: time.perf_counter() - start}
    voted = judged.profiles[judged.profiles["split"] == "test"].set_index("profile")
    in_order = judged.split.index[judged.split == "test"]
    voted = voted.loc[in_order]
    labels, seconds[NCA] = nca(profiles, learner, judged.split, key)
    right = {way: voted[way].to_numpy() == voted["label"].to_numpy() for way in WAYS}
    return pd.DataFrame(right | {NCA: labels == voted["label"].to_numpy()}), seconds


def summarize(right: list[pd.DataFrame], seconds: list[dict[str, float]]) -> list[list[str]]:
    """One row per way: accuracy, its deviation over seeds, the learned metric minus it, seconds."""
    rows = []
    for way, title in TITLES.items():
        by_seed = [float(table[way].mean()) for table in right]
        differences = np.stack([table[LEARNED].to_numpy(float) - table[way].to_numpy(float) for table in right])
        mean, low, high, _ = bootstrap_interval(differences, 0)
        gain = "" if way == LEARNED else f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"
        taken = f"{np.mean([one[way] for one in seconds]):.1f}" if way in seconds[0] else ""
        rows.append([title, f"{np.mean(by_seed):.4f}", f"{np.std(by_seed, ddof=1):.4f}", gain, taken])
    return rows


@click.command(context_settings={"show_default": True})
@click.argument("data", nargs=-1, required=True, metavar="FILE=KEY...")
@click.option("--seeds", type=click.IntRange(2), default=5, help="Splits and starts, with seeds 0, 1, ...")
@click.option("--threads", default=1)
def main(data: tuple[str, ...], seeds: int, threads: int) -> None:
    """Learn a metric on every FILE with labels in its obs column KEY, and compare it on test profiles."""
    torch.set_num_threads(threads)
    titles = ["data", "test profiles", "metric", "accuracy", "sd over seeds", "learned minus it (95 %)", "seconds"]
    click.echo("\n".join(f"| {' | '.join(row)} |" for row in (titles, ["---"] * len(titles))))
    for one in data:
        path, _, key = one.rpartition("=")
        profiles = read_profiles(path)
        found = [judge(profiles, key, seed) for seed in range(seeds)]
        right, seconds = [table for table, _ in found], [taken for _, taken in found]
        for row in summarize(right, seconds):
            click.echo(f"| {' | '.join([Path(path).stem, f'{seeds} x {len(right[0]):,}', *row])} |")


if __name__ == "__main__":
    main()
