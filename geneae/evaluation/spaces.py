"""Where a reconstruction of another program comes from: its space, and whether it was made from the given half."""

from dataclasses import dataclass

import numpy as np
import torch

from geneae.data.programs import SPACES, Table
from geneae.evaluation.judge import Diagnostic
from geneae.evaluation.programs import CHUNK, TARGET_SUM, JudgedHalves, OfHalf, Predict
from geneae.evaluation.records import HELD_OUT
from geneae.models.ceiling import half_ceiling
from geneae.models.log_counts import LogCounts
from geneae.settings.errors import InputError

SAME_MEANS = 0.5  # largest distance of gene means, relative to their length, at which a space is believed
NEAR_MEANS = 0.1  # the same for means that are taken for those of undivided profiles
FURTHEST = 1.4  # way from the means of given halves (0) to those of undivided profiles (1); log1p of expected values: 2
SURE = 5.0  # standard errors beyond which a reconstruction cannot come from the given half
LEAST_EXCESS = 0.005  # of a cosine, for the same: the ceiling of few molecules is a little off


@dataclass(frozen=True, eq=False)
class Seen:
    """What was found about the numbers of a program before they were judged."""

    space: str
    """Space, a name in `SPACES`."""
    is_told: bool
    """Whether the user has named the space."""
    distance: float
    """Distance of its gene means from those of the given half in that space, relative to these."""
    ratio: float
    """Sum of its gene means over that of the given half."""
    n_negative: int
    """Values below 0."""
    n_nan: int
    """Values that are NaN or infinite, which count as 0."""
    n_values: int
    """All values that were judged."""

    def diagnostics(self) -> list[Diagnostic]:
        """Diagnostics of the space, the level, negative values and NaN."""
        return [
            Diagnostic(
                "distance_of_gene_means",
                self.distance,
                f"below {SAME_MEANS:g}",
                not self.distance < SAME_MEANS,
                f"Its gene means differ from those of the given half in {self.space}: is it another space, or another "
                "scale? Name the space with --space, and scale it back.",
            ),
            Diagnostic(
                "level",
                self.ratio,
                "0.8 to 1.25",
                not 0.8 < self.ratio < 1.25,
                "Its values are not at the level of the given half. The logarithm of an expected value is above the "
                "expected logarithm: have the program give the expectation of log1p, or expected counts.",
            ),
            Diagnostic("negative_values", self.n_negative / self.n_values, "0", False, ""),
            Diagnostic(
                "nan_values",
                self.n_nan / self.n_values,
                "0",
                self.n_nan > 0,
                "Values that are NaN or infinite were judged as 0.",
            ),
        ]


def see(table: Table, halves: JudgedHalves, told: str | None) -> Seen:
    """Find out the space of a reconstruction from its gene means, and refuse what cannot be one of the given half.

    A reconstruction has nearly the gene means of what it reconstructs, in its own space and in no other. One whose
    means are those of undivided profiles has not been made from the given half.

    Parameters
    ----------
    table
        Reconstruction of the judged profiles in the judged genes.
    halves
        The judged profiles.
    told
        Space that the user has named, or None.
    """
    total, n_negative, n_nan = np.zeros(len(halves.genes)), 0, 0
    n_profiles = len(halves.names)
    for start in range(0, n_profiles, CHUNK):
        block = table.block(slice(start, start + CHUNK))
        is_bad = ~np.isfinite(block)
        n_nan += int(is_bad.sum())
        n_negative += int((block < 0).sum())
        total += np.where(is_bad, 0, block).sum(0)
    mean = total / n_profiles
    of_given, of_whole = halves.means(), halves.means(is_whole=True)
    distances = {space: _distance(mean, of_given[space]) for space in SPACES}
    space = min(distances, key=lambda name: distances[name]) if told is None else told
    for name in SPACES if told is None else (told,):
        from_whole = _distance(mean, of_whole[name])
        way = float((mean - of_given[name]) @ (of_whole[name] - of_given[name]))
        way /= max(float(np.sum((of_whole[name] - of_given[name]) ** 2)), 1e-12)
        if from_whole < NEAR_MEANS and from_whole < distances[space] / 2 and way < FURTHEST:
            raise InputError(
                f"{table.where} was made from whole profiles: its gene means are those of undivided profiles in "
                f"{name} (distance {from_whole:.3f}, from the given half {distances[name]:.3f}). It would score by "
                "copying the noise that it is judged by; run the program on input.h5ad."
            )
    if told is None and not distances[space] < SAME_MEANS:
        found = ", ".join(f"{name} {distance:.2f}" for name, distance in distances.items())
        raise InputError(
            f"{table.where} should be in one of the spaces {', '.join(SPACES)}, but its gene means are near those of "
            f"the given half in none of them (relative distances: {found}). Write it in one of these spaces (log1p "
            "of expected values is none: write the expected values), or name the space with --space to have it judged "
            "as it is."
        )
    ratio = float(mean.sum() / of_given[space].sum())
    return Seen(space, told is not None, distances[space], ratio, n_negative, n_nan, n_profiles * len(halves.genes))


