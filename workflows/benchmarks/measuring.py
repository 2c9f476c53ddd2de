"""How the benchmarks measure: tasks in turn, commands with their peak memory, one table. Loads nothing heavy."""

import csv
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

FOLDER = Path(__file__).parent
POLL = 0.02  # seconds between two looks at the memory of a command


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    """Quantity."""
    value: float
    """Median, where it was repeated."""
    unit: str
    """Of `value`."""
    note: str = ""
    """Range, target, how it was had."""
    setting: str = ""
    """On which data, in which batches; the table has a heading for each."""


@dataclass(frozen=True)
class Command:
    """What a command that was run took."""

    seconds: float
    """Wall time."""
    peak_mb: float
    """Largest memory, in 10^6 bytes."""
    output: str
    """What it printed."""
    user: float
    """Seconds of processors in the program, over all its threads."""
    system: float
    """Seconds of processors in the system for it."""


def alternate(tasks: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Seconds (or another number) by task, one after the other in turn, so that whatever else the machine does meets
    all; the first turn warms up and is not counted."""
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(repeats + 1):
        for name, task in tasks.items():
            value = task()
            if turn:
                found[name].append(value)
    return found


def seconds_of(task: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def spread(values: list[float], form: str) -> str:
    """Smallest and largest value, in words."""
    return f"{min(values):{form}} to {max(values):{form}} in {len(values)} repeats"


def rate_row(what: str, values: list[float], setting: str = "") -> Row:
    """Median of profiles per second."""
    return Row(what, statistics.median(values), "profiles/s", spread(values, ",.0f"), setting)


def judged(value: float, limit: float, at_least: bool, form: str = ".2f") -> str:
    """Whether a target was reached, in words."""
    verdict = "reached" if (value >= limit if at_least else value <= limit) else "MISSED"
    return f"at {'least' if at_least else 'most'} {limit:{form}} asked for: {verdict}"


def run(command: list[str], environment: dict[str, str] | None = None) -> Command:
    """Run a command; its own peak memory, not that of its parent.

    Linux counts the memory of a parent at the start of a child into the peak that `getrusage` names, so where there is
    /proc the high-water mark of the child itself is followed; elsewhere the caller has to be small.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    env = os.environ | (environment or {})
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, env=env)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, _high_water(process.pid))
            time.sleep(POLL)
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        printed.seek(0)
        output = printed.read()
    if process.returncode:
        raise click.ClickException(f"{' '.join(command)} ended with {process.returncode}:\n{output}")
    return Command(seconds, peak, output, after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime)


def _high_water(pid: int) -> float:
    """Largest memory of a process so far, in 10^6 bytes; 0 where it cannot be known."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM")), 0.0)


def geneae(*arguments: str, python: str = sys.executable) -> Command:
    """Run the `geneae` command of this environment."""
    return run([python, "-c", "from geneae.cli.main import main; main()", *arguments])


def facts(**known: Any) -> dict[str, Any]:
    """What a reader has to know about a run: the sizes given, versions, machine, load of other programs."""
    versions = {name: version(name) for name in ("geneae", "torch")}
    return known | versions | {"machine": platform.machine(), "load": round(os.getloadavg()[0], 1)}


def table(rows: list[Row]) -> str:
    """Plain text, a line a row, under a heading for each setting."""
    lines: list[str] = []
    setting = ""
    for row in rows:
        if row.setting != setting:
            setting = row.setting
            lines.append(f"\n{setting}")
        digits = 0 if row.value >= 1000 else 2
        lines.append(f"{row.what:<46} {row.value:>10,.{digits}f} {row.unit:<11} {row.note}".rstrip())
    return "\n".join(lines)


def show(rows: list[Row], about: dict[str, Any], path: Path | None) -> None:
    """Print facts and table; write a JSON file with both, or a CSV of the rows, by the ending of the name."""
    click.echo(", ".join(f"{name} {value}" for name, value in about.items()) + "\n\n" + table(rows))
    if path is None:
        return
    if path.suffix == ".json":
        path.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")
        return
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


OUTPUT = click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the rows: .csv or .json."
)
