from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, given, settings
from odd_inputs import Case, attempt, cases

TRIED: Counter[str] = Counter()


@settings(max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_an_odd_input_fits_or_is_one_clear_error(case: Case) -> None:
    """A short run of workflows/fuzz.py."""
    with TemporaryDirectory() as folder:
        TRIED[attempt(case, Path(folder))] += 1


def test_inputs_of_both_kinds_were_tried() -> None:
    assert TRIED["fits"] >= 5
    assert len(TRIED) >= 5
