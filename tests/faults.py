"""Faults by the hundred: input that changes, models that are damaged, commands that are killed, disks that are full.

`python tests/faults.py KIND NUMBER` makes so many faults of a kind (`changes`, `damages`, `kills`, `disks`) and prints
counts as JSON; `wrong` has to be empty. The test suite makes a few of each. `tests/kills.py` kills fits inside their
training.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from conftest import simulate
from kills import end, start
from safetensors.torch import load_file

from geneae.data import backed
from geneae.folders.card import share_model
from geneae.folders.model import load_model
from geneae.settings.errors import InputError

torch.set_num_threads(1)
QUICK = ["--latent", "4", "--hidden", "16", "--rank", "12", "--splits", "2", "--batch-size", "64", "--epochs", "3"]
STREAMED = [*QUICK, "--basis", "free", "--init", "random", "--stream", "yes"]
VALUE = b"\x00\x00\x40\x40"  # 3 as float32


def truncate(path: Path, rng: np.random.Generator) -> None:
    os.truncate(path, int(path.stat().st_size * rng.uniform(0.2, 0.95)))


def overwrite(path: Path, rng: np.random.Generator) -> None:
    """Some values in place, in one of the chunks."""
    with h5py.File(path) as file:
        data = file["X/data"].id
        chunk = data.get_chunk_info(int(rng.integers(data.get_num_chunks())))
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(VALUE * int(rng.integers(100, chunk.size // 4)))


def replace(path: Path, rng: np.random.Generator) -> None:
    """Another file takes the name."""
    simulate(900, 200, seed=int(rng.integers(1, 2**31))).write_h5ad(path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def blank(path: Path, rng: np.random.Generator) -> None:
    """A range of zeros, as after a copy that was cut off."""
    size = path.stat().st_size
    with path.open("r+b") as raw:
        raw.seek(int(rng.uniform(0.3, 0.8) * size))
        raw.write(bytes(size // 10))


CHANGES: dict[str, Callable[[Path, np.random.Generator], None]] = {
    "truncate": truncate,
    "overwrite": overwrite,
    "replace": replace,
    "blank": blank,
}


def change(number: int, folder: Path) -> dict[str, Any]:
    """Change the input of so many streamed fits at random moments; each has to notice, or to end as if it had not."""
    rng, original = np.random.default_rng(0), folder / "original.h5ad"
    simulate(900, 200).write_h5ad(original)
    whole = folder / "whole"
    begin = time.perf_counter()
    assert end(start(["fit", str(original), "-o", str(whole), *STREAMED], folder / "log")) == 0
    seconds = time.perf_counter() - begin
    counts: Counter[str] = Counter()
    wrong: dict[str, str] = {}
    for n in range(number):
        kind = list(CHANGES)[n % len(CHANGES)]
        data, run, log = folder / "data.h5ad", folder / f"run{n}", folder / f"{n}.log"
        shutil.copy(original, data)
        process = start(["fit", str(data), "-o", str(run), *STREAMED], log)
        while not (run / "checkpoint.safetensors").exists() and os.waitpid(process, os.WNOHANG) == (0, 0):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, seconds / 20))
        is_running = not (run / "config.json").exists()
        CHANGES[kind](data, rng)
        code, said = end(process), log.read_text()
        if code == 2 and " changed while it was in use: " in said and (run / "checkpoint.safetensors").exists():
            counts[f"{kind} noticed"] += 1
        elif code == 0 and (not is_running or _weights(run) == _weights(whole)):
            counts[f"{kind} after the end"] += 1
        else:
            wrong[f"{n} {kind}"] = f"exit code {code}: {said[-300:]}"
        shutil.rmtree(run, ignore_errors=True)
    return {"changes": number, **counts, "wrong": wrong}


def _weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def damage(number: int, folder: Path) -> dict[str, Any]:
    """Damage so many model folders and zips at random; each is refused, or loads as the same numbers."""
    rng, data, run = np.random.default_rng(0), folder / "data.h5ad", folder / "run"
    simulate().write_h5ad(data)
    assert end(start(["fit", str(data), "-o", str(run), *QUICK], folder / "log")) == 0
    share_model(run, folder / "run.zip")
    expected = load_file(run / "model.safetensors")
    genes = list(load_model(run).preprocess.genes)
    names = ["config.json", "model.safetensors", "genes.csv", "SHA256SUMS"]
    files = [*(run / name for name in names), folder / "run.zip"]
    counts: Counter[str] = Counter()
    wrong: dict[str, str] = {}
    for n in range(number):
        file = files[n % len(files)]
        content = file.read_bytes()
        file.write_bytes(_damaged(content, rng))
        model = run if file.parent == run else file
        try:
            loaded = load_model(model)
            state = loaded.network.state_dict()
            same = all(torch.equal(state[name[8:]], expected[name]) for name in expected if name[8:] in state)
            if same and list(loaded.preprocess.genes) == genes:
                counts[f"{file.name} the same"] += 1
            else:
                wrong[f"{n} {file.name}"] = "other numbers"
        except InputError as error:
            counts[f"{file.name} refused"] += 1
            if "\n" in str(error):
                wrong[f"{n} {file.name}"] = str(error)
        except Exception as error:
            wrong[f"{n} {file.name}"] = repr(error)
        file.write_bytes(content)
    return {"damages": number, **counts, "wrong": wrong}


def _damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes overwritten, left out, cut off, repeated or blanked."""
    place, length = int(rng.integers(len(content))), int(rng.integers(1, 64))
    new = {
        0: lambda: content[:place] + rng.bytes(3) + content[place + 3 :],
        1: lambda: content[:place] + content[place + length :],
        2: lambda: content[:place],
        3: lambda: content[: place + length] + content[place:],
        4: lambda: content[:place] + bytes(length) + content[place + length :],
    }
    return new[int(rng.integers(len(new)))]()


