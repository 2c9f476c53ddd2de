"""Draws where the wall of commands goes: a bar for each, with a piece for each stage that `stages.py` has written.

    python workflows/benchmarks/stages_figure.py docs/stages.svg "before=a1.json,a2.json,a3.json" "now=b1.json,b2.json"

Of several files of one bar the run of median length is drawn. The legend has the stages in their order.
"""

import json
from pathlib import Path

import click
import matplotlib.pyplot as plt
from stages import ORDER

COLOURS = ("#999999", "#56b4e9", "#0072b2", "#009e73", "#f0e442", "#e69f00", "#d55e00", "#cc79a7", "#bbbbbb", "#dddddd")
LEAST = 0.04  # share of the longest bar from which a piece has its number


def median_run(files: list[Path]) -> dict[str, float]:
    """Seconds by stage of the run of median length; of an even number the longer one."""
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return sorted(runs, key=lambda run: sum(run.values()))[len(runs) // 2]


def draw(bars: dict[str, dict[str, float]], output: Path) -> None:
    """Write the figure: the first bar on top."""
    shown = [stage for stage in ORDER if any(run.get(stage, 0) >= 0.05 for run in bars.values())]
    longest = max(sum(run.values()) for run in bars.values())
    figure, ax = plt.subplots(figsize=(9, 1.4 + 0.55 * len(bars)), layout="constrained")
    for at, run in enumerate(bars.values()):
        left = 0.0
        for stage in shown:
            seconds, colour = run.get(stage, 0.0), COLOURS[ORDER.index(stage) % len(COLOURS)]
            ax.barh(at, seconds, left=left, color=colour, label=stage if at == 0 else None)
            if seconds >= LEAST * longest:
                ax.text(left + seconds / 2, at, f"{seconds:.1f}", ha="center", va="center", fontsize="small")
            left += seconds
        ax.text(left + 0.01 * longest, at, f"{sum(run.values()):.1f} s", va="center")
    ax.set_yticks(range(len(bars)), list(bars))
    ax.invert_yaxis()
    ax.set_xlim(0, 1.1 * longest)
    ax.set_xlabel("seconds")
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=min(5, len(shown)), frameon=False, fontsize="small")
    figure.savefig(output, metadata={"Date": None})


@click.command()
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("bars", nargs=-1, required=True)
def main(output: Path, bars: tuple[str, ...]) -> None:
    """Draw BARS, each NAME=FILE[,FILE ...] of stages.py, into OUTPUT."""
    named = {name: [Path(file) for file in files.split(",")] for name, _, files in (bar.partition("=") for bar in bars)}
    draw({name: median_run(files) for name, files in named.items()}, output)


if __name__ == "__main__":
    main()
