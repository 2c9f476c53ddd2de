"""What inspect says of data whose truth is known."""

from dataclasses import asdict

import anndata
import numpy as np
import pytest
import scanpy as sc
from scipy import sparse

from geneae.data.preprocess import normalize, recover_counts
from geneae.data.reading import read_profiles
from geneae.evaluation import inspection
from geneae.evaluation.inspection import Inspection, inspect_profiles, judge_cosine
from geneae.settings.errors import InputError


@pytest.fixture(scope="module")
def reduced() -> Inspection:
    return inspect_profiles(read_profiles(sc.datasets.pbmc68k_reduced(), use_raw=True), cosine=0.4)


def simulate(depth: float, n_profiles: int = 600, n_genes: int = 1000) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Poisson counts of rank six, and their rates."""
    rng = np.random.default_rng(1)
    mixture, programmes = rng.dirichlet(np.full(6, 0.3), n_profiles), rng.gamma(0.3, 1.0, (6, n_genes)) + 0.02
    rates = mixture @ (programmes / programmes.sum(1, keepdims=True)) * depth
    return sparse.csr_matrix(rng.poisson(rates).astype(np.float32)), rates


def mean_cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.mean((first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)))


def test_blood_cells_give_the_known_numbers(reduced: Inspection) -> None:
    assert reduced.mean_profile_cosine == pytest.approx(0.73, abs=0.01)
    assert reduced.random_pair_cosine == pytest.approx(0.53, abs=0.01)
    assert reduced.permuted_cosine == pytest.approx(0.29, abs=0.01)
    assert reduced.ceiling_half == pytest.approx(0.76, abs=0.01)
    assert reduced.ceiling_full is not None
    assert reduced.ceiling_full == pytest.approx([0.84, 0.84], abs=0.01)
    assert reduced.ceiling_full[0] < reduced.ceiling_full[1]
    assert reduced.ceiling_half_interval is not None
    assert reduced.ceiling_half_interval[0] < reduced.ceiling_half < reduced.ceiling_half_interval[1]


def test_recovered_counts_are_told(reduced: Inspection) -> None:
    told = (
        "counts recovered exactly: every value is log(x + 1) to base e of whole numbers times a factor of each profile"
    )
    assert reduced.reasons == {"counts": told}


def test_a_cosine_is_put_into_its_place(reduced: Inspection) -> None:
    assert "A cosine of 0.4 here: without centring it is worse than the mean profile (0.73)" in reduced.verdict
    assert "after gene-centring it is better than two random profiles (0." in reduced.verdict
    assert "below PCA-4" in reduced.verdict
    assert "it is better than the mean profile (0.73) but below" in judge_cosine(0.735, asdict(reduced))
    assert "between two halves of the molecules it is worse than the mean profile (0.64)" in reduced.verdict
    assert "halves of the molecules it is 49 % of the way" in judge_cosine(0.70, asdict(reduced))
    assert "which no honest reconstruction can reach" in judge_cosine(0.80, asdict(reduced))
    assert "an own-input cosine above 0.84 is partly copied noise" in reduced.verdict
    assert "copied noise" in judge_cosine(0.95, asdict(reduced))


def test_where_there_is_nothing_to_gain_no_share_of_it_is_told() -> None:
    """Poisson counts of one profile: the mean profile reaches the ceiling, or a little more."""
    found = asdict(inspect_profiles(read_profiles(simulate(500, 200)[0])))
    found |= {"ceiling_half": 0.9, "mean_profile_heldout": 0.9001, "shrunken_pca_heldout": {4: 0.9002}}
    said = inspection._verdict(found, {}, None)
    assert "reaches 0.900, and shrunken PCA of size 4 0.900: there is nothing to gain. There is almost nothing" in said
    assert "nan" not in said


@pytest.mark.parametrize("depth", [500, 2000])
def test_ceiling_of_raw_counts_is_their_cosine_with_the_truth(depth: float) -> None:
    counts, rates = simulate(depth)
    found = inspect_profiles(read_profiles(counts))
    assert found.ceiling_counts == pytest.approx(mean_cosine(counts.toarray(), rates), abs=0.005)


@pytest.mark.parametrize("depth", [500, 2000])
def test_full_depth_interval_is_near_the_cosine_with_the_expectation(depth: float) -> None:
    counts, rates = simulate(depth, n_profiles=200)
    totals = rates.sum(1)
    rng = np.random.default_rng(2)
    expectation = np.mean([np.log1p(1e4 * rng.poisson(rates) / totals[:, None]) for _ in range(60)], axis=0)
    truth = mean_cosine(np.log1p(1e4 * counts.toarray() / totals[:, None]), expectation)
    low, high = inspect_profiles(read_profiles(counts)).ceiling_full or (0, 0)
    assert low - 0.01 < truth < high + 0.01


def test_shrunken_pca_lies_between_mean_profile_and_ceiling() -> None:
    found = inspect_profiles(read_profiles(simulate(2000)[0]))
    assert found.shrunken_pca_heldout is not None
    assert found.mean_profile_heldout is not None
    assert found.ceiling_half is not None
    assert found.mean_profile_heldout < found.shrunken_pca_heldout[8] < found.ceiling_half
    assert found.headroom == pytest.approx(found.ceiling_half - found.mean_profile_heldout)


def test_profiles_without_structure_are_said_to_hold_nothing() -> None:
    rates = np.random.default_rng(0).gamma(0.5, 1.0, 300)
    counts = np.random.default_rng(1).poisson(np.tile(rates, (400, 1))).astype(np.float32)
    assert "almost nothing to learn about single profiles" in inspect_profiles(read_profiles(counts)).verdict


def test_the_text_says_when_the_ceiling_is_too_high(reduced: Inspection) -> None:
    warning = "The ceiling assumes Poisson noise; other technical noise makes it too high."
    assert warning in reduced.verdict
    rng = np.random.default_rng(0)
    poisson, rates = simulate(2000)
    gamma = rng.gamma(2.0, 0.5, rates.shape)  # technical noise of mean 1 on every rate: counts are negative binomial
    noisy = inspect_profiles(read_profiles(rng.poisson(rates * gamma).astype(np.float32)))
    assert warning in noisy.verdict
    assert noisy.ceiling_counts is not None
    truth = mean_cosine(rates * gamma, rates)  # before any counting; the counts themselves are further off
    assert noisy.ceiling_counts > truth + 0.05
    assert inspect_profiles(read_profiles(poisson)).ceiling_counts == pytest.approx(
        mean_cosine(poisson.toarray(), rates), abs=0.005
    )


def test_without_counts_there_is_no_ceiling_and_the_reason_is_given() -> None:
    values = np.random.default_rng(0).normal(8, 1, (40, 60))
    found = inspect_profiles(read_profiles(values))
    assert found.ceiling_half is None
    assert found.ceiling_full is None
    assert "not a whole number of molecules in any unit" in found.reasons["ceiling_half"]
    assert "no noise ceiling" in found.verdict
    assert "The plain cosine hardly distinguishes these profiles: read the one after gene-centring." in found.verdict


def test_counts_come_back_from_their_logarithm() -> None:
    counts, _ = simulate(800, n_profiles=50)
    totals = np.asarray(counts.sum(1), dtype=float).ravel()
    logged = normalize(counts, totals)
    found, reason = recover_counts(read_profiles(anndata.AnnData(logged)))
    assert found is not None
    assert (found.matrix != counts).nnz == 0
    np.testing.assert_allclose(found.totals, totals, rtol=1e-3)
    assert reason.startswith("counts recovered exactly")


def test_imputed_values_are_not_taken_for_counts() -> None:
    logged = np.log1p(np.random.default_rng(0).gamma(1.0, 2.0, (20, 30)))
    found, reason = recover_counts(read_profiles(logged))
    assert found is None
    assert "not a whole number" in reason


@pytest.mark.parametrize(("shape", "found"), [((2, 20), "2 profiles .* 20 genes"), ((30, 1), "30 profiles .* 1 gene")])
def test_too_few_profiles_or_genes_for_pca_are_refused(shape: tuple[int, int], found: str) -> None:
    profiles = read_profiles(1 + np.random.default_rng(0).poisson(3.0, shape))
    with pytest.raises(
        InputError, match=f"inspect compares with PCA of size 4 and more, for which {found} are too few"
    ):
        inspect_profiles(profiles)
