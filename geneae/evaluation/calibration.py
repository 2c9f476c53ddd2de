"""Calibration: whether labels with a probability of 80 % are right in 80 % of cases."""

import numpy as np
import pandas as pd

BINS = 10
"""Bins of equal width between 0 and 1."""


def calibration_table(probability: np.ndarray, is_right: np.ndarray) -> pd.DataFrame:
    """Table with a row for each bin of probability that occurs: `low`, `high`, `n_profiles`, mean `probability`, and
    the share that is `right`.

    Parameters
    ----------
    probability
        (n_profiles,) probability of the label that was given, 0 to 1.
    is_right
        (n_profiles,) whether it is the right one.
    """
    place = np.minimum((np.asarray(probability) * BINS).astype(int), BINS - 1)
    table = pd.DataFrame({"place": place, "probability": probability, "right": np.asarray(is_right, float)})
    found = table.groupby("place").agg(
        n_profiles=("right", "size"), probability=("probability", "mean"), right=("right", "mean")
    )
    edges = {"low": found.index / BINS, "high": (found.index + 1) / BINS}
    return found.assign(**edges).reset_index(drop=True)[["low", "high", "n_profiles", "probability", "right"]]


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error of a `calibration_table`, 0 to 1, lower is better; NaN without profiles.

    It is the mean distance between probability and share of right labels, over bins with the weight of their profiles.
    With few profiles it is above 0 even for true probabilities (Guo et al. 2017, arXiv 1706.04599).
    """
    distance = (table["probability"] - table["right"]).abs()
    total = table["n_profiles"].sum()
    return float((distance * table["n_profiles"]).sum() / total) if total else float("nan")
