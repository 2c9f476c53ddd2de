"""Inspection of a data set before any training: trivial cosines, PCA, the noise ceiling, a verdict."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from geneae.data.count_split import halves
from geneae.data.preprocess import Expression, Preprocess, fit_preprocess, recover_counts
from geneae.data.profiles import Profiles
from geneae.data.splits import split_profiles
from geneae.data.states import STATES, recoverable
from geneae.evaluation.bootstrap import bootstrap_interval
from geneae.evaluation.chance import permuted_cosine, random_pair_cosine
from geneae.evaluation.halves import half_against_half
from geneae.evaluation.predictors import Predictor, linear_predictors, products_of
from geneae.evaluation.records import share_of_way, shown_range
from geneae.losses.metrics import METRICS, measure
from geneae.models.baselines import PCA_SIZES, frame, mean_profile, pca, shrunken_pca
from geneae.models.ceiling import (
    DIGIT,
    broken_assumption,
    cosine_of_halves,
    counts_ceiling,
    full_depth_ceiling,
    half_ceiling,
    has_molecules,
)
from geneae.models.pca import Basis, fit_basis, fit_wiener
from geneae.settings.errors import InputError
from geneae.settings.text import counted

MOST_PROFILES = 10_000  # limit; more profiles change no digit that is shown
REPEATS = 5  # count splits averaged in ceilings and held-out cosines
SHRUNKEN_RANK = 128
LITTLE = 0.02  # gain in cosine over the mean profile below which hardly anything is gained
NARROW = 0.05  # headroom below which profiles differ by almost nothing but noise


@dataclass(frozen=True)
class Inspection:
    """Results of `geneae inspect`. Numbers that are not available are None, with the reason in `reasons`."""

    n_profiles: int
    """Number of profiles in the data."""
    n_genes: int
    """Number of genes in the data."""
    n_genes_used: int
    """Number of genes seen in at least three training profiles."""
    n_test: int
    """Number of profiles that cosines are averaged over (ceilings: all); bases and means come from the others."""
    state: str
    """Name in `geneae.data.states.STATES`."""
    molecules_median: float | None
    """Median number of molecules per profile."""
    density: float
    """Share of values that are not zero."""
    mean_profile_cosine: float
    """Cosine of complete profiles with the mean training profile."""
    random_pair_cosine: float
    """Cosine of two different profiles."""
    permuted_cosine: float
    """Expected cosine of a profile with itself after a random permutation of its genes."""
    pca_cosine: dict[int, float]
    """Own-input cosine of PCA by size."""
    centred: dict[str, Any]
    """The same four numbers after subtracting the gene means, which puts the mean profile at 0."""
    ceiling_half: float | None
    """Highest cosine that a reconstruction from half of the molecules can reach with the other half."""
    ceiling_half_interval: list[float] | None
    """95 % bootstrap interval of `ceiling_half` over profiles."""
    ceiling_half_centred: float | None
    """`ceiling_half` after subtracting the gene means."""
    ceiling_full: list[float] | None
    """Interval for the cosine of complete log-normalised profiles with their expectation, by extrapolation."""
    ceiling_counts: float | None
    """Cosine of raw counts with their expectation, in closed form."""
    mean_profile_heldout: float | None
    """Held-out cosine of the mean profile."""
    pca_heldout: dict[int, float] | None
    """Held-out cosine of PCA by size."""
    shrunken_pca_heldout: dict[int, float] | None
    """Held-out cosine of shrunken PCA by size."""
    headroom: float | None
    """`ceiling_half` minus `mean_profile_heldout`: the most that distinguishing profiles can gain."""
    reasons: dict[str, str]
    """Reason for each number that is None, and under `counts` how counts were recovered."""
    verdict: str
    """Explanation of the numbers in words."""


def inspect_profiles(profiles: Profiles, seed: int = 0, cosine: float | None = None) -> Inspection:
    """Inspect a data set before training.

    Bases and means are fitted on a random four fifths of the profiles (at most 10,000 in all) and evaluated on the
    remaining fifth; ceilings are averaged over all of these profiles.

    Parameters
    ----------
    profiles
        Counts; or log-normalised values, from which counts are recovered if this is exactly possible; or other
        values, without a ceiling.
    seed
        Seed of split, bases and count splits.
    cosine
        A cosine reached elsewhere, to be compared with these numbers.
    """
    rng = np.random.default_rng(seed)
    given, kept = profiles, np.flatnonzero(profiles.scan.lengths)
    if len(kept) > MOST_PROFILES:
        kept = np.sort(rng.choice(kept, MOST_PROFILES, replace=False))
    if profiles.is_streamed or len(kept) < profiles.n_profiles:
        profiles = profiles.take(kept)
    split = split_profiles(profiles.obs, validation=0.2, test=0, seed=seed)
    train, test = (np.flatnonzero(split == name) for name in ("train", "validation"))
    preprocess = fit_preprocess(profiles, train)
    expression, _ = preprocess.match(profiles)
    whole = preprocess.apply(expression)
    basis = fit_basis([whole[train]], max(PCA_SIZES), seed)
    own, centred = _own_input(whole[test], basis)
    if not own["pca_cosine"]:
        raise InputError(
            f"{given.source}, {given.location}: inspect compares with PCA of size {min(PCA_SIZES)} and more, for which "
            f"{counted(len(kept), 'profile')} with values in {counted(given.n_genes, 'gene')} are too few. Give more."
        )
    found: dict[str, Any] = {
        "n_profiles": given.n_profiles,
        "n_genes": given.n_genes,
        "n_genes_used": len(preprocess.genes),
        "n_test": len(test),
        "state": profiles.state,
        "molecules_median": None,
        "density": given.density,
        **own,
        "centred": centred,
    }
    counts, reason = _counts(profiles, preprocess, expression)
    is_logged = profiles.state != "normalised"
    reasons = {"counts": reason} if reason else {}
    if counts is None:
        hint = recoverable(finding) if (finding := profiles.scan.finding) is not None else ""
        missing = f"needs counts, but none are read: {reason}. {_sentence(hint) or 'Name them with --layer or --raw.'}"
        reasons = dict.fromkeys(("molecules_median", *HELD_OUT_FIELDS), missing)
        found |= dict.fromkeys(HELD_OUT_FIELDS)
    else:
        judged = preprocess if profiles.state == "counts" else Preprocess("counts", preprocess.genes, preprocess.scale)
        is_counts = profiles.state == "counts"
        molecules = given.totals if is_counts else np.asarray(counts.rows.sum(1), dtype=np.float64).ravel()
        found["molecules_median"] = float(np.median(molecules))
        found |= _ceilings(counts, judged, seed, rng)
        found |= _held_out(counts, train, test, judged, seed, rng)
        if (broken := _broken_ceiling(found, counts)) is not None:
            found |= dict.fromkeys(CEILING_FIELDS)
            reasons |= dict.fromkeys(CEILING_FIELDS, broken)
        else:
            found["headroom"] = found["ceiling_half"] - found["mean_profile_heldout"]
    verdict = _verdict(found, reasons, cosine) if is_logged else NOT_LOGGED
    return Inspection(**found, reasons=reasons, verdict=verdict)


NOT_LOGGED = (
    "No verdict: these values are normalised, not logged, so that the largest genes decide every number above. Take "
    "log1p first, or read counts."
)
HELD_OUT_FIELDS = (
    "ceiling_half",
    "ceiling_half_interval",
    "ceiling_half_centred",
    "ceiling_full",
    "ceiling_counts",
    "mean_profile_heldout",
    "pca_heldout",
    "shrunken_pca_heldout",
    "headroom",
)


def _counts(profiles: Profiles, preprocess: Preprocess, expression: Expression) -> tuple[Expression | None, str]:
    """Counts in the genes of `preprocess`, given or recovered (else None), and a sentence on the recovery."""
    if profiles.state == "counts":
        return expression, ""
    if profiles.state == "normalised":
        return None, f"values are {STATES[profiles.state].noun} ({profiles.evidence})"
    recovered, reason = recover_counts(profiles)
    if recovered is None:
        return None, reason
    columns = profiles.genes.get_indexer(preprocess.genes)
    return Expression(recovered.rows[:, columns].tocsr(), recovered.totals), reason


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _own_input(whole: sparse.csr_matrix, basis: Basis) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trivial cosines and PCA of complete profiles: plain, and after subtracting the gene means."""
    at = frame(basis, basis.mean)
    models = linear_predictors(
        {"mean": (at, mean_profile(basis.rank))}
        | {str(size): (at, pca(basis.rank, size)) for size in PCA_SIZES if size <= basis.rank}
    )
    (products,) = products_of(models, [whole], ("none", "gene"))
    mean = basis.mean.double().numpy()
    results = []
    for center, shift in (("none", np.zeros_like(mean)), ("gene", mean)):
        metric = METRICS["cosine"]
        of = {name: float(measure(metric, by[center]).nanmean()) for name, by in products.items()}
        results.append(
            {
                "mean_profile_cosine": of.pop("mean"),
                "random_pair_cosine": random_pair_cosine(whole, shift),
                "permuted_cosine": permuted_cosine(whole, shift),
                "pca_cosine": {int(size): value for size, value in of.items()},
            }
        )
    return results[0], results[1]


