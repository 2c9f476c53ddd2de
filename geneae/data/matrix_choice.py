"""The matrix of a file or an AnnData that a user asks for, and what it is found with."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from geneae.settings.errors import InputError, listed, unknown
from geneae.settings.settings import SETTINGS

X = "X"
"""How X itself is named where a layer could be."""
MAIN_MODALITY = "rna"  # what gene expression is called in MuData


class NoSuchMatrix(InputError):
    """A matrix that some data do not have."""


@dataclass(frozen=True)
class MatrixChoice:
    """Which matrix is read, what its values are, and by which names its genes go."""

    layer: str | None = None
    """Layer to read instead of X; "X" is X itself, unless a layer has this name."""
    use_raw: bool = False
    """Whether to read raw instead of X."""
    state: str = SETTINGS["state"].default
    """What the values are: a name in `geneae.data.states.STATES`, or `auto`."""
    features: str = SETTINGS["features"].default
    """`genes` leaves out features of other types, `all` keeps them."""
    gene_names: str | None = None
    """Column of var that names the genes; None: the index."""
    modality: str | None = None
    """Modality of MuData; None: the only one, or `rna`."""

    def __post_init__(self) -> None:
        SETTINGS["state"].check(self.state)
        SETTINGS["features"].check(self.features)
        if self.layer is not None and self.use_raw:
            raise InputError(
                f"either a layer or raw can be read; both layer '{self.layer}' and raw were requested. Drop one."
            )

    def layer_among(self, layers: Iterable[str]) -> str | None:
        """The layer to read of those that there are; None where X is named."""
        return None if self.layer == X and X not in layers else self.layer

    def location(self, source: str, layers: Iterable[str] = (), has_x: bool = True, has_raw: bool = False) -> str:
        """`X`, `layers['NAME']` or `raw`; an error if the requested matrix does not exist, never another matrix."""
        layers = list(layers)
        layer = self.layer_among(layers)
        if self.use_raw and not has_raw:
            raise NoSuchMatrix(f"{source} has no raw. Leave raw out; its layers: {listed(layers)}.")
        if layer is not None and layer not in layers:
            raise NoSuchMatrix(str(unknown("layer", layer, layers)))
        if layer is None and not self.use_raw and not has_x:
            there = f"layers: {listed(layers)}; raw: {'yes' if has_raw else 'no'}"
            if not layers and not has_raw:
                raise NoSuchMatrix(
                    f"{source} holds no values: no X, no layers, no raw. Give the file with the expression values."
                )
            raise NoSuchMatrix(f"{source} has no X. Choose another matrix ({there}).")
        return f"layers['{layer}']" if layer is not None else "raw" if self.use_raw else X

    def modality_of(self, source: str, there: Iterable[str]) -> tuple[str, tuple[str, ...]]:
        """Name of the modality to read, of those of MuData, and notes on a choice that nobody made."""
        there = list(there)
        if self.modality is not None:
            if self.modality not in there:
                raise unknown("modality", self.modality, there)
            return self.modality, ()
        if len(there) == 1:
            return there[0], ()
        if MAIN_MODALITY not in there:
            raise InputError(
                f"{source} is MuData with the modalities {listed(there)}; one of them was expected. Name the one with "
                "gene expression with --modality NAME (modality=NAME in Python)."
            )
        others = listed(name for name in there if name != MAIN_MODALITY)
        return MAIN_MODALITY, (
            f"{source}: read is the modality {MAIN_MODALITY}; --modality NAME reads another: {others}.",
        )

    def check_no_modality(self, source: str) -> None:
        """Refuse a modality of data that are not MuData."""
        if self.modality is not None:
            raise InputError(
                f"modality '{self.modality}' was requested, but only MuData has modalities, and {source} is none. "
                "Leave it out."
            )


@dataclass(frozen=True, eq=False)
class Found:
    """The matrix that was asked for with its annotation; a matrix in a file has not been read yet."""

    matrix: Any
    """(n_profiles, n_genes) values in memory or in a file."""
    obs: pd.DataFrame
    """Annotation of the profiles, indexed by name."""
    var: pd.DataFrame
    """Annotation of the genes, indexed by name."""
    location: str
    """`X`, `layers['NAME']` or `raw`."""
    said: tuple[str, ...] = ()
    """Sentences on what was understood of the input and could be meant otherwise."""
    matrices: Callable[[], Mapping[str, Any]] = dict
    """All matrices of the source by place, this one too, if it may have several; none of them is read yet."""
