"""Training speed of scvi-tools, run by the Python of an environment of its own; prints one JSON object.

PYTHON_OF_SCVI workflows/benchmarks/scvi_speed.py COUNTS.h5ad --model SCVI --batch-size 128
"""

import argparse
import json
import statistics
import time
import warnings

import anndata
import scvi
import torch
from lightning.pytorch.callbacks import Callback

MODELS = {"SCVI": scvi.model.SCVI, "LinearSCVI": scvi.model.LinearSCVI}


class Clock(Callback):
    """Seconds of every training epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: object, module: object) -> None:
        """Start."""
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: object, module: object) -> None:
        """Stop."""
        self.seconds.append(time.perf_counter() - self._start)


def main() -> None:
    """Train on counts and print the profiles per second of every epoch, and their median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--model", choices=list(MODELS), default="SCVI")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--latent", type=int, default=32)
    parser.add_argument("--profiles", type=int, default=4096, help="the first so many; the speed does not depend on it")
    parser.add_argument("--epochs", type=int, default=2, help="timed, after one to warm up")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    adata = anndata.read_h5ad(given.path)[: given.profiles].copy()
    MODELS[given.model].setup_anndata(adata)
    model = MODELS[given.model](adata, n_hidden=given.hidden, n_latent=given.latent)
    clock = Clock()
    model.train(
        given.epochs + 1,
        accelerator="cpu",
        train_size=1.0,
        batch_size=given.batch_size,
        callbacks=[clock],
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    )
    rates = [adata.n_obs / seconds for seconds in clock.seconds[1:]]
    print(json.dumps({"scvi": scvi.__version__, "rates": rates, "median": statistics.median(rates)}))


if __name__ == "__main__":
    main()