def _ceilings(counts: Expression, preprocess: Preprocess, seed: int, rng: np.random.Generator) -> dict[str, Any]:
    """Noise ceilings over all profiles; means over several count splits."""
    agreements: dict[float, list[np.ndarray]] = {0.5: [], 0.25: [], 0.125: []}
    centred = []
    for _ in range(REPEATS):
        pair = halves(counts, rng)
        for fraction in agreements:
            known = has_molecules(*pair)
            first, second = (preprocess.apply(part) for part in pair)
            agreements[fraction].append(np.where(known, cosine_of_halves(first, second), np.nan))
            if fraction == max(agreements):
                mean = np.asarray((first.mean(0) + second.mean(0)) / 2, dtype=np.float64).ravel()
                centred.append(np.where(known, cosine_of_halves(first, second, mean, "gene"), np.nan))
            pair = halves(pair[0], rng)
    by_profile = {fraction: np.mean(several, axis=0) for fraction, several in agreements.items()}
    enough = ~np.isnan(by_profile[min(agreements)])  # the same profiles at every depth
    at_depth = {q: float(cosines[enough].mean()) if enough.any() else float("nan") for q, cosines in by_profile.items()}
    return {
        "ceiling_half": half_ceiling(by_profile[0.5]),
        "ceiling_half_interval": _ceiling_interval(by_profile[0.5], seed),
        "ceiling_half_centred": half_ceiling(np.mean(centred, axis=0)),
        "ceiling_full": list(full_depth_ceiling(at_depth)),
        "ceiling_counts": float(np.nanmean(counts_ceiling(counts.rows))),
    }


