"""Runs a `geneae` command, and writes how its seconds fall to stages: imports, reading, bases, training and so on.

    python workflows/benchmarks/stages.py FILE.json fit data/immune_559.h5ad -o run

A thread looks at the stack of the main thread every few milliseconds, so that the command itself is as it is. The time
since the look before goes to the outermost function on the stack that `STAGES` knows, or to imports where a module is
being loaded anywhere. Loads nothing heavy.
"""

import atexit
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

STAGES = {
    "geneae.data": "reading",
    "geneae.folders.model.load_model": "reading",
    "geneae.fitting.prepare.prepare": "reading",
    "geneae.fitting.bases.fit_bases": "bases",
    "geneae.fitting.network.train_network": "training",
    "geneae.fitting.fit.choose_steps": "steps",
    "geneae.folders.embedding.embed": "embedding",
    "geneae.evaluation": "judging",
    "geneae.fitting.compare.compare_runs": "judging",
    "geneae.evaluation.umap": "report",
    "geneae.report": "report",
    "geneae.folders": "writing",
}
"""Stage of a function, or of all functions of a module or folder; the longest name that fits counts."""
IMPORTS, OTHER = "imports", "other"
ORDER = (IMPORTS, *dict.fromkeys(STAGES.values()), OTHER)
"""All stages, in the order of tables."""
LOOK = 0.004  # seconds between two looks, the time in which Python changes threads


def stage_of(name: str) -> str | None:
    """Stage of a function by its full name; None for one that belongs to whatever has called it."""
    parts = name.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((STAGES[prefix] for prefix in prefixes if prefix in STAGES), None)


def stage_at(frame: FrameType | None) -> str:
    """Stage of a stack, from its innermost frame."""
    found = OTHER
    while frame is not None:
        module, code = frame.f_globals.get("__name__", ""), frame.f_code
        if module == "importlib._bootstrap" and code.co_name == "_find_and_load":
            return IMPORTS
        if module.startswith("geneae."):
            found = stage_of(f"{module}.{code.co_qualname}") or found
        frame = frame.f_back
    return found


class Stages:
    """Seconds of the main thread by stage, from its making to its end."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> dict[str, float]:
        """Seconds of all stages, in their order."""
        self._is_over.set()
        self._thread.join()
        return {name: self.seconds[name] for name in ORDER}

    def _look(self) -> None:
        main, before = threading.main_thread().ident, time.perf_counter()
        while not self._is_over.wait(LOOK):
            stage, now = stage_at(sys._current_frames().get(main or 0)), time.perf_counter()
            self.seconds[stage] += now - before
            before = now


def main() -> None:
    """Run the command, and write the seconds of its stages."""
    stages = Stages()
    file = Path(sys.argv.pop(1))
    atexit.register(lambda: file.write_text(json.dumps(stages.end())))
    from geneae.cli.main import main as command

    command()


if __name__ == "__main__":
    main()
