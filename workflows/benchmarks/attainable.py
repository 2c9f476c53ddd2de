"""Is "attainable" what the Bayes predictor reaches? Simulated counts whose Bayes predictor is known: one table.

    python workflows/benchmarks/attainable.py --profiles 450 --profiles 1500 -o attainable.csv

Two kinds of populations: `factors`, 20 log-linear components of falling size and five overlapping clusters; `states`,
12 kinds of profiles with sparse programmes of their own and little variation within. Each with Poisson noise alone, and
with gamma noise of every entry that both halves share. All numbers are skill, the share of the way from the mean
profile to the noise ceiling: of the Bayes predictor, which knows the population; of the fit; and as `--attainable`
estimates them from the counts of the fit. Higher is better, except the error.
"""

import time
from pathlib import Path

import anndata
import click
import numpy as np
import pandas as pd
import torch
from scipy import sparse

from geneae import read_profiles
from geneae.data.profiles import Profiles
from geneae.evaluation.attainable import MOST_JUDGED, bayes_cosines, divide, stand, with_rest
from geneae.evaluation.predictors import predictors, products_of
from geneae.fitting.fit import fit
from geneae.losses.metrics import METRICS, measure
from geneae.models.ceiling import cosine_of_halves, half_ceiling
from geneae.models.model import Model
from geneae.models.population import Population
from geneae.settings.settings import Settings

MOLECULES, SPREAD = 1500, 0.4  # median of a profile, deviation of its logarithm
KINDS, NOISES = ("factors", "states"), ("poisson", "gamma")


def population(kind: str, noise: str, n_genes: int, seed: int) -> Population:
    """A population with known parameters."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    base = 1.5 * normal(n_genes)
    if kind == "factors":
        rank, n_parts = 20, 5
        loadings = 0.3 * normal(n_genes, rank) * torch.linspace(1.2, 0.4, rank)
        weights, means = torch.tensor([0.35, 0.25, 0.2, 0.12, 0.08]), normal(n_parts, rank)
        roots = 0.25 * normal(n_parts, rank, rank)
        covariances = 0.3 * torch.eye(rank) + roots @ roots.mT
    else:
        n_parts, n_common = 12, 3
        programmes = 1.5 * normal(n_genes, n_parts) * (torch.rand(n_genes, n_parts, generator=generator) < 0.12)
        loadings = torch.cat([programmes, 0.3 * normal(n_genes, n_common)], 1)
        weights = torch.softmax(0.7 * normal(n_parts), 0)
        means = torch.cat([torch.eye(n_parts), torch.zeros(n_parts, n_common)], 1)
        spread = torch.cat([torch.full((n_parts,), 1e-3), torch.ones(n_common)])
        covariances = spread.diag().expand(n_parts, -1, -1)
    shape = torch.full((n_genes,), torch.inf) if noise == "poisson" else 2 * (0.5 * normal(n_genes)).exp()
    return Population(base, loadings, shape, weights.double(), means.double(), covariances.double())


def draw(known: Population, n_profiles: int, seed: int) -> Profiles:
    """Profiles of a population."""
    rng = np.random.default_rng(seed)
    counts = known.draw(MOLECULES * rng.lognormal(0, SPREAD, n_profiles), rng)
    names = [
        pd.DataFrame(index=[f"{letter}{at}" for at in range(n)]) for letter, n in zip("pg", counts.shape, strict=True)
    ]
    return read_profiles(anndata.AnnData(sparse.csr_matrix(counts), obs=names[0], var=names[1]))


def judge(model: Model, known: Population, profiles: Profiles, seed: int) -> dict[str, float]:
    """Skill of the Bayes predictor, and of every predictor of a model, on the same halves of new profiles."""
    expression, rng = model.preprocess.match(profiles)[0], np.random.default_rng(seed)
    genes = np.append(profiles.genes.get_indexer(model.preprocess.genes), -1)
    with_other = Population(  # genes that the fit has left out, together
        torch.cat([known.base, torch.full((1,), -12.0)]),
        torch.cat([known.loadings, torch.zeros(1, known.loadings.shape[1])]),
        torch.cat([known.shape, known.shape[:1]]),
        known.weights,
        known.means,
        known.covariances,
    ).take(genes)
    divided = divide(with_rest(expression), expression.totals, model.preprocess, rng)
    found = products_of(predictors(model, is_half=True), divided.targets, ("none",), [divided.totals] * 2)
    means = {
        name: float(np.mean([measure(METRICS["cosine"], by[name]["none"]).numpy() for by in found]))
        for name in ("mean_profile", "shrunken_pca", "model")
    }
    means["bayes"] = float(bayes_cosines(with_other, divided, model.preprocess, rng).mean())
    trivial, ceiling = means.pop("mean_profile"), half_ceiling(cosine_of_halves(divided.targets[0], divided.targets[1]))
    return {name: (mean - trivial) / (ceiling - trivial) for name, mean in means.items()}


@click.command(context_settings={"show_default": True})
@click.option("--profiles", multiple=True, default=(450, 1500), help="Training profiles.")
@click.option("--genes", default=1500)
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), default=KINDS)
@click.option("--noise", "noises", multiple=True, type=click.Choice(NOISES), default=NOISES)
@click.option("--seed", default=0)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the rows as .csv.")
def main(
    profiles: tuple[int, ...],
    genes: int,
    kinds: tuple[str, ...],
    noises: tuple[str, ...],
    seed: int,
    output: Path | None,
) -> None:
    """Compare "attainable" with the known Bayes predictor."""
    rows = []
    for n_profiles in profiles:
        for kind in kinds:
            for noise in noises:
                known = population(kind, noise, genes, seed)
                data = draw(known, int(n_profiles / 0.8), seed + 1)
                begin = time.perf_counter()
                fitted = fit(data, Settings(seed=seed))
                between = time.perf_counter()
                expression = fitted.model.preprocess.match(data)[0]
                train = expression.take(np.flatnonzero(fitted.split == "train"))
                new = draw(known, MOST_JUDGED, seed + 2)  # more than the fit has for a test, to see a small error
                judged, split = fitted.model.preprocess.match(new)[0], pd.Series("test", new.names)
                standing, _ = stand(fitted.model, train, judged, split, "test", seed)
                end = time.perf_counter()
                truth = judge(fitted.model, known, new, seed)
                rows.append(
                    {
                        "population": kind,
                        "noise": noise,
                        "training": train.n_profiles,
                        "shrunken_pca": truth["shrunken_pca"],
                        "fit": truth["model"],
                        "bayes": truth["bayes"],
                        "attainable": standing.skill(standing.attainable),
                        "error": standing.skill(standing.attainable) - truth["bayes"],
                        "here": standing.skill(standing.here),
                        "seconds_fit": between - begin,
                        "seconds_attainable": end - between,
                    }
                )
                click.echo(pd.DataFrame(rows[-1:]).to_string(index=False, float_format="%.4f", header=len(rows) == 1))
    if output is not None:
        pd.DataFrame(rows).to_csv(output, index=False)


if __name__ == "__main__":
    main()
