"""Which files of a folder geneae wrote: their names and checksums, in the list `SHA256SUMS`."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from geneae.settings.errors import InputError
from geneae.training.checkpoints import checkpoint_files

SUMS = "SHA256SUMS"
HEAD = "# Written by geneae, which replaces or removes the files in this list and no others."
"""First line of the list: the mark by which a folder is known. `sha256sum -c` skips it."""
CONFIG, WEIGHTS, GENES, SPLIT = "config.json", "model.safetensors", "genes.csv", "split.csv"
UNIVERSE = "universe.csv"
LATENTS_FILE, REPORT = "latents.h5ad", "report.html"
METRIC_WEIGHTS = "metric.safetensors"
SHAREABLE = (
    "README.md",
    CONFIG,
    WEIGHTS,
    GENES,
    UNIVERSE,
    "settings.toml",
    "metrics.csv",
    "history.csv",
    "profiles.csv",
    SPLIT,
    "genewise.csv",
    "diagnostics.csv",
    "umap.csv",
    REPORT,
)
"""Files of a model folder that `geneae share` packs."""
OF_RUNS = (*SHAREABLE, LATENTS_FILE)
"""Files of a run folder. The latents stay at home, because they stand beside all columns of `obs`."""
OF_GRIDS = (
    *("metrics.csv", "seeds.csv", "paired.csv", REPORT),
    *("runs.csv", "arms.csv", "controls.csv", "curves.png"),
)
"""Files of a comparison or sweep, beside the folders of its runs."""
EARLIER_TABLES: dict[str, dict[str, tuple[str, ...]]] = {
    "metrics.csv": {"model,seed,split,metric,": ("profiles.csv", "metrics.csv"), "run,arm,": OF_GRIDS},
    "runs.csv": {"arm,cut,learning_rate,": OF_GRIDS},
}
"""Files of folders without a list, which earlier versions wrote: by table and the beginning of its first line."""
EDITABLE = (".md", ".html", ".toml")
"""Endings of files that people write into: one that is not as it was written is no longer geneae's."""
SEAL = "# Checksum of the lines below: "
"""Second line of a list, by which lines of somebody else are known."""
PIECE = 2**20  # bytes read at a time
MOST_LIST = 2**20  # bytes of a list; that of a model has about 1,000


def write_list(folder: Path, names: Iterable[str] = ()) -> None:
    """Mark a folder as written by geneae, with the checksums of these files in it."""
    text = list_of({name: checksum(folder / name) for name in names})
    (folder / SUMS).write_text(text, encoding="utf-8")


def list_of(sums: Mapping[str, str]) -> str:
    """The list of these checksums by file name, with the mark."""
    lines = [f"{sums[name]}  {name}" for name in sorted(sums)]
    return "\n".join([HEAD, _seal_of(lines), *lines]) + "\n"


def _seal_of(lines: list[str]) -> str:
    return SEAL + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _is_sealed(content: bytes) -> bool:
    """Whether the lines of a list are those that were written; lists of older versions have no seal to tell."""
    lines = content.decode("utf-8", "replace").removeprefix(HEAD).splitlines()[1:]
    return not (lines and lines[0].startswith(SEAL)) or lines[0] == _seal_of(lines[1:])


def read_list(folder: Path) -> dict[str, str] | None:
    """Checksums by file name, as geneae has listed them; None for a folder that it has not marked."""
    path = folder / SUMS
    if not path.is_file() or path.stat().st_size > MOST_LIST:
        return None
    content = path.read_bytes()
    if not content.startswith(HEAD.encode()):
        return None
    sums, n_others = listed_sums(content.removeprefix(HEAD.encode()))
    if n_others:
        raise InputError(f"{path} should be a list of checksums, but it is damaged. Copy the complete folder again.")
    return sums


def listed_sums(content: bytes) -> tuple[dict[str, str], int]:
    """Checksums by file name from the lines of a list, and the number of its lines that are something else."""
    text = content.decode("utf-8", "replace")
    lines = [line for line in text.splitlines() if line and not line.startswith(SEAL)]
    found = [re.fullmatch("([0-9a-f]{64})  ([^/]+)", line) for line in lines]
    sums = {match[2]: match[1] for match in found if match is not None}
    return sums, len(lines) - len(sums)


def archive_sums(folder: Path) -> dict[str, str]:
    """Checksums of a folder that was unpacked from a zip of `geneae share`, whose list has no mark; empty without."""
    path = folder / SUMS
    return listed_sums(path.read_bytes())[0] if path.is_file() and path.stat().st_size <= MOST_LIST else {}


def archive_lines(sums: Mapping[str, str]) -> str:
    """The list of a zip of `geneae share`."""
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items())


def checksum(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def is_marked(folder: Path) -> bool:
    """Whether geneae has made a folder, by the mark in its list."""
    path = folder / SUMS
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(HEAD)) == HEAD.encode()


def owned(folder: Path) -> set[str]:
    """Names of the files in a folder that geneae wrote; empty for a folder of somebody else.

    They are those of its list, and checkpoints; of a list to which somebody has added lines, those with names that
    geneae gives. A file that people write into, such as the model card, is geneae's as long as nobody did. Without a
    list, as before there was one, they are the files of a model, a metric, an evaluation or a comparison, if what is in
    them says that geneae wrote it; their names do not.
    """
    there = {path.name for path in folder.iterdir() if path.is_symlink() or not path.is_dir()}
    if not is_marked(folder):
        return (_listed_before(folder) | checkpoint_files(folder)) & there
    content = (folder / SUMS).read_bytes()
    known = set(listed_sums(content)[0])
    if not _is_sealed(content):
        known &= {*OF_RUNS, METRIC_WEIGHTS, *OF_GRIDS}
    return ((known - edited(folder)) | {SUMS} | checkpoint_files(folder)) & there


def edited(folder: Path) -> set[str]:
    """Names of files that geneae wrote for people to read, and that somebody has changed since."""
    if not is_marked(folder):
        return set()
    sums = listed_sums((folder / SUMS).read_bytes())[0]
    texts = [name for name in sums if name.endswith(EDITABLE) and (folder / name).is_file()]
    return {name for name in texts if checksum(folder / name) != sums[name]}


def foreign(folder: Path) -> set[str]:
    """Names of everything else in a folder."""
    return {path.name for path in folder.iterdir()} - owned(folder)


def remove_owned(folder: Path) -> None:
    """Remove the files that geneae wrote, and the folder if nothing else is in it."""
    last = (SUMS, CONFIG, *EARLIER_TABLES)  # a folder that was half removed is still known by them
    for name in sorted(owned(folder), key=lambda name: (name in last, name == SUMS)):
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _listed_before(folder: Path) -> set[str]:
    found: set[str] = set()
    if (folder / CONFIG).is_file() and _is_ours(folder / CONFIG):
        found |= {*SHAREABLE, METRIC_WEIGHTS}
    for name, beginnings in EARLIER_TABLES.items():
        first = _beginning(folder / name)
        for beginning, files in beginnings.items():
            found |= set(files) if first.startswith(beginning) else set()
    return found


def _is_ours(config: Path) -> bool:
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    versions = content.get("versions") if isinstance(content, dict) else None
    return isinstance(versions, dict) and "geneae" in versions and "format" in content


def _beginning(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(100).decode("utf-8", "replace")
