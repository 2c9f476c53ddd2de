"""Runs a peer in an environment of its own, and records how it ended: one that does not install, fails, or does not end
in its time is a record that says so.

    python peers.py run NAME INPUT TRAIN OUTPUT --record RECORD.json
    python peers.py table FOLDER... > table.csv
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

import pandas as pd

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
    """Run a peer; how it ended, its seconds, and the most memory that it and its environment took, in 10^6 bytes."""
    peer = PEERS[given.name]
    record: dict[str, object] = {"peer": given.name, **asdict(peer)}
    try:
        python = environment(peer, given.environments)
    except (OSError, subprocess.CalledProcessError) as error:
        return record | {"status": f"did not install: {last_line(getattr(error, 'stderr', '') or str(error))}"}
    places = [str(path.resolve()) for path in (given.input, given.train, given.output)]
    command = [python.absolute(), HERE / peer.script, *places, "--seed", str(given.seed), *peer.flags]
    command += ["--batch", given.batch] if given.batch else []
    begin = time.perf_counter()
    before = os.environ | {"OMP_NUM_THREADS": str(given.threads)}
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=given.seconds, env=before)
    except subprocess.TimeoutExpired:
        return record | {"status": f"did not end in {given.seconds:g} s"}
    record["seconds"] = round(time.perf_counter() - begin, 1)
    record["megabytes"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000)
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
    """Rows of all peers and controls of folders that hold `judged/` and `NAME.json`: metrics, seconds, megabytes."""
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
            rows.append(row | {key: record.get(key) for key in ("seconds", "megabytes")})
    return rows


def main() -> None:
    """The two commands."""
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
    given = parser.parse_args()
    if given.command == "run":
        given.record.write_text(json.dumps(run(given), indent=2) + "\n", encoding="utf-8")
        return
    rows = table(given.folders)
    writer = csv.DictWriter(sys.stdout, dict.fromkeys(key for row in rows for key in row))
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    main()
