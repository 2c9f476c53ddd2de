"""Training speed of scvi-tools, run by the Python of an environment of its own; prints one JSON object.

PYTHON_OF_SCVI workflows/benchmarks/scvi_speed.py COUNTS.h5ad --model SCVI --batch-size 128
"""

import json
import statistics
import time
import warnings

import anndata
import click
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


@click.command(context_settings={"show_default": True})
@click.argument("path", type=click.Path(exists=True))
@click.option("--model", "name", type=click.Choice(list(MODELS)), default="SCVI")
@click.option("--batch-size", default=128)
@click.option("--hidden", default=128)
@click.option("--latent", default=32)
@click.option("--profiles", default=4096, help="Train on the first so many; the speed does not depend on it.")
@click.option("--epochs", default=2, help="Timed, after one to warm up.")
@click.option("--threads", default=2)
def main(
    path: str, name: str, batch_size: int, hidden: int, latent: int, profiles: int, epochs: int, threads: int
) -> None:
    """Train on counts and print the profiles per second of every epoch, and their median."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    adata = anndata.read_h5ad(path)[:profiles].copy()
    MODELS[name].setup_anndata(adata)
    model = MODELS[name](adata, n_hidden=hidden, n_latent=latent)
    clock = Clock()
    model.train(
        epochs + 1,
        accelerator="cpu",
        train_size=1.0,
        batch_size=batch_size,
        callbacks=[clock],
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    )
    rates = [adata.n_obs / seconds for seconds in clock.seconds[1:]]
    click.echo(json.dumps({"scvi": scvi.__version__, "rates": rates, "median": statistics.median(rates)}))


if __name__ == "__main__":
    main()
