"""Runs a peer in an environment of its own, and records how it ended: one that does not install, fails, or does not end
in its time is a record that says so.

    python peers.py run NAME INPUT TRAIN OUTPUT --record RECORD.json
    python peers.py table FOLDER... > table.csv
    python peers.py picture table.csv peers.svg
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """A program to compare with."""

    script: str
    """Script beside this file."""
    licence: str
    """Licence of the package. Every peer is a process of its own; geneae imports none."""
    space: str = ""
    """Space of its reconstruction, where its gene means do not tell; empty: geneae finds it out."""
    flags: tuple[str, ...] = ()
    """Further flags of the script."""
    has_reconstruction: bool = True
    """Whether it reconstructs."""
    has_latent: bool = True
    """Whether it has latents."""


PEERS = {
    "raw": Peer("raw.py", "BSD-3-Clause", has_latent=False),
    "nmf": Peer("nmf.py", "BSD-3-Clause"),
    "magic": Peer("magic_impute.py", "GPL-2.0", has_latent=False),
    "knn_smoothing": Peer("knn_smoothing.py", "MIT", has_latent=False),
    "alra": Peer("alra.py", "MIT", space="log1p_cp10k", has_latent=False),
    "bipca": Peer("bipca_denoise.py", "BSD-3-Clause"),
    "glm_pca": Peer("glm_pca.py", "MIT"),
    "scvi": Peer("scvi_tools.py", "BSD-3-Clause"),
    "linear_scvi": Peer("scvi_tools.py", "BSD-3-Clause", flags=("--linear",)),
    "harmony": Peer("harmony.py", "GPL-3.0-or-later", has_reconstruction=False),
    "geneae": Peer("geneae_fit.py", "BSD-3-Clause"),
    "geneae_cosine": Peer("geneae_fit.py", "BSD-3-Clause", flags=("--loss", "cosine")),
}
"""Peers by the name in tables."""


def environment(peer: Peer, folder: Path) -> Path:
    """The Python of the environment of a peer, made with venv and pip if it is not there; geneae's own for a fit."""
    requirements = HERE / "requirements" / f"{Path(peer.script).stem}.txt"
    if not requirements.is_file():
        return Path(sys.executable)
    home = folder / requirements.stem
    python, done = home / "bin" / "python", home / "complete"
    if not done.exists():
        quiet = {"check": True, "capture_output": True, "text": True}
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], **quiet)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], **quiet)
        done.touch()
    return python


def last_line(text: str) -> str:
    """The last line with something in it."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason given")


def run(given: argparse.Namespace) -> dict[str, object]:
    """Run a peer: how it ended, seconds of wall and of processor, and its most memory (or its setup's), 10^6 bytes."""
    peer = PEERS[given.name]
    record: dict[str, object] = {"peer": given.name, **asdict(peer)}
    try:
        python = environment(peer, given.environments)
    except (OSError, subprocess.CalledProcessError) as error:
        return record | {"status": f"did not install: {last_line(getattr(error, 'stderr', '') or str(error))}"}
    places = [str(path.resolve()) for path in (given.input, given.train, given.output)]
    command = [python.absolute(), HERE / peer.script, *places, "--seed", str(given.seed), *peer.flags]
    command += ["--batch", given.batch] if given.batch else []
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    alone = os.environ | {"OMP_NUM_THREADS": str(given.threads)}
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=given.seconds, env=alone)
    except subprocess.TimeoutExpired:
        return record | {"status": f"did not end in {given.seconds:g} s"}
    record["seconds"] = round(time.perf_counter() - begin, 1)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    record["processor_seconds"] = round(used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime, 1)
    record["megabytes"] = round(used.ru_maxrss / 1000)
    return record | {"status": "ok" if done.returncode == 0 else f"failed: {last_line(done.stderr)}"}


def arguments_of(records: list[Path], made: str) -> list[str]:
    """What `geneae judge` is given: programs that ended well, and the spaces that are known.

    Parameters
    ----------
    records
        Records of the peers.
    made
        File of a peer, with `{peer}` for its name.
    """
    found = []
    for path in records:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["status"] != "ok":
            continue
        name, file = record["peer"], made.replace("{peer}", record["peer"])
        found += [f"{name}={file}:layer=reconstruction"] if record["has_reconstruction"] else []
        found += [f"{name}={file}:obsm=latent"] if record["has_latent"] else []
        found += ["--space", f"{name}={record['space']}"] if record["space"] else []
    return found


SHOWN = ("heldout_cosine", "skill", "knn_20")


