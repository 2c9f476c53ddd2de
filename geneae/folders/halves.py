"""Folders of halves: what other programs may see, and apart from it what they are judged by."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.io import sparse_dataset, write_elem
from scipy import sparse

from geneae import __version__
from geneae.data.halves import SPLIT_COLUMN, Halves, divided, facts_of, obs_of_half, split_of
from geneae.data.profiles import Profiles
from geneae.data.reading import read_profiles
from geneae.folders.contents import FolderContents
from geneae.folders.manifest import SPLIT
from geneae.folders.outputs import write_json
from geneae.folders.tables import read_table, write_table
from geneae.settings.errors import InputError
from geneae.settings.halves import HalvesSettings

INPUT, TRAINING, HELD_OUT_HALF, RECORD = "input.h5ad", "train.h5ad", "held_out.h5ad", "halves.json"
FORMAT = 1
OF_HALVES = (INPUT, TRAINING, HELD_OUT_HALF, RECORD, SPLIT)
"""Files of a folder of halves."""
REPEAT = "repeat_{repeat}"
"""Names of the folders of several divisions, in that of all."""


def write_halves(folder: Path, profiles: Profiles, settings: HalvesSettings, repeat: int, command: str = "") -> None:
    """Divide profiles and write them into an existing folder, 1,024 at a time.

    `input.h5ad` holds what other programs may see, `train.h5ad` both halves of the training profiles, for programs that
    learn from them; `held_out.h5ad`, `split.csv` and `halves.json` are for judging.
    """
    split = split_of(profiles, settings)

    def facts(half: str) -> dict[str, str | int | float]:
        return facts_of(half, settings, repeat, profiles.fingerprint)

    obs = profiles.obs.assign(**{SPLIT_COLUMN: split.to_numpy()})
    is_train = (split == "train").to_numpy()
    both: list[pd.DataFrame] = []
    with ExitStack() as stack:
        given, held_out, training = (
            _Growing(stack.enter_context(h5py.File(folder / name, "w"))) for name in (INPUT, HELD_OUT_HALF, TRAINING)
        )
        for rows, one, other in divided(profiles, settings, repeat):
            given.append(one)
            held_out.append(other)
            chosen = np.flatnonzero(is_train[rows])
            for half, name in ((one, "given"), (other, "held_out")):
                training.append(half[chosen])
                both.append(obs_of_half(profiles.obs.iloc[rows].iloc[chosen], name))
        given.finish(obs, profiles.genes, facts("given"))
        held_out.finish(obs, profiles.genes, facts("held_out"))
        training.finish(pd.concat(both), profiles.genes, facts("both"))
    write_table(pd.DataFrame({"profile": profiles.names, "split": split.to_numpy()}), folder / SPLIT)
    write_json(
        folder / RECORD,
        {
            "format": FORMAT,
            "versions": {"geneae": __version__},
            "command": command,
            "settings": asdict(settings),
            "repeat": repeat,
            "source": profiles.source,
            "location": profiles.location,
            "fingerprint": profiles.fingerprint,
            "n_profiles": profiles.n_profiles,
            "n_genes": profiles.n_genes,
        },
    )


class _Growing:
    """An .h5ad file whose profiles are appended in blocks."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file

    def append(self, block: sparse.csr_matrix) -> None:
        """Append the next profiles."""
        if "X" in self._file:
            sparse_dataset(self._file["X"]).append(block)
        else:
            write_elem(self._file, "X", block, dataset_kwargs={"compression": "gzip", "compression_opts": 1})

    def finish(self, obs: pd.DataFrame, genes: pd.Index, facts: Mapping[str, Any]) -> None:
        """Write everything but the matrix."""
        self._file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name, element in (("obs", obs), ("var", pd.DataFrame(index=genes)), ("uns", {"geneae": dict(facts)})):
            write_elem(self._file, name, element)
        for name in ("layers", "obsm", "varm", "obsp", "varp"):
            write_elem(self._file, name, {})


def read_halves(folder: Path, stream: str = "no") -> Halves:
    """Halves as `geneae split` has written them; a folder of something else, or one that was changed, is refused."""
    if not (folder / RECORD).is_file():
        several = sorted(path.name for path in folder.glob("repeat_*")) if folder.is_dir() else []
        hint = f" It holds {', '.join(several)}: give one of these." if several else ""
        raise InputError(f"{folder} is not a folder of geneae split, which has {RECORD}.{hint}")
    files = FolderContents(folder)
    record = files.json(RECORD)
    if record.get("format") != FORMAT:
        raise InputError(f"{folder / RECORD} is of another version of geneae. Split the data again.")
    table = read_table(files.read(SPLIT))
    given, held_out = (read_profiles(folder / name, stream=stream) for name in (INPUT, HELD_OUT_HALF))
    split = pd.Series(table["split"].to_numpy(), index=given.names, name="split")
    halves = Halves(
        given,
        held_out,
        split,
        HalvesSettings(**record["settings"]),
        int(record["repeat"]),
        str(record["source"]),
        str(record["location"]),
        str(record["fingerprint"]),
    )
    if list(table["profile"]) != list(given.names) or not given.names.equals(held_out.names):
        raise InputError(f"the files of {folder} hold different profiles. Split the data again.")
    return halves
