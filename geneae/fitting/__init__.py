"""A fit: as a function, an estimator, a run folder, a grid."""
