"""A fit from profiles to a judged model: split, preprocessing, bases, training, evaluation."""

import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from geneae.data.augment import parse_views
from geneae.data.count_split import Splitter
from geneae.data.permuted import GENE_PERMUTED, PAIR_PERMUTED, partners, permute_genes
from geneae.data.preprocess import Expression, Preprocess, column_variance, fit_preprocess
from geneae.data.profiles import Profiles
from geneae.data.splits import EXCLUDED, split_profiles
from geneae.evaluation.batches import Batched, batched, judge_batches
from geneae.evaluation.controls import controls, untaught
from geneae.evaluation.diagnostics import diagnose, of_collapse, to_table
from geneae.evaluation.labels import Labelled, judge_latents, labelled, merge, watch
from geneae.evaluation.latents import encode
from geneae.evaluation.reconstruction import evaluate, gene_correlation
from geneae.evaluation.records import Evaluation
from geneae.evaluation.views import describe_latents, diagnose_latents
from geneae.fitting.checks import (
    check_batch,
    check_loss,
    check_objective,
    check_profiles,
    check_sizes,
    is_split_target,
    open_metric,
)
from geneae.fitting.cosine_metric import CosineMetric
from geneae.fitting.network import mean_shift, train_network, training_labels
from geneae.losses.fixed_metric import FixedMetric
from geneae.models.baselines import PCA_SIZES, Baselines
from geneae.models.model import FORMAT, Model
from geneae.models.network import Network
from geneae.models.pca import fit_basis, fit_wiener
from geneae.settings.settings import Settings
from geneae.training.batches import TRAINING_STREAM, draw_blocks, mismatch
from geneae.training.checkpoints import Checkpoint, checkpoint_name, digest, peak_memory
from geneae.training.loop import Training
from geneae.training.objectives import Reconstruction
from geneae.training.sources import TrainingData

