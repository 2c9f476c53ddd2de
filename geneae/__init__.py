"""Train autoencoders on single-cell or bulk gene expression, and see how good their reconstructions really are."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geneae import pl as pl
    from geneae import tl as tl
    from geneae.data.reading import read_profiles as read_profiles
    from geneae.fitting.autoencoder import Autoencoder as Autoencoder
    from geneae.fitting.cosine_metric import CosineMetric as CosineMetric

__version__ = "0.2.0"
__all__ = ["Autoencoder", "CosineMetric", "__version__", "pl", "read_profiles", "tl"]

# Threads of torch, if it is loaded later, give their core to others while they wait. By default they spin, and beside
# other busy programs a fit takes twice to five times as long. A value that is set already is left alone.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

WHERE = {
    "Autoencoder": "geneae.fitting.autoencoder",
    "CosineMetric": "geneae.fitting.cosine_metric",
    "pl": "geneae.pl",
    "read_profiles": "geneae.data.reading",
    "tl": "geneae.tl",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: `import geneae` alone loads neither torch nor scanpy."""
    if name not in WHERE:
        raise AttributeError(f"module 'geneae' has no attribute '{name}'")
    from importlib import import_module

    module = import_module(WHERE[name])
    return module if module.__name__ == f"geneae.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    """Public names."""
    return sorted(__all__)
