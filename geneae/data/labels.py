"""Labels of profiles: columns of `obs` as text, so that the types of their values make no difference."""

import math
from typing import Any

import numpy as np
import pandas as pd

from geneae.settings.errors import InputError, unknown


def labels_in(obs: pd.DataFrame, key: str, flag: str = "--label") -> pd.Series:
    """Labels as text, missing where a value is missing or empty; equal texts are one label, whatever their types were.

    Raises `InputError` for an unknown column, and for one of measurements: numbers that are not whole.

    Parameters
    ----------
    obs
        Annotation, one row per profile.
    key
        Column with the labels.
    flag
        Flag that names another column, for the message.
    """
    if key not in obs.columns:
        raise unknown("obs column", key, obs.columns)
    column = obs[key].astype(object)
    measured = [value for value in pd.unique(column) if _is_measured(value)]
    if measured:
        raise InputError(
            f"labels must be names or whole numbers that profiles share; obs column '{key}' holds measurements, such "
            f"as {measured[0]:g}. Name another column with {flag}, or divide the values into classes."
        )
    text = column.map(as_text, na_action="ignore")
    known: pd.Series = text.where(column.notna() & (text != ""), None)
    return known


def _is_measured(value: Any) -> bool:
    is_number = isinstance(value, float | np.floating)
    return is_number and not math.isnan(value) and not float(value).is_integer()


def as_text(value: Any) -> str:
    """A label as text; 2.0 is 2, because a column of whole numbers holds them like this once a value is missing."""
    is_whole = isinstance(value, float | np.floating) and math.isfinite(value) and float(value).is_integer()
    return str(int(value)) if is_whole else str(value).strip()


TRUTHS = {"True": "1", "False": "0"}


def spelled_like(labels: pd.Series, known: tuple[str, ...]) -> pd.Series:
    """The same labels, with truth values as the known labels have them: True and False, or 1 and 0."""
    values = set(labels.dropna().unique())
    for spelling in (TRUTHS, {number: truth for truth, number in TRUTHS.items()}):
        if set(known) == set(spelling.values()) and values and values <= set(spelling):
            return labels.map(spelling)
    return labels