COMMANDS = {
    "fit": ["fit", "DATA", "-o", "OUT", *QUICK, "--resume"],
    "fit streamed": ["fit", "DATA", "-o", "OUT", *STREAMED, "--resume"],
    "compare": ["compare", "DATA", "--loss", "mse", "--seeds", "2", "-o", "OUT", *QUICK],
    "sweep-cut": ["sweep-cut", "DATA", "--cut", "3", "--learning-rate", "0.002", "--seeds", "1", "-o", "OUT", *QUICK],
    "metric": ["metric", "DATA", "--label", "kind", "-o", "OUT", "--epochs", "3", "--overwrite"],
    "embed": ["embed", "RUN", "DATA", "-o", "OUT.h5ad", "--overwrite"],
    "embed zip": ["embed", "ZIP", "DATA", "-o", "OUT.csv", "--overwrite"],
    "embed streamed": ["embed", "RUN", "DATA", "-o", "OUT.h5ad", "--overwrite", "--stream", "yes", "--reconstruct"],
    "evaluate": ["evaluate", "RUN", "DATA", "-o", "OUT", "--overwrite"],
    "report": ["report", "RUN", "--color", "kind", "-o", "OUT.html", "--overwrite"],
    "share": ["share", "RUN", "-o", "OUT.zip", "--overwrite"],
}
"""Commands that are killed and run again; what they write has to be the same, but for times in some files."""
TIMED = ("config.json", "history.csv", "report.html", "SHA256SUMS")


def kill(number: int, folder: Path) -> dict[str, Any]:
    """Kill each command so many times, and run it again: it ends in the same bytes and leaves nothing else."""
    rng = np.random.default_rng(0)
    simulate(600).write_h5ad(folder / "data.h5ad")
    assert end(start(["fit", str(folder / "data.h5ad"), "-o", str(folder / "run"), *QUICK], folder / "log")) == 0
    share_model(folder / "run", folder / "run.zip")
    counts: Counter[str] = Counter()
    wrong: dict[str, str] = {}
    for name, words in COMMANDS.items():
        whole = folder / name.replace(" ", "-")
        whole.mkdir()
        expected, seconds = _outcome(_filled(words, folder, whole / "out"), folder)
        killed = 0
        while killed < number:
            place = folder / "place"
            place.mkdir()
            (place / "thesis.txt").write_text("mine")
            arguments = _filled(words, folder, place / "out")
            process = start(arguments, folder / "log")
            time.sleep(rng.uniform(0, seconds))
            os.kill(process, signal.SIGKILL)
            if end(process) == -signal.SIGKILL:
                killed += 1
                found, _ = _outcome(arguments, folder)
                left = {path.name for path in place.iterdir()} - {"thesis.txt"}
                if found == expected and left == {Path(arguments[arguments.index("-o") + 1]).name}:
                    counts[f"{name} the same"] += 1
                else:
                    differing = sorted(key for key in found | expected if found.get(key) != expected.get(key))
                    wrong[f"{name} {killed}"] = f"differs in {differing}; there are {sorted(left)}"
            else:
                seconds *= 0.8  # it was quicker than the one before
            shutil.rmtree(place)
    return {"kills": number * len(COMMANDS), **counts, "wrong": wrong}


