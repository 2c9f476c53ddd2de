"""Changing input and damaged models: a few of what `python tests/faults.py KIND NUMBER` makes by the hundred."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def faults(kind: str, number: int) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("faults.py")), kind, str(number)]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=alone, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_no_change_of_the_input_of_a_streamed_fit_is_unnoticed() -> None:
    found = faults("changes", 4)
    assert found["wrong"] == {}
    assert sum(number for name, number in found.items() if name.endswith((" noticed", " after the end"))) == 4
    assert any(name.endswith(" noticed") for name in found)


@pytest.mark.slow
def test_a_damaged_model_is_refused_or_is_the_same() -> None:
    found = faults("damages", 40)
    assert found["wrong"] == {}
    assert sum(number for name, number in found.items() if name.endswith((" refused", " the same"))) == 40
    assert sum(number for name, number in found.items() if name.endswith(" refused")) > 20
