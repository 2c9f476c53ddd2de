from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from odd_inputs import KINDS, Case, attempt, cases


@pytest.mark.slow
def test_an_odd_input_fits_or_is_one_clear_error() -> None:
    """A short run of workflows/fuzz.py; among its inputs are enough that fit, and errors of several kinds."""
    tried: Counter[str] = Counter()

    @settings(max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(cases())
    def try_one(case: Case) -> None:
        with TemporaryDirectory() as folder:
            found = attempt(case, Path(folder))
        assert found == "fits" or found in KINDS
        tried[found] += 1

    try_one()
    assert tried["fits"] >= 5
    assert len(tried) >= 5
