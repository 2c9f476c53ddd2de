"""Calibration of probabilities."""

import numpy as np
import pytest

from geneae.evaluation.calibration import BINS, calibration_error, calibration_table


def test_a_table_by_hand() -> None:
    table = calibration_table(np.array([0.05, 0.61, 0.69, 0.65, 1.0]), np.array([False, True, False, True, True]))
    np.testing.assert_allclose(table["low"], [0, 0.6, 0.9])
    np.testing.assert_allclose(table["high"], [0.1, 0.7, 1.0])
    assert list(table["n_profiles"]) == [1, 3, 1]
    np.testing.assert_allclose(table["probability"], [0.05, 0.65, 1.0])
    np.testing.assert_allclose(table["right"], [0, 2 / 3, 1])
    assert calibration_error(table) == pytest.approx((0.05 + 3 * (2 / 3 - 0.65)) / 5)


def test_every_profile_is_in_one_bin_that_holds_its_probability() -> None:
    rng = np.random.default_rng(0)
    probability = np.concatenate([rng.random(500), np.arange(BINS + 1) / BINS])
    table = calibration_table(probability, rng.random(len(probability)) < 0.5)
    assert table["n_profiles"].sum() == len(probability)
    assert ((table["low"] <= table["probability"]) & (table["probability"] <= table["high"])).all()


def test_the_error_vanishes_for_true_probabilities_and_grows_with_confidence() -> None:
    rng = np.random.default_rng(1)
    truth = rng.uniform(0.3, 1.0, 100_000)
    is_right = rng.random(len(truth)) < truth
    assert calibration_error(calibration_table(truth, is_right)) < 0.01
    errors = [calibration_error(calibration_table(truth**power, is_right)) for power in (1, 0.8, 0.5, 0.2)]
    assert errors == sorted(errors)
    assert calibration_error(calibration_table(np.ones(len(truth)), is_right)) == pytest.approx(1 - is_right.mean())


def test_without_profiles_there_is_no_error() -> None:
    table = calibration_table(np.array([]), np.array([]))
    assert list(table.columns) == ["low", "high", "n_profiles", "probability", "right"]
    assert np.isnan(calibration_error(table))
