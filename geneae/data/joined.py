"""Several files read as one: the genes that they have in common, and all of their profiles."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from geneae.data.backed import BackedMatrix, select_columns
from geneae.data.labels import as_text
from geneae.data.matrix_choice import Found
from geneae.data.profiles import Profiles
from geneae.data.row_sources import JoinedSource
from geneae.data.states import STATES
from geneae.data.units import is_same_unit
from geneae.settings.errors import InputError, listed
from geneae.settings.text import counted

FILE = "file"
"""Column of obs that names the file of each profile."""


def join(parts: Sequence[Profiles], names: Sequence[str], state: str) -> Found:
    """Profiles of several files, one file after the other, in the genes of the first that all of them have.

    The matrix stays in its files where one of them does. `obs["file"]` names the file; names of profiles that several
    files have are made unique by it.

    Parameters
    ----------
    parts
        Profiles of each file.
    names
        Name of each file, unique.
    state
        What the values are, by the word of the user; `auto` has files refused whose values were not normalised alike.
    """
    _check_states(parts, names)
    if state == "auto":
        _check_units(parts, names)
    genes = parts[0].genes
    for part in parts[1:]:
        genes = genes[genes.isin(part.genes)]
    _check_common(genes, parts, names)
    columns = [part.genes.get_indexer(genes) for part in parts]
    if any(part.is_streamed for part in parts):
        matrix = JoinedSource([_stored(part, some) for part, some in zip(parts, columns, strict=True)])
    else:
        chosen = [_rows(part, some) for part, some in zip(parts, columns, strict=True)]
        matrix = sparse.vstack(chosen, format="csr")
    obs, notes = _obs(parts, names)
    var = parts[0].var
    var = pd.DataFrame(index=genes) if var is None else var.set_axis(parts[0].genes, axis=0).loc[genes]
    left = [f"{len(part.genes) - len(genes):,} of {name}" for part, name in zip(parts, names, strict=True)]
    if any(len(part.genes) > len(genes) for part in parts):
        notes.insert(0, f"The files have {counted(len(genes), 'gene')} in common; left out are {listed(left)}.")
    said = tuple(note for part in parts for note in part.said)
    return Found(matrix, obs, var, parts[0].location, said + tuple(notes))


def with_facts(profiles: Profiles, parts: Sequence[Profiles]) -> Profiles:
    """Joined profiles with what only their parts know: features left out, and places where all of them hold counts."""
    facts = [part.facts for part in parts if part.facts is not None]
    if profiles.facts is None or not facts:
        return profiles
    left_out: Counter[str] = Counter()
    for one in facts:
        left_out |= Counter(one.left_out)  # the most of each type, as files share most of their features
    elsewhere = tuple(place for place in facts[0].elsewhere if all(place in one.elsewhere for one in facts))
    types = tuple(dict.fromkeys(kind for one in facts for kind in one.other_types))
    found = replace(profiles.facts, left_out=dict(left_out), other_types=types, elsewhere=elsewhere)
    return replace(profiles, facts=found)


def names_of(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that tell them apart; a file that is given twice is refused."""
    places = [path.resolve() for path in paths]
    if len(set(places)) < len(places):
        twice = next(path for path, place in zip(paths, places, strict=True) if places.count(place) > 1)
        raise InputError(f"{twice} is given twice, so that every profile would count double. Give each file once.")
    for n_parts in range(1, max(len(place.parts) for place in places)):
        names = ["/".join(place.parts[-n_parts:]) for place in places]
        if len(set(names)) == len(names):
            return names
    return [str(place) for place in places]


def _check_states(parts: Sequence[Profiles], names: Sequence[str]) -> None:
    by_state = {part.state: name for part, name in zip(parts, names, strict=True)}
    if len(by_state) > 1:
        found = listed(f"{STATES[state].noun} in {name}" for state, name in by_state.items())
        raise InputError(
            f"files that are read as one must hold values of the same kind; found {found}. Name a matrix "
            "that all of them have with --layer or --raw, or read them apart."
        )