def _ceiling_interval(cosines: np.ndarray, seed: int) -> list[float]:
    """95 % bootstrap interval of `half_ceiling` over profiles: the square root of that of the mean cosine."""
    known = cosines[~np.isnan(cosines)]
    if not len(known):
        return [np.nan, np.nan]
    _, low, high, _ = bootstrap_interval(known[None, :], seed)
    return [float(np.sqrt(max(0.0, end))) for end in (low, high)]


def _mean(cosines: np.ndarray) -> float:
    """Mean over the profiles that have a value; NaN where none has."""
    known = cosines[~np.isnan(cosines)]
    return float(known.mean()) if len(known) else float("nan")


def _held_out(
    counts: Expression, train: np.ndarray, test: np.ndarray, preprocess: Preprocess, seed: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Held-out cosines of mean profile, PCA and shrunken PCA, fitted on halves of training profiles."""
    blocks = [preprocess.apply(half) for half in halves(counts.take(train), rng)]
    basis = fit_basis(blocks, SHRUNKEN_RANK, seed)
    factors = fit_wiener(blocks[0], blocks[1], basis.rank, seed)
    at, sizes = frame(basis, basis.mean), [size for size in PCA_SIZES if size <= basis.rank]
    models: dict[str, Predictor] = linear_predictors(
        {"mean": (at, mean_profile(basis.rank))}
        | {f"pca {size}": (at, pca(basis.rank, size)) for size in sizes}
        | {f"shrunken {size}": (at, shrunken_pca(factors, size)) for size in (*sizes, basis.rank)}
    )
    held_out, _ = half_against_half(models, preprocess, counts.take(test), rng, REPEATS)
    means = {name: _mean(cosines) for name, cosines in held_out.items()}
    by_size: dict[str, dict[int, float]] = {"pca": {}, "shrunken": {}}
    for name, mean in means.items():
        if " " in name:
            kind, size = name.split()
            by_size[kind][int(size)] = mean
    return {
        "mean_profile_heldout": means["mean"],
        "pca_heldout": by_size["pca"],
        "shrunken_pca_heldout": by_size["shrunken"],
    }


CEILING_FIELDS = (*(name for name in HELD_OUT_FIELDS if name.startswith("ceiling")), "headroom")


def _broken_ceiling(found: dict[str, Any], counts: Expression) -> str | None:
    """Reason why there is no noise ceiling: something reaches more, so that noise is not Poisson; else None."""
    ceiling, interval = found["ceiling_half"], found["ceiling_half_interval"]
    reached = {"the mean profile": found["mean_profile_heldout"]}
    reached |= {f"shrunken PCA of size {size}": value for size, value in found["shrunken_pca_heldout"].items()}
    name = max(reached, key=lambda one: np.nan_to_num(reached[one], nan=-1.0))
    if np.isnan(ceiling) or not reached[name] > interval[1] + DIGIT:
        return None
    return broken_assumption(ceiling, name, reached[name], counts)


def _verdict(found: dict[str, Any], reasons: dict[str, str], cosine: float | None) -> str:
    """Sentences that explain these numbers."""
    best = max(found["pca_cosine"].values())
    trivial = found["mean_profile_cosine"]
    digits = 2 if best - trivial >= LITTLE else 4  # otherwise both may read 1.00
    said = [
        f"The mean profile alone reaches a cosine of {trivial:.{digits}f}, and PCA {best:.{digits}f} on its own input. "
        "After subtracting the gene means, the mean profile is at 0 and PCA at "
        f"{max(found['centred']['pca_cosine'].values()):.2f}."
    ]
    if best - trivial < LITTLE:
        said.append("The plain cosine hardly distinguishes these profiles: read the one after gene-centring.")
    if found["ceiling_half"] is None and found["mean_profile_heldout"] is not None:
        said.append(f"There is no noise ceiling: {reasons['ceiling_half']}")
    elif found["ceiling_half"] is None:
        said.append("Without counts there is no noise ceiling: how much of the rest is noise is unknown.")
    else:
        ceiling, trivial = found["ceiling_half"], found["mean_profile_heldout"]
        size, learned = max(found["shrunken_pca_heldout"].items(), key=lambda item: item[1])
        share = share_of_way(learned, trivial, ceiling)
        way = ": there is nothing to gain" if np.isnan(share) else f", {100 * share:.0f} % of the way"
        said.append(
            f"A reconstruction from one half of the molecules can reach a cosine of at most {ceiling:.3f} with the "
            f"other half; the mean profile reaches {trivial:.3f}, and shrunken PCA of size {size} {learned:.3f}{way}."
        )
        if not learned - trivial > LITTLE:
            said.append(_little(ceiling - trivial))
        low, high = found["ceiling_full"]
        if not np.isnan(low):
            said.append(
                f"On complete profiles, an own-input cosine above {shown_range(low, high)} is partly copied noise."
            )
        said.append("The ceiling assumes Poisson noise; other technical noise makes it too high.")
    if cosine is not None:
        said.append(judge_cosine(cosine, found))
    return " ".join(said)


def _little(headroom: float) -> str:
    """Reason why shrunken PCA gains hardly anything over the mean profile."""
    if not headroom > NARROW:
        return (
            "There is almost nothing to learn about single profiles: their differences are mostly noise, and longer "
            "training or another loss will not change that."
        )
    return (
        f"PCA learns almost nothing about single profiles, although the ceiling is {headroom:.3f} above the mean "
        "profile: learning more takes more profiles than these, or the rest is technical noise that both halves share."
    )


def judge_cosine(cosine: float, found: dict[str, Any]) -> str:
    """Sentence that places a given cosine on these data: plain, gene-centred and, with counts, held-out."""
    places = []
    centred = found["centred"]
    random_pair = max(0.0, float(centred["random_pair_cosine"]))  # a negative one is no standard
    for title, numbers, trivial, floor in (
        ("without centring", found, "the mean profile", found["mean_profile_cosine"]),
        ("after gene-centring", centred, "two random profiles", random_pair),
    ):
        sizes = numbers["pca_cosine"]
        reached = [size for size, value in sizes.items() if cosine >= value]
        if cosine < floor:
            place = f"worse than {trivial} ({floor:.2f})"
        elif reached:
            place = f"at least as good as PCA-{max(reached)} ({sizes[max(reached)]:.2f})"
        else:
            place = f"better than {trivial} ({floor:.2f}) but below PCA-{min(sizes)} ({sizes[min(sizes)]:.2f})"
        if numbers is found and found.get("ceiling_full") and cosine > found["ceiling_full"][1]:
            place += f", and above the noise ceiling ({found['ceiling_full'][1]:.2f}): part of it is copied noise"
        places.append(f"{title} it is {place}")
    if found.get("ceiling_half") is not None:
        places.append(f"between two halves of the molecules it is {_held_out_place(cosine, found)}")
    return f"A cosine of {cosine:g} here: {'; '.join(places)}."


def _held_out_place(cosine: float, found: dict[str, Any]) -> str:
    trivial, ceiling = found["mean_profile_heldout"], found["ceiling_half"]
    if cosine < trivial:
        return f"worse than the mean profile ({trivial:.2f})"
    if cosine > ceiling:
        return f"above the noise ceiling ({ceiling:.2f}), which no honest reconstruction can reach"
    share = 100 * (cosine - trivial) / (ceiling - trivial) if ceiling > trivial else 100.0
    return f"{share:.0f} % of the way from the mean profile ({trivial:.2f}) to the noise ceiling ({ceiling:.2f})"
