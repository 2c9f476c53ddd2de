"""Totals over the genes of training, whatever further genes other data have or lack."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import N_GENES, QUICK, simulate
from reference import counts_matrix, profiles_of

from geneae import Autoencoder, read_profiles
from geneae.data.preprocess import fit_preprocess
from geneae.data.universe import Coverage, Universe


def names(numbers: np.ndarray | range) -> list[str]:
    return [f"g{i}" for i in numbers]


def test_shares_are_those_of_the_training_profiles_over_all_genes() -> None:
    counts = counts_matrix()
    universe = fit_preprocess(profiles_of(counts), np.arange(20), n_top_genes=10).universe
    assert universe is not None
    assert list(universe.genes) == names(range(50))
    np.testing.assert_allclose(universe.shares, counts[:20].sum(0) / counts[:20].sum())
    of_logs = fit_preprocess(profiles_of(np.log1p(counts), "log"), np.arange(20)).universe
    assert of_logs is not None
    assert list(of_logs.genes) == names(range(50))
    assert set(of_logs.shares) == {1 / 50}


def test_genes_outside_of_the_universe_do_not_count() -> None:
    counts = counts_matrix()
    universe = Universe(pd.Index(names(range(30))), np.full(30, 1 / 30))
    totals, coverage = universe.totals_of(profiles_of(counts))
    np.testing.assert_array_equal(totals, counts[:, :30].sum(1))
    assert coverage == Coverage(30, 30, 1.0, 20, pytest.approx(counts[:, 30:].sum() / counts.sum()))


def test_totals_over_some_genes_are_divided_by_the_share_that_these_had() -> None:
    counts = counts_matrix()
    shares = counts.sum(0) / counts.sum()
    universe = Universe(pd.Index(names(range(50))), shares)
    some = np.random.default_rng(0).permutation(50)[:20]
    totals, coverage = universe.totals_of(profiles_of(counts[:, some], genes=names(some)))
    np.testing.assert_allclose(totals, counts[:, some].sum(1) / shares[some].sum())
    assert totals.sum() == pytest.approx(counts.sum())  # of the profiles of training themselves, all of it
    assert coverage == Coverage(50, 20, pytest.approx(shares[some].sum()), 0, 0.0)


def test_data_without_a_molecule_have_totals_of_zero() -> None:
    universe = Universe(pd.Index(names(range(50))), np.full(50, 0.02))
    totals, _ = universe.totals_of(profiles_of(np.zeros((3, 20))))
    assert totals.tolist() == [0, 0, 0]


def test_sentences() -> None:
    assert Coverage(100, 100, 1.0, 0, 0.0).sentences() == []
    assert Coverage(100, 90, 1.0, 5, 0.0).sentences() == []  # genes without a molecule
    assert Coverage(1200, 90, 0.25, 5, 0.1234).sentences() == [
        "The data have 90 of the 1,200 genes of the training file, which held 25.0 % of its molecules: the molecules "
        "of a profile in these genes, divided by that share, are taken as its total.",
        "Totals count the 1,200 genes of the training file only: 5 other genes, with 12.3 % of the molecules of the "
        "data, are left out.",
    ]
    assert "held over 99.9 % of" in Coverage(9, 8, 0.99999, 0, 0.0).sentences()[0]
    assert "with under 0.1 % of" in Coverage(9, 9, 1.0, 1, 1e-6).sentences()[0]


@pytest.mark.parametrize("stream", ["yes", "no"])
def test_a_model_of_a_panel_gives_the_same_latents_from_the_complete_file(tmp_path: Path, stream: str) -> None:
    adata = simulate()
    path = tmp_path / "complete.h5ad"
    adata.write_h5ad(path)
    panel = adata[:, np.random.default_rng(1).permutation(N_GENES)[:60]].copy()
    model = Autoencoder(**QUICK | {"epochs": 1}).fit(panel)
    np.testing.assert_allclose(model.transform(read_profiles(path, stream=stream)), model.transform(panel), atol=1e-5)


def test_the_molecules_of_a_panel_are_as_many_as_those_of_the_complete_profiles() -> None:
    adata = simulate()
    model = Autoencoder(**QUICK | {"epochs": 1}).fit(adata).fitted()
    panel = adata[:, np.random.default_rng(2).permutation(N_GENES)[:90]].copy()
    totals = model.preprocess.match(read_profiles(panel))[0].totals
    own = np.asarray(adata.X.sum(1)).ravel()
    assert np.exp(np.log(totals / own).mean()) == pytest.approx(1, abs=0.1)
    assert (np.asarray(panel.X.sum(1)).ravel() / own).mean() < 0.9