def _check_units(parts: Sequence[Profiles], names: Sequence[str]) -> None:
    """Refuse files whose values were normalised or logged differently, as far as their values tell it."""
    units = [(part.unit, part.evidence, name) for part, name in zip(parts, names, strict=True)]
    known = [(unit, said, name) for unit, said, name in units if unit is not None]
    for unit, said, name in known[1:]:
        first, said_first, name_first = known[0]
        if not is_same_unit(unit, first):
            is_proven = all(part.scan.finding is not None and part.scan.finding.has_counts for part in parts)
            cure = "--state counts recovers the counts of all of them" if is_proven else "Normalise them alike"
            raise InputError(
                f"files that are read as one must be normalised alike; found {said_first} in {name_first}, and {said} "
                f"in {name}. {cure}; --state {parts[0].state} reads them as they are."
            )


def _check_common(genes: pd.Index, parts: Sequence[Profiles], names: Sequence[str]) -> None:
    if len(genes):
        return
    found = "; ".join(f"{name}: {', '.join(part.genes[:3])}, ..." for part, name in zip(parts, names, strict=True))
    raise InputError(
        f"files that are read as one must have genes in common; found none ({found}). Name genes alike "
        "with --gene-names."
    )


def _stored(part: Profiles, columns: np.ndarray) -> BackedMatrix:
    """Rows and some columns of a file, or of a matrix in memory in the same clothes."""
    matrix = part.matrix
    if not isinstance(matrix, BackedMatrix):
        matrix = BackedMatrix(matrix, np.arange(part.n_profiles), part.scan.lengths)
    return matrix.select(columns)


def _rows(part: Profiles, columns: np.ndarray) -> sparse.csr_matrix:
    assert not isinstance(part.matrix, BackedMatrix)
    return select_columns(part.matrix, columns)


def _obs(parts: Sequence[Profiles], names: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Annotation of all profiles under unique names, and notes on what was changed for it."""
    notes, mixed = [], []
    files = np.repeat(np.array(names, dtype=object), [part.n_profiles for part in parts])
    obs = pd.concat([part.obs for part in parts])
    for column in obs.columns:
        kinds = {part.obs[column].dtype for part in parts if column in part.obs.columns}
        if obs[column].dtype == object:
            whole = _of_one_type(obs[column])
            mixed += [str(column)] * (whole.dtype == object and not whole.equals(obs[column]))
            is_categorical = any(isinstance(kind, pd.CategoricalDtype) for kind in kinds) and whole.dtype == object
            obs[column] = whole.astype("category") if is_categorical else whole
    if mixed:
        notes.append(
            f"Columns of obs that hold values of different types in the files are read as text: {listed(mixed)}."
        )
    if FILE in obs.columns:
        notes.append(f"obs['{FILE}'] of the files is replaced by the name of the file of each profile.")
    obs[FILE] = pd.Categorical(files, list(names))
    everywhere = pd.Index([name for part in parts for name in part.names], dtype=object)
    shared = everywhere.duplicated(keep=False)
    if shared.any():
        unique = [
            f"{name}-{file}" if is_shared else name
            for name, file, is_shared in zip(everywhere, files, shared, strict=True)
        ]
        notes.append(
            f"{shared.sum():,} profiles have a name that another file has, too; the name of the file was added to it, "
            f"first '{unique[int(np.argmax(shared))]}'."
        )
        everywhere = pd.Index(unique, dtype=object)
    return obs.set_axis(everywhere, axis=0), notes


def _of_one_type(column: pd.Series) -> pd.Series:
    """A column of objects in one type, so that it can be written: truth values and numbers with gaps, or else text."""
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind in ("string", "empty"):
        return column
    if kind == "boolean":
        return column.astype("boolean")
    if kind in ("integer", "floating", "mixed-integer-float"):
        return column.astype(float)
    text: pd.Series = column.map(as_text, na_action="ignore").astype(object)  # pandas 3 has a type for texts
    return text
