"""Location of profiles that are still to be read."""

from dataclasses import dataclass
from pathlib import Path

from geneae.data.formats import stem_of
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles


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
        return read_profiles(self.paths, self.layer, self.use_raw, self.stream, self.gene_names, self.modality)