def _distance(mean: np.ndarray, of: np.ndarray) -> float:
    return float(np.linalg.norm(mean - of)) / max(float(np.linalg.norm(of)), 1e-12)


def in_log1p(table: Table, space: str, totals: np.ndarray) -> Predict:
    """Predictions of a program in log1p_cp10k; values that are not finite are 0.

    Counts and CP10k are expected values, whose logarithm is not the expected logarithm. They are converted by
    E log1p(10,000 x / n) of Poisson counts x with these means in profiles of n molecules, which is exact where
    molecules are drawn at random.

    Parameters
    ----------
    table
        Reconstruction of the judged profiles in the judged genes.
    space
        Its space.
    totals
        (n_profiles,) molecules of the given half.
    """

    def predict(some: slice) -> np.ndarray:
        block: np.ndarray = np.nan_to_num(table.block(some), nan=0.0, posinf=0.0, neginf=0.0)
        if space == "log1p_cp10k":
            return block
        found = np.empty_like(block)
        for number, total in enumerate(totals[some]):
            expected = block[number] * (1.0 if space == "counts" else float(total) / TARGET_SUM)
            found[number] = expected_log1p(np.maximum(expected, 0), max(float(total), 1.0))
        return found

    return predict


def expected_log1p(expected: np.ndarray, total: float) -> np.ndarray:
    """E log1p(10,000 x / total) of Poisson counts x with these means, any shape; within 1e-4."""
    found: np.ndarray = (
        LogCounts(TARGET_SUM / total)(torch.from_numpy(expected).float().clamp(min=1e-9)).double().numpy()
    )
    return np.where(expected > 0, found, 0.0)


def check_source(where: str, found: OfHalf, of_halves: np.ndarray) -> None:
    """Refuse a reconstruction that was made from the held-out half, or from whole profiles.

    What is made from the given half knows nothing of the noise of the other. Given the profile, both halves at equal
    depth are alike, so that it cannot agree better with the held-out half than with its own; and it cannot agree better
    with the held-out half than the noise ceiling allows.

    Parameters
    ----------
    where
        File, for messages.
    found
        Its numbers.
    of_halves
        (n_profiles,) cosines between the halves at the depth of the held-out one; NaN where they are not known.
    """
    lean, error = _mean_and_error(-found.with_given)
    if lean > SURE * error and lean > LEAST_EXCESS:
        raise InputError(
            f"{where} was made from the wrong half: it agrees better with the held-out half than with the given one "
            f"(cosine {lean:+.4f} ± {2 * error:.4f}). Run the program on input.h5ad."
        )
    known = ~np.isnan(of_halves)
    if not known.any():
        return
    cosine, ceiling = found.profiles[HELD_OUT].to_numpy()[known], half_ceiling(of_halves)
    excess = cosine - cosine.mean() - (of_halves[known] - of_halves[known].mean()) / (2 * max(ceiling, 1e-6))
    error = _mean_and_error(excess)[1]
    if cosine.mean() - ceiling > SURE * error + LEAST_EXCESS:
        raise InputError(
            f"{where} has seen what it is judged by: its held-out cosine {cosine.mean():.4f} is above the noise "
            f"ceiling, {ceiling:.4f}, which nothing made from the given half can pass. Run the program on input.h5ad, "
            "not on whole profiles."
        )


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return 0.0, float("inf")
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