def table(folders: list[Path]) -> list[dict[str, object]]:
    """Rows of all peers and controls of folders that hold `judged/` and `NAME.json`: metrics, seconds, memory."""
    rows: list[dict[str, object]] = []
    for folder in folders:
        records = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
        judged = json.loads((folder / "judged" / "judged.json").read_text(encoding="utf-8"))
        metrics = pd.read_csv(folder / "judged" / "metrics.csv")
        own = metrics[(metrics["model"] == "model") & (metrics["split"] == "test") & (metrics["statistic"] == "mean")]
        numbers = own.pivot_table("value", "arm", "metric")
        refused = {text.partition(" is left out: ")[0]: text for text in judged["said"] if " is left out: " in text}
        for name in dict.fromkeys((*numbers.index, *records)):
            record = records.get(name, {"status": "control"})
            row = {
                "data": folder.parent.name,
                "repeat": folder.name.rpartition("_")[2],
                "peer": name,
                "status": refused.get(name, record["status"]),
            }
            row |= {key: numbers[key].get(name) for key in SHOWN if key in numbers}
            rows.append(row | {key: record.get(key) for key in ("seconds", "processor_seconds", "megabytes")})
    return rows


LEAST = -0.25
"""Skill at the left edge of the picture; what is below stands on the edge with its number."""
OWN, OTHER, CONTROL = "#d55e00", "#0072b2", "#999999"


def picture(table: pd.DataFrame, path: Path) -> None:
    """Skill of every program on every data set: a dot for each repeat, a bar for their mean, best program first."""
    import matplotlib.pyplot as plt

    table = table[table["peer"] != "mean profile"]  # has 0
    judged = table[table["skill"].notna()]
    ranks = judged.pivot_table("skill", "peer", "data").rank()
    names = ranks.mean(axis=1).sort_values().index
    sets = list(dict.fromkeys(table["data"]))
    n_columns = min(3, len(sets))
    n_rows = -(-len(sets) // n_columns)
    size = (2.0 + 2.6 * n_columns, n_rows * (0.8 + 0.22 * len(names)))
    figure, axes = plt.subplots(n_rows, n_columns, figsize=size, sharey=True, squeeze=False, layout="constrained")
    for ax, data in zip(axes.flat, sets, strict=False):
        for at, name in enumerate(names):
            _draw_program(ax, at, table[(table["data"] == data) & (table["peer"] == name)])
        ax.set_title(data.replace("_", " "), fontsize="medium")
        ax.set_yticks(range(len(names)), names)
        ax.set_xlim(LEAST - 0.03, 1)
        ax.set_xticks([0, 0.5, 1])
        ax.axvline(0, color="black", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes.flat[len(sets) :]:
        ax.set_visible(False)
    figure.supxlabel("skill: 0 is the mean profile, 1 the noise ceiling")
    figure.savefig(path, metadata={"Date": None})


def _draw_program(ax: "Axes", at: int, rows: pd.DataFrame) -> None:
    skills = rows["skill"].dropna()
    if skills.empty:
        ended = rows["status"].iloc[0] if len(rows) else "not run"
        ax.text(0.02, at, ended.partition(":")[0], va="center", fontsize="x-small", color=CONTROL, style="italic")
        return
    is_own, is_control = rows["peer"].iloc[0].startswith("geneae"), rows["status"].iloc[0] == "control"
    colour = OWN if is_own else CONTROL if is_control else OTHER
    mean = skills.mean()
    if mean < LEAST:
        ax.plot(LEAST, at, "<", color=colour, markersize=5)
        ax.text(LEAST + 0.04, at, f"{mean:.1f}", va="center", fontsize="x-small", color=colour)
        return
    ax.plot(skills, [at] * len(skills), "o", color=colour, markersize=3, alpha=0.6)
    ax.plot([mean], [at], "|", color=colour, markersize=9, markeredgewidth=1.5)


def main() -> None:
    """The three commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("name", choices=PEERS)
    for place in ("input", "train", "output"):
        one.add_argument(place, type=Path)
    one.add_argument("--record", type=Path, required=True)
    one.add_argument("--environments", type=Path, default=HERE / "environments")
    one.add_argument("--seconds", type=float, default=3600)
    one.add_argument("--threads", type=int, default=1)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--batch")
    several = commands.add_parser("table")
    several.add_argument("folders", type=Path, nargs="+")
    drawn = commands.add_parser("picture")
    drawn.add_argument("table", type=Path)
    drawn.add_argument("output", type=Path)
    given = parser.parse_args()
    if given.command == "picture":
        picture(pd.read_csv(given.table, dtype={"repeat": str}), given.output)
        return
    if given.command == "run":
        given.record.write_text(json.dumps(run(given), indent=2) + "\n", encoding="utf-8")
        return
    rows = table(given.folders)
    writer = csv.DictWriter(sys.stdout, dict.fromkeys(key for row in rows for key in row))
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    main()
