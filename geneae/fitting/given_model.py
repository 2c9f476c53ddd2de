"""A model in any form in which Python has one: fitted, or the path of its folder or zip."""

import os
from pathlib import Path

import pandas as pd

from geneae.fitting.autoencoder import Autoencoder
from geneae.folders.model import load_model, trained_on
from geneae.models.model import Model
from geneae.settings.errors import InputError

AnyModel = Autoencoder | Model | str | Path


def loaded_model(given: AnyModel) -> Model:
    """The model itself; anything else raises `InputError`."""
    if isinstance(given, Autoencoder):
        return given.fitted()
    if isinstance(given, Model):
        return given
    if not isinstance(given, str | os.PathLike):
        raise InputError(
            f"a fitted Autoencoder, or the path of a model, was expected; found {type(given).__name__}. Give one of "
            "these."
        )
    return load_model(Path(given))


def trained_names(given: AnyModel) -> pd.Index | None:
    """Names of the profiles that a model was trained on, where that is known."""
    if isinstance(given, Autoencoder):
        return given.split_.index[given.split_ == "train"]
    return None if isinstance(given, Model) else trained_on(Path(given))