def _filled(words: list[str], folder: Path, output: Path) -> list[str]:
    places = {"DATA": "data.h5ad", "RUN": "run", "ZIP": "run.zip"}
    filled = [str(folder / places[word]) if word in places else word for word in words]
    return [word.replace("OUT", str(output)) if word.startswith("OUT") else word for word in filled]


def _outcome(arguments: list[str], folder: Path) -> tuple[dict[str, bytes], float]:
    """What a command writes, by file, and its seconds."""
    begin = time.perf_counter()
    code = end(start(arguments, folder / "log"))
    assert code == 0, (arguments, (folder / "log").read_text())
    seconds = time.perf_counter() - begin
    written = Path(arguments[arguments.index("-o") + 1])
    files = [written] if written.is_file() else sorted(path for path in written.rglob("*") if path.is_file())
    found = {}
    for file in files:
        if file.name not in TIMED:
            name = file.suffix if file == written else str(file.relative_to(written))
            found[name] = _content(file)
    return found, seconds


def _content(file: Path) -> bytes:
    """Bytes of a file; of an .h5ad, which notes when it was written, those of its arrays."""
    if file.suffix != ".h5ad":
        return file.read_bytes()
    found: list[bytes] = []

    def add(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            is_plain = node.dtype.kind in "iufb"
            content = np.asarray(node[()]).tobytes() if is_plain else repr(node[()]).encode()
            found.append(name.encode() + content)

    with h5py.File(file) as root:
        root.visititems(add)
    return b"\n".join(found)


def fill(number: int, folder: Path) -> dict[str, Any]:
    """Run so many fits on disks of 4 KB up to nearly what they write: one sentence, nothing half-written, and with more
    room the run that goes on ends in the same bytes. Needs the right to mount a disk in memory."""
    disk, data = folder / "disk", folder / "data.h5ad"
    simulate(600).write_h5ad(data)
    disk.mkdir()
    kinds = {name: COMMANDS[name] for name in ("fit", "fit streamed")}
    wholes = {}
    for name, words in kinds.items():
        place = folder / name.replace(" ", "-")
        expected, _ = _outcome(_filled(words, folder, place), folder)
        wholes[name] = expected, sum(file.stat().st_size for file in place.iterdir())
    counts: Counter[str] = Counter()
    wrong: dict[str, str] = {}
    for n in range(number):
        name = list(kinds)[n % len(kinds)]
        expected, written = wholes[name]
        size = int(4096 * (0.95 * written / 4096) ** (n / max(1, number - 1)))
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "geneae", disk], check=True)
        try:
            arguments = _filled(kinds[name], folder, disk / "out")
            code, said = end(start(arguments, folder / "log")), (folder / "log").read_text()
            left = {str(path.relative_to(disk)) for path in disk.rglob("*") if path.is_file()}
            subprocess.run(["mount", "-o", "remount,size=1G", disk], check=True)
            errors = [line for line in said.splitlines() if line.startswith("Error: ")]
            found, _ = _outcome(arguments, folder)
            if code == 1 and len(errors) == 1 and "Traceback" not in said and left <= KEPT and found == expected:
                counts[f"{name}: one sentence, then the same"] += 1
            else:
                wrong[f"{n} {name} on {size} bytes"] = f"exit code {code}, left {sorted(left)}: {said[-300:]}"
        finally:
            subprocess.run(["umount", disk], check=True)
    return {"disks": number, **counts, "wrong": wrong}


KEPT = {"out/checkpoint.safetensors"}
"""What a full disk may keep of a run."""
KINDS = {"changes": change, "damages": damage, "kills": kill, "disks": fill}

if __name__ == "__main__":
    kind, number = sys.argv[1], int(sys.argv[2])
    backed.SPAN = 64  # small blocks, so that a change falls between them
    with tempfile.TemporaryDirectory() as made:
        print(json.dumps(KINDS[kind](number, Path(made))))
