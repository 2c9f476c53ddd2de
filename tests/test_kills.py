"""`kill -9` at any moment, and a run that goes on to the same bits. The long version: `python tests/kills.py 50`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """A kill at random, one before a checkpoint takes its name, one amid the swap of the folders; and a SIGTERM."""
    command = [sys.executable, str(Path(__file__).with_name("kills.py")), "1", "20", "44"]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=alone, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_killed_runs_go_on_to_the_same_folder(result: dict[str, Any]) -> None:
    assert result["wrong"] == {}
    assert result["identical"] == 3
    assert result["killed"] == 3
    assert result["parts"][1:] == [2, 1]  # the new folder was whole when it was killed last
    assert result["left"] == []


@pytest.mark.slow
def test_a_signal_ends_with_its_code_and_a_word_how_to_go_on(result: dict[str, Any]) -> None:
    stopped = result["stopped"]["SIGTERM"]
    assert stopped["code"] == 143
    assert "Stopped by SIGTERM. The training so far is saved in " in stopped["said"]
    assert stopped["said"].splitlines()[-1].endswith("--resume")
    assert "Traceback" not in stopped["said"]
    assert stopped["wrong"] == []
    assert stopped["parts"] == 2
