"""Location of profiles that are still to be read."""

from dataclasses import dataclass

from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles


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
