"""Judges: ways to evaluate a fit in three steps (prepare, watch, judge), and the facts about their numbers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from torch import Tensor

from geneae.data.preprocess import Expression, Preprocess
from geneae.evaluation.records import judged_split
from geneae.models.baselines import LineStyle
from geneae.models.model import Model
from geneae.models.network import Network
from geneae.settings.settings import Settings
from geneae.training.loop import Training

Watch = Callable[[Network, Tensor | None], dict[str, float]]
"""Function that computes columns of the history from a network and the shift of its gene means, see `Model.shift`."""


@dataclass(frozen=True)
class MetricFacts:
    """Facts about a metric, for every table, figure and sentence that shows it."""

    title: str
    """Name in words."""
    better: str = ""
    """Better direction: `higher`, `lower`, or empty where neither is better."""
    unit: str = ""
    """Unit on the axis of a figure."""
    sees_length: bool = False
    """Whether it depends on the length of a reconstruction, which some losses leave undetermined."""
    is_by_profile: bool = False
    """Whether every profile has a value, so that configurations can be compared profile by profile."""
    is_main: bool = False
    """Whether it is shown in the first table of a report."""
    short: str = ""
    """Title in a table whose heading already says what is evaluated; empty where it equals `title`."""
    in_full: str = ""
    """Title in a sentence that explains nothing else about it; empty where it equals `title`."""


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a model, a baseline or a control."""

    title: str
    """Name in words."""
    is_sized: bool = False
    """Whether it has as many dimensions as the latent."""
    line: LineStyle = ""
    """Line style in figures, as matplotlib names it; empty where it has no line."""
    is_step: bool = False
    """Whether it is a model with some of its steps, which tables of results leave out."""

    @property
    def of_size(self) -> str:
        """Title, with the remark "of the same size" where the size makes the comparison fair."""
        return f"{self.title} of the same size" if self.is_sized else self.title


@dataclass(frozen=True, eq=False)
class JudgingData:
    """Information about a fit that judges receive before training."""

    settings: Settings
    """Settings of the fit."""
    obs: pd.DataFrame
    """Annotation of all profiles."""
    split: pd.Series
    """Split of each profile: `train`, `validation`, `test` or `excluded`."""
    expression: Expression
    """All profiles in the genes of the model."""
    preprocess: Preprocess
    """Preprocessing of each profile before a network sees it."""
    has_decoder: bool
    """Whether profiles are reconstructed."""
    partner: np.ndarray | None = None
    """(n_profiles,) position of the profile whose target replaces its own, see `geneae.data.permuted`; or None."""
    has_estimator: bool = False
    """Whether the model will have an estimator, which reads profiles at their depth."""

    @property
    def last_split(self) -> str:
        """The split that sentences and diagnostics describe: `test`, or `validation` without test profiles."""
        return judged_split(self.split)


@dataclass(frozen=True)
class Diagnostic:
    """A number that shows whether something is wrong with a fit."""

    name: str
    """Name in snake case."""
    value: float
    """The number; NaN where it cannot be computed."""
    limit: str
    """Range in which the value should be, in words."""
    fires: bool
    """Whether the value is outside this range."""
    message: str
    """Meaning and remedy, for a diagnostic that fires."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """Results of a judge."""

    metrics: pd.DataFrame
    """Rows of the long table, see `geneae.evaluation.records.COLUMNS`."""
    profiles: pd.DataFrame | None = None
    """One row per profile and model: model, profile, split and more columns; None without numbers by profile."""
    diagnostics: list[Diagnostic] = field(default_factory=list)
    """Diagnostics of the fit."""
    sentence: str = ""
    """Verdict in words; may be empty."""
    scales: dict[str, float] = field(default_factory=dict)
    """Factor of the predictions in `rescaled_mse`, by model."""
    genewise: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Columns gene, mean and correlation; empty without a decoder."""


class PreparedJudge(ABC):
    """A judge together with the data that it evaluates."""

    @property
    def watch(self) -> Watch | None:
        """Function that computes columns of the history in every epoch; None for no columns."""
        return None

    @abstractmethod
    def judge(self, model: Model, training: Training) -> Judgement:
        """Evaluate a fitted model."""


class Judge(ABC):
    """A way to evaluate a fit."""

    metrics: ClassVar[Mapping[str, MetricFacts]]
    """Metrics that only this judge reports, by name."""
    models: ClassVar[Mapping[str, ModelFacts]]
    """The model and what it is compared with, by name, in the order of the judge's table."""
    columns: ClassVar[Sequence[str]]
    """Metrics of its table in the terminal, if `head` is not empty; the first one is in `metrics.csv` if and only if
    this judge took part."""

    @abstractmethod
    def prepare(self, data: JudgingData) -> PreparedJudge | None:
        """Refuse unsuitable data before any training; None where the settings do not ask for this judge."""

    @classmethod
    def row(
        cls, model: str, seed: int, split: str, metric: str, value: float, n_profiles: int, statistic: str = "mean"
    ) -> tuple[str, int, str, str, str, float, int, str]:
        """A row of the long table; its better direction comes from the facts about the metric."""
        return model, seed, split, metric, statistic, value, n_profiles, cls.metrics[metric].better

    def head(self, settings: Mapping[str, Any]) -> str:
        """Heading of its table in the terminal, with `{sizes}` for the numbers of profiles; empty without a table."""
        return ""

    def note(self, settings: Sequence[Mapping[str, Any]]) -> str:
        """Explanation of its numbers in a report, for runs with these settings; empty without one."""
        return ""

    def is_in(self, metrics: pd.DataFrame) -> bool:
        """Whether a long table contains its numbers."""
        return bool((metrics["metric"] == self.columns[0]).any())
