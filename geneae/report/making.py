"""Section of the report on data, settings and resources of the runs."""

from geneae.folders.run import Run
from geneae.report.across_runs import distinct, of_config, repeat_of
from geneae.report.cells import Cell, Table, number_cell, show_range


def making_of(runs: list[Run]) -> list[tuple[str, list[str]]]:
    """Titles and values: data, command, seeds, time and memory; all distinct values where runs differ."""
    seconds, memory = _numbers(runs, "seconds"), _numbers(runs, "peak_memory_mb")
    speed, to_best = _numbers(runs, "profiles_per_second"), _numbers(runs, "seconds_to_best_epoch")
    versions = {name: None for run in runs for name in (of_config(run, "versions") or {})}
    sizes = {name: None for run in runs for name in run.split_sizes}
    of_split = [
        f"{name} {show_range(min(found), max(found))}"
        for name in sizes
        if (found := [run.split_sizes.get(name, 0) for run in runs])
    ]
    latest = max(to_best, default=0.0)
    facts = [
        ("Command", distinct(runs, "command")),
        ("Data", distinct(runs, "data", "source")),
        ("Matrix", distinct(runs, "data", "location")),
        ("Fingerprint of the data", distinct(runs, "data", "fingerprint")),
        ("Profiles and genes in the data", [
            f"{int(n_profiles):,} x {int(n_genes):,}"
            for n_profiles, n_genes in zip(
                distinct(runs, "data", "n_profiles"), distinct(runs, "data", "n_genes"), strict=False
            )
        ]),
        ("Space", distinct(runs, "space")),
        ("Fingerprint of the learned metric of the loss", distinct(runs, "metric", "fingerprint")),
        ("Profiles by split", [", ".join(of_split)] if of_split else []),
        (repeat_of(runs).capitalize(), [", ".join(distinct(runs, "seed"))]),
        ("Seed of the split", [", ".join(distinct(runs, "split_seed"))]),
        ("Time", [f"{sum(seconds):,.1f} seconds for all runs together"] if seconds else []),
        ("Training", [f"{show_range(round(min(speed)), round(max(speed)))} profiles per second"] if speed else []),
        ("Best epoch", [f"after at most {latest:,.1f} seconds of training"] if latest >= 0.05 else []),
        ("Peak memory", [f"{max(memory):,.0f} MB in the largest run"] if memory else []),
        ("Versions", [", ".join(f"{name} {' or '.join(distinct(runs, 'versions', name))}" for name in versions)]),
    ]  # fmt: skip
    return [(title, lines) for title, lines in facts if any(lines)]


def _numbers(runs: list[Run], key: str) -> list[float]:
    """A number of `config.json`, of every run that has it."""
    return [float(found) for run in runs if (found := of_config(run, key)) is not None]


def runs_table(runs: list[Run]) -> Table:
    """Table of the runs, a row for each."""
    rows = []
    for run in runs:
        row = [Cell(run.name), Cell(run.configuration)]
        for key in ("seed", "best_epoch", "epochs_run", "seconds", "peak_memory_mb"):
            found = of_config(run, key)
            value = float("nan") if found is None else float(found)
            row.append(number_cell(value, f"{value:,.1f}" if key == "seconds" else f"{value:,.0f}"))
        rows.append(row)
    headers = ("run", "configuration", repeat_of(runs), "best epoch", "epochs run", "seconds", "peak memory, MB")
    known = [n for n in range(len(headers)) if n < 3 or any(row[n].value for row in rows)]  # nothing was trained
    note = "A best epoch of 0 means that no epoch of training was better than the start."
    return Table(
        "Runs",
        tuple(headers[n] for n in known),
        [[row[n] for n in known] for row in rows],
        note if "best epoch" in (headers[n] for n in known) else "",
    )


def settings_table(runs: list[Run]) -> Table:
    """Table of all settings, each with its distinct values among the runs."""
    names = {str(name): None for run in runs for name in (of_config(run, "settings") or {})}
    rows = [[Cell(name), Cell(", ".join(distinct(runs, "settings", name)) or "none")] for name in names]
    return Table("Settings", ("setting", "value"), rows)
