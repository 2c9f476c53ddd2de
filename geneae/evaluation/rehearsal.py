"""Rehearsal of a transfer of labels: what the neighbours of a profile are worth at the depth of a query.

Reference profiles, thinned to that depth, are looked up among the other reference profiles. How often their own label
comes back turns votes into probabilities, and how far they lie from their neighbours says what is unlike the reference.
"""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from geneae.data.augment import thin_to
from geneae.data.labels import labels_in
from geneae.data.preprocess import Expression
from geneae.data.profiles import Profiles
from geneae.evaluation.labels import vote_weights
from geneae.evaluation.latents import CHUNK
from geneae.models.model import Model
from geneae.models.query_depth import ratios_of
from geneae.settings.errors import InputError, listed
from geneae.settings.settings import TransferSettings
from geneae.settings.text import counted

DEFAULTS = TransferSettings()
PSEUDO_SHARE = 0.003
"""Added to the share of votes of each label, so that none is impossible. Estimated together with the exponent it was
0.002 on average over four data sets, and probabilities were no better."""
EXPONENTS = (0.1, 10.0)
"""Range of the exponent of votes."""
MOST_REHEARSED = 10_000  # reference profiles; more change no digit of an exponent or a quantile
FEW = 5  # profiles of a label; promises learned from fewer differ from what is reached by a tenth and more
LEAST_UNSEEN = 50  # profiles from which a quantile is taken
TRANSFER_STREAM = 14  # separates these random numbers from others of the same seed
LEAST_DISTANCE = 1e-6  # the rounding of a cosine in float32


@dataclass(frozen=True, eq=False)
class Reference:
    """Labelled profiles with their latents."""

    model: Model
    """Fitted model."""
    expression: Expression
    """The profiles in the genes of the model; those in a file stay there."""
    names: pd.Index
    """Names of the profiles."""
    latent: np.ndarray
    """(n_profiles, n_latent) at their own depth."""
    codes: np.ndarray
    """(n_profiles,) positions in `labels`."""
    labels: tuple[str, ...]
    """Different labels, sorted."""
    key: str
    """Column of `obs` that holds them."""
    ratio: float
    """Depth ratio of the profiles; 1 for a model that knows one depth only."""
    is_unseen: np.ndarray
    """(n_profiles,) whether a profile took no part in the training of the model, as far as is known."""
    trained: pd.Index
    """Names of the profiles that the model was trained on, as far as they are known; others than these, too."""
    n_missing: int = 0
    """Profiles that were left out, because they have no label or no molecules."""

    def sentence(self) -> str:
        """Numbers of profiles and labels, and labels of which there are too few profiles."""
        out = f"; {self.n_missing:,} without a label or molecules are left out" if self.n_missing else ""
        n_profiles, n_labels = counted(len(self.codes), "profile"), counted(len(self.labels), "label")
        said = f"Reference: {n_profiles} with {n_labels} in '{self.key}'{out}."
        sizes = np.bincount(self.codes, minlength=len(self.labels))
        single = [label for label, size in zip(self.labels, sizes, strict=True) if size == 1]
        if single:
            said += f" With one profile only, so that nothing tells how right it is: {listed(single)}."
        if np.median(sizes) < FEW:
            said += (
                f" Half of the labels or more have fewer than {FEW} profiles: probabilities learned from so few "
                "may be far off."
            )
        return said

    def without(self, missing: np.ndarray | None) -> "Reference":
        """The reference embedded from the genes that a query has, too.

        Parameters
        ----------
        missing
            (n_genes,) whether the query lacks a gene of the model; None where it lacks none.
        """
        expression = self.expression.without(missing)
        if expression is self.expression:
            return self
        ratios = None if self.model.estimator is None else np.full(len(self.codes), self.ratio)
        return replace(self, expression=expression, latent=self.model.latent(expression, ratios))

    def shared_genes(self) -> str:
        """On how many genes query and reference are compared; empty where it is all genes of the model."""
        missing, n_genes = self.expression.missing, len(self.model.preprocess.genes)
        if missing is None:
            return ""
        return (
            f"Query and reference are compared on the {n_genes - int(missing.sum()):,} of the model's {n_genes:,} "
            "genes that both have."
        )


