"""Where profiles are read from."""

from dataclasses import dataclass

from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles


@dataclass(frozen=True)
class Source:
    """A matrix of a file; each worker of a grid reads it itself."""

    data: str
    """Path of an `.h5ad` file or `.zarr` folder."""
    layer: str | None = None
    """Layer in place of X."""
    use_raw: bool = False
    """raw in place of X."""
    stream: str = "no"
    """Whether rows are left in the file until they are needed, as `geneae.data.reading.read_profiles` says."""

    def read(self) -> Profiles:
        """The profiles, after a look at every value."""
        return read_profiles(self.data, self.layer, self.use_raw, self.stream)
