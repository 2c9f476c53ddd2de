"""A small simulated world with a known structure, and one fit of it that many tests look at."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from scipy import sparse
from starts import Data

from geneae import Autoencoder, CosineMetric, read_profiles
from geneae.data.preprocess import fit_preprocess

torch.set_num_threads(1)  # on so little data threads only wait for each other

N_PROFILES, N_GENES, N_PROGRAMMES = 240, 120, 4
QUICK: dict[str, Any] = {"n_latent": 4, "hidden": 16, "rank": 12, "epochs": 3, "n_splits": 2, "batch_size": 64}
"""Settings of a fit that takes a fraction of a second."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests come first, so that no process waits for another at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def simulate(
    n_profiles: int = N_PROFILES, n_genes: int = N_GENES, depth: float = 600.0, seed: int = 0, n_programmes: int = 4
) -> anndata.AnnData:
    """Poisson counts whose rates are mixtures of a few programmes: their rank is `n_programmes`."""
    rng = np.random.default_rng(seed)
    programmes = rng.gamma(0.4, 1.0, size=(n_programmes, n_genes)) + 0.02
    programmes /= programmes.sum(1, keepdims=True)
    mixture = rng.dirichlet(np.full(n_programmes, 0.4), size=n_profiles)
    molecules = depth * rng.lognormal(0.0, 0.3, size=(n_profiles, 1))
    counts = rng.poisson(mixture @ programmes * molecules).astype(np.float32)
    obs = pd.DataFrame(
        {
            "donor": pd.Categorical([f"d{i % 8}" for i in range(n_profiles)]),
            "kind": pd.Categorical([f"k{k}" for k in mixture.argmax(1)]),
        },
        index=[f"cell{i}" for i in range(n_profiles)],
    )
    var = pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)])
    return anndata.AnnData(sparse.csr_matrix(counts), obs=obs, var=var)


def thinned(adata: anndata.AnnData, share: float | np.ndarray, seed: int = 0) -> anndata.AnnData:
    """A copy that keeps each molecule with this probability, or with one for each profile."""
    counts = sparse.csr_matrix(adata.X, copy=True)
    by_value = np.repeat(np.broadcast_to(share, adata.n_obs), np.diff(counts.indptr))
    counts.data = np.random.default_rng(seed).binomial(counts.data.astype(int), by_value).astype(np.float32)
    counts.eliminate_zeros()
    return anndata.AnnData(counts, obs=adata.obs.copy(), var=adata.var.copy())


def write_checkpoint(path: Path) -> Path:
    """A file that geneae knows as a checkpoint of its own, without a network in it."""
    save_file({"order": torch.zeros(3)}, path, {"state": json.dumps({"identity": {"checkpoint format": 1}})})
    return path


@pytest.fixture(scope="session")
def _counts() -> anndata.AnnData:
    return simulate()


@pytest.fixture
def counts(_counts: anndata.AnnData) -> anndata.AnnData:
    """240 profiles x 120 genes of four programmes; a copy that a test may change."""
    return _counts.copy()


@pytest.fixture(scope="session")
def counts_path(_counts: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as an .h5ad file; not to be changed."""
    path = tmp_path_factory.mktemp("data") / "counts.h5ad"
    _counts.copy().write_h5ad(path)
    return path


@pytest.fixture(scope="session")
def fitted(counts_path: Path) -> Autoencoder:
    """A fit of the file, not to be changed."""
    return Autoencoder("cosine", **QUICK).fit(counts_path)


@pytest.fixture(scope="session")
def model_folder(fitted: Autoencoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same fit as a folder, not to be changed."""
    folder = tmp_path_factory.mktemp("model") / "run"
    fitted.save(folder)
    return folder


@pytest.fixture(scope="session")
def metric_folder(_counts: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A metric that tells the programmes of the counts apart, as a folder; not to be changed."""
    folder = tmp_path_factory.mktemp("metric") / "metric"
    CosineMetric(n_components=3, rank=12, epochs=5, batch_size=64).fit(_counts, "kind").save(folder)
    return folder


@pytest.fixture(scope="session")
def data() -> Data:
    """100 training and 40 validation profiles of 60 genes; not to be changed."""
    profiles = read_profiles(simulate(140, 60))
    preprocess = fit_preprocess(profiles, np.arange(100))
    expression = preprocess.match(profiles)[0]
    return expression.take(np.arange(100)), expression.take(np.arange(100, 140)), preprocess


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes nearly all of the time; tests of tables and sentences go without."""
    from markupsafe import Markup

    from geneae.report.image import Picture

    nothing = Markup("<svg></svg>")
    monkeypatch.setattr("geneae.report.pictures.draw_picture", lambda title, *_: Picture(title, "", "", nothing))