def labelled_reference(
    model: Model, profiles: Profiles, expression: Expression, key: str, trained: pd.Index | None = None
) -> Reference:
    """Embed the profiles that have a label in column `key` of `obs`; labels are compared as text.

    Raises `InputError` for a missing column, for fewer than two labels, and for a column whose values do not repeat.

    Parameters
    ----------
    model
        Fitted model.
    profiles, expression
        The reference as it was read, and in the genes of the model.
    key
        Column of `obs`; missing and empty values are no labels.
    trained
        Names of the profiles that the model was trained on. Their latents lie farther apart than those of others, so
        that limits are taken from the rest, if there are enough of them.
    """
    named = labels_in(profiles.obs, key)
    is_used = named.notna().to_numpy() & (profiles.scan.lengths > 0)
    rows = np.flatnonzero(is_used)
    codes, found = pd.factorize(named.to_numpy()[rows], sort=True)
    if len(found) < 2:
        raise InputError(
            f"the reference must have profiles of at least 2 labels; column '{key}' of {profiles.source} has "
            f"{len(found)} in {counted(len(rows), 'profile')}. Name another column with --label."
        )
    if len(found) > len(rows) / 2:
        raise InputError(
            f"labels must be shared by several profiles of the reference; column '{key}' of {profiles.source} has "
            f"{len(found):,} different values in {counted(len(rows), 'profile')}. Name another column with --label."
        )
    chosen = expression.take(rows)
    depths = model.depths_of(chosen)
    ratios = ratios_of(depths, len(rows)) if depths else None
    names = profiles.names[rows]
    is_unseen = np.ones(len(rows), bool) if trained is None else ~names.isin(trained)
    if is_unseen.sum() < LEAST_UNSEEN:
        is_unseen = np.ones(len(rows), bool)
    return Reference(
        model,
        chosen,
        names,
        model.latent(chosen, ratios),
        codes,
        tuple(map(str, found)),
        key,
        depths[0].ratio if depths else 1.0,
        is_unseen,
        pd.Index([]) if trained is None else trained,
        profiles.n_profiles - len(rows),
    )