SAMPLE_VALUES, SAMPLE_PROFILES = 2**23, 2**15  # of streamed training profiles that bases are fitted on
NEAR_ITERATIONS = 2  # of a basis that starts near its end


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a fit leaves behind."""

    model: Model
    """Ready for use."""
    split: pd.Series
    """By profile: `train`, `validation`, `test`, or `excluded` for profiles without any value."""
    history: pd.DataFrame
    """One row per epoch; epoch 0 is the start."""
    evaluation: Evaluation
    """Of validation and test profiles."""
    genewise: pd.DataFrame
    """gene, mean, correlation over the judged profiles: test, or validation where there is no test; empty without a
    decoder."""
    diagnostics: pd.DataFrame
    """name, value, limit, fires, message, over the same profiles."""


def fit(
    profiles: Profiles,
    settings: Settings,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    null: str | None = None,
    checkpoint: Path | None = None,
    resume: bool = True,
) -> Fitted:
    """Train on profiles, and judge the model and its baselines on validation and test profiles.

    Everything that is fitted (genes, means, bases, weights) sees training profiles only; validation profiles choose
    the epoch, and the scale of `rescaled_mse`; test profiles choose nothing.

    Parameters
    ----------
    profiles
        All of them.
    settings
        Choices of the user.
    on_epoch
        Called with each row of the history.
    null
        Name in `geneae.data.permuted.NULLS`: fit, and judge, what is left of the profiles when there is nothing to
        learn.
    checkpoint
        Folder for a checkpoint of the training.
    resume
        Whether to go on from the one that is there.
    """
    begin = time.perf_counter()
    check_loss(settings)
    name, is_reconstructed = check_objective(settings)
    metric = open_metric(settings)
    check_batch(settings)
    check_profiles(profiles, settings, name, is_reconstructed, null)
    chain = parse_views(settings.views, profiles.state) if name is not None else []
    is_split = is_reconstructed and is_split_target(profiles, settings.target)
    is_empty = profiles.scan.lengths == 0
    fractions = settings.validation, settings.test
    split = split_profiles(profiles.obs, *fractions, settings.group, settings.stratify, _split_seed(settings), is_empty)
    saved = None
    if checkpoint is not None:
        identity = _identity(profiles, settings, split, null, metric)
        saved = Checkpoint(checkpoint / checkpoint_name(null), identity, resume, begin)
    train_rows, validation_rows = (np.flatnonzero(split == name) for name in ("train", "validation"))
    preprocess = fit_preprocess(profiles, train_rows, settings.n_top_genes, settings.scale)
    check_sizes(settings.n_latent, len(train_rows), len(preprocess.genes))
    fixed, of_metric = (None, None) if metric is None else _fix(metric, preprocess)
    Thread(target=import_module, args=("lightning_fabric",)).start()  # takes seconds, and bases need no Python
    expression, _ = preprocess.match(profiles)
    if null == GENE_PERMUTED:
        expression = permute_genes(expression, settings.seed)
        preprocess = _rescaled(preprocess, expression.take(train_rows)) if settings.scale else preprocess
    partner = partners(split.to_numpy(), settings.seed) if null == PAIR_PERMUTED else None
    parts = expression.take(train_rows), expression.take(validation_rows)
    partners_of = _among(partner, train_rows), _among(partner, validation_rows)
    sample = parts[0].sample(SAMPLE_VALUES, SAMPLE_PROFILES, settings.seed)
    blocks, baselines = _fit_baselines(sample, preprocess, settings, is_split, is_reconstructed, partners_of[0])
    labels = None
    if settings.label is not None:
        labels = labelled(expression, preprocess, profiles.obs, split, settings.label, settings.seed)
    batches = None
    if settings.batch_key is not None:
        keys = settings.batch_key, settings.label
        batches = batched(expression, preprocess, profiles.obs, split, *keys, settings.seed)
    look = None if labels is None else watch(labels, mean_shift(baselines, is_split))
    labels_of = training_labels(profiles, settings, (train_rows, validation_rows))
    names = profiles.names[train_rows]
    data = TrainingData(parts, names, preprocess, is_split, blocks, partners_of, labels_of, chain)
    trained = train_network(data, baselines, settings, fixed, look, on_epoch, saved)
    network, training = trained.network, trained.training
    config = _describe(
        profiles, settings, split, preprocess, trained.reconstruction, training, network, sample.n_profiles
    )
    config |= {
        "target": "split" if is_split else "self",
        "loss_at_perfection": trained.loss_at_perfection,
        "metric": of_metric,
    }
    model = Model(network, preprocess, baselines, {}, config)
    judged = np.flatnonzero(split.isin(["validation", "test"]))
    of_judged = expression.take(judged), profiles.names[judged], split.iloc[judged]
    if is_reconstructed:
        evaluation = evaluate(model, *of_judged, True, _among(partner, judged))
    else:
        evaluation = describe_latents(model, *of_judged, training.history.iloc[training.best_epoch])
    if labels is not None:
        evaluation = merge(evaluation, _judge_by_labels(labels, model, settings))
    if batches is not None:
        metrics = pd.concat([evaluation.metrics, _judge_by_batches(batches, model, settings)], ignore_index=True)
        evaluation = replace(evaluation, metrics=metrics)
    spent = {"seconds": time.perf_counter() - begin, "peak_memory_mb": peak_memory(), "parts": 1}
    config |= spent if saved is None else saved.spent()
    model = replace(model, scales=evaluation.scales)
    genewise, diagnostics = _diagnose(model, evaluation, expression, split, training, is_reconstructed)
    return Fitted(model, split, training.history, evaluation, genewise, diagnostics)


def _describe(
    profiles: Profiles,
    settings: Settings,
    split: pd.Series,
    preprocess: Preprocess,
    objective: Reconstruction,
    training: Training,
    network: Network,
    n_of_bases: int,
) -> dict[str, Any]:
    """What `config.json` holds of a fit before it is judged."""
    return {
        "format": FORMAT,
        "settings": asdict(settings),
        "seed": settings.seed,
        "split_seed": _split_seed(settings),
        "center": objective.center,
        "state": preprocess.state,
        "space": preprocess.space,
        "target_sum": preprocess.target_sum,
        "loss_constants": asdict(objective.settings),
        "collapse": training.collapse,
        "network": network.shape(),
        **_speed(training, int((split == "train").sum())),
        "data": {
            "source": profiles.source,
            "location": profiles.location,
            "state": profiles.state,
            "n_profiles": profiles.n_profiles,
            "n_genes": profiles.n_genes,
            "n_excluded": int((split == EXCLUDED).sum()),
            "is_streamed": profiles.is_streamed,
            "n_profiles_of_bases": n_of_bases,
            "fingerprint": profiles.fingerprint,
        },
        "versions": {name: version(name) for name in ("geneae", "torch", "anndata", "scipy", "numpy")}
        | {"python": platform.python_version()},
    }


def _diagnose(
    model: Model,
    evaluation: Evaluation,
    expression: Expression,
    split: pd.Series,
    training: Training,
    is_reconstructed: bool,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Gene-wise correlations and diagnostics over the test profiles, or over validation where there is no test."""
    last_name = "test" if (split == "test").any() else "validation"
    if not is_reconstructed:
        return pd.DataFrame(), to_table(diagnose_latents(evaluation, model.n_latent, last_name))
    last = expression.take(np.flatnonzero(split == last_name))
    found = of_collapse(training.collapse, int(training.history["epoch"].iloc[-1]))
    return gene_correlation(model, last), to_table(found + diagnose(model, evaluation, last, last_name))


