"""Labels for profiles from the nearest profiles of a labelled reference, each with a probability or refused."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from geneae.data.labels import spelled_like
from geneae.evaluation.calibration import calibration_error, calibration_table
from geneae.evaluation.rehearsal import DEFAULTS, Reference, Rehearsal, rehearse
from geneae.models.query_depth import QueryDepth, by_ratio, ratios_of
from geneae.settings.settings import TransferSettings
from geneae.settings.text import counted

MANY = 3  # times the fraction that may be refused: so many refusals are no chance
DEEPER = 1.5  # times as many molecules as the reference: a query that its rehearsal is not like
NAMED = 3  # labels that are named in a sentence
SURE = 0.9  # probability of labels that are counted as sure


@dataclass(frozen=True, eq=False)
class Transferred:
    """Labels that a query was given."""

    reference: Reference
    """The reference."""
    settings: TransferSettings
    """Number of neighbours, and the fraction that may be refused."""
    rehearsals: tuple[Rehearsal, ...]
    """One for each depth ratio of the query."""
    closest: np.ndarray
    """(n_profiles,) position in the labels of the reference, of refused profiles too; -1 without molecules."""
    probability: np.ndarray
    """(n_profiles,) probability of that label, 0 to 1; NaN without molecules."""
    distance: np.ndarray
    """(n_profiles,) relative distance from the neighbours, see `Rehearsal.look_up`; NaN without molecules."""
    is_refused: np.ndarray
    """(n_profiles,) whether a profile is unlike the reference, or has no molecules."""
    n_shared: int = 0
    """Profiles whose names are in the reference, too."""

    @property
    def closest_labels(self) -> np.ndarray:
        """(n_profiles,) label of each profile whether it is refused or not; None without molecules."""
        labels: np.ndarray = np.array([*self.reference.labels, None], dtype=object)[self.closest]
        return labels

    def table(self, names: pd.Index, prefix: str = "geneae") -> pd.DataFrame:
        """Table with a row for each profile: `geneae_label`, `geneae_probability`, `geneae_distance` (relative) and
        `geneae_closest_label`, which is the label without refusals. Labels are categories, missing where refused."""
        labels = pd.Index(self.reference.labels)
        columns = {
            "label": pd.Categorical.from_codes(np.where(self.is_refused, -1, self.closest), labels),
            "probability": self.probability,
            "distance": self.distance,
            "closest_label": pd.Categorical.from_codes(self.closest, labels),
        }
        return pd.DataFrame({f"{prefix}_{name}": values for name, values in columns.items()}, index=names)

    def facts(self) -> dict[str, Any]:
        """How the labels were found, for `uns`. For each depth of the query: the limit of the distance, the exponent of
        votes, and how often rehearsed reference profiles got their own label back."""
        return {
            "label_key": self.reference.key,
            "labels": np.array(self.reference.labels, dtype=object),
            "n_reference": len(self.reference.codes),
            "n_neighbors": self.settings.n_neighbors,
            "refuse": self.settings.refuse,
            "n_refused": int(self.is_refused.sum()),
            "depth_ratio": np.array([one.ratio for one in self.rehearsals]),
            "distance_limit": np.array([one.limit for one in self.rehearsals]),
            "distance_limit_of_trained": np.array([one.limit_of_trained for one in self.rehearsals]),
            "exponent": np.array([one.exponent for one in self.rehearsals]),
            "rehearsed_accuracy": np.array([one.accuracy for one in self.rehearsals]),
        }


def transfer(
    reference: Reference,
    names: pd.Index,
    latent: np.ndarray,
    depths: list[QueryDepth],
    is_empty: np.ndarray,
    settings: TransferSettings = DEFAULTS,
) -> Transferred:
    """Labels of the profiles of a query.

    Parameters
    ----------
    reference
        Labelled profiles.
    names
        Names of the profiles; one that is in the reference, too, is looked up among the others, and one that the model
        was trained on has a limit of its own.
    latent
        (n_profiles, n_latent) latents of the query at its depth, by the same model.
    depths
        Depth of the query; empty for a model that knows one depth only.
    is_empty
        (n_profiles,) whether a profile has no molecules, so that nothing can be said of it.
    settings
        Number of neighbours, and the fraction that may be refused.
    """
    n_profiles = len(latent)
    ratios = ratios_of(depths, n_profiles) if depths else np.full(n_profiles, reference.ratio)
    closest, is_refused = np.full(n_profiles, -1), np.ones(n_profiles, bool)
    probability, distance = np.full(n_profiles, np.nan), np.full(n_profiles, np.nan)
    places = reference.names.get_indexer(names)
    own = places if (places >= 0).any() else None
    rehearsals = []
    for ratio, some in by_ratio(ratios):
        rehearsal = rehearse(reference, ratio, settings)
        rows = some[~is_empty[some]]
        by_label, distance[rows] = rehearsal.look_up(latent[rows], None if own is None else own[rows])
        closest[rows], probability[rows] = by_label.argmax(1), by_label.max(1, initial=0.0)
        is_trained = names[rows].isin(reference.trained)
        limits = np.where(is_trained, rehearsal.limit_of_trained if is_trained.any() else 0.0, rehearsal.limit)
        is_refused[rows] = distance[rows] > limits
        rehearsals.append(rehearsal)
    n_shared = int((places >= 0).sum())
    return Transferred(reference, settings, tuple(rehearsals), closest, probability, distance, is_refused, n_shared)


def sentences(found: Transferred) -> list[str]:
    """What was labelled and refused, what the refused are closest to, and what labels are worth by the rehearsal."""
    said, share = [], found.settings.refuse
    model = found.reference.model
    of_counts = model.config["data"].get("unit", {}) is not None  # logarithms of counts have a depth, intensities none
    has_depth = model.preprocess.state == "counts" or of_counts
    if found.reference.model.estimator is None and has_depth:
        said.append(
            "This model knows one depth only: profiles that are shallower or deeper than the reference are labelled "
            "worse than their probabilities say."
        )
    if found.n_shared:
        said.append(
            counted(
                found.n_shared,
                "profile has the name of a reference profile: it is looked up among the others alone.",
                "profiles have names of reference profiles: each is looked up among the others alone.",
            )
        )
    n_profiles, is_empty = len(found.closest), found.closest < 0
    is_unlike = found.is_refused & ~is_empty
    n_labelled, n_unlike = int((~found.is_refused).sum()), int(is_unlike.sum())
    of_all = n_unlike / max(1, n_profiles)
    line = f"Labelled: {n_labelled:,} of {counted(n_profiles, 'profile')}."
    deeper = max((found.reference.ratio / one.ratio for one in found.rehearsals if has_depth), default=1.0)
    if share:
        line += (
            f" Refused: {n_unlike:,} ({100 * of_all:.1f} %), farther from their neighbours than "
            f"{100 * (1 - share):g} % of reference profiles{' at this depth' * (has_depth and deeper <= DEEPER)}."
        )
    if is_empty.any():
        line += f" With too few molecules: {int(is_empty.sum()):,}."
    said.append(line)
    if n_unlike:
        closest = pd.Series(found.closest_labels[is_unlike]).value_counts()
        named = _named([f"{label} ({number:,})" for label, number in closest.items()])
        said.append(f"Labels closest to the refused: {named}.")
    if deeper > DEEPER:
        said.append(
            f"The query has {deeper:.1f} times as many molecules as the reference, which cannot be made as deep: "
            "distances and probabilities are learned at the depth of the reference, so that more may be refused than "
            "is unlike it."
        )
    elif share and of_all > MANY * share:
        said.append(
            f"Of a query like the reference about {100 * share:g} % would be refused: this one holds other kinds of "
            "profiles, or differs as a whole, such as by condition or technique."
        )
    rates = [100 * one.accuracy for one in found.rehearsals]
    rate = f"{min(rates):.1f} %" if len(rates) == 1 else f"{min(rates):.1f} to {max(rates):.1f} %"
    unseen = "" if found.reference.is_unseen.all() else " that the model was not trained on"
    thinned = ", thinned to the depth of the query" if any(one.share < 1 for one in found.rehearsals) else ""
    said.append(f"Of reference profiles{unseen}{thinned}, {rate} get their own label back from the others.")
    return said


def verdict(found: Transferred, truth: pd.Series) -> list[str]:
    """How right the labels are, for a query whose own labels are known.

    Parameters
    ----------
    found
        Labels that were given.
    truth
        (n_profiles,) labels as text, missing where unknown.
    """
    truth = spelled_like(truth, found.reference.labels)
    known = truth.notna().to_numpy() & (found.closest >= 0)
    is_judged = known & ~found.is_refused
    true, given = truth.to_numpy(), found.closest_labels
    said = []
    if known.any() and not set(true[known]) & set(found.reference.labels):
        said.append(
            f"No label of the query is one of the reference (query: {_named(sorted(set(true[known])))}; reference: "
            f"{_named(list(found.reference.labels))}): their spelling may differ."
        )
    elif is_judged.any():
        is_right = given[is_judged] == true[is_judged]
        table = calibration_table(found.probability[is_judged], is_right)
        line = (
            f"Accuracy by the query's own '{found.reference.key}': {100 * is_right.mean():.1f} % of {len(is_right):,} "
            f"labelled profiles (balanced {100 * balanced_accuracy(true[is_judged], given[is_judged]):.1f} %), where "
            f"probabilities promise {100 * found.probability[is_judged].mean():.1f} % (calibration error "
            f"{calibration_error(table):.3f})"
        )
        refused = known & found.is_refused
        if refused.any():
            line += (
                f"; the closest label of {100 * (given[refused] == true[refused]).mean():.1f} % of the refused is right"
            )
        said.append(f"{line}.")
    absent = [label for label in pd.unique(true[known]) if label not in found.reference.labels]
    if absent:
        of = {label: known & (true == label) for label in sorted(absent)}
        named = _named(
            [f"{label} ({(some & found.is_refused).sum():,} of {some.sum():,} refused)" for label, some in of.items()]
        )
        said.append(f"Labels of the query that the reference lacks: {named}.")
    return said


def next_step(found: Transferred) -> str:
    """How many labels are sure, and how right they promise to be; empty if none is."""
    is_sure = ~found.is_refused & (np.nan_to_num(found.probability) >= SURE)
    if not is_sure.any():
        return ""
    of_sure = f"of probability {SURE:g} or more"
    return (
        f"Next: {counted(int(is_sure.sum()), f'label {of_sure} promises', f'labels {of_sure} promise')} to be right in "
        f"{100 * found.probability[is_sure].mean():.1f} % of cases; look at the others one by one."
    )


def _named(parts: list[str]) -> str:
    """The first three, and the number of the others."""
    more = f" and {len(parts) - NAMED} more" if len(parts) > NAMED else ""
    return ", ".join(parts[:NAMED]) + more


def balanced_accuracy(true: np.ndarray, given: np.ndarray) -> float:
    """Mean over true labels of the share that is right, 0 to 1."""
    return float(pd.Series(true == given).groupby(true).mean().mean())
