"""Words, colours and signs that all figures share.

Colours are those of Okabe and Ito, told apart by colour-blind people; beyond seven, line styles and markers differ too.
Names come from strangers' files: they are shown as they are, shortened, and never read as formulas.
"""

from typing import Any

from geneae.evaluation.records import HELD_OUT

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", ":")
MARKERS = ("o", "^", "s")
GREY = "#8a8a8a"
BASELINES = {"mean_profile": "mean profile", "pca": "PCA", "shrunken_pca": "shrunken PCA"}
METRIC_TITLES = {
    HELD_OUT: "held-out cosine",
    "skill": "skill",
    "disattenuated_cosine": "disattenuated cosine",
    "cosine": "cosine",
    "centred_cosine": "centred cosine",
    "mse": "MSE",
    "rescaled_mse": "rescaled MSE",
    "relative_mse": "relative MSE",
    "norm_ratio": "norm ratio",
    "direction_error": "direction error",
    "magnitude_error": "magnitude error",
    "knn_20": "20-NN accuracy",
    "knn_200": "200-NN accuracy",
    "linear_probe": "linear probe accuracy",
    "ari": "ARI",
    "nmi": "NMI",
    "ilisi": "iLISI of batches",
    "kbet": "kBET of batches",
    "bras": "BRAS of batches",
}
LOWER_IS_BETTER = ("mse", "rescaled_mse", "relative_mse", "direction_error", "magnitude_error")
NEITHER_IS_BETTER = (
    "norm_ratio",
    "latent_norm",
    "effective_rank",
    "view_cosine",
    "opposite_halves",
    "embedding_norm",
    "effective_gradient",
    "latent_spread",
    "ilisi",
    "kbet",
    "bras",
)
FEW = 10  # values from which a smooth outline of their distribution can be drawn
MOST_LABELS = 20  # labels told apart in a figure; the rarer ones are left out, or drawn in grey
LONGEST_NAME = 32  # characters
WIDE = 100.0  # ratio of largest to smallest value from which an axis is logarithmic

DYNAMICS = {
    "reconstruction_norm": "norm of prediction\n(median)",
    "gradient_norm": "gradient at prediction\n(mean norm)",
    "gradient_times_norm": "gradient x norm\n(cosine: mean sine)",
    "effective_rank": "effective rank\nof the latent",
}
"""Columns of the history that say how a training went, and their titles, short enough for panels side by side."""


def shown(name: object, longest: int = LONGEST_NAME) -> str:
    """A name as text of a figure: printable, in one line, shortened in the middle, `$` escaped."""
    text = "".join(sign if sign.isprintable() else " " for sign in str(name)).strip() or "(no name)"
    if len(text) > longest:
        text = f"{text[: longest // 2]}…{text[-(longest - longest // 2 - 1) :]}"
    return text.replace("$", r"\$")


def title_of(metric: str) -> str:
    """A metric in words."""
    return METRIC_TITLES.get(metric, metric.replace("_", " "))


def axis_label(metric: str) -> str:
    """A metric in words, with its unit, and which way is better: the arrow points along the axis."""
    unit = ", mean over genes" if metric in ("mse", "rescaled_mse", "direction_error", "magnitude_error") else ""
    if metric in LOWER_IS_BETTER:
        return f"{title_of(metric)}{unit} (← lower is better)"
    return f"{title_of(metric)} (higher is better →)"


def arm_style(number: int) -> dict[str, Any]:
    """Colour and line style of the arm of that number; 21 differ."""
    return {
        "color": PALETTE[number % len(PALETTE)],
        "linestyle": LINE_STYLES[number // len(PALETTE) % len(LINE_STYLES)],
    }
