"""Agreement of predictions from one random half of the molecules with the other half."""

import numpy as np

from geneae.data.count_split import Splitter, draw_halves
from geneae.data.preprocess import Expression, Preprocess
from geneae.evaluation.predictors import Predictor, predictors, products_of
from geneae.losses.metrics import METRICS, measure
from geneae.models.ceiling import cosine_of_halves, has_molecules
from geneae.models.model import Model

REPEATS = 3  # count splits averaged in a held-out number, each in both directions
EVALUATION_STREAM = 7  # makes the count splits of evaluation differ from those of training, whatever the seed

ByModel = dict[str, np.ndarray]
"""(n_profiles,) numbers of each model, by name."""


def half_against_half(
    models: dict[str, Predictor],
    preprocess: Preprocess,
    expression: Expression,
    rng: np.random.Generator,
    repeats: int = REPEATS,
    partner: np.ndarray | None = None,
    share: float = 1.0,
) -> tuple[ByModel, np.ndarray]:
    """Cosine of the prediction from one half of the molecules with the other half, by model.

    Parameters
    ----------
    models
        Predictors by name.
    preprocess
        Preprocessing of the profiles.
    expression
        Counts in memory.
    rng
        Generator that divides the molecules.
    repeats
        Number of count splits, each used in both directions.
    partner
        (n_profiles,) position of the profile whose other half is the target; None: the profile itself.
    share
        Share of their molecules with which halves are read, see `Model.share_read`; not together with partners.

    Returns
    -------
    (n_profiles,) means over count splits and directions by model, and (n_profiles,) mean cosines between the two halves
    themselves, from which the ceiling follows. NaN for profiles with fewer than 20 molecules in a half.
    """
    sums = {name: np.zeros(expression.n_profiles) for name in models}
    of_halves = np.zeros(expression.n_profiles)
    splitter = Splitter(expression.rows)
    for _ in range(repeats):
        pair = draw_halves(splitter, expression.totals, rng)
        known = has_molecules(*pair)
        blocks, totals = [preprocess.apply(half) for half in pair], [half.totals for half in pair]
        of_halves += np.where(known, cosine_of_halves(blocks[0], blocks[1]), np.nan)
        judged = known if partner is None else known & known[partner]
        if partner is None:
            read = [preprocess.apply(half, share) for half in pair] if share < 1 else None
            by_direction = products_of(models, blocks, ("none",), totals, read=read)
        else:
            by_direction = [
                products_of(models, [given, target[partner]], ("none",), [of_given, of_target[partner]])[0]
                for (given, target), (of_given, of_target) in ((blocks, totals), (blocks[::-1], totals[::-1]))
            ]
        for products in by_direction:
            for name, by_center in products.items():
                cosine = measure(METRICS["cosine"], by_center["none"]).numpy()
                sums[name] += np.where(judged, cosine, np.nan)
    return {name: total / (2 * repeats) for name, total in sums.items()}, of_halves / repeats


class HeldOutCosines:
    """Held-out cosines of a model and its baselines; count splits follow from the seed of the data split."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._models = predictors(model, is_half=True) if model.can_hold_out else {}

    def __call__(
        self, expression: Expression, start: int = 0, partner: np.ndarray | None = None
    ) -> tuple[ByModel, np.ndarray]:
        """Results of `half_against_half`; without counts, no model and NaN for every profile.

        Parameters
        ----------
        expression
            Profiles in memory.
        start
            Position of the first of these among all profiles, part of the seed of the count splits.
        partner
            (n_profiles,) position of the profile that each profile predicts; None: itself.
        """
        if not self._models:
            return {}, np.full(expression.n_profiles, np.nan)
        rng = np.random.default_rng((int(self._model.config["split_seed"]), EVALUATION_STREAM, start))
        share = self._model.share_read(is_half=True)
        return half_against_half(self._models, self._model.preprocess, expression, rng, partner=partner, share=share)
