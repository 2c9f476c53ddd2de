"""Free memory, and whether values fit into it."""

import os
from pathlib import Path

from geneae.data.profiles import megabytes
from geneae.settings.errors import InputError


def free_megabytes() -> float:
    """Free memory in 10^6 bytes; infinite if the system does not report it."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (ValueError, OSError, AttributeError):
        return float("inf")


def check_fits(path: Path, n_values: int, n_profiles: int) -> None:
    """Refuse a file of text whose values, twice while they are put in order, do not fit into the free memory."""
    needed, free = 2 * megabytes(n_values, n_profiles), free_megabytes()
    if needed > free:
        raise InputError(
            f"{path} has at least {n_values:,} values, which take {needed:,.0f} MB of memory, and {free:,.0f} MB are "
            "free; text is read whole. Convert it on a larger machine with scanpy.read(FILE).write_h5ad(NEW), which "
            "is read by rows as needed."
        )
