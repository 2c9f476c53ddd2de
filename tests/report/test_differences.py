"""Forest plots of differences."""

import pandas as pd
import pytest

from geneae.pl.values import paired_main_metric
from geneae.report.differences import paired_pictures

ROW = {"arm": "nmf", "reference": "PCA", "split": "test", "better": "higher", "difference": -0.02, "low": -0.04,
       "high": 0.01, "verdict": "worse", "n_profiles": 30, "n_seeds": 1}  # fmt: skip
NO_METRICS = pd.DataFrame({name: [] for name in ("arm", "model", "split", "metric", "statistic", "value")})


@pytest.mark.parametrize(("metric", "title"), [("knn_20", "20-NN accuracy"), ("heldout_cosine", "held-out cosine")])
def test_latents_are_shown_by_what_their_answer_is_about(metric: str, title: str) -> None:
    paired = pd.DataFrame([ROW | {"metric": metric}, ROW | {"metric": "linear_probe"}])
    assert paired_main_metric(paired) == metric
    (picture,) = paired_pictures(paired, NO_METRICS)
    assert picture.title == f"Difference in {title} from PCA"
    assert picture.caption == "Mean over 30 test profiles, with 95 % interval."  # one seed is no number of seeds
    assert "nmf -0.02000 (-0.04000 to +0.01000), worse" in picture.alternative
    assert picture.is_wide
    assert picture.narrow
