import pytest
import torch
from reference import DENSE_LOSSES, dense_products

from geneae.losses.reconstruction import LOSSES, LossSettings
from geneae.training.objectives import Reconstruction


@pytest.mark.parametrize("name", LOSSES)
def test_reconstruction_is_the_mean_over_profiles_that_have_a_direction(name: str) -> None:
    x, y = torch.rand(2, 6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[2] = 0
    y.requires_grad_()
    center, settings = LOSSES[name].center or "none", LossSettings(alpha=0.2, beta=3.0, gamma=2.5, norm_ratio=0.7)
    objective = Reconstruction(LOSSES[name], center, settings)
    found = objective(dense_products(x, y, center))
    keep = torch.tensor([0, 1, 3, 4, 5])
    expected = DENSE_LOSSES[name](x[keep], y[keep], settings).mean()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    one, other = (torch.autograd.grad(value, y)[0] for value in (found, expected))
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
    assert (one[2] == 0).all()


def test_the_order_of_profiles_does_not_matter_and_copies_change_no_mean() -> None:
    x, y = torch.rand(2, 6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    objective = Reconstruction(LOSSES["combined"], "none", LossSettings())
    expected = objective(dense_products(x, y))
    torch.testing.assert_close(objective(dense_products(x.flip(0), y.flip(0))), expected)
    torch.testing.assert_close(objective(dense_products(x.repeat(3, 1), y.repeat(3, 1))), expected)
