"""How well latents of scVI show labels, on the splits, genes, references and queries of `latents.py`, beside its rows.

    python workflows/benchmarks/latents.py DATA.h5ad --label cell_type --seeds 5 -o latents.csv
    PYTHON_OF_BOTH workflows/benchmarks/scvi_latents.py DATA.h5ad --label cell_type --seeds 5 -o latents.csv

Needs an environment that holds geneae and scvi-tools. The model is `scvi.model.SCVI` with its defaults (one hidden
layer of 128, zero-inflated negative binomial, no batches), trained on raw counts of the genes that a fit chooses, with
early stopping, for at most as many epochs as the package's own rule gives (400 up to 20,000 profiles), from the seed of
the split. As in a fit, weights see training profiles only, and validation profiles decide when to stop. Models named
`thinned` see complete profiles and copies of them thinned to a quarter, a tenth and a twentieth, in training and in
validation. The latent is the posterior mean. The table that is printed pairs queries with those of `latents.py`, where
the file has them for the same seeds.
"""

import logging
import time
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anndata
import click
import numpy as np
import pandas as pd
import scvi
from latents import RATIOS, rows_of, summary
from scipy import sparse

from geneae.data.augment import thin_to
from geneae.data.preprocess import Expression
from geneae.data.reading import read_profiles
from geneae.fitting.prepare import FitData, prepare
from geneae.settings.settings import Settings

COMPLETE_ONLY = (1,)
KINDS = {
    "scvi_10": (10, COMPLETE_ONLY),
    "scvi_32": (32, COMPLETE_ONLY),
    "scvi_10_thinned": (10, RATIOS),
    "scvi_32_thinned": (32, RATIOS),
}
"""Number of latents, and ratios to which profiles are thinned for training, by name."""


def copies_of(part: Expression, ratios: Sequence[int], rng: np.random.Generator) -> sparse.csr_matrix:
    """Counts of profiles thinned to each of the ratios, one below the other; copies without a molecule are left out."""
    parts = [part if ratio == 1 else thin_to(part, 1 / ratio, rng) for ratio in ratios]
    counts = sparse.vstack([part.rows for part in parts], format="csr")
    return counts[counts.getnnz(1) > 0]


def train(data: FitData, n_latent: int, ratios: Sequence[int], accelerator: str) -> scvi.model.SCVI:
    """A model trained on training profiles, and stopped by validation profiles."""
    rng = np.random.default_rng((data.settings.seed, 11))
    taught, watched = (copies_of(part.load(), ratios, rng) for part in (data.train, data.validation))
    adata = anndata.AnnData(sparse.vstack([taught, watched], format="csr"))
    places = np.split(np.arange(adata.n_obs), [taught.shape[0]])
    scvi.settings.seed = data.settings.seed
    scvi.model.SCVI.setup_anndata(adata)
    model = scvi.model.SCVI(adata, n_latent=n_latent)
    model.train(
        accelerator=accelerator,
        early_stopping=True,
        datasplitter_kwargs={"external_indexing": [*places, np.array([], int)]},
        enable_progress_bar=False,
    )
    return model


def representations(
    model: scvi.model.SCVI, name: str, reference: Expression, queries: Expression, ratio: int
) -> dict[str, list[np.ndarray]]:
    """Posterior means of reference and queries, under the name of the model, which does not know the ratio."""
    return {name: [model.get_latent_representation(anndata.AnnData(part.rows)) for part in (reference, queries)]}


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--label", required=True, help="Column of obs.")
@click.option("--seeds", default=5, show_default=True)
@click.option("--first-seed", default=0, show_default=True)
@click.option("--n-top-genes", default=2000, show_default=True)
@click.option("--kind", "kinds", multiple=True, type=click.Choice(list(KINDS)), default=list(KINDS), show_default=True)
@click.option("--accelerator", default="cpu", show_default=True, type=click.Choice(["cpu", "gpu"]))
@click.option("-o", "--output", default=Path("latents.csv"), show_default=True, type=click.Path(path_type=Path))
def main(
    data: tuple[Path, ...],
    label: str,
    seeds: int,
    first_seed: int,
    n_top_genes: int,
    kinds: tuple[str, ...],
    accelerator: str,
    output: Path,
) -> None:
    """Train scVI on every data set with every seed, find the labels of its queries, and append them to the table."""
    warnings.simplefilter("ignore")
    for said in ("scvi", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(said).setLevel(logging.WARNING)
    for path in data:
        profiles = read_profiles(path)
        for seed in range(first_seed, first_seed + seeds):
            prepared = prepare(profiles, Settings(seed=seed, n_top_genes=n_top_genes))
            split, labels = prepared.split.to_numpy(), profiles.obs[label]
            for name in kinds:
                begin = time.perf_counter()
                model = train(prepared, *KINDS[name], accelerator)
                seconds, epochs = time.perf_counter() - begin, len(model.history["elbo_validation"])
                rows = rows_of(split, prepared.expression, labels, partial(representations, model, name))
                table = pd.DataFrame(rows).assign(data=path.stem, seed=seed)
                table.to_csv(output, mode="a", header=not output.exists(), index=False)
                click.echo(f"{path.stem} seed {seed}: {name}, {seconds:.0f} s, {epochs} epochs")
    click.echo(summary(pd.read_csv(output)).round(4).to_string())


if __name__ == "__main__":
    main()
