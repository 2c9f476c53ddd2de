"""A fit as a function, an estimator, a run folder or a grid of runs."""
