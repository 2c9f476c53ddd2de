"""Location of profiles that are still to be read, and the matrix that a model reads of them."""

import contextlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata

from geneae.data.formats import format_of, stem_of
from geneae.data.gene_names import NoSuchColumn
from geneae.data.matrices import look_at
from geneae.data.matrix_choice import MatrixChoice, NoSuchMatrix
from geneae.data.notes import in_words
from geneae.data.profiles import Profiles
from geneae.data.reading import are_paths, read_profiles
from geneae.data.states import Finding
from geneae.settings.errors import InputError, listed
from geneae.settings.settings import RUN_OPTIONS

OF_LAYER = "layers['", "']"
"""What stands around the name of a layer in `Profiles.location`."""


@dataclass(frozen=True)
class Source:
    """One matrix in a file, or in several that are read as one; each process of a grid reads it for itself."""

    data: str | tuple[str, ...]
    """Path of a file or folder that `geneae.data.formats.FORMATS` names, or several paths."""
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
    gene_names: str | None = None
    """Column of var that names the genes; None: its index."""
    modality: str | None = None
    """Modality of MuData; None: the only one, or `rna`."""

    @property
    def paths(self) -> tuple[str, ...]:
        """All paths."""
        return (self.data,) if isinstance(self.data, str) else self.data

    @property
    def stem(self) -> str:
        """Name of the data without its ending, for the name of an output: of several files that of the first."""
        others = len(self.paths) - 1
        return stem_of(Path(self.paths[0])) + (f"_and_{others}_more" if others else "")

    def read(self) -> Profiles:
        """Read the profiles, with a check of every value."""
        return read_profiles(self.paths, self.layer, self.use_raw, *self._how)

    def read_like(self, location: str, names_of_fit: str | None = None) -> Profiles:
        """The same, from the matrix that a model was fitted on unless a layer or raw is named, see `read_like`."""
        return read_like(location, self.paths, self.layer, self.use_raw, *self._how, names_of_fit=names_of_fit)

    @property
    def _how(self) -> tuple[str, str, str, str | None, str | None]:
        return self.stream, self.state, self.features, self.gene_names, self.modality

    def states(self) -> dict[str, str]:
        """What every matrix of a file holds, by place and in words, as far as its first profiles tell.

        Empty for several files, and for a format that holds only one matrix.
        """
        if len(self.paths) > 1:
            return {}
        path, choice = Path(self.paths[0]), MatrixChoice(self.layer, self.use_raw, modality=self.modality)
        with warnings.catch_warnings(), contextlib.ExitStack() as stack:
            warnings.simplefilter("ignore")  # said when the profiles were read
            matrices = format_of(path).read(path, choice, stack, False).matrices()
            return {place: _in_words(look_at(matrix)) for place, matrix in matrices.items()}


def _in_words(found: Finding | None) -> str:
    return "no profiles that can be used" if found is None else in_words(found)


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
    gene_names: str | None = None,
    modality: str | None = None,
    names_of_fit: str | None = None,
) -> Profiles:
    """Profiles from the matrix that a model was fitted on, unless another is named; arrays and tables have only one.

    Parameters
    ----------
    location
        Matrix of the fit, as `Profiles.location` names it. Data without it raise `InputError`.
    data, layer, use_raw, stream, state, features, gene_names, modality
        As for `geneae.data.reading.read_profiles`; the layer `"X"` names X.
    names_of_fit
        Column of `var` that named the genes at the fit, which names them here, too, if the data have it and
        `gene_names` is None; the names `index` are those of the index.
    """
    RUN_OPTIONS["use_raw"].check(use_raw)
    if gene_names is None and names_of_fit is not None and (are_paths(data) or isinstance(data, anndata.AnnData)):
        with contextlib.suppress(NoSuchColumn):
            return read_like(location, data, layer, use_raw, stream, state, features, names_of_fit, modality)
    how = (stream, state, features, gene_names, modality)
    if layer is not None or use_raw or not (are_paths(data) or isinstance(data, anndata.AnnData)):
        return read_profiles(data, layer, use_raw, *how)
    try:
        fitted_on, is_raw = matrix_at(location)
        return read_profiles(data, fitted_on, is_raw, *how)
    except NoSuchMatrix as error:
        if location == "X":
            raise
        source = "the AnnData" if isinstance(data, anndata.AnnData) else _listed(data)
        raise InputError(
            f"the model was fitted on {location}, which {source} lacks. Name the matrix to read with --layer NAME, "
            "--layer X or --raw (in Python layer= and use_raw=)."
        ) from error


def _listed(data: Any) -> str:
    return str(data) if isinstance(data, str | os.PathLike) else listed(data)
