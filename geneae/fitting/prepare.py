"""Data of a fit: checked settings, the split, preprocessing, and profiles in the genes of the model."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from geneae.data.augment import parse_views
from geneae.data.permuted import GENE_PERMUTED, PAIR_PERMUTED, among, partners, permute_genes
from geneae.data.preprocess import Expression, Preprocess, column_variance, fit_preprocess
from geneae.data.profiles import Profiles
from geneae.data.splits import split_profiles
from geneae.evaluation.judge import JudgingData
from geneae.fitting.checks import (
    check_batch,
    check_loss,
    check_objective,
    check_profiles,
    is_split_target,
    latents_of,
    open_metric,
)
from geneae.losses.fixed_metric import FixedMetric
from geneae.settings.settings import Settings

if TYPE_CHECKING:
    from geneae.fitting.cosine_metric import CosineMetric


@dataclass(frozen=True, eq=False)
class FitData:
    """Data of a fit before its bases and network are fitted."""

    profiles: Profiles
    """All profiles, of every split."""
    settings: Settings
    """Settings of the fit, with the number of latents."""
    requested: Settings
    """Settings as they were given."""
    null: str | None
    """Name in `geneae.data.permuted.NULLS` of the permuted control to fit, or None."""
    center: str
    """Centring of the loss."""
    objective: str | None
    """Name in `geneae.training.selfsupervised.OBJECTIVES` of the objective that learns from views, or None."""
    has_decoder: bool
    """Whether profiles are reconstructed."""
    is_split: bool
    """Whether one half of the molecules predicts the other."""
    views: list[tuple[str, float]]
    """Names and amounts of random alterations in views, see `geneae.data.augment.parse_views`."""
    split: pd.Series
    """Split of each profile: `train`, `validation`, `test`, or `excluded` for profiles without any value."""
    preprocess: Preprocess
    """Preprocessing, with genes chosen and scaled on training profiles."""
    expression: Expression
    """All profiles in the genes of the model; with permuted genes for the control `gene_permuted`."""
    partner: np.ndarray | None
    """(n_profiles,) position of the profile whose target replaces its own; None unless targets are permuted."""
    metric: FixedMetric | None
    """Learned metric under which the loss compares profiles, in the genes of the fit; or None."""
    metric_facts: dict[str, Any] | None
    """Description of the learned metric in `config.json`, or None."""

    @property
    def has_estimator(self) -> bool:
        """Whether the network starts from the depth-aware estimator: counts in a fixed basis, not scaled, whose halves
        predict each other or are views."""
        return can_start_whitened(self.profiles, self.settings)

    @cached_property
    def train(self) -> Expression:
        """Training profiles."""
        return self.expression.take(self.rows("train"))

    @cached_property
    def validation(self) -> Expression:
        """Validation profiles."""
        return self.expression.take(self.rows("validation"))

    def rows(self, split: str) -> np.ndarray:
        """Positions of the profiles of a split."""
        return np.flatnonzero(self.split == split)

    def partners(self, split: str) -> np.ndarray | None:
        """Partners of the profiles of a split, as positions within that split; None without partners."""
        return among(self.partner, self.rows(split))

    def for_judges(self) -> JudgingData:
        """The part of these data that judges receive."""
        return JudgingData(
            self.settings,
            self.profiles.obs,
            self.split,
            self.expression,
            self.preprocess,
            self.has_decoder,
            self.partner,
            self.has_estimator,
        )


def can_start_whitened(profiles: Profiles, settings: Settings) -> bool:
    """Whether an estimator can be fitted: molecules to divide, and a fixed basis of genes that are not scaled."""
    is_plain = settings.basis == "pca" and not settings.scale
    return is_plain and is_split_target(profiles, settings.target)


def prepare(profiles: Profiles, settings: Settings, null: str | None = None) -> FitData:
    """Check the settings, split the profiles, and choose genes and their scale on the training profiles.

    Parameters
    ----------
    profiles
        All profiles, of every split.
    settings
        Settings of the fit; combinations that do not suit each other or these profiles are refused.
    null
        Name in `geneae.data.permuted.NULLS` of a permuted control, or None.
    """
    center = check_loss(settings)
    objective, has_decoder = check_objective(settings)
    learned = open_metric(settings)
    check_batch(settings)
    check_profiles(profiles, settings, objective, has_decoder, null)
    views = (
        parse_views(settings.views, profiles.state, can_start_whitened(profiles, settings))
        if objective is not None
        else []
    )
    is_split = has_decoder and is_split_target(profiles, settings.target)
    split = split_profiles(
        profiles.obs,
        settings.validation,
        settings.test,
        settings.group,
        settings.stratify,
        settings.seed_of_split,
        profiles.scan.lengths == 0,
    )
    train = np.flatnonzero(split == "train")
    preprocess = fit_preprocess(profiles, train, settings.n_top_genes, settings.scale)
    chosen = replace(settings, n_latent=latents_of(settings.n_latent, len(train), len(preprocess.genes)))
    metric, metric_facts = (None, None) if learned is None else _fix(learned, preprocess)
    expression, _ = preprocess.match(profiles)
    if null == GENE_PERMUTED:
        expression = permute_genes(expression, settings.seed)
        preprocess = _rescaled(preprocess, expression.take(train)) if settings.scale else preprocess
    return FitData(
        profiles=profiles,
        settings=chosen,
        requested=settings,
        null=null,
        center=center,
        objective=objective,
        has_decoder=has_decoder,
        is_split=is_split,
        views=views,
        split=split,
        preprocess=preprocess,
        expression=expression,
        partner=partners(split.to_numpy(), settings.seed) if null == PAIR_PERMUTED else None,
        metric=metric,
        metric_facts=metric_facts,
    )


def _fix(learned: "CosineMetric", preprocess: Preprocess) -> tuple[FixedMetric, dict[str, Any]]:
    """A learned metric in the genes of a fit, and its description for `config.json`."""
    columns, n_matched = learned.columns_of(preprocess)
    fixed = FixedMetric(torch.tensor(columns, dtype=torch.float32), learned.epsilon)
    return fixed, {
        "n_components": columns.shape[1],
        "epsilon": learned.epsilon,
        "n_matched": n_matched,
        "fingerprint": learned.fingerprint,
    }


def _rescaled(preprocess: Preprocess, expression: Expression) -> Preprocess:
    """The preprocessing with genes scaled by their deviations in other training profiles."""
    unscaled = replace(preprocess, scale=np.ones(len(preprocess.genes)))
    deviation = np.sqrt(column_variance(unscaled.apply(expression)))
    return replace(preprocess, scale=np.where(deviation > 0, deviation, 1.0))
