"""Counts are never doubted, and what is rounded after a normalisation is never taken for counts in silence."""

import numpy as np
import pytest
from scipy import sparse

from geneae.data.reading import read_profiles
from geneae.data.rounded import are_drawn, doubt, have_gaps, lack_ones, rounded_sum

RNG = np.random.default_rng(0)
RATES = RNG.gamma(0.2, 1.0, 2000) * RNG.gamma(0.5, 2.0, (200, 2000))
DEPTHS = RNG.lognormal(0, 0.8, (200, 1)) / RATES.sum(1, keepdims=True)
SHALLOW, DEEP = RNG.poisson(2500 * DEPTHS * RATES), RNG.poisson(60_000 * DEPTHS * RATES)


def to_sum(counts: np.ndarray, target: float) -> np.ndarray:
    return target * counts / counts.sum(1, keepdims=True)


COUNTS = {
    "shallow": SHALLOW,
    "deep": DEEP,
    "of one depth": RNG.poisson(10_000 * RATES / RATES.sum(1, keepdims=True)),
    "drawn to one depth": np.array([RNG.multinomial(500, rate / rate.sum()) for rate in RATES]),
    "of few genes": SHALLOW[:, np.argsort(-SHALLOW.sum(0))[:50]],
    "of two genes": RNG.poisson(RNG.lognormal(0, 0.5, (200, 1)) * np.array([[50.0, 300.0]])),
    "of eight abundant genes": RNG.poisson(RNG.lognormal(0, 0.5, (200, 1)) * RNG.gamma(2.0, 100.0, 8)),
    "of one gene a profile": RNG.poisson(np.where(np.arange(200)[:, None] % 2 == np.arange(2), 50.0, 0.0)),
    "bulk": np.array([DEEP[number::20].sum(0) for number in range(20)]),
    "few profiles": SHALLOW[:5],
}
ROUNDED = {
    "CP10k of shallow cells": np.rint(to_sum(SHALLOW, 1e4)),
    "CP10k of deep cells": np.rint(to_sum(DEEP, 1e4)),
    "CP10k of deep cells, cut off": np.floor(to_sum(DEEP, 1e4)),
    "deep cells to their median": np.rint(to_sum(DEEP, float(np.median(DEEP.sum(1))))),
    "some genes of CP10k": np.rint(to_sum(SHALLOW, 1e4))[:, np.argsort(-SHALLOW.var(0))[:300]],
}
DOUBTED = {
    "shallow cells to their median, cut off": np.floor(to_sum(SHALLOW, float(np.median(SHALLOW.sum(1))))),
    "shallow cells to 1,000": np.floor(to_sum(SHALLOW, 1e3)),
    "logarithms of CP10k": np.rint(np.log2(1 + to_sum(SHALLOW, 1e4))),
}


@pytest.mark.parametrize("kind", COUNTS)
def test_counts_are_counts_without_a_doubt(kind: str) -> None:
    found = read_profiles(COUNTS[kind])
    assert (found.state, found.evidence, found.notes) == ("counts", "", {})


def test_counts_that_are_nearly_whole_have_values_of_one() -> None:
    found = read_profiles(SHALLOW * (1 + 1e-7))
    assert (found.state, found.notes) == ("counts", {})


@pytest.mark.parametrize("kind", ROUNDED)
def test_rounded_values_are_no_counts(kind: str) -> None:
    found = read_profiles(ROUNDED[kind])
    assert found.state == "normalised"
    assert found.evidence.startswith("rounded")
    assert found.evidence.endswith("no numbers of molecules")


@pytest.mark.parametrize("kind", DOUBTED)
def test_what_may_be_rounded_values_is_said(kind: str) -> None:
    found = read_profiles(DOUBTED[kind])
    assert found.state == "counts"
    assert "If they are rounded normalised values or logarithms" in found.notes["doubted_counts"]


def test_totals_that_vary_less_than_molecules_are_no_chance() -> None:
    """For profiles of one depth the variance of totals is their mean, which 200 of them show to a tenth."""
    lengths = np.full(200, 2000)
    for share, expected in ((1.0, None), (0.3, 10_000)):
        totals = np.rint(10_000 + np.sqrt(share * 10_000) * np.sort(RNG.standard_normal(200)))
        totals[100:] += 10_000 - np.median(totals)
        found = rounded_sum(totals, lengths, None)
        assert (found is None) == (expected is None)
    assert rounded_sum(np.full(200, 500.0), lengths, None) is None
    assert are_drawn(np.array([500.0, 500, 500, 321]))


def test_gaps_are_those_between_multiples() -> None:
    molecules = sparse.csr_matrix(RNG.poisson(1.0, (20, 60)).astype(float))
    for unit, expected in ((7.3, True), (1.0, False), (2.4, False)):
        assert have_gaps(sparse.csr_matrix(np.rint(unit * molecules.toarray()))) == expected
    above = sparse.csr_matrix(RNG.integers(5, 60, (20, 60)).astype(float))
    assert lack_ones(above)
    assert not have_gaps(above)  # a panel of abundant genes


def test_profiles_too_few_or_too_short_are_not_doubted() -> None:
    totals = np.array([990.0, 1010, 1003])
    assert not doubt(totals, np.array([10, 500, 900]), sparse.csr_matrix(np.ones((3, 4))))
