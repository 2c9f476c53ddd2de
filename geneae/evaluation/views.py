"""Encoders that learn from views alone: what can be said of their latents without labels and a reconstruction."""

import numpy as np
import pandas as pd
import torch

from geneae.data.preprocess import Expression
from geneae.evaluation.diagnostics import Diagnostic
from geneae.evaluation.labels import COLUMNS, NEIGHBOURS, is_judged, paired
from geneae.evaluation.records import CLEAR, Evaluation
from geneae.models.model import Model
from geneae.training.monitor import effective_rank

OF_VIEWS = ("view_cosine", "opposite_halves", "embedding_norm", "effective_gradient", "latent_spread")


LEAST_SPREAD = 0.1  # of that of random directions


MOST_OPPOSITE = 0.05  # of the profiles; half of independent pairs are, in every dimension


def describe_latents(
    model: Model, expression: Expression, names: pd.Index, split: pd.Series, last: pd.Series
) -> Evaluation:
    """What can be said of latents without labels and without a reconstruction.

    Parameters
    ----------
    model
        An encoder.
    expression, names, split
        Judged profiles.
    last
        Row of the history of the epoch that was taken; its numbers of views are those of validation profiles.

    Returns
    -------
    `latent_norm` by profile; and over profiles its mean, `effective_rank` of the latents, and on validation profiles
    the numbers of `SelfSupervised.validate`.
    """
    seed, latent = int(model.config["seed"]), torch.from_numpy(model.latent(expression))
    norms = latent.norm(dim=1).numpy()
    rows: list[tuple[str, int, str, str, str, float, int, str]] = []
    for name in pd.unique(split):
        inside = np.flatnonzero(split == name)
        found = {"latent_norm": float(norms[inside].mean()), "effective_rank": effective_rank(latent[inside])}
        if name == "validation":
            found |= {metric: float(last[metric]) for metric in OF_VIEWS}
        rows += [("model", seed, str(name), metric, "mean", mean, len(inside), "") for metric, mean in found.items()]
    table = pd.DataFrame({"model": "model", "profile": names, "split": split.to_numpy(), "latent_norm": norms})
    return Evaluation(table, pd.DataFrame(rows, columns=COLUMNS), {})


def diagnose_latents(evaluation: Evaluation, n_latent: int, split: str) -> list[Diagnostic]:
    """What is wrong with an encoder, if anything: collapse, opposite views, labels that a random encoder tells as well.

    Parameters
    ----------
    evaluation
        Of `describe_latents`, with that of labels where there are any.
    n_latent
        Length of the latent.
    split
        `test` or `validation`; the numbers of views are of validation profiles.
    """

    def number(metric: str, of: str) -> float:
        table = evaluation.metrics
        found = table.loc[(table["model"] == "model") & (table["metric"] == metric) & (table["split"] == of), "value"]
        return float(found.iloc[0]) if len(found) else float("nan")

    rank, least = number("effective_rank", split), max(1.5, 0.1 * n_latent)
    spread, opposite = number("latent_spread", "validation"), number("opposite_halves", "validation")
    found = [
        Diagnostic(
            "effective_rank",
            rank,
            f"at least {least:g}",
            n_latent > 1 and rank < least,
            "The latent has collapsed to few directions. Lower the learning rate, or train with another objective.",
        ),
        Diagnostic(
            "latent_spread",
            spread,
            f"above {LEAST_SPREAD}",
            spread < LEAST_SPREAD,
            "The latents of all profiles point in nearly the same direction: the encoder has collapsed, or a constant "
            "outweighs what tells profiles apart.",
        ),
        Diagnostic(
            "opposite_halves",
            opposite,
            f"at most {MOST_OPPOSITE}",
            opposite > MOST_OPPOSITE,
            "Views of the same profile point in opposite directions in more than one of twenty profiles: training has "
            "not come far. Give it more epochs, or lower the size of the initial weights with --cut.",
        ),
    ]
    rivals = {
        "random_encoder": "a random encoder: nothing was learned that these labels can show",
        "pca": "PCA of the same size: prefer PCA, it is simpler",
    }
    for rival, advice in rivals.items() if is_judged(evaluation) else ():
        difference, error, _ = paired(evaluation, rival, split)
        found.append(
            Diagnostic(
                f"knn_over_{rival}",
                difference,
                f"above {CLEAR * error:.5f}",
                not difference > CLEAR * error,
                f"By labels of {NEIGHBOURS[0]} neighbours the latent is not shown to be better than {advice}.",
            )
        )
    return found
