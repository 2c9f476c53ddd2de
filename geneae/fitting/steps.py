"""Steps of an estimator: each is kept where it lowers the loss of validation profiles, paired."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from geneae.data.count_split import Splitter, draw_halves
from geneae.data.preprocess import Expression, Preprocess
from geneae.evaluation.halves import half_against_half
from geneae.evaluation.predictors import products_of, step_predictor
from geneae.losses.inner_products import InnerProducts
from geneae.losses.reconstruction import LOSSES
from geneae.models.ceiling import half_ceiling, is_impossible
from geneae.models.entry_head import EntryHead
from geneae.models.estimator import STEPS, Estimator
from geneae.models.network import Network
from geneae.training.loop import is_clear, mean_gain
from geneae.training.objectives import Reconstruction

CHOICE_STREAM = 9  # count splits of validation profiles that choose steps, apart from those that choose the epoch
SPLITS = 2  # count splits, each in both directions


@dataclass(frozen=True)
class Step:
    """A step of a fit and what it brought."""

    name: str
    """`network`, a name in `geneae.models.estimator.STEPS`, or `loss`: the head trained with the loss of the fit."""
    is_kept: bool
    """Whether it is used."""
    gain: float
    """Mean decrease of the loss of validation profiles."""
    error: float
    """Standard error of this mean."""


class StepChoice:
    """Losses of validation halves for any estimator.

    Parameters
    ----------
    validation
        Validation profiles, in memory.
    preprocess
        Normalisation.
    network
        Trained network, on the CPU.
    center
        Centring of the inner products.
    by_profile
        Function that gives one loss per profile from them, see `plain_loss`.
    seed
        Seed of the count splits.
    partner
        (n_profiles,) position of the profile that each profile predicts; None: itself.
    """

    def __init__(
        self,
        validation: Expression,
        preprocess: Preprocess,
        network: Network,
        center: str,
        by_profile: Callable[[InnerProducts], Tensor],
        seed: int,
        partner: np.ndarray | None = None,
    ) -> None:
        self._network, self._center, self._by_profile = network, center, by_profile
        self._validation, self._preprocess, self._seed = validation, preprocess, seed
        self._is_permuted = partner is not None
        self._chosen: tuple[Estimator, Tensor] | None = None
        rng = np.random.default_rng((seed, CHOICE_STREAM))
        splitter = Splitter(validation.rows)
        self._drawn: list[tuple[list[sparse.csr_matrix], list[np.ndarray]]] = []
        for _ in range(SPLITS):
            halves = draw_halves(splitter, validation.totals, rng)
            blocks, totals = [preprocess.apply(half) for half in halves], [half.totals for half in halves]
            if partner is not None:
                blocks, totals = [blocks[0], blocks[1][partner]], [totals[0], totals[1][partner]]
            self._drawn.append((blocks, totals))

    def losses(self, estimator: Estimator, has_network: bool = True) -> Tensor:
        """(n_profiles,) mean losses over count splits and directions."""
        models = {"model": step_predictor(estimator, self._network if has_network else None)}
        parts = []
        for blocks, totals in self._drawn:
            for products in products_of(models, blocks, (self._center,), totals):
                parts.append(self._by_profile(products["model"][self._center]).double())
        return torch.stack(parts).mean(0)

    def is_drawn_at_random(self, estimator: Estimator) -> bool:
        """Whether nothing speaks against counts of molecules drawn at random, whose halves are independent given the
        profile: the linear start predicts a half no better than Poisson noise allows, see `is_impossible`."""
        if self._is_permuted:  # halves are of different profiles
            return True
        rng, models = (
            np.random.default_rng((self._seed, CHOICE_STREAM, 1)),
            {"start": step_predictor(estimator.only(), None)},
        )
        found, cosines = half_against_half(models, self._preprocess, self._validation, rng, SPLITS)
        known = ~np.isnan(cosines)
        reached = float(found["start"][known].mean()) if known.any() else float("nan")
        return not is_impossible(half_ceiling(cosines), cosines, [reached])

    def choose(
        self, estimator: Estimator, has_network: bool, fit_step: Callable[[str, tuple[str, ...]], Estimator]
    ) -> tuple[Estimator, list[Step]]:
        """The estimator with the steps that lower the loss, each tried on those kept before; and all steps.

        Parameters
        ----------
        estimator
            Estimator whose steps need not be fitted yet.
        has_network
            Whether training has found a network better than its start.
        fit_step
            Function that gives the estimator with a step fitted on those kept of the steps before it. Called in the
            order of `STEPS`, but not for `entries` where own counts clearly do harm.

        Where counts are not drawn at random, such as 0 and 1, neither own counts nor entries are tried: what is in one
        half is then missing in the other, so that they would learn the opposite of what a count says.
        """
        steps: list[Step] = []
        kept = estimator.only()
        best = self.losses(kept, has_network=False)
        if has_network:
            found = self.losses(kept)
            steps.append(replace(_step("network", best - found), is_kept=True))  # by the loop, on other count splits
            best = found
        for name in STEPS:
            if name == "own_counts" and not self.is_drawn_at_random(estimator):
                break
            if name == "entries" and is_clear(-steps[-1].gain, steps[-1].error):
                break
            kept = replace(fit_step(name, kept.kept), kept=kept.kept)
            needed = ("own_counts",) if name == "entries" else ()
            tried = kept.only(*kept.kept, *needed, name)
            losses = self.losses(tried)
            steps.append(_step(name, best - losses))
            if steps[-1].is_kept:
                kept, best = tried, losses
        self._chosen = kept, best
        return kept, steps

    def choose_head(self, estimator: Estimator, head: EntryHead) -> tuple[Estimator, Step]:
        """The estimator with another head if that lowers the loss, and the step."""
        tried, is_known = replace(estimator, head=head), self._chosen is not None and self._chosen[0] is estimator
        before = self._chosen[1] if self._chosen is not None and is_known else self.losses(estimator)
        step = _step("loss", before - self.losses(tried))
        return (tried if step.is_kept else estimator), step


def _step(name: str, gains: Tensor) -> Step:
    gain, error = mean_gain(gains)
    return Step(name, is_clear(gain, error), gain, error)


def plain_loss(objective: Reconstruction) -> Callable[[InnerProducts], Tensor]:
    """The loss of a fit as a function of the inner products of single profiles, by which steps are chosen.

    It is the loss `cosine` where the loss compares the profiles of a mini-batch, or compares them under a learned
    metric.
    """
    if objective.loss.needs == "products" and objective.metric is None:
        return objective.by_profile
    return replace(objective, loss=LOSSES["cosine"], metric=None).by_profile
