"""A fit from profiles to an evaluated model: prepare, train, judge."""

import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from geneae.data.identity import profile_keys
from geneae.data.profiles import Profiles
from geneae.data.reading import check_unchanged
from geneae.data.splits import EXCLUDED
from geneae.evaluation.agreement import CHOICE_PROFILES, choose_latent
from geneae.evaluation.diagnostics import of_copies, of_data, to_table
from geneae.evaluation.judge import Judgement, PreparedJudge, Watch
from geneae.evaluation.judges import JUDGES
from geneae.evaluation.records import Evaluation
from geneae.fitting.bases import Bases, fit_bases
from geneae.fitting.estimator import FittedEstimator
from geneae.fitting.head import train_head
from geneae.fitting.network import Trained, train_network
from geneae.fitting.prepare import FitData, prepare
from geneae.fitting.steps import Step, StepChoice, plain_loss
from geneae.models.estimator import Estimator
from geneae.models.model import FORMAT, Model
from geneae.models.network import Network
from geneae.settings.settings import Settings
from geneae.settings.stages import enter
from geneae.training.checkpoints import Checkpoint, checkpoint_name, digest, peak_memory
from geneae.training.devices import loading_fabric
from geneae.training.loop import Training
from geneae.training.sources import VALIDATION_PROFILES, VALIDATION_VALUES

LIBRARIES = ("geneae", "torch", "anndata", "scipy", "numpy")  # libraries whose versions are recorded


@dataclass(frozen=True, eq=False)
class Fitted:
    """Results of a fit."""

    model: Model
    """The fitted model, with the scales of `rescaled_mse`."""
    split: pd.Series
    """Split of each profile: `train`, `validation`, `test`, or `excluded` for profiles without any value."""
    history: pd.DataFrame
    """One row per epoch; epoch 0 is the start."""
    evaluation: Evaluation
    """Numbers on validation and test profiles."""
    genewise: pd.DataFrame
    """Columns gene, mean and correlation over the test profiles, or over the validation profiles without a test split;
    empty without a decoder."""
    diagnostics: pd.DataFrame
    """Columns name, value, limit, fires and message, over the same profiles."""
    conclusion: str
    """Verdicts of all judges, in sentences."""
    keys: np.ndarray | None = None
    """(n_profiles,) key of each profile, see `geneae.data.identity`; None for a permuted control."""


def fit(
    profiles: Profiles,
    settings: Settings,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    null: str | None = None,
    checkpoint: Path | None = None,
    resume: bool = True,
) -> Fitted:
    """Train on profiles, and evaluate the model and its baselines on validation and test profiles.

    Everything that is fitted (genes, means, bases, weights) sees training profiles only; validation profiles choose
    the epoch, and the scale of `rescaled_mse`; test profiles choose nothing.

    Parameters
    ----------
    profiles
        All profiles, of every split.
    settings
        Settings of the fit.
    on_epoch
        Called with each row of the history.
    null
        Name in `geneae.data.permuted.NULLS` of a permuted control, with nothing to learn, to fit instead; or None.
    checkpoint
        Folder for a checkpoint of the training; None for no checkpoint.
    resume
        Whether to resume from an existing checkpoint.
    """
    begin = time.perf_counter()
    enter("bases")
    data = prepare(profiles, settings, null)
    saved = None if checkpoint is None else _checkpoint(data, checkpoint, resume, begin)
    for_judges = data.for_judges()
    judges = [found for judge in JUDGES if (found := judge.prepare(for_judges)) is not None]

    with loading_fabric():  # training needs it
        bases = fit_bases(data)
    enter("training")
    trained = train_network(data, bases, _watch_of(judges), on_epoch, saved)
    enter("steps")
    estimator: Estimator | None = None
    steps: list[Step] = []
    if bases.estimator is not None and data.has_decoder:
        estimator, steps = choose_steps(data, bases.estimator, trained)
    elif bases.estimator is not None:
        estimator = bases.estimator.estimator.only()
    described = _describe(data, bases, trained) | {"steps": [asdict(step) for step in steps]}
    if estimator is not None and trained.training.best_epoch > 0:
        validation = data.validation.sample(VALIDATION_VALUES, CHOICE_PROFILES, settings.seed)
        choice = choose_latent(estimator, trained.network, validation, data.preprocess, settings.seed)
        described["latent_choice"] = asdict(choice)
    model = Model(trained.network, data.preprocess, bases.baselines, {}, described, estimator)

    enter("judging")
    keys = None if null is not None else profile_keys(profiles, profiles.genes)
    judgements = [judge.judge(model, trained.training) for judge in judges]
    evaluation = _combined(judgements)
    check_unchanged(profiles)
    spent = {"seconds": time.perf_counter() - begin, "peak_memory_mb": peak_memory(), "parts": 1}
    return Fitted(
        replace(model, scales=evaluation.scales, config=model.config | (spent if saved is None else saved.spent())),
        data.split,
        trained.training.history,
        evaluation,
        next((judgement.genewise for judgement in judgements if len(judgement.genewise)), pd.DataFrame()),
        to_table(
            [diagnostic for judgement in judgements for diagnostic in judgement.diagnostics]
            + ([] if keys is None else of_copies(keys, data.split))
            + of_data(profiles.notes)
        ),
        " ".join(judgement.sentence for judgement in judgements if judgement.sentence),
        keys,
    )


