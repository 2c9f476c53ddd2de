"""Fit of a population to counts: variational Bayes of latents and loadings, so that few profiles do not mislead it."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from geneae.models.population import Population, dense_block

RANK = 24  # components; the prior of each is fitted, and those that the data do not show vanish
LEAST_PROFILES = 8  # training profiles for each component
STEPS, RATE, WARM_UP = 400, 0.03, 20  # of Adam; the bound moves by 1e-4 of itself after 300 steps
MOST_SHAPE = 6.5  # largest log shape: the noise has then a variance of 0.0015, like none
LEAST_SPREAD = 0.3  # smallest deviation of log shapes over genes to which they are shrunk
FIRST_SPREADS = (-2.0, -1.0)  # log deviations of loadings and latents at the start
OVERDISPERSION = 4.0  # shape of the noise in the residuals from which the start is taken
PARTS = (1, 2, 4, 8, 12)  # of the mixture of latents
LEAST_PER_MEAN = 3  # profiles for each number in the means of its parts
CLIP = 5.0  # largest of these residuals


@dataclass(frozen=True, eq=False)
class FittedPopulation:
    """Normal distributions of everything that the profiles do not determine."""

    base: Tensor
    """(n_genes,) log shares."""
    shape: Tensor
    """(n_genes,) shape of the gamma noise."""
    loadings: Tensor
    """(n_genes, rank) means of the loadings."""
    loading_deviations: Tensor
    """(n_genes, rank) their posterior deviations."""
    latents: Tensor
    """(n_profiles, rank) means of the latents of the profiles."""
    latent_deviations: Tensor
    """(n_profiles, rank) their posterior deviations."""

    def expected(self, seed: int) -> Population:
        """The population as these profiles show it, which predicts new ones best."""
        return self._with(self.loadings, seed)

    def drawn(self, seed: int) -> Population:
        """A population that these profiles may have come from: its loadings are as large as the true ones, while the
        expected ones are shrunk."""
        normal = torch.randn(self.loadings.shape, generator=torch.Generator().manual_seed(seed))
        return self._with(self.loadings + self.loading_deviations * normal, seed)

    def _with(self, loadings: Tensor, seed: int) -> Population:
        normal = torch.randn(self.latents.shape, generator=torch.Generator().manual_seed(seed))
        mixture = fit_mixture((self.latents + self.latent_deviations * normal).double().numpy(), seed)
        return Population(self.base, loadings, self.shape, *mixture)


def fit_mixture(latents: np.ndarray, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and covariances of a mixture of normal distributions: one, or some with diagonal covariances,
    whichever has the best Bayesian information criterion."""
    from sklearn.exceptions import ConvergenceWarning  # slow to load
    from sklearn.mixture import GaussianMixture

    best, found = np.inf, None
    for number in PARTS:
        if number > 1 and number * latents.shape[1] * LEAST_PER_MEAN > len(latents):
            continue
        kind = "full" if number == 1 else "diag"
        mixture = GaussianMixture(number, covariance_type=kind, random_state=seed, reg_covar=1e-3, max_iter=60)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # nearly converged is as good
            criterion = mixture.fit(latents).bic(latents)
        if criterion < best:
            best, found = criterion, mixture
    assert found is not None
    covariances = found.covariances_ if found.n_components == 1 else [np.diag(one) for one in found.covariances_]
    weights, means, covariances = (torch.tensor(np.asarray(of)) for of in (found.weights_, found.means_, covariances))
    return weights, means, covariances


