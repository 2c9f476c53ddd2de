"""Calibration slopes, as regressions on dense float64 arrays."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dense_estimator import dense_pooled_ridge, small_fit

from geneae.models.calibration import fit_calibration


def test_a_slope_is_the_regression_of_the_other_half_on_its_prediction() -> None:
    fitted = small_fit()
    basis = fitted.estimator.whitening
    mean, unit = basis.mean.double().numpy(), basis.deviation.double().numpy()
    predicted, observed, weights = [], [], []
    for one in fitted.scored:
        if one.item.share == 0:
            for profile, fold in enumerate(fitted.whitened.fold):
                predicted.append((fitted.whitened.without[fold] @ one.expected[profile]).double().numpy())
                observed.append((one.item.targets[[profile]].toarray()[0] - mean) / unit)
                weights.append(one.item.weight[profile])
    p, t, w = np.array(predicted), np.array(observed), np.array(weights)[:, None]
    square, residual = (w * p * p).sum(0), (w * p * (t - p)).sum(0)
    expected = 1 + dense_pooled_ridge(square[:, None, None], residual[:, None], basis.mean.numpy(), 1.0)[:, 0]
    assert len(p) == 2 * 80
    np.testing.assert_allclose(fitted.estimator.calibration, expected.clip(0, 2), rtol=1e-4)


def test_predictions_that_reach_twice_as_far_have_half_the_slope() -> None:
    fitted = small_fit()
    whitened = fitted.whitened
    wide = replace(whitened, without=[2 * components for components in whitened.without])
    known, found = fit_calibration(whitened, fitted.scored), fit_calibration(wide, fitted.scored)
    np.testing.assert_allclose(2 * found, known, atol=0.15)  # the ridges stay the same


@pytest.mark.parametrize(("factor", "slope"), [(-1.0, 0.0), (0.3, 2.0)])
def test_slopes_stay_between_nothing_and_twice_as_far(factor: float, slope: float) -> None:
    """Predictions of the wrong direction come to nothing, and those that reach a third as far are doubled, not more."""
    fitted = small_fit()
    bent = replace(fitted.whitened, without=[factor * components for components in fitted.whitened.without])
    found, known = fit_calibration(bent, fitted.scored), fitted.estimator.calibration
    strong = known > 0.8
    assert strong.sum() > len(known) / 2
    assert (found[strong] == slope).sum() > strong.sum() / 2
    assert ((found >= 0) & (found <= 2)).all()


def test_noise_in_the_loadings_of_a_gene_lowers_its_slope() -> None:
    fitted = small_fit()
    whitened, gene = fitted.whitened, 5
    noisy = [components.clone() for components in whitened.without]
    generator = torch.Generator().manual_seed(0)
    for components in noisy:
        components[gene] += components[gene].norm() * torch.randn(components.shape[1], generator=generator)
    known = fit_calibration(whitened, fitted.scored)
    found = fit_calibration(replace(whitened, without=noisy), fitted.scored)
    assert found[gene] < 0.7 * known[gene]
    assert (found == known).sum() > len(known) / 2  # but for those expressed alike, which are drawn to its slope


def test_calibrated_bases_leave_the_given_ones_alone() -> None:
    whitened = small_fit().whitened
    before = whitened.whitening.components.clone()
    slopes = torch.linspace(0.5, 1.5, len(before))
    found = whitened.calibrated(slopes)
    torch.testing.assert_close(found.whitening.components, slopes[:, None] * before)
    torch.testing.assert_close(found.without[1], slopes[:, None] * whitened.without[1])
    assert torch.equal(whitened.whitening.components, before)
    assert torch.equal(found.whitening.deviation, whitened.whitening.deviation)
