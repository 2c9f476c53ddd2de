"""Columns of tables as text."""

import pandas as pd


def texts(values: pd.Series) -> pd.Series:
    """Values as text; missing ones, which pandas 3 leaves missing, are `nan`."""
    found = values.astype(str)
    return found.where(found.notna(), "nan")