def nearest(
    among: np.ndarray, latent: np.ndarray, number: int, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the nearest rows of `among` by cosine, and their cosine distances: both (n_profiles, number).

    Parameters
    ----------
    among
        (n_reference, n_latent)
    latent
        (n_profiles, n_latent)
    number
        Neighbours of each; at most all that there are.
    own
        (n_profiles,) position in `among` of the profile itself, which is left out; -1 if it is not there.
    """
    from sklearn.neighbors import NearestNeighbors  # slow to load

    number = min(number, len(among) - (own is not None))
    if not len(latent):
        return np.empty((0, number), int), np.empty((0, number))
    search = NearestNeighbors(n_neighbors=number + (own is not None), algorithm="brute").fit(_unit(among))
    distances, positions = search.kneighbors(_unit(latent))
    if own is not None:
        is_own = positions == own[:, None]
        is_own[~is_own.any(1), -1] = True  # without itself among the nearest, the farthest is one too many
        distances, positions = (found[~is_own].reshape(len(latent), number) for found in (distances, positions))
    of_cosine: np.ndarray = distances**2 / 2  # distances are those of unit vectors
    return positions, of_cosine


def _unit(latent: np.ndarray) -> np.ndarray:
    """Latents of length 1 (0 if they are 0), whose squared distances are twice their cosine distances."""
    values = latent.astype(np.float64)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    found: np.ndarray = np.divide(values, length, out=np.zeros_like(values), where=length > 0)
    return found


def votes_of(codes: np.ndarray, distances: np.ndarray, n_labels: int) -> np.ndarray:
    """(n_profiles, n_labels) share of the votes for each label, each with the weight exp(cosine / 0.1).

    Parameters
    ----------
    codes
        (n_profiles, n_neighbours) labels of the neighbours.
    distances
        (n_profiles, n_neighbours) their cosine distances.
    n_labels
        Number of labels.
    """
    weights = vote_weights(distances)
    votes = np.zeros((len(codes), n_labels))
    np.add.at(votes, (np.arange(len(codes))[:, None], codes), weights)
    shares: np.ndarray = votes / votes.sum(1, keepdims=True)
    return shares


def probabilities(votes: np.ndarray, exponent: float) -> np.ndarray:
    """(n_profiles, n_labels) probabilities: (share of votes + 0.003) to the power `exponent`, made to sum to 1."""
    powers = (votes + PSEUDO_SHARE) ** exponent
    found: np.ndarray = powers / powers.sum(1, keepdims=True)
    return found


def fit_exponent(votes: np.ndarray, codes: np.ndarray) -> float:
    """Exponent under which the true labels are most likely, 0.1 to 10: below 1, votes are surer than they are right."""
    from scipy.optimize import minimize_scalar  # slow to load

    rows = np.arange(len(codes))

    def surprise(log_exponent: float) -> float:
        return -float(np.log(probabilities(votes, math.exp(log_exponent))[rows, codes]).mean())

    low, high = map(math.log, EXPONENTS)
    found = minimize_scalar(surprise, bounds=(low, high), method="bounded")
    return math.exp(found.x)


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """Reference profiles at the depth of a query, looked up among the other reference profiles."""

    reference: Reference
    """The reference."""
    settings: TransferSettings
    """Number of neighbours, and the fraction that may be refused."""
    ratio: float
    """Depth ratio of the query."""
    share: float
    """Share of their molecules that the reference profiles kept; 1: nothing was thinned."""
    rows: np.ndarray
    """(n_rehearsed,) positions of the profiles in the reference."""
    latent: np.ndarray = field(repr=False)
    """(n_rehearsed, n_latent) latents after thinning."""

    @cached_property
    def _found(self) -> tuple[np.ndarray, np.ndarray]:
        """Votes and log distances of the rehearsed profiles, by neighbours other than themselves."""
        return self.vote(self.latent, self.rows)

    @cached_property
    def is_judged(self) -> np.ndarray:
        """(n_rehearsed,) whether a profile took no part in the training of the model; all, if none is left of these.

        Latents keep some noise of training profiles, so that these lie farther apart than others.
        """
        is_unseen = self.reference.is_unseen[self.rows]
        return is_unseen if is_unseen.any() else np.ones_like(is_unseen)

    @cached_property
    def exponent(self) -> float:
        """Exponent of votes, see `fit_exponent`. From all profiles: those not trained on alone, which are few, gave
        probabilities that were no better."""
        return fit_exponent(self._found[0], self.reference.codes[self.rows])

    @cached_property
    def accuracy(self) -> float:
        """Share of the profiles of `is_judged` that get their own label back, 0 to 1."""
        is_right = self._found[0].argmax(1) == self.reference.codes[self.rows]
        return float(is_right[self.is_judged].mean())

    @cached_property
    def limit(self) -> float:
        """Largest relative distance that is not refused: a quantile of those of the profiles of `is_judged`."""
        return self._quantile(self.is_judged)

    @cached_property
    def limit_of_trained(self) -> float:
        """The same for profiles of a query that the model was trained on, from rehearsed profiles of that kind; `limit`
        where there are too few of these."""
        is_trained = ~self.reference.is_unseen[self.rows]
        return self._quantile(is_trained) if is_trained.sum() >= LEAST_UNSEEN else self.limit

    def _quantile(self, chosen: np.ndarray) -> float:
        """Relative distance beyond which the fraction `refuse` of some rehearsed profiles lies."""
        if not self.settings.refuse:
            return float("inf")
        relative = self._relative(self.latent, self._found[1], self.rows)
        return float(np.quantile(relative[chosen], 1 - self.settings.refuse))

    def look_up(self, latent: np.ndarray, own: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(n_profiles, n_labels) probabilities and (n_profiles,) relative distances of other profiles of this depth.

        The relative distance is the cosine distance from the neighbours, by that of rehearsed profiles at the same
        place from theirs, both as geometric means: 1 where a profile is as near as the reference would be (the idea of
        the local outlier factor, Breunig et al. 2000).

        Parameters
        ----------
        latent
            (n_profiles, n_latent)
        own
            (n_profiles,) position in the reference of the profile itself, which is left out; -1 if it is not there.
        """
        votes, log_distance = self.vote(latent, own)
        return probabilities(votes, self.exponent), self._relative(latent, log_distance, own)

    def vote(self, latent: np.ndarray, own: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(n_profiles, n_labels) shares of votes and (n_profiles,) mean log distances, see `look_up`."""
        reference = self.reference
        positions, distances = nearest(reference.latent, latent, self.settings.n_neighbors, own)
        votes = votes_of(reference.codes[positions], distances, len(reference.labels))
        return votes, np.log(np.maximum(distances, LEAST_DISTANCE)).mean(1)

    def _relative(self, latent: np.ndarray, log_distance: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
        if own is not None:
            place = np.full(len(self.reference.codes) + 1, -1)  # the last one is that of profiles that are not there
            place[self.rows] = np.arange(len(self.rows))
            own = place[own]
        places, _ = nearest(self.reference.latent[self.rows], latent, self.settings.n_neighbors, own)
        relative: np.ndarray = np.exp(log_distance - self._found[1][places].mean(1))
        return relative


def rehearse(reference: Reference, ratio: float, settings: TransferSettings = DEFAULTS) -> Rehearsal:
    """Thin up to 10,000 random reference profiles to a depth ratio, and embed them at that depth.

    A query that is deeper than the reference is rehearsed at the depth of the reference. Profiles in a file are read a
    chunk at a time.
    """
    rng = np.random.default_rng((settings.seed, TRANSFER_STREAM))
    rows = np.arange(len(reference.codes))
    if len(rows) > MOST_REHEARSED:
        rows = np.sort(rng.choice(rows, MOST_REHEARSED, replace=False))
    share = min(1.0, reference.ratio / ratio)
    if share == 1:
        return Rehearsal(reference, settings, ratio, share, rows, reference.latent[rows])
    model, latents, is_kept = reference.model.at(ratio), [], []
    for _, part in reference.expression.take(rows).chunks(CHUNK):
        thinned = thin_to(part, share, rng)
        is_kept.append(thinned.totals > 0)
        latents.append(model.latent(thinned))
    kept = np.concatenate(is_kept)
    if kept.sum() < 2:
        raise InputError(
            f"thinned to the depth of the query, 1/{1 / share:.3g} of their molecules, fewer than 2 reference profiles "
            "keep any. Give a larger depth of the query with a smaller --depth-ratio, or a deeper reference."
        )
    return Rehearsal(reference, settings, ratio, share, rows[kept], np.concatenate(latents)[kept])
