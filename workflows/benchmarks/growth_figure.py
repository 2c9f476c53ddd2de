"""Draws how time and memory of commands grow with the profiles, from one or several tables of `million.py`.

python workflows/benchmarks/growth_figure.py docs/growth.svg small.csv large.csv
"""

from pathlib import Path

import click
import matplotlib.pyplot as plt
import pandas as pd
from million import MAX_MB

PEAK = "peak memory"


def measured(files: tuple[Path, ...]) -> pd.DataFrame:
    """One row for each command, format and number of profiles: seconds and MB."""
    rows = pd.concat([pd.read_csv(file) for file in files], ignore_index=True)
    is_peak = rows["what"].str.strip() == PEAK
    place = rows["setting"].str.extract(r"^(?P<profiles>[\d,]+) x .*, (?P<ending>\.\w+)$")
    found = rows[~is_peak].assign(
        seconds=rows["value"],
        mb=rows["value"].shift(-1),  # the peak stands below its command
        profiles=place["profiles"].str.replace(",", "").astype(int),
        ending=place["ending"],
    )
    return found.drop_duplicates(["what", "ending", "profiles"], keep="first").sort_values("profiles")


def draw(found: pd.DataFrame, path: Path) -> None:
    """Wall time and peak memory by number of profiles, a line for each command and format."""
    figure, (time, memory) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    colors = {what: f"C{at}" for at, what in enumerate(found["what"].unique())}
    for (what, ending), table in found.groupby(["what", "ending"], sort=False):
        style = {"color": colors[what], "linestyle": "-" if ending == ".h5ad" else "--", "marker": "o"}
        time.plot(table["profiles"], table["seconds"], label=f"{what}, {ending}", **style)
        memory.plot(table["profiles"], table["mb"], **style)
    time.set(xscale="log", yscale="log", xlabel="profiles", ylabel="wall time (s)")
    memory.set(xscale="log", xlabel="profiles", ylabel="peak memory (MB)", ylim=(0, None))
    memory.axhline(MAX_MB, color="grey", linewidth=0.8)
    for ax in (time, memory):
        ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right", frameon=False, fontsize="small")
    figure.savefig(path, metadata={"Date": None})


@click.command()
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
def main(output: Path, files: tuple[Path, ...]) -> None:
    """Draw the growth in FILES into OUTPUT; of a command that stands in several, the first."""
    draw(measured(files), output)


if __name__ == "__main__":
    main()