def _split_seed(settings: Settings) -> int:
    return settings.seed if settings.split_seed is None else settings.split_seed


def _judge_by_labels(labels: Labelled, model: Model, settings: Settings) -> Evaluation:
    """Latents and controls."""
    latent = encode(model.network, labels.matrix, model.shift(is_half=False))
    found = {"model": latent, **controls(labels, model.baselines, settings)}
    return judge_latents(labels, found, settings.seed)


def _judge_by_batches(batches: Batched, model: Model, settings: Settings) -> pd.DataFrame:
    """Latents and controls."""
    latent = encode(model.network, batches.matrix, model.shift(is_half=False))
    found = {"model": latent, **untaught(batches.matrix, model.baselines, settings)}
    return judge_batches(batches, found, settings.seed)


def _fix(metric: CosineMetric, preprocess: Preprocess) -> tuple[FixedMetric, dict[str, Any]]:
    """A metric in the genes of a fit, and what is recorded of it."""
    columns, n_matched = metric.columns_of(preprocess)
    known = {"n_components": columns.shape[1], "epsilon": metric.epsilon, "n_matched": n_matched}
    fixed = FixedMetric(torch.tensor(columns, dtype=torch.float32), metric.epsilon)
    return fixed, known | {"fingerprint": metric.fingerprint}


def _identity(
    profiles: Profiles, settings: Settings, split: pd.Series, null: str | None, metric: CosineMetric | None
) -> dict[str, Any]:
    """What has to be the same to go on with a training."""
    return {
        "settings": asdict(settings),
        "data": profiles.fingerprint,
        "split": digest(split.to_numpy()),
        "null": null,
        "content of the metric": None if metric is None else metric.fingerprint,
        "streaming": profiles.is_streamed,
        **{f"version of {name}": version(name) for name in ("geneae", "torch")},
    }


def _among(partner: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    """Partners of some profiles, in increasing order, as positions among these."""
    return None if partner is None else np.searchsorted(rows, partner[rows])


def _rescaled(preprocess: Preprocess, expression: Expression) -> Preprocess:
    """With the deviations that the genes of other training profiles have."""
    unscaled = replace(preprocess, scale=np.ones(len(preprocess.genes)))
    deviation = np.sqrt(column_variance(unscaled.apply(expression)))
    return replace(preprocess, scale=np.where(deviation > 0, deviation, 1.0))


def _fit_baselines(
    expression: Expression,
    preprocess: Preprocess,
    settings: Settings,
    is_split: bool,
    is_reconstructed: bool,
    partner: np.ndarray | None,
) -> tuple[list[sparse.csr_matrix], Baselines]:
    """What the network is trained on (first draw), and the bases of the training profiles."""
    whole = preprocess.apply(expression)
    small, large = max(settings.n_latent, *PCA_SIZES), max(settings.rank, settings.n_latent)
    if preprocess.state != "counts" or not is_reconstructed:
        basis = fit_basis([whole], large, settings.seed)
        return mismatch([whole], partner), Baselines(basis, None, None, settings.n_latent)
    splitter = Splitter(expression.rows)
    halves = mismatch(draw_blocks(expression, preprocess, splitter, (settings.seed, TRAINING_STREAM, 0)), partner)
    first, second = (halves, [whole]) if is_split else ([whole], halves)  # the network's first; the other starts there
    trained = fit_basis(first, large, settings.seed)
    judged = fit_basis(second, small, settings.seed, NEAR_ITERATIONS, trained.components)
    basis, half = (judged, trained) if is_split else (trained, judged)
    factors = fit_wiener(halves[0], halves[1], half.rank, settings.seed)
    return halves if is_split else mismatch([whole], partner), Baselines(basis, half, factors, settings.n_latent)


def _speed(training: Training, n_profiles: int) -> dict[str, float | int | None]:
    history = training.history
    train_seconds = float(history["train_seconds"].sum())
    epochs_run = int(history["epoch"].iloc[-1])
    return {
        "best_epoch": training.best_epoch,
        "epochs_run": epochs_run,
        "seconds_to_best_epoch": float(history["seconds"].iloc[training.best_epoch]),
        "profiles_per_second": n_profiles * epochs_run / train_seconds if train_seconds else None,
    }
