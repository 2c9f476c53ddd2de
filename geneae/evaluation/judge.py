"""What a judge is: a way to evaluate a fit in three steps (prepare, watch, judge), and the facts about its numbers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import pandas as pd
from torch import Tensor

from geneae.data.preprocess import Expression, Preprocess
from geneae.models.baselines import LineStyle
from geneae.models.model import Model
from geneae.models.network import Network
from geneae.settings.settings import Settings
from geneae.training.loop import Training

Watch = Callable[[Network, Tensor | None], dict[str, float]]
"""Columns of the history from a network and its shift, see `Model.shift`."""


@dataclass(frozen=True)
class MetricFacts:
    """What is known of a metric, for every table, figure and sentence that shows it."""

    title: str
    """In words."""
    better: str = ""
    """`higher`, `lower`, or empty where neither is."""
    unit: str = ""
    """For the axis of a figure."""
    sees_length: bool = False
    """Whether it depends on the length of a reconstruction, which some losses leave undetermined."""
    is_by_profile: bool = False
    """Whether every profile has a value, so that configurations can be compared profile by profile."""
    is_main: bool = False
    """Whether it stands in the first table of a report."""
    short: str = ""
    """Title in a table whose head says what it is about; empty: the title."""
    in_full: str = ""
    """Title in a sentence that says nothing else about it; empty: the title."""


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model, a baseline or a control."""

    title: str
    """In words."""
    is_sized: bool = False
    """Whether it has as many dimensions as the latent."""
    line: LineStyle = ""
    """Line style in figures, as matplotlib names it; empty where it has no line."""

    @property
    def of_size(self) -> str:
        """The title, with the size that makes the comparison a fair one."""
        return f"{self.title} of the same size" if self.is_sized else self.title


@dataclass(frozen=True, eq=False)
class JudgingData:
    """What judges see of a fit before training."""

    settings: Settings
    """Choices of the user."""
    obs: pd.DataFrame
    """Annotation of all profiles."""
    split: pd.Series
    """By profile: `train`, `validation`, `test` or `excluded`."""
    expression: Expression
    """All profiles in the genes of the model."""
    preprocess: Preprocess
    """What is done to each before a network sees it."""
    has_decoder: bool
    """Whether profiles are reconstructed."""
    partner: np.ndarray | None = None
    """(n_profiles,) position of the profile whose target each is given, see `geneae.data.permuted`."""

    @property
    def last_split(self) -> str:
        """The split that sentences and diagnostics are about: `test`, or `validation` where there is no test."""
        return "test" if (self.split == "test").any() else "validation"


@dataclass(frozen=True)
class Diagnostic:
    """A number that tells whether something is wrong with a fit."""

    name: str
    """In snake case."""
    value: float
    """NaN where it cannot be computed."""
    limit: str
    """What it should be."""
    fires: bool
    """Whether it is not so."""
    message: str
    """What that means and what to do, for when it fires."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """What a judge says of a fit."""

    metrics: pd.DataFrame
    """Rows of the long table, see `geneae.evaluation.records.COLUMNS`."""
    profiles: pd.DataFrame | None = None
    """One row per profile and model: model, profile, split and more columns; None without numbers by profile."""
    diagnostics: list[Diagnostic] = field(default_factory=list)
    """What may be wrong."""
    sentence: str = ""
    """The verdict in words."""
    scales: dict[str, float] = field(default_factory=dict)
    """By model, the factor that `rescaled_mse` was taken with."""
    genewise: pd.DataFrame = field(default_factory=pd.DataFrame)
    """gene, mean, correlation; empty where nothing is reconstructed."""


class PreparedJudge(Protocol):
    """A judge with all that it needs of the data."""

    @property
    def watch(self) -> Watch | None:
        """Numbers of the network for every epoch; None where there are none."""

    def judge(self, model: Model, training: Training) -> Judgement:
        """Evaluate a fitted model."""


class Judge(ABC):
    """A way to evaluate a fit."""

    metrics: ClassVar[Mapping[str, MetricFacts]]
    """By name, the metrics that only this judge reports."""
    models: ClassVar[Mapping[str, ModelFacts]]
    """By name, the model and what it is compared with, in the order of its table."""
    columns: ClassVar[Sequence[str]]
    """Metrics of its table in the terminal; the first one tells whether the judge was asked for."""

    @abstractmethod
    def prepare(self, data: JudgingData) -> PreparedJudge | None:
        """Refuse what cannot be judged, before any training; None where nobody has asked for it."""

    @classmethod
    def row(
        cls, model: str, seed: int, split: str, metric: str, value: float, n_profiles: int, statistic: str = "mean"
    ) -> tuple[str, int, str, str, str, float, int, str]:
        """A row of the long table, with the direction that the facts about the metric name."""
        return model, seed, split, metric, statistic, value, n_profiles, cls.metrics[metric].better

    def head(self, settings: Mapping[str, Any]) -> str:
        """Head of its table in the terminal, with `{sizes}` for the numbers of profiles; empty without a table."""
        return ""

    def note(self, settings: Sequence[Mapping[str, Any]]) -> str:
        """What a reader of its numbers in a report has to know, for runs with these settings."""
        return ""

    def is_in(self, metrics: pd.DataFrame) -> bool:
        """Whether a long table holds its numbers."""
        return bool((metrics["metric"] == self.columns[0]).any())
