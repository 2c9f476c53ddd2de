"""Location of profiles that are still to be read, and the matrix that a model reads of them."""

import os
from dataclasses import dataclass
from typing import Any

import anndata

from geneae.data.profiles import Profiles
from geneae.data.reading import NoSuchMatrix, read_profiles
from geneae.settings.errors import InputError
from geneae.settings.settings import RUN_OPTIONS

OF_LAYER = "layers['", "']"
"""What stands around the name of a layer in `Profiles.location`."""


@dataclass(frozen=True)
class Source:
    """One matrix in a file; each process of a grid reads it for itself."""

    data: str
    """Path of an `.h5ad` file or `.zarr` folder."""
    layer: str | None = None
    """Layer to read instead of X."""
    use_raw: bool = False
    """Whether to read raw instead of X."""
    stream: str = "no"
    """`yes`, `no` or `auto`, see `geneae.data.reading.read_profiles`."""
    state: str = "auto"
    """What the values are; `auto` tells by all of them."""
    features: str = "genes"
    """`genes` leaves out features of other types, `all` keeps them."""

    def read(self) -> Profiles:
        """Read the profiles, with a check of every value."""
        return read_profiles(self.data, self.layer, self.use_raw, self.stream, self.state, self.features)

    def read_like(self, location: str) -> Profiles:
        """The same, from the matrix that a model was fitted on unless a layer or raw is named."""
        return read_like(location, self.data, self.layer, self.use_raw, self.stream, self.state, self.features)


def matrix_at(location: str) -> tuple[str | None, bool]:
    """Layer, or None, and whether raw is read, of a matrix that `Profiles.location` names."""
    begin, end = OF_LAYER
    is_layer = location.startswith(begin) and location.endswith(end)
    return (location[len(begin) : -len(end)] if is_layer else None), location == "raw"


def read_like(
    location: str,
    data: Any,
    layer: str | None = None,
    use_raw: bool = False,
    stream: str = "no",
    state: str = "auto",
    features: str = "genes",
) -> Profiles:
    """Profiles from the matrix that a model was fitted on, unless another is named; arrays and tables have only one.

    Parameters
    ----------
    location
        Matrix of the fit, as `Profiles.location` names it. Data without it raise `InputError`.
    data, layer, use_raw, stream, state, features
        As for `geneae.data.reading.read_profiles`; the layer `"X"` names X.
    """
    RUN_OPTIONS["use_raw"].check(use_raw)
    if layer is not None or use_raw or not isinstance(data, str | os.PathLike | anndata.AnnData):
        return read_profiles(data, layer, use_raw, stream, state, features)
    try:
        return read_profiles(data, *matrix_at(location), stream, state, features)
    except NoSuchMatrix as error:
        if location == "X":
            raise
        source = "the AnnData" if isinstance(data, anndata.AnnData) else str(data)
        raise InputError(
            f"the model was fitted on {location}, which {source} lacks. Name the matrix to read with --layer NAME, "
            "--layer X or --raw (in Python layer= and use_raw=)."
        ) from error
