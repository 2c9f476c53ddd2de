"""Linear regression on latents; scikit-learn has it too, but takes longer to load than a small fit to evaluate."""

import numpy as np

LEAST_SINGULAR = 1e-6  # of the largest singular value; columns that are smaller say nothing


class Regression:
    """Least squares of one number per profile on latents, with an intercept, in the precision of the latents.

    Parameters
    ----------
    latents
        (n_profiles, n_latent)
    numbers
        (n_profiles,)
    """

    def __init__(self, latents: np.ndarray, numbers: np.ndarray) -> None:
        from scipy.linalg import lstsq

        mean, offset = latents.mean(0), numbers.astype(latents.dtype).mean()
        self.slopes = lstsq(latents - mean, numbers.astype(latents.dtype) - offset, cond=LEAST_SINGULAR)[0]
        self.intercept = offset - mean @ self.slopes

    def r2(self, latents: np.ndarray, numbers: np.ndarray) -> float:
        """Share of the variance of the numbers of these profiles that is explained: 1 at best, 0 for their mean, and
        below 0 where that is better."""
        left = ((numbers - (latents @ self.slopes + self.intercept)) ** 2).sum()
        return float(1 - left / ((numbers - numbers.mean()) ** 2).sum())
