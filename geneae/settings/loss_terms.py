"""Sums of losses as text, and whether they learn from labels."""

import math

from geneae.settings.errors import InputError


def part_of_labels(loss: str, metric: str | None) -> str:
    """Whether labels took part in training, in words for a sentence; a metric may have been learned from them."""
    if metric is not None:
        return "may have taken part in training, by the metric of the loss"
    return "took part in training, by the loss triplet" if learns_from_labels(loss) else "took no part in training"


def learns_from_labels(loss: str) -> bool:
    """Whether a sum of losses has a term that learns from labels: triplet."""
    return any(name == "triplet" for _, name in loss_terms(loss))


def loss_terms(loss: str) -> list[tuple[float, str]]:
    """Weights and names of a sum such as `cosine+0.1*softmax`."""
    terms = []
    for term in loss.split("+"):
        weight, star, name = term.rpartition("*")
        try:
            terms.append((float(weight) if star else 1.0, name.strip()))
        except ValueError:
            raise InputError(
                f"the weight of a loss must be a number, as in cosine+0.1*softmax; found '{weight}' in '{loss}'."
            ) from None
        if not 0 < terms[-1][0] < math.inf:
            raise InputError(f"the weight of a loss must be above 0; found {terms[-1][0]:g} in '{loss}'.")
    return terms