def choose_steps(data: FitData, fitted: FittedEstimator, trained: Trained) -> tuple[Estimator, list[Step]]:
    """The estimator with the steps that lower the loss of validation profiles, and what each brought."""
    settings, objective = data.settings, trained.reconstruction
    choosing = data.validation.sample(VALIDATION_VALUES, VALIDATION_PROFILES, settings.seed)
    choice = StepChoice(
        choosing,
        data.preprocess,
        trained.network,
        data.center,
        plain_loss(objective),
        settings.seed,
        data.partners("validation"),
    )
    states = [fitted]

    def fit_step(name: str, kept: tuple[str, ...]) -> Estimator:
        states.append(states[-1].with_step(name, kept, settings.seed))
        return states[-1].estimator

    estimator, steps = choice.choose(fitted.estimator, trained.training.best_epoch > 0, fit_step)
    if "own_counts" not in {step.name for step in steps}:  # a control knows them, tried or not
        estimator = replace(estimator, own_counts=fit_step("own_counts", estimator.kept).own_counts)
    if "entries" in estimator.kept and objective.loss.needs == "products" and objective.metric is None:
        estimator, step = choice.choose_head(estimator, train_head(states[-1], objective, settings.seed))
        steps.append(step)
    return estimator, steps


def _watch_of(judges: list[PreparedJudge]) -> Watch | None:
    """Function that computes the history columns of all judges; None where no judge has any."""
    watches = [judge.watch for judge in judges if judge.watch is not None]
    if not watches:
        return None

    def watch(network: Network, shift: Tensor | None) -> dict[str, float]:
        return {name: number for each in watches for name, number in each(network, shift).items()}

    return watch


def _combined(judgements: list[Judgement]) -> Evaluation:
    """Numbers of all judges in one table per profile and model, in the order of the first judge."""
    keys = ["model", "profile", "split"]
    first, *others = (judgement.profiles for judgement in judgements if judgement.profiles is not None)
    for other in others:
        new = other[~other["model"].isin(first["model"])]
        first = pd.concat([first.merge(other, how="left", on=keys), new], ignore_index=True)
    tables = [judgement.metrics for judgement in judgements if len(judgement.metrics)]
    metrics = pd.concat(tables, ignore_index=True)
    scales = {name: scale for judgement in judgements for name, scale in judgement.scales.items()}
    return Evaluation(first, metrics, scales)


def _describe(data: FitData, bases: Bases, trained: Trained) -> dict[str, Any]:
    """Contents of `config.json` that are known before the evaluation."""
    profiles, preprocess, settings = data.profiles, data.preprocess, data.settings
    return {
        "format": FORMAT,
        "settings": asdict(settings),
        "chosen": [name for name, value in vars(data.requested).items() if value != vars(settings)[name]],
        "seed": settings.seed,
        "split_seed": settings.seed_of_split,
        "center": data.center,
        "state": preprocess.state,
        "space": preprocess.space,
        "target_sum": preprocess.target_sum,
        "target": "split" if data.is_split else "self",
        "loss_constants": asdict(trained.reconstruction.settings),
        "loss_at_perfection": trained.loss_at_perfection,
        "metric": data.metric_facts,
        "collapse": trained.training.collapse,
        "network": trained.network.shape(),
        **_speed(trained.training, data.train.n_profiles),
        "data": {
            "source": profiles.source,
            "location": profiles.location,
            "gene_names": None if profiles.origin is None else profiles.origin.choice.gene_names,
            "state": profiles.state,
            "evidence": profiles.evidence,
            "unit": None if profiles.unit is None else asdict(profiles.unit),
            "notes": profiles.notes,
            "said": list(profiles.said),
            "n_profiles": profiles.n_profiles,
            "n_genes": profiles.n_genes,
            "n_excluded": int((data.split == EXCLUDED).sum()),
            "is_streamed": profiles.is_streamed,
            "n_profiles_of_bases": bases.n_profiles,
            "fingerprint": profiles.fingerprint,
        },
        "versions": {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()},
    }


def _checkpoint(data: FitData, folder: Path, resume: bool, begin: float) -> Checkpoint:
    """Checkpoint of a training; only a fit with the same identity can resume from it."""
    identity = {
        "settings": asdict(data.settings),
        "data": data.profiles.fingerprint,
        "split": digest(data.split.to_numpy()),
        "null": data.null,
        "content of the metric": None if data.metric_facts is None else data.metric_facts["fingerprint"],
        "streaming": data.profiles.is_streamed,
        **{f"version of {name}": version(name) for name in ("geneae", "torch")},
    }
    return Checkpoint(folder / checkpoint_name(data.null), identity, resume, begin)


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