def fit_population(counts: sparse.csr_matrix, seed: int, rank: int = RANK) -> FittedPopulation:
    """Fit by stochastic variational Bayes; takes about 0.05 microseconds x profiles x genes for each of 400 steps.

    Every latent and loading has a normal posterior of its own; the prior of the latents is standard normal, the
    deviation of the loadings of each component is fitted (automatic relevance determination).

    Parameters
    ----------
    counts
        (n_profiles, n_genes) all molecules of the profiles.
    seed
        Seed of the start and of the draws of the optimiser.
    rank
        Largest number of components.
    """
    generator = torch.Generator().manual_seed(seed)
    x = dense_block(counts)
    totals = x.sum(1, keepdim=True)
    kinds, repeats = _distinct(counts)
    at = _start(x, max(1, min(rank, len(x) // LEAST_PROFILES)), generator)
    optimizer = torch.optim.Adam(at.values(), lr=RATE, betas=(0.9, 0.98))
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARM_UP, 2 * (1 - step / STEPS))
        loadings, latents = at["loadings"], at["latents"]
        loading_variance, latent_variance = (2 * at["log_loading"]).exp(), (2 * at["log_latent"]).exp()
        mean = at["base"] + latents @ loadings.T
        squares = loadings.square() + loading_variance
        variance = latent_variance @ squares.T + latents.square() @ loading_variance.T
        drawn = mean + variance.sqrt() * torch.randn(x.shape, generator=generator)
        log_shares = drawn - torch.logsumexp(drawn, 1, keepdim=True)
        log_shape = at["log_shape"].clamp(max=MOST_SHAPE)
        likelihood = (
            x * log_shares - (x + log_shape.exp()) * torch.log1p(totals * (log_shares - log_shape).exp())
        ).sum()
        shape = log_shape.double().exp()[kinds[0]]
        rises = repeats * (torch.lgamma(kinds[1] + shape) - torch.lgamma(shape) - kinds[1] * shape.log())
        spread = log_shape.detach().std().clamp(min=LEAST_SPREAD)
        of_shapes = ((log_shape - log_shape.detach().mean()) / spread).square().sum() / 2
        relevance = squares.detach().mean(0)
        of_loadings = (squares / relevance + relevance.log() - 2 * at["log_loading"] - 1).sum() / 2
        of_latents = (latents.square() + latent_variance - 2 * at["log_latent"] - 1).sum() / 2
        bound = likelihood + rises.sum().float() - of_shapes - of_loadings - of_latents
        optimizer.zero_grad()
        (-bound / totals.sum()).backward()
        optimizer.step()
    found = {name: tensor.detach() for name, tensor in at.items()}
    return FittedPopulation(
        found["base"],
        found["log_shape"].clamp(max=MOST_SHAPE).exp(),
        found["loadings"],
        found["log_loading"].exp(),
        found["latents"],
        found["log_latent"].exp(),
    )


def _distinct(counts: sparse.csr_matrix) -> tuple[Tensor, Tensor]:
    """(2, n) genes and counts of at least 2 that occur together, and how often: in them alone the negative binomial
    distribution has terms of the shape only, and they are few."""
    many = counts.data > 1
    pairs, repeats = np.unique(np.stack([counts.indices[many], counts.data[many]]), axis=1, return_counts=True)
    return torch.from_numpy(pairs.astype(np.int64)), torch.from_numpy(repeats)


def _start(x: Tensor, rank: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Parameters at the start: components of residuals in units of their noise."""
    n_profiles, n_genes = x.shape
    shares = (x.sum(0) + 0.5) / (x.sum() + 0.5 * n_genes)
    expected = x.sum(1, keepdim=True) * shares
    residuals = (x - expected) / (expected + expected.square() / OVERDISPERSION + 0.01).sqrt()
    residuals = residuals.clamp(-CLIP, CLIP)
    directions = torch.randn(n_genes, rank + 8, generator=generator)
    for _ in range(4):
        directions = torch.linalg.qr(residuals.T @ (residuals @ directions))[0]
    left, _, _ = torch.linalg.svd(residuals @ directions, full_matrices=False)
    latents = left[:, :rank] * n_profiles**0.5
    level = expected.mean(0)
    loadings = residuals.T @ latents / n_profiles / (level / (1 + level / OVERDISPERSION) + 0.05).sqrt()[:, None]
    at = {
        "base": shares.log(),
        "log_shape": torch.full((n_genes,), 1.5),
        "loadings": 0.7 * loadings,
        "log_loading": torch.full((n_genes, latents.shape[1]), FIRST_SPREADS[0]),
        "latents": latents.clone(),
        "log_latent": torch.full(latents.shape, FIRST_SPREADS[1]),
    }
    return {name: tensor.requires_grad_() for name, tensor in at.items()}
